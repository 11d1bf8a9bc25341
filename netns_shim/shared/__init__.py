# SPDX-License-Identifier: Apache-2.0
"""A shared netns: making it, joining it to the host's network, repairing and removing it."""
