# SPDX-License-Identifier: Apache-2.0
"""Where plugins run: in the caller's own netns if it is theirs, else in the shared one."""

from __future__ import annotations

import json

import bench
from runtime import PLUGIN, Runtime, bridge, page, reaches

from netns_shim import errors

# It keeps state, and looks where it is.
CAREFUL = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD)
    mkdir -p /var/lib/cni/careful || exit 1
    echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'"$(readlink /proc/self/ns/net)"'"}]}' ;;
esac
"""


def test_real_root_works_in_place(world: bench.World) -> None:
    """As root of the machine the bridge is made in the machine's netns; nothing is counted."""
    runtime = Runtime(world.root, delegate=bridge(), stateDir="/run/in-place")
    try:
        with world.root.container() as container:
            result = runtime.add("c", container)

            assert "cni0" in world.root.run(["ip", "-br", "link"]).stdout
            assert page(container, bench.PAGE)
            runtime.succeed("CHECK", "c", container.netns, conf={"prevResult": result})
            runtime.delete("c", container)
    finally:
        world.root.run(["ip", "link", "delete", "cni0"])
        world.root.run(["rm", "-r", "/run/in-place", "/var/lib/cni"], check=True)
    assert world.leftovers() == []


def test_a_netns_of_ones_own_is_used_as_it_is(world: bench.World, session: bench.Session) -> None:
    """In a netns that belongs to the caller's userns no second one is made."""
    runtime = Runtime(session, delegate=bridge(), stateDir="/run/netns/state")
    with session.container() as outer, session.container() as container:
        runtime.place = outer
        runtime.add("c", container)

        assert "cni0" in outer.run(["ip", "-br", "link"]).stdout
        runtime.delete("c", container)
        assert world.leftovers() == []


def test_enter_always(world: bench.World, session: bench.Session) -> None:
    """`enter: always` makes a shared netns even there."""
    runtime = Runtime(session, delegate=bridge(), enter="always", uplink="none")
    with session.container() as outer, session.container() as container:
        runtime.place = outer
        runtime.add("c", container)

        assert "cni0" not in outer.run(["ip", "-br", "link"]).stdout
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_enter_never_without_power(world: bench.World, session: bench.Session) -> None:
    """A plugin that needs no power over the host's netns runs in it, with a /var/lib/cni."""
    directory = f"{world.env['HOME']}/plugins"
    script = 'mkdir "$0"; cat >"$0/careful"; chmod +x "$0/careful"'
    session.run(["sh", "-euc", script, directory], input=CAREFUL, check=True)
    runtime = Runtime(session, path=directory, delegate={"type": "careful"}, enter="never")
    with session.container() as container:
        result = runtime.add("c", container)
        runtime.delete("c", container)

    here = world.run(["readlink", "/proc/self/ns/net"], check=True).stdout.strip()
    assert result["interfaces"] == [{"name": here}]
    assert not world.path("/var/lib/cni").exists()


def test_enter_never(world: bench.World, session: bench.Session) -> None:
    """`enter: never` runs the plugin in the host's netns, where it fails by itself."""
    runtime = Runtime(session, delegate=bridge(), enter="never")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert "not permitted" in error["msg"]
    # What stands for /var/lib/cni keeps the lock of host-local, as that itself would.
    assert [line for line in world.leftovers() if "/.in-place/var/lib/cni/" not in line] == []


def test_no_mount_namespace_of_ones_own(world: bench.World) -> None:
    """A userns in the host's mount namespace cannot pin a netns; the error says so."""
    runtime = Runtime(world, delegate=bridge())
    # A container of that userns, then the plugin.
    script = """
        coproc C { exec unshare --net sh -c "echo; exec cat"; }
        read -u ${C[0]}
        CNI_NETNS=/proc/$C_PID/ns/net "$0" || :
    """
    argv = ["unshare", "--user", "--map-root-user", "bash", "-euc", script, PLUGIN]
    env = {**world.env, **runtime.environment("ADD", "c", "")}
    done = world.run(argv, env=env, input=json.dumps(runtime.conf))

    error = json.loads(done.stdout)
    assert error["code"] == errors.CANNOT_ENTER, error
    assert error["msg"] == "this user namespace cannot mount"
    assert "netns-shim unshare" in error["details"]
    assert world.leftovers() == []


def test_a_container_of_a_sibling(world: bench.World, session: bench.Session) -> None:
    """A container that belongs to another userns cannot be attached; nothing is made for it."""
    runtime = Runtime(session, delegate=bridge())
    with world.session() as sibling, sibling.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert error["code"] == errors.INVALID_NETNS
    assert "netns-shim unshare -- RUNTIME" in error["details"]
    assert world.leftovers() == []


def test_what_was_never_attached(session: bench.Session, world: bench.World) -> None:
    """A DEL too many and STATUS make nothing, also before the first ADD."""
    runtime = Runtime(session, delegate=bridge(), cniVersion="1.1.0")
    with session.container() as outer, session.container() as container:
        runtime.place = outer

        runtime.delete("c", container)
        runtime.succeed("DEL", "c", "")
        runtime.succeed("STATUS")

        assert not world.path(world.state_dir).exists()
    assert world.leftovers() == []


def test_a_container_whose_path_is_a_file(session: bench.Session, world: bench.World) -> None:
    """Without its namespace the path is a plain file; the DEL succeeds all the same.

    BuildKit leaves such files. /var/lib/cni is root's here, as on any machine.
    """
    runtime = Runtime(session, delegate=bridge(), stateDir="/run/netns/state")
    path = "/run/netns/leftover"
    with session.container() as outer, session.container() as container:
        runtime.place = outer
        mounted = {"stateDir": runtime.conf["stateDir"]}
        result = runtime.add("c", container, conf=mounted)
        outer.run(["sh", "-euc", ': >"$0"', path], check=True)

        assert runtime.succeed("DEL", "c", path, conf={"prevResult": result}) is None
        assert runtime.succeed("DEL", "unknown", path) is None
        assert "cni" not in outer.run(["sh", "-c", "ls /run/netns/state/.in-place/refs"]).stdout
    assert world.leftovers() == []
