# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: the TUN device, uplinks, plugins of CNI, iptables and nft, netavark."""

from __future__ import annotations

import time
from collections.abc import Iterator

import bench
import kinder
import pytest
from diagnosis import FAKES, HANGING, Fakes, ask, ask_in, hide, results
from fakes import MISBEHAVIOURS
from runtime import PLUGIN, Runtime, bridge, reaches

TUN = "/dev/net/tun"
NEW_PASTA = """#!/bin/sh
case $1 in
--version) echo "pasta 2025_01_21.4f2c8e7" ;;
--help) echo "  --map-guest-addr ADDR" ;;
esac
"""
FAILING = "#!/bin/sh\necho 'it does not work' >&2\nexit 3\n"
SPEAKING = '#!/bin/sh\necho \'{{"cniVersion": "{0}", "supportedVersions": ["{0}", "{1}"]}}\'\n'
PASTA, SLIRP = "/usr/bin/pasta", "/usr/bin/slirp4netns"
NETAVARK, AARDVARK = "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns"


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """Fakes of programs and plugins."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def test_tun(world: bench.World, session: bench.Session) -> None:
    """The device can be opened by the user; root, who needs no uplink, is not bothered."""
    for place in (world, session):
        assert ask(place)["TUN device"]["result"] == "ok"
    assert ask(world.root)["TUN device"]["result"] == "skipped"


@pytest.mark.parametrize(
    ("script", "message", "advice"),
    [
        (f"rm {TUN}", "No such file or directory", "modprobe tun"),
        (f"chmod 0600 {TUN}", "Permission denied", f"chmod 0666 {TUN}"),
        (f"rm {TUN}; mknod -m 0666 {TUN} c 1 3", "something else", "c 10 200"),
        (f"rm {TUN}; : >{TUN}; chmod 0666 {TUN}", "something else", "c 10 200"),
    ],
)
def test_tun_cannot_be_used(world: bench.World, script: str, message: str, advice: str) -> None:
    """A device that is missing, closed to the user or another one is a problem, each its own."""
    own = "mount -t tmpfs -o mode=755 tmpfs /dev/net; mknod -m 0666 /dev/net/tun c 10 200\n"

    found = ask_in(world, own + script)["TUN device"]

    assert found["result"] == "problem"
    assert message in found["message"]
    assert advice in found["advice"]


def test_new_pasta(world: bench.World, fakes: Fakes) -> None:
    """A pasta that knows all options is well, and shown with its version."""
    fakes.add("pasta", NEW_PASTA)

    found = ask(world, PATH=fakes.first)["pasta"]

    assert found["result"] == "ok"
    assert found["message"] == f"pasta 2025_01_21.4f2c8e7 ({FAKES}/pasta)"


def test_version_of_the_package(world: bench.World, fakes: Fakes) -> None:
    """A pasta that does not know its version, as Debian 12's, has that of its package."""
    fakes.add("pasta", NEW_PASTA.replace("pasta 2025_01_21.4f2c8e7", "pasta unknown version"))
    unknown = ask(world, PATH=fakes.first)["pasta"]
    query = """#!/bin/sh
case $1 in --search) echo "passt: $2" ;; *) printf %s "0.0~git20230309-1 of $3" ;; esac
"""
    fakes.add("dpkg-query", query)

    found = ask(world, PATH=fakes.first)["pasta"]

    assert unknown["message"] == f"pasta of an unknown version ({FAKES}/pasta)"
    assert found["message"] == f"pasta 0.0~git20230309-1 of passt ({FAKES}/pasta)"


def test_version_on_a_terminal_only(world: bench.World, fakes: Fakes) -> None:
    """A pasta that prints its version on a terminal only, as Debian 13's does, is well."""
    fakes.add("pasta", NEW_PASTA.replace("echo", "[ ! -t 1 ] || echo", 1))

    found = ask(world, PATH=fakes.first)["pasta"]

    assert found["result"] == "ok"
    assert found["message"] == f"pasta 2025_01_21.4f2c8e7 ({FAKES}/pasta)"


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("stream", [1, 2])
def test_old_pasta(world: bench.World, fakes: Fakes, status: int, stream: int) -> None:
    """An old one is a warning, wherever it prints its usage and with whatever status."""
    old = f"""#!/bin/sh
case $1 in --version) echo 'pasta 0.0' ;; --help) echo '--mtu' >&{stream}; exit {status} ;; esac
"""
    fakes.add("pasta", old)

    found = ask(world, PATH=fakes.first)["pasta"]

    assert found["result"] == "warning"
    assert "lacks --map-guest-addr" in found["message"]
    assert "August 2024" in found["advice"]


def test_ping(world: bench.World, session: bench.Session) -> None:
    """Where the kernel lets no uplink ping, containers get no answer, and it is a warning."""

    def results_and_answer() -> tuple[set[str], bool]:
        found = [ask(place)["ping"] for place in (world, session)]
        assert all("net.ipv4.ping_group_range" in f["advice"] or not f["advice"] for f in found)
        return {f["result"] for f in found}, reaches(container, bench.PAGE)

    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        stock = results_and_answer()
        with kinder.answered_pings(world):
            opened = results_and_answer()
        runtime.delete("c", container)

    assert stock == ({"warning"}, False)
    assert opened == ({"ok"}, True)


@pytest.mark.spread
@pytest.mark.parametrize("name", ["pasta", "slirp4netns"])
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (FAILING, "it does not work"),
        ("#!/bin/sh\n", "does not say its version"),
        ("#!/no/such/interpreter\n", "cannot be executed"),
        (HANGING, "did not end within 2 s"),
    ],
)
def test_uplink_does_not_run(
    world: bench.World, fakes: Fakes, name: str, script: str, message: str
) -> None:
    """One that fails or hangs is found out; it is a problem if it is the one that is used."""
    fakes.add(name, script)

    found = ask(world, PATH=fakes.first)[name]

    assert message in found["message"]
    assert found["result"] == ("problem" if name == "pasta" else "warning")


def test_no_pasta(world: bench.World, fakes: Fakes) -> None:
    """Without pasta slirp4netns is used, and has to run."""
    found = ask_in(world, hide(PASTA))
    fakes.add("slirp4netns", FAILING)
    failing = ask_in(world, hide(PASTA), PATH=fakes.first)

    assert (found["pasta"]["result"], found["slirp4netns"]["result"]) == ("skipped", "ok")
    assert "slirp4netns version 1" in found["slirp4netns"]["message"]
    assert failing["slirp4netns"]["result"] == "problem"


def test_no_uplink(world: bench.World) -> None:
    """Without either there is no way out; without slirp4netns alone nothing is amiss."""
    neither = ask_in(world, hide(PASTA, SLIRP))
    one = ask_in(world, hide(SLIRP))

    assert neither["pasta"]["result"] == "problem"
    assert neither["pasta"]["message"] == "neither pasta nor slirp4netns is installed"
    assert one["slirp4netns"]["result"] == "skipped"


def test_plugins(world: bench.World) -> None:
    """All plugins are asked, and which versions they speak is shown, the shim's own as well."""
    found = ask(world, CNI_PATH=world.plugin_dir)["CNI plugins"]

    assert found["result"] == "ok"
    versions = dict(line.split(": ") for line in found["details"])
    spoken = {name: span for names, span in versions.items() for name in names.split(", ")}
    assert spoken["bridge"].startswith("0.1.0 to 1.")
    assert spoken["firewall"].startswith("0.4.0 to 1.")
    assert spoken["netns-shim"] == "0.1.0 to 1.1.0"
    assert found["message"] == f"{len(spoken)} in {world.plugin_dir}"


def test_no_plugin_but_ours(world: bench.World, fakes: Fakes) -> None:
    """Where nothing is that the shim could run, that is said."""
    world.root.run([PLUGIN, "install", FAKES], check=True)

    found = ask(world, CNI_PATH=FAKES)["CNI plugins"]

    assert found["result"] == "warning"
    assert found["message"] == f"1 in {FAKES}, none of which netns-shim could run"
    assert found["advice"].startswith("install containernetworking-plugins")


def test_default_path(world: bench.World, fakes: Fakes) -> None:
    """Without CNI_PATH it is where plugins are mostly, and where the launcher is."""
    fakes.add("mine", SPEAKING.format("1.0.0", "1.1.0"))
    world.root.run([PLUGIN, "install", "--name", "other", FAKES], check=True)

    usual = ask(world)["CNI plugins"]
    lines = world.run([f"{FAKES}/other", "doctor"]).stdout.splitlines()

    assert "/usr/lib/cni, /opt/cni/bin" in usual["message"]
    assert FAKES not in usual["message"]
    (line,) = (line for line in lines if "CNI plugins" in line)
    assert line.endswith(f"/usr/lib/cni, /opt/cni/bin, {FAKES}")
    assert any(line.strip() == "mine: 1.0.0 to 1.1.0" for line in lines)


def test_directory_of_programs(world: bench.World) -> None:
    """The directory of the script that pip makes is not taken for one of plugins."""
    command = ["/opt/netns-shim/bin/netns-shim", "doctor", "--json"]

    found = results(world.run(command))["CNI plugins"]

    assert found["result"] == "ok"
    assert found["message"].endswith(" in /usr/lib/cni, /opt/cni/bin")


@pytest.mark.spread
@pytest.mark.parametrize(
    "name",
    [name for name in MISBEHAVIOURS if name not in ("many documents", "not a number")],
)
def test_plugin_that_misbehaves(world: bench.World, fakes: Fakes, name: str) -> None:
    """A plugin that gives no sensible answer is named, beside those that do."""
    fakes.add("bad", MISBEHAVIOURS[name])
    fakes.add("good", SPEAKING.format("0.4.0", "1.0.0"))

    found = ask(world, CNI_PATH=FAKES)["CNI plugins"]

    assert found["result"] == "warning"
    assert found["message"] == f"2 in {FAKES}, of which 1 do not work"
    assert found["details"][0].startswith(f"{FAKES}/bad: ")
    assert found["details"][1:] == ["good: 0.4.0 to 1.0.0"]


def test_plugin_from_the_future(world: bench.World, fakes: Fakes) -> None:
    """A plugin that speaks only unknown versions is of no use."""
    fakes.add("bad", SPEAKING.format("7.0.0", "8.0.0"))

    found = ask(world, CNI_PATH=FAKES)["CNI plugins"]

    assert found["result"] == "warning"
    assert "speaks no version of the CNI specification known here" in found["details"][0]


def test_plugins_that_hang(world: bench.World, fakes: Fakes) -> None:
    """Many that hang are not all waited for, and what is known by then is shown."""
    for number in range(8):
        fakes.add(f"hang{number}", HANGING)
    fakes.add("a-good-one", SPEAKING.format("0.4.0", "1.0.0"))
    began = time.monotonic()

    found = ask(world, CNI_PATH=FAKES)["CNI plugins"]

    assert time.monotonic() - began < 20
    assert found["result"] == "warning"
    assert f"{FAKES}/hang0: plugin 'hang0' (VERSION) did not end within 2 s" in found["details"]
    assert f"{FAKES}/hang7: not asked, because the others took too long" in found["details"]
    assert "a-good-one: 0.4.0 to 1.0.0" in found["details"]


def test_what_is_no_plugin(world: bench.World, fakes: Fakes) -> None:
    """Files that cannot be executed are passed over, and what is in PATH is not executed."""
    fakes.add("LICENSE", "Apache\n", mode=0o644)
    fakes.add("rm-all", f"#!/bin/sh\n: >{world.env['HOME']}/executed\n")

    found = ask(world, CNI_PATH=FAKES, PATH=fakes.first)["CNI plugins"]

    assert found["result"] == "problem"
    assert found["message"] == f"none in {FAKES}"
    assert "containernetworking-plugins" in found["advice"]
    assert not world.path(f"{world.env['HOME']}/executed").exists()
    assert (
        ask(world, CNI_PATH="/usr/bin:/bin")["CNI plugins"]["message"] == "none in /usr/bin:/bin"
    )
    assert ask(world, CNI_PATH="/none")["CNI plugins"]["result"] == "problem"


@pytest.mark.parametrize("name", ["iptables", "nft"])
def test_rules(world: bench.World, session: bench.Session, name: str) -> None:
    """A rule can be made in a namespace that goes with the check, wherever one is."""
    for place in (world, session, world.root):
        found = ask(place)[name]

        assert found["result"] == "ok"
        assert "can make a rule in a namespace" in found["message"]


@pytest.mark.parametrize(
    ("name", "missing", "failing"),
    [("iptables", "warning", "problem"), ("nft", "skipped", "warning")],
)
def test_no_rules(world: bench.World, fakes: Fakes, name: str, missing: str, failing: str) -> None:
    """One that is missing or that the kernel refuses is as bad as it is needed."""
    hidden = ask_in(world, hide(f"/usr/sbin/{name}"))[name]
    broken = "#!/bin/sh\n[ $1 = --version ] && echo v1 && exit\necho 'no such table' >&2\nexit 1\n"
    fakes.add(name, broken)
    refused = ask(world, PATH=fakes.first)[name]

    assert hidden["result"] == missing
    assert "not installed" in hidden["message"]
    assert refused["result"] == failing
    assert "no such table" in refused["message"]
    assert "modprobe" in refused["advice"]


def test_neither_iptables_nor_nft(world: bench.World) -> None:
    """Without either no plugin can make a rule."""
    found = ask_in(world, hide("/usr/sbin/iptables", "/usr/sbin/nft"))["iptables"]

    assert found["result"] == "problem"
    assert "not installed" in found["message"]


def test_rules_are_tried_as_plugins_would(world: bench.World, fakes: Fakes) -> None:
    """It is tried in another network namespace and with an empty /run, as root of it."""
    fakes.add(
        "nft",
        "#!/bin/sh\n[ $1 = --version ] && echo v1 && exit\n"
        'echo "$(id -u) $(ls /run | wc -l) $(grep -c : /proc/net/dev)" >&2\nexit 1\n',
    )

    found = ask(world, PATH=fakes.first)["nft"]

    assert "stderr: 0 0 1" in found["message"]  # the loopback is the only interface


def test_netavark(world: bench.World, fakes: Fakes) -> None:
    """netavark is shown with its version, or what is wrong with it; it is optional."""
    well = ask(world)
    missing = ask_in(world, hide(NETAVARK))
    nameless = ask_in(world, hide(AARDVARK))
    fakes.add("netavark", FAILING)
    fakes.add("aardvark-dns", FAILING)
    failing = ask(world, PATH=fakes.first)

    for name in ("netavark", "aardvark-dns"):
        assert well[name]["result"] == "ok"
        assert well[name]["message"].startswith(f"{name} 1.")
        assert missing[name]["result"] == "skipped"
        assert failing[name]["result"] == "warning"
        assert "it does not work" in failing[name]["message"]
    assert nameless["netavark"]["result"] == "ok"
    assert nameless["aardvark-dns"]["result"] == "warning"
    assert "dns_enabled" in nameless["aardvark-dns"]["message"]


def test_netavark_of_ours(world: bench.World, fakes: Fakes) -> None:
    """The stand-in for netavark is not taken for the real one."""
    world.root.run([PLUGIN, "install", "--name", "netavark", FAKES], check=True)

    assert NETAVARK in ask(world, PATH=fakes.first)["netavark"]["message"]


OWN = "mount -t tmpfs -o mode=755 tmpfs /usr/local/lib; mkdir /usr/local/lib/netavark\n"
DRIVERS = "/usr/local/lib/netavark"


def test_plugins_of_netavark(world: bench.World) -> None:
    """Where there are some they are listed, and those that are the shim say who they are."""
    script = f"{OWN}{PLUGIN} install --name cni {DRIVERS} >/dev/null; cp /bin/true {DRIVERS}/ovs"

    none = ask_in(world, OWN)["netavark plugins"]
    found = ask_in(world, script)["netavark plugins"]

    assert none["result"] == "skipped"
    assert DRIVERS in none["message"]
    assert found["result"] == "ok"
    assert found["message"] == f"{DRIVERS}/cni (netns-shim), {DRIVERS}/ovs"


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (f"chmod 0644 {DRIVERS}/cni", "it is not executable"),
        (f"sed -i '1s/.*/#!\\/gone\\/python3 -IS/' {DRIVERS}/cni", "cannot be executed"),
        (f"sed -i 's/^sys.path.*//' {DRIVERS}/cni", "No module named 'netns_shim'"),
    ],
)
def test_broken_plugin_of_netavark(world: bench.World, breaking: str, message: str) -> None:
    """A launcher that was left behind, or has lost its package or its mode, is found."""
    script = f"{OWN}{PLUGIN} install --name cni {DRIVERS} >/dev/null\n{breaking}"

    found = ask_in(world, script)["netavark plugins"]

    assert found["result"] == "warning"
    assert f"{DRIVERS}/cni" in found["details"][0]
    assert message in found["details"][0]
    assert "netns-shim install" in found["advice"]
