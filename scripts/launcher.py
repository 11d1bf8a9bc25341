#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the launchers that are part of the sources: as `netns-shim install` does, by its text.

    scripts/launcher.py             # write plugins/netns-shim, that of a checkout
    scripts/launcher.py --package   # print that of the Debian package: debian/rules

A test tells when plugins/netns-shim has to be written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "plugins" / "netns-shim"
sys.path.insert(0, str(ROOT))

from netns_shim.cli import install  # noqa: E402 (the path comes first)

MARK = "# The plugin of this checkout. Written by scripts/launcher.py."
# A checkout may be anywhere. Its libraries come first, then those of the distribution.
PATH = f"""\
import os
import sys

PLACE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path += [
    PLACE,
    f"{{PLACE}}/.venv/lib/python{{sys.version_info[0]}}.{{sys.version_info[1]}}/site-packages",
    "{install.DIST_PACKAGES}",
]
"""


def of_checkout() -> str:
    """Give the text of plugins/netns-shim."""
    return install.text(install.INTERPRETER, MARK, PATH)


def of_package() -> str:
    """Give the text of the plugin in the Debian package."""
    paths = [install.DIST_PACKAGES]
    return install.text(install.INTERPRETER, install.PACKAGED, install.path_of(paths))


if __name__ == "__main__":
    if sys.argv[1:] == ["--package"]:
        print(of_package(), end="")
    else:
        PLUGIN.write_text(of_checkout())
        PLUGIN.chmod(0o755)
