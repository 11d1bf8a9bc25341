# SPDX-License-Identifier: Apache-2.0
"""Making a network of netavark (`create`): check it as a whole, and complete it.

It checks all that a setup will need and that can be known before: options, files, plugins. It
completes what other programs rely on: who allocates addresses, gateways, names.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

from .. import cni, conf, invoke, netns
from ..errors import ShimError, warn
from ..names import server
from ..netavark import driver, network, pool, program, translate, wire
from ..validate import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..decoding import Json
    from ..netavark.shapes import Network


def complete(wanted: Network, environ: Mapping[str, str]) -> str:
    """Give the network as JSON; its name, ID and driver stay the same.

    Raises ShimError (code 7) with all problems at once.
    """
    configuration, problems = network.translate(wanted, environ)
    if configuration:
        # In a configuration of a wrong shape we cannot tell what is missing.
        problems += explain.problems(configuration) or _missing(wanted, configuration, environ)
    network.raise_all(wanted, problems)
    entry = configuration["plugins"][0]
    if configuration.get("enter") == "always" and not netns.is_initial_userns():
        warn(
            "enter=always fails from the second container on where Podman is rootless: each of "
            "its calls is in a mount namespace of its own"
        )
    made = wanted.copy()
    if "driver" in entry and not translate.is_built_in(entry):
        made = _by_driver(made, entry, configuration, environ)
    # A driver that allocates addresses itself has said so by now.
    if network.ipam_driver(made) == network.ipam_driver(wanted):
        if _wants_subnets(made, entry):
            chosen = pool.choose(made["id"], environ, has_ipv6=made["ipv6_enabled"])
            made["subnets"] = [{"subnet": subnet} for subnet in chosen]
        _complete_addresses(made, has_names=configuration.get("names") is True)
    _complete_names(made, configuration, environ)
    return json.dumps(made)


def _missing(wanted: Network, configuration: Json, environ: Mapping[str, str]) -> Iterator[str]:
    """Find plugins, drivers and IPAM plugins that are not installed."""
    path = network.cni_path(wanted, environ)
    for entry in configuration.get("plugins", []):
        try:
            if "driver" in entry:
                program.find(entry, configuration.get("pluginDirs") or [], environ)
            elif program.is_shim(invoke.find(str(entry.get("type")), path)):
                yield f"the plugin {entry['type']!r} is netns-shim itself"
        except ShimError as error:
            yield str(error)
        if network.is_by_caller(wanted) and _takes_ipam(entry):
            ipam = "static" if "type" in entry else ""
        else:
            given = entry.get("ipam")  # a CNI plugin may have any value here
            ipam = given.get("type", "") if isinstance(given, dict) else ""
        try:
            if ipam:
                invoke.find(ipam, path)
        except ShimError as error:
            yield str(error)


def _takes_ipam(entry: Json) -> bool:
    capabilities = entry.get("capabilities")
    return isinstance(capabilities, dict) and capabilities.get("ipam") is True


def _by_driver(
    made: Network, entry: Json, configuration: Json, environ: Mapping[str, str]
) -> Network:
    """Let a wrapped plugin of netavark complete the network first."""
    options = entry.get("options") or {}
    asked: Network = {**made, "driver": entry["driver"], "options": options}
    text = driver.create(entry, conf.read(configuration), environ, asked)
    theirs = wire.decode_network(text)
    ours = {key: text for key, text in made["options"].items() if key not in options}
    return {
        **theirs,
        "name": made["name"],
        "id": made["id"],
        "driver": made["driver"],
        "options": {**theirs.get("options", {}), **ours},
    }


def _wants_subnets(made: Network, entry: Json) -> bool:
    """Tell whether a network is to get subnets: a bridge or a ptp without any, as Podman's own.

    With an IPAM plugin, that allocates addresses.
    """
    by_caller = network.ipam_driver(made) in network.BY_CALLER
    if made.get("subnets") or not by_caller or "conf" in made["options"]:
        return False
    if "driver" in entry:
        return bool(entry["driver"] == "bridge")
    return entry["type"] in network.WITH_PORTS and "ipam" not in entry


def _complete_addresses(made: Network, *, has_names: bool) -> None:
    """Settle who allocates: the caller if there are subnets, else the wrapped plugin.

    Where a network has names, their server listens on its gateway, also if that leads nowhere.
    """
    named = network.ipam_driver(made)
    if made.get("subnets"):
        allocator = "host-local"
        made["ipv6_enabled"] = made["ipv6_enabled"] or any(
            ":" in subnet["subnet"] for subnet in made["subnets"]
        )
        for subnet in made["subnets"]:
            if not subnet.get("gateway") and (has_names or not made["internal"]):
                hosts = ipaddress.ip_network(subnet["subnet"], strict=False)
                if hosts.num_addresses > 1:
                    subnet["gateway"] = str(hosts[1])
    else:
        allocator = "none"
        if named not in ("none", *network.BY_CALLER) and "type" in made["options"]:
            made["options"] = {"ipam": named, **made["options"]}
        elif "type" in made["options"] and "ipam" not in made["options"] and named != "none":
            warn("the network has no addresses: give it a subnet, or an IPAM plugin with ipam=")
    made["ipam_options"] = {**made.get("ipam_options", {}), "driver": allocator}


def _complete_names(made: Network, configuration: Json, environ: Mapping[str, str]) -> None:
    """Settle whether names resolve: by us, or by netavark where its own key says so."""
    entry = configuration["plugins"][0]
    kind = entry.get("type") or entry["driver"]
    if kind == "bridge" and "conf" not in made["options"] and not made.get("network_interface"):
        made["network_interface"] = f"cni-{made['id']}"[: cni.IFNAMSIZ - 4]
    if entry.get("dns_enabled"):  # in the file that `conf` names
        found, has_names = program.aardvark(program.find(entry, [], environ)), True
    else:
        found, has_names = _server(environ), configuration.get("names") is True
    if has_names and not found:
        warn("names of containers will not resolve: aardvark-dns is not installed")
    made["dns_enabled"] = has_names and bool(found)


def _server(environ: Mapping[str, str]) -> str:
    try:
        return server.find(environ)
    except ShimError:
        return ""
