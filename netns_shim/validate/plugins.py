# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the keys of plugins that everybody uses, as far as a file can tell.

The plugins ignore a key that they do not know, and say nothing of it: with `ipMask` in place of
`ipMasq`, a container does not reach the outside. So a key that is nearly theirs is a problem.
Any other unknown key passes, because a plugin may be newer than this list, which is that of the
reference plugins 1.9 (https://www.cni.dev/plugins/current/). ADD leaves all that to the plugin.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..shared import addresses
from . import together
from .semantic import Place, Problem, show

if TYPE_CHECKING:
    from ..decoding import Json

# What is wrong with a value; "" if nothing is.
Rule = Callable[[Any], str]

# The longest name of an interface, in bytes, netdevice(7).
LONGEST_NAME = 15
# What a runtime may offer to a plugin, https://www.cni.dev/docs/conventions/.
CAPABILITIES = (
    *("aliases", "bandwidth", "cgroupPath", "deviceID", "dns", "infinibandGUID", "ips"),
    *("ipRanges", "ipam", "mac", "portMappings"),
)
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}|([0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}|")


def _kind(wanted: str, *types: type) -> Rule:
    def check(value: Any) -> str:
        is_right = type(value) in types  # true and false are no numbers
        return "" if is_right else f"must be {wanted}, is {show(value)}"

    return check


_flag = _kind("true or false", bool)
_integer = _kind("an integer", int)
_text = _kind("a string", str)
_object = _kind("an object", dict)
_list = _kind("a list", list)


def _number(value: Any) -> str:
    return _integer(value) or (f"must not be negative, is {value}" if value < 0 else "")


def _vlan(value: Any) -> str:
    return _integer(value) or ("" if 0 <= value <= 4094 else f"must be 0 to 4094, is {value}")


def _mac(value: Any) -> str:
    return "" if _MAC.fullmatch(str(value)) else f"must be a MAC address, is {show(value)}"


def _up_to(most: int) -> Rule:
    def check(value: Any) -> str:
        return _number(value) or (f"must be 0 to {most}, is {value}" if value > most else "")

    return check


def _strings(value: Any) -> str:
    """Check values that a plugin reads as strings only, such as "1" for 1."""
    if problem := _object(value):
        return problem
    odd = next((key for key, text in value.items() if not isinstance(text, str)), None)
    return "" if odd is None else f"the value of {show(odd)} must be a string"


def _kernel_path(value: Any) -> str:
    is_right = isinstance(value, str) and value.startswith("/sys/devices/")
    return "" if is_right else f"must begin with /sys/devices/, is {show(value)}"


def one_of(*words: str, or_empty: bool = True) -> Rule:
    """Make a check for one of these words; for most plugins an empty one is as good as none."""
    right = (*words, "") if or_empty else words

    def check(value: Any) -> str:
        return "" if value in right else f"must be one of {', '.join(words)}, is {show(value)}"

    return check


def capabilities(value: Any) -> str:
    """Find a name that is nearly one of CNI's conventions: any other one may be a runtime's."""
    if problem := _object(value):
        return problem
    for name in value:
        near = difflib.get_close_matches(name, CAPABILITIES, n=1, cutoff=0.8)
        if near and name not in CAPABILITIES:
            return f"no runtime knows {show(name)}; did you mean '{near[0]}'?"
    return ""


def interface(value: Any) -> str:
    """Say why a value is no name for an interface."""
    if problem := _text(value):
        return problem
    if len(value.encode(errors="replace")) > LONGEST_NAME:
        return f"{show(value)} is longer than the {LONGEST_NAME} bytes of an interface's name"
    is_name = value not in (".", "..") and not any(c in "/:" or c.isspace() for c in value)
    return "" if is_name else f"{show(value)} is not a name for an interface"


def _subnet(value: Any) -> str:
    try:
        subnet = ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        why = f": {error}" if "host bits" in str(error) else ""
        return f"must be a subnet such as 10.88.0.0/16, is {show(value)}{why}"
    is_large = subnet.max_prefixlen - subnet.prefixlen >= 2
    return "" if is_large else f"{show(value)} is too small to give addresses from"


def _address(value: Any) -> str:
    is_right = isinstance(value, str) and addresses.is_address(value)
    return "" if is_right else f"must be an address, is {show(value)}"


def _with_prefix(value: Any) -> str:
    if isinstance(value, str) and addresses.has_prefix(value):
        return ""
    return f"must be an address with a prefix length, such as 10.88.0.2/16, is {show(value)}"


Keys = dict[str, Rule]

_RANGE: Keys = {
    "subnet": _subnet,
    **dict.fromkeys(("rangeStart", "rangeEnd", "gateway"), _address),
}
_ADDRESS: Keys = {"address": _with_prefix, "gateway": _address}
_ROUTE: Keys = {
    **dict.fromkeys(("mtu", "advmss", "priority", "table", "scope"), _number),
    **{"dst": _with_prefix, "gw": _address},
}
_OF_ALL: Keys = {
    **dict.fromkeys(("cniVersion", "name", "type"), _text),
    **dict.fromkeys(("args", "dns", "ipam", "runtimeConfig"), _object),
    "capabilities": capabilities,
}
# Modes that the kernel knows, ip-link(8).
MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
IPVLAN_MODES = ("l2", "l3", "l3s")
_RULES = one_of("iptables", "nftables")
PLUGINS: dict[str, Keys] = {
    "bridge": {
        **dict.fromkeys(
            ("isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "hairpinMode"), _flag
        ),
        **dict.fromkeys(("promiscMode", "preserveDefaultVlan", "macspoofchk", "enabledad"), _flag),
        **dict.fromkeys(("disableContainerInterface", "portIsolation"), _flag),
        **{"bridge": interface, "ipMasqBackend": _RULES, "mtu": _number},
        **{"vlan": _vlan, "vlanTrunk": _list},
    },
    "ptp": {"ipMasq": _flag, "ipMasqBackend": _RULES, "mtu": _number},
    "macvlan": {
        **{"master": interface, "mode": one_of(*MACVLAN_MODES), "mtu": _number, "mac": _mac},
        **{"linkInContainer": _flag, "bcqueuelen": _number},
    },
    "ipvlan": {
        "master": interface,
        "mode": one_of(*IPVLAN_MODES),
        "mtu": _number,
        "linkInContainer": _flag,
    },
    "portmap": {
        **dict.fromkeys(("snat", "masqAll"), _flag),
        **dict.fromkeys(("conditionsV4", "conditionsV6"), _list),
        **{"markMasqBit": _up_to(31), "externalSetMarkChain": _text, "backend": _RULES},
    },
    "firewall": {
        **dict.fromkeys(("iptablesAdminChainName", "firewalldZone"), _text),
        # It takes its default for any other word.
        "backend": one_of("iptables", "firewalld", "nftables"),
        "ingressPolicy": one_of("open", "same-bridge", "isolated"),
    },
    "tuning": {
        **{"sysctl": _strings, "mac": _mac, "mtu": _number, "txQLen": _number},
        **{"promisc": _flag, "allmulti": _flag, "dataDir": _text},
    },
    "bandwidth": {
        **dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), _number),
        **dict.fromkeys(("shapedSubnets", "unshapedSubnets"), _list),
    },
    "vlan": {
        **{"master": interface, "vlanId": _vlan, "mtu": _number, "linkInContainer": _flag},
    },
    "host-device": {
        **{"device": interface, "hwaddr": _mac, "kernelpath": _kernel_path, "pciBusID": _text},
    },
    "tap": {
        **{"multiQueue": _flag, "mtu": _number, "mac": _mac, "selinuxContext": _text},
        **{"owner": _number, "group": _number, "bridge": interface},
    },
    "vrf": {"vrfname": interface, "table": _up_to((1 << 32) - 1)},
    "sbr": {"table": _number, "addSourceHints": _flag},
    "dummy": {},
    "loopback": {},
}
IPAMS: dict[str, Keys] = {
    "host-local": {
        **_RANGE,
        **{"ranges": _list, "routes": _list, "resolvConf": _text, "dataDir": _text},
    },
    "static": {"addresses": _list, "routes": _list},
    "dhcp": {"daemonSocketPath": _text, "request": _list, "provide": _list},
}


def problems(entry: Json) -> Iterator[Problem]:
    """List what is wrong with the entry of a plugin in `PLUGINS`, and with its IPAM plugin's."""
    kind = entry.get("type")
    if isinstance(kind, str) and kind in PLUGINS:
        yield from _check(entry, (), kind, {**PLUGINS[kind], **_OF_ALL})
        yield from together.problems(entry, kind)
    ipam = entry.get("ipam")
    if not isinstance(ipam, dict):
        return
    kind = ipam.get("type")
    if not isinstance(kind, str) or kind not in IPAMS:
        return
    yield from _check(ipam, ("ipam",), kind, {"type": _text, **IPAMS[kind]})
    for name, keys in (("addresses", _ADDRESS), ("routes", _ROUTE)):
        yield from _check_each(ipam.get(name), ("ipam", name), kind, keys)
    if isinstance(ipam.get("ranges"), list):
        for index, ranges in enumerate(ipam["ranges"]):
            yield from _check_each(ranges, ("ipam", "ranges", index), kind, _RANGE)
            for number, given in enumerate(ranges if isinstance(ranges, list) else ()):
                yield from _outside(given, ("ipam", "ranges", index, number))
    yield from _outside(ipam, ("ipam",))


def _outside(given: Any, place: Place) -> Iterator[Problem]:
    """Find ends of a range that are not in its subnet: `host-local` refuses them."""
    try:
        subnet = ipaddress.ip_network(given["subnet"])
        ends = [(key, given[key]) for key in ("rangeStart", "rangeEnd") if given.get(key)]
        found = [(key, text) for key, text in ends if ipaddress.ip_address(text) not in subnet]
    except (KeyError, TypeError, ValueError):
        return  # that is a problem already, or another plugin's
    for key, text in found:
        yield (*place, key), f"{show(text)} is not in {subnet}"


def _check_each(values: Any, place: Place, kind: str, keys: Keys) -> Iterator[Problem]:
    if isinstance(values, list):
        for index, value in enumerate(values):
            if isinstance(value, dict):
                yield from _check(value, (*place, index), kind, keys)
            else:
                yield (*place, index), f"must be an object, is {show(value)}"


def _check(value: Json, place: Place, kind: str, keys: Keys) -> Iterator[Problem]:
    # The plugins are written in Go, which reads a key in upper or lower case.
    rules = {key.lower(): rule for key, rule in keys.items()}
    for key, given in value.items():
        rule = rules.get(key.lower())
        if rule is None:
            for near in difflib.get_close_matches(key, keys, n=1, cutoff=0.8):
                yield (*place, key), f"{kind} knows no such key; did you mean '{near}'?"
        elif given is not None and (problem := rule(given)):
            yield (*place, key), problem
