# SPDX-License-Identifier: Apache-2.0
"""`netns-shim status`: the command, once and following what changes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looks import LIVE, make

from netns_shim.cli import inspection
from netns_shim.main import main

PROGRAM = (
    "import sys; from netns_shim.main import main; sys.exit(main(['netns-shim', *sys.argv[1:]]))"
)
# The terminal is its own, so that what is typed becomes signals.
ON_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + PROGRAM


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A state directory with one netns that has no uplink."""
    path = tmp_path / "netns-shim"
    path.mkdir(mode=0o700)
    make(path, "default", {"driver": "none", "pid": None})
    return path


def attach(base: Path) -> None:
    """Let a container be attached, all at once."""
    new = base / "new"
    new.write_text(json.dumps(LIVE) + "\n")
    new.rename(base / "default" / "refs" / "net:c:eth0:macvlan")


def test_command_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`netns-shim status` prints for people, with --json for programs."""
    assert main(["netns-shim", "status", "--state-dir", str(base)]) == 0
    assert capsys.readouterr().out == (
        "default\n├── ● uplink none\n└── ! not all can be seen: "
        "the network namespace is lost; the next ADD makes it again\n"
    )
    assert main(["netns-shim", "status", "--json", "--state-dir", str(base)]) == 0
    assert json.loads(capsys.readouterr().out) == inspection.collect(str(base))


def test_nothing_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is up the status says so, and where it has looked."""
    path = tmp_path / "none"

    assert main(["netns-shim", "status", "--state-dir", str(path)]) == 0
    assert capsys.readouterr().out == f"no shared network namespace is up ({path})\n"


def test_failure_of_the_command(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is one line on stderr and exit status 1."""
    base.chmod(0o755)

    assert main(["netns-shim", "status", "--state-dir", str(base)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"netns-shim: refusing the state directory {base}: its mode is 0755, not 0700\n"
    )


def test_lines_are_whole_in_a_pipe(base: Path) -> None:
    """Where no terminal is, nothing is folded, shortened or coloured."""
    name = "long-" * 40
    make(base, "other", **{f"net:{name}:eth0:x": LIVE, f"net:{'d' * 64}:eth0:x": LIVE})
    environ = {**os.environ, "COLUMNS": "40", "TERM": "xterm-256color"}

    shown = run(base, env=environ).stdout

    assert "\x1b" not in shown
    lines = [line for line in shown.splitlines() if "10.0.0.2/24" in line]
    assert len(lines) == 2
    assert f" {name} " in lines[1]
    assert f" {'d' * 64} " in lines[0]
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_an_encoding_without_marks(base: Path) -> None:
    """In an encoding that has no boxes the tree is made of what it has."""
    make(base, "größe")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}

    shown = run(base, env=environ).stdout

    assert "\n+-- * uplink none\n" in shown
    assert "gr\\xf6\\xdfe\n" in shown


def run(base: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a program of its own."""
    command = [sys.executable, "-c", PROGRAM, "status", "--state-dir", str(base), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


@pytest.fixture
def follow(base: Path) -> Iterator[Any]:
    """Start `status --watch` with a pipe; it ends with the test."""
    command = [sys.executable, "-c", PROGRAM, "status", "--watch", "--state-dir", str(base)]
    started = []

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        child = subprocess.Popen([*command, *words], stdout=pipe, stderr=pipe, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        with child:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_in_a_pipe(base: Path, follow: Any, number: int) -> None:
    """In a pipe it is printed again after each change, until a signal ends it well."""
    child = follow("--json")

    before = json.loads(child.stdout.readline())
    attach(base)
    after = json.loads(child.stdout.readline())
    child.send_signal(number)

    assert child.communicate(timeout=20) == ("", "")
    assert child.returncode == 0
    assert before["netns"][0]["references"] == []
    assert after == inspection.collect(str(base))


def test_following_as_text(base: Path, follow: Any) -> None:
    """Text for people is followed as well; ages alone are no change."""
    child = follow()

    head = [child.stdout.readline() for _ in range(3)]
    attach(base)
    again = [child.stdout.readline() for _ in range(3)]
    child.send_signal(signal.SIGINT)

    assert (head[0], again[0]) == ("default\n", "default\n")
    assert "without a bridge" in again[2]
    # What is left of the second time, and no third.
    assert child.wait(timeout=20) == 0
    assert child.stdout.read().count("\n") == 2
    assert child.stderr.read() == ""


def test_warnings_are_said_once(base: Path, follow: Any) -> None:
    """What is odd is said once, not every time it is looked at."""
    make(base, "odd").chmod(0o777)
    child = follow("--json")
    child.stdout.readline()

    attach(base)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)

    assert child.communicate(timeout=20)[1].count("refusing the state directory") == 1


def test_a_reader_that_has_seen_enough(base: Path, follow: Any) -> None:
    """It ends without a word when its reader is gone, even if nothing changes."""
    child = follow()
    child.stdout.readline()

    child.stdout.close()

    assert child.wait(timeout=20) == 1
    assert child.stderr.read() == ""


class Terminal:
    """A terminal, with a person at it who reads and types."""

    def __init__(self, base: Path, *words: str, **environ: str) -> None:
        self.screen, self.line = os.openpty()
        termios.tcsetwinsize(self.line, (40, 80))
        self.before = termios.tcgetattr(self.line)
        self.child = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, "status", "--state-dir", str(base), *words],
            stdin=self.line,
            stdout=self.line,
            stderr=self.line,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ},
        )
        self.shown = ""

    def see(self, text: str) -> None:
        """Read until a text is there."""
        while text not in self.shown:
            assert select.select([self.screen], [], [], 20)[0], self.shown
            self.shown += os.read(self.screen, 65536).decode()

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self.screen, keys.encode())

    def close(self) -> None:
        """End the program and take the terminal away."""
        with self.child:
            self.child.kill()
        os.close(self.screen)
        os.close(self.line)


@pytest.fixture
def terminal(base: Path) -> Iterator[Any]:
    """Start `status` on a terminal; it ends with the test."""
    opened: list[Terminal] = []

    def start(*words: str, **environ: str) -> Terminal:
        opened.append(Terminal(base, *words, **environ))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_following_on_a_terminal(base: Path, terminal: Any, key: str) -> None:
    """On a terminal the picture is renewed in its place; q and Ctrl-C end it, and all is well."""
    there = terminal("--watch")
    there.see("q to end")

    attach(base)
    there.see("10.0.0.2/24")
    there.type(key)

    assert there.child.wait(timeout=20) == 0
    assert termios.tcgetattr(there.line) == there.before
    there.see("\x1b[?25h")  # the cursor is back
    assert "Traceback" not in there.shown


def test_colours(terminal: Any) -> None:
    """On a terminal there are colours, unless NO_COLOR says no."""
    with_colours, without = terminal(), terminal(NO_COLOR="1")
    for there in (with_colours, without):
        there.see("uplink none")
        there.see("again")
        assert there.child.wait(timeout=20) == 0

    assert "\x1b[32m●" in with_colours.shown
    assert "\x1b[3" not in without.shown
