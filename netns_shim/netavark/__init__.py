# SPDX-License-Identifier: Apache-2.0
"""The wire of netavark: its documents, what CNI calls them, and its drivers."""
