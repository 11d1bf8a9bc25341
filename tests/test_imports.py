# SPDX-License-Identifier: Apache-2.0
"""What imports what: the layers of the package, and what a call may cost."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fakes
import podman
import pytest

import netns_shim

PACKAGE = Path(netns_shim.__file__).parent

# From the bottom up: what is in a wing imports of ours its own wing, and what stands before it.
# The root is hot, as a warm call imports most of it; the wings are cold.
WINGS = ("", "shared", "ports", "names", "userns", "validate", "netavark", "gc", "faces", "cli")
# Libraries, and the modules that may import them at their top.
LIBRARIES = {
    "filelock": {"cli.gc"},
    "graphviz": {"cli.picture"},
    "jsonschema": {"validate.explain"},
    "pyroute2": {"shared.netlink"},
    "rich": {
        "cli.doctor.report",
        "cli.lines",
        "cli.printing",
        "cli.progress",
        "cli.tree",
        "cli.watch",
    },
}
# What hot modules have from the standard library.
STANDARD = {
    *(
        "__future__",
        "_ctypes",
        "_frozen_importlib_external",
        "_imp",
        "_json",
        "_signal",
        "atexit",
        "binascii",
        "errno",
        "fcntl",
        "gc",
        "marshal",
        "os",
        "select",
    ),
    *("stat", "sys", "time"),
}
# What these bring along, and nothing else.
BUDGET = {
    *STANDARD,
    *("abc", "genericpath", "netns_shim", "posixpath"),
}
FORBIDDEN = {
    *("argcomplete", "argparse", "asyncio", "contextlib", "ctypes", "dataclasses", "enum"),
    *("filelock", "functools", "graphviz", "inspect", "json", "jsonschema", "logging"),
    *("pathlib", "pyroute2", "re", "rich", "shutil", "signal", "subprocess", "tempfile"),
    *("traceback", "typing"),
}


@cache
def modules() -> list[str]:
    """List the modules of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in found if name]


def imports(name: str) -> Iterator[tuple[str, str, bool]]:
    """List what a module imports: "ours" or "theirs", the name, and whether at its top.

    What type checkers alone import is left out.
    """
    path = PACKAGE / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not _is_for_types(node)]
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(tree):
        is_at_top = node in tree.body
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "theirs", alias.name.partition(".")[0], is_at_top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield "theirs", str(node.module).partition(".")[0], is_at_top
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                ours = full if full in modules() else ".".join(base)
                if ours:
                    yield "ours", ours, is_at_top


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def loaded(code: str, **call: Any) -> set[str]:
    """Return the modules that a program loads besides those that Python itself does."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"sys.path += {[str(PACKAGE.parent), *sys.path]!r}\n"
        f"{code}\n"
        "new = set(sys.modules) - before\n"
        "print('MODULES', *sorted(new), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True, **call
    )
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("MODULES "))
    return set(line.split()[1:])


def tops(names: set[str]) -> set[str]:
    """Return the top-level names of modules, without those of C."""
    return {name.partition(".")[0] for name in names if not name.startswith("_")} | {
        name for name in names if name == "__future__"
    }


def wing(name: str) -> str:
    """Give the wing that a module is in, or is; "" for the root."""
    first = name.partition(".")[0]
    return first if first in WINGS else ""


def test_every_folder_is_a_wing() -> None:
    """The folders of the package are the wings, and `schemas`, in which there is no code."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}

    assert folders == {*WINGS[1:], "schemas"}


@pytest.mark.parametrize("name", modules())
def test_imports_run_one_way(name: str) -> None:
    """A module imports from its own wing and from those below it, wherever in it that stands.

    Only the root may reach up, to enter a wing: inside a function, so that it costs when needed.
    """
    for kind, other, is_at_top in imports(name):
        if kind == "ours" and (wing(name) or is_at_top):
            assert WINGS.index(wing(other)) <= WINGS.index(wing(name)), f"{name} imports {other}"


def test_no_ring_of_imports() -> None:
    """Modules that are imported at the top of each other would never be loaded."""
    left = {
        name: {other for kind, other, is_at_top in imports(name) if kind == "ours" and is_at_top}
        for name in modules()
    }

    while ready := {name for name, needed in left.items() if not needed & left.keys() - {name}}:
        for name in ready:
            del left[name]

    assert left == {}


@pytest.mark.parametrize("name", modules())
def test_libraries_stay_where_they_are_needed(name: str) -> None:
    """A module of the root imports what is cheap, at its top; a library has its few places."""
    theirs = {other for kind, other, is_at_top in imports(name) if kind == "theirs" and is_at_top}

    assert {lib for lib in LIBRARIES if lib in theirs and name not in LIBRARIES[lib]} == set()
    if not wing(name):
        assert theirs - STANDARD == set()


def test_package_imports_nothing() -> None:
    """Importing the package alone costs nothing."""
    assert loaded("import netns_shim") == {"netns_shim"}


def test_budget_of_version() -> None:
    """VERSION, which runtimes ask often, loads the wire and little else."""
    code = (
        "import os\n"
        "os.environ['CNI_COMMAND'] = 'VERSION'\n"
        "from netns_shim import main\n"
        "assert main.main(['netns-shim']) == 0"
    )

    found = loaded(code, input="{}")

    assert tops(found) - BUDGET == set()
    assert tops(found) & FORBIDDEN == set()
    assert {name for name in found if name.startswith("netns_shim.")} == {
        f"netns_shim.{name}"
        for name in (
            *("as_cni", "cni", "decoding", "encoding", "errors", "finder", "interrupt"),
            *("log", "main", "request", "skel"),
        )
    }


@pytest.mark.parametrize(
    ("module", "others"),
    [("attaching", {"detaching", "verbs"}), ("detaching", {"attaching", "verbs"})],
)
def test_budget_of_the_verbs(module: str, others: set[str]) -> None:
    """What every ADD or DEL imports brings no library and no cold module, nor what others need."""
    found = loaded(f"import netns_shim.{module}")

    assert tops(found) - BUDGET == set()
    assert {name for name in found if wing(name.partition(".")[2])} == set()
    assert f"netns_shim.{module}" in found
    assert {f"netns_shim.{name}" for name in others} & found == set()


def test_budget_of_a_call(tmp_path: Path) -> None:
    """The first ADD of a configuration validates it, which costs; the second is cheap."""
    fakes.strict_plugin(tmp_path, "fake")
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "netns-shim",
        "enter": "never",
        "stateDir": str(tmp_path / "state"),
        "delegate": {"type": "fake"},
    }
    environ = fakes.environment(tmp_path)
    code = "from netns_shim import main\nassert main.main(['netns-shim']) == 0"

    first, second, third = (
        loaded(code, input=json.dumps(conf), env={**environ, "CNI_CONTAINERID": name})
        for name in "abc"
    )

    # So that what follows does not hold by accident.
    assert "netns_shim.validate.quick" in first
    assert tops(first) & FORBIDDEN == set()
    assert second == third
    assert tops(second) - BUDGET == set()
    assert tops(second) & FORBIDDEN == set()
    assert [call.verb for call in fakes.calls(tmp_path)].count("VERSION") <= 2


@pytest.mark.parametrize("module", ["shared.lifecycle", "userns.pause"])
def test_budget_of_the_first_and_the_last(module: str) -> None:
    """What makes and removes a shared netns brings no library either, nor what they bring.

    Nor does what these modules import later, in the functions that need it, of those that every
    first ADD and last DEL of a user without capabilities calls.
    """
    later = ("shared.processes", "shared.scope", "userns.recover", "userns.start", "userns.subids")
    needed = (module, *later) if module == "userns.pause" else (module,)
    found = loaded("; ".join(f"import netns_shim.{name}" for name in needed))

    assert tops(found) & FORBIDDEN == set()
    assert "ipaddress" not in found
    seldom = {"netns_shim.shared.maintenance", "netns_shim.shared.slirp4netns"}
    assert found & seldom == set()


def test_budget_of_a_setup(tmp_path: Path) -> None:
    """A setup for netavark in a network that is known brings its own wire, and no library."""
    fakes.strict_plugin(tmp_path, "fake", versions=["1.0.0"])
    made = podman.network(
        type="fake", enter="never", stateDir=str(tmp_path / "s"), cniPath=str(tmp_path)
    )
    code = "from netns_shim import main\nassert main.main(['netns-shim', 'setup', '/none']) == 0"

    first, second = (
        loaded(code, input=json.dumps(podman.request(made, name)), env={}) for name in "ab"
    )

    assert "netns_shim.validate.quick" in first
    assert tops(first) & FORBIDDEN == set()
    assert tops(second) & {*FORBIDDEN, "ipaddress"} == set()
    assert {"netns_shim.faces.netavark_plugin", "netns_shim.netavark.network"} <= second
    others = {"netavark.driver", "netavark.translate", "faces.netavark_create"}
    assert {f"netns_shim.{name}" for name in others} & second == set()


def test_library_is_where_it_is_expected() -> None:
    """A cold module does load its library, by the same measure."""
    assert "pyroute2" in loaded("import netns_shim.shared.netlink")


def test_commands_may_cost() -> None:
    """The commands for people load argparse, by the same measure, and no library before need."""
    found = loaded("import netns_shim.cli")

    assert {"argparse", "netns_shim.cli.status"} <= found
    assert tops(found) & LIBRARIES.keys() == set()


@pytest.mark.parametrize(
    ("name", "library"), [("tree", "rich"), ("watch", "rich"), ("picture", "graphviz")]
)
def test_libraries_of_the_commands(name: str, library: str) -> None:
    """What draws does load its library, by the same measure."""
    assert library in loaded(f"import netns_shim.cli.{name}")
