# SPDX-License-Identifier: Apache-2.0
"""Results of plugins in every version of the specification, and conversion between versions.

There are three shapes ("families"): 0.1.0 and 0.2.0; 0.3.0 to 0.4.0; 1.0.0 and 1.1.0. Inside a
family a conversion changes the label and keeps unknown keys; between families it carries over only
the keys of the specification, as the reference library does. Nothing here is I/O, and no argument
is ever changed. An address is of family 6 where it holds a colon: the `ipaddress`
module costs more time than a whole conversion.
"""

from __future__ import annotations

from .errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .decoding import Json

_DEFAULT_ROUTES = ("0.0.0.0/0", "::/0")
_FAMILY = {
    "0.1.0": 0,
    "0.2.0": 0,
    "0.3.0": 1,
    "0.3.1": 1,
    "0.4.0": 1,
    "1.0.0": 2,
    "1.1.0": 2,
}


def convert(result: Json, to: str, assume: str = "") -> Json:
    """Give a result in version `to`, as a new object that shares nothing with the old one.

    A result without `cniVersion` counts as version `assume`, or as `to` where that is empty.
    Raises ShimError: code 6 for a malformed result, naming the key; 1 where a version is unknown
    or cannot express the result (no IP address, in 0.1.0 and 0.2.0).
    """
    if not isinstance(result, dict):
        raise _malformed("result", "is not an object")
    version = result.get("cniVersion")
    if version is not None and not isinstance(version, str):
        raise _malformed("cniVersion", "is not a string")
    source, target = _family(version or assume or to), _family(to)
    try:
        value = _copy(result)
    except RecursionError:
        raise _malformed("result", "is nested too deeply") from None
    if source == 0:
        _check_020(value)
    else:
        _check_ips(value)
    if source == target:
        value.pop("cniVersion", None)
        return {"cniVersion": to, **value}
    # The middle family is the bridge between the other two: it has all keys that both have.
    if source != 1:
        value = _from_020(value) if source == 0 else _from_100(value)
    if target != 1:
        value = _to_020(value) if target == 0 else _to_100(value)
    return {"cniVersion": to, **value}


def addresses(result: Any) -> list[str]:
    """Give every address of a result of any version, with its prefix length; never raise.

    It is for display: malformed parts are left out.
    """
    if not isinstance(result, dict):
        return []
    blocks = [result.get("ip4"), result.get("ip6")]
    ips = result.get("ips")
    blocks += ips if isinstance(ips, list) else []
    found = [block.get("address", block.get("ip")) for block in blocks if isinstance(block, dict)]
    return [address for address in found if isinstance(address, str) and address]


def name_servers(result: Json, servers: list[str], search: list[str]) -> Json:
    """Give a result that names servers, and domains for short names; itself if it has servers.

    Only those are named that a default route of the container leads to.
    """
    given = result.get("dns") or {}
    if given.get("nameservers"):
        return result
    routes = default_routes(result)
    named = [s for s in servers if _DEFAULT_ROUTES[":" in s] in routes]
    if not named:
        return result
    domains = {"search": search} if search else {}
    return {**result, "dns": {**domains, **given, "nameservers": named}}


def default_routes(result: Json) -> set[str]:
    """List the destinations of the default routes: 0.0.0.0/0, ::/0, both or neither."""
    holders = [result, result.get("ip4") or {}, result.get("ip6") or {}]
    routes = {route["dst"] for holder in holders for route in holder.get("routes") or []}
    return routes.intersection(_DEFAULT_ROUTES)


def _family(version: str) -> int:
    try:
        return _FAMILY[version]
    except KeyError:
        message = "no converter for CNI result version"
        raise ShimError(INCOMPATIBLE_VERSION, message, f"version is {version[:200]!r}") from None


def _from_020(result: Json) -> Json:
    ips, routes = [], []
    for version in ("4", "6"):
        block = result.get(f"ip{version}") or {}
        if block:
            ip = {"version": version, "address": block["ip"], "gateway": block.get("gateway")}
            ips.append(_given(ip))
            routes += [_route(route) for route in block.get("routes") or []]
    value: Json = {}
    if ips:
        value["ips"] = ips
    if routes:
        value["routes"] = routes
    value["dns"] = result.get("dns") or {}
    return value


def _to_020(result: Json) -> Json:
    value: Json = {}
    for ip in result.get("ips") or []:
        key = f"ip{ip.get('version') or _ip_version(ip['address'])}"
        if key in ("ip4", "ip6") and key not in value:
            value[key] = _given({"ip": ip["address"], "gateway": ip.get("gateway")})
    if not value:
        raise ShimError(INCOMPATIBLE_VERSION, "cannot convert: no valid IP addresses")
    for route in result.get("routes") or []:
        block = value.get(f"ip{_ip_version(route['dst'])}")
        if block is not None:
            plain = _given({"dst": route["dst"], "gw": route.get("gw")})
            block.setdefault("routes", []).append(plain)
    value["dns"] = result.get("dns") or {}
    return value


def _from_100(result: Json) -> Json:
    value: Json = {}
    if result.get("interfaces"):
        value["interfaces"] = [
            _given({key: interface.get(key) for key in ("name", "mac", "sandbox")})
            for interface in result["interfaces"]
        ]
    if result.get("ips"):
        value["ips"] = [_ip({**ip, "version": _ip_version(ip["address"])}) for ip in result["ips"]]
    if result.get("routes"):
        value["routes"] = [_route(route) for route in result["routes"]]
    value["dns"] = result.get("dns") or {}
    return value


def _to_100(result: Json) -> Json:
    value: Json = {}
    if result.get("interfaces"):
        value["interfaces"] = result["interfaces"]
    if result.get("ips"):
        value["ips"] = [_ip({**ip, "version": None}) for ip in result["ips"]]
    if result.get("routes"):
        value["routes"] = [_route(route) for route in result["routes"]]
    if result.get("dns"):
        value["dns"] = result["dns"]
    return value


def _ip(ip: Json) -> Json:
    return _given({key: ip.get(key) for key in ("version", "interface", "address", "gateway")})


def _route(route: Json) -> Json:
    # The reference library has one route for all versions: mtu, table and the like stay.
    return {key: value for key, value in route.items() if key != "gw" or value}


def _given(value: Json) -> Json:
    # An empty text is an absent one in the reference library; 0 is an interface's index.
    return {key: item for key, item in value.items() if item is not None and item != ""}


def _ip_version(address: str) -> str:
    return "6" if ":" in address else "4"


def _check_020(result: Json) -> None:
    for key in ("ip4", "ip6"):
        block = result.get(key)
        if block is None:
            continue
        if not isinstance(block, dict):
            raise _malformed(key, "is not an object")
        _check_cidr(block.get("ip"), f"{key}.ip")
        _check_gateway(block, "gateway", key)
        _check_routes(block, f"{key}.")
    _check_dns(result)


def _check_ips(result: Json) -> None:
    for index, ip in enumerate(_list(result, "ips", "")):
        place = f"ips[{index}]"
        _check_cidr(ip.get("address"), f"{place}.address")
        _check_gateway(ip, "gateway", place)
        if ip.get("version", "4") not in ("4", "6", "", None):
            raise _malformed(f"{place}.version", 'is neither "4" nor "6"')
        index_value = ip.get("interface")
        if index_value is not None and type(index_value) is not int:
            raise _malformed(f"{place}.interface", "is not an integer")
    _list(result, "interfaces", "")
    _check_routes(result, "")
    _check_dns(result)


def _check_routes(holder: Json, prefix: str) -> None:
    for index, route in enumerate(_list(holder, "routes", prefix)):
        place = f"{prefix}routes[{index}]"
        _check_cidr(route.get("dst"), f"{place}.dst")
        _check_gateway(route, "gw", place)


def _check_gateway(holder: Json, key: str, place: str) -> None:
    gateway = holder.get(key)
    if gateway is not None and not isinstance(gateway, str):
        raise _malformed(f"{place}.{key}", "is not a string")


def _check_dns(result: Json) -> None:
    dns = result.get("dns")
    if dns is not None and not isinstance(dns, dict):
        raise _malformed("dns", "is not an object")


def _check_cidr(value: Any, place: str) -> None:
    if not isinstance(value, str):
        raise _malformed(place, "is missing" if value is None else "is not a string")
    address, _, prefix = value.partition("/")
    if not prefix:
        raise _malformed(place, f"{value[:80]!r} has no prefix length")
    longest = 128 if ":" in address else 32
    # More than three digits are never a prefix length, and int() of very many digits would raise.
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= longest):
        raise _malformed(place, f"{value[:80]!r} has an impossible prefix length")
    if not _is_address(address):
        raise _malformed(place, f"{value[:80]!r} is not an address")


def _is_address(address: str) -> bool:
    if ":" in address:
        return all(c in "0123456789abcdefABCDEF:." for c in address)
    parts = address.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts
    )


def _list(holder: Json, key: str, prefix: str) -> list[Json]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _malformed(f"{prefix}{key}", "is not a list")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise _malformed(f"{prefix}{key}[{index}]", "is not an object")
    return value


def _malformed(place: str, why: str) -> ShimError:
    return ShimError(DECODING_FAILURE, f"malformed result: {place} {why}")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
