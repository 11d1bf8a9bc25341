# SPDX-License-Identifier: Apache-2.0
"""Whether a network configuration is right, and what is wrong with it."""
