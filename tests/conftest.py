# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests, and what becomes of those that need namespaces where there are none."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import bench
import kinder
import pytest
import releases
from gate import Gate
from hypothesis import HealthCheck, settings
from parts import Part, examples

from netns_shim import errors, interrupt

# The same examples in each run. `--hypothesis-profile=explore` makes others.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", PATIENT)
settings.register_profile("same", PATIENT, derandomize=True)
# Of the same examples the first third: for a release that is not the first one to be tested.
settings.register_profile("fewer", PATIENT, derandomize=True, max_examples=33)
settings.load_profile("same")

# Properties of tests that are shown at the end of the run: a text; how many of how many.
TOLD, SPREAD = "told", "spread"
WHOLE = "1/1"

# What takes longest begins first, so that no processor is idle while the last one works. A file
# belongs to one process, since what costs most in it is made once.
LONGEST = (
    *("test_kills", "test_ports", "test_documents", "test_pains", "test_fronts_and_backs"),
    *("test_doctor_state", "test_repair", "test_stand_in", "test_places", "test_doctor_programs"),
    *("test_mtu", "test_careless", "test_doctor_namespaces", "test_growth", "test_stress"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which CI shares the work among releases: see CONTRIBUTING.md."""
    text = "of so many parts of the points of sweeps, and of tests that are spread, visit one"
    parser.addoption("--part", default=WHOLE, metavar="NUMBER/OF", help=text)
    text = "of the other tests that need a machine of their own, run that part of them as well"
    parser.addoption("--thin", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Reset signals that the tests' caller ignores, as nohup(1) does, to those of a shell.

    Refuse a part that there is not, and have xdist leave the files in our order.
    """
    part_of(config)
    for number in interrupt.SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def part_of(config: pytest.Config) -> Part:
    """Tell which part of the points the run has. Raises UsageError where there is no such part."""
    try:
        return Part.read(config.getoption("--part"))
    except ValueError as error:
        raise pytest.UsageError(f"--part: {error}") from None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have told: how many crash points a sweep had, and what the run left out."""
    part = part_of(terminalreporter.config)
    many = of = 0
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", []):
                if name == TOLD and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
                elif name == SPREAD and report.when == "call":
                    many, of = many + value[0], of + value[1]
    if not part.is_whole:
        terminalreporter.write_line(
            f"{part} of the points of sweeps, and {many} of the {of} tests that are spread:"
            " see CONTRIBUTING.md"
        )
    if terminalreporter.config.getoption("--thin"):
        terminalreporter.write_line(f"{part} of the other tests that need a machine")
    if examples(100) < 100:
        terminalreporter.write_line(f"{examples(100)} of 100 random examples")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that asks for the bench, and put what takes longest first.

    Leave out what other parts have.
    """
    items.sort(key=lambda item: _rank(item.path))
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker("netns")
    part = part_of(config)
    if not part.is_whole:
        others = _others(part, items, is_thin=config.getoption("--thin"))
        config.hook.pytest_deselected(items=list(others))
        items[:] = [item for item in items if item not in others]


def _others(part: Part, items: list[pytest.Item], *, is_thin: bool) -> set[pytest.Item]:
    """List what other parts have: parameters of tests that are spread, and whole tests."""
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    others: set[pytest.Item] = set()
    for name, variants in tests.items():
        first = variants[0]
        if first.get_closest_marker("spread") and len(variants) >= part.of:
            chosen = part.take(variants, [name] * len(variants))
            chosen[0].user_properties.append((SPREAD, (len(chosen), len(variants))))
            others.update(set(variants).difference(chosen))
        elif is_thin and first.get_closest_marker("netns") and not _has_points(first):
            others.update(() if part.has(name) else variants)
    return others


def _has_points(item: pytest.Item) -> bool:
    """Tell whether a test visits its part of many points by itself."""
    return "part" in getattr(item, "fixturenames", ())


def _rank(path: Path) -> int:
    return LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test where it cannot run; fail it where skipping would hide something."""
    if item.get_closest_marker("netns") and (why := bench.unusable()):
        give_up(why)


def give_up(why: str) -> NoReturn:
    """Skip the test, or fail it where skipping would hide something."""
    if os.environ.get("NETNS_SHIM_REQUIRE_NETNS") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def part(request: pytest.FixtureRequest) -> Part:
    """Which part of the points of a sweep is visited."""
    return part_of(request.config)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say how much was done: a sweep that shrinks is to be seen, at the end of the run."""
    return lambda text: record_property(TOLD, text)


@pytest.fixture(autouse=True)
def one_call() -> Iterator[None]:
    """Forget the warnings and signal handlers of a test: a process serves one call, many tests."""
    handlers = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    yield
    errors.warnings.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave nothing of the user's to the next test, also where one has failed."""
    yield
    if "world" in request.fixturenames:
        request.getfixturevalue("world").reset()


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
    """A user namespace of the test's own."""
    for name in kinder.NAMES:
        if name in request.fixturenames:
            request.getfixturevalue(name)  # first, in whatever order the test names them
    with world.session() as session:
        yield session


@pytest.fixture
def plugins(world: bench.World, session: bench.Session) -> Path:
    """A directory for fake plugins, in which these can write."""
    directory = f"{world.env['HOME']}/plugins"
    session.run(["mkdir", directory], check=True)
    return session.path(directory)


@pytest.fixture
def gate(session: bench.Session) -> Iterator[Gate]:
    """A plugin that stops where it is told to."""
    with closing(Gate(session)) as gate:
        yield gate


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
