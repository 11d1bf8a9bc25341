# SPDX-License-Identifier: Apache-2.0
"""`netns-shim run`: a command inside the shared netns and its mounts.

Three processes: this one, which forwards signals and gives the exit status; the command; and a
keeper, which holds the reference, outlives this one even if it is killed, ends the command then,
and gives the reference back.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from typing import NoReturn

from .. import conf, enter, netns, references, state
from ..cni import is_name
from ..errors import INVALID_ENVIRONMENT, ShimError
from ..place import Shared

SUMMARY = "Run a command inside a shared network namespace."
FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
# sigaction(2): the kernel sent it, here the terminal, and so it sent it to the command as well.
SI_KERNEL = 0x80
END_SECONDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns", default=conf.DEFAULT_NETNS, metavar="NAME", help="which [%(default)s]"
    )
    parser.add_argument(
        "--uplink",
        default="",
        choices=("pasta", "slirp4netns", "none"),
        help="the uplink, where the namespace has to be made [pasta if it is installed]",
    )
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )
    parser.add_argument(
        "--explain", action="store_true", help="print what would be mounted, and do nothing"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND …")


def main(arguments: argparse.Namespace) -> int:
    """Run the command and give its exit status: 128 and the signal's number if one ended it."""
    command = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not is_name(arguments.netns):
        raise ShimError(INVALID_ENVIRONMENT, f"not a name for a netns: {arguments.netns!r}")
    where = state.State(state.base_dir(os.environ, arguments.state_dir), arguments.netns)
    if arguments.explain:
        print("\n".join(map(str, enter.plan(where, os.environ, []))))
        return 0
    if not command:
        raise ShimError(INVALID_ENVIRONMENT, "no command is given")
    if netns.is_in_place("auto") and not where.exists():
        # Where plugins work in the caller's netns, that is the one to be in.
        _execute(command)
    name = f"{references.RUN_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    uplink = {**conf.DEFAULT_UPLINK, "driver": arguments.uplink}
    place = Shared(where, uplink, os.environ)
    reference = place.take(name)
    try:
        fd = place.open_mended()
        reference.write("running", pid=os.getpid(), command=command, since=state.now())
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
        keeper, tell = _start_keeper(place, reference)
    except BaseException:
        reference.drop()
        place.leave()
        raise
    child = _start_command(command, enter.Inside(fd, enter.plan(where, os.environ, [])))
    os.write(tell, f"{child}\n".encode())
    status = _wait_for(child)
    os.close(tell)
    os.waitpid(keeper, 0)
    return status


def _start_command(command: list[str], inside: enter.Inside) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        inside.__enter__()
        _execute(command)
    except Exception as error:
        print(f"netns-shim: {error}", file=sys.stderr)
    os._exit(126)


def _execute(command: list[str]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError as error:
        status, text = 127, error.strerror
    except OSError as error:
        status, text = 126, error.strerror
    print(f"netns-shim: {command[0]}: {text}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(status)


def _wait_for(child: int) -> int:
    """Wait for the command, passing on the signals that are meant for it."""
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


def _start_keeper(place: Shared, reference: references.Reference) -> tuple[int, int]:
    """Start the keeper; give its process ID and the pipe on which it waits for the command's."""
    hear, tell = os.pipe()
    parent = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid:
        os.close(hear)
        os.close(parent)
        return pid, tell
    try:
        os.close(tell)
        _keep(hear, parent)
        reference.drop()
        place.leave()
    except Exception as error:
        print(f"netns-shim: {error}", file=sys.stderr)
    os._exit(0)


def _keep(hear: int, parent: int) -> None:
    """Wait until the command has ended; end it if its caller is no more."""
    # A session of its own, so that what ends the caller's does not end it too.
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
