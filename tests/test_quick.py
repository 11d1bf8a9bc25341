# SPDX-License-Identifier: Apache-2.0
"""The quick answer is that of jsonschema, for any configuration and any document of netavark."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from parts import examples

from netns_shim.validate import quick

SCHEMA = json.loads(quick.schema_text())
NETAVARK = json.loads(quick.schema_text("netavark"))


def _is_address(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    ipaddress.ip_address(value)
    return "%" not in value  # a zone, which no other program reads


def _has_prefix(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    address, _, length = value.partition("/")
    ipaddress.ip_interface(value)
    # `ipaddress` also accepts an address alone, or with a mask; Go and Rust do not.
    return "%" not in address and re.fullmatch("[0-9]{1,3}", length) is not None


FORMATS = FormatChecker(formats=())
FORMATS.checks("ip", raises=ValueError)(_is_address)
FORMATS.checks("ip-prefix", raises=ValueError)(_has_prefix)


def judge(value: Any, schema: dict[str, Any]) -> tuple[bool, bool]:
    """Tell what the quick answer is, and what that of jsonschema."""
    slow = Draft202012Validator(schema, format_checker=FORMATS)
    return quick.is_valid(value, schema), slow.is_valid(value)


LEAVES: list[Any] = [
    *(None, True, False, 0, 1, -1, 0.5, 86400, 86401, 1e300, 4294967296, 2.0),
    *("", "a", "x\n", "/", "/run", "/\x7f", "..", "true", "True\n", "pasta", "never", "a" * 65),
    *("10.0.0.0/24", "fd00::/64", "::1", "1.2.3.4", "10.0.0.0/2222", "tcp", "TCP, udp", "a\0"),
    *(65535, 65536, 1.5),
    *([], {}, [[]], [{}], [""], ["/a"]),
]


def words(part: Any) -> Iterator[str]:
    """List the keys that a schema knows."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "properties":
                yield from value
            yield from words(value)
    elif isinstance(part, list):
        for value in part:
            yield from words(value)


KEYS = [*sorted(set(words(SCHEMA))), "cni.dev/x", "cni_dev/x", "unknown"]
NETAVARK_KEYS = [*sorted(set(words(NETAVARK))), "unknown"]


def values(keys: list[str]) -> st.SearchStrategy[Any]:
    """Make values in which these are the keys."""
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(keys), inner, max_size=4)
        ),
        max_leaves=8,
    )


VALUES = values(KEYS)
DRIVER = {"driver": "bridge", "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]}
ROUTE = {"destination": "10.1.0.0/16", "gateway": "10.0.0.1", "metric": 1}
VALID: list[dict[str, Any]] = [
    {"delegate": {"type": "bridge", "ipam": {"type": "host-local"}}, "netns": "a", "timeout": 1},
    {"plugins": [{"type": "bridge", "capabilities": {"x": True}}], "uplink": {"driver": "none"}},
    {"delegate": {**DRIVER, "routes": [ROUTE], "options": {"mtu": "1"}}, "uplink": "pasta"},
    {"delegate": {"type": "ptp"}, "mtu": "uplink"},
    {"delegate": {"type": "ptp"}, "mtu": 68},
    {"delegate": {"type": "ptp"}, "mtu": False},
    {"delegate": {**DRIVER, "ipam": {}}, "disableGC": "true", "cni.dev/x": 1, "args": None},
]

PORT = {"container_port": 80, "host_port": 8080, "host_ip": "", "protocol": "tcp", "range": 1}
NETWORK = {
    **{key: "x" for key in ("name", "id", "driver")},
    **{key: False for key in ("dns_enabled", "internal", "ipv6_enabled")},
    "subnets": [{"subnet": "10.0.0.0/24", "lease_range": {"start_ip": "10.0.0.9"}}],
    "routes": [{"destination": "fd00::/64", "metric": 1}],
    "options": {"a": "b"},
}
DOCUMENTS: dict[str, Any] = {
    "exec": {
        "container_id": "c",
        "container_name": "c",
        "network": NETWORK,
        "network_options": {"interface_name": "eth0", "static_ips": ["::1"]},
        "port_mappings": [PORT],
    },
    "networkOptions": {"container_id": "c", "networks": {"x": {"interface_name": "eth0"}}},
    "statuses": {"x": {"interfaces": {"e": {"mac_address": "", "subnets": [{"ipnet": "::/8"}]}}}},
    "call": {"runtimeConfig": {"aliases": {"x": ["y"]}, "portMappings": [{"containerPort": 1}]}},
    "result": {"ips": [{"address": "10.0.0.2/8"}], "routes": [{"dst": "::/0", "gw": ""}]},
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """List the containers in a value, each with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@given(VALUES)
def test_answer_for_anything(value: Any) -> None:
    """A value made of the schema's words is judged as jsonschema judges it."""
    fast, slow = judge(value, SCHEMA)

    assert fast == slow


@pytest.mark.parametrize("kind", NETAVARK["$defs"])
@settings(max_examples=examples(30))
@given(value=values(NETAVARK_KEYS))
def test_answer_for_any_document_of_netavark(kind: str, value: Any) -> None:
    """So is a value made of the words of netavark's documents, for each kind of them."""
    fast, slow = judge(value, {"$ref": f"#/$defs/{kind}", "$defs": NETAVARK["$defs"]})

    assert fast == slow


@given(st.data())
def test_answer_for_what_is_nearly_valid(data: st.DataObject) -> None:
    """So is a valid configuration with one place changed, taken away or added."""
    conf = json.loads(json.dumps(data.draw(st.sampled_from(VALID))))
    assert judge(conf, SCHEMA) == (True, True)
    change(conf, data, KEYS)

    fast, slow = judge(conf, SCHEMA)

    assert fast == slow


@given(st.data())
def test_answer_for_a_nearly_valid_document(data: st.DataObject) -> None:
    """So is a document of netavark with one place changed, taken away or added."""
    kind = data.draw(st.sampled_from([*DOCUMENTS]))
    schema = {"$ref": f"#/$defs/{kind}", "$defs": NETAVARK["$defs"]}
    document = json.loads(json.dumps(DOCUMENTS[kind]))
    assert judge(document, schema) == (True, True)
    change(document, data, NETAVARK_KEYS)

    fast, slow = judge(document, schema)

    assert fast == slow


def change(value: Any, data: st.DataObject, keys: list[str]) -> None:
    """Change one place of a value, take it away, or add one."""
    inside, key = data.draw(st.sampled_from(list(places(value))))
    match data.draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            inside[key] = data.draw(values(keys))
        case "remove":
            del inside[key]
        case "add" if isinstance(inside, dict):
            inside[data.draw(st.sampled_from(keys))] = data.draw(values(keys))


@pytest.mark.parametrize("pattern", quick._PATTERNS)
@given(data=st.data())
def test_patterns(pattern: str, data: st.DataObject) -> None:
    """What is known of a pattern of the schema is what `re` finds, whatever the text."""
    anything = st.text(st.sampled_from("a0_.-/ \n\0\x1f\x7f\x80\x9fé\ud800\udfff,"), max_size=4)
    known = st.sampled_from(["cni.dev/", "\n", "tcp,", " UDP ,sctp", "tcp udp", "sctp\n"])
    text = data.draw(anything | st.from_regex(pattern) | known)

    assert quick._PATTERNS[pattern](text) == (re.search(pattern, text) is not None)
    assert json.dumps(pattern) in quick.schema_text() + quick.schema_text("netavark")


@pytest.mark.parametrize("name", quick.FORMATS)
@given(
    st.text(st.sampled_from("0123456789abcdef:./%")) | st.ip_addresses().map(str),
    st.sampled_from(
        ["", "/", "/0", "/32", "/33", "/128", "/129", "/024", "/255.0.0.0", "/²", "\n"]
    ),
)
def test_formats(name: str, text: str, end: str) -> None:
    """An address is what `ipaddress` takes for one, without a zone and without a mask."""
    assert quick.FORMATS[name](text + end) == FORMATS.conforms(text + end, name)


def test_a_rule_that_is_not_known() -> None:
    """Where the schema says more than is understood, the answer is left to jsonschema."""
    assert not quick.is_valid({}, {"$defs": {}, "minProperties": 0})


@pytest.mark.parametrize(("name", "is_loaded"), [("net", False), ("-", True)])
def test_jsonschema_explains_and_no_more(name: str, is_loaded: bool) -> None:
    """A valid configuration does without jsonschema; it is loaded to say what is wrong."""
    conf = {"cniVersion": "1.0.0", "name": name, "type": "x", "delegate": {"type": "bridge"}}
    code = (
        "import sys; from netns_shim.validate import explain; "
        f"found = explain.problems({conf!r})\n"
        "print(bool(found), 'jsonschema' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(is_loaded)] * 2
