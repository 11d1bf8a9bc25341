# SPDX-License-Identifier: Apache-2.0
"""A network of netavark as a configuration of the shim.

The options of the network say what the shim wraps: `conf` (a CNI network in a file), `type` (a CNI
plugin), or `driver` (a driver of netavark). Keys of the shim itself can be beside them. The
configuration is the one that a CNI runtime would send, so all later steps are the same for both.
"""

from __future__ import annotations

from ..errors import INVALID_NETWORK_CONFIG, UNSUPPORTED_FIELD, ShimError, in_few_words
from ..validate import addressing, conflist
from . import convert, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..decoding import Json
    from .shapes import Network

CNI_VERSION = "1.0.0"
# The options that say what to wrap, one for each way.
WAYS = ("conf", "type", "driver")
# IPAM drivers of netavark with which the caller allocates. "" is netavark's own default.
BY_CALLER = ("", "host-local")
# Capabilities that the caller can always offer to a plugin.
CAPABILITIES = {"aliases": True, "ips": True, "ipam": True, "mac": True, "portMappings": True}


# Plugins after which `portmap` can publish ports.
WITH_PORTS = ("bridge", "ptp")


def configuration(network: Network, environ: Mapping[str, str]) -> Json:
    """Make the configuration of the shim for a network, as it is for every container.

    Reads the file that `conf` names. Raises ShimError (code 7) with all problems at once.
    """
    made, problems = translate(network, environ)
    raise_all(network, problems)
    return made


def translate(network: Network, environ: Mapping[str, str]) -> tuple[Json, list[str]]:
    """Make the configuration as far as possible; give it and the problems there are.

    It is empty where no option says what to wrap, or the file cannot be read.
    """
    translation = _Translation(network, environ)
    made = translation.configuration()
    return made, [*translation.problems, *_disagreements(network)]


class _Translation:
    """One network during its translation, with the problems found so far."""

    def __init__(self, network: Network, environ: Mapping[str, str]) -> None:
        self._network = network
        self._environ = environ
        self._given = network.get("options", {})
        self.problems: list[str] = []
        own = {*options.OWN, *WAYS, "cniPath", "ipam"}
        if "driver" not in self._given:
            own.add("no_default_route")
        # The other options are for the plugin or driver that is wrapped.
        self._more = {key: text for key, text in self._given.items() if key not in own}

    def configuration(self) -> Json:
        ways = [way for way in WAYS if way in self._given]
        if len(ways) != 1:
            self.problems.append(
                "options: one of conf (a CNI network), type (a CNI plugin) and driver (a driver "
                f"of netavark) must say what is wrapped; there is {' and '.join(ways) or 'none'}"
            )
            return {}
        own = self._convert(
            {k: v for k, v in self._given.items() if k in options.OWN}, options.OWN
        )
        make = {"conf": self._from_conf, "type": self._from_type, "driver": self._from_driver}
        wrapped = make[ways[0]](self._given[ways[0]])
        if not wrapped:
            return {}
        for key in own.keys() & wrapped.keys():
            self.problems.append(f"options.{key}: is in the file that conf names, too")
        base = {"cniVersion": CNI_VERSION, "name": self._network["name"], "type": "netns-shim"}
        made = {**base, **wrapped, **own}
        if "names" not in made and self._network["dns_enabled"] and can_listen(made["plugins"]):
            made["names"] = True
        return made

    def _from_conf(self, wanted: str) -> Json:
        self._refuse([*self._more, *(["ipam"] if "ipam" in self._given else [])], "conf")
        if self._network.get("network_interface"):
            self.problems.append("network_interface: is not known beside conf")
        try:
            wrapped = conflist.load(wanted, self._environ)
        except ShimError as error:
            self.problems.append(f"options.conf: {error}")
            return {}
        first = [p for p in wrapped["plugins"] if "ipam" in p] or wrapped["plugins"][:1]
        for entry in first:
            self._name_servers(entry)
        if is_by_caller(self._network):
            # The caller's addresses replace those of the file.
            for entry in first:
                capabilities = entry.get("capabilities") or {}
                if isinstance(capabilities, dict):  # otherwise the schema refuses it
                    entry["capabilities"] = {**capabilities, "ipam": True}
        return wrapped

    def _from_type(self, kind: str) -> Json:
        if kind not in options.KEYS and self._more:
            known = ", ".join(options.KEYS)
            self.problems.append(
                f"options: those of {kind!r} are not known here (of {known} they are); "
                "write a CNI network and name it with conf"
            )
        entry: Json = {"type": kind, "capabilities": dict(CAPABILITIES)}
        is_open = not self._network["internal"]
        if kind == "bridge":
            # A server of names listens on the gateway, also of a network without a way out.
            wants_names = self._network["dns_enabled"] or self._given.get("names") == "true"
            entry |= {"isGateway": is_open or wants_names, "ipMasq": is_open}
        if kind == "ptp":
            entry |= {"ipMasq": is_open}
        if kind in options.KEYS:
            entry |= self._convert(self._more, options.KEYS[kind])
        interface = self._network.get("network_interface")
        if interface and kind in options.INTERFACE_KEYS:
            entry[options.INTERFACE_KEYS[kind]] = interface
        elif interface:
            self.problems.append(f"network_interface: the plugin {kind!r} has no key for it")
        plugin = self._given.get("ipam") or ipam_driver(self._network)
        if plugin not in ("none", *BY_CALLER):
            entry["ipam"] = {"type": plugin}
        self._name_servers(entry)
        entries = [entry]
        if kind == "ptp":
            # It takes no MAC, and Podman asks for the same one again in `network reload`.
            del entry["capabilities"]["mac"]
            entries.append({"type": "tuning", "capabilities": {"mac": True}})
        if kind in WITH_PORTS:
            entries.append({"type": "portmap", "capabilities": {"portMappings": True}})
        return {"plugins": entries}

    def _name_servers(self, entry: Json) -> None:
        """Have the result of a plugin name the servers of the network, if it has any."""
        if servers := self._network.get("network_dns_servers"):
            dns = entry.get("dns")
            entry["dns"] = {**(dns if isinstance(dns, dict) else {}), "nameservers": servers}

    def _from_driver(self, name: str) -> Json:
        self._refuse(["ipam"] if "ipam" in self._given else [], "driver")
        if name == self._network["driver"]:
            self.problems.append("options.driver: a driver cannot wrap itself")
        # Only the caller can give addresses: netavark has no other source of them.
        entry: Json = {"driver": name, "capabilities": dict(CAPABILITIES), "ipam": {}}
        if self._more:
            entry["options"] = self._more
        network: Mapping[str, object] = self._network
        for key in ("internal", "network_dns_servers", "network_interface", "routes", "subnets"):
            if network.get(key):
                entry[key] = network[key]
        return {"plugins": [entry]}

    def _refuse(self, keys: list[str], way: str) -> None:
        self.problems += [f"options.{key}: is not known beside {way}" for key in keys]

    def _convert(self, given: dict[str, str], table: options.Table) -> Json:
        converted, problems = options.convert(given, table)
        self.problems += problems
        return converted


def can_listen(entries: list[Json]) -> bool:
    """Tell whether a server of names finds a gateway to listen on, as far as that can be seen."""
    return any(
        entry.get("type") == "ptp"
        or (entry.get("driver") == "bridge" and not entry.get("dns_enabled"))
        or (
            entry.get("type") == "bridge"
            and bool(entry.get("isGateway") or entry.get("isDefaultGateway"))
        )
        for entry in entries
        if isinstance(entry, dict)
    )


def raise_all(network: Network, problems: list[str]) -> None:
    """Raise ShimError (code 7) with all of them, if there are any."""
    what = f"invalid network {network['name'][:60]!r}"
    if problems:
        raise ShimError(INVALID_NETWORK_CONFIG, *in_few_words(what, problems))


def cni_path(network: Network, environ: Mapping[str, str]) -> str:
    """Give the search path for CNI plugins: the option, the variable, or the default."""
    given = network.get("options", {})
    return given.get("cniPath") or environ.get("CNI_PATH") or ":".join(conflist.PLUGIN_DIRS)


def ipam_driver(network: Network) -> str:
    """Give the driver of netavark that allocates addresses; "" where it is netavark's default."""
    return network.get("ipam_options", {}).get("driver", "")


def is_by_caller(network: Network) -> bool:
    """Tell whether the caller allocates addresses, and gives them as `static_ips`."""
    return bool(network.get("subnets")) and ipam_driver(network) in BY_CALLER


def routes(network: Network, conf: Json, gateways: list[str]) -> list[Json]:
    """List the routes of a container whose addresses the caller has allocated.

    If the file that `conf` names has routes, those; else a default route for each family that has
    a gateway, unless the network is internal. The network's own routes are added.
    """
    # Values of a wrong kind in the file are refused later, with its other problems.
    entries = [p["ipam"] for p in conf["plugins"] if isinstance(p.get("ipam"), dict)]
    given = entries[0].get("routes") if entries else None
    found: list[Json] = [*given] if isinstance(given, list) else []
    wants_default = network.get("options", {}).get("no_default_route") != "true"
    if not found and wants_default and not network["internal"]:
        found = convert.default_routes(gateways)
    for route in network.get("routes", []):
        if route.get("route_type") not in (None, "unicast"):
            raise ShimError(
                UNSUPPORTED_FIELD,
                f"routes: CNI has no route of the type {route['route_type']!r}",
                route["destination"],
            )
        found.append(convert.to_cni_route(route))
    return found


def _disagreements(network: Network) -> Iterator[str]:
    """Find contradictions about who allocates addresses, and which."""
    subnets, given = network.get("subnets", []), network.get("options", {})
    allocator = ipam_driver(network)
    # A wrapped driver may allocate addresses itself.
    if subnets and not is_by_caller(network) and "driver" not in given:
        yield f"ipam_options.driver: {allocator!r} allocates nothing, but there are subnets"
    if not subnets and allocator not in ("none", *BY_CALLER) and "type" not in given:
        yield f"ipam_options.driver: {allocator!r} is not known beside conf and driver"
    if network.get("routes") and not is_by_caller(network) and "driver" not in given:
        yield "routes: cannot be passed on without subnets"
    for index, subnet in enumerate(subnets):
        for problem in addressing.subnet_problems(subnet):
            yield f"subnets[{index}].{problem}"
