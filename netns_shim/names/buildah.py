# SPDX-License-Identifier: Apache-2.0
"""How a container of Buildah is called: Buildah tells plugins an ID that it makes up each time.

The name of the container, and its own ID, are in a file that Buildah mounts into the container
before it calls the plugins. So no image can bring another one.
"""

from __future__ import annotations

import os

from ..shared import processes
from ..shared.files import file_at
from ..state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..request import Request

# How each ID begins that Buildah gives a container while a step runs.
PREFIX = "buildah-buildah"
FILE = "run/.containerenv"
# How many digits of the own ID are the host name of the container.
SHORT = 12


def is_of_buildah(request: Request) -> bool:
    """Tell whether Buildah asks for it: then the first 12 digits are those of all others, too."""
    return request.container_id.startswith(PREFIX)


def names(request: Request) -> list[str]:
    """List the name of a container of Buildah and the first digits of its own ID, where known.

    Call it in the PID namespace of Buildah.
    """
    if not is_of_buildah(request):
        return []
    for pid in _processes(request.netns):
        try:
            text = read_file(f"/proc/{pid}/root/{FILE}").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        pairs = [line.partition("=") for line in text.splitlines()]
        found = {key: value.strip('"') for key, _, value in pairs}
        if found.get("engine", "").startswith("buildah-"):
            return [each for each in (found.get("name", ""), found.get("id", "")[:SHORT]) if each]
    return []


def _processes(netns: str) -> list[int]:
    """List the processes in a netns: of one that is being made, the first one of the container."""
    wanted = file_at(netns)
    ids = processes.ids() if wanted and os.path.isabs(netns) else []
    return [pid for pid in ids if file_at(f"/proc/{pid}/ns/net") == wanted]
