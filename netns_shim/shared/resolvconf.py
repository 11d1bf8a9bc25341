# SPDX-License-Identifier: Apache-2.0
"""The host's resolv.conf, and the one of the shared netns: resolv.conf(5)."""

from __future__ import annotations

import errno
import os

from ..hostnet import BEHIND_STUBS, RESOLV_CONF
from ..state import FILE_MODE
from . import addresses
from .files import read_text, remove_special

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

# How many links lead on to another one before that counts as a mistake.
MAXIMUM_LINKS = 40


class HostNames:
    """What the host's files say about names.

    `listed` are the servers of /etc/resolv.conf, with their zones. Where one of these is on the
    host's loopback, `behind` are the servers that the resolver there asks, if a file names them.
    `search` and `options` are lines for the netns.
    """

    __slots__ = ("behind", "listed", "options", "search")

    def __init__(self) -> None:
        """Read the files; one that cannot be read counts as empty."""
        lines = _read(RESOLV_CONF)
        self.listed = _values(lines, "nameserver")
        self.behind = list[str]()
        if any(is_loopback(server) for server in self.listed):
            for path in BEHIND_STUBS:
                real = _read(path)
                if found := _values(real, "nameserver"):
                    lines, self.behind = real, found
                    break
        # The last `search` counts; `domain` is its older form. Options add up.
        self.search = [v for keyword, v in lines if keyword in ("search", "domain")][-1:]
        self.options = [v for keyword, v in lines if keyword == "options"]

    @property
    def servers(self) -> list[str]:
        """The servers that may be reached from another netns."""
        return list(filter(is_reachable, self.behind or self.listed))


def compose(host: HostNames, forwarders: list[str], *, has_ipv6: bool) -> str:
    """Write a resolv.conf: the forwarders first, then the host's servers that can be reached.

    Search domains and options are the host's. No other servers are ever put in.
    """
    known = [server for server in host.servers if has_ipv6 or ":" not in server]
    return "".join(
        [f"search {value}\n" for value in host.search]
        + [f"nameserver {server}\n" for server in dict.fromkeys([*forwarders, *known])]
        + [f"options {value}\n" for value in host.options]
    )


def is_below(*directories: str) -> bool:
    """Tell whether the host's file can be read by a process that sees only these directories.

    Also each link on the way must be in there: /var/run leads to /run, but is not.
    """
    path = RESOLV_CONF
    for _ in range(MAXIMUM_LINKS):
        directory, name = os.path.split(os.path.normpath(path))
        if not any(f"{os.path.realpath(directory)}/".startswith(f"{d}/") for d in directories):
            return False
        if not any(f"{directory}/".startswith(f"{d}/") for d in directories):
            return False
        try:
            path = os.path.join(directory, os.readlink(f"{directory}/{name}"))
        except OSError:
            return True  # it is the file itself, or missing
    return False


def _read(path: str) -> list[tuple[str, str]]:
    try:
        text = read_text(path)
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        content = line.split("#", 1)[0].split(";", 1)[0].split(None, 1)
        if len(content) == 2:
            lines.append((content[0], content[1].strip()))
    return lines


def _values(lines: list[tuple[str, str]], keyword: str) -> list[str]:
    return [value.split()[0] for found, value in lines if found == keyword]


def is_loopback(server: str) -> bool:
    """Tell whether a server can be asked by the host only."""
    return addresses.is_own(addresses.packed(server.partition("%")[0]))


def is_reachable(server: str) -> bool:
    """Tell whether a server may be reached from another netns.

    An address with a zone cannot: the zone names an interface of the host.
    """
    address = addresses.packed(server)
    return len(address) > 0 and not addresses.is_own(address)


def write(state: State, text: str) -> bool:
    """Write the resolv.conf of a netns; tell whether that changed it.

    An existing file is overwritten, not replaced. A process that runs in the netns, such as a name
    server, has it mounted: it sees the new content, but after a rename(2) would see the old file.
    It is never empty, which would tell that it was cut off, and one write(2) makes it whole.
    """
    content = text.encode() or b"\n"
    path = state.path("resolv.conf")
    remove_special(path)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        new = f"{path}.new"
        remove_special(new)
        fd = os.open(new, flags | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    else:
        new = ""
    with open(fd, "r+b", buffering=0) as file:
        before = file.read()
        if before == content:
            return False
        # In a container it is mounted into, root is an unprivileged user of ours.
        os.fchmod(fd, FILE_MODE | 0o044)
        # Empty lines cover what is longer there, until it is cut.
        _write_whole(fd, content.ljust(len(before), b"\n"), path)
        os.ftruncate(fd, len(content))
    if new:
        os.rename(new, path)
    return True


def _write_whole(fd: int, content: bytes, path: str) -> None:
    if os.pwrite(fd, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
