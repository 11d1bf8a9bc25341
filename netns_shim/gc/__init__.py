# SPDX-License-Identifier: Apache-2.0
"""What is left over: which containers are gone, and what of them is to be deleted."""
