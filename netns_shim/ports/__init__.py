# SPDX-License-Identifier: Apache-2.0
"""Ports of the host that lead to containers: what an attachment wants, and who opens it."""
