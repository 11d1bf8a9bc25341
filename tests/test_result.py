# SPDX-License-Identifier: Apache-2.0
"""Results in all versions: what a conversion keeps, what it loses, and what it refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import examples

from netns_shim import cni, errors, result
from netns_shim.errors import ShimError

VERSIONS = cni.SUPPORTED_VERSIONS
OLD, MIDDLE, NEW = VERSIONS[:2], VERSIONS[2:5], VERSIONS[5:]

DNS = {"nameservers": ["10.0.0.1"]}
# One network, written in the three shapes; all that is said in each can be said in the old one.
PLAIN: dict[str, dict[str, Any]] = {
    "old": {
        "ip4": {
            "ip": "10.0.0.2/24",
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "10.9.0.0/16"}],
        },
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]},
        "dns": DNS,
    },
    "middle": {
        "ips": [
            {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"version": "6", "address": "fd00::2/64"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1"},
            {"dst": "10.9.0.0/16"},
            {"dst": "::/0"},
        ],
        "dns": DNS,
    },
    "new": {
        "ips": [
            {"address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"address": "fd00::2/64"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1"},
            {"dst": "10.9.0.0/16"},
            {"dst": "::/0"},
        ],
        "dns": DNS,
    },
}
# What the older shapes cannot say.
RICH = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1500},
        {"name": "eth0", "sandbox": "/run/netns/x", "socketPath": "/s", "pciID": "0000:00:1f.6"},
    ],
    "ips": [
        {"interface": 1, "address": "10.0.0.2/24"},
        {"interface": 1, "address": "10.0.0.3/24", "gateway": ""},
        {"interface": 0, "address": "fd00::2/64", "gateway": "fd00::1"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "", "mtu": 1400, "table": 5, "priority": 7},
        {"dst": "::/0", "gw": "fd00::1"},
    ],
    "own": "lost on the way to another family",
}


def shape(version: str) -> str:
    """Return which of the three shapes a version has."""
    return "old" if version in OLD else "middle" if version in MIDDLE else "new"


def refusal(value: Any, to: str, assume: str = "") -> ShimError:
    """Return the error that a conversion must end in."""
    with pytest.raises(ShimError) as caught:
        result.convert(value, to, assume)
    return caught.value


@pytest.mark.parametrize("to", VERSIONS)
@pytest.mark.parametrize("source", VERSIONS)
def test_what_all_versions_can_say_survives_every_conversion(source: str, to: str) -> None:
    """A result without interfaces means the same in each of the 49 pairs of versions."""
    given_result = {"cniVersion": source, **PLAIN[shape(source)]}
    before = copy.deepcopy(given_result)

    answer = result.convert(given_result, to)

    assert answer == {"cniVersion": to, **PLAIN[shape(to)]}
    assert given_result == before


@pytest.mark.parametrize("to", MIDDLE)
def test_new_to_middle(to: str) -> None:
    """mtu, socketPath and pciID go, version tags come, extras of routes and indices stay."""
    answer = result.convert(RICH, to)

    assert answer == {
        "cniVersion": to,
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "sandbox": "/run/netns/x"},
        ],
        "ips": [
            {"version": "4", "interface": 1, "address": "10.0.0.2/24"},
            {"version": "4", "interface": 1, "address": "10.0.0.3/24"},
            {"version": "6", "interface": 0, "address": "fd00::2/64", "gateway": "fd00::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "mtu": 1400, "table": 5, "priority": 7},
            {"dst": "::/0", "gw": "fd00::1"},
        ],
        "dns": {},
    }


@pytest.mark.parametrize("to", NEW)
def test_middle_to_new(to: str) -> None:
    """Version tags go, as do empty dns; interfaces stay."""
    given_result = result.convert(RICH, "0.4.0")

    answer = result.convert(given_result, to)

    assert "dns" not in answer
    assert answer["interfaces"] == given_result["interfaces"]
    assert answer["ips"][2] == {"interface": 0, "address": "fd00::2/64", "gateway": "fd00::1"}
    assert answer["routes"] == given_result["routes"]


@pytest.mark.parametrize("to", OLD)
@pytest.mark.parametrize("source", ["0.4.0", "1.1.0"])
def test_the_old_shape_has_one_address_a_family(source: str, to: str) -> None:
    """The first address of a family is kept, with the routes of the family, dst and gw only."""
    answer = result.convert(result.convert(RICH, source), to)

    assert answer == {
        "cniVersion": to,
        "ip4": {"ip": "10.0.0.2/24", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {
            "ip": "fd00::2/64",
            "gateway": "fd00::1",
            "routes": [{"dst": "::/0", "gw": "fd00::1"}],
        },
        "dns": {},
    }


def test_routes_of_a_family_without_address_are_lost() -> None:
    """The old shape has no place for them."""
    given_result = {"ips": [{"address": "10.0.0.2/24"}], "routes": [{"dst": "::/0"}]}

    answer = result.convert(given_result, "0.2.0", "1.0.0")

    assert answer == {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}, "dns": {}}


def test_an_untagged_address_is_of_the_family_it_looks_like() -> None:
    """A missing version tag does not lose the address, as it does in the reference library."""
    answer = result.convert({"ips": [{"address": "fd00::2/64"}]}, "0.2.0", "0.4.0")

    assert answer["ip6"] == {"ip": "fd00::2/64"}


@pytest.mark.parametrize("to", VERSIONS)
@pytest.mark.parametrize("source", VERSIONS)
def test_inside_a_family_only_the_label_changes(source: str, to: str) -> None:
    """Unknown keys at any depth survive between versions of one family, and only there."""
    given_result = {"cniVersion": source, **PLAIN[shape(source)], "own": {"deep": [1]}}

    answer = result.convert(given_result, to)

    assert ("own" in answer) == (shape(source) == shape(to))
    assert next(iter(answer)) == "cniVersion"


@pytest.mark.parametrize("to", VERSIONS)
def test_the_answer_shares_nothing_with_the_input(to: str) -> None:
    """Who changes a converted result does not change the one it came from."""
    given_result = copy.deepcopy(RICH)

    answer = result.convert(given_result, to)
    for value in answer.values():
        if isinstance(value, dict | list):
            value.clear()

    assert given_result == RICH


@pytest.mark.parametrize(
    ("assume", "label"), [("0.2.0", {}), ("0.2.0", {"cniVersion": ""}), ("1.0.0", {"x": 1})]
)
def test_a_result_without_version_is_of_the_assumed_one(assume: str, label: Any) -> None:
    """A missing or empty version is the one that the caller names."""
    given_result = {**PLAIN[shape(assume)], **label}

    answer = result.convert(given_result, "0.4.0", assume)

    assert answer["ips"] == PLAIN["middle"]["ips"]


def test_without_an_assumption_it_is_the_wanted_version() -> None:
    """An unlabelled result is labelled."""
    assert result.convert({}, "1.0.0") == {"cniVersion": "1.0.0"}


@pytest.mark.parametrize("to", OLD)
@pytest.mark.parametrize(
    "given_result", [{}, {"ips": None}, {"ips": []}, {"interfaces": [{"name": "eth0"}]}]
)
def test_a_result_without_address_has_no_old_shape(given_result: Any, to: str) -> None:
    """What has only layer 2 cannot be told to a caller of 0.1.0 or 0.2.0."""
    error = refusal(given_result, to, "1.0.0")

    assert error.code == errors.INCOMPATIBLE_VERSION
    assert error.message == "cannot convert: no valid IP addresses"


@pytest.mark.parametrize(
    ("version", "to"), [("9.9.9", "1.0.0"), ("1.0", "1.0.0"), ("1.0.0", "2.0.0")]
)
def test_unknown_versions(version: str, to: str) -> None:
    """Only published versions are converted, on either side."""
    error = refusal({"cniVersion": version}, to)

    assert error.code == errors.INCOMPATIBLE_VERSION
    assert error.message == "no converter for CNI result version"


BAD_NEW = [
    ({"cniVersion": 1}, "cniVersion"),
    ({"ips": "x"}, "ips"),
    ({"ips": {}}, "ips"),
    ({"ips": ["x"]}, "ips[0]"),
    ({"ips": [{}]}, "ips[0].address"),
    ({"ips": [{"address": 1}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.1"}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.1/24"}, {"address": "10.0.0.1/"}]}, "ips[1].address"),
    ({"ips": [{"address": "10.0.0.1/33"}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.1/٣"}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.1/" + "1" * 5000}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.256/24"}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0/24"}]}, "ips[0].address"),
    ({"ips": [{"address": "fd00::g/64"}]}, "ips[0].address"),
    ({"ips": [{"address": "fd00::1/129"}]}, "ips[0].address"),
    ({"ips": [{"address": "10.0.0.1/24", "gateway": 1}]}, "ips[0].gateway"),
    ({"ips": [{"address": "10.0.0.1/24", "interface": "0"}]}, "ips[0].interface"),
    ({"ips": [{"address": "10.0.0.1/24", "interface": True}]}, "ips[0].interface"),
    ({"ips": [{"address": "10.0.0.1/24", "version": "5"}]}, "ips[0].version"),
    ({"ips": [{"address": "10.0.0.1/24", "version": []}]}, "ips[0].version"),
    ({"interfaces": "x"}, "interfaces"),
    ({"interfaces": [None]}, "interfaces[0]"),
    ({"routes": [{"dst": "default"}]}, "routes[0].dst"),
    ({"routes": [{"gw": "10.0.0.1"}]}, "routes[0].dst"),
    ({"routes": [{"dst": "::/0", "gw": 1}]}, "routes[0].gw"),
    ({"dns": []}, "dns"),
]
BAD_OLD = [
    ({"ip4": "x"}, "ip4"),
    ({"ip4": {}}, "ip4.ip"),
    ({"ip6": {"ip": "fd00::1"}}, "ip6.ip"),
    ({"ip4": {"ip": "10.0.0.1/24", "gateway": []}}, "ip4.gateway"),
    ({"ip4": {"ip": "10.0.0.1/24", "routes": {}}}, "ip4.routes"),
    ({"ip4": {"ip": "10.0.0.1/24", "routes": [1]}}, "ip4.routes[0]"),
    ({"ip4": {"ip": "10.0.0.1/24", "routes": [{"dst": 1}]}}, "ip4.routes[0].dst"),
]


@pytest.mark.parametrize("to", ["0.2.0", "0.4.0", "1.0.0"])
@pytest.mark.parametrize(
    ("assume", "given_result", "place"),
    [("1.0.0", *case) for case in BAD_NEW]
    + [("0.4.0", *case) for case in BAD_NEW]
    + [("0.2.0", *case) for case in BAD_OLD],
)
def test_malformed_results_name_the_place(
    assume: str, given_result: Any, place: str, to: str
) -> None:
    """A result of the wrong shape is a decoding failure that says where."""
    error = refusal(given_result, to, assume)

    assert error.code == errors.DECODING_FAILURE
    assert error.message.startswith(f"malformed result: {place} ")


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_result_is_an_object(value: Any) -> None:
    """Anything else is malformed."""
    assert refusal(value, "1.0.0").code == errors.DECODING_FAILURE


def test_a_bottomless_result_is_malformed() -> None:
    """Nesting that Python cannot follow is an error and not a crash."""
    given_result: dict[str, Any] = {}
    for _ in range(100_000):
        given_result = {"x": given_result}

    assert refusal(given_result, "1.0.0").code == errors.DECODING_FAILURE


@pytest.mark.parametrize("version", VERSIONS)
def test_addresses_of_every_version(version: str) -> None:
    """The addresses are found in whichever shape."""
    assert result.addresses(PLAIN[shape(version)]) == ["10.0.0.2/24", "fd00::2/64"]


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {}, {"ips": 1}, {"ips": [1, {}, {"address": 1}]}, {"ip4": 1, "ip6": None}],
)
def test_addresses_of_anything(value: Any) -> None:
    """What is malformed has no addresses to show."""
    assert result.addresses(value) == []


LEAVES = (
    st.none()
    | st.integers()
    | st.sampled_from(["", "4", "6", "10.0.0.1/24", "10.0.0.1", "fd00::1/64", "::/0", *VERSIONS])
)
KEYS = st.sampled_from(
    [
        "cniVersion",
        "ips",
        "ip4",
        "ip6",
        "routes",
        "dns",
        "interfaces",
        "address",
        "ip",
        "dst",
        "gw",
    ]
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner), max_leaves=12
)


@settings(max_examples=examples(300))
@given(
    value=st.dictionaries(KEYS, ANYTHING),
    to=st.sampled_from(VERSIONS),
    assume=st.sampled_from(VERSIONS),
)
def test_any_object_is_converted_or_refused(value: Any, to: str, assume: str) -> None:
    """No object raises anything but `ShimError`, and no answer is refused when it comes back."""
    before = json.dumps(value)
    result.addresses(value)
    try:
        answer = result.convert(value, to, assume)
    except ShimError:
        answer = None

    assert json.dumps(value) == before
    if answer is not None:
        assert result.convert(answer, to) == answer


ROUTED = {"routes": [{"dst": "0.0.0.0/0"}]}
BOTH = {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
SERVERS = ["192.0.2.53", "2001:db8::53"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ROUTED, {"nameservers": ["192.0.2.53"], "search": ["a"]}),
        (BOTH, {"nameservers": SERVERS, "search": ["a"]}),
        ({"ip4": ROUTED, "dns": {}}, {"nameservers": ["192.0.2.53"], "search": ["a"]}),
        ({"ip6": {"routes": [{"dst": "::/0"}]}}, {"nameservers": SERVERS[1:], "search": ["a"]}),
        (
            {**ROUTED, "dns": {"search": ["own"], "domain": "d"}},
            {"nameservers": ["192.0.2.53"], "search": ["own"], "domain": "d"},
        ),
    ],
)
def test_name_servers_are_added(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Servers to which a default route leads are named; what a plugin has said, stays."""
    assert result.name_servers(given, SERVERS, ["a"])["dns"] == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"routes": [{"dst": "10.0.0.0/8"}]},
        {"routes": None, "ip4": None},
        {**ROUTED, "dns": {"nameservers": ["192.0.2.1"]}},
    ],
)
def test_name_servers_are_not_added(given: dict[str, Any]) -> None:
    """A plugin's own servers stay alone, and a container without a way out gets none."""
    before = json.loads(json.dumps(given))

    assert result.name_servers(given, SERVERS, ["a"]) == before
    assert given == before


def test_no_domain_is_added() -> None:
    """Without domains, there is no empty list of them."""
    assert result.name_servers(ROUTED, SERVERS, [])["dns"] == {"nameservers": ["192.0.2.53"]}
