# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a network of CNI in a file: everything, each with its line.

Of the list that is what libcni and `cni` refuse, of the entries of the shim what `schema` does, in
the words that an ADD would have for it. What other plugins make of their entries is their own
business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import cni
from ..errors import ShimError
from . import conflist, explain
from .located import Place, Positions

if TYPE_CHECKING:
    from ..decoding import Json

Problem = tuple[Place, str]

# Keys of a list by which a runtime is told to leave out a verb.
FLAGS = ("disableCheck", "disableGC")


class Inspection:
    """A file that was looked at: `problems`, each a line and a sentence, and who is in it.

    `types` are those of its entries, `ours` is how many of them are the shim's.
    """

    def __init__(self, text: bytes, file: str, own_type: str) -> None:
        """Look at a text; `file` is its name, "" if it has none."""
        positions = Positions(text)
        self.problems = positions.problems
        self.types: list[str] = []
        self.ours = 0
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

    def _look_at_list(self, plugins: Any) -> Iterator[Problem]:
        if not isinstance(plugins, list):
            yield ("plugins",), "must be a list"
            return
        if not plugins:
            yield ("plugins",), "must not be empty"
        for index, entry in enumerate(plugins):
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
        if kind == self._own_type:
            self.ours += 1
            # As a runtime sends it; what it takes from the network has been looked at.
            sent = {**entry, "cniVersion": cni.CURRENT_VERSION, "name": "network"}
            for inner, why in explain.located(sent):
                yield (*place, *inner), why


def _of_network(conf: Json) -> Iterator[Problem]:
    """Find what is wrong with what a network has besides its plugins."""
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
