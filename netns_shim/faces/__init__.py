# SPDX-License-Identifier: Apache-2.0
"""Other ways to be called than as a CNI plugin: by netavark, and in place of netavark."""
