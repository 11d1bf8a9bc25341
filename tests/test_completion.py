# SPDX-License-Identifier: Apache-2.0
"""Completion: what bash, zsh and fish offer, asked as a person asks them."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argcomplete import shell_integration
from conftest import give_up

from netns_shim.cli import completers, completion, install
from netns_shim.main import main
from netns_shim.state import MARK

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A home with the launcher in PATH, and two shared netns's, with a container in one."""
    install.install(str(tmp_path / "bin"), "netns-shim", force=False)
    for name in ("blue", "black"):
        (tmp_path / "netns-shim" / name / "refs").mkdir(parents=True)
        (tmp_path / "netns-shim" / name / MARK).touch()
        (tmp_path / "netns-shim" / name).chmod(0o700)
    (tmp_path / "netns-shim").chmod(0o700)
    (tmp_path / "netns-shim/blue/refs/net:c123:eth0:bridge").touch()
    (tmp_path / "netns-shim/blue/refs/:run:7-x").touch()
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def need(shell: str) -> str:
    """Give the path of a shell, or give up."""
    path = shutil.which(shell)
    if path is None:
        give_up(f"no {shell} here")
    return path


class Typing:
    """An interactive shell on a terminal."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(env["HOME"])
                os.execve(argv[0], argv, env)
            finally:
                os._exit(127)
        self.seen = ""

    def type(self, keys: str, wanted: str) -> str:
        """Type keys, and wait until the screen shows something wanted after them."""
        self.seen = ""
        os.write(self.fd, keys.encode())
        deadline = time.monotonic() + SECONDS
        while wanted not in self.seen:
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"typed {keys!r}, wanted {wanted!r}, saw {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        return self.seen

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(params=["bash", "zsh"])
def typing(request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[Typing]:
    """An interactive shell that has read the code of the command."""
    shell = need(request.param)
    argv = {"bash": [shell, "--norc", "--noprofile", "-i"], "zsh": [shell, "-f", "-i"]}
    typing = Typing(argv[request.param], env)
    try:
        typing.type("PS1='ok''> '\n", "ok> ")
        if request.param == "zsh":
            typing.type(
                "autoload -U compinit && compinit -u; unsetopt zle_bracketed_paste\n", "ok> "
            )
        typing.type(f'eval "$(netns-shim completion {request.param})"; echo re""ad\n', "\nread")
        typing.type("\n", "ok> ")
        yield typing
    finally:
        typing.close()


def test_a_person_types(typing: Typing) -> None:
    """A command, an option and the name of a netns are completed by the tab key."""
    typing.type("netns-shim vali\t", "validate")
    typing.type("\x15", "")
    typing.type("netns-shim stop --fo\t", "--force")
    typing.type("\x15", "")
    typing.type("netns-shim stop --netns blu\t", "--netns blue")
    typing.type("\x15", "")
    assert "black" in typing.type("netns-shim refresh --netns bl\t\t", "blue")


def test_fish(env: dict[str, str]) -> None:
    """fish offers what the command says, with names that exist now."""
    fish = need("fish")

    def ask(line: str) -> list[str]:
        script = f"netns-shim completion fish | source; complete -C '{line}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", script],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return [offered.split("\t")[0].strip() for offered in done.stdout.splitlines()]

    assert ask("netns-shim val") == ["validate"]
    assert sorted(ask("netns-shim stop --netns bl")) == ["black", "blue"]
    assert ask("netns-shim completion z") == ["zsh"]


def ask(env: dict[str, str], line: str) -> list[str]:
    """Ask the program as the code in a shell does."""
    path = Path(env["HOME"]) / "answer"
    asking = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(path),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        ["netns-shim"], env={**env, **asking}, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    return [word.rstrip() for word in path.read_text().splitlines()] if path.exists() else []


def test_what_is_offered(env: dict[str, str]) -> None:
    """Netns's below another state directory are offered too; without any there is nothing."""
    home = Path(env["HOME"])
    (home / "other/red/refs").mkdir(parents=True, mode=0o700)
    (home / "other").chmod(0o700)
    (home / "other/red").chmod(0o700)
    (home / "other/red" / MARK).touch()

    assert sorted(ask(env, "netns-shim stop --netns ")) == ["black", "blue"]
    assert ask(env, f"netns-shim stop --state-dir {home}/other --netns ") == ["red"]
    assert ask(env, "netns-shim install --for net") == ["netavark"]
    assert ask(env, f"netns-shim install {home}/oth") == [f"{home}/other/"]
    (home / "netns-shim").chmod(0o777)
    assert ask(env, "netns-shim stop --netns ") == []


def test_containers(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument that names a container is completed by the IDs of those that are attached."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", env["XDG_RUNTIME_DIR"])
    parser = argparse.ArgumentParser()
    command = parser.add_subparsers().add_parser("x")
    action = command.add_argument("container")

    completers.attach(parser, {"container": completers.Containers()})

    completer: Callable[..., list[str]] = vars(action)["completer"]
    assert completer(parsed_args=argparse.Namespace()) == ["c123"]


def test_a_plugin_is_not_asked(env: dict[str, str]) -> None:
    """A call of a runtime is one, whatever else is in its environment."""
    done = subprocess.run(
        ["netns-shim"],
        env={**env, "_ARGCOMPLETE": "1", "CNI_COMMAND": "VERSION"},
        input="{}",
        capture_output=True,
        text=True,
    )

    assert "supportedVersions" in done.stdout


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_code(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """There is code for each shell, and its syntax is right."""
    assert main(["netns-shim", "completion", shell]) == 0

    code = capsys.readouterr().out
    subprocess.run([need(shell), "-n"], input=code, text=True, check=True)


def test_older_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """argcomplete before 3.0 has no code for zsh, and then zsh takes that for bash."""

    def shellcode(programs: list[str], shell: str = "bash") -> str:
        return f"{shell}: {programs[0]}" if shell == "bash" else ""

    monkeypatch.setattr(shell_integration, "shellcode", shellcode)

    begin, end = completion.code("zsh").splitlines()
    assert begin.endswith(" bashcompinit")
    assert end == completion.code("bash") == "bash: netns-shim"


def test_it_is_quick(env: dict[str, str]) -> None:
    """Nothing that only a command needs is imported to complete its name."""
    code = "import sys, netns_shim.cli; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    loaded = set(done.stdout.split())
    assert not {"argcomplete", "pyroute2", "filelock"} & loaded
