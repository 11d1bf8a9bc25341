# SPDX-License-Identifier: Apache-2.0
"""Kept for launchers that `install` wrote while there was a file of compiled modules."""


def use(_path: str) -> None:
    """Do nothing, whatever file such a launcher names."""
