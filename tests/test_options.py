# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have are checked before anything is made."""

from __future__ import annotations

import bench
import pytest
from runtime import PLUGIN

RUN = [PLUGIN, "run", "--uplink", "none"]
UNSHARE = [PLUGIN, "unshare", "--netns", "default"]

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("command", [RUN, UNSHARE])
@pytest.mark.parametrize("path", ["run/openvswitch", "", "/run", "/"])
def test_paths_that_cannot_be_kept(
    world: bench.World, session: bench.Session, command: list[str], path: str
) -> None:
    """`--keep` takes what the key `keep` takes, and says what is wrong with others."""
    done = session.run([*command, "--keep", path, "--", "echo", "here"])

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"netns-shim: --keep: not to be kept: {path!r}: ")
    assert world.leftovers() == []


def test_path_that_is_not_there(world: bench.World, session: bench.Session) -> None:
    """A path that does not exist is a warning, as for the key: its daemon may begin later."""
    done = session.run([*RUN, "--keep", "/run/nobody", "--", "echo", "here"])

    assert done.stdout == "here\n"
    assert "--keep: /run/nobody is not there" in done.stderr
    assert world.leftovers() == []


def test_state_directory_by_a_relative_path(world: bench.World, session: bench.Session) -> None:
    """A state directory is what the path means where the command is called."""
    ask = f"cd /tmp && {PLUGIN} status --state-dir mine"
    script = (
        f"mkdir -m 700 /tmp/mine && cd /tmp/mine && {PLUGIN} run --uplink none --state-dir . -- "
    )
    done = session.run(["sh", "-euc", f"{script} sh -c '{ask}'"])

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("default\n")
    assert session.run(["sh", "-c", ask]).stdout == (
        "no shared network namespace is up (/tmp/mine)\n"
    )
    session.run(["rm", "-r", "/tmp/mine"], check=True)
