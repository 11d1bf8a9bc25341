# SPDX-License-Identifier: Apache-2.0
"""Namespaces in which the bench runs commands: a machine, a user's session, a container."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from bench import World

HOLD = "echo ready; exec cat"
NSENTER = "/usr/bin/nsenter"


class Child(subprocess.Popen[str]):
    """A command that `Place.popen` has started; what is no pipe is None, and no test reads it."""

    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]


class Process(subprocess.Popen[bytes]):
    """A program of a test's own, outside of the bench, that it speaks with over two pipes."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def __init__(self, argv: Sequence[str], **options: Any) -> None:
        pipe = subprocess.PIPE
        super().__init__(argv, stdin=pipe, stdout=pipe, bufsize=0, **options)


class BenchError(Exception):
    """The bench could not be built here."""


class Place:
    """Namespaces in which commands are run, held by a process until `close`.

    `argv` starts the process, which writes `ready` and ends at the end of its standard input;
    `flags` and `then` are how nsenter(1) gets into its namespaces, and what it runs there;
    `env` is the environment of the commands where they are not given one.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        flags: Sequence[str],
        then: Sequence[str] = (),
        env: dict[str, str],
    ) -> None:
        self.env, self._flags = env, flags
        pipe = subprocess.PIPE
        holder = Child(argv, env=env, stdin=pipe, stdout=pipe, text=True)
        self.pid = holder.pid
        self._children = [holder]
        self._enter = [NSENTER, f"--target={self.pid}", *flags, *then]
        if holder.stdout.readline() != "ready\n":
            self.close()
            raise BenchError(f"does not start: {' '.join(argv)}")

    def run(
        self,
        argv: Iterable[object],
        *,
        env: Mapping[str, str] | None = None,
        input: str = "",
        timeout: float = 60.0,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; `env`, if given, is its whole environment."""
        done = subprocess.run(
            [*self._enter, *map(str, argv)],
            env=self.env if env is None else env,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise BenchError(f"{argv}: exit status {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def popen(
        self,
        argv: Iterable[object],
        *,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Child:
        """Start a command here, with the options of subprocess.Popen; `close` ends it."""
        env = self.env if env is None else env
        child = Child([*self._enter, *map(str, argv)], env=env, **{"text": True, **options})
        self._children.append(child)
        return child

    def path(self, inside: str) -> Path:
        """Where the bench finds the file that is called `inside` here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def container(self, *, pinned: str = "") -> Container:
        """A network namespace that belongs to this place's user namespace."""
        return Container(self, pinned)

    def close(self) -> None:
        """Kill what was started here, the holder last."""
        while self._children:
            with self._children.pop() as child:  # which closes its pipes and waits
                child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Container(Place):
    """A network namespace as a runtime makes one for a container.

    `netns` is its path for CNI_NETNS: below /proc, or `pinned` in the place it was made in.
    """

    def __init__(self, parent: Place, pinned: str) -> None:
        script = f"ip link set lo up; {HOLD}"
        argv = [*parent._enter, "unshare", "--net", "sh", "-euc", script]
        super().__init__(argv, flags=parent._flags, env=parent.env)
        self.netns = f"/proc/{self.pid}/ns/net"
        self._parent, self._pinned = parent, pinned
        if pinned:
            pin = 'mkdir -p "${0%/*}"; : >"$0"; mount --bind "$1" "$0"'
            parent.run(["sh", "-euc", pin, pinned, self.netns], check=True)
            self.netns = pinned

    def close(self) -> None:
        """Let the network namespace go, even if it was let go before."""
        if self._pinned:
            self._parent.run(["sh", "-c", 'umount "$0"; rm -f "$0"', self._pinned])
            self._pinned = ""
        super().close()


class Session(Place):
    """The user as root of a user namespace that maps the subordinate ids, in its own mounts.

    The network namespace is the machine's: it is what `podman unshare` gives.
    """

    flags = ("--user", "--mount", "--net", "--setuid=0", "--setgid=0")

    def __init__(self, world: World) -> None:
        userns = ("unshare", "--user", "--map-root-user", "--map-auto", "--mount")
        argv = [*world._enter, *userns, "sh", "-euc", HOLD]
        super().__init__(argv, flags=self.flags, env=world.env)


class Unshared(Place):
    """The user as root of the user namespace that `netns-shim unshare` gives him.

    It stays as long as this is open, and longer where something is attached.
    """

    def __init__(self, world: World) -> None:
        command = (f"{world.plugin_dir}/netns-shim", "unshare", "--", "sh", "-euc", HOLD)
        super().__init__([*world._enter, *command], flags=Session.flags, env=world.env)
