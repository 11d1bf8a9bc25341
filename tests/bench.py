# SPDX-License-Identifier: Apache-2.0
"""The test bench: a machine and an internet made of namespaces, and an unprivileged user in them.

    with World() as world, world.session() as session, session.container() as container:
        container.run(["fetch", "198.51.100.1"])

Nothing of the real machine is changed. Namespaces have no names and files lie on tmpfs, so all of
it goes with the processes that hold it, and these end when the bench does, however it ends: each
holds a pipe from it. Only what runs *inside* could live on; it has user ids that are nobody
else's (see `UserIds`), by which it is found and killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack, closing, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from places import HOLD, BenchError, Child, Container, Place, Session, Unshared
from userids import UserIds

__all__ = ["BenchError", "Child", "Container", "Place", "Session", "Unshared", "World"]

PAGE = "198.51.100.1"  # next door: in the subnet of the machine
PAGE_BEYOND = "203.0.113.7"  # a few ms away, to be reached over the default route only
PAGE6 = "2001:db8:100::1"
NAME = "www.example.test"  # PAGE_BEYOND and PAGE6
HOST, HOST6 = "198.51.100.2", "2001:db8:100::2"  # the machine itself

TESTS = Path(__file__).resolve().parent
INSIDE = TESTS / "inside"
# Those of a log-in on Debian. What the tests type lies where Debian has nothing.
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TYPED = "/usr/local/games"
LIB = os.path.relpath(sysconfig.get_path("purelib"), sys.prefix)
PROGRAMS = ("pasta", "passt", "slirp4netns", "aardvark-dns", "ld-linux")
NEEDED = ("go", "ip", "newuidmap", "nsenter", "setpriv", "strace", "unshare")


@cache
def unusable() -> str:
    """Why no World can be built by this process; empty if one can."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        return f"programs not found: {', '.join(missing)}"
    if os.geteuid():
        return "namespaces owned by root are needed: not root"
    attempt = subprocess.run(["unshare", "-mn", "true"], capture_output=True, text=True)
    return attempt.stderr.strip()


def build_cnidrive() -> Path:
    """Compile tests/cnidrive, unless a build of the same source is in the cache."""
    source = TESTS / "cnidrive" / "main.go"
    cache = TESTS.parent / ".cache"
    program = cache / f"cnidrive-{sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        # GOPATH mode: libcni is where Debian's packages put Go sources, and nothing is fetched.
        go = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "CGO_ENABLED": "0"}
        env = {"PATH": ROOT_PATH, "GOCACHE": str(cache / "go"), "HOME": str(cache), **go}
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["go", "build", "-o", str(new), str(source)], env=env, check=True)
        new.rename(program)
    return program


class World(Place):
    """A machine and its internet. Commands run here are the unprivileged user's.

    `root` is this place for the machine's administrator, `internet` the other end of its cable.
    The package under test is installed in /opt/netns-shim, beside the libraries of the Python that
    runs the bench, and has put itself among Debian's plugins in `plugin_dir`. All of /etc, /home,
    /opt, /run, /tmp, /var/lib and /var/tmp is the World's own:
    `world.path("/etc/resolv.conf")` may be written to.

    It is a stock Debian, and kinder in nothing that is not asked for: see kinder.py. The user has
    come by su or cron, so `runtime_dir` is not there before a `kinder.log_in`.
    """

    user = "shim"
    plugin_dir = "/opt/cni/bin"

    def __init__(self) -> None:
        if why := unusable():
            raise BenchError(why)
        with ExitStack() as undo:
            undo.callback(os.umask, os.umask(0o022))  # what is put into it, the user may read
            self._ids = undo.enter_context(closing(UserIds()))
            self.uid = self._ids.uid
            self.subid = self._ids.subid
            self.runtime_dir = f"/run/user/{self.uid}"
            self.root = undo.enter_context(self._boot())
            self.internet = undo.enter_context(self._connect())
            self._install()
            env = {"PATH": PATH, "HOME": f"/home/{self.user}"}
            become = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups")
            argv = [*self.root._enter, "sh", "-euc", HOLD]
            super().__init__(argv, flags=self.root._flags, then=become, env=env)
            self.settle()
            self._own_links = self._links()
            self._undo = undo.pop_all()

    def _boot(self) -> Place:
        facts = {
            "USER_NAME": self.user,
            "USER_ID": str(self.uid),
            "SUBID": str(self.subid),
            "SITE_PACKAGES": sysconfig.get_path("purelib"),
            "LIB": LIB,
            "PYTHON": os.path.realpath(sys.executable),
            "TYPED": TYPED,
        }
        new = ("unshare", "--net", "--mount", "--propagation=private")
        argv = ["env", *(f"{name}={value}" for name, value in facts.items()), *new]
        argv += ["sh", "-eu", str(INSIDE / "machine.sh")]
        return Place(argv, flags=("--mount", "--net"), env={"PATH": ROOT_PATH, "HOME": "/root"})

    def _connect(self) -> Place:
        argv = ["unshare", "--net", "sh", "-eu", str(INSIDE / "internet.sh"), str(self.root.pid)]
        return Place(argv, flags=("--net",), env=self.root.env)

    def _install(self) -> None:
        self.provide(INSIDE / "fetch")
        package = f"/opt/netns-shim/{LIB}/netns_shim"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TESTS.parent / "netns_shim", self.root.path(package), ignore=ignore)
        self.root.run(["chmod", "-R", "a+rX", package], check=True)
        compile_all = ["/opt/netns-shim/bin/python3", "-m", "compileall", "-q", package]
        self.root.run(compile_all, check=True)
        command = "/opt/netns-shim/bin/netns-shim"
        self.root.run([command, "install", self.plugin_dir], check=True)

    def provide(self, program: Path, name: str = "") -> None:
        """Put a program where the user's PATH has it, under its own or another name."""
        copy = shutil.copy(program, self.root.path(f"{TYPED}/{name or program.name}"))
        Path(copy).chmod(0o755)

    @property
    def state_dir(self) -> str:
        """Where the shim keeps the user's state: in the runtime directory after a log-in."""
        directories = {self.runtime_dir: "netns-shim", "/tmp": f"netns-shim-{self.uid}"}
        return next(f"{d}/{name}" for d, name in directories.items() if self.path(d).exists())

    def replug(self) -> None:
        """Take the machine's network down and up: it is as a moment after the start of one."""
        script = (INSIDE / "plug.sh").read_text()  # the machine may hide the file
        self.root.run(["sh", "-eu"], input=script, check=True)

    def settle(self) -> None:
        """Wait until no address of the machine is tentative any more."""
        deadline = time.monotonic() + 20
        tentative = ["ip", "-6", "-oneline", "address", "show", "tentative"]
        while self.root.run(tentative, check=True).stdout:
            if time.monotonic() > deadline:
                raise BenchError("the machine's network does not come up")

    def session(self) -> Session:
        """A user namespace of the user; two of them are siblings."""
        return Session(self)

    def unshared(self) -> Unshared:
        """The user namespace that the shim makes for a user without capabilities."""
        return Unshared(self)

    def leftovers(self) -> list[str]:
        """What is still there of a shared network namespace, one line a thing."""
        tops = (f"{self.runtime_dir}/netns-shim", f"/tmp/netns-shim-{self.uid}")
        records = {f"{top}/.holder" for top in tops}
        found, mounts = [], set()
        for pid in self._ids.processes():
            with suppress(OSError):  # it may end meanwhile
                program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if program.startswith(PROGRAMS) or records.intersection(words):
                    found.append(f"process {pid}: {program}")
                elif any(word.startswith(tops) and word.endswith("/netns") for word in words):
                    found.append(f"guardian {pid}: {program}")
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                points = {line.split()[4] for line in lines}
                mounts |= {point for point in points if point.startswith(tops)}
        found += [f"mount {point}" for point in sorted(mounts)]
        for top in tops:
            for directory, _, files in os.walk(self.path(top)):
                inside = directory.removeprefix(str(self.path("")))
                found += [f"file {inside}/{name}" for name in files]
        return found + [f"interface {name}" for name in sorted(self._links() - self._own_links)]

    def programs(self) -> list[str]:
        """What the user runs, and who is root or another in a session: the names of programs."""
        found = []
        for pid in self._ids.processes():
            with suppress(OSError):  # it may end meanwhile
                found.append(os.path.basename(os.readlink(f"/proc/{pid}/exe")))
        return found

    def _links(self) -> set[str]:
        links = json.loads(self.root.run(["ip", "-json", "link"], check=True).stdout)
        return {link["ifname"] for link in links}

    def reset(self) -> None:
        """End everything of the user's and empty the directories that the user can write to."""
        self._ids.kill()
        mine = (self.env["HOME"], self.runtime_dir, "/run/netns")
        directories = (*mine, "/tmp", "/var/tmp", "/var/lib")
        self.root.run(["find", *directories, "-xdev", "-mindepth", "1", "-delete"])

    def close(self) -> None:
        """End machine, internet and every process of the user."""
        super().close()
        if undo := self.__dict__.pop("_undo", None):
            undo.close()
