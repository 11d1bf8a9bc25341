# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor --conf`: what one configuration names, and whether it is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import pytest
from diagnosis import FAKES, HANGING, Fakes, Found, ask, ask_in, hide, results
from runtime import PLUGIN, bridge

SAMPLES = Path(__file__).resolve().parent.parent / "conf"
CHECKS = ["configuration", "its plugins", "its drivers", "its uplink"]
AARDVARK = "/usr/lib/podman/aardvark-dns"


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """Fakes, and a place for files of networks."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def entry(**keys: Any) -> dict[str, Any]:
    """Configure one plugin, as a runtime gives it."""
    given = {"delegate": bridge()} if not keys.keys() & {"delegate", "plugins"} else {}
    return {"cniVersion": "1.0.0", "name": "net", "type": "netns-shim", **given, **keys}


def network(*entries: Any, version: str = "1.0.0") -> dict[str, Any]:
    """Configure a network of several entries."""
    return {"cniVersion": version, "name": "net", "plugins": list(entries)}


def ask_about(place: bench.Place, fakes: Fakes, conf: Any, **env: str) -> Found:
    """Ask about a configuration."""
    fakes.add("conf.json", conf if isinstance(conf, str) else json.dumps(conf), mode=0o644)
    return ask(place, "--conf", f"{FAKES}/conf.json", **env)


def kinds(found: Found) -> list[str]:
    """List the results of the checks that are about the configuration, but for its ports."""
    assert list(found)[:6] == [*CHECKS, "its paths", "its ports"]
    return [found[name]["result"] for name in CHECKS]


@pytest.mark.spread
@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.conflist")), ids=lambda p: p.name)
def test_samples(world: bench.World, session: bench.Session, fakes: Fakes, sample: Path) -> None:
    """All that the samples name is there on the machine of the tests."""
    for place in (world, session):
        found = ask_about(place, fakes, sample.read_text())

        assert "problem" not in kinds(found), found
        assert found["its ports"]["result"] in ("ok", "skipped"), found
        assert found["configuration"]["result"] == "ok"


def test_one_plugin(session: bench.Session, fakes: Fakes) -> None:
    """What is named is shown: where it is and in which version it will be spoken to."""
    found = ask_about(session, fakes, entry(cniVersion="1.1.0"))

    assert kinds(found) == ["ok", "ok", "skipped", found["pasta"]["result"]]
    assert found["its plugins"]["message"] == "bridge, host-local, netns-shim"
    assert found["its plugins"]["details"][0].startswith("/usr/lib/cni/bridge: called with CNI 1.")
    assert found["its uplink"] == {**found["pasta"], "check": "its uplink"}


@pytest.mark.spread
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot decode the network in"),
        ("[]", "cannot decode the network in"),
        ("", "cannot decode the network in"),
        ('{"plugins": [7]}', "'plugins' must be a list of objects"),
        ('{"cniVersion": "1.0.0", "name": "n", "plugins": []}', "no entry of netns-shim"),
        ('{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}', "no entry of netns-shim"),
    ],
)
def test_no_configuration(world: bench.World, fakes: Fakes, text: str, message: str) -> None:
    """What is none is a problem, and all other checks are done."""
    found = ask_about(world, fakes, text)

    assert kinds(found) == ["problem", "skipped", "skipped", "skipped"]
    assert message in found["configuration"]["message"]
    assert found["its subnets"]["result"] == found["its names"]["result"] == "skipped"
    is_others = message == "no entry of netns-shim"
    assert ("netns-shim wrap " in found["configuration"]["advice"]) is is_others
    assert found["user namespaces"]["result"] == "ok"


def test_nothing_to_run(world: bench.World, fakes: Fakes) -> None:
    """An entry of the shim without a plugin is one all the same, and what it lacks is said."""
    found = ask_about(world, fakes, network({"type": "netns-shim"}))["configuration"]

    assert "'delegate' (the plugin to run)" in "".join(found["details"])


def test_no_file(world: bench.World, fakes: Fakes) -> None:
    """A file that is not there, or not to be read, is a problem as well."""
    fakes.add("closed.conflist", "", mode=0o600)

    missing = ask(world, "--conf", f"{FAKES}/none.conflist")
    closed = ask(world, "--conf", f"{FAKES}/closed.conflist")

    assert missing["configuration"]["message"] == (
        f"{FAKES}/none.conflist: cannot be read: No such file or directory"
    )
    assert "Permission denied" in closed["configuration"]["message"]
    assert kinds(missing) == kinds(closed) == ["problem", "skipped", "skipped", "skipped"]


def test_invalid(world: bench.World, fakes: Fakes) -> None:
    """All that is wrong is listed; what an entry names that cannot be used is not looked for."""
    found = ask_about(world, fakes, network(entry(uplnk="none", enter=["x"], stateDir=7)))

    assert kinds(found) == ["problem", "skipped", "skipped", "skipped"]
    assert found["configuration"]["message"].endswith(": 3 problems")
    text = "\n".join(found["configuration"]["details"])
    assert "did you mean 'uplink'?" in text
    assert "$.enter" in text
    assert "$.stateDir" in text


@pytest.mark.spread
@pytest.mark.parametrize(
    "conf",
    [
        entry(delegate={"type": "none-such"}),
        entry(plugins=[bridge(), {"type": "none-such"}]),
        entry(delegate={**bridge(), "ipam": {"type": "none-such"}}),
        entry(delegate={"driver": "macvlan", "ipam": {"type": "none-such"}}),
        network({"type": "none-such"}, {"type": "netns-shim", "delegate": bridge()}),
        network({"type": "none-such", "delegate": bridge()}),
    ],
)
def test_plugin_is_missing(world: bench.World, fakes: Fakes, conf: Any) -> None:
    """A plugin that is named and not there is a problem, be it one of IPAM or beside ours."""
    found = ask_about(world, fakes, conf, CNI_PATH=world.plugin_dir)

    assert found["its plugins"]["result"] == "problem"
    assert found["its plugins"]["message"].startswith("failed to find plugin 'none-such' in path")
    assert "CNI_PATH" in found["its plugins"]["advice"]


def test_where_install_put_it(world: bench.World, fakes: Fakes) -> None:
    """Without CNI_PATH the plugin is found in the home, and the line for a runtime is said."""
    home = world.env["HOME"]
    command = "/opt/netns-shim/bin/netns-shim"
    world.run([command, "install"], check=True)
    fakes.add("conf.json", json.dumps(entry()), mode=0o644)
    asked = [command, "doctor", "--json", "--conf", f"{FAKES}/conf.json"]
    hidden = hide("/opt/cni/bin/netns-shim") + '\nexec "$@"'
    become = ["setpriv", f"--reuid={world.uid}", f"--regid={world.uid}", "--init-groups"]
    shell = ["unshare", "--mount", "sh", "-euc", hidden, "sh", *become, *asked]

    found = results(world.root.run(shell, env=world.env))["its plugins"]
    told = results(
        world.root.run(shell, env={**world.env, "CNI_PATH": f"{home}/.local/lib/cni:/usr/lib/cni"})
    )["its plugins"]

    world.run([command, "uninstall"], check=True)
    assert found["result"] == told["result"] == "ok"
    assert f"export CNI_PATH={home}/.local/lib/cni:/usr/lib/cni" in found["advice"]
    assert told["advice"] == ""


def test_plugin_of_other_versions(world: bench.World, fakes: Fakes) -> None:
    """One that speaks no known version, hangs or is silent is a problem, and all are told."""
    fakes.add(
        "strange", '#!/bin/sh\necho \'{"cniVersion": "9.0.0", "supportedVersions": ["9.0.0"]}\'\n'
    )
    fakes.add("silent", "#!/bin/sh\n")
    fakes.add("hanging", HANGING)
    conf = entry(plugins=[{"type": name} for name in ("strange", "silent", "hanging", "bridge")])

    found = ask_about(world, fakes, conf, CNI_PATH=f"{FAKES}:{world.plugin_dir}")

    assert found["its plugins"]["result"] == "problem"
    assert found["its plugins"]["message"] == "3 problems"
    strange, silent, hanging = found["its plugins"]["details"]
    assert "speaks no version" in strange
    assert silent == f"{FAKES}/silent: does not say which versions it speaks"
    assert "did not end within 2 s" in hanging


def driver(**keys: Any) -> dict[str, Any]:
    """Configure a driver of netavark."""
    subnets = [{"subnet": "10.88.0.0/24"}]
    return entry(delegate={"driver": "bridge", "subnets": subnets, **keys})


def test_drivers(world: bench.World, fakes: Fakes) -> None:
    """Drivers are found and run: those of netavark, and its plugins."""
    fakes.add("ovs", "#!/bin/sh\necho '{}'\n")
    built_in = ask_about(world, fakes, driver(dns_enabled=True))
    conf = entry(delegate={"driver": "ovs"}, pluginDirs=[FAKES])

    plugin = ask_about(world, fakes, conf)

    assert built_in["its drivers"]["result"] == "ok"
    assert built_in["its drivers"]["message"] == "bridge (/usr/lib/podman/netavark)"
    assert "host-local" in built_in["its plugins"]["message"]
    assert plugin["its drivers"]["message"] == f"ovs ({FAKES}/ovs)"


def test_driver_that_hangs(world: bench.World, fakes: Fakes) -> None:
    """One that hangs is not waited for."""
    fakes.add("ovs", HANGING)

    found = ask_about(world, fakes, entry(delegate={"driver": "ovs"}, pluginDirs=[FAKES]))

    assert found["its drivers"]["result"] == "problem"
    assert (
        found["its drivers"]["message"]
        == "driver 'ovs' (info) did not end within 2 s: it was killed"
    )


def test_driver_is_missing(world: bench.World, fakes: Fakes) -> None:
    """One that is not there, or does not run, is a problem."""
    missing = ask_about(world, fakes, entry(delegate={"driver": "ovs"}))
    fakes.add("netavark", "#!/bin/sh\necho 'no such kernel' >&2\nexit 1\n")
    failing = ask_about(world, fakes, driver(), PATH=fakes.first)

    assert missing["its drivers"]["message"].startswith("failed to find driver 'ovs' in path")
    assert "no such kernel" in failing["its drivers"]["message"]
    assert missing["its drivers"]["result"] == failing["its drivers"]["result"] == "problem"
    # It is nobody else's.
    assert failing["netavark"]["result"] == "warning"


@pytest.mark.parametrize(
    ("delegate", "result"),
    [
        (bridge(), "ok"),
        ({**bridge(), "isGateway": False}, "warning"),
        ({"type": "macvlan", "ipam": bridge()["ipam"]}, "warning"),
        ({"type": "ptp", "ipam": bridge()["ipam"]}, "ok"),
    ],
)
def test_names_without_a_gateway(
    session: bench.Session, fakes: Fakes, delegate: dict[str, Any], result: str
) -> None:
    """A server of names listens on a gateway, which not every plugin makes."""
    found = ask_about(session, fakes, entry(names=True, delegate=delegate))["its names"]

    assert found["result"] == result, found


def test_names_without_a_server(world: bench.World, fakes: Fakes) -> None:
    """A network with names needs aardvark-dns."""
    fakes.add("conf.json", json.dumps(driver(dns_enabled=True)), mode=0o644)

    found = ask_in(world, hide(AARDVARK), "--conf", f"{FAKES}/conf.json")["its drivers"]

    assert found["result"] == "problem"
    assert found["message"] == "bridge: dns_enabled, but there is no aardvark-dns"


@pytest.mark.spread
@pytest.mark.parametrize(
    ("keep", "result", "message"),
    [
        ([], "skipped", "names none"),
        (["/run/vendor"], "ok", "/run/vendor"),
        (["/run/vendor", "/run/none"], "warning", "/run/none is not there"),
        (["/etc/passwd"], "warning", "visible without `keep`: /etc/passwd"),
    ],
)
def test_paths_to_keep(
    world: bench.World, fakes: Fakes, keep: list[str], result: str, message: str
) -> None:
    """A path of `keep` has to be there, and makes sense only where others are hidden."""
    world.root.run(["mkdir", "-p", "/run/vendor"], check=True)
    found = ask_about(world, fakes, entry(keep=keep))
    world.root.run(["rmdir", "/run/vendor"], check=True)

    assert found["its paths"]["result"] == result
    assert message in found["its paths"]["message"]


def test_no_uplink_is_wanted(session: bench.Session, fakes: Fakes) -> None:
    """Where none is wanted, nothing that it needs is looked for."""
    for uplink in ("none", {"driver": "none"}):
        found = ask_about(session, fakes, entry(uplink=uplink))

        assert (found["its uplink"]["result"], found["its uplink"]["message"]) == (
            "ok",
            "the configuration asks for none",
        )
        for name in ("TUN device", "pasta", "slirp4netns"):
            assert found[name]["message"] == "the configuration asks for no uplink"


@pytest.mark.spread
@pytest.mark.parametrize(
    ("uplink", "message"),
    [
        ({"driver": "pasta", "path": "/none/pasta"}, "no uplink: /none/pasta is not installed"),
        ({"driver": "pasta", "options": ["--pid", "x"]}, "uplink.options: --pid is set by"),
        ({"driver": "slirp4netns", "options": ["--cidr", "x"]}, "uplink.options: --cidr is no"),
        ({"driver": "slirp4netns", "path": f"{FAKES}/slirp4netns"}, "does not run"),
        ({"driver": "pasta", "path": f"{FAKES}/slirp4netns"}, "does not run"),
    ],
)
def test_uplink_of_no_use(world: bench.World, fakes: Fakes, uplink: Any, message: str) -> None:
    """A path that leads nowhere, options that are refused, a program that fails: problems."""
    fakes.add("slirp4netns", "#!/bin/sh\nexit 1\n")

    found = ask_about(world, fakes, entry(uplink=uplink))["its uplink"]

    assert found["result"] == "problem"
    assert message in found["message"]


def test_uplink_that_is_named(session: bench.Session, fakes: Fakes) -> None:
    """The one that is named is examined, not the one that is chosen by default."""
    found = ask_about(session, fakes, entry(uplink="slirp4netns"))

    assert found["its uplink"] == {**found["slirp4netns"], "check": "its uplink"}


def test_entries_are_taken_together(session: bench.Session, fakes: Fakes) -> None:
    """Of several entries the worst counts."""
    bad = {"driver": "pasta", "path": "/none/pasta"}
    conf = network(
        *({"type": "netns-shim", "delegate": bridge(), "uplink": u} for u in ("none", bad))
    )

    found = ask_about(session, fakes, conf)

    assert kinds(found) == ["ok", "ok", "skipped", "problem"]
    assert "its 2 entries" in found["configuration"]["message"]


def test_root_that_is_to_enter(world: bench.World, fakes: Fakes) -> None:
    """Root needs an uplink where the configuration says so, and no caller who is to stay."""
    always = ask_about(world.root, fakes, entry(enter="always"))
    never = ask_about(world.root, fakes, entry(enter="never"))

    assert always["user namespaces"]["message"] == "root needs none"
    assert always["its uplink"] == {**always["pasta"], "check": "its uplink"}
    assert always["TUN device"]["result"] == "ok"
    assert (never["its uplink"]["result"], never["TUN device"]["result"]) == ("skipped", "skipped")


def test_state_of_the_configuration(session: bench.Session, fakes: Fakes) -> None:
    """State is looked for where the configuration has it, unless the command says otherwise."""
    fakes.add("conf.json", json.dumps(entry(stateDir="/run/netns/s")), mode=0o644)
    command = [PLUGIN, "doctor", "--json", "--conf", f"{FAKES}/conf.json"]

    by_conf = results(session.run(command))
    by_command = results(session.run([*command, "--state-dir", "/run/netns/t"]))

    assert by_conf["runtime directory"]["message"].startswith("/run/netns/s, on ")
    assert by_command["runtime directory"]["message"].startswith("/run/netns/t, on ")


def test_text(session: bench.Session, fakes: Fakes) -> None:
    """For people, what is named comes first."""
    shutil.copy(SAMPLES / "10-bridge.conflist", fakes.add("net.conflist", ""))

    done = session.run([PLUGIN, "doctor", "--conf", f"{FAKES}/net.conflist"])

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"ok       configuration      {FAKES}/net.conflist: its entry")
    assert done.returncode == 0
