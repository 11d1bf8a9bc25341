# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: how checks are run and shown, whatever they find."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import bench
import pytest
from diagnosis import FAKES, HANGING, Fakes, ask, command, results
from runtime import PLUGIN, until

from netns_shim.child import run
from netns_shim.cli.doctor import bounded, check, examination
from netns_shim.cli.doctor.check import OK, PROBLEM, SKIPPED, WARNING, Check, Result
from netns_shim.errors import warn

TOLD: Any = None  # what none of these checks looks at


def never(told: object) -> NoReturn:
    """Hang as a program does that waits for nothing in particular."""
    while True:
        signal.pause()


def raising(told: object) -> NoReturn:
    """Fail as a mistake in a check would have it."""
    raise KeyError("no such key")


def stubborn(told: object) -> NoReturn:
    """Hang without heeding the signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    never(told)


def killed(told: object) -> NoReturn:
    """End as one that the kernel ends for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    never(told)


def entering(told: object) -> Result:
    """Change everything that a process can change of itself."""
    os.chdir("/")
    os.umask(0o777)
    os.environ.clear()
    return Result(OK, "done")


FAILURES: dict[str, tuple[Callable[[Any], Result], str]] = {
    "raising": (raising, "the check itself has failed: KeyError: 'no such key'"),
    "hanging": (never, "the check did not end within 0.2 s"),
    "stubborn": (stubborn, "its process ended without a word (SIGKILL)"),
    "killed": (killed, "its process ended without a word (SIGKILL)"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_check_that_fails_hides_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that raises, hangs or is killed is a problem of its own, and the rest goes on."""
    monkeypatch.setattr(bounded, "GRACE", 0.2)
    failing, message = FAILURES[name]
    checks = [
        Check("first", lambda _: Result(OK, "well")),
        Check("failing", failing, seconds=0.2),
        Check("last", lambda _: Result(WARNING, "not so well", "do this")),
    ]

    status = examination.diagnose(checks, TOLD, is_json=True)

    first, failed, last = json.loads(capsys.readouterr().out)["results"]
    assert status == 1
    assert (first["result"], last["result"]) == ("ok", "warning")
    assert failed["result"] == "problem"
    assert message in failed["message"]


def test_what_a_check_has_started_ends_with_it(tmp_path: Path) -> None:
    """A program for which a check has no time left is ended."""
    script = tmp_path / "hanging"
    script.write_text(
        f"#!/bin/sh\necho $$ >{tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\ncat\n"
    )
    script.chmod(0o755)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script.write_text(script.read_text().replace("\ncat\n", f"\nread line <{fifo}\n"))

    def look(_: object) -> Result:
        run(str(script), {"PATH": bench.PATH}, b"", name="it", what="it", timeout=60)
        return Result(OK, "")

    found = bounded.look(Check("hanging", look, seconds=1), TOLD)

    assert found == Result(PROBLEM, "the check did not end within 1 s")
    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_what_a_program_leaves_behind_ends_with_the_check(tmp_path: Path) -> None:
    """A process that a program leaves, as unshare(1) does, is ended with the check."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = tmp_path / "leaving"
    script.write_text(f"#!/bin/sh\nsetsid sh -c 'read line <{fifo}' >&- 2>&- & echo $!\n")
    script.chmod(0o755)

    def look(_: object) -> Result:
        _, stdout, _ = run(str(script), {"PATH": bench.PATH}, b"", name="it", what="it", timeout=9)
        os.kill(int(stdout), 0)
        return Result(OK, stdout.decode().strip())

    found = bounded.look(Check("leaving", look), TOLD)

    assert found.status == OK
    assert not os.path.exists(f"/proc/{found.message}")


def test_a_check_changes_nothing_of_its_caller() -> None:
    """What a check does to its process is not done to this one."""
    before = (os.getcwd(), dict(os.environ))

    assert bounded.look(Check("entering", entering), TOLD) == Result(OK, "done")

    assert (os.getcwd(), dict(os.environ)) == before


def test_warnings_are_details(capfd: pytest.CaptureFixture[str]) -> None:
    """What is said on stderr during a check belongs to its result, and is not printed."""

    def look(_: object) -> Result:
        warn("something odd")
        print("noise")
        return Result(OK, "well", details=("first",))

    found = bounded.look(Check("warning", look), TOLD)

    assert found == Result(OK, "well", details=("first", "something odd"))
    assert capfd.readouterr() == ("", "")


def test_a_long_answer() -> None:
    """A result of more than a pipe holds arrives; each text in it is one line of sane length."""
    many = tuple(f"{number}\n{'x' * 1000}" for number in range(1000))

    found = bounded.look(Check("long", lambda _: Result(OK, "a\nb\tc", details=many)), TOLD)

    assert found.message == "a b c"
    assert len(found.details) == 1000
    assert all(len(line) <= check.MAXIMUM_LINE + 1 and "\n" not in line for line in found.details)


@pytest.mark.parametrize(
    ("kinds", "status", "summary"),
    [
        ([OK, SKIPPED], 0, "all is well"),
        ([OK, WARNING], 0, "1 warning"),
        ([PROBLEM, WARNING, PROBLEM], 1, "2 problems, 1 warning"),
    ],
)
def test_exit_status(
    kinds: list[str], status: int, summary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1 for problems alone; the last line says how many there are."""

    def finding(kind: str) -> Check:
        return Check(kind, lambda _: Result(kind, "it", "do"))

    checks = [finding(kind) for kind in kinds]

    assert examination.diagnose(checks, TOLD, is_json=False) == status
    assert capsys.readouterr().out.splitlines()[-1] == summary


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a result is one line however long, without colours and without progress."""
    long = "a word and " * 50

    def look(_: object) -> Result:
        return Result(PROBLEM, long[:390].strip(), "do [bold]this[/bold]", ("the reason :smile:",))

    examination.diagnose([Check("a check", look), Check("x", look)], TOLD, is_json=False)

    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        f"problem  a check  {long[:390].strip()}",
        "                  the reason :smile:",
        "                  -> do [bold]this[/bold]",
        f"problem  x        {long[:390].strip()}",
        "                  the reason :smile:",
        "                  -> do [bold]this[/bold]",
        "2 problems",
    ]


def test_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """What others have named or printed can send nothing to a terminal."""

    def look(_: object) -> Result:
        return Result(WARNING, "/x/\x1b[2Jname", "rm \udcff", ("\x07",))

    examination.diagnose([Check("odd", look)], TOLD, is_json=False)

    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07"}
    assert "/x/\\x1b[2Jname" in shown
    assert "rm \\udcff" in shown


def on_terminal(world: bench.World, *arguments: str, **env: str) -> str:
    """Ask it on a terminal; give what that shows, escape sequences included."""
    ours, theirs = os.openpty()
    child = world.popen(
        [PLUGIN, "doctor", *arguments],
        env={**world.env, "TERM": "xterm", "COLUMNS": "80", **env},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    except OSError:
        pass  # EIO: no process has the other end any more
    os.close(ours)
    assert child.wait(30) in (0, 1)
    return shown.decode()


def test_on_a_terminal(world: bench.World) -> None:
    """On a terminal there are colours, and a bar of how far it is that goes in the end."""
    shown = on_terminal(world)

    assert "\x1b[32mok" in shown
    assert re.search(r"checking user namespaces.*━", shown)
    last = shown.rpartition("\x1b[?25h")[2]  # the cursor is shown again
    assert "checking" not in last
    assert shown.count("subordinate IDs") == shown.count("checking subordinate IDs") + 1


def test_no_colours_by_request(world: bench.World) -> None:
    """NO_COLOR takes the colours away."""
    assert "\x1b[32m" not in on_terminal(world, NO_COLOR="1")


def test_json_on_a_terminal(world: bench.World) -> None:
    """JSON is JSON on a terminal, too."""
    assert json.loads(on_terminal(world, "--json"))["results"]


def test_a_healthy_machine(world: bench.World, session: bench.Session) -> None:
    """On the machine of the tests nothing is a problem: for the user, in a session, for root."""
    for place in (world, session, world.root):
        found = ask(place)

        assert all(result["result"] != "problem" for result in found.values()), found


def test_reader_that_has_seen_enough(world: bench.World) -> None:
    """Where the reader goes away it ends without a word."""
    done = world.run(["sh", "-c", f"{PLUGIN} doctor | head -n 1"])

    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_order(world: bench.World) -> None:
    """What is most likely wrong comes first; what is named by a configuration before that."""
    names = list(ask(world))

    assert names[:3] == ["user namespaces", "subordinate IDs", "newuidmap"]
    assert names == [check.name for check in examination.CHECKS]


def test_text_and_json_agree(world: bench.World) -> None:
    """For people and for programs the results are the same, in the same order."""
    found = results(world.run(command()))

    lines = world.run([PLUGIN, "doctor"]).stdout.splitlines()

    shown = [line for line in lines if line.split("  ")[0] in ("ok", "skipped", "warning")]
    assert [(line[:7].strip(), line[9:26].strip()) for line in shown] == [
        (result["result"], name) for name, result in found.items()
    ]


def test_nothing_is_changed(world: bench.World, session: bench.Session) -> None:
    """It leaves no file, process, interface or rule, in whatever place it is asked."""
    rules = world.root.run(["nft", "list", "ruleset"], check=True).stdout
    # What holds a namespace of the bench is a shell that becomes `cat` in its own time.
    shell = os.path.basename(os.path.realpath("/bin/sh"))
    assert until(lambda: shell not in world.programs())
    programs = sorted(world.programs())
    for place in (world, session, world.root):
        ask(place)

    assert world.leftovers() == []
    assert sorted(world.programs()) == programs
    assert world.root.run(["nft", "list", "ruleset"], check=True).stdout == rules
    assert not world.path("/run/netns-shim").exists()


@pytest.mark.parametrize("is_terminals", [True, False])
def test_interrupted(world: bench.World, is_terminals: bool) -> None:
    """Ctrl-C ends it and what it waits for, without a traceback; so does SIGINT to it alone."""
    fakes = Fakes(world)
    try:
        fifo = world.path(f"{FAKES}/pasta.ready")
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        fakes.add("pasta", HANGING)
        env = {**world.env, "PATH": fakes.first}
        pipe = subprocess.PIPE
        child = world.popen(
            [PLUGIN, "doctor", "--json"],
            env=env,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )
        with fifo.open() as reader:  # it is being asked for its version
            if is_terminals:
                os.killpg(child.pid, signal.SIGINT)
            else:
                child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=30)
            assert reader.read() == ""  # pasta has let it go

        assert (out, err, child.returncode) == ("", "", 130)
    finally:
        fakes.remove()
