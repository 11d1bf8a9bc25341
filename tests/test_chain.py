# SPDX-License-Identifier: Apache-2.0
"""A chain of plugins: order, results handed on, capabilities, versions, and undoing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fakes
import pytest

from netns_shim import errors
from netns_shim.chain import NOWHERE, Chain
from netns_shim.conf import Configuration
from netns_shim.errors import PluginFailed, ShimError
from netns_shim.request import Request
from netns_shim.versions import Versions

FIRST, SECOND, THIRD = "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"


def chain(
    directory: Path,
    plugins: list[dict[str, Any]] | dict[str, Any],
    *,
    version: str = "1.1.0",
    memory: Path | None = None,
    verb: str = "ADD",
    **conf: Any,
) -> Chain:
    """Return the chain of a list of plugins, or of a single delegate."""
    key = "plugins" if isinstance(plugins, list) else "delegate"
    environ = {
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/c",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
    }
    request = Request(
        verb,
        network="net",
        cni_version=version,
        conf={"cniVersion": version, "name": "net", "type": "netns-shim", key: plugins, **conf},
        environ=environ,
        path=str(directory),
    )
    entries = plugins if isinstance(plugins, list) else [plugins]
    versions = Versions(None if memory is None else str(memory))
    chain = Chain(
        Configuration(plugins=entries, timeout=60), request, request.environ, versions, "/nowhere"
    )
    versions.remember()
    return chain


def three(directory: Path, failing: str = "", verbs: Iterable[str] = ("ADD",)) -> Any:
    """Write three plugins, of which one may fail, and return their configurations."""
    for name, address in (("one", FIRST), ("two", SECOND), ("three", THIRD)):
        fails = verbs if name == failing else ()
        fakes.strict_plugin(directory, name, address=address, failing=fails)
    return [{"type": "one"}, {"type": "two"}, {"type": "three"}]


def addresses(result: dict[str, Any] | None) -> list[str]:
    """Return the addresses of a result."""
    return [ip["address"] for ip in (result or {}).get("ips", [])]


def failure(call: Any, *arguments: Any) -> ShimError:
    """Return the error that a call must end in."""
    with pytest.raises(ShimError) as caught:
        call(*arguments)
    return caught.value


def confs(directory: Path, verb: str) -> list[dict[str, Any]]:
    """Return what was on stdin of each call of a verb."""
    return [call.conf for call in fakes.calls(directory) if call.verb == verb]


def test_results_are_handed_on(tmp_path: Path) -> None:
    """ADD goes in order, each result is the next prevResult, and the last is the answer."""
    result = chain(tmp_path, three(tmp_path)).add()

    assert fakes.verbs(tmp_path) == [("one", "ADD"), ("two", "ADD"), ("three", "ADD")]
    assert addresses(result) == [FIRST, SECOND, THIRD]
    given = [conf.get("prevResult") for conf in confs(tmp_path, "ADD")]
    assert given[0] is None
    assert [addresses(previous) for previous in given[1:]] == [[FIRST], [FIRST, SECOND]]


def test_plugin_gets_its_own_configuration(tmp_path: Path) -> None:
    """A plugin gets its entry as written, with the name and version of the request."""
    fakes.strict_plugin(tmp_path, "one")
    entry = {"type": "one", "bridge": "cni0", "ipam": {"type": "x"}, "name": "mine", "n": 1 << 60}

    chain(tmp_path, [entry], version="1.0.0", uplink="pasta").add()

    (conf,) = confs(tmp_path, "ADD")
    assert conf == {**entry, "name": "net", "cniVersion": "1.0.0"}


def test_given_result_is_handed_to_the_first(tmp_path: Path) -> None:
    """In a list of the runtime the shim hands on the prevResult that it got itself."""
    previous = {"cniVersion": "1.1.0", "ips": [{"address": THIRD}]}

    result = chain(tmp_path, three(tmp_path)[:1], prevResult=previous).add()

    assert addresses(result) == [THIRD, FIRST]


def test_environment_is_that_of_the_call(tmp_path: Path) -> None:
    """Plugins get the attachment of the call, and CNI_PATH for those that they call."""
    chain(tmp_path, three(tmp_path)[:1]).add()

    (call,) = (call for call in fakes.calls(tmp_path) if call.verb == "ADD")
    assert call.environ["CNI_NETNS"] == "/run/netns/c"
    assert call.environ["CNI_PATH"] == str(tmp_path)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_capabilities_of_a_list_are_strict(tmp_path: Path, verb: str) -> None:
    """Of runtimeConfig a plugin in a list gets what it says itself that it can use."""
    fakes.strict_plugin(tmp_path, "one")
    plugins: list[dict[str, Any]] = [
        {"type": "one", "capabilities": {"mac": True, "ips": False, "dns": "true", "none": True}},
        {"type": "one"},
        {"type": "one", "capabilities": {}},
    ]
    offered = {"mac": "02::", "ips": ["1"], "dns": {}, "portMappings": []}
    bound = chain(tmp_path, plugins, runtimeConfig=offered, capabilities={"portMappings": True})

    act: dict[str, Callable[[], object]] = {
        "ADD": bound.add,
        "DEL": lambda: bound.delete(None),
        "CHECK": lambda: bound.forward("CHECK"),
    }
    act[verb]()

    given = [conf.get("runtimeConfig") for conf in confs(tmp_path, verb)]
    assert (given if verb != "DEL" else given[::-1]) == [{"mac": "02::"}, None, None]


def test_single_delegate_inherits_capabilities(tmp_path: Path) -> None:
    """The capabilities beside a single delegate are its own, unless it has some."""
    fakes.strict_plugin(tmp_path, "one")
    outer: dict[str, Any] = {
        "capabilities": {"mac": True, "ips": True},
        "runtimeConfig": {"mac": "02::"},
    }

    chain(tmp_path, {"type": "one"}, **outer).add()
    chain(tmp_path, {"type": "one", "capabilities": {"ips": True}}, verb="DEL", **outer).delete(
        None
    )

    (inherited,), (own,) = confs(tmp_path, "ADD"), confs(tmp_path, "DEL")
    assert inherited["runtimeConfig"] == {"mac": "02::"}
    assert "runtimeConfig" not in own


PORTS = [{"hostPort": 8080, "containerPort": 80}]


@pytest.mark.parametrize(
    ("plugins", "offered"),
    [
        ([{"type": "one"}, {"type": "one"}], {"portMappings": PORTS}),
        ({"type": "one", "capabilities": {}}, {"portMappings": PORTS}),
        ([{"type": "one"}], {"ips": ["10.0.0.9"]}),
        ([{"type": "one", "ipam": {"type": "x"}, "capabilities": {"ips": False}}], {"ips": ["1"]}),
        ([{"type": "one", "ipam": {"type": "x"}}], {"mac": "02::"}),
    ],
)
def test_what_a_runtime_asks_for_in_vain(tmp_path: Path, plugins: Any, offered: Any) -> None:
    """An ADD is refused before anything is done if the entry declares what no plugin takes."""
    ((key, value),) = offered.items()
    fakes.strict_plugin(tmp_path, "one")

    def make(verb: str) -> Chain:
        outer = {"capabilities": {key: True}, "runtimeConfig": offered}
        return chain(tmp_path, plugins, verb=verb, **outer)

    error = failure(make, "ADD")
    # What was attached before is detached all the same.
    make("DEL").delete(None)

    assert error.code == errors.UNSUPPORTED_FIELD
    assert error.message.startswith(f"unsupported field runtimeConfig.{key}: no plugin")
    assert str(value) in error.details
    assert confs(tmp_path, "ADD") == []
    assert "runtimeConfig" not in confs(tmp_path, "DEL")[0]


def test_what_comes_undeclared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A runtime that sends what the entry does not declare is told; not so of what all send."""
    fakes.strict_plugin(tmp_path, "one")
    offered = {"portMappings": PORTS, "aliases": {"net": ["c"]}, "mac": "02::", "dns": {}}

    chain(tmp_path, [{"type": "one"}], runtimeConfig=offered).add()

    said = "netns-shim: no plugin takes runtimeConfig.portMappings: it has no effect\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("own", [{}, {"capabilities": {"mac": True}}])
@pytest.mark.parametrize("beside", [{"ips": True}, {}])
@pytest.mark.parametrize("key", ["ipam", "subnets"])
def test_addresses_find_their_plugin(tmp_path: Path, own: Any, beside: Any, key: str) -> None:
    """The first plugin that has addresses allocated gets those of the runtime undeclared, too."""
    fakes.strict_plugin(tmp_path, "one")
    plugins = [{"type": "one"}, {"type": "one", key: {"type": "x"}, **own}, {"type": "one"}]
    offered = {"ips": ["10.0.0.9"]}

    chain(tmp_path, plugins, runtimeConfig=offered, capabilities=beside).add()

    given = [conf.get("runtimeConfig") for conf in confs(tmp_path, "ADD")]
    assert given == [None, offered, None]


def test_addresses_with_a_taker_are_its_own(tmp_path: Path) -> None:
    """They go nowhere else if a plugin has the capability."""
    fakes.strict_plugin(tmp_path, "one")
    plugins = [
        {"type": "one", "ipam": {"type": "x"}},
        {"type": "one", "capabilities": {"ips": True}},
    ]

    chain(tmp_path, plugins, runtimeConfig={"ips": ["1"]}, capabilities={"ips": True}).add()

    given = [conf.get("runtimeConfig") for conf in confs(tmp_path, "ADD")]
    assert given == [None, {"ips": ["1"]}]


def test_arguments_are_handed_on(tmp_path: Path) -> None:
    """`args` of the request reaches each plugin that has none of its own; the rest does not."""
    fakes.strict_plugin(tmp_path, "one")
    plugins: list[dict[str, Any]] = [{"type": "one"}, {"type": "one", "args": {"own": 1}}]
    outer: dict[str, Any] = {"args": {"cni": {}}, "cni.dev/x": 1}

    chain(tmp_path, plugins, **outer).add()

    given = confs(tmp_path, "ADD")
    assert [conf["args"] for conf in given] == [{"cni": {}}, {"own": 1}]
    assert not any("cni.dev/x" in conf for conf in given)


def test_delete_goes_in_reverse(tmp_path: Path) -> None:
    """DEL goes in reverse, with the final result for each."""
    final = {"cniVersion": "1.1.0", "ips": [{"address": THIRD}]}

    chain(tmp_path, three(tmp_path)).delete(final)

    assert fakes.verbs(tmp_path) == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")]
    assert [conf["prevResult"] for conf in confs(tmp_path, "DEL")] == [final] * 3


def test_delete_without_a_result(tmp_path: Path) -> None:
    """Without a result DEL is called without one, and so it is before 0.4.0."""
    plugins = three(tmp_path)[:1]

    chain(tmp_path, plugins).delete(None)
    chain(tmp_path, plugins, version="0.3.1").delete({"cniVersion": "0.3.1"})

    assert ["prevResult" in conf for conf in confs(tmp_path, "DEL")] == [False, False]


def test_failing_delete_ends_it(tmp_path: Path) -> None:
    """DEL stops at a plugin that fails twice, as the runtime calls again."""
    bound = chain(tmp_path, three(tmp_path, "two", ["DEL"]))

    error = failure(bound.delete, None)

    assert error.code == 142
    assert fakes.verbs(tmp_path) == [("three", "DEL"), ("two", "DEL"), ("two", "DEL")]


def test_delete_that_fails_once(tmp_path: Path) -> None:
    """A plugin whose DEL fails at what a killed call has left is called again, and DEL goes on."""
    plugins = three(tmp_path)
    script = f"""
if verb == "DEL" and not os.path.exists("{tmp_path}/met"):
    open("{tmp_path}/met", "w")
    fail(142, "no such chain")
"""
    fakes.fake_plugin(tmp_path, "two", script)

    chain(tmp_path, plugins).delete(None)

    calls = [("three", "DEL"), ("two", "DEL"), ("two", "DEL"), ("one", "DEL")]
    assert fakes.verbs(tmp_path) == calls


def test_failed_add_is_undone(tmp_path: Path) -> None:
    """A failed ADD is followed by DEL in reverse, from the plugin that failed; its error stays."""
    bound = chain(tmp_path, three(tmp_path, "two"))

    error = failure(bound.add)

    assert isinstance(error, PluginFailed)
    assert (error.code, error.message) == (142, "two fails ADD")
    assert fakes.verbs(tmp_path) == [
        ("one", "ADD"),
        ("two", "ADD"),
        ("two", "DEL"),
        ("one", "DEL"),
    ]
    assert [addresses(conf.get("prevResult")) for conf in confs(tmp_path, "DEL")] == [[FIRST]] * 2


def test_undoing_goes_on_after_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A DEL that fails while undoing is a warning, the rest is undone, the first error stays."""
    bound = chain(tmp_path, three(tmp_path, "three", ["ADD", "DEL"]))

    error = failure(bound.add)

    assert error.message == "three fails ADD"
    assert fakes.verbs(tmp_path)[3:] == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")]
    assert capsys.readouterr().err == "netns-shim: undoing a failed ADD: three fails DEL\n"


def test_plugin_that_vanishes_is_undone(tmp_path: Path) -> None:
    """ADD is undone as well where the next plugin cannot be executed."""
    plugins = three(tmp_path)
    bound = chain(tmp_path, plugins)
    (tmp_path / "two").unlink()

    error = failure(bound.add)

    assert error.message == "plugin 'two' cannot be executed"
    assert fakes.verbs(tmp_path) == [("one", "ADD"), ("one", "DEL")]


@pytest.mark.parametrize("answer", ["", "answer(None)", "answer([])", "answer(7)"])
def test_add_without_a_result(tmp_path: Path, answer: str) -> None:
    """ADD that gives no result object has failed, and is undone."""
    fakes.fake_plugin(tmp_path, "one", f"if verb == 'ADD': {answer or 'pass'}\n")

    error = failure(chain(tmp_path, [{"type": "one"}]).add)

    assert error.code == errors.PLUGIN_MISBEHAVED
    assert "without printing a result" in error.message
    assert fakes.verbs(tmp_path) == [("one", "ADD"), ("one", "DEL")]


@pytest.mark.parametrize(
    "answer", [{"cniVersion": "9.9.9"}, {"cniVersion": 1}, {"ips": 7}, {"ips": [{"address": "1"}]}]
)
def test_malformed_result(tmp_path: Path, answer: dict[str, Any]) -> None:
    """A result that cannot be understood is an error, and is undone."""
    fakes.fake_plugin(tmp_path, "one", f"if verb == 'ADD': answer({answer!r})\n")

    failure(chain(tmp_path, [{"type": "one"}]).add)

    assert fakes.verbs(tmp_path) == [("one", "ADD"), ("one", "DEL")]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_old_plugin_in_a_new_list(tmp_path: Path, version: str) -> None:
    """A plugin of 0.3.1 is spoken to in it, and what it gets and answers is converted."""
    memory = tmp_path / "plugins.json"
    fakes.strict_plugin(tmp_path, "one", address=FIRST)
    fakes.strict_plugin(tmp_path, "old", versions=["0.3.0", "0.3.1"], address=SECOND)
    plugins = [{"type": "one"}, {"type": "old"}, {"type": "one"}]

    for _ in range(2):
        result = chain(tmp_path, plugins, version=version, memory=memory).add()

        assert result == {
            "cniVersion": version,
            "ips": [{"address": a} for a in (FIRST, SECOND, FIRST)],
        }
    asked = [call.name for call in fakes.calls(tmp_path) if call.verb == "VERSION"]
    assert asked == ["one", "old"]
    given = confs(tmp_path, "ADD")[1]
    assert given["cniVersion"] == given["prevResult"]["cniVersion"] == "0.3.1"
    assert given["prevResult"]["ips"] == [{"address": FIRST, "version": "4"}]
    assert json.loads(memory.read_text())[str(tmp_path / "old")][-1] == ["0.3.0", "0.3.1"]


def test_new_plugin_in_an_old_list(tmp_path: Path) -> None:
    """A plugin that begins with 1.0.0 works in an old list, and the answer is in the old form."""
    fakes.strict_plugin(tmp_path, "new", versions=["1.0.0", "1.1.0"], address=FIRST)

    result = chain(tmp_path, {"type": "new"}, version="0.2.0").add()

    assert result == {"cniVersion": "0.2.0", "ip4": {"ip": FIRST}, "dns": {}}


@pytest.mark.parametrize("script", ["", "fail(4, 'no')", "sys.exit(3)", "answer({'x': 1})"])
def test_plugin_without_version(tmp_path: Path, script: str) -> None:
    """A plugin with no sensible answer to VERSION is spoken to in the wanted version."""
    reply = "answer({'cniVersion': conf['cniVersion']})"
    fakes.fake_plugin(
        tmp_path, "one", f"if verb == 'VERSION':\n    {script or 'pass'}\nelse:\n    {reply}\n"
    )
    bound = chain(tmp_path, {"type": "one"}, version="0.4.0")

    result = bound.add()
    bound.forward("CHECK", result)

    assert result["cniVersion"] == "0.4.0"
    assert fakes.verbs(tmp_path) == [("one", "ADD")]


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("CHECK", ["middle", "new"]), ("GC", ["new"]), ("STATUS", ["new"])],
)
def test_verbs_go_to_those_who_know_them(tmp_path: Path, verb: str, expected: list[str]) -> None:
    """CHECK, GC and STATUS reach the plugins that say they know them, in order."""
    fakes.strict_plugin(tmp_path, "old", versions=["0.3.1"])
    fakes.strict_plugin(tmp_path, "middle", versions=["0.3.1", "1.0.0"])
    fakes.strict_plugin(tmp_path, "new")
    bound = chain(tmp_path, [{"type": "old"}, {"type": "middle"}, {"type": "new"}])

    bound.forward(verb)

    assert fakes.verbs(tmp_path) == [(name, verb) for name in expected]


@pytest.mark.parametrize(("spoken", "knows"), [("0.3.1", []), ("0.4.0", ["CHECK"])])
def test_what_a_chain_knows(tmp_path: Path, spoken: str, knows: list[str]) -> None:
    """A chain knows a verb if one of its plugins does, in the version of the request."""
    fakes.strict_plugin(tmp_path, "one", versions=[spoken])
    fakes.strict_plugin(tmp_path, "new")
    old = chain(tmp_path, [{"type": "one"}])
    both = chain(tmp_path, [{"type": "one"}, {"type": "new"}])

    verbs = ["CHECK", "GC", "STATUS"]
    assert [verb for verb in verbs if old.knows(verb)] == knows
    assert [verb for verb in verbs if both.knows(verb)] == verbs


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_first_failure_ends_it(tmp_path: Path, verb: str) -> None:
    """A verb that is passed on stops at the first failure, which is the plugin's own."""
    error = failure(chain(tmp_path, three(tmp_path, "two", [verb])).forward, verb)

    assert error.message == f"two fails {verb}"
    assert fakes.verbs(tmp_path) == [("one", verb), ("two", verb)]


def test_valid_attachments_are_passed_on(tmp_path: Path) -> None:
    """GC carries the reserved keys of the request, and no result."""
    fakes.strict_plugin(tmp_path, "one")
    valid = [{"containerID": "c", "ifname": "eth0"}]
    given: dict[str, Any] = {"cni.dev/valid-attachments": valid}

    chain(tmp_path, [{"type": "one"}], **given).forward("GC")

    (conf,) = confs(tmp_path, "GC")
    assert conf["cni.dev/valid-attachments"] == valid
    assert "prevResult" not in conf


def test_lost_netns(tmp_path: Path) -> None:
    """After the end of a container its plugins find nothing at CNI_NETNS, which is not empty."""
    bound = chain(tmp_path, three(tmp_path)[:1])

    bound.lose_netns()
    bound.delete(None)

    assert fakes.calls(tmp_path)[-1].environ["CNI_NETNS"] == NOWHERE
    assert not Path(NOWHERE).exists()


def test_misfit_shows_before_anything_is_done(tmp_path: Path) -> None:
    """A plugin that is missing, or of the future, is found out before any is called."""
    fakes.strict_plugin(tmp_path, "one")
    fakes.strict_plugin(tmp_path, "future", versions=["2.0.0"])

    missing = failure(chain, tmp_path, [{"type": "one"}, {"type": "none"}])
    future = failure(chain, tmp_path, [{"type": "one"}, {"type": "future"}])

    assert missing.code == errors.INVALID_NETWORK_CONFIG
    assert future.code == errors.INCOMPATIBLE_VERSION
    assert fakes.verbs(tmp_path) == []
