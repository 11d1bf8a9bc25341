# SPDX-License-Identifier: Apache-2.0
"""Running a command, and cleaning up after it.

There are three processes: this one, which forwards signals and gives the exit status; the command;
and the keeper. If this process is killed, the keeper ends the command and cleans up. Otherwise it
has nothing to do. A Python that waits takes 8 MB. So the keeper is a shell, of 0.3 MB, and this
process becomes a smaller one, of 3 MB, if the command takes long (`waiting`). It is no shell,
because a shell cannot tell who has sent a signal: the command gets those of the terminal itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from .. import invoke, main
from ..errors import say
from ..proc import start_time
from ..shared import guardian
from . import waiting

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..enter import Inside
    from ..in_place import Unchanged

# After this time, in seconds, a command is one that takes long.
LONG = 1.0
NAME = "netns-shim-keeper"
# A line says that there is nothing left to do; the end of the pipe without one, that we are gone.
SCRIPT = 'read -r _ && exit; exec "$@"'


def words_of(arguments: argparse.Namespace) -> list[str]:
    """Give the words of the command, which come after `--`."""
    words: list[str] = arguments.words
    return words[1:] if words[:1] == ["--"] else words


def run(
    command: list[str],
    inside: Inside | Unchanged,
    undo: Callable[[], None],
    again: list[str],
    *,
    locked: int = -1,
    inherited: int = -1,
) -> int:
    """Run the command; give its exit status: 128 and the signal's number if one ended it.

    `undo` cleans up. `again` are the first arguments of `release.main`, which does the same in
    another process. The keeper holds on to the descriptor `locked`; only the command gets
    `inherited`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting.FORWARDED | {signal.SIGCHLD})
    begin, let_begin = os.pipe()
    child = os.fork()
    if not child:
        os.close(let_begin)
        _start(command, inside, begin)
    os.close(begin)
    if inherited >= 0:
        os.close(inherited)
    call = guardian.call(main.RELEASE, *again, str(child), str(start_time(child)))
    # First the keeper: else the command would live on if this process is killed now.
    keeper, tell = _keep(call, locked)
    os.write(let_begin, b"\n")
    os.close(let_begin)
    status = _wait_for(child, [*call, str(tell), str(keeper)])
    undo()
    dismiss(keeper, tell)
    return exit_status(status)


def dismiss(keeper: int, tell: int) -> None:
    """Tell the keeper that there is nothing left to do, and wait for its end."""
    try:
        os.write(tell, b"\n")
    except BrokenPipeError:
        pass  # it was killed
    os.waitpid(keeper, 0)


def exit_status(status: int) -> int:
    """Turn a wait status into an exit status, as a shell does."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _keep(call: list[str], locked: int) -> tuple[int, int]:
    """Start the keeper; give its process ID, and the end of the pipe that it waits at."""
    hear, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(hear)
        return pid, tell
    try:
        # A session of its own, so that a signal to the caller's session does not end it too.
        os.setsid()
        os.chdir("/")
        os.dup2(hear, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        kept = os.dup2(locked, 3) if locked >= 0 else 2
        os.set_inheritable(kept, True)  # os.dup2 does not do so for a descriptor onto itself
        os.closerange(kept + 1, 1 << 20)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execve(guardian.shell(), [guardian.SHELL, "-c", SCRIPT, NAME, *call], os.environ)
    except OSError as error:
        say(f"the command has no keeper, and would go on if this process is killed: {error}")
    os._exit(1)


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


def _wait_for(child: int, call: list[str]) -> int:
    """Give the wait status of the command; if it takes long, become a smaller process instead.

    That ends as `call`, whose last arguments are the pipe and the ID of the keeper.
    """
    until = time.monotonic() + LONG
    while (left := until - time.monotonic()) > 0:
        info = signal.sigtimedwait(waiting.FORWARDED | {signal.SIGCHLD}, left)
        if info is not None and (status := waiting.look(child, info)) is not None:
            return status
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.set_inheritable(int(call[-2]), True)
    program = [sys.executable, "-IS", waiting.__file__, str(child), *call]
    os.execve(sys.executable, program, os.environ)
