# SPDX-License-Identifier: Apache-2.0
"""The commands on the pages for users, typed by a user without capabilities, show what they say.

A page is one session of a shell, in the checkout. A fenced block `sh` is run as it is. In a block
`console`, a line that begins with `$ ` is run, `> ` goes on with it, and the others are what it
prints, compared by `matches`. Of the words behind these, `untested=PROGRAM` says that the block is
not run, and `fails` that its commands do. `with=cni` is for a machine whose Podman and Buildah
have CNI (Debian 12), `with=netavark` for one where they have netavark only (Debian 13 and later).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import bench
import engines
import pytest
from conftest import give_up
from runtime import until

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("tutorial", "reference", "explanation")),
    ROOT / "docs/troubleshooting.md",
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
# Those that are typed after a log-in, too: on them state is looked at, or another engine's.
STATEFUL = ("tutorial", "troubleshooting", "buildah", "podman-4", "podman-5")
AFTER_LOG_IN = [page for page in PAGES if page.stem in STATEFUL]
# What is missing where the tests run, and why.
UNTESTED = {
    "apptainer": "not among Debian's packages",
    "nerdctl": "not among Debian's packages",
    "package": "it installs for the whole machine: scripts/try-package does",
    "pip": "it installs from the internet",
    "registry": "it pulls from the internet",
}
# Programs of clients, by the page that needs them.
CLIENTS = {
    "buildah.md": ["buildah", "podman", "crun"],
    "names.md": ["buildah", "podman", "crun"],
    "podman-4.md": ["buildah", "podman", "crun"],
    "podman-5.md": ["buildah", "podman", "crun"],
    "root.md": ["buildah", "podman", "crun", "containerd"],
}
MARK = "=== typed: "
# Buildah before 1.31, as of Debian 12, kills its own runtime once in a while: a thread of
# it ends, and the kernel takes that for the end of Buildah (containers/podman#17918). Type again.
BUILDAH_KILLS_ITSELF = "while running runtime: signal: killed"
TRIES = 4


class Block(NamedTuple):
    """A fenced block of a page: its language, the words behind that, its lines."""

    language: str
    words: list[str]
    lines: list[str]

    @property
    def untested(self) -> str:
        """Which program it needs that is not here; empty if it can be run."""
        return next((w.partition("=")[2] for w in self.words if w.startswith("untested=")), "")

    def is_for(self, backend: str) -> bool:
        """Tell whether it is to be run where Podman has this back end."""
        wanted = next((w.partition("=")[2] for w in self.words if w.startswith("with=")), backend)
        return wanted == backend and not self.untested


class Command(NamedTuple):
    """What is typed at once, and what it prints; None where the page does not say."""

    typed: str
    shown: list[str] | None
    fails: bool


def blocks(page: Path) -> list[Block]:
    """List what a page says to type."""
    found = re.findall(r"^```(sh|console)\b(.*)\n((?:.*\n)*?)^```$", page.read_text(), re.M)
    return [Block(name, words.split(), text.splitlines()) for name, words, text in found]


def commands(block: Block) -> Iterator[Command]:
    """Take a block apart."""
    fails = "fails" in block.words
    if block.language == "sh":
        yield Command("\n".join(block.lines), None, fails)
        return
    typed: list[str] = []
    shown: list[str] = []
    for line in block.lines:
        if line.startswith("$ "):
            if typed:
                yield Command("\n".join(typed), shown, fails)
            typed, shown = [line[2:]], []
        elif line.startswith("> ") and not shown:
            typed.append(line[2:])
        else:
            shown.append(line)
    yield Command("\n".join(typed), shown, fails)


def script(typed: list[Command]) -> str:
    """Write what a shell is to do, with a mark before the output of each command."""
    parts = ["set -u"]
    for number, command in enumerate(typed):
        wanted = "-ne" if command.fails else "-eq"
        parts += [f"echo '{MARK}{number}'", command.typed]
        parts.append(f"status=$?; [ $status {wanted} 0 ] || {{ echo exit $status; exit 1; }}")
    return "exec 2>&1\n" + "\n".join(parts) + "\n"


# What is another one each time: times, sizes, numbers of processes, addresses of interfaces.
VARYING = (
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
    (r"\bfe80:[0-9a-f:]+(/64)?", "LINK-LOCAL"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d+ (s|min|h|days?)( \d+ min)?(?=\s|$)", "AGE"),
    (r"\b\d+(\.\d+)? ?ms\b", "DURATION"),
    (r"\bPID \d+", "PID"),
    (r"(?<=:\[)\d+(?=\])", "INODE"),
    (r"(?<=@)(if)?\w+\b", "PEER"),
    (r"\bveth[0-9a-f]{8}\b", "VETH"),
    (r"/run/user/\d+/netns-shim|/tmp/netns-shim-\d+", "STATE"),
    (r"/home/\w+", "HOME"),
    (r"\btime \d+(\.\d+)?ms", "DURATION"),
    (r"\s+", " "),
)


def plain(line: str) -> str:
    """Write a line without what varies."""
    for pattern, word in VARYING:
        line = re.sub(pattern, word, line)
    return line.strip()


def matches(shown: list[str], printed: list[str]) -> bool:
    """Tell whether a page shows what was printed; `…` is any text, and alone any lines."""
    pattern = ""
    for line in map(plain, shown):
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(map(re.escape, line.split("…"))) + r"\n"
    return re.fullmatch(pattern, "".join(f"{plain(line)}\n" for line in printed)) is not None


@pytest.fixture(scope="module")
def checkout(world: bench.World) -> Iterator[str]:
    """Make the machine fit for container engines; give the place for a checkout."""
    with engines.mounts(world):
        yield f"{world.env['HOME']}/netns-shim"


@pytest.fixture
def typist(world: bench.World, checkout: str) -> dict[str, str]:
    """Give the environment of a user with a checkout and the command."""
    return new_user(world, checkout)


def new_user(world: bench.World, checkout: str) -> dict[str, str]:
    """Leave the user nothing but a checkout; give the environment, with the command in PATH."""
    world.reset()
    # From outside of the machine, which hides what the real one has in /home, /opt and /tmp.
    shutil.copytree(ROOT / "conf", world.path(f"{checkout}/conf"))
    world.root.run(["chown", "-R", f"{world.uid}:{world.uid}", checkout], check=True)
    path = f"/opt/netns-shim/bin:{world.env['PATH']}"
    # Lines of both streams come in order, as they do on a terminal.
    return {**world.env, "PATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def client(
    request: pytest.FixtureRequest, world: bench.World, typist: dict[str, str], checkout: str
) -> None:
    """Give the user what the page under test begins with: the plugin, and its client's image."""
    page = request.getfixturevalue("page")
    missing = [name for name in CLIENTS.get(page.name, []) if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    equip(world, typist, checkout, page)
    if page.name == "cnitool.md":
        program = request.getfixturevalue("cnidrive")
        world.root.run(["ln", "-sf", program, f"{bench.TYPED}/cnitool"], check=True)


def equip(world: bench.World, typist: dict[str, str], checkout: str, page: Path) -> None:
    """Give the user what is installed when a page begins, and an image."""
    if page.name != "tutorial.md":
        world.run(["netns-shim", "install"], env=typist, check=True)
    if page.name in CLIENTS:
        make = f"cd {checkout}\n{engines.IMAGE}"
        world.run(["bash", "-euc", make], env=typist, timeout=120, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("client")
def test_what_a_page_says_works(
    world: bench.World, typist: dict[str, str], checkout: str, page: Path
) -> None:
    """What a page says to type succeeds, prints what the page shows, and leaves nothing."""
    type_page(world, typist, checkout, page)


@pytest.mark.parametrize("page", AFTER_LOG_IN, ids=lambda path: path.stem)
@pytest.mark.usefixtures("log_in", "client")
def test_what_a_page_says_works_after_a_log_in(
    world: bench.World, typist: dict[str, str], checkout: str, page: Path
) -> None:
    """So it does where systemd has made a runtime directory, in which the state is then."""
    type_page(world, typist, checkout, page)


def type_page(world: bench.World, typist: dict[str, str], checkout: str, page: Path) -> None:
    """Type all that a page says to type, and compare."""
    typed = [
        c for block in blocks(page) if block.is_for(engines.backend()) for c in commands(block)
    ]
    if not typed:
        pytest.skip(f"nothing is to be typed where Podman has {engines.backend()}")
    log = f"{world.env['HOME']}/typed"

    text = f"cd {checkout}\nexec >{log} 2>&1\n{script(typed)}"
    for _ in range(TRIES):
        limited = ["timeout", str(engines.LIMIT), "bash", "-c", text]
        done = world.run(limited, env=typist, timeout=engines.LIMIT + 50)
        output = world.path(log).read_text()
        if BUILDAH_KILLS_ITSELF not in output:
            break
        new_user(world, checkout)
        equip(world, typist, checkout, page)

    assert done.returncode == 0, output + done.stderr
    printed = [part.splitlines()[1:] for part in output.split(MARK)[1:]]
    for command, lines in zip(typed, printed, strict=True):
        if command.shown is not None:
            assert matches(command.shown, lines), f"{command.typed}\n" + "\n".join(lines)
    assert until(lambda: left(world, page) == []), left(world, page)


def left(world: bench.World, page: Path) -> list[str]:
    """List what is left of the shim; Podman may keep a slirp4netns, and in place is all memory."""
    found = [line for line in world.leftovers() if "/.in-place/" not in line]
    is_podmans = page.name.startswith("podman-")
    return [line for line in found if not (is_podmans and "slirp4netns" in line)]


def test_what_is_not_tried_is_known() -> None:
    """Blocks are left out for the programs of the list only, and their pages say so."""
    marked = {(page, block.untested) for page in PAGES for block in blocks(page) if block.untested}

    assert {program for _, program in marked} == set(UNTESTED)
    for page, program in marked:
        is_tried = program in ("package", "pip", "registry")  # in other ways
        assert is_tried or "has not been tried" in page.read_text(), page


def test_every_page_is_typed() -> None:
    """Each document for users is among the pages, or has nothing to type."""
    others = {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("conf/*.md")} - {*PAGES}

    assert [str(page) for page in sorted(others) if blocks(page)] == []


@pytest.mark.parametrize(
    ("shown", "printed", "is_so"),
    [
        ("uplink  PID 12  3 min", "uplink PID 4711  2 h 5 min", True),
        ("a … c", "a b c", True),
        ("a … c", "a b d", False),
        ("first\n…\nlast", "first\nx\ny\nlast", True),
        ("first\nlast", "first\nx\nlast", False),
        ("10.89.1.2/24", "10.89.1.3/24", False),
        ("eth0@if4 UP", "eth0@if12       UP ", True),
    ],
)
def test_comparison(shown: str, printed: str, is_so: bool) -> None:
    """What varies is no difference, and anything else is one."""
    assert matches(shown.splitlines(), printed.splitlines()) is is_so
