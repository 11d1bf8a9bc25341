# SPDX-License-Identifier: Apache-2.0
"""The shim in the place of the `netavark` binary, in the host's netns, with the real ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import bench
import pytest
import releases
from runtime import PLUGIN, kill_for_good, page, reaches, until

from netns_shim.faces import netavark_text

STAND_IN = "/opt/bench/netavark"
RELEASES = releases.versions()
# Gives the environment in which the stand-in finds one release.
Installed = Callable[[str], dict[str, str]]


def network(name: str, number: int) -> dict[str, Any]:
    """Write a network of netavark."""
    return {
        "name": name,
        "id": f"{number:064x}",
        "driver": "bridge",
        "network_interface": f"nv{number}",
        "subnets": [{"subnet": f"10.89.{number}.0/24", "gateway": f"10.89.{number}.1"}],
        "dns_enabled": False,
        "internal": False,
        "ipv6_enabled": False,
    }


def request(container_id: str, host: int, *names: str) -> dict[str, Any]:
    """Write what netavark is given for a container in one or several networks."""
    networks = {
        name: {"interface_name": f"eth{i}", "static_ips": [f"10.89.{i}.{host}"]}
        for i, name in enumerate(names)
    }
    infos = {name: network(name, i) for i, name in enumerate(names)}
    return {
        "container_id": container_id,
        "container_name": container_id,
        "networks": networks,
        "network_info": infos,
    }


@pytest.fixture(scope="module")
def installed(world: bench.World, netavark: dict[str, str]) -> Installed:
    """Install the stand-in; give a function that lets it find one release or the other."""
    command = ["/opt/netns-shim/bin/netns-shim", "install", "--name", "netavark", "/opt/bench"]
    world.root.run(command, check=True)

    def environment(release: str) -> dict[str, str]:
        path = f"{netavark[release]}:{world.env['PATH']}"
        return {**world.env, "PATH": f"/opt/bench:{path}"}

    return environment


class Caller:
    """Calls `netavark` and does not know that it is another one."""

    def __init__(self, session: bench.Place, env: dict[str, str]) -> None:
        self.session = session
        self.env = env
        self.options = ["--config", f"{env['HOME']}/networks", "--rootless=true"]
        session.run(["mkdir", "-p", self.options[1]], check=True)

    def call(self, verb: str, netns: str, text: str) -> subprocess.CompletedProcess[str]:
        """Call it with any standard input."""
        argv = [STAND_IN, *self.options, verb, netns]
        return self.session.run(argv, env=self.env, input=text)

    def succeed(self, verb: str, container: bench.Container, **given: Any) -> Any:
        """Make a call that succeeds; give its answer."""
        done = self.call(verb, container.netns, json.dumps(given))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def fail(self, verb: str, container: bench.Container, **given: Any) -> str:
        """Make a call that fails; give its error."""
        done = self.call(verb, container.netns, json.dumps(given))
        assert done.returncode == 1, done.stdout + done.stderr
        return str(json.loads(done.stdout)["error"])

    def references(self) -> list[tuple[str, str]]:
        """List containers and interfaces."""
        done = self.session.run([PLUGIN, "status", "--json"], check=True)
        found = [r for netns in json.loads(done.stdout)["netns"] for r in netns["references"]]
        return sorted((r["containerID"], r["ifname"]) for r in found)


@pytest.fixture(params=RELEASES)
def caller(
    session: bench.Session,
    installed: Installed,
    request: pytest.FixtureRequest,
) -> Caller:
    """A caller for each release."""
    return Caller(session, installed(request.param))


def test_it_attaches(world: bench.World, session: bench.Session, caller: Caller) -> None:
    """Containers in one network and in two are attached, and detached, as netavark does it."""
    with session.container() as first, session.container() as second:
        answer = caller.succeed("setup", first, **request("a", 5, "one", "two"))
        caller.succeed("setup", second, **request("b", 6, "one"))

        assert list(answer) == ["one", "two"] or sorted(answer) == ["one", "two"]
        assert page(first, bench.PAGE)
        assert reaches(second, "10.89.0.5")
        assert caller.references() == [("a", "eth0"), ("a", "eth1"), ("b", "eth0")]
        caller.succeed("teardown", first, **request("a", 5, "one", "two"))
        assert caller.references() == [("b", "eth0")]
        caller.succeed("teardown", second, **request("b", 6, "one"))
    assert world.leftovers() == []


def test_mtu_of_the_uplink(session: bench.Session, caller: Caller) -> None:
    """A bridge gets the MTU of the uplink, unless its network has the option."""
    given = request("a", 5, "one", "two")
    given["network_info"]["two"]["options"] = {"mtu": "1400"}
    with session.container() as container:
        caller.succeed("setup", container, **given)

        links = json.loads(container.run(["ip", "-json", "link"], check=True).stdout)
        caller.succeed("teardown", container, **given)
    found = {link["ifname"]: link["mtu"] for link in links}
    assert (found["eth0"], found["eth1"]) == (65520, 1400)


@pytest.mark.parametrize(
    ("driver", "options", "mtu"),
    [
        ("bridge", None, "65520"),
        ("bridge", {"mtu": "1400"}, "1400"),
        ("macvlan", {}, None),
        ("cni", {"type": "bridge"}, "65520"),
        ("cni", {"type": "ptp", "mtu": "1400"}, "1400"),
        ("cni", {"driver": "bridge"}, "65520"),
        ("cni", {"type": "macvlan"}, None),
        ("cni", {"conf": "/etc/cni/net.d/x.conflist"}, None),
    ],
)
def test_networks_with_an_mtu(
    driver: str, options: dict[str, str] | None, mtu: str | None
) -> None:
    """Networks of our plugin get it as well: the plugin works in place, and knows no uplink."""
    text = json.dumps({"network_info": {"n": {"driver": driver, "options": options}}})

    made = json.loads(netavark_text.with_mtu(text.encode(), 65520))["network_info"]["n"]

    assert (made["options"] or {}).get("mtu") == mtu


@pytest.mark.parametrize("release", RELEASES)
def test_for_a_user_who_is_nobody(world: bench.World, installed: Installed, release: str) -> None:
    """It is the same outside of any user namespace, where it joins one first."""
    caller = Caller(world, installed(release))
    with world.unshared() as own, own.container() as container:
        caller.succeed("setup", container, **request("a", 5, "one"))

        assert page(container, bench.PAGE)
        assert caller.references() == [("a", "eth0")]
        caller.succeed("teardown", container, **request("a", 5, "one"))
    assert until(lambda: world.leftovers() == [])


def test_what_the_real_one_says(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """Errors are the real one's: of a second setup, which harms nothing, and a second teardown."""
    given = request("a", 5, "one")
    with session.container() as container:
        caller.succeed("setup", container, **given)

        assert "eth0 already exists" in caller.fail("setup", container, **given)
        assert page(container, bench.PAGE)
        caller.succeed("teardown", container, **given)
        assert "No such device" in caller.fail("teardown", container, **given)
    assert world.leftovers() == []


def test_container_that_is_gone(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """A teardown after the end of the container gives its reference back, whatever is said."""
    container = session.container()
    caller.succeed("setup", container, **request("a", 5, "one"))
    container.close()

    caller.fail("teardown", container, **request("a", 5, "one"))

    assert world.leftovers() == []


def test_setup_that_fails(world: bench.World, session: bench.Session, caller: Caller) -> None:
    """A setup that fails leaves nothing, and its error is the real one's."""
    given = request("a", 5, "one")
    given["networks"]["one"]["static_ips"] = None
    with session.container() as container:
        assert "no static ips provided" in caller.fail("setup", container, **given)

        assert "eth0" not in container.run(["ip", "link"]).stdout
    assert world.leftovers() == []


def test_setup_that_was_cut_off(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """What a killed setup has left is torn down by the next one, which then succeeds."""
    given = request("a", 5, "one", "two")
    refs = session.path(f"{world.state_dir}/default/refs")
    with session.container() as container:
        caller.succeed("setup", container, **given)
        for reference in refs.iterdir():
            with reference.open("a") as file:
                file.write('{"phase":"adding"}\n')

        caller.succeed("setup", container, **given)

        assert page(container, bench.PAGE)
        assert caller.references() == [("a", "eth0"), ("a", "eth1")]
        caller.succeed("teardown", container, **given)
    assert world.leftovers() == []


Change = Callable[[dict[str, Any]], None]
# What of a network, and of what a container wants of it, is another by the time of the teardown.
CHANGES: dict[str, Change] = {
    "bridge": lambda given: given["network_info"]["one"].update(network_interface="nv9"),
    "subnet": lambda given: given["network_info"]["one"].update(
        subnets=[{"subnet": "10.99.0.0/24", "gateway": "10.99.0.1"}]
    ),
    "driver": lambda given: given["network_info"]["one"].update(
        driver="macvlan", network_interface="lo"
    ),
    "address": lambda given: given["networks"]["one"].update(static_ips=["10.99.0.5"]),
    "interface": lambda given: given["networks"]["one"].update(interface_name="eth7"),
    "ports": lambda given: given.update(port_mappings=[]),
    "list": lambda given: given["network_info"].clear(),
}


@pytest.mark.spread
@pytest.mark.parametrize(
    ("change", "is_cut_off"), [*((change, False) for change in CHANGES), ("ports", True)]
)
def test_network_that_was_edited(
    world: bench.World, session: bench.Session, caller: Caller, change: str, *, is_cut_off: bool
) -> None:
    """A teardown, and the next setup after a kill, undo what the setup was given."""
    port = {"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}
    first = {**request("a", 5, "one"), "port_mappings": [port]}
    edited = json.loads(json.dumps(first))
    CHANGES[change](edited)
    refs = session.path(f"{world.state_dir}/default/refs")
    with session.container() as container, session.container() as other:
        caller.succeed("setup", other, **request("b", 6, "one"))
        caller.succeed("setup", container, **first)
        assert rules(session, "10.89.0.5")
        if is_cut_off:
            (reference,) = refs.glob("one:a:*")
            with reference.open("a") as file:
                file.write('{"phase":"adding"}\n')
            caller.succeed("setup", container, **edited)

        caller.succeed("teardown", container, **edited)

        assert rules(session, "10.89.0.5") == []
        assert "eth0" not in container.run(["ip", "link"]).stdout
        assert caller.references() == [("b", "eth0")]
        assert page(other, bench.PAGE)
        caller.succeed("teardown", other, **request("b", 6, "one"))
    assert world.leftovers() == []


def rules(session: bench.Session, address: str) -> list[str]:
    """List the rules in the shared netns that name an address."""
    done = session.run([PLUGIN, "run", "--", "nft", "list", "ruleset"], check=True)
    return [line for line in done.stdout.splitlines() if address in line]


def test_setup_of_0_1_0(world: bench.World, session: bench.Session, caller: Caller) -> None:
    """A container of that release, which did not write down its boot, is torn down."""
    refs = session.path(f"{world.state_dir}/default/refs")
    with session.container() as container:
        caller.succeed("setup", container, **request("a", 5, "one"))
        (reference,) = refs.iterdir()
        lines = [json.loads(line) for line in reference.read_text().splitlines()]
        assert "bootID" in lines[0]
        del lines[0]["bootID"], lines[0]["result"], lines[0]["asked"]
        reference.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

        caller.succeed("teardown", container, **request("a", 5, "one"))

        assert "eth0" not in container.run(["ip", "link"]).stdout
    assert world.leftovers() == []


def test_teardown_spares_who_has_the_path_now(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """Where the path leads to another container by now, that one keeps its interface."""
    path = "/run/netns/a"
    with session.container(pinned=path) as first, session.container() as second:
        caller.succeed("setup", first, **request("a", 5, "one"))
        caller.succeed("setup", second, **request("b", 6, "one"))
        session.run(["mount", "--bind", second.netns, path], check=True)

        caller.call("teardown", path, json.dumps(request("a", 5, "one")))

        assert page(second, bench.PAGE)
        assert caller.references() == [("b", "eth0")]
        session.run(["umount", path], check=True)
        caller.succeed("teardown", second, **request("b", 6, "one"))
    assert world.leftovers() == []


def test_answer_that_cannot_be_written(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """If the caller cannot get the answer of a setup, the container is torn down again."""
    given = request("a", 5, "one", "two")
    with session.container() as container:
        argv = [STAND_IN, *caller.options, "setup", container.netns]
        closed = ["sh", "-c", 'exec "$@" >&-', "sh", *argv]
        done = session.run(closed, env=caller.env, input=json.dumps(given))

        assert done.returncode == 1
        assert "the answer cannot be written" in done.stderr
        links = json.loads(container.run(["ip", "-json", "link"], check=True).stdout)
        assert [link["ifname"] for link in links] == ["lo"]
    assert world.leftovers() == []


def test_list_of_networks(session: bench.Session, caller: Caller) -> None:
    """Networks as a list, as Podman 6 sends them, are understood; the real one may refuse them."""
    given = request("a", 5, "one")
    given["networks"] = [{"name": "one", **given["networks"]["one"]}]
    with session.container() as container:
        error = caller.fail("setup", container, **given)

    assert "invalid type" in error or "expected a map" in error, error


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot decode the request: it is empty"),
        ("[]", "it is not a JSON object"),
        ("{}", "container_id: is missing\nnetworks: is missing"),
        ('{"container_id": "../x", "networks": {"a/b": {"interface_name": ""}}}', "3 problems"),
    ],
)
def test_bad_input(
    world: bench.World, session: bench.Session, caller: Caller, text: str, problem: str
) -> None:
    """What cannot be understood is refused before anything is made for it."""
    done = caller.call("setup", "/proc/self/ns/net", text)

    assert done.returncode == 1
    assert problem in json.loads(done.stdout)["error"]
    assert world.leftovers() == []


def test_plugin_of_netavark(
    world: bench.World, session: bench.Session, installed: Installed
) -> None:
    """A bare netavark in the host's netns gets as far as its plugins, of which the shim is one."""
    caller = Caller(session, installed("1.14.0"))
    caller.options += ["--plugin-directory", world.plugin_dir]
    given = request("a", 5, "one")
    given["network_info"]["one"] |= {"driver": "netns-shim", "options": {"type": "bridge"}}
    with session.container() as container:
        caller.succeed("setup", container, **given)

        assert page(container, bench.PAGE)
        assert caller.references() == [("a", "eth0")]
        caller.succeed("teardown", container, **given)
    # What is remembered where plugins run in place stays: here, versions and validations.
    assert all("/.in-place/" in line for line in world.leftovers())


@pytest.mark.parametrize("release", RELEASES)
def test_all_else_is_the_real_ones(
    session: bench.Session, installed: Installed, release: str
) -> None:
    """`version`, `update`, wrong usage: the real one is run in the place of the shim."""
    env = installed(release)

    version = session.run([STAND_IN, "version"], env=env)
    usage = session.run([STAND_IN, "no-such-command"], env=env)
    update = ["--config", "/tmp", "update", "n", "--network-dns-servers", "192.0.2.1"]
    updated = session.run([STAND_IN, *update], env=env)
    real = session.run([f"{env['PATH'].split(':')[1]}/netavark", *update], env=env)

    assert json.loads(version.stdout)["version"] == release
    assert (usage.returncode, usage.stdout) == (2, "")
    assert (updated.returncode, updated.stdout) == (real.returncode, real.stdout)


def test_in_place(world: bench.World, session: bench.Session, caller: Caller) -> None:
    """In a netns of the caller's own the real one works by itself, and nothing is remembered."""
    with session.container() as outer, session.container() as container:
        caller.session = outer
        caller.succeed("setup", container, **request("a", 5, "one"))

        assert "nv0" in outer.run(["ip", "link"]).stdout
        caller.succeed("teardown", container, **request("a", 5, "one"))
    assert not world.path(world.state_dir).exists()


def test_uplink_that_died(world: bench.World, session: bench.Session, caller: Caller) -> None:
    """The next setup starts a lost uplink again."""
    with session.container() as first, session.container() as second:
        caller.succeed("setup", first, **request("a", 5, "one"))
        status = json.loads(session.run([PLUGIN, "status", "--json"], check=True).stdout)
        kill_for_good(status["netns"][0]["uplink"])

        caller.succeed("setup", second, **request("b", 6, "one"))

        assert page(first, bench.PAGE)
        caller.succeed("teardown", first, **request("a", 5, "one"))
        caller.succeed("teardown", second, **request("b", 6, "one"))
    assert world.leftovers() == []


def test_log(world: bench.World, session: bench.Session, installed: Installed) -> None:
    """Its calls are in the log that the variable names, with how long the real one took."""
    log = f"{world.env['HOME']}/calls.log"
    caller = Caller(session, {**installed("1.4.0"), "NETNS_SHIM_LOG": log})
    with session.container() as container:
        caller.succeed("setup", container, **request("c1", 2, "net"))
        caller.fail("setup", container, container_id="c1")
        caller.succeed("teardown", container, **request("c1", 2, "net"))
    lines = session.path(log).read_text().splitlines()

    assert [line.split()[1:4] for line in lines] == [
        ["info", "setup", "net:c1"],
        ["error", "setup", "-"],
        ["info", "teardown", "net:c1"],
    ]
    assert 'ran="netavark setup ' in lines[0]
    assert lines[0].endswith(" outcome=done")
    assert "code=7 error=" in lines[1]
    assert world.leftovers() == []


def test_names_without_a_service_manager(
    world: bench.World, session: bench.Session, caller: Caller
) -> None:
    """Where systemd runs for others than this user, the name server is started all the same."""
    given = request("a", 5, "one")
    given["network_info"]["one"]["dns_enabled"] = True
    booted = world.path("/run/systemd/system")
    booted.mkdir(parents=True)
    try:
        with session.container() as container:
            caller.succeed("setup", container, **given)
            found = [line for line in world.leftovers() if "aardvark-dns" in line]
            caller.succeed("teardown", container, **given)
    finally:
        booted.rmdir()
        booted.parent.rmdir()

    assert len(found) == 1
    assert world.leftovers() == []
