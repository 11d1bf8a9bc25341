# SPDX-License-Identifier: Apache-2.0
"""Validation: what is accepted, and that every problem is told at once in plain words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from netns_shim import errors
from netns_shim.errors import ShimError
from netns_shim.validate import explain, quick, semantic

BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.89.0.0/16"}]]},
}
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "netns-shim",
    "delegate": BRIDGE,
}


def problems(conf: Any) -> list[str]:
    """Return the lines of the refusal, or none."""
    try:
        explain.validate(conf)
    except ShimError as error:
        text = error.details or error.message.removeprefix("invalid configuration: ")
        return text.split("\n")
    return []


def without(*keys: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration with other keys and without some."""
    return {key: value for key, value in {**CONF, **changes}.items() if key not in keys}


@pytest.mark.parametrize(
    "conf",
    [
        CONF,
        {"delegate": {"type": "bridge"}},
        without("delegate", plugins=[BRIDGE, {"type": "portmap", "capabilities": {"x": True}}]),
        without(capabilities={"portMappings": True}, runtimeConfig={"portMappings": []}),
        without(prevResult=None, runtimeConfig=None, args=None),
        without(prevResult={"ips": []}, args={"cni": {}}),
        without(disableCheck=True, disableGC="False"),
        without(**{"cni.dev/valid-attachments": None, "cni.dev/other": 1}),
        without(netns="a" * 64, enter="never", stateDir="/var/tmp/x", timeout=0.5),
        without(timeout=86400),
        *(without(mtu=value) for value in ("uplink", False, 68, 1500, 65535)),
        without(parallel=True),
        without(parallel=False),
        without(uplink="none"),
        without(uplink={"driver": "pasta"}),
        without(uplink={"driver": "pasta", "options": ["-x", ""], "path": "/usr/bin/pasta"}),
        # Whatever else a delegated plugin is told is between it and who wrote it.
        {"delegate": {"type": "x", "name": 1, "cniVersion": [], "ipam": "odd", "netns": {}}},
        {"delegate": {"type": "x", "ipam": {}, "capabilities": {}, "delegate": {"type": "/"}}},
        {"delegate": {"type": "…"}},
    ],
)
def test_valid_configurations(conf: dict[str, Any]) -> None:
    """Every key in every form that is meant to be possible is accepted."""
    assert problems(conf) == []


@pytest.mark.parametrize(
    ("conf", "line"),
    [
        ([], "$: must be an object, is a list"),
        (None, "$: must be an object, is null"),
        ({}, "$: 'delegate' (the plugin to run) or 'plugins' (a chain of them) is missing"),
        (
            without(plugins=[BRIDGE]),
            "$: 'delegate' and 'plugins' exclude each other: keep one of them",
        ),
        (without(delegate="bridge"), '$.delegate: must be an object, is "bridge"'),
        (without(delegate={}), "$.delegate.type: is missing"),
        (without(delegate={"type": 1}), "$.delegate.type: must be a string, is 1"),
        (without("delegate", plugins=[]), "$.plugins: must not be empty"),
        (without("delegate", plugins={}), "$.plugins: must be a list, is an object"),
        (
            without("delegate", plugins=[BRIDGE, 1]),
            "$.plugins[1]: must be an object, is 1",
        ),
        (
            without("delegate", plugins=[BRIDGE, {"type": "netns-shim"}]),
            "$.plugins[1].type: a plugin cannot delegate to itself",
        ),
        (
            without(delegate={"type": "netns-shim"}),
            "$.delegate.type: a plugin cannot delegate to itself",
        ),
        (without(uplnk="pasta"), "$.uplnk: unknown key; did you mean 'uplink'?"),
        (without(stateDIR="/x"), "$.stateDIR: unknown key; did you mean 'stateDir'?"),
        (
            without(**{"my key\n": 1}),
            "$[\"my key\\n\"]: unknown key; keys of the delegated plugin belong inside 'delegate'",
        ),
        (without(netns=1), "$.netns: must be a string, is 1"),
        (without(netns="a" * 65), "$.netns: must be at most 64 characters long, is 65"),
        (
            without(enter="yes"),
            '$.enter: must be one of "auto", "always", "never"; is "yes"',
        ),
        (without(timeout=0), "$.timeout: must be more than 0, is 0"),
        (without(timeout=86401), "$.timeout: must be at most 86400, is 86401"),
        (without(timeout="5"), '$.timeout: must be a number, is "5"'),
        (without(timeout=True), "$.timeout: must be a number, is true"),
        (without(mtu="1500"), '$.mtu: must be one of "uplink"; is "1500"'),
        (without(mtu=True), "$.mtu: must be one of false; is true"),
        (without(mtu=None), "$.mtu: must be an integer, is null"),
        (without(mtu=67), "$.mtu: must be at least 68, is 67"),
        (without(mtu=65536), "$.mtu: must be at most 65535, is 65536"),
        (without(parallel="no"), '$.parallel: must be true or false, is "no"'),
        (without(parallel=None), "$.parallel: must be true or false, is null"),
        (
            without(uplink="vpn"),
            '$.uplink: must be one of "pasta", "slirp4netns", "none"; is "vpn"',
        ),
        (without(uplink={}), "$.uplink.driver: is missing"),
        (
            without(uplink={"driver": "none", "foo": 1}),
            "$.uplink.foo: unknown key; known are driver, options, path",
        ),
        (
            without(uplink={"driver": "none", "option": []}),
            "$.uplink.option: unknown key; did you mean 'options'?",
        ),
        (
            without(uplink={"driver": "pasta", "options": ["a", 1]}),
            "$.uplink.options[1]: must be a string, is 1",
        ),
        (
            without(uplink={"driver": "pasta", "options": ["-4", "--", "sh"]}),
            '$.uplink.options[1]: "--" is not an option',
        ),
        (without(capabilities={"ips": "yes"}), None),
        (without(delegate={"type": "x", "capabilities": {"ips": 1}}), None),
        (without(delegate={"type": "x", "capabilities": []}), None),
        (without(runtimeConfig=[]), "$.runtimeConfig: must be an object, is a list"),
        (without(prevResult="x"), '$.prevResult: must be an object, is "x"'),
        (without(disableGC=1), "$.disableGC: must be true or false or a string, is 1"),
        (without(disableCheck="maybe"), None),
        (without(cniVersion=1), "$.cniVersion: must be a string, is 1"),
        (
            {"name": "net", "plugins": [{"type": "netns-shim", "delegate": {"type": "bridge"}}]},
            f"$.plugins: {semantic.WHOLE_NETWORK}",
        ),
    ],
)
def test_a_single_problem_is_the_message(conf: Any, line: str | None) -> None:
    """One problem is told in one sentence that begins with its place."""
    lines = problems(conf)

    assert len(lines) == 1
    assert lines[0].startswith("$")
    assert line is None or lines == [line]


@pytest.mark.parametrize("key", ["ipam", "dns", "ipMasq", "bridge", "isGateway", "master"])
def test_keys_of_plugins_belong_inside(key: str) -> None:
    """Who forgot the braces of the delegate is told so."""
    sentence = f"$.{key}: unknown key; keys of the delegated plugin belong inside 'delegate'"

    assert problems(without(**{key: {}})) == [sentence]


BAD_TYPES = ["", ".", "..", "a/b", "/", "a\n", "a\0", "\x1b", "a\x7f", "\ud800"]


@pytest.mark.parametrize("value", BAD_TYPES)
@pytest.mark.parametrize(
    ("place", "wrap"),
    [
        ("$.delegate.type", lambda value: {"delegate": {"type": value}}),
        ("$.plugins[0].type", lambda value: {"plugins": [{"type": value}]}),
        (
            "$.delegate.ipam.type",
            lambda value: {"delegate": {"type": "x", "ipam": {"type": value}}},
        ),
    ],
)
def test_types_are_file_names(place: str, wrap: Any, value: str) -> None:
    """A type that could leave the plugin directories, or a terminal in disorder, is refused."""
    lines = problems(wrap(value))

    assert len(lines) == 1
    assert lines[0].startswith(f"{place}: {json.dumps(value)} ")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("netns", ["", "..", "a/b", "a\n", "-a", "ä"]),
        ("name", ["", "..", "a\n"]),
        ("stateDir", ["", "x", "./x", "/x\n", "/\0", "/\ud800"]),
    ],
)
def test_strings_that_become_paths(key: str, values: list[str]) -> None:
    """Names are names and directories are absolute, to the last character."""
    for value in values:
        lines = problems(without(**{key: value}))

        assert len(lines) == 1, value
        assert lines[0].startswith(f"$.{key}: ")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("path", {"path": "pasta"}),
        ("path", {"path": "/pasta\n"}),
        ("path", {"path": "/\udcff"}),
        ("options[0]", {"options": ["a\0"]}),
        ("options[1]", {"options": ["a", "\ud800"]}),
    ],
)
def test_strings_that_become_arguments(place: str, change: dict[str, Any]) -> None:
    """What no command line can hold is refused before anything runs."""
    lines = problems(without(uplink={"driver": "pasta", **change}))

    assert [line.partition(":")[0] for line in lines] == [f"$.uplink.{place}"]


def test_all_problems_are_told_in_order() -> None:
    """The message counts the problems; the details have a line for each, sorted by place."""
    plugins = [{"type": "ok"}] * 11
    plugins[2], plugins[10] = {}, {"type": "a/b"}
    conf = without("delegate", plugins=plugins, uplnk=1, timeout=-1)

    with pytest.raises(ShimError) as caught:
        explain.validate(conf)

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert caught.value.message == "invalid configuration: 4 problems"
    assert [line.partition(":")[0] for line in caught.value.details.split("\n")] == [
        "$.plugins[2].type",
        "$.plugins[10].type",
        "$.timeout",
        "$.uplnk",
    ]


def test_long_values_are_cut() -> None:
    """A huge configuration has a readable error."""
    lines = problems(without(enter="x" * 100_000, **{f"{i}" * 100: 1 for i in range(1000, 1200)}))

    assert len(lines) == 51
    assert lines[-1] == "… and 151 more"
    assert max(map(len, lines)) < 250


def deep(levels: int) -> dict[str, Any]:
    """Return an object in an object in an object."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


def test_depth_is_nobodys_problem_inside_a_delegate() -> None:
    """What is never looked at may be as deep as it likes; what is, is refused without a crash."""
    assert problems({"delegate": {"type": "x", "deep": deep(100_000)}}) == []
    assert problems(without(netns=deep(100_000))) != []
    assert problems({"plugins": [{"type": "x"}], "delegate": deep(100_000)}) != []


def test_the_schema_is_a_schema_and_documented() -> None:
    """Editors get a valid JSON Schema with a title and a description for every key."""
    document = json.loads(quick.schema_text())

    Draft202012Validator.check_schema(document)
    named = {**document["properties"], **document["properties"]["uplink"]["then"]["properties"]}
    for key, value in named.items():
        if "$ref" in value and "title" not in value:
            value = document["$defs"][value["$ref"].rpartition("/")[2]]
        assert value.get("title"), key
        assert value.get("description"), key


DRIVER = {"driver": "bridge", "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]}
ROUTE = {"destination": "10.1.0.0/16", "gateway": "10.0.0.1"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, []),
        ({"options": {"mtu": 1400}}, ["$.delegate.options.mtu: must be a string, is 1400"]),
        (
            {"dnsEnabled": True},
            ["$.delegate.dnsEnabled: unknown key; did you mean 'dns_enabled'?"],
        ),
        (
            {"driver": "macvlan", "dns_enabled": True},
            ["$.delegate.dns_enabled: names are resolved"],
        ),
        ({"path": "netavark"}, ['$.delegate.path: "netavark" does not fit']),
        (
            {"subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.9.0.1"}, {"subnet": "x"}]},
            [
                "$.delegate.subnets[0]: gateway: 10.9.0.1 is not in 10.0.0.0/24",
                "$.delegate.subnets[1].subnet: must be a subnet with its prefix length, is ",
            ],
        ),
        (
            {"subnets": [{"subnet": "10.0.0.0/24", "lease_range": {"end_ip": "10.1.0.9"}}]},
            ["$.delegate.subnets[0]: lease_range.end_ip: 10.1.0.9 is not in 10.0.0.0/24"],
        ),
        ({"subnets": [{"subnet": "300.0.0.0/8"}]}, ["$.delegate.subnets[0].subnet: must be"]),
        (
            {"network_dns_servers": ["::1", ":::"], "routes": [{**ROUTE, "gateway": "1.2.3"}]},
            [
                '$.delegate.network_dns_servers[1]: must be an IP address, is ":::"',
                '$.delegate.routes[0].gateway: must be an IP address, is "1.2.3"',
            ],
        ),
        ({"type": "bridge"}, ["$.delegate.type: unknown key"]),
    ],
)
def test_drivers(entry: dict[str, Any], expected: list[str]) -> None:
    """A driver of netavark has keys of its own, and addresses that must fit."""
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "x", "delegate": {**DRIVER, **entry}}

    found = explain.problems(conf)

    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)
