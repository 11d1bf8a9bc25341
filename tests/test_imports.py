# SPDX-License-Identifier: Apache-2.0
"""What imports what: the layers of the package, and what a call may cost."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import podman
import pytest

import netns_shim

PACKAGE = Path(netns_shim.__file__).parent

# From the bottom up: at top level a module imports only what stands before it.
LAYERS = (
    "compiled",
    "errors",
    "decoding",
    "encoding",
    "log",
    "interrupt",
    "turn",
    "libc",
    "locking",
    "subids",
    "request",
    "result",
    "cni",
    "skel",
    "fields",
    "mapping",
    "netavark",
    "dialogue",
    "records",
    "state",
    "attachment",
    "netns",
    "references",
    "conf",
    "conflist",
    "network",
    "child",
    "invoke",
    "userns",
    "scope",
    "versions",
    "driver",
    "chain",
    "enter",
    "host",
    "rules",
    "validity",
    "schema",
    "positions",
    "validation",
    "wrapping",
    "addresses",
    "resolvconf",
    "visit",
    "tap",
    "nft",
    "netlink",
    "mounts",
    "process",
    "revival",
    "holder",
    "uplink",
    "connect",
    "lifecycle",
    "first",
    "place",
    "call",
    "leases",
    "signs",
    "garbage",
    "inspection",
    "ending",
    "verbs",
    "create",
    "as_cni",
    "as_netavark",
    "as_binary",
    "cli.completers",
    "cli.completion",
    "cli.printing",
    "cli.progress",
    "cli.tree",
    "cli.picture",
    "cli.watch",
    "cli.directories",
    "cli.compiling",
    "cli.graph",
    "cli.install",
    "cli.keeper",
    "cli.programs",
    "cli.doctor.check",
    "cli.doctor.bounded",
    "cli.doctor.userns",
    "cli.doctor.ids",
    "cli.doctor.uplinks",
    "cli.doctor.plugins",
    "cli.doctor.drivers",
    "cli.doctor.rules",
    "cli.doctor.places",
    "cli.doctor.stale",
    "cli.doctor.configuration",
    "cli.doctor.report",
    "cli.doctor.examination",
    "cli.doctor",
    "cli.gc",
    "cli.run",
    "cli.refresh",
    "cli.show",
    "cli.schema",
    "cli.status",
    "cli.stop",
    "cli.uninstall",
    "cli.unshare",
    "cli.validate",
    "cli.version",
    "cli.wrap",
    "cli",
    "main",
)
# Imported where they are needed and not before: each costs more than the rest together.
COLD = {
    *("validity", "schema", "resolvconf", "netlink", "process", "uplink", "lifecycle", "create"),
    *("addresses", "rules"),
    *("connect", "mounts", "visit", "tap", "nft"),
    *("holder", "locking", "revival", "scope", "subids", "userns"),
    *("positions", "validation", "wrapping", "ending"),
    *("fields", "netavark", "mapping", "dialogue", "conflist", "network", "driver"),
    *("as_netavark", "as_binary", "leases", "signs", "garbage", "inspection"),
}
# What hot modules have from the standard library.
STANDARD = {
    *(
        "__future__",
        "_ctypes",
        "_frozen_importlib",
        "_frozen_importlib_external",
        "_json",
        "_signal",
        "binascii",
        "errno",
        "fcntl",
        "gc",
        "os",
        "select",
    ),
    *("marshal", "stat", "sys", "time"),
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


def modules() -> list[str]:
    """List the modules of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in found if name]


def imports(name: str) -> Iterator[tuple[str, str]]:
    """List what a module imports at top level: "ours" or "theirs", and the name."""
    path = PACKAGE / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "theirs", alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield "theirs", str(node.module).partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
            base = package[: len(package) - node.level + 1]
            for alias in node.names:
                full = ".".join([*base, *filter(None, [node.module])])
                ours = full if node.module else ".".join([*base, alias.name])
                if ours != "__version__":
                    yield "ours", ours


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


def test_every_module_has_a_layer() -> None:
    """Each module has its place in the order, once."""
    assert sorted(modules()) == sorted(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_run_one_way(name: str) -> None:
    """A module imports at top level only from the layers below it, and no cold one if hot."""
    is_cold = name in COLD or name.startswith("cli")

    for kind, other in imports(name):
        if kind == "ours":
            assert LAYERS.index(other) < LAYERS.index(name), f"{name} imports {other}"
            assert is_cold or other not in COLD, f"{name} imports {other}, which is cold"
            assert is_cold or not other.startswith("cli"), f"{name} imports {other}"


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in COLD and not n.startswith("cli")])
def test_hot_modules_import_little(name: str) -> None:
    """A hot module has from the standard library only what is cheap."""
    theirs = {other for kind, other in imports(name) if kind == "theirs"}

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
            *("as_cni", "cni", "decoding", "encoding", "errors", "interrupt", "log", "main"),
            *("request", "skel"),
        )
    }


def test_budget_of_the_verbs() -> None:
    """The verbs, which every ADD imports, bring no library and no cold module."""
    found = loaded("import netns_shim.verbs")

    assert tops(found) - BUDGET == set()
    assert {f"netns_shim.{name}" for name in COLD} & found == set()
    assert "netns_shim.verbs" in found


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
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_NETNS_OVERRIDE": "1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(tmp_path),
    }
    code = "from netns_shim import main\nassert main.main(['netns-shim']) == 0"

    first, second, third = (
        loaded(code, input=json.dumps(conf), env={**environ, "CNI_CONTAINERID": name})
        for name in "abc"
    )

    # So that what follows does not hold by accident.
    assert "netns_shim.validity" in first
    assert tops(first) & FORBIDDEN == set()
    assert second == third
    assert tops(second) - BUDGET == set()
    assert tops(second) & FORBIDDEN == set()
    assert [call.verb for call in fakes.calls(tmp_path)].count("VERSION") <= 2


@pytest.mark.parametrize("module", ["lifecycle", "holder"])
def test_budget_of_the_first_and_the_last(module: str) -> None:
    """What makes and removes a shared netns brings no library either, nor what they bring.

    Nor does what these modules import later, in the functions that need it, of those that every
    first ADD and last DEL of a user without capabilities calls.
    """
    later = {"holder": ("process", "revival", "scope", "subids", "userns")}.get(module, ())
    found = loaded("; ".join(f"import netns_shim.{name}" for name in (module, *later)))

    assert tops(found) & FORBIDDEN == set()
    assert "ipaddress" not in found


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

    assert "netns_shim.validity" in first
    # Of the libraries there is none; `ipaddress` brings half of these.
    light = {"enum", "functools", "json", "re"}
    assert tops(second) & (FORBIDDEN - light) == set()
    assert {"netns_shim.as_netavark", "netns_shim.network"} <= second
    assert {"netns_shim.driver", "netns_shim.dialogue", "netns_shim.create"} & second == set()


@pytest.mark.parametrize(
    ("name", "library"),
    [("locking", "filelock"), ("netlink", "pyroute2")],
)
def test_libraries_are_where_they_are_expected(name: str, library: str) -> None:
    """The cold modules do load their libraries, by the same measure."""
    assert library in loaded(f"import netns_shim.{name}")


def test_commands_may_cost() -> None:
    """The commands for people load argparse, by the same measure, and no library before need."""
    found = loaded("import netns_shim.cli")

    assert {"argparse", "netns_shim.cli.status"} <= found
    assert tops(found) & {"graphviz", "jsonschema", "pyroute2", "rich"} == set()


@pytest.mark.parametrize(
    ("name", "library"), [("tree", "rich"), ("watch", "rich"), ("picture", "graphviz")]
)
def test_libraries_of_the_commands(name: str, library: str) -> None:
    """What draws does load its library, by the same measure."""
    assert library in loaded(f"import netns_shim.cli.{name}")
