# SPDX-License-Identifier: Apache-2.0
"""The user namespace of a user without capabilities, and the pause process that holds it."""
