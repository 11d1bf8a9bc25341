# SPDX-License-Identifier: Apache-2.0
"""The plan of the mounts, before any is done: what covers what, and what stays visible."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from netns_shim import enter
from netns_shim.enter import Bind, Tmpfs, resolv_conf_target
from netns_shim.libc import MS_BIND, MS_REC
from netns_shim.request import Request
from netns_shim.state import State


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory whose path has no links."""
    return tmp_path.resolve()


@pytest.fixture
def cni(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /var/lib/cni, so that the plan hides something that a test can make."""
    path = root / "cni"
    path.mkdir()
    monkeypatch.setattr(enter, "CNI_STATE", str(path))
    return path


def link(path: Path, target: Path | str) -> Path:
    """Make a link and the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def kept(root: Path, paths: list[str], **environ: str) -> list[str]:
    """List the paths below the directory of CNI's state that a plan keeps visible."""
    steps = enter.plan(State(str(root / "state"), "default"), environ, paths)
    assert all(str(step.source) == step.target for step in steps[2:-1] if isinstance(step, Bind))
    return [step.target for step in steps[2:-1] if step.target.startswith(f"{root}/")]


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


@pytest.mark.parametrize("count", [1, enter.MAXIMUM_LINKS])
def test_many_links(root: Path, count: int) -> None:
    """255 links are followed."""
    (root / "0").touch()
    for number in range(1, count + 1):
        link(root / str(number), str(number - 1))

    assert resolv_conf_target(f"{root}/{count}") == f"{root}/0"


def test_too_many_links(root: Path) -> None:
    """One link more is ELOOP."""
    (root / "0").touch()
    for number in range(1, enter.MAXIMUM_LINKS + 2):
        link(root / str(number), str(number - 1))

    with pytest.raises(OSError, match="symbolic links") as caught:
        resolv_conf_target(f"{root}/{enter.MAXIMUM_LINKS + 1}")

    assert caught.value.errno == errno.ELOOP
    assert caught.value.filename == f"{root}/{enter.MAXIMUM_LINKS + 1}"


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


def test_order_of_the_plan(root: Path, cni: Path) -> None:
    """The new /run comes first, then CNI's state, then what is kept, and resolv.conf at last."""
    (cni / "keep").mkdir()
    state = State(str(root / "state"), "default")

    steps = enter.plan(state, {}, [f"{cni}/keep"])

    first, second = steps[:2]
    assert isinstance(first, Bind)
    assert isinstance(second, Bind)
    assert (first.source, first.target) == (f"{state.dir}/run", "/run")
    assert (second.source, second.target) == (f"{state.dir}{cni}", str(cni))
    assert f"{cni}/keep" in [step.target for step in steps[2:]]
    last = steps[-1]
    if os.path.exists("/etc/resolv.conf"):
        assert isinstance(last, Bind)
        assert last.source == f"{state.dir}/resolv.conf"
        assert last.target == resolv_conf_target("/etc/resolv.conf")


def test_first_parent_that_exists(root: Path, cni: Path) -> None:
    """Where /var/lib/cni is not there its first parent that is is covered."""
    cni.rmdir()
    state = State(str(root / "state"), "default")

    covered = enter.plan(state, {}, [])[1]

    assert isinstance(covered, Bind)
    assert (covered.source, covered.target) == (f"{state.dir}{root}", str(root))


def test_what_is_kept(root: Path, cni: Path) -> None:
    """Paths below what is covered are bound again, with all that is mounted in them."""
    (cni / "a").mkdir()
    (cni / "file").touch()

    steps = enter.plan(State(str(root), "x"), {}, [f"{cni}/a", f"{cni}//b/../file"])

    flags = {step.target: step.flags for step in steps if isinstance(step, Bind)}
    assert flags[f"{cni}/a"] == flags[f"{cni}/file"] == MS_BIND | MS_REC


def test_what_need_not_be_kept(root: Path, cni: Path) -> None:
    """What is not covered, is not there, or is all of what is covered, is no step."""
    (root / "outside").mkdir()
    paths = ["", ".", "/", "/run", "/run/", str(cni), f"{cni}/none", f"{root}/outside"]

    assert kept(root, [*paths, f"{cni}-not"]) == []


def test_empty_path_is_not_the_current_directory(
    root: Path, cni: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty entry of CNI_PATH or an unset variable does not keep where we happen to be."""
    (cni / "here").mkdir()
    monkeypatch.chdir(cni / "here")

    assert kept(root, [""], XDG_RUNTIME_DIR="") == []
    assert kept(root, ["."]) == [f"{cni}/here"]


def test_nothing_is_kept_twice(root: Path, cni: Path) -> None:
    """What lies in something that is kept needs no step of its own; a like name does."""
    (cni / "a" / "b").mkdir(parents=True)
    (cni / "a-b").mkdir()

    found = kept(root, [f"{cni}/a/b", f"{cni}/a-b", f"{cni}/a", f"{cni}/a"])

    assert found == [f"{cni}/a", f"{cni}/a-b"]


def test_links_are_kept_in_both_forms(root: Path, cni: Path) -> None:
    """A path may be covered as it is written, where it leads, or both."""
    (cni / "real").mkdir()
    (root / "outside").mkdir()
    link(cni / "alias", "real")
    link(cni / "out", root / "outside")
    link(root / "into", cni / "real")

    assert kept(root, [f"{cni}/alias"]) == [f"{cni}/alias", f"{cni}/real"]
    assert kept(root, [f"{cni}/out"]) == [f"{cni}/out"]
    assert kept(root, [f"{root}/into"]) == [f"{cni}/real"]


def test_runtime_directory_is_kept(root: Path, cni: Path) -> None:
    """XDG_RUNTIME_DIR stays visible, and so does /run/systemd where it is."""
    (cni / "user").mkdir()
    state = State(str(root / "state"), "default")

    targets = [step.target for step in enter.plan(state, {"XDG_RUNTIME_DIR": f"{cni}/user"}, [])]

    assert f"{cni}/user" in targets
    assert ("/run/systemd" in targets) == os.path.exists("/run/systemd")


def test_throwaway_plan(cni: Path) -> None:
    """With nothing attached, /run and CNI's state are empty, except for the kept paths."""
    (cni / "keep").mkdir()

    steps = enter.throwaway_plan({}, [f"{cni}/keep"])

    assert all(isinstance(step, Tmpfs) for step in steps[:2])
    assert [step.target for step in steps[:2]] == ["/run", str(cni)]
    assert f"{cni}/keep" in [step.target for step in steps[2:]]


def test_steps_can_be_shown() -> None:
    """Each step says what it does."""
    assert [str(step) for step in (Bind("/a", "/b"), Bind("/a", "/a", MS_REC), Tmpfs("/c"))] == [
        "bind /a on /b",
        "bind /a on /a with what is mounted in it",
        "mount an empty tmpfs on /c",
    ]


@pytest.mark.parametrize(
    ("netns", "expected"),
    [
        ("/run/netns/x", {"/run/netns"}),
        ("/run/x", {"/run/x"}),
        ("/run//x", {"/run//x", "/run/x"}),
        ("/proc/0/ns/net", {"/proc/0/ns"}),
        ("", set()),
    ],
)
def test_paths_of_a_call(netns: str, expected: set[str]) -> None:
    """The directory of the netns and those of CNI_PATH are kept; all of /run never is."""
    assert set(enter.paths_of(request(netns))) == {"/opt/cni/bin", "/run/plugins", *expected}


def test_netns_by_a_link(root: Path) -> None:
    """A netns that is given by a link is kept where it is, too."""
    path = link(root / "link", "/run/x")

    assert set(enter.paths_of(request(str(path)))) == {
        *("/opt/cni/bin", "/run/plugins"),
        *(str(root), "/run/x"),
    }


def request(netns: str) -> Request:
    """Return a call for a container's netns."""
    return Request(
        "DEL",
        network="n",
        cni_version="1.0.0",
        conf={},
        environ={},
        netns=netns,
        path="/opt/cni/bin:/run/plugins",
    )
