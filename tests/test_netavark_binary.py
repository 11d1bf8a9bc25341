# SPDX-License-Identifier: Apache-2.0
"""Being the netavark binary: its arguments, and handing over what needs nothing of us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from fake_netavark import netavark

from netns_shim.cli import install
from netns_shim.faces.netavark_arguments import Arguments


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A netavark that is the shim."""
    directory = tmp_path_factory.mktemp("bin")
    return Path(install.install(str(directory), "netavark", force=False))


def run(installed: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the shim as netavark, itself first in PATH."""
    environ = {"PATH": f"{installed.parent}:{path}", "OTHER": "kept"}
    return subprocess.run(
        [installed, *words], env=environ, input="", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "paths", "file"),
    [
        ([], [], ""),
        (["--config", "/d"], ["/d"], ""),
        (["--config=/d"], ["/d"], ""),
        (["--config=/d=e"], ["/d=e"], ""),
        (["-c", "/d"], ["/d"], ""),
        (["-c/d"], ["/d"], ""),
        (["-c=/d"], ["/d"], ""),
        (["-f", "/f"], ["/f"], "/f"),
        (["-f/f"], ["/f"], "/f"),
        (["--file", "/f"], ["/f"], "/f"),
        (["--file=/f"], ["/f"], "/f"),
        (["-a", "/a"], ["/a"], ""),
        (["--aardvark-binary=/a"], ["/a"], ""),
        (["--rootless", "true"], [], ""),
        (["--rootless=false"], [], ""),
        (["-r", "true"], [], ""),
        (["-rtrue"], [], ""),
        (["--firewall-driver", "none"], [], ""),
        (["--firewall-driver=none"], [], ""),
        (["--plugin-directory", "/p", "--plugin-directory=/q"], ["/p", "/q"], ""),
        (
            ["--config", "/d", "--rootless=true", "-a/a", "--plugin-directory", "/p", "-f", "/f"],
            ["/d", "/a", "/p", "/f"],
            "/f",
        ),
    ],
)
def test_options(words: list[str], paths: list[str], file: str) -> None:
    """Options are read as netavark reads them, in every spelling."""
    arguments = Arguments([*words, "setup", "/n"])

    assert (arguments.command, arguments.argument) == ("setup", "/n")
    assert (arguments.paths, arguments.file) == (paths, file)
    assert arguments.words == [*words, "setup", "/n"]


@pytest.mark.parametrize(
    ("words", "command", "argument"),
    [
        ([], "", ""),
        (["--version"], "", ""),
        (["-V"], "", ""),
        (["version"], "version", ""),
        (["setup"], "setup", ""),
        (["setup", ""], "setup", ""),
        (["update", "net", "--network-dns-servers", "192.0.2.1"], "update", "net"),
        (["--config"], "", ""),
        (["-c", "setup", "teardown", "/n"], "teardown", "/n"),
    ],
)
def test_commands(words: list[str], command: str, argument: str) -> None:
    """The command is the first word that is no option's, its argument the second."""
    arguments = Arguments(words)

    assert (arguments.command, arguments.argument) == (command, argument)


def test_other_argument() -> None:
    """The argument can be exchanged, and the command, and nothing else is."""
    arguments = Arguments(["--config", "/d", "--rootless=true", "setup", "/n", "-f/f"])

    other = arguments.with_argument("/m")
    both = arguments.with_argument("/m", "teardown")

    assert other == ["--config", "/d", "--rootless=true", "setup", "/m", "-f/f"]
    assert both == ["--config", "/d", "--rootless=true", "teardown", "/m", "-f/f"]


@pytest.mark.parametrize("option", ["setup", "/n"])
def test_values_of_options_stay(option: str) -> None:
    """The value of an option is not exchanged where it happens to be the command or argument."""
    arguments = Arguments(["--config", option, "setup", "/n"])

    assert arguments.with_argument("/m", "teardown") == ["--config", option, "teardown", "/m"]


@pytest.mark.parametrize(
    "words", [["version"], ["--config", "/d", "update", "net"], ["setup"], [], ["--help"]]
)
def test_other_commands_are_handed_over(installed: Path, tmp_path: Path, words: list[str]) -> None:
    """What is neither setup nor teardown of a container is the real one's business."""
    netavark(tmp_path, "netavark", "sys.stderr.write('hm'); answer({}); sys.exit(3)\n")

    done = run(installed, *words, path=tmp_path)

    (call,) = fakes.calls(tmp_path)
    assert call.conf["argv"] == words
    assert call.environ["OTHER"] == "kept"
    assert (done.returncode, done.stdout, done.stderr) == (3, "{}", "hm")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a netns of one's own")
@pytest.mark.parametrize("command", ["setup", "teardown"])
def test_handed_over_in_place(installed: Path, tmp_path: Path, command: str) -> None:
    """Where netavark can work already, all is handed over to it."""
    netavark(tmp_path, "netavark", "print('here'); sys.exit(7)\n")

    done = run(installed, "--config", "/d", command, "/n", path=tmp_path)

    (call,) = fakes.calls(tmp_path)
    assert call.conf["argv"] == ["--config", "/d", command, "/n"]
    assert (done.returncode, done.stdout) == (7, "here\n")


def test_error(installed: Path, tmp_path: Path) -> None:
    """An error of ours is written as netavark writes its own."""
    (tmp_path / "netavark").symlink_to(installed)
    program = (
        "import sys\n"
        "from netns_shim import invoke\n"
        "from netns_shim.faces import netavark_binary\n"
        "invoke.HELPER_DIRECTORIES, invoke.DEFAULT_PATH = (), '/none'\n"
        "sys.exit(netavark_binary.main(['version']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )

    answer = json.loads(done.stdout)
    assert (done.returncode, list(answer)) == (1, ["error"])
    assert "failed to find driver" in answer["error"]
