# SPDX-License-Identifier: Apache-2.0
"""The launcher: an answer on stdout also where no module of ours can be loaded."""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest

from netns_shim.cli import install
from netns_shim.errors import INTERNAL, IO_FAILURE

PACKAGE = Path(install.PACKAGE)
CONF = {"cniVersion": "1.0.0", "name": "net", "enter": "never", "delegate": {"type": "fake"}}


class Installed:
    """A launcher, called by a name, with a copy of the package that a test may damage."""

    def __init__(self, directory: Path, name: str) -> None:
        fakes.strict_plugin(directory, "fake")
        self.state = directory / "state"
        self.modules = directory / "a 'place' \\ of\u00a0\U0001f600"
        self.package = self.modules / "netns_shim"
        shutil.copytree(PACKAGE, self.package)
        compileall.compile_dir(self.package, quiet=2)
        self.path = directory / name
        path = install.path_of([str(self.modules)])
        self.path.write_text(install.text(install.INTERPRETER, install.MARK, path))
        self.path.chmod(0o755)

    def run(
        self, *arguments: str, before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Call it as a runtime of CNI does, or with arguments as netavark and people do."""
        directory = self.path.parent
        elsewhere = {"PYTHONPATH": str(directory), "PYTHONHOME": str(directory)}
        environ = {**fakes.environment(directory), **elsewhere}
        return subprocess.run(
            [*before, self.path, *arguments],
            env=environ,
            input=json.dumps({**CONF, "stateDir": str(self.state)}),
            capture_output=True,
            text=True,
            check=False,
        )

    def byte_code(self, name: str) -> Path:
        """Give the file with the byte code of one of our modules."""
        return Path(importlib.util.cache_from_source(str(self.package / f"{name}.py")))


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """A launcher with the name of the plugin."""
    return Installed(tmp_path, "netns-shim")


def is_moved(shim: Installed) -> None:
    """Move the virtual environment."""
    shim.modules.rename(shim.modules.parent / "elsewhere")


def is_cut(shim: Installed) -> None:
    """Leave half of a file of byte code."""
    file = shim.byte_code("skel")
    os.truncate(file, file.stat().st_size // 2)


def is_zeros(shim: Installed) -> None:
    """Leave zeros after the header, as after a power cut."""
    file = shim.byte_code("skel")
    text = file.read_bytes()
    file.write_bytes(text[:16] + bytes(len(text) - 16))


def is_too_new(shim: Installed) -> None:
    """Let the package be one that this Python cannot read."""
    (shim.package / "skel.py").write_text("this is Python 4\n")


def is_not_a_file(shim: Installed) -> None:
    """Put something unreadable in the place of a module, which no permission of root's opens."""
    (shim.package / "skel.py").unlink()
    (shim.package / "skel.py").symlink_to("skel.py")


FAULTS: dict[Callable[[Installed], None], str] = {
    is_moved: "install netns-shim again, and call `netns-shim install`",
    is_cut: "remove the directories __pycache__ of netns_shim",
    is_zeros: "remove the directories __pycache__ of netns_shim",
    is_too_new: "install netns-shim again",
    is_not_a_file: "install netns-shim again",
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_modules_that_cannot_be_loaded(
    installed: Installed, damage: Callable[[Installed], None]
) -> None:
    """The runtime gets an error with a cure, and the place, whatever characters that has."""
    damage(installed)

    answer = installed.run()

    error: dict[str, Any] = json.loads(answer.stdout)
    assert (answer.returncode, error["code"], answer.stderr) == (1, IO_FAILURE, "")
    assert error["msg"].startswith("netns-shim cannot be loaded: ")
    assert FAULTS[damage] in error["details"]
    assert str(installed.modules).replace("\U0001f600", "\ufffd") in error["details"]


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["netns-shim", "netavark"])
def test_of_netavark(tmp_path: Path, name: str, damage: Callable[[Installed], None]) -> None:
    """netavark, and a caller of the stand-in, get theirs; Podman wants no other key."""
    shim = Installed(tmp_path, name)
    damage(shim)

    answer = shim.run("setup", "/proc/self/ns/net")

    error = json.loads(answer.stdout)
    assert (answer.returncode, set(error)) == (1, {"error"})
    assert FAULTS[damage] in error["error"]


def test_of_a_person(installed: Installed) -> None:
    """A command says it on stderr, without a traceback."""
    is_moved(installed)

    answer = installed.run("status")

    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("netns-shim: netns-shim cannot be loaded: ")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["attaching", "chain"])
def test_module_of_a_verb(installed: Installed, name: str) -> None:
    """A module that is imported in the middle of a call is no bug either, and nothing is left."""
    os.truncate(installed.byte_code(name), 100)

    answer = installed.run()

    error = json.loads(answer.stdout)
    assert (answer.returncode, error["code"], answer.stderr) == (1, IO_FAILURE, "")
    assert error["msg"].startswith("Python cannot load a module: EOFError")
    assert "__pycache__" in error["details"]


@pytest.mark.parametrize(("name", "module"), [("netns-shim", "plugin"), ("netavark", "binary")])
def test_module_of_a_face(tmp_path: Path, name: str, module: str) -> None:
    """Without the module that would answer netavark, netavark is answered."""
    shim = Installed(tmp_path, name)
    os.truncate(shim.byte_code(f"faces/netavark_{module}"), 100)

    answer = shim.run("setup", "/proc/self/ns/net")

    error = json.loads(answer.stdout)
    assert (answer.returncode, set(error)) == (1, {"error"})
    assert "Python cannot load a module" in error["error"]


@pytest.mark.parametrize("limit", range(4, 10))
def test_few_descriptors(installed: Installed, limit: int) -> None:
    """A limit of open files is named, wherever it is met."""
    answer = installed.run(before=("prlimit", f"--nofile={limit}"))

    if answer.returncode == 0:  # enough for a plugin that does nothing
        assert limit > 5
        return
    error = json.loads(answer.stdout)
    assert (answer.returncode, error["code"]) == (1, IO_FAILURE)
    assert "raise the limit" in error["details"]


@pytest.mark.parametrize("size", [12, 14, 16, 20])
def test_little_memory(installed: Installed, size: int) -> None:
    """Neither is a limit of memory a bug of the shim."""
    answer = installed.run(before=("prlimit", f"--as={size}000000"))

    if answer.stdout:
        error = json.loads(answer.stdout)
        assert error.get("code") != INTERNAL
    else:  # the dynamic linker or Python itself has failed
        assert answer.stderr
        assert "netns_shim" not in answer.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(installed: Installed, closed: str) -> None:
    """A call without streams is an error, if one can be written, and leaves nothing attached."""
    answer = installed.run(before=("sh", "-c", f'exec "$0" "$@" {closed}'))

    is_fine = closed == "2>&-"
    assert answer.returncode == (0 if is_fine else 1)
    if ">&-" not in closed.replace("2>&-", ""):
        assert ("code" in json.loads(answer.stdout)) is not is_fine
    assert is_fine or not list(installed.state.glob("**/refs/*"))


PIPES = ["__init__", "main", "finder", "skel", "attaching", "shared/__init__", "validate/quick"]


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_byte_code_that_is_no_file(installed: Installed, name: str, kind: str) -> None:
    """A pipe or a device in the place of byte code is not waited for, and is named."""
    path = installed.byte_code(name)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    answer = installed.run(before=("timeout", "20"))

    error = json.loads(answer.stdout)
    assert (answer.returncode, error["code"], answer.stderr) == (1, IO_FAILURE, "")
    assert f"{path.name} is not a file" in error["msg"]
    assert "__pycache__" in error["details"]


@pytest.mark.parametrize(
    "name", ["main.py", "skel.py", "chain.py", "schemas/netns-shim.schema.json"]
)
def test_files_of_the_package_that_are_pipes(installed: Installed, name: str) -> None:
    """A pipe in the place of a source or a schema is an error, too."""
    path = installed.package / name
    path.unlink()
    os.mkfifo(path)

    answer = installed.run(before=("timeout", "20"))

    error = json.loads(answer.stdout)
    assert (answer.returncode, error["code"], answer.stderr) == (1, IO_FAILURE, "")


@pytest.mark.parametrize("name", ["main", "verbs", "shared/__init__"])
def test_byte_code_that_is_a_directory(installed: Installed, name: str) -> None:
    """Where Python would go on by the source, so do we; where not, the error names it."""
    path = installed.byte_code(name)
    path.unlink()
    path.mkdir()

    answer = installed.run()

    assert (answer.returncode, answer.stderr) == (1 if name == "main" else 0, "")
