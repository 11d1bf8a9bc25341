# SPDX-License-Identifier: Apache-2.0
# The part of `signal` that is in C: what netns_shim takes of it. Its numbers are plain integers.
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

SIG_DFL: int
SIG_IGN: int
SIG_SETMASK: int
SIGCHLD: int
SIGCONT: int
SIGHUP: int
SIGINT: int
SIGKILL: int
SIGPIPE: int
SIGQUIT: int
SIGTERM: int
SIGURG: int
SIGUSR1: int
SIGUSR2: int
SIGWINCH: int
SIGXFSZ: int

class struct_siginfo:
    si_signo: int
    si_code: int

_Handler = Callable[[int, FrameType | None], Any] | int | None

def getsignal(signalnum: int, /) -> _Handler: ...
def pidfd_send_signal(
    pidfd: int, signalnum: int, siginfo: None = None, flags: int = 0, /
) -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int: ...
def sigwaitinfo(sigset: Iterable[int], /) -> struct_siginfo: ...
def signal(signalnum: int, handler: _Handler, /) -> _Handler: ...
