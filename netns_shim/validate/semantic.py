# SPDX-License-Identifier: Apache-2.0
"""The rules of a configuration that no schema can express, because they compare two places."""

from __future__ import annotations

from .. import encoding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..decoding import Json

Place = tuple[str | int, ...]
Problem = tuple[Place, str]

# The name that `install` gives the plugin.
OWN_TYPE = "netns-shim"
WHOLE_NETWORK = (
    "this is a whole network: a plugin is given one entry of it, with cniVersion and name added"
)


def beyond_schema(conf: Json) -> Iterator[Problem]:
    """List the problems of an object that the schema cannot find."""
    types = list(_delegated_types(conf))
    for place, value in types:
        if value == conf.get("type"):
            yield place, "a plugin cannot delegate to itself"
    if "type" not in conf and any(entry.get("type") == OWN_TYPE for _, entry in entries(conf)):
        # It would run itself inside itself.
        yield ("plugins",), WHOLE_NETWORK
    for place, entry in entries(conf):
        if "driver" in entry:
            yield from _beyond_driver(place, entry)
    yield from beyond_keep(conf.get("keep"))
    yield from _beyond_publish(conf.get("publish"), conf.get("uplink"))
    uplink = conf.get("uplink")
    texts: list[tuple[Place, Any]] = [*types, (("stateDir",), conf.get("stateDir"))]
    if isinstance(uplink, dict):
        texts.append((("uplink", "path"), uplink.get("path")))
        options = uplink.get("options")
        if isinstance(options, list):
            texts += [(("uplink", "options", i), option) for i, option in enumerate(options)]
            if "--" in options:
                # What comes behind it, getopt(3) takes for a command to run.
                yield ("uplink", "options", options.index("--")), '"--" is not an option'
    for key in ("keep", "pluginDirs"):
        paths = conf.get(key)
        if isinstance(paths, list):
            texts += [((key, index), path) for index, path in enumerate(paths)]
    texts += [
        ((*place, "path"), entry.get("path"))
        for place, entry in entries(conf)
        if "driver" in entry
    ]
    for place, text in texts:
        # JSON can say "\ud800"; no file name and no command line argument can.
        if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
            yield place, f"{show(text)} holds half a surrogate pair, which is no character"


def _beyond_driver(place: Place, entry: Json) -> Iterator[Problem]:
    """Find what is wrong with the addresses of a driver of netavark, and its names."""
    if entry.get("dns_enabled") is True and entry["driver"] != "bridge":
        yield (*place, "dns_enabled"), "names are resolved for the driver bridge only"
    subnets = entry.get("subnets")
    if not isinstance(subnets, list):
        return
    from . import addressing  # few configurations have subnets

    for index, subnet in enumerate(subnets):
        try:
            wrong = list(addressing.subnet_problems(subnet))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue  # it breaks the schema
        for problem in wrong:
            yield (*place, "subnets", index), problem


def beyond_keep(keep: Any) -> Iterator[Problem]:
    """Find paths that contain all of the /run that plugins have of their own."""
    for index, path in enumerate(keep if isinstance(keep, list) else []):
        if isinstance(path, str) and path.strip("/") in ("", "run", "var/run"):
            yield ("keep", index), "plugins need a /run of their own: name a path in it"


def _beyond_publish(publish: Any, uplink: Any) -> Iterator[Problem]:
    """Find what is wrong with the ports of the shared netns that are to be published."""
    if not isinstance(publish, list):
        return
    if publish and (uplink.get("driver") if isinstance(uplink, dict) else uplink) == "none":
        # Without a default route, an answer from the netns itself finds no way out.
        yield ("publish",), 'ports of the netns itself need an uplink, and that is "none"'
    from ..ports import listed  # imports `re`, and few configurations have such a list

    for index, text in enumerate(publish):
        if isinstance(text, str):
            try:
                listed.parse(text)
            except ValueError as error:
                yield ("publish", index), str(error)


def entries(conf: Json) -> Iterator[tuple[Place, Json]]:
    """List the plugins that an entry of the shim delegates to, with the place of each."""
    places: list[tuple[Place, Any]] = [(("delegate",), conf.get("delegate"))]
    plugins = conf.get("plugins")
    if isinstance(plugins, list):
        places += [(("plugins", index), plugin) for index, plugin in enumerate(plugins)]
    return ((place, entry) for place, entry in places if isinstance(entry, dict))


def _delegated_types(conf: Json) -> Iterator[Problem]:
    for place, plugin in entries(conf):
        ipam = plugin.get("ipam")
        for key in ("driver", "type"):
            if isinstance(plugin.get(key), str):
                yield (*place, key), plugin[key]
        if isinstance(ipam, dict) and isinstance(ipam.get("type"), str):
            yield (*place, "ipam", "type"), ipam["type"]


def show(value: Any) -> str:
    """Write a value for people, in short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    # 1e999 is JSON, and what Python reads is not.
    text = repr(value) if isinstance(value, float) else encoding.compact(value)
    return text if len(text) <= 60 else text[:60] + "…"
