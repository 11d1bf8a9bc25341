# SPDX-License-Identifier: Apache-2.0
"""Uplinks: how they are told what to do, started, found and ended."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
from runtime import until

from netns_shim import errors, invoke
from netns_shim.errors import ShimError
from netns_shim.proc import start_time
from netns_shim.shared import background, connect, resolvconf, uplink
from netns_shim.shared.pasta import Pasta
from netns_shim.shared.processes import stop, stray
from netns_shim.shared.slirp4netns import Slirp4netns
from netns_shim.shared.uplink import Nothing
from netns_shim.state import State

FORWARDER, FORWARDER6 = "169.254.1.1", "fd6e:7368:696d::53"
USAGE = "--disable-host-loopback --mtu=MTU --enable-sandbox --enable-seccomp --enable-ipv6"


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the host's resolv.conf into a file of the test's own."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(resolvconf, "RESOLV_CONF", str(path))
    monkeypatch.setattr(resolvconf, "BEHIND_STUBS", ())
    monkeypatch.setattr(resolvconf, "is_below", lambda *_: True)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state directory; what was started for it ends with the test."""
    where = State(str(tmp_path), "default")
    os.mkdir(where.dir)
    yield where
    for pid, since in stray(where):
        stop(pid, since)


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory with both uplinks."""
    path = tmp_path / "bin"
    path.mkdir()
    fakes.executable(path / "pasta", fakes.PASTA)
    fakes.executable(path / "slirp4netns", fakes.SLIRP4NETNS)
    (path / "usage").write_text(USAGE)
    return path


def failure(call: Any, *arguments: Any) -> ShimError:
    """Return the error that a call must end in."""
    with pytest.raises(ShimError) as caught:
        call(*arguments)
    return caught.value


def slirp(bin_dir: Path, *options: str) -> Slirp4netns:
    """Return the fake slirp4netns with some options."""
    return Slirp4netns(str(bin_dir / "slirp4netns"), list(options))


def pasta(bin_dir: Path, *options: str) -> Pasta:
    """Return the fake pasta with some options."""
    return Pasta(str(bin_dir / "pasta"), list(options))


def test_arguments_of_pasta(state: State) -> None:
    """Without options nothing is forwarded into the netns, and the host is not exposed."""
    assert Pasta("/missing/pasta", []).command(state) == [
        *("/missing/pasta", "--config-net", "-I", "tap0", "-i", "lo"),
        *("-a", "198.19.110.114", "-n", "30", "-g", "198.19.110.113"),
        *("-a", "fd6e:6574:6e73:1::2", "-g", "fe80::1", "-M", "9a:55:9a:55:9a:55"),
        "--foreground",
        *("--pid", f"{state.dir}/uplink.pid"),
        *("--dns-forward", FORWARDER, "--dns-forward", FORWARDER6),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--no-map-gw", "--quiet"),
        *("--log-file", f"{state.dir}/uplink.log"),
        *("--netns", state.pin),
        *("--map-guest-addr", "169.254.1.2"),
        *("--dns-host", "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("options", "absent", "present"),
    [
        (["-4"], [], ["-4", "-t"]),
        (["--dns-forward", "192.0.2.1"], ["169.254.1.1"], ["192.0.2.1"]),
        (["--dns-forward=192.0.2.1"], ["169.254.1.1", "--dns-forward"], []),
        (["-t", "auto"], [], ["auto"]),
        (["-tauto"], ["-t"], ["-tauto", "-u", "-T", "-U"]),
        (["--tcp-ports", "80"], ["-t"], ["-u", "-T", "-U"]),
        (["--tcp-ports=80"], ["-t"], ["-u", "-T", "-U"]),
        (["--udp-ports=53"], ["-u"], ["-t", "-T", "-U"]),
        (["-T", "5432"], [], ["5432", "-t"]),
        (["--tcp-ns=5432"], ["-T"], ["-t", "-u", "-U"]),
        (["-U1", "-u2"], ["-u", "-U"], ["-t", "-T"]),
        (["--udp-ns", "1"], ["-U"], ["-t", "-u", "-T"]),
        (["--map-gw"], ["--map-gw", "--no-map-gw"], []),
        (["--map-guest-addr", "192.0.2.2"], ["169.254.1.2"], ["192.0.2.2"]),
        (["--map-guest-addr=192.0.2.2"], ["169.254.1.2", "--map-guest-addr"], []),
        (["-d"], ["--quiet"], ["-d"]),
        (["--debug"], ["--quiet"], ["--debug"]),
        (["--trace"], ["--quiet"], ["--trace", "-t"]),
        (["--mtu", "1400"], [], ["--mtu", "1400"]),
    ],
)
def test_options_of_pasta(
    state: State, options: list[str], absent: list[str], present: list[str]
) -> None:
    """A default is left out where an option says otherwise, however that is written."""
    command = Pasta("pasta", options).command(state)

    assert [argument for argument in absent if argument in command] == []
    assert [argument for argument in present if argument not in command] == []
    kept = [option for option in options if option != "--map-gw"]
    assert command[2 : 2 + len(kept)] == kept
    for option in ("-t", "-u", "-T", "-U", "--map-guest-addr", "--log-file"):
        assert command.count(option) <= 1


@pytest.mark.parametrize(
    ("options", "forwarders", "host_addresses"),
    [
        ([], (FORWARDER, FORWARDER6), ("169.254.1.2",)),
        (["--dns-forward", "192.0.2.1"], ("192.0.2.1",), ("169.254.1.2",)),
        (
            ["--dns-forward=192.0.2.1", "--dns-forward=2001:db8::1"],
            ("192.0.2.1", "2001:db8::1"),
            ("169.254.1.2",),
        ),
        (["--map-guest-addr=192.0.2.2"], (FORWARDER, FORWARDER6), ("192.0.2.2",)),
        (["--map-guest-addr", "192.0.2.2"], (FORWARDER, FORWARDER6), ("192.0.2.2",)),
    ],
)
def test_addresses_of_pasta(
    options: list[str], forwarders: tuple[str, ...], host_addresses: tuple[str, ...]
) -> None:
    """What the netns can ask and reach is what pasta was told."""
    chosen = Pasta("pasta", options)

    assert (chosen.forwarders, chosen.host_addresses) == (forwarders, host_addresses)


@pytest.mark.parametrize(
    "option",
    [
        *("-f", "--foreground", "-P", "-P/pid", "--pid", "--pid=/pid"),
        *("-l", "-l/log", "--log-file", "--log-file=/log", "--netns", "--netns=/netns"),
    ],
)
def test_options_that_are_ours(option: str) -> None:
    """Options by which an uplink would not be ours to end are refused by name."""
    error = failure(Pasta, "pasta", [option])

    assert error.code == errors.INVALID_NETWORK_CONFIG
    assert "uplink.options: -" in error.message


@pytest.mark.parametrize("option", ["--no-netns-quit", "--netns-only", "-F", "--log-size=1"])
def test_options_like_those_that_are_ours(state: State, option: str) -> None:
    """Options that only look like ours are passed on."""
    assert option in Pasta("pasta", [option]).command(state)


def test_pasta_is_started(state: State, bin_dir: Path) -> None:
    """pasta gets our arguments, a session of its own, and is known by its process ID."""
    chosen = pasta(bin_dir, "-4")

    chosen.start(state)
    pid = chosen.wait(state)

    (call,) = fakes.log(bin_dir)
    assert call == {"argv": chosen.command(state)[1:], "cwd": "/", "leads": True}
    assert pid is not None
    assert start_time(pid) > 0
    assert not chosen.sends_bare_segments
    assert not os.path.exists(state.path("uplink.pid"))


def test_old_pasta_is_started_without_the_new_option(state: State, bin_dir: Path) -> None:
    """A release that does not know --map-guest-addr is asked again without it."""
    (bin_dir / "old").touch()
    chosen = pasta(bin_dir)

    chosen.start(state)
    pid = chosen.wait(state)

    first, second = (call["argv"] for call in fakes.log(bin_dir))
    # That one lets answers of the forwarder's server come from a wrong address.
    new = ["--map-guest-addr", "169.254.1.2", "--dns-host", "127.0.0.1"]
    assert [word for word in new if word not in first] == []
    assert [word for word in ("--map-guest-addr", "--dns-host", FORWARDER) if word in second] == []
    assert pid is not None
    assert chosen.host_addresses == ("169.254.1.2",)
    assert chosen.sends_bare_segments
    assert "unrecognized" not in Path(state.path("uplink.log")).read_text()


def test_old_pasta_with_the_new_option(state: State, bin_dir: Path) -> None:
    """An option that the configuration asks for is not dropped silently."""
    (bin_dir / "old").touch()
    chosen = pasta(bin_dir, "--map-guest-addr", "192.0.2.2")

    chosen.start(state)
    error = failure(chosen.wait, state)

    assert "unrecognized option '--map-guest-addr'" in error.details
    assert len(fakes.log(bin_dir)) == 1


def test_log_of_a_failing_pasta(state: State, bin_dir: Path) -> None:
    """The error of an uplink that fails holds what it said, without its noise."""
    (bin_dir / "broken").touch()
    chosen = pasta(bin_dir)

    chosen.start(state)
    error = failure(chosen.wait, state)

    assert error.code == errors.UPLINK_FAILED
    assert error.message == "the uplink pasta failed: exit status 2"
    assert error.details == "Failed to open() /dev/net/tun"


LOG = """pasta unknown version: /usr/bin/passt.avx2 (8635)
0.5242: WARNING: No external routable interface for IPv4
Failed to send 46 bytes to syslog
No external routable interface for IPv4
12.0001: ERROR:   External interface not usable
External interface not usable
"""


def test_essence_of_a_log() -> None:
    """Of a log of pasta's, an error has each line once, without the time and without noise."""
    assert background.essence(LOG) == [
        "No external routable interface for IPv4",
        "External interface not usable",
    ]
    assert background.essence("1: one\n1: two: three\n") == ["1: one", "1: two: three"]


def test_pasta_that_never_gets_ready(
    state: State, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uplink that is not ready in time is ended."""
    monkeypatch.setattr(background, "START_SECONDS", 0.3)
    (bin_dir / "hanging").touch()
    chosen = pasta(bin_dir)

    chosen.start(state)
    error = failure(chosen.wait, state)

    assert error.message == "the uplink pasta failed: not ready after 0.3 s"
    assert stray(state) == set()


@pytest.mark.parametrize("kind", [Pasta, Slirp4netns])
def test_program_that_cannot_be_executed(state: State, tmp_path: Path, kind: Any) -> None:
    """A program that cannot be started is an error of the uplink that names it."""
    program = str(fakes.executable(tmp_path / "program", "#!/no/such/interpreter\n"))
    before = os.listdir("/proc/self/fd")

    error = failure(kind(program, []).start, state)

    assert error.code == errors.UPLINK_FAILED
    assert error.message == f"cannot start the uplink {program}"
    assert "No such file or directory" in error.details
    assert os.listdir("/proc/self/fd") == before


def test_arguments_of_slirp4netns(state: State, bin_dir: Path) -> None:
    """slirp4netns is confined as far as it knows how, and told the netns by path."""
    assert slirp(bin_dir).command(state, 7) == [
        str(bin_dir / "slirp4netns"),
        *("--disable-host-loopback", "--mtu=65520"),
        *("--enable-sandbox", "--enable-seccomp", "--enable-ipv6"),
        *("-c", "-r", "7", "--netns-type=path", state.pin, "tap0"),
    ]


@pytest.mark.parametrize(
    ("usage", "options", "expected"),
    [
        ("", [], []),
        ("--mtu=MTU", [], ["--mtu=65520"]),
        (USAGE, ["--mtu=1400"], ["--mtu=1400"]),
        (USAGE, ["--mtu", "1400"], ["--mtu", "1400"]),
        ("--enable-ipv6", ["--cidr=10.9.0.0/24"], ["--enable-ipv6", "--cidr=10.9.0.0/24"]),
    ],
)
def test_options_of_slirp4netns(
    state: State, bin_dir: Path, usage: str, options: list[str], expected: list[str]
) -> None:
    """Only flags that this version knows are used, and none that an option sets."""
    (bin_dir / "usage").write_text(usage)

    command = slirp(bin_dir, *options).command(state, 7)

    found = [a for a in command[1:-6] if not usage.endswith("ipv6") or a in expected]
    assert found[-len(expected) or len(found) :] == expected
    assert command[-6:] == ["-c", "-r", "7", "--netns-type=path", state.pin, "tap0"]
    assert sum(argument.startswith("--mtu") for argument in command) <= 1


@pytest.mark.parametrize(
    ("options", "forwarder"),
    [
        ([], "10.0.2.3"),
        (["--cidr=10.9.0.0/16"], "10.9.0.3"),
        (["--cidr", "10.9.8.0/24"], "10.9.8.3"),
        (["--cidr=10.9.8.7/24"], "10.9.8.3"),
    ],
)
def test_name_server_of_slirp4netns(options: list[str], forwarder: str) -> None:
    """Its name server is the third address of its network."""
    assert Slirp4netns("slirp4netns", options).forwarders == (forwarder,)


@pytest.mark.parametrize("cidr", ["", "x", "10.0.0.0/33", "10.0.0.0/31", "2001:db8::/64"])
def test_network_of_slirp4netns_that_is_none(cidr: str) -> None:
    """A network that cannot be is refused before anything is started."""
    error = failure(Slirp4netns, "slirp4netns", [f"--cidr={cidr}"])

    assert error.code == errors.INVALID_NETWORK_CONFIG


def test_slirp4netns_is_started(state: State, bin_dir: Path) -> None:
    """slirp4netns stays the process that was started, and says when it is ready."""
    before = os.listdir("/proc/self/fd")
    chosen = slirp(bin_dir)

    chosen.start(state)
    pid = chosen.wait(state)

    assert pid is not None
    found, expected = stray(state), {(pid, start_time(pid))}
    stop(pid, start_time(pid))
    os.waitpid(pid, 0)
    assert found == expected
    (call,) = fakes.log(bin_dir)
    assert call["argv"][-3:] == ["--netns-type=path", state.pin, "tap0"]
    assert os.listdir("/proc/self/fd") == before


def test_log_of_a_failing_slirp4netns(state: State, bin_dir: Path) -> None:
    """The error holds its exit status and what it said; no descriptor is left."""
    (bin_dir / "broken").touch()
    before = os.listdir("/proc/self/fd")
    chosen = slirp(bin_dir)

    chosen.start(state)
    error = failure(chosen.wait, state)

    assert error.message == "the uplink slirp4netns failed: exit status 5"
    assert error.details == "cannot open the tap"
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("make", [pasta, slirp])
def test_uplink_holds_nothing_of_its_caller(state: State, bin_dir: Path, make: Any) -> None:
    """A runtime that waits for the end of its pipes does not wait for the uplink."""
    chosen = make(bin_dir)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    stdout = os.dup(1)
    os.dup2(writer, 1)
    try:
        chosen.start(state)
        pid = chosen.wait(state)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN)

    assert poll.poll(20000)
    assert os.read(reader, 1) == b""
    assert start_time(pid) > 0
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)}
    assert links == {"/dev/null", state.path("uplink.log")}
    os.close(reader)
    stop(pid, start_time(pid))
    if isinstance(chosen, Slirp4netns):
        os.waitpid(pid, 0)


def test_no_uplink(state: State) -> None:
    """Without an uplink nothing is started, and nothing is known to be outside."""
    chosen = uplink.choose({"driver": "none"}, {})

    chosen.start(state)

    assert isinstance(chosen, Nothing)
    assert (chosen.forwarders, chosen.host_addresses) == ((), ())
    assert os.listdir(state.dir) == []


@pytest.fixture
def only(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which the only uplinks are the fakes."""
    monkeypatch.setattr(invoke, "DEFAULT_PATH", "/none")
    monkeypatch.setattr(uplink, "HELPER_DIRECTORIES", ())
    return {"PATH": str(bin_dir)}


@pytest.mark.parametrize(
    ("wanted", "installed", "expected"),
    [
        ({}, ["pasta", "slirp4netns"], "pasta"),
        ({"driver": ""}, ["slirp4netns"], "slirp4netns"),
        ({"driver": "slirp4netns"}, ["pasta", "slirp4netns"], "slirp4netns"),
        ({"driver": "pasta"}, ["pasta"], "pasta"),
    ],
)
def test_choice(
    bin_dir: Path,
    only: dict[str, str],
    wanted: dict[str, str],
    installed: list[str],
    expected: str,
) -> None:
    """The uplink is the one that is asked for; else pasta if it is installed."""
    for name in {"pasta", "slirp4netns"} - set(installed):
        (bin_dir / name).unlink()

    chosen = uplink.choose(wanted, only)

    assert not isinstance(chosen, Nothing)
    assert (chosen.driver, chosen.path) == (expected, str(bin_dir / expected))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "no uplink: neither pasta nor slirp4netns is installed"),
        ({"driver": "pasta"}, "no uplink: pasta is not installed"),
        ({"driver": "slirp4netns"}, "no uplink: slirp4netns is not installed"),
        ({"driver": "pasta", "path": "/no/such"}, "no uplink: /no/such is not installed"),
    ],
)
def test_choice_of_none(
    bin_dir: Path, only: dict[str, str], wanted: dict[str, str], message: str
) -> None:
    """What is not installed is an error that says so and what to do."""
    for name in ("pasta", "slirp4netns"):
        (bin_dir / name).unlink()

    error = failure(uplink.choose, wanted, only)

    assert error.code == errors.UPLINK_FAILED
    assert error.message == message
    assert "install passt or slirp4netns" in error.details


def test_path_and_options_of_the_configuration(bin_dir: Path) -> None:
    """A path is taken as it is, and options are the uplink's."""
    path = str(fakes.executable(bin_dir / "mine", ""))

    chosen = uplink.choose({"driver": "pasta", "path": path, "options": ["-4"]}, {})

    assert isinstance(chosen, Pasta)
    assert (chosen.path, chosen.options) == (path, ["-4"])


def test_program_of_podman(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are looked up in PATH, in its usual directories, and where Podman has its own."""
    monkeypatch.setattr(uplink, "HELPER_DIRECTORIES", ("/no/such", str(bin_dir)))
    fakes.executable(bin_dir / "only-here", "")

    assert uplink.program_path("only-here", {}) == str(bin_dir / "only-here")
    assert uplink.program_path("nowhere", {"PATH": str(bin_dir)}) == ""


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_device_that_is_missing(
    only: dict[str, str], driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uplink needs /dev/net/tun; none needs nothing."""
    monkeypatch.setattr(uplink, "TUN", "/no/such/device")

    error = failure(uplink.check, {"driver": driver}, only)
    uplink.check({"driver": "none"}, only)

    assert error.code == errors.UPLINK_FAILED
    assert error.message == "/dev/net/tun cannot be opened: No such file or directory"
    assert error.details.startswith("modprobe tun (as root)")


def test_device_that_is_there(only: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where program and device are there, an uplink can be started."""
    monkeypatch.setattr(uplink, "TUN", "/dev/null")
    monkeypatch.setattr(uplink, "TUN_DEVICE", os.stat("/dev/null").st_rdev)

    uplink.check({}, only)


def test_another_device(only: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no TUN device is not taken for one."""
    monkeypatch.setattr(uplink, "TUN", "/dev/null")

    error = failure(uplink.check, {}, only)

    assert error.message == "/dev/null is something else"
    assert "mknod -m 0666" in error.details


@pytest.mark.parametrize(
    ("number", "is_allowed", "cure"),
    [
        (errno.ENOENT, False, "modprobe tun"),
        (errno.ENODEV, True, "modprobe tun"),
        (errno.EACCES, False, "chmod 0666"),
        (errno.EPERM, True, "--device"),
        (errno.EACCES, True, "nodev"),
    ],
)
def test_device_that_cannot_be_opened(
    only: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    is_allowed: bool,
    cure: str,
) -> None:
    """A device that is missing has another remedy than one that may not be opened."""

    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(uplink, "TUN_DEVICE", os.stat("/dev/null").st_rdev)
    monkeypatch.setattr(uplink, "TUN", "/dev/null")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        patch.setattr(os, "access", lambda path, mode: is_allowed)
        problem = uplink.tun_problem()

    assert problem is not None
    assert problem[0] == f"/dev/net/tun cannot be opened: {os.strerror(number)}"
    assert cure in problem[1]


def test_lowered_limit(state: State) -> None:
    """A process that stays has no open file of a caller who has lowered the limit below it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 50  # more than are open, so some are free
    high = fcntl.fcntl(0, fcntl.F_DUPFD, few + 50)  # inherited by whatever is executed
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        pid = background.spawn(["/bin/sh", "-c", "ls /proc/$$/fd; echo all; exec sleep 60"], state)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(high)
    try:
        log = Path(state.path("uplink.log"))
        until(lambda: log.read_text().endswith("all\n"))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    found = log.read_text().split()
    assert {"0", "1", "2"} < set(found)
    assert str(high) not in found


# Told to end, it goes to the background first, as pasta may be about to while it starts. Like
# pasta it forks and executes nothing, as a process shows no arguments in the middle of that.
FORKING = """
trap '(read x <>"$1") & exit' TERM
echo ready
while read x; do :; done <>"$1"
"""


def test_an_uplink_that_has_just_forked(state: State, tmp_path: Path) -> None:
    """An uplink that is found while it still starts is ended, and so is what it has become."""
    os.mkfifo(tmp_path / "never")
    with open(state.path("uplink.log"), "wb") as log:
        argv = ["sh", "-c", FORKING, state.pin, str(tmp_path / "never")]
        starting = subprocess.Popen(argv, stdout=log)
    until(lambda: Path(state.path("uplink.log")).read_text() == "ready\n")

    connect.disconnect(state)

    starting.wait()
    assert stray(state) == set()
