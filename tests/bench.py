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
from contextlib import ExitStack, closing, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Self

from userids import UserIds

PAGE = "198.51.100.1"  # next door: in the subnet of the machine
PAGE_BEYOND = "203.0.113.7"  # a few ms away, to be reached over the default route only
PAGE6 = "2001:db8:100::1"
NAME = "www.example.test"  # PAGE_BEYOND and PAGE6
HOST, HOST6 = "198.51.100.2", "2001:db8:100::2"  # the machine itself

TESTS = Path(__file__).resolve().parent
INSIDE = TESTS / "inside"
PATH = "/opt/bench:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIB = os.path.relpath(sysconfig.get_path("purelib"), sys.prefix)
HOLD = "echo ready; exec cat"
PROGRAMS = ("pasta", "passt", "slirp4netns", "aardvark-dns", "ld-linux")
NEEDED = ("go", "ip", "newuidmap", "nsenter", "setpriv", "strace", "unshare")

NSENTER = "/usr/bin/nsenter"


class BenchError(Exception):
    """The bench could not be built here."""


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
        env = {"PATH": PATH, "GOCACHE": str(cache / "go"), "HOME": str(cache), **go}
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["go", "build", "-o", str(new), str(source)], env=env, check=True)
        new.rename(program)
    return program


class Place:
    """Namespaces in which commands are run, held by a process until `close`.

    `argv` starts the process, which writes `ready` and ends at the end of its standard input;
    `flags` and `then` are how nsenter(1) gets into its namespaces, and what it runs there;
    `env` is the environment of the commands where they are not given one.
    """

    def __init__(self, argv, *, flags, then=(), env):
        self.env, self._flags = env, flags
        pipe = subprocess.PIPE
        holder = subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, text=True)
        self.pid = holder.pid
        self._children = [holder]
        self._enter = [NSENTER, f"--target={self.pid}", *flags, *then]
        if holder.stdout.readline() != "ready\n":
            self.close()
            raise BenchError(f"does not start: {' '.join(argv)}")

    def run(self, argv, *, env=None, input="", timeout=60.0, check=False):
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

    def popen(self, argv, *, env=None, **options):
        """Start a command here, with the options of subprocess.Popen; `close` ends it."""
        env = self.env if env is None else env
        argv = [*self._enter, *map(str, argv)]
        child = subprocess.Popen(argv, env=env, **options)
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
        # Of all groups only root's is sure to be mapped here.
        script = f"echo 0 0 >/proc/sys/net/ipv4/ping_group_range; ip link set lo up; {HOLD}"
        argv = [*parent._enter, "unshare", "--net", "sh", "-euc", script]
        super().__init__(argv, flags=parent._flags, env=parent.env)
        self.netns = f"/proc/{self.pid}/ns/net"
        self._parent, self._pinned = parent, pinned
        if pinned:
            pin = 'mkdir -p "${0%/*}"; : >"$0"; mount --bind "$1" "$0"'
            parent.run(["sh", "-euc", pin, pinned, self.netns], check=True)
            self.netns = pinned

    def close(self) -> None:
        """Let the network namespace go, whoever else has let it go before."""
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


class World(Place):
    """A machine and its internet. Commands run here are the unprivileged user's.

    `root` is this place for the machine's administrator, `internet` the other end of its cable.
    The package under test is installed in /opt/netns-shim, beside the libraries of the Python that
    runs the bench, and has put itself among Debian's plugins in `plugin_dir`. All of /etc, /home,
    /opt, /run, /var/cache and /var/lib is the World's own: `world.path("/etc/resolv.conf")` may
    be written to.
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
            self.runtime_dir = f"/run/user/{self.uid}"
            self.root = undo.enter_context(self._boot())
            self.internet = undo.enter_context(self._connect())
            self._install()
            env = {"PATH": PATH, "HOME": f"/home/{self.user}", "XDG_RUNTIME_DIR": self.runtime_dir}
            become = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups")
            argv = [*self.root._enter, "sh", "-euc", HOLD]
            super().__init__(argv, flags=self.root._flags, then=become, env=env)
            self._own_links = self._links()
            self._undo = undo.pop_all()

    def _boot(self) -> Place:
        facts = {
            "USER_NAME": self.user,
            "USER_ID": str(self.uid),
            "SUBID": str(self._ids.subid),
            "SITE_PACKAGES": sysconfig.get_path("purelib"),
            "LIB": LIB,
            "PYTHON": os.path.realpath(sys.executable),
        }
        new = ("unshare", "--net", "--mount", "--propagation=private")
        argv = ["env", *(f"{name}={value}" for name, value in facts.items()), *new]
        argv += ["sh", "-eu", str(INSIDE / "machine.sh")]
        return Place(argv, flags=("--mount", "--net"), env={"PATH": PATH, "HOME": "/root"})

    def _connect(self) -> Place:
        argv = ["unshare", "--net", "sh", "-eu", str(INSIDE / "internet.sh"), str(self.root.pid)]
        return Place(argv, flags=("--net",), env=self.root.env)

    def _install(self) -> None:
        shutil.copy(INSIDE / "fetch", self.root.path("/opt/bench"))
        package = f"/opt/netns-shim/{LIB}/netns_shim"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TESTS.parent / "netns_shim", self.root.path(package), ignore=ignore)
        self.root.run(["chmod", "-R", "a+rX", package, "/opt/bench"], check=True)
        compile_all = ["/opt/netns-shim/bin/python3", "-m", "compileall", "-q", package]
        self.root.run(compile_all, check=True)
        command = "/opt/netns-shim/bin/netns-shim"
        self.root.run([command, "install", self.plugin_dir], check=True)

    def session(self) -> Session:
        """A user namespace of the user; two of them are siblings."""
        return Session(self)

    def unshared(self) -> Unshared:
        """The user namespace that a user who is nobody is given by the shim."""
        return Unshared(self)

    def leftovers(self) -> list[str]:
        """What is still there of a shared network namespace, one line a thing."""
        top = f"{self.runtime_dir}/netns-shim"
        found, mounts = [], set()
        for pid in self._ids.processes():
            with suppress(OSError):  # it may end meanwhile
                program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
                is_holder = f"{top}/.holder" in Path(f"/proc/{pid}/cmdline").read_text().split(
                    "\0"
                )
                if program.startswith(PROGRAMS) or is_holder:
                    found.append(f"process {pid}: {program}")
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                mounts |= {point for line in lines if (point := line.split()[4]).startswith(top)}
        found += [f"mount {point}" for point in sorted(mounts)]
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
        """End everything of the user's and empty the directories he can write to."""
        self._ids.kill()
        directories = (self.env["HOME"], self.runtime_dir, "/run/netns", "/var/lib")
        self.root.run(["find", *directories, "-xdev", "-mindepth", "1", "-delete"])

    def close(self) -> None:
        """End machine, internet and every process of the user."""
        super().close()
        if undo := self.__dict__.pop("_undo", None):
            undo.close()
