# SPDX-License-Identifier: Apache-2.0
"""The executable: which of its faces is asked for."""

from __future__ import annotations

import os
import sys

from . import cni, skel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def _load_verbs() -> ModuleType:
    from . import verbs  # ctypes and more: not for VERSION, which runtimes ask often

    return verbs


def main(argv: list[str]) -> int:
    """Serve a runtime or a person; give the exit status.

    Arguments are given by people only: a CNI runtime passes none, and its CNI_COMMAND can be
    inherited by a command that is none of its plugins.
    """
    if argv[1:]:
        from . import cli  # argparse and more: for people only

        return cli.main(argv[1:])
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(cni.about())
        return 0
    return skel.serve(_load_verbs, os.environ, 0, 1)


def console() -> None:
    """Start from the script that pip makes."""
    sys.exit(main(sys.argv))
