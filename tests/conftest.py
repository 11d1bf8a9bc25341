# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests, and what becomes of those that need namespaces where there are none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import bench
import kinder
import pytest
import releases
from hypothesis import HealthCheck, settings

from netns_shim import errors, interrupt

# The same examples in each run. `--hypothesis-profile=explore` makes others.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", PATIENT)
settings.register_profile("same", PATIENT, derandomize=True)
settings.load_profile("same")

# The property of a test that is shown at the end of the run.
TOLD = "told"


def pytest_configure() -> None:
    """Reset signals that the tests' caller ignores, as nohup(1) does, to those of a shell."""
    for number in interrupt.SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have told: how many crash points a sweep had."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in getattr(report, "user_properties", []):
            if name == TOLD and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {text}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the bench."""
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker("netns")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test where it cannot run; fail it where skipping would hide something."""
    if item.get_closest_marker("netns") and (why := bench.unusable()):
        give_up(why)


def give_up(why: str) -> NoReturn:
    """Skip the test, or fail it where skipping would hide something."""
    if os.environ.get("NETNS_SHIM_REQUIRE_NETNS") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(autouse=True)
def one_call() -> Iterator[None]:
    """Forget the warnings and signal handlers of a test: a process serves one call, many tests."""
    handlers = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    yield
    errors.warnings.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def world() -> Iterator[bench.World]:
    """One machine for all tests."""
    with bench.World() as world:
        yield world


@pytest.fixture
def log_in(world: bench.World) -> Iterator[None]:
    """After a log-in of the user."""
    with kinder.log_in(world):
        yield


@pytest.fixture
def libcni_cache(world: bench.World) -> Iterator[None]:
    """With a /var/lib/cni that libcni can write to."""
    with kinder.libcni_cache(world):
        yield


@pytest.fixture
def answered_pings(world: bench.World) -> Iterator[None]:
    """With ping sockets for everybody."""
    with kinder.answered_pings(world):
        yield


@pytest.fixture
def just_up(world: bench.World) -> Iterator[None]:
    """A moment after the host's network came up."""
    with kinder.just_up(world):
        yield


@pytest.fixture
def session(request: pytest.FixtureRequest, world: bench.World) -> Iterator[bench.Session]:
    """A user namespace of the test's own, with nothing left in the directories of the user."""
    for name in kinder.NAMES:
        if name in request.fixturenames:
            request.getfixturevalue(name)  # first, in whatever order the test names them
    with world.session() as session:
        yield session
    world.reset()


@pytest.fixture(scope="session")
def cnidrive(world: bench.World) -> str:
    """The path in the machine of a program that calls plugins through libcni."""
    world.provide(bench.build_cnidrive(), "cnidrive")
    return f"{bench.TYPED}/cnidrive"


@pytest.fixture(scope="session")
def netavark(world: bench.World) -> dict[str, str]:
    """The directories in the machine of netavark and aardvark-dns, by the version of netavark."""
    places = {version: f"/opt/netavark-{version}" for version in releases.versions()}
    for version, place in places.items():
        try:
            releases.install(version, world.path(place))
        except OSError as error:
            give_up(f"no netavark {version}: {error}")
        world.root.run(["chmod", "-R", "a+rX", place], check=True)
    return places
