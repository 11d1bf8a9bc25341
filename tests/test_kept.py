# SPDX-License-Identifier: Apache-2.0
"""Which paths stay visible, and where resolv.conf is mounted: by looking at links alone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_shim import errors, invoke, kept
from netns_shim.kept import Paths, resolv_conf_target
from netns_shim.request import Request


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory whose path has no links."""
    return tmp_path.resolve()


@pytest.fixture
def cni(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /var/lib/cni, which is hidden."""
    path = root / "cni"
    path.mkdir()
    monkeypatch.setattr(kept, "CNI_STATE", str(path))
    return path


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /run, which is hidden."""
    path = root / "run"
    path.mkdir()
    monkeypatch.setattr(kept, "RUN", str(path))
    return path


def link(path: Path, target: Path | str) -> Path:
    """Make a link and the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def program(path: Path) -> Path:
    """Make a program and the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o755)
    return path


def visible(paths: list[str]) -> list[str]:
    """List what has to be mounted for paths to stay visible."""
    return Paths(paths).list()


def caller(**environ: str) -> list[str]:
    """List what has to be mounted for a caller."""
    paths = Paths()
    paths.add_caller(environ)
    return [path for path in paths.list() if path != "/run/systemd"]


def call(netns: str = "", path: str = "", **conf: object) -> list[str]:
    """List what has to be mounted for a call."""
    paths = kept.of_request(
        Request(
            "DEL", network="n", cni_version="1.0.0", conf=conf, environ={}, netns=netns, path=path
        )
    )
    return paths.list()


def test_what_need_not_be_kept(root: Path, cni: Path) -> None:
    """What is not hidden, is not there, or is all of what is hidden, is not mounted."""
    (root / "outside").mkdir()
    paths = ["", ".", "/", "/run", "/run/", str(cni), f"{cni}/none", f"{root}/outside"]

    assert visible([*paths, f"{cni}-not"]) == []


def test_empty_path_is_not_the_current_directory(
    cni: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty entry of CNI_PATH does not keep where we happen to be; a relative one does."""
    (cni / "here").mkdir()
    monkeypatch.chdir(cni / "here")

    assert visible([""]) == []
    assert visible(["."]) == [f"{cni}/here"]
    assert visible(["../here"]) == [f"{cni}/here"]


def test_nothing_is_kept_twice(cni: Path) -> None:
    """What lies in something that is kept needs no mount of its own; a like name does."""
    (cni / "a" / "b").mkdir(parents=True)
    (cni / "a-b").mkdir()

    found = visible([f"{cni}/a/b", f"{cni}/a-b", f"{cni}/a", f"{cni}/a"])

    assert found == [f"{cni}/a", f"{cni}/a-b"]


def test_links_are_kept_in_all_forms(root: Path, cni: Path) -> None:
    """A path may be hidden as it is written, where it leads, or on the way."""
    (cni / "real").mkdir()
    (root / "outside").mkdir()
    link(cni / "alias", "real")
    link(cni / "out", root / "outside")
    link(root / "into", cni / "real")
    link(root / "through", cni / "out")

    assert visible([f"{cni}/alias"]) == [f"{cni}/alias", f"{cni}/real"]
    assert visible([f"{cni}/out"]) == [f"{cni}/out"]
    assert visible([f"{root}/into"]) == [f"{cni}/real"]
    assert visible([f"{root}/through"]) == [f"{cni}/out"]


def test_circle_of_links(root: Path, cni: Path) -> None:
    """Links in a circle end the search."""
    link(cni / "a", "b")
    link(cni / "b", "a")

    assert visible([f"{cni}/a"]) == []


def test_home_working_directory_and_modules(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller keeps its home, where it is, and the modules that the shim imports late."""
    for name in ("home", "here", "venv", "user"):
        (run / name / "below").mkdir(parents=True)
    monkeypatch.chdir(run / "here" / "below")
    monkeypatch.setattr(sys, "path", [f"{run}/venv/below"])

    found = caller(HOME=f"{run}/home", XDG_RUNTIME_DIR=f"{run}/user")

    assert found == [f"{run}/here/below", f"{run}/home", f"{run}/user", f"{run}/venv/below"]


def test_working_directory_that_is_gone(
    root: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller whose directory was removed keeps the rest."""
    (root / "gone").mkdir()
    (run / "home").mkdir()
    monkeypatch.chdir(root / "gone")
    (root / "gone").rmdir()

    assert caller(HOME=f"{run}/home") == [f"{run}/home"]
    assert visible(["relative"]) == []


def test_directories_of_path(root: Path, run: Path) -> None:
    """Directories of PATH stay visible, and what the links in them lead to."""
    program(run / "tools" / "iptables")
    program(run / "vendor" / "nft")
    link(root / "bin" / "nft", run / "vendor" / "nft")
    (run / "relative").mkdir()

    assert caller(PATH=f"/usr/bin:{run}/tools:{root}/bin:relative:") == [
        f"{run}/tools",
        f"{run}/vendor",
    ]


def test_directory_of_path_with_very_many_links(root: Path, run: Path) -> None:
    """The links of a whole system are not followed: that would cost every call."""
    program(run / "vendor" / "tool")
    for number in range(kept.MOST + 50):
        link(root / "few" / str(number), "nowhere")
    for number in range(2):
        link(root / "some" / str(number), run / "vendor" / "tool")

    paths = Paths()
    paths.add_directory(f"{root}/few", kept.MOST)

    assert len(paths._links) <= kept.MOST * 2 + 20
    assert caller(PATH=f"{root}/some") == [f"{run}/vendor"]


def test_places_of_nixos_and_guix(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system of such a machine stays visible, whatever PATH says."""
    system, wrappers = run / "current-system" / "sw" / "bin", run / "wrappers" / "bin"
    system.mkdir(parents=True)
    link(wrappers, "real-1")
    (run / "wrappers" / "real-1").mkdir()
    monkeypatch.setattr(invoke, "SYSTEM", f"{run}/current-system")
    monkeypatch.setattr(invoke, "SYSTEM_PATH", (str(wrappers), str(system)))

    assert caller() == [str(system), str(wrappers), f"{run}/wrappers/real-1"]


def test_links_to_plugins(root: Path, run: Path, cni: Path) -> None:
    """What a link in CNI_PATH or pluginDirs leads to stays visible, with what lies beside it."""
    program(run / "vendor" / "p")
    link(run / "middle" / "q", root / "outside")
    program(cni / "r")
    link(root / "bin" / "p", run / "vendor" / "p")
    link(root / "bin" / "q", run / "middle" / "q")
    link(root / "dirs" / "r", cni / "r")

    found = call(path=f"{root}/bin:{root}/none:", pluginDirs=[f"{root}/dirs"])

    assert found == [f"{cni}/r", f"{run}/middle", f"{run}/vendor"]


def test_quick_look_at_links_to_plugins(
    root: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick look at a link finds the same to keep as the thorough one, in far fewer steps."""
    plugins, usual = root / "plugins", program(root / "usual" / "bridge").parent
    link(usual / "on", program(run / "far" / "on"))
    link(root / "way", run / "store")
    program(run / "store" / "bin" / "stored")
    link(plugins / "bridge", usual / "bridge")
    for number in range(20):
        link(plugins / f"more{number}", program(usual / f"more{number}"))
    link(plugins / "twice", usual / "on")
    link(plugins / "through", root / "way" / "bin" / "stored")
    link(plugins / "directly", program(run / "alone"))
    link(plugins / "relative", "../usual/on")
    link(plugins / "sibling", "twice")
    link(plugins / "missing", root / "none" / "at" / "all")
    link(plugins / "dots", f"{usual}/..")
    link(plugins / "of-the-root", "/name")
    walked: list[str] = []
    ways = Paths._ways

    def noted(self: Paths, path: str) -> Iterator[str]:
        walked.append(path)
        return ways(self, path)

    monkeypatch.setattr(Paths, "_ways", noted)

    def kept_of_plugins() -> list[str]:
        walked.clear()
        paths = Paths()
        paths.add_directory(str(plugins))
        return paths.list()

    quick = kept_of_plugins()
    steps = len(walked)
    monkeypatch.setattr(Paths, "_is_plain", lambda *_: False)

    assert quick == kept_of_plugins()
    assert quick == [str(run / "alone"), str(run / "far"), str(run / "store" / "bin")]
    assert steps < 15 < len(walked)


def test_program_of_a_driver(root: Path, run: Path) -> None:
    """The directory of a driver's program stays visible; a key `path` of a plugin is its own."""
    program(run / "netavark" / "plugin")

    assert call(plugins=[{"driver": "x", "path": f"{run}/netavark/plugin"}]) == [f"{run}/netavark"]
    assert call(delegate={"type": "x", "path": {"a": "b"}}) == []


@pytest.mark.parametrize(
    ("netns", "expected"),
    [("netns/x", "netns"), ("x", "x"), ("/x", "x"), ("none/x", None)],
)
def test_netns(run: Path, netns: str, expected: str | None) -> None:
    """The directory of the netns stays visible; all of /run never does."""
    program(run / "netns" / "x")
    program(run / "x")

    assert call(netns=f"{run}/{netns}") == ([f"{run}/{expected}"] if expected else [])


def test_netns_by_a_link(root: Path, run: Path) -> None:
    """A netns that is given by a link stays visible where it is."""
    program(run / "x")

    assert call(netns=str(link(root / "link", run / "x"))) == [f"{run}/x"]
    assert call(netns="/proc/0/ns/net") == []


def test_key_keep(root: Path, run: Path) -> None:
    """The paths of the key `keep` stay visible; one that is not there is a warning."""
    program(run / "openvswitch" / "db.sock")
    link(root / "alias", run)

    found = call(keep=[f"{root}/alias/openvswitch/db.sock", f"{run}/cilium.sock"])

    assert found == [f"{run}/openvswitch/db.sock"]
    assert errors.warnings == [
        f"`keep`: {run}/cilium.sock is not there: its daemon may not be running"
    ]


def test_file(root: Path) -> None:
    """A file that is none of the links is where it is."""
    (root / "resolv.conf").touch()

    assert resolv_conf_target(f"{root}/resolv.conf") == f"{root}/resolv.conf"
    assert resolv_conf_target(f"{root}//./resolv.conf") == f"{root}/resolv.conf"


def test_relative_link(root: Path) -> None:
    """A relative link begins in the directory that it lies in."""
    (root / "lib").mkdir()
    (root / "lib" / "real").touch()
    path = link(root / "etc" / "resolv.conf", "../lib/./real")

    assert resolv_conf_target(str(path)) == f"{root}/lib/real"


def test_absolute_link(root: Path) -> None:
    """An absolute link begins at the root."""
    (root / "real").touch()
    path = link(root / "etc" / "resolv.conf", root / "real")

    assert resolv_conf_target(str(path)) == f"{root}/real"


def test_link_in_the_path(root: Path) -> None:
    """Every component may be a link, that of a link's target too."""
    (root / "real" / "etc").mkdir(parents=True)
    (root / "real" / "file").touch()
    link(root / "etc", "real/etc")
    link(root / "real" / "etc" / "resolv.conf", "../alias/file")
    link(root / "real" / "alias", root / "real" / "again")
    link(root / "real" / "again", ".")

    assert resolv_conf_target(f"{root}/etc/resolv.conf") == f"{root}/real/file"


def test_parent_of_a_link(root: Path) -> None:
    """`..` after a link is the parent of where it leads, as the kernel has it."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").touch()
    link(root / "link", "a/b")

    assert resolv_conf_target(f"{root}/link/../file") == f"{root}/a/file"


def test_parent_of_the_root(root: Path) -> None:
    """There is nothing above the root."""
    (root / "file").touch()
    path = link(root / "etc" / "resolv.conf", "../" * 40 + str(root)[1:] + "/file")

    assert resolv_conf_target(str(path)) == f"{root}/file"


@pytest.mark.parametrize(
    "target", ["/run/systemd/resolve/stub-resolv.conf", "/run/no/such/file", "/run/a//b/./c"]
)
def test_first_link_into_run(root: Path, target: str) -> None:
    """Below /run nothing is looked at, as what is there will not be in the new /run."""
    path = link(root / "etc" / "resolv.conf", target)

    assert resolv_conf_target(str(path)) == os.path.normpath(target)


def test_relative_link_into_run(root: Path) -> None:
    """The way into /run may be relative, as distributions have it."""
    up = "../" * len(root.parts)
    path = link(root / "etc" / "resolv.conf", f"{up}run/systemd/resolve/resolv.conf")

    assert resolv_conf_target(str(path)) == "/run/systemd/resolve/resolv.conf"


def test_directory_that_is_called_like_run(root: Path) -> None:
    """Only /run itself is /run."""
    (root / "run").mkdir()
    (root / "run" / "real").touch()
    path = link(root / "resolv.conf", "run/real")

    assert resolv_conf_target(str(path)) == f"{root}/run/real"


@pytest.mark.parametrize("count", [1, kept.MAXIMUM_LINKS])
def test_many_links(root: Path, count: int) -> None:
    """255 links are followed."""
    (root / "0").touch()
    for number in range(1, count + 1):
        link(root / str(number), str(number - 1))

    assert resolv_conf_target(f"{root}/{count}") == f"{root}/0"


def test_too_many_links(root: Path) -> None:
    """One link more is ELOOP."""
    (root / "0").touch()
    for number in range(1, kept.MAXIMUM_LINKS + 2):
        link(root / str(number), str(number - 1))

    with pytest.raises(OSError, match="symbolic links") as caught:
        resolv_conf_target(f"{root}/{kept.MAXIMUM_LINKS + 1}")

    assert caught.value.errno == errno.ELOOP
    assert caught.value.filename == f"{root}/{kept.MAXIMUM_LINKS + 1}"


@pytest.mark.parametrize("targets", [("a",), ("b", "a"), ("a/x",), ("../{}/a",)])
def test_loop_of_links(root: Path, targets: tuple[str, ...]) -> None:
    """Links in a circle end in ELOOP."""
    for name, target in zip("ab", targets, strict=False):
        link(root / name, target.format(root.name))

    with pytest.raises(OSError, match="symbolic links") as caught:
        resolv_conf_target(f"{root}/a")

    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize(
    ("target", "number"),
    [("nowhere", errno.ENOENT), ("no/where", errno.ENOENT), ("file/x", errno.ENOTDIR)],
)
def test_dangling_link(root: Path, target: str, number: int) -> None:
    """A link that leads nowhere is the error of the kernel."""
    (root / "file").touch()
    path = link(root / "resolv.conf", target)

    with pytest.raises(OSError, match=r".") as caught:
        resolv_conf_target(str(path))

    assert caught.value.errno == number
