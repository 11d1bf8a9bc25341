# SPDX-License-Identifier: Apache-2.0
"""What stays visible of the places that are hidden from plugins: below /run and /var/lib/cni.

A path can lead there as it is written, after its links are followed, and on the way. Each call
asks for all of its paths, so no name is looked up twice.
"""

from __future__ import annotations

import errno
import os
import sys

from .errors import warn
from .invoke import usual_places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .request import Request

CNI_STATE = "/var/lib/cni"
RUN = "/run"
MAXIMUM_LINKS = 255
# Whole systems are made of links to here: none of them leads to a hidden place.
STORES = ("/nix/", "/gnu/")
# How many links of a directory in PATH are followed: one with more is that of a whole system.
MOST = 100


class Paths:
    """The paths of one call that have to stay visible."""

    __slots__ = ("_links", "_visible", "_wanted")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._links: dict[str, str] = {}
        # Directories by their name in a link; "" for one that is hidden, or reached by such a way.
        self._visible: dict[str, str] = {}
        self._wanted: set[str] = set()
        for path in paths:
            self.add(path)

    def add(self, path: str) -> str:
        """Add a path that may be hidden; give it without links, "" for none."""
        real = ""
        for real in self._ways(path) if path else ():
            if _is_hidden(real):
                self._wanted.add(real)
        return real

    def add_around(self, path: str) -> None:
        """Add the directory that a path lies in, and those that its links lead to.

        What lies directly in a hidden place is added alone: its directory would be all of that.
        """
        for way in self._ways(path):
            directory = os.path.dirname(way)
            if _is_hidden(way):
                self._wanted.add(directory if _is_hidden(directory) else way)

    def add_directory(self, path: str, most: int = 1 << 30) -> None:
        """Add a directory of programs, and what the links in it lead to."""
        real = self.add(path)
        if not real or real.startswith(STORES):
            return
        try:
            entries = os.scandir(real)
        except OSError:
            return
        with entries:
            for entry in entries:
                if entry.is_symlink():
                    if not self._is_plain(entry.path):
                        self.add_around(entry.path)
                    most -= 1
                    if not most:
                        break

    def _is_plain(self, path: str) -> bool:
        """Tell whether a link leads to a visible file in one step, as most links do: it is quick.

        False does not say that it leads elsewhere.
        """
        directory, _, name = self._link(path).rpartition("/")
        if _is_hidden(path) or not directory.startswith("/") or name in ("", ".", ".."):
            return False
        real = self._visible.get(directory)
        if real is None:
            ways = [*self._ways(directory)]
            is_hidden = any(_is_hidden(f"{way}/") for way in ways)
            real = self._visible[directory] = "" if is_hidden else ways[-1]
        return bool(real) and not self._link(f"{real}/{name}")

    def add_caller(self, environ: Mapping[str, str]) -> None:
        """Add what a program needs of the one that starts it: where it is, its home, its PATH."""
        # Many files are links into the second one, such as /dev/log.
        for path in (environ.get("XDG_RUNTIME_DIR", ""), "/run/systemd", environ.get("HOME", "")):
            self.add(path)
        try:
            self.add(os.getcwd())
        except OSError:
            pass  # it was removed, or this process may not know its name
        # Our own modules, which are imported late, may be in a virtual environment there.
        for path in (sys.prefix, *sys.path):
            if not path.startswith("/usr"):
                self.add(path)
        usual = usual_places()
        for directory in environ.get("PATH", "").split(":"):
            if directory.startswith("/") and directory not in usual:
                self.add_directory(directory, MOST)
        for directory in usual:
            if _is_hidden(directory):
                self.add(directory)

    def _ways(self, path: str) -> Iterator[str]:
        """Give each way in which a path is written until its links are followed, the last alone.

        Ways that lead nowhere in the end are given as well.
        """
        done, todo, links = "", path.split("/")[::-1], 0
        if not path.startswith("/"):
            try:
                todo += os.getcwd().split("/")[::-1]
            except OSError:
                return
        yield _written(done, todo)
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = os.path.dirname(done).rstrip("/")
                continue
            done = f"{done}/{part}"
            link = self._link(done)
            if link:
                links += 1
                if links > MAXIMUM_LINKS:
                    return
                todo += link.split("/")[::-1]
                done = "" if link.startswith("/") else os.path.dirname(done).rstrip("/")
                yield _written(done, todo)
        yield done

    def _link(self, path: str) -> str:
        """Read a link; "" for anything else."""
        link = self._links.get(path)
        if link is None:
            try:
                link = os.readlink(path)
            except OSError:
                link = ""
            self._links[path] = link
        return link

    def list(self) -> list[str]:
        """List the hidden ones that exist, none below another one."""
        found: list[str] = []
        for path in sorted(self._wanted):
            if os.path.exists(path) and not any(path.startswith(f"{o}/") for o in found):
                found.append(path)
        return found


def _written(done: str, todo: list[str]) -> str:
    """Write a path of which a part is done; the rest is in reverse."""
    return os.path.normpath("/".join([done, *filter(None, todo[::-1])]))


def _is_hidden(path: str) -> bool:
    return path.startswith((f"{RUN}/", f"{CNI_STATE}/"))


def of_request(request: Request) -> Paths:
    """List the directories that hold the paths that a call gives to a plugin."""
    conf = request.conf
    paths = Paths()
    for path in conf.get("keep") or []:
        paths.add(path)
        if not os.path.exists(path):
            warn(f"`keep`: {path} is not there: its daemon may not be running")
    for directory in (*request.path.split(":"), *(conf.get("pluginDirs") or [])):
        paths.add_directory(directory)
    for entry in [conf.get("delegate") or {}, *(conf.get("plugins") or [])]:
        # With `type`, the key belongs to the plugin and may be of any kind.
        if "driver" in entry and entry.get("path"):
            paths.add_directory(os.path.dirname(entry["path"]))
    if request.netns:
        paths.add_around(request.netns)
    return paths


def resolv_conf_target(path: str) -> str:
    """Tell where to mount the resolv.conf of the netns so that `path` leads to it.

    The kernel follows links before it mounts, so this does too, in every component; but it stops
    at the first one under /run, because links below are not in the new /run.

    Raises OSError where there is no such file, or more than 255 links.
    """
    done, todo, links = "", path.split("/")[::-1], 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done).rstrip("/")
            continue
        done = f"{done}/{part}"
        if done == "/run":
            return os.path.normpath("/".join([done, *todo[::-1]]))
        try:
            link = os.readlink(done)
        except OSError as error:
            if error.errno == errno.EINVAL:
                continue
            raise
        links += 1
        if links > MAXIMUM_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        todo += link.split("/")[::-1]
        done = "" if link.startswith("/") else os.path.dirname(done).rstrip("/")
    return done
