# SPDX-License-Identifier: Apache-2.0
"""What is attached to a shared netns by what the kernel says, for the moment when files are gone.

A reference may be removed by another program, such as one that empties /tmp, while its container
lives. So before a shared netns is removed, we look for interfaces that lead to other netns. A DEL
without the netns of a container leaves such an interface, and says so in the file `left`.
"""

from __future__ import annotations

import os
import time

from .. import interrupt, netns
from ..errors import ShimError, warn
from ..state import FILE_MODE, read_file
from . import nsenter
from .attributes import split
from .files import remove_special
from .rtnetlink import IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, LINK, RTM_GETLINK, dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..state import State

# The names of interfaces that detached containers have left; ANY for one that is not known.
LEFT = "left"
ANY = "*"

IFLA_LINK_NETNSID = 37
# How long the kernel may take to remove the interfaces of a netns that has just ended, in seconds.
END_SECONDS = 3.0
# How long to wait before looking again, in seconds.
PAUSE = 0.05


def keep(state: State) -> bool:
    """Keep a shared netns whose `refs/` is gone, if a container is attached; tell whether one is.

    `refs/` is made again, so that the next DEL or GC looks once more. Call it under the lock.
    """
    if not state.uplink() or netns.identity(state.pin, is_ours=True) is None:
        return False  # making it was cut off, or it is lost
    left = _read(state.path(LEFT))
    if ANY in left:
        return False
    deadline = time.monotonic() + END_SECONDS
    while found := [name for name in _veths(state.pin) if name not in left]:
        if time.monotonic() > deadline:
            os.mkdir(state.refs, 0o700)
            warn(
                f"the shared netns {state.name!r} has no references, but the interface "
                f"{found[0]} leads to a container: it stays. Has a program removed files from "
                f"{state.base}? `netns-shim stop --force` removes the netns"
            )
            return True
        interrupt.check("waiting for the interfaces of a container to go")
        time.sleep(PAUSE)
    return False


def leave_behind(state: State, record: AttachmentRecord) -> None:
    """Write down the interfaces that a DEL has left, as it had no netns of the container."""
    names = host_side(record) or {ANY}
    remove_special(state.path(LEFT))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(state.path(LEFT), flags, FILE_MODE)
    os.write(fd, "".join(f"{name}\n" for name in sorted(names)).encode(errors="replace"))
    os.close(fd)


def _read(path: str) -> list[str]:
    try:
        return read_file(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def host_side(record: AttachmentRecord) -> set[str]:
    """List the interfaces of a result that are not in the container; skip odd entries."""
    interfaces = (record.result or {}).get("interfaces")
    return {
        item["name"]
        for item in (interfaces if isinstance(interfaces, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str) and not item.get("sandbox")
    }


def _veths(pin: str) -> list[str]:
    try:
        found: list[str] = nsenter.run_in(pin, _leading_away)
    except ShimError:
        return []  # nothing can be attached to what cannot be entered
    return found


def _leading_away() -> list[str]:
    """List the veth devices of this netns whose other end is in another one."""
    return sorted(
        link[IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
        for _, link in dump(RTM_GETLINK, LINK)
        if IFLA_LINK_NETNSID in link
        and dict(split(link.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")[:4] == b"veth"
    )
