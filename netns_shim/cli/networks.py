# SPDX-License-Identifier: Apache-2.0
"""All that is wrong with a network in a file, be it of CNI or of netavark, as Podman keeps it.

Of a network of netavark it reports what `create` refuses, in the same words.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from ..netavark import document, network, options, wire
from ..validate import drivers, explain, plugins, subnets
from ..validate.document import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..decoding import Json
    from ..validate.document import Problem
    from ..validate.semantic import Place

# Drivers that netavark has itself: a network of theirs does not run through the shim.
BUILT_IN = ("bridge", "macvlan", "ipvlan")
# The place that a sentence begins with, such as `subnets[0].subnet`.
_PLACE = re.compile(r"([A-Za-z_]\w*(?:\.\w+|\[\d+\])*): ")


class NetworkFindings(Findings):
    """What is wrong with a network in a file, of either kind."""

    def _look(self, conf: Any, file: str) -> Iterator[Problem]:
        if not _is_of_netavark(conf):
            yield from super()._look(conf, file)
            return
        conf = document.settled(conf)
        if problems := document.problems(conf, "network"):
            yield from map(_taken_apart, problems)
            return
        if conf["driver"] in BUILT_IN:
            self.types.append(conf["driver"])
            return
        self.ours += 1
        wanted = wire.decode_network(json.dumps(conf).encode())
        made, sentences = network.translate(wanted, os.environ)
        for sentence in [*sentences, *(explain.problems(made) if made else ())]:
            yield _taken_apart(sentence)
        self.segments += subnets.segments(made, conf["name"]) if made else []
        for entry in made.get("plugins", ()) if "conf" not in conf["options"] else ():
            yield from self._look_at_translated(entry)

    def _look_at_translated(self, entry: Json) -> Iterator[Problem]:
        kind = str(entry.get("type", ""))
        if kind and kind not in plugins.PLUGINS:
            self.unknown.append(kind)
        for place, why in plugins.problems(entry):
            is_name = place == (options.INTERFACE_KEYS.get(kind),)
            yield (("network_interface",) if is_name else ("options", *place)), why
        for place, why in drivers.problems(entry):
            yield (("options", "driver") if place == ("driver",) else place), why


def _is_of_netavark(conf: Any) -> bool:
    return isinstance(conf, dict) and "driver" in conf and not conf.keys() & {"type", "plugins"}


def _taken_apart(sentence: str) -> Problem:
    """Take a sentence that begins with a place apart."""
    found = _PLACE.match(sentence)
    if not found:
        return (), sentence
    parts = re.findall(r"\w+", found[1])
    place: Place = tuple(int(part) if part.isdigit() else part for part in parts)
    return place, sentence[found.end() :]
