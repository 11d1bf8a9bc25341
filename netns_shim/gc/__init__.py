# SPDX-License-Identifier: Apache-2.0
"""Garbage collection: finding containers that are gone, and detaching them."""
