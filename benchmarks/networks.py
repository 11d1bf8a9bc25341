# SPDX-License-Identifier: Apache-2.0
"""The networks that the figures use, with the shim and without, and calls of the shim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bench
from stage import Stage

Json = dict[str, Any]

VERBS = ("ADD", "DEL")


def plugin_path(type_: str) -> str:
    """Tell where a plugin is."""
    return f"{bench.World.plugin_dir}/{type_}"


def shim(name: str, **keys: Any) -> Json:
    """Configure the shim, as libcni gives it to a plugin."""
    return {"cniVersion": "1.0.0", "name": name, "type": "netns-shim", **keys}


def plain(name: str, entry: Json, **more: Any) -> Json:
    """Configure a plugin without the shim."""
    return {"cniVersion": "1.0.0", "name": name, **entry, **more}


def call(stage: Stage, verb: str, conf: Json, number: int = 0, **more: Any) -> list[Json]:
    """Give the one step of a call of the shim."""
    return [stage.step(verb, conf, number, **more)]


@contextmanager
def warmed(stage: Stage, conf: Json, number: int = 0, **more: Any) -> Iterator[None]:
    """Keep a container attached, so that the shared netns is up, and no call is first or last.

    What is measured has the other containers.
    """
    stage.outside.run(call(stage, "ADD", conf, number, **more))
    try:
        yield
    finally:
        stage.outside.run(call(stage, "DEL", conf, number, **more))
