# SPDX-License-Identifier: Apache-2.0
"""The log of calls: what is in a line, and that nothing about it fails a call."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import fakes
import podman
import pytest
import runtime
from conftest import give_up

PLUGIN = Path(__file__).resolve().parent.parent / "plugins" / "netns-shim"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
TOOK = r"\d+\.\dms"


class Caller:
    """Calls the shim with fake plugins, in place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "calls.log"

    def call(
        self, verb: str = "ADD", *, env: dict[str, str] | None = None, **keys: Any
    ) -> subprocess.CompletedProcess[str]:
        """Make a call with further keys in the configuration, and variables."""
        conf = {
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "netns-shim",
            "enter": "never",
            "stateDir": f"{self.directory}/state",
            "delegate": {"type": "fake"},
            **keys,
        }
        environ = {**fakes.environment(self.directory, verb), **(env or {})}
        text = json.dumps(conf)
        return subprocess.run(
            [PLUGIN], env=environ, input=text, capture_output=True, text=True, timeout=60
        )

    def lines(self) -> list[str]:
        """Give the lines of the log."""
        text = self.log.read_text()
        assert not text or text.endswith("\n")
        return text.splitlines()


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    """A caller with a plugin that works."""
    fakes.strict_plugin(tmp_path, "fake")
    return Caller(tmp_path)


def fields(line: str) -> dict[str, str]:
    """Read the named fields of a line, as a program would: values are words or JSON strings."""
    found = re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    return {k: json.loads(v) if v.startswith('"') else v for k, v in found}


def test_a_line(caller: Caller) -> None:
    """A call is one line: when, what, for whom, how long, with which plugins, and its end."""
    assert caller.call(logFile=str(caller.log)).returncode == 0
    assert caller.call("DEL", logFile=str(caller.log)).returncode == 0

    add, delete = caller.lines()
    assert re.fullmatch(
        f"{TIME} info ADD net:c:eth0 pid=\\d+ took={TOOK} "
        f'ran="fake \\(VERSION\\) {TOOK}, fake \\(ADD\\) {TOOK}" outcome=done',
        add,
    )
    assert re.fullmatch(
        f"{TIME} info DEL net:c:eth0 pid=\\d+ took={TOOK} "
        f'ran="fake \\(DEL\\) {TOOK}" outcome=done',
        delete,
    )
    assert caller.log.stat().st_mode & 0o7777 == 0o600


def test_nothing_is_logged_unless_wanted(caller: Caller) -> None:
    """Without a key and a variable there is no log anywhere."""
    assert caller.call().returncode == 0
    assert caller.call(logLevel="debug", env={"CNI_IFNAME": "eth1"}).returncode == 0

    assert sorted(os.listdir(caller.directory)) == ["calls.jsonl", "fake", "state"]


def test_wrong_configuration(caller: Caller) -> None:
    """What is wrong with a configuration is logged where its own key says."""
    assert caller.call(logFile=str(caller.log), plugins=[{"type": "fake"}]).returncode == 1

    (line,) = caller.lines()
    assert line.split()[1:4] == ["error", "ADD", "net:c:eth0"]
    assert fields(line)["code"] == "7"
    assert "exclude each other" in fields(line)["error"]


def test_failure_of_a_plugin(caller: Caller) -> None:
    """Where a plugin fails, its own code is logged, and the DEL by which it was undone."""
    fakes.strict_plugin(caller.directory, "bad", failing=["ADD"])

    done = caller.call(logFile=str(caller.log), delegate={"type": "bad"})

    (line,) = caller.lines()
    assert json.loads(done.stdout)["code"] == 142
    found = fields(line)
    assert (found["code"], found["error"], found["outcome"]) == ("142", "bad fails ADD", "failed")
    assert re.fullmatch(
        f"bad \\(VERSION\\) {TOOK}, bad \\(ADD\\) {TOOK}, bad \\(DEL\\) {TOOK}", found["ran"]
    )


def test_warning(caller: Caller) -> None:
    """A warning is in the line and makes its level; the second try of a DEL is there too.

    It is not on stderr, because there is nothing to do about it.
    """
    fakes.fake_plugin(
        caller.directory,
        "once",
        "if verb == 'VERSION':\n    answer({'supportedVersions': ['1.0.0']})\n"
        "elif verb == 'ADD':\n    answer({'cniVersion': '1.0.0'})\n"
        "elif not os.path.exists(directory + '/tried'):\n"
        "    open(directory + '/tried', 'w').close()\n    fail(7, 'not\\nyet')\n",
    )
    caller.call(logFile=str(caller.log), delegate={"type": "once"})
    done = caller.call("DEL", logFile=str(caller.log), delegate={"type": "once"})

    _, line = caller.lines()
    assert (done.returncode, done.stderr) == (0, "")
    assert line.split()[1:3] == ["warning", "DEL"]
    assert fields(line)["warnings"] == "plugin 'once' (DEL) succeeded when called again: not\nyet"
    assert fields(line)["ran"].count("once (DEL)") == 2


@pytest.mark.parametrize(
    ("level", "logged"), [("error", 1), ("warning", 1), ("info", 2), ("debug", 2)]
)
def test_levels(caller: Caller, level: str, logged: int) -> None:
    """A level leaves out the calls that are below it."""
    keys: dict[str, Any] = {"logFile": str(caller.log), "logLevel": level}
    caller.call(**keys)
    caller.call(**keys, delegate={"type": "missing"})

    assert len(caller.lines()) == logged
    assert "failed to find plugin" in caller.lines()[-1]


def test_debug(caller: Caller) -> None:
    """With debug the line holds what was asked for and what was answered."""
    done = caller.call(
        logFile=str(caller.log), logLevel="debug", env={"CNI_ARGS": "IgnoreUnknown=1"}
    )

    (line,) = caller.lines()
    found = fields(line)
    assert found["netns"] == "/proc/self/ns/net"
    assert found["args"] == "IgnoreUnknown=1"
    assert found["path"] == str(caller.directory)
    assert json.loads(found["answer"]) == json.loads(done.stdout)


@pytest.mark.parametrize("prefix", ["", "debug:"])
def test_variable(caller: Caller, prefix: str) -> None:
    """The variable counts for more than the keys, and logs what came by no configuration."""
    env = {"NETNS_SHIM_LOG": f"{prefix}{caller.log}"}
    caller.call(logFile=f"{caller.directory}/other", logLevel="error", env=env)
    caller.call("NONSENSE", env=env)
    caller.call("ADD", name=7, env=env)
    caller.call("VERSION", env=env)

    levels = [line.split()[1:4] for line in caller.lines()]
    assert levels == [
        ["info", "ADD", "net:c:eth0"],
        ["error", "NONSENSE", "-"],
        ["error", "ADD", "-"],
        ["info", "VERSION", "-"],
    ]
    assert not (caller.directory / "other").exists()
    assert ("answer" in fields(caller.lines()[0])) == bool(prefix)


@pytest.mark.parametrize("wanted", ["relative.log", "loud:/tmp/x", "info:relative", "debug:", ":"])
def test_bad_variable(caller: Caller, wanted: str) -> None:
    """A variable that makes no sense is a warning; no file is made."""
    done = caller.call(env={"NETNS_SHIM_LOG": wanted})

    assert done.returncode == 0
    assert "NETNS_SHIM_LOG must be an absolute path" in done.stderr
    assert sorted(os.listdir(caller.directory)) == ["calls.jsonl", "fake", "state"]


def test_bad_variable_without_stderr(caller: Caller) -> None:
    """With stderr closed, what is wrong with the variable does not get into the answer."""
    text = (
        f"exec 2>&-; NETNS_SHIM_LOG=relative CNI_COMMAND=VERSION exec {shlex.quote(str(PLUGIN))}"
    )

    done = subprocess.run(["sh", "-c", text], input="{}", capture_output=True, text=True)

    assert json.loads(done.stdout)["supportedVersions"]


def test_names_cannot_make_lines(caller: Caller) -> None:
    """Whatever the texts of others hold, a line stays one line of ASCII, and can be read again."""
    evil = '\n2026-01-01T00:00:00.000Z info ADD net:other:eth0 outcome=done "\x1b[31mé\u2028'
    env = {"NETNS_SHIM_LOG": str(caller.log)}
    caller.call(f"ADD{evil}", env=env)
    caller.call(env={**env, "CNI_CONTAINERID": f"c{evil}"})
    caller.call(env={**env, "CNI_ARGS": evil, "NETNS_SHIM_LOG": f"debug:{caller.log}"})
    caller.call(env=env, name=f"net{evil}")
    caller.call(env=env, delegate={"type": f"fake{evil}"})
    caller.call(env=env, delegate={"type": "\ud800"})

    lines = caller.lines()
    assert len(lines) == 6
    assert all(re.match(f"{TIME} (info|error) ", line) for line in lines)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert fields(lines[2])["args"] == evil


def test_long_texts_are_cut(caller: Caller) -> None:
    """A text of any length takes up little of a line."""
    env = {"NETNS_SHIM_LOG": str(caller.log)}
    caller.call(env=env, delegate={"type": "x" * 100_000})
    caller.call("x" * 100_000, env=env)

    assert all(len(line) < 10_000 for line in caller.lines())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: os.mkfifo(path), "No such device or address"),
        (lambda path: path.symlink_to(path.parent / "target"), "Too many levels of symbolic"),
        (lambda path: path.symlink_to("/dev/null"), "Too many levels of symbolic"),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "No such device or address"),
    ],
)
def test_what_is_in_the_place_of_the_log(
    caller: Caller, make: Callable[[Path], object], why: str
) -> None:
    """A log that cannot be written is a warning; nothing is waited for, no link followed."""
    make(caller.log)

    done = caller.call(logFile=str(caller.log))

    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ips"]
    assert f"netns-shim: cannot write the log '{caller.log}': {why}" in done.stderr
    assert not (caller.directory / "target").exists()


def test_fifo_that_is_read(caller: Caller) -> None:
    """A pipe is no log even while it has a reader, because it may be full."""
    os.mkfifo(caller.log)
    reader = os.open(caller.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = caller.call(logFile=str(caller.log))

        assert done.returncode == 0
        assert "not a regular file" in done.stderr
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_file_of_somebody_else(caller: Caller) -> None:
    """A file of another user is not written into: that user could read it."""
    if os.geteuid():
        give_up("only root can give a file away")
    caller.log.touch(0o666)
    os.chown(caller.log, 12345, 12345)

    done = caller.call(logFile=str(caller.log))

    assert done.returncode == 0
    assert "it belongs to user 12345" in done.stderr
    assert caller.log.read_text() == ""


@pytest.mark.parametrize("path", ["/none/such/directory/calls.log", "/dev/full", "/proc/version"])
def test_log_in_a_bad_place(caller: Caller, path: str) -> None:
    """Neither a directory that is not there nor a place that takes nothing fails a call."""
    done = caller.call(logFile=path)

    assert done.returncode == 0
    assert f"cannot write the log '{path}': " in done.stderr
    assert not os.path.exists("/none")


NO_LEVELS: list[Any] = ["verbose", "INFO", 3, None, []]


@pytest.mark.parametrize(
    "keys",
    [{"logFile": "calls.log"}, {"logFile": 7}, {"logFile": "/a\nb"}, {"logFile": "/\0"}]
    + [{"logLevel": level} for level in NO_LEVELS],
)
def test_bad_keys(caller: Caller, keys: dict[str, Any]) -> None:
    """Keys that make no sense are errors of the configuration, each named by its place."""
    done = caller.call(**keys)

    error = json.loads(done.stdout)
    assert (done.returncode, error["code"]) == (1, 7)
    assert f"$.{next(iter(keys))}: " in error["msg"]


def test_rotation(caller: Caller) -> None:
    """A log that was moved away is made again by the next call; one that is emptied is gone on."""
    caller.call(logFile=str(caller.log))
    caller.log.rename(caller.directory / "calls.log.1")
    caller.call("DEL", logFile=str(caller.log))
    (line,) = caller.lines()
    assert " DEL " in line

    os.truncate(caller.log, 0)
    caller.call(logFile=str(caller.log))

    (line,) = caller.lines()
    assert " ADD " in line


def test_many_at_once(caller: Caller) -> None:
    """Lines of calls at the same time do not mix, and none is lost."""
    env = {
        "CNI_COMMAND": "VERSION",
        "NETNS_SHIM_LOG": str(caller.log),
    }
    children = [
        subprocess.Popen([PLUGIN], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(24)
    ]
    assert [child.wait(60) for child in children] == [0] * 24

    assert len(caller.lines()) == 24
    assert len({fields(line)["pid"] for line in caller.lines()}) == 24


def test_answer_that_nobody_gets(caller: Caller) -> None:
    """An ADD that was undone because the answer was lost is an error in the log."""
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "enter": "never",
        "stateDir": f"{caller.directory}/state",
        "logFile": str(caller.log),
        "delegate": {"type": "fake"},
    }
    env = fakes.environment(caller.directory)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PLUGIN],
            env=env,
            input=json.dumps(conf),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 1
    (line,) = caller.lines()
    assert line.split()[1] == "error"
    assert line.endswith(" outcome=unheard")
    assert "the answer cannot be written" in fields(line)["warnings"]
    assert "fake (DEL)" in fields(line)["ran"]


def test_options_of_netavark(caller: Caller) -> None:
    """Both keys are options of a network of Podman; the verb is the one of CNI."""
    made = podman.network(
        type="fake",
        enter="never",
        stateDir=f"{caller.directory}/state",
        cniPath=str(caller.directory),
        logFile=str(caller.log),
        logLevel="debug",
    )
    text = json.dumps(podman.request(made, "c"))

    done = subprocess.run(
        [PLUGIN, "setup", "/none"], env={}, input=text.encode(), capture_output=True
    )

    assert done.returncode == 0, done.stdout
    (line,) = caller.lines()
    assert line.split()[1:3] == ["info", "ADD"]
    assert fields(line)["netns"] == "/none"


def test_real_calls(world: bench.World, session: bench.Session) -> None:
    """In the shared netns, too, the log is that of the caller's own files; a full disk is none."""
    directory = f"{world.env['HOME']}/logs"
    session.run(["mkdir", directory], check=True)
    session.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", directory], check=True)
    bridge = runtime.Runtime(
        session, uplink="none", delegate=runtime.bridge(), logFile=f"{directory}/calls.log"
    )
    with session.container() as container:
        bridge.succeed("ADD", "c1", container.netns)
        text = session.path(f"{directory}/calls.log").read_text()
        session.run(["sh", "-c", f"cat /dev/zero >{directory}/calls.log"])
        full = bridge.call("DEL", "c1", container.netns)

    assert re.fullmatch(
        f"{TIME} info ADD rootless:c1:eth0 pid=\\d+ took={TOOK} "
        f'ran=".*, bridge \\(ADD\\) {TOOK}" outcome=done\n',
        text,
    )
    assert full.returncode == 0
    assert "cannot write the log" in full.stderr
    assert "No space left on device" in full.stderr
    assert world.leftovers() == []
