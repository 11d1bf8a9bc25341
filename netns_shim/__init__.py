# SPDX-License-Identifier: Apache-2.0
"""Run any CNI plugin inside a shared rootless network namespace.

This module runs before every other one of the package, at every plugin call: it imports nothing.
"""

__version__ = "0.1.0"
