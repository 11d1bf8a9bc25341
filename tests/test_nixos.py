# SPDX-License-Identifier: Apache-2.0
"""A machine like NixOS or Guix: no program is in a usual place, and all are below /run."""

from __future__ import annotations

from collections.abc import Iterator

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, ips, page, until

SYSTEM = "/run/current-system/sw/bin"
WRAPPERS = "/run/wrappers/bin"
# What Debian has in the usual places goes to a store, but for what the bench itself runs. It takes
# the interpreter by its path, and NixOS has sh and env in /bin and /usr/bin as well.
MOVE = """
for place in /usr/bin /usr/sbin; do
    mkdir -p "/opt/store$place" "/opt/few$place"
    mount --bind "$place" "/opt/store$place"
    mount --make-private "/opt/store$place"
done
mkdir -p /run/system/sw/bin /run/wrappers/wrappers.1
ln -s system /run/current-system
ln -s wrappers.1 /run/wrappers/bin
cp -p /usr/bin/newuidmap /usr/bin/newgidmap /run/wrappers/wrappers.1
chmod 4755 /run/wrappers/wrappers.1/*
python3 -c '
import os
for place in ("/usr/bin", "/usr/sbin"):
    for name in os.listdir(place):
        link = f"/run/system/sw/bin/{name}"
        if not os.path.lexists(link) and not name.endswith("idmap"):
            os.symlink("/opt/store" + os.path.realpath(f"{place}/{name}"), link)
'
python=$(readlink -f /usr/bin/python3)
for name in sh env nsenter setpriv unshare ip mkdir "$python"; do
    cp -pL "$(command -v $name)" /opt/few/usr/bin
done
ln -s "${python##*/}" /opt/few/usr/bin/python3
mount --bind /opt/few/usr/sbin /usr/sbin
mount --bind /opt/few/usr/bin /usr/bin
"""


@pytest.fixture(scope="module")
def nixos() -> Iterator[bench.World]:
    """A machine with its programs where NixOS has them."""
    with bench.World() as world:
        world.root.run(["sh", "-euc", MOVE], check=True)
        world.env["PATH"] = f"{WRAPPERS}:{SYSTEM}"
        yield world


@pytest.mark.netns
@pytest.mark.parametrize("path", [f"{WRAPPERS}:{SYSTEM}", ""])
def test_attach(nixos: bench.World, path: str) -> None:
    """A user without capabilities gets a namespace with all IDs, and plugins find iptables.

    Also where the runtime passes no PATH.
    """
    runtime = Runtime(nixos, delegate=bridge())
    with nixos.unshared() as place:
        maps = place.run(["cat", "/proc/self/uid_map"], env={"PATH": SYSTEM}, check=True).stdout
        runtime.place = place
        with place.container() as container:
            result = runtime.add("one", container, **({"PATH": path} if path else {}))

            assert page(container, bench.PAGE_BEYOND)
            runtime.delete("one", container, **({"PATH": path} if path else {}))

    assert len(maps.splitlines()) == 2
    assert ips(result) == ["10.89.0.2"]
    assert until(lambda: nixos.leftovers() == [])


@pytest.mark.netns
def test_commands(nixos: bench.World) -> None:
    """Commands inside find what lies in the system, and the wrappers."""
    run = [PLUGIN, "run", "--uplink", "none", "--"]
    done = nixos.run([*run, "sh", "-euc", f"ip -br address; test -u {WRAPPERS}/newuidmap"])

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lo ")
    assert until(lambda: nixos.leftovers() == [])


@pytest.mark.netns
def test_doctor(nixos: bench.World) -> None:
    """`doctor` finds the wrappers, and what the shim needs."""
    done = nixos.run([PLUGIN, "doctor"])

    assert f"{WRAPPERS}/newuidmap and {WRAPPERS}/newgidmap" in done.stdout


def test_tools_of_a_directory_below_run(world: bench.World, session: bench.Session) -> None:
    """On Debian, too, a directory of PATH below /run is where plugins find iptables."""
    hide = 'mkdir -p /run/tools; cp /usr/sbin/xtables-nft-multi "/run/tools/$0"'
    for name in ("iptables", "ip6tables"):
        world.root.run(["sh", "-euc", hide, name], check=True)
    cover = ["sh", "-euc", "mount --bind /dev/null /usr/sbin/iptables"]
    session.run(cover, check=True)
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as container:
        runtime.add("one", container, PATH="/run/tools:/usr/bin")
        runtime.delete("one", container, PATH="/run/tools:/usr/bin")
    world.root.run(["rm", "-r", "/run/tools"], check=True)

    assert until(lambda: world.leftovers() == [])
