# SPDX-License-Identifier: Apache-2.0
"""The mounts inside: what plugins see, and that the host sees none of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, page, until

from netns_shim.shared import mounts

SERVERS = f"nameserver 169.254.1.1\nnameserver {bench.PAGE}\n"


@pytest.fixture
def etc(world: bench.World) -> Iterator[bench.Place]:
    """The machine's root, whose /etc/resolv.conf and /run are put back afterwards."""
    text = world.path("/etc/resolv.conf").read_text()
    yield world.root
    script = """
        rm -rf /run/systemd /run/resolvconf /etc/links /etc/resolv.conf
        printf %s "$0" >/etc/resolv.conf
    """
    world.root.run(["sh", "-euc", script, text], check=True)


RESOLVED = """
    mkdir -p /run/systemd/resolve
    echo nameserver 127.0.0.53 >/run/systemd/resolve/stub-resolv.conf
    printf 'nameserver 198.51.100.1\\noptions edns0\\n' >/run/systemd/resolve/resolv.conf
"""
LAYOUTS = {
    "a file": "echo nameserver 198.51.100.1 >/etc/resolv.conf",
    "a link into /run": """
        mkdir /run/resolvconf
        echo nameserver 198.51.100.1 >/run/resolvconf/resolv.conf
        ln -sf /run/resolvconf/resolv.conf /etc/resolv.conf""",
    "systemd-resolved": RESOLVED
    + "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    "two links": RESOLVED
    + """rm /run/systemd/resolve/stub-resolv.conf
        ln -s resolv.conf /run/systemd/resolve/stub-resolv.conf
        ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf""",
    "a link in the middle": """
        mkdir /run/resolvconf
        echo nameserver 198.51.100.1 >/run/resolvconf/file
        ln -s ../run/resolvconf /etc/links
        ln -sf links/file /etc/resolv.conf""",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_resolv_conf_through_links(
    world: bench.World, session: bench.Session, etc: bench.Place, layout: str
) -> None:
    """Whatever leads to /etc/resolv.conf, inside it is that of the netns, outside none."""
    etc.run(["sh", "-euc", LAYOUTS[layout]], check=True)
    before = etc.run(["cat", "/etc/resolv.conf"], check=True).stdout

    done = session.run([PLUGIN, "run", "--", "cat", "/etc/resolv.conf"])

    assert done.stderr == ""
    assert done.stdout.replace("options edns0\n", "") == SERVERS
    assert etc.run(["cat", "/etc/resolv.conf"], check=True).stdout == before
    assert world.leftovers() == []


def test_without_resolv_conf(world: bench.World, session: bench.Session, etc: bench.Place) -> None:
    """A machine that has no /etc/resolv.conf gets a warning, and the plugins run."""
    etc.run(["rm", "/etc/resolv.conf"], check=True)
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert "names will not resolve in the shared netns" in done.stderr
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_the_host_sees_no_mount(world: bench.World, session: bench.Session) -> None:
    """After an ADD the caller has one mount more, the pin; after the DEL it is gone again."""

    def mounts() -> list[str]:
        lines = session.run(["cat", "/proc/self/mountinfo"], check=True).stdout.splitlines()
        return sorted(line.split()[4] for line in lines)

    before = mounts()
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        pin = runtime.status()[0]["path"]
        assert mounts() == sorted([*before, pin])
        runtime.delete("c", container)
    assert mounts() == before


def test_an_unmount_outside_is_one_inside(world: bench.World, session: bench.Session) -> None:
    """The mounts inside are slaves: what the host unmounts is not kept busy by those inside."""
    target = f"{world.env['HOME']}/mounted"
    session.run(["mkdir", target], check=True)
    session.run(["mount", "--make-rshared", "/"], check=True)
    session.run(["mount", "-t", "tmpfs", "tmpfs", target], check=True)
    argv = [PLUGIN, "run", "--uplink", "none", "--", "sh", "-c", "echo $$; exec cat"]
    child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    inner = session.path(f"/proc/{int(child.stdout.readline())}/mountinfo")
    assert target in inner.read_text()

    session.run(["umount", target], check=True)

    assert until(lambda: target not in inner.read_text())
    child.communicate()
    assert world.leftovers() == []


@pytest.mark.parametrize("has_cni", [True, False])
def test_state_of_plugins_stays_inside(
    world: bench.World, session: bench.Session, has_cni: bool
) -> None:
    """/run and /var/lib/cni of plugins are private, also where the host has no /var/lib/cni."""
    if has_cni:
        world.root.run(["mkdir", "/var/lib/cni"], check=True)
    world.root.run(["touch", "/var/lib/other"], check=True)
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as container:
        runtime.add("c", container)
        script = "ls /var/lib/cni/networks/rootless; touch /run/private"
        listed = session.run([PLUGIN, "run", "--", "sh", "-euc", script], check=True).stdout

        assert "10.89.0.2" in listed
        assert not session.path("/run/private").exists()
        assert not session.path("/var/lib/cni/networks").exists()
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("place", ["/run/plugins", "/var/lib/plugins"])
def test_plugins_that_lie_under_a_mount(
    world: bench.World, session: bench.Session, etc: bench.Place, place: str
) -> None:
    """A directory of CNI_PATH stays visible where the mounts inside would hide it."""
    etc.run(["mkdir", place], check=True)
    etc.run(
        ["sh", "-euc", 'cp -L /opt/cni/bin/bridge /opt/cni/bin/host-local "$0"', place], check=True
    )
    runtime = Runtime(session, path=place, delegate=bridge(), uplink="none")
    with session.container() as container:
        runtime.add("c", container)
        runtime.delete("c", container)
    etc.run(["rm", "-r", place], check=True)
    assert world.leftovers() == []


def test_a_tree_is_removed_and_nothing_beside_it(tmp_path: Path) -> None:
    """Files, pipes, links and directories below go, and what the links lead to stays."""
    tree, beside = tmp_path / "tree", tmp_path / "beside"
    (tree / "a" / "b").mkdir(parents=True)
    beside.mkdir()
    (beside / "file").write_text("kept")
    (tree / "a" / "file").touch()
    os.mkfifo(tree / "a" / "b" / "pipe")
    (tree / "to a directory").symlink_to(beside)
    (tree / "a" / "to a file").symlink_to(beside / "file")
    (tree / "a" / "to nothing").symlink_to("nowhere")

    mounts.remove_tree(str(tree))
    mounts.remove_tree(str(tree))

    assert not tree.exists()
    assert (beside / "file").read_text() == "kept"


def test_a_link_in_the_place_of_a_tree(tmp_path: Path) -> None:
    """A link that is in the place of a directory is removed, and not what it leads to."""
    (tmp_path / "kept" / "inside").mkdir(parents=True)
    (tmp_path / "tree").symlink_to("kept")

    mounts.remove_tree(str(tmp_path / "tree"))

    assert not (tmp_path / "tree").is_symlink()
    assert (tmp_path / "kept" / "inside").is_dir()
