# SPDX-License-Identifier: Apache-2.0
"""All that is wrong with a CNI network in a file, each problem with its line.

In the list it reports what libcni and `cni` refuse, in the shim's entries what `explain` refuses,
in the same words as an ADD, and in the entries of other plugins what `plugins` knows to be wrong.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import cni
from ..errors import ShimError
from . import conflist, drivers, explain, plugins, semantic, subnets
from .located import Place, Positions

if TYPE_CHECKING:
    from ..decoding import Json

Problem = tuple[Place, str]

# Keys of a list that tell a runtime to leave out a verb.
FLAGS = ("disableCheck", "disableGC")


class Findings:
    """What was found in a file: its `problems`, each a line number and a sentence.

    `types` are the types of its entries, `ours` is how many of them belong to the shim, and
    `unknown` are the types whose keys nothing is known of, `segments` what its plugins make.
    """

    def __init__(self, text: bytes, file: str, own_type: str) -> None:
        """Look at a text; `file` is its name, "" if it has none."""
        positions = Positions(text)
        self.problems = positions.problems
        self.types: list[str] = []
        self.ours = 0
        self.unknown: list[str] = []
        self.segments: list[subnets.Segment] = []
        self._network = ""
        self._own_type = own_type
        if positions.is_read:
            for place, why in self._look(positions.value, file):
                self.problems.append((positions.line(place), _sentence(place, why)))
        self.problems.sort(key=lambda problem: problem[0])

    def _look(self, conf: Any, file: str) -> Iterator[Problem]:
        if not isinstance(conf, dict):
            yield (), "it is not a JSON object"
            return
        yield from _of_network(conf)
        self._network = str(conf.get("name", ""))
        if "type" in conf:
            yield from self._look_at_entry(conf, ())
            if file.endswith(".conflist"):
                yield (), "one plugin alone, not a list: runtimes read that from .conf or .json"
        elif "plugins" in conf:
            yield from self._look_at_list(conf["plugins"])
            if os.path.splitext(file)[1] in (".conf", ".json"):
                yield (), "a list of plugins: runtimes read that from a file named .conflist"
        else:
            yield (), "neither a list of plugins ('plugins') nor a plugin ('type')"

    def _look_at_list(self, entries: Any) -> Iterator[Problem]:
        if not isinstance(entries, list):
            yield ("plugins",), "must be a list"
            return
        if not entries:
            yield ("plugins",), "must not be empty"
        for index, entry in enumerate(entries):
            yield from self._look_at_entry(entry, ("plugins", index))

    def _look_at_entry(self, entry: Any, place: Place) -> Iterator[Problem]:
        if not isinstance(entry, dict):
            yield place, "must be an object"
            return
        kind = entry.get("type")
        if not isinstance(kind, str) or not kind:
            yield (*place, "type"), "must be the name of a plugin"
            return
        self.types.append(kind)
        if kind != self._own_type and _sounds_like(kind, self._own_type):
            yield (*place, "type"), f"no plugin has this name; did you mean '{self._own_type}'?"
        if kind == self._own_type:
            self.ours += 1
            # As a runtime sends it; the network's own keys have already been checked.
            sent = {**entry, "cniVersion": cni.CURRENT_VERSION, "name": "network"}
            for inner, why in explain.located(sent):
                yield (*place, *inner), why
            named = entry.get("capabilities")
            if isinstance(named, dict) and (why := plugins.capabilities(named)):
                yield (*place, "capabilities"), why
            self.segments += subnets.segments(entry, self._network)
            for why in subnets.with_uplink(entry, self._network):
                yield place, why
            for inner, delegated in semantic.entries(entry):
                yield from self._look_at_plugin(delegated, (*place, *inner))
        else:
            yield from self._look_at_plugin(entry, place)

    def _look_at_plugin(self, entry: Json, place: Place) -> Iterator[Problem]:
        kind = entry.get("type")
        if isinstance(kind, str) and kind not in plugins.PLUGINS:
            self.unknown.append(kind)
        ipam = entry.get("ipam")
        kind = ipam.get("type") if isinstance(ipam, dict) else None
        if isinstance(kind, str) and kind and kind not in plugins.IPAMS:
            self.unknown.append(kind)
        for inner, why in (*plugins.problems(entry), *drivers.problems(entry)):
            yield (*place, *inner), why


def _sounds_like(kind: str, own_type: str) -> bool:
    """Tell whether a type was meant to be that of the shim, and is mistyped.

    It may be installed under another name on purpose, such as netns-shim-2.
    """
    return own_type not in kind and bool(
        difflib.get_close_matches(kind.lower(), [own_type], cutoff=0.8)
    )


def _of_network(conf: Json) -> Iterator[Problem]:
    """Find what is wrong with the keys of a network besides its plugins."""
    try:
        conflist.version(conf)
    except ShimError as error:
        yield ("cniVersion",), str(error)
    try:
        cni.network_name(conf)
    except ShimError as error:
        yield ("name",), str(error)
    for key in FLAGS:
        value = conf.get(key, False)
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
            yield (key,), "must be true or false"


def _sentence(place: Place, why: str) -> str:
    return f"{explain.show_place(place)}: {why}" if place else why
