# SPDX-License-Identifier: Apache-2.0
"""The names of one netns: the references say them, the files and the server follow.

So nothing can be lost: each call writes all files by what the references say, and starts the
server if it does not run. That happens under a lock, which is kept until the server answers as the
files say. A server of before 1.5 that is reading must not find another change.
"""

from __future__ import annotations

import os

from .. import interrupt
from ..attachment import DELETING
from ..errors import NAMES_UNAVAILABLE, ShimError, warn
from ..locks import Lock
from ..proc import start_time
from ..shared import guardian, listing, mounts, name_servers, processes, scope
from ..shared.files import remove_special, write_atomically
from ..shared.name_servers import FILES, GUARDIAN
from ..shared.nsenter import run_in
from ..state import FILE_MODE, NAMES, make_below, outer_uid, read_file, remove
from . import entries, server, walls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..state import State

LOCK_SECONDS = 60
# How long to wait for the end of a server that could not start, in seconds.
LAST_WORDS = 1.0
# How often to make the directory again that other calls remove before this one has the lock.
ATTEMPTS = 10
# In the directory of a netns, below NAMES: the files of the server, and what belongs to it.
PART, LOG, LIFELINE, WALLS = "part", "log", "lifeline", "walls"


class Table:
    """The names of the netns at a path, which has this inode.

    The plugins may run in place, and one directory then has the state of all of this user's
    network namespaces. An empty path is a netns that this process does not find: its server is not
    started.
    """

    __slots__ = ("_directory", "_home", "_path", "_state")

    def __init__(self, state: State, path: str, home: int) -> None:
        self._state = state
        self._path = path
        self._home = home
        self._directory = state.path(f"{NAMES}/{home}")

    def follow(self, leaving: str = "") -> None:
        """Make files and server as the references say, without the one of this name.

        Raises ShimError (code 107) where the server cannot be started, or does not answer.
        """
        for _ in range(ATTEMPTS):
            try:
                make_below(self._state.dir, f"{NAMES}/{self._home}/{FILES}")
                with Lock(f"{self._directory}.lock", LOCK_SECONDS, "names", stays=False):
                    if not os.path.isdir(f"{self._directory}/{FILES}"):
                        continue  # another call has just removed it
                    self._follow(leaving)
                break
            except FileNotFoundError:
                if not os.path.isdir(self._state.dir):
                    raise
        try:
            os.rmdir(self._state.path(NAMES))
        except OSError:
            pass  # there are names, here or in another netns

    def _follow(self, leaving: str) -> None:
        link = self._state.uplink()
        is_cut_off = link.driver == "none"
        servers = link.dns_forwarders or link.forwarders
        hosts = [] if is_cut_off else link.host_addresses
        named = self.entries(leaving)
        found, marker, listening = entries.files(named, servers, hosts, is_cut_off=is_cut_off)
        if not found:
            self.end()
            return
        self._wall_in(entries.allowed(named))
        before = server.running(self._files)
        if not self._write(found) and before[0] and self._answers(marker, listening):
            self._guard()
            return
        if self._serve(marker, listening, is_cut_off=is_cut_off):
            return
        # One of before 1.5 may have ended over what it has read. One that was there may hang.
        processes.stop(*before)
        if server.running(self._files)[0] or not self._serve(
            marker, listening, is_cut_off=is_cut_off
        ):
            raise ShimError(
                NAMES_UNAVAILABLE,
                f"{server.PROGRAM} does not answer at {', '.join(listening)}",
                "look into its log: " + f"{self._directory}/{LOG}",
            )

    def entries(self, leaving: str = "") -> list[AttachmentRecord]:
        """List the attachments that have names here."""
        return [
            record
            for record in listing.records(self._state)
            if record.naming.number("home") == self._home
            and not record.is_of_other_boot
            and record.phase != DELETING
            and record.name.file != leaving
        ]

    @property
    def _files(self) -> str:
        return f"{self._directory}/{FILES}"

    @property
    def is_served(self) -> bool:
        """Whether its server runs."""
        return bool(server.running(self._files)[0])

    def _wall_in(self, allowed: dict[str, list[str]]) -> None:
        """Have the kernel keep containers of other networks away from the server."""
        text = "".join(f"{address} {' '.join(allowed[address])}\n" for address in allowed)
        path = f"{self._directory}/{WALLS}"
        is_same = _read(path) == text
        if not self._path or (is_same and not run_in(self._path, walls.are_gone)):
            return
        try:
            run_in(self._path, lambda: walls.build(allowed))
        except ShimError as error:
            warn(f"names: containers of other networks may ask for them, too: {error}")
        write_atomically(path, text)

    def _write(self, found: dict[str, str]) -> bool:
        """Write what has changed; tell whether anything has."""
        there = set(os.listdir(self._files)) - {name_servers.PID_FILE}
        is_other = there != found.keys()
        for name, text in found.items():
            path = f"{self._files}/{name}"
            if name in there and read_file(path) == text.encode():
                continue
            write_atomically(f"{self._directory}/{PART}", text)
            os.rename(f"{self._directory}/{PART}", path)
            is_other = True
        for name in there - found.keys():
            os.unlink(f"{self._files}/{name}")
        return is_other

    def _serve(self, marker: str, listening: list[str], *, is_cut_off: bool) -> bool:
        """Have a server answer by the files; tell whether it does."""
        is_new = not self.is_served
        if is_new and not self._path:
            warn("names: the server is gone; the next ADD of a network with names starts it again")
            return True
        if is_new:
            self._refuse_taken(listening)
            self._start(is_cut_off=is_cut_off)
        else:
            server.tell(self._files)
        if not self._path:
            return True
        self._guard()
        answers: bool = run_in(
            self._path,
            lambda: server.await_answer(self._files, listening, marker, is_new=is_new),
        )
        return answers

    def _answers(self, marker: str, listening: list[str]) -> bool:
        """Ask the server once about what its files say now."""
        asked = f"{marker}.{entries.DOMAIN}"
        return not self._path or bool(
            run_in(self._path, lambda: any(bool(server.ask(at, asked)) for at in listening))
        )

    def _refuse_taken(self, listening: list[str]) -> None:
        """Refuse to start a server that cannot listen, and would not say so."""
        taken = run_in(self._path, lambda: server.taken(listening))
        if taken and (found := name_servers.strays(self._files, self._home)):
            # One of ours, whose files were removed.
            for pid, since in found:
                processes.stop(pid, since)
            taken = run_in(self._path, lambda: server.taken(listening))
        if taken:
            raise ShimError(
                NAMES_UNAVAILABLE,
                f"names: another program has port 53 of {', '.join(taken)}",
                "such as aardvark-dns by netavark's key dns_enabled: names need one of the two",
            )

    def _start(self, *, is_cut_off: bool) -> None:
        program = server.find(os.environ)
        reader, writer = self._lifeline()
        try:
            run_in(
                self._path,
                lambda: server.start(
                    program,
                    self._files,
                    f"{self._directory}/{LOG}",
                    writer,
                    is_cut_off=is_cut_off,
                ),
            )
        except ShimError as error:
            os.close(writer)
            writer = -1
            # Its child, which has the lifeline as well, says the reason after it has ended itself.
            interrupt.wait(reader, LAST_WORDS, "waiting for the server of names")
            said = f"{error.details}: {_read(f'{self._directory}/{LOG}')[-1000:].strip()}"
            raise ShimError(NAMES_UNAVAILABLE, "names: no server", said) from None
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        if pid := server.running(self._files)[0]:
            scope.move([pid], f"names-{self._state.name}", outer_uid(), os.environ)

    def _lifeline(self) -> tuple[int, int]:
        """Make a FIFO that ends with the server; give both ends."""
        path = f"{self._directory}/{LIFELINE}"
        remove(path)
        os.mkfifo(path, FILE_MODE)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        return reader, os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def _guard(self) -> None:
        """See to it that a guardian waits for the end of the server.

        This process is outside of a shared netns, or in one that is the caller's. So is the
        guardian, which starts the server again.
        """
        pid, since = self._guardian()
        is_there = pid != os.getpid() and pid and start_time(pid) == since
        if not self._path or is_there:
            return
        out = reader = -1
        try:
            reader = os.open(
                f"{self._directory}/{LIFELINE}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
            os.set_blocking(reader, True)
            remove_special(f"{self._directory}/{LOG}")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            out = os.open(f"{self._directory}/{LOG}", flags, FILE_MODE)
            command = guardian.waiting(self._state)
            pid = server.spawn(command, out, -1, os.environ, reader)
            scope.move([pid], f"guardian-names-{self._state.name}", outer_uid(), os.environ)
            write_atomically(f"{self._directory}/{GUARDIAN}", f"{pid} {start_time(pid)}")
        except OSError as error:
            warn(f"names: no guardian, which would start the server again: {error}")
        finally:
            for fd in (reader, out):
                if fd >= 0:
                    os.close(fd)

    def _guardian(self) -> tuple[int, int]:
        return name_servers.written(f"{self._directory}/{GUARDIAN}")

    def end(self) -> None:
        """End the server, after its guardian, and remove the files."""
        interrupt.disregard()
        known = self._guardian()
        own = server.running(self._files)
        # A call that was killed may have started a guardian, and not written it down.
        others = {known}
        if not known[0] or start_time(known[0]) != known[1]:
            others |= processes.holders(f"{self._directory}/{LIFELINE}")
        strays = set() if own[0] else name_servers.strays(self._files, self._home)
        for pid, since in (*(others - {own}), own, *strays):
            if pid not in (0, os.getpid()):
                processes.stop(pid, since)
        if self._path and os.path.lexists(f"{self._directory}/{WALLS}"):
            try:
                run_in(self._path, walls.remove)
            except ShimError:
                pass  # another program has removed them, or the kernel has refused them
        mounts.remove_tree(self._directory)


def _read(path: str) -> str:
    try:
        return read_file(path).decode(errors="replace")
    except FileNotFoundError:
        return ""
