# SPDX-License-Identifier: Apache-2.0
"""Running a command beside a keeper, which cleans up after it.

There are three processes: this one, which forwards signals and gives the exit status; the command;
and the keeper. If this process is killed, the keeper ends the command. Then it cleans up.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from .. import invoke
from ..errors import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..enter import Inside, Unchanged

FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
# sigaction(2): the terminal sent the signal, and so it sent it to the command as well.
SI_KERNEL = 0x80
END_SECONDS = 5


def words_of(arguments: argparse.Namespace) -> list[str]:
    """Give the words of the command, which come after `--`."""
    words: list[str] = arguments.words
    return words[1:] if words[:1] == ["--"] else words


class Keeper:
    """The keeper of one command, as a process that waits for it."""

    def __init__(self, at_end: Callable[[], None]) -> None:
        """Start it; `at_end` is called in it, once the command has ended or was never started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
        hear, self._tell = os.pipe()
        parent = os.pidfd_open(os.getpid())
        self._pid = os.fork()
        if self._pid:
            os.close(hear)
            os.close(parent)
            return
        try:
            os.close(self._tell)
            _keep(hear, parent)
            at_end()
        except Exception as error:
            say(str(error))
        os._exit(0)

    def run(self, command: list[str], inside: Inside | Unchanged, inherited: int = -1) -> int:
        """Run the command; give its exit status: 128 and the signal's number if one ended it.

        `inherited` is a descriptor that only the command gets.
        """
        begin, let_begin = os.pipe()
        child = os.fork()
        if not child:
            os.close(let_begin)
            _start(command, inside, begin)
        os.close(begin)
        if inherited >= 0:
            os.close(inherited)
        # First the keeper: else the command would live on if this process is killed now.
        os.write(self._tell, f"{child}\n".encode())
        os.write(let_begin, b"\n")
        os.close(let_begin)
        status = _wait_for(child)
        os.close(self._tell)
        os.waitpid(self._pid, 0)
        return status


def _start(command: list[str], inside: Inside | Unchanged, begin: int) -> NoReturn:
    """Become the command, once something comes from `begin`; at its end without, end."""
    try:
        if os.read(begin, 1):
            inside.__enter__()
            execute(command)
    except Exception as error:
        say(str(error))
    os._exit(126)


def execute(command: list[str]) -> NoReturn:
    """Become the command; 127 where it is not found, 126 where it cannot be executed.

    Its PATH has the usual directories, as that of plugins: a user's PATH may lack /usr/sbin, where
    Debian has iptables and nft.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    given = os.environ.get("PATH", "")
    # All entries stay, even relative ones: the user types the command.
    path = invoke.with_usual_places(given.split(":") if given else [])
    try:
        os.execvpe(command[0], command, {**os.environ, "PATH": path})
    except FileNotFoundError as error:
        status, text = 127, error.strerror
    except OSError as error:
        status, text = 126, error.strerror
    say(f"{command[0]}: {text}")
    sys.stderr.flush()
    os._exit(status)


def _wait_for(child: int) -> int:
    """Wait for the command, and pass on the signals that are meant for it."""
    while True:
        info = signal.sigwaitinfo(FORWARDED | {signal.SIGCHLD})
        if info.si_signo != signal.SIGCHLD:
            if info.si_code != SI_KERNEL:
                os.kill(child, info.si_signo)  # not reaped yet, so it is the command's ID
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _keep(hear: int, parent: int) -> None:
    """Wait until the command has ended; end it if its caller has ended."""
    # A session of its own, so that a signal to the caller's session does not end it too.
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(hear, 16)
        if not more:
            return  # the caller was killed before it started the command
        line += more
    try:
        child = os.pidfd_open(int(line))
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(parent, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    poll.unregister(parent)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child in ready:
            return
        signal.pidfd_send_signal(child, number)
        ready = {fd for fd, _ in poll.poll(END_SECONDS * 1000)}
