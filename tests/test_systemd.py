# SPDX-License-Identifier: Apache-2.0
"""netavark's name server on a machine where systemd runs, and may not answer this user."""

from __future__ import annotations

from collections.abc import Iterator

import bench
import pytest
import releases
from naming import ask, by_netavark, called
from runtime import Runtime

FAKES = "/opt/bench/systemd"
# As the real one for `--scope`; it says who has called it, and on which bus.
SYSTEMD_RUN = """#!/bin/sh
echo "$DBUS_SESSION_BUS_ADDRESS $*" >>"$HOME/systemd-run"
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.fixture(autouse=True)
def booted(world: bench.World) -> Iterator[None]:
    """Have a machine on which systemd runs, for others than this user."""
    directory = world.path("/run/systemd/system")
    directory.mkdir(parents=True)
    yield
    directory.rmdir()
    directory.parent.rmdir()


def named(session: bench.Session, directory: str, **more: str) -> tuple[str, str]:
    """Attach `alpha` to a network with names and detach it; give its address and the answer."""
    runtime = Runtime(session, delegate=by_netavark(directory), uplink="none")
    variables = {**called("alpha"), **more}
    with session.container() as container:
        result = runtime.add("c", container, **variables)
        answer = ask(container, "alpha")
        runtime.delete("c", container)
    return result["ips"][0]["address"].split("/")[0], answer


@pytest.mark.parametrize("release", releases.versions())
def test_no_manager(
    world: bench.World, session: bench.Session, netavark: dict[str, str], release: str
) -> None:
    """Where no service manager of the user answers, names resolve as without systemd."""
    address, answer = named(session, netavark[release])

    assert answer == address
    assert world.leftovers() == []


@pytest.mark.usefixtures("log_in")
@pytest.mark.parametrize(("status", "calls"), [(0, 1), (1, 0)])
def test_bus(
    world: bench.World, session: bench.Session, netavark: dict[str, str], status: int, calls: int
) -> None:
    """With a bus, the manager is asked; netavark gets it only if it answers, and its address."""
    world.path(FAKES).mkdir(exist_ok=True)
    script = f'#!/bin/sh\ncase "$*" in *get-property*) exit {status};; esac\n'
    for name, text in (("busctl", script), ("systemd-run", SYSTEMD_RUN)):
        world.path(f"{FAKES}/{name}").write_text(text)
        world.path(f"{FAKES}/{name}").chmod(0o755)
    world.run(["touch", f"{world.runtime_dir}/bus"], check=True)
    log = world.path(f"{world.env['HOME']}/systemd-run")
    log.unlink(missing_ok=True)
    environ = {"PATH": f"{FAKES}:{world.env['PATH']}", "HOME": world.env["HOME"]}

    address, answer = named(session, netavark["1.14.0"], **environ)

    assert answer == address
    lines = log.read_text().splitlines() if log.exists() else []
    assert len(lines) == calls
    assert all(line.startswith(f"unix:path={world.runtime_dir}/bus -q ") for line in lines)
    assert world.leftovers() == []
