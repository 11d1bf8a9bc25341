# SPDX-License-Identifier: Apache-2.0
"""Whether a network configuration is valid, and what is wrong with it."""
