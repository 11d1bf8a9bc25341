# SPDX-License-Identifier: Apache-2.0
"""`netns-shim run`: a command in the shared netns, which is there as long as the command is."""

from __future__ import annotations

import os
import signal
import subprocess

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, kill, until

WAIT = ["sh", "-c", "echo ready; exec cat"]


def test_a_command_sees_the_shared_netns(world: bench.World, session: bench.Session) -> None:
    """Without any attachment the netns is made for the command and goes with it."""
    done = session.run([PLUGIN, "run", "--", "fetch", bench.PAGE_BEYOND])

    assert done.stdout == f"hello from the internet, you are {bench.HOST}\n"
    assert done.returncode == 0
    assert world.leftovers() == []


def test_programs_of_root_are_found(world: bench.World, session: bench.Session) -> None:
    """iptables and nft are found though a user's PATH has no sbin; what it has comes first."""
    script = "nft list ruleset; iptables -t nat -S; echo $PATH"
    env = {**session.env, "PATH": "/usr/bin:/bin:/opt"}
    run = [PLUGIN, "run", "--uplink", "none", "--"]
    done = session.run([*run, "sh", "-euc", script], env=env)

    assert done.returncode == 0, done.stderr
    more = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin"
    assert done.stdout.splitlines()[-1] == f"{env['PATH']}:{more}"
    assert session.run([*run, "nft", "--version"], env=env).returncode == 0
    assert world.leftovers() == []


@pytest.mark.usefixtures("log_in")  # /run/user stays visible there
def test_a_command_sees_the_mounts(world: bench.World, session: bench.Session) -> None:
    """The command has the /run and /var/lib/cni of the plugins and the netns's resolv.conf."""
    script = (
        "cat /etc/resolv.conf; touch /run/here /var/lib/cni/here; ls /run; echo $XDG_RUNTIME_DIR/*"
    )
    done = session.run([PLUGIN, "run", "--", "sh", "-euc", script], check=True)

    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "search example.test",
        "nameserver 169.254.1.1",
        f"nameserver {bench.PAGE}",
    ]
    assert "here" in lines
    assert lines[-1] == world.state_dir
    assert not session.path("/run/here").exists()
    assert world.leftovers() == []


def test_names_resolve(world: bench.World, session: bench.Session) -> None:
    """pasta forwards the queries of the netns to the host's name server."""
    script = f"import socket; print(socket.gethostbyname('{bench.NAME}'))"
    done = session.run([PLUGIN, "run", "--", "python3", "-c", script], check=True)

    assert done.stdout == f"{bench.PAGE_BEYOND}\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_status(
    world: bench.World, session: bench.Session, command: list[str], status: int
) -> None:
    """The exit status is the command's, as a shell gives it."""
    assert session.run([PLUGIN, "run", "--", *command]).returncode == status
    assert world.leftovers() == []


def test_signals_are_forwarded(world: bench.World, session: bench.Session) -> None:
    """A signal sent to netns-shim ends the command, which may have something to say first."""
    script = "trap 'echo caught; exit 3' TERM; echo $$; while :; do read -t 1 line || :; done"
    argv = [PLUGIN, "run", "--uplink", "none", "--", "bash", "-c", script]
    child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    inner = int(child.stdout.readline())
    (reference,) = Runtime(session).status()[0]["commands"]

    os.kill(reference["pid"], signal.SIGTERM)

    assert child.communicate(timeout=20)[0] == "caught\n"
    assert child.returncode == 3
    assert not os.path.exists(f"/proc/{inner}")
    assert world.leftovers() == []


def test_the_reference_is_gone_even_when_it_is_killed(
    world: bench.World, session: bench.Session
) -> None:
    """Killed with SIGKILL, it leaves neither the command nor the reference nor the netns."""
    argv = [PLUGIN, "run", "--", *WAIT]
    child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    (reference,) = Runtime(session).status()[0]["commands"]
    assert reference["command"] == WAIT

    kill(reference["pid"])

    assert until(lambda: world.leftovers() == [])
    assert Runtime(session).status() == []


def test_an_attachment_and_a_command_share_the_netns(
    world: bench.World, session: bench.Session
) -> None:
    """Each of them keeps the netns for itself when the other one goes."""
    runtime = Runtime(session, delegate=bridge())
    argv = [PLUGIN, "run", "--", *WAIT]
    with session.container() as container:
        child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        runtime.add("c", container)
        (netns,) = runtime.status()
        child.communicate()
        assert runtime.status()[0]["commands"] == []
        assert runtime.status()[0]["uplink"] == netns["uplink"]

        child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        runtime.delete("c", container)
        assert runtime.status()[0]["references"] == []
        child.communicate()
    assert world.leftovers() == []


def test_mistyped_netns(world: bench.World, session: bench.Session) -> None:
    """A new netns with nearly the name of one that is up is said to be new; another is not."""
    run = [PLUGIN, "run", "--uplink", "none", "--netns"]
    with session.popen([*run, "tunnel", "--", *WAIT], stdin=-1, stdout=-1) as child:
        assert child.stdout.readline() == "ready\n"
        said = [session.run([*run, name, "--", "true"]) for name in ("tunel", "tunnel", "web")]
        child.communicate()

    assert [done.returncode for done in said] == [0, 0, 0]
    assert [done.stderr for done in said] == [
        "netns-shim: the shared netns 'tunel' is new; did you mean 'tunnel'?\n",
        "",
        "",
    ]
    assert until(lambda: world.leftovers() == [])


def test_explain_makes_nothing(world: bench.World, session: bench.Session) -> None:
    """--explain lists the mounts and does nothing."""
    done = session.run([PLUGIN, "run", "--explain"], check=True)

    state = f"{world.state_dir}/default"
    assert done.stdout.splitlines()[0] == f"bind {state}/run on /run"
    assert not session.path(world.state_dir).exists()


def test_without_a_command(session: bench.Session) -> None:
    """Without a command it says so, as for any other wrong argument."""
    done = session.run([PLUGIN, "run"])

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "netns-shim run: error: no command is given: put it behind --"
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [["run", "--uplink", "none"], ["unshare"]])
def test_closed_streams(world: bench.World, words: list[str], closed: str) -> None:
    """A caller without some of the streams, as a service can be, gets the command's exit status.

    The command takes long enough for us to become a smaller process meanwhile.
    """
    command = ["sh", "-c", "timeout 1.3 sh -c 'kill -STOP $$'; exit 7"]

    done = world.run(["bash", "-c", f'"$@" {closed}', "bash", PLUGIN, *words, "--", *command])

    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    assert world.leftovers() == []


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["gc"], ["graph"], ["doctor"]]
)
def test_commands_without_streams(world: bench.World, words: list[str]) -> None:
    """What a command prints is lost where its caller has closed the streams, and nothing else."""
    done = world.run(["bash", "-c", '"$@" <&- >&- 2>&-', "bash", PLUGIN, *words])

    assert done.returncode == 0 or words == ["doctor"]
    assert (done.stdout, done.stderr) == ("", "")
