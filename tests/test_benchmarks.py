# SPDX-License-Identifier: Apache-2.0
"""What benchmarks start by hand, beside the shim, still starts."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench
import pytest
from runtime import page

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.usefixtures("log_in")
@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_bare_uplink(
    world: bench.World, session: bench.Session, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """An uplink without the shim leads to the outside, and ends."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    links: Any = importlib.import_module("links")
    stage: Any = importlib.import_module("stage")
    started = SimpleNamespace(
        world=world,
        session=session,
        pasta_usage=session.run([stage.PASTA, "--help"]).stdout,
        state_dir=lambda name: f"{world.runtime_dir}/{name}",
    )
    started.pasta = lambda options, state: stage.Stage.pasta(started, options, state)
    with links.bare_uplink(started, driver, 1500) as container:
        assert page(container, bench.PAGE)

    assert world.leftovers() == []
