# SPDX-License-Identifier: Apache-2.0
"""A shared netns: made, linked to the outside, mended and removed."""
