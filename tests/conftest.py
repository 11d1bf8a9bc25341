# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests, and what becomes of those that need namespaces where there are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import bench
import pytest

from netns_shim import errors


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the bench."""
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker("netns")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test where it cannot run; fail it where skipping would hide something."""
    if item.get_closest_marker("netns") and (why := bench.unusable()):
        if os.environ.get("NETNS_SHIM_REQUIRE_NETNS") == "1":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Forget the warnings of a test: a process serves one call, but many tests."""
    yield
    errors.warnings.clear()


@pytest.fixture(scope="session")
def world() -> Iterator[bench.World]:
    """One machine for all tests."""
    with bench.World() as world:
        yield world


@pytest.fixture
def session(world: bench.World) -> Iterator[bench.Session]:
    """A user namespace of the test's own, with nothing left in the directories of the user."""
    with world.session() as session:
        yield session
    world.reset()


@pytest.fixture(scope="session")
def cnidrive(world: bench.World) -> str:
    """The path in the machine of a program that calls plugins through libcni."""
    program = "/opt/bench/cnidrive"
    shutil.copy(bench.build_cnidrive(), world.path(program))
    world.path(program).chmod(0o755)
    return program
