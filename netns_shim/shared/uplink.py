# SPDX-License-Identifier: Apache-2.0
"""The process that joins the shared netns to the host's network: pasta, slirp4netns, or none.

Each is started from the host's netns, inside the user namespace that owns the shared netns.
"""

from __future__ import annotations

import itertools
import os

from .. import interrupt
from ..errors import INVALID_NETWORK_CONFIG, UPLINK_FAILED, ShimError
from ..invoke import HELPER_DIRECTORIES, find_program, with_path
from ..state import read_file, remove_special
from . import background

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..state import State

    # The key `uplink` of a configuration: `driver`, `options` and `path`.
    Wanted = Mapping[str, Any]

TUN = "/dev/net/tun"
START_SECONDS = 30
DEFAULT_MTU = 65520

# Options of pasta without which it could not be started, ended or asked for ports.
OWN_OPTIONS = (
    *("-f", "--foreground", "-P", "--pid", "-l", "--log-file", "--netns"),
    *("-c", "--conf-path"),
)

DNS_FORWARD = "169.254.1.1"
MAP_GUEST = "169.254.1.2"


class Nothing:
    """No uplink: containers reach each other and nothing else."""

    driver = "none"
    control = ""
    forwarders: tuple[str, ...] = ()
    host_addresses: tuple[str, ...] = ()
    takes_ipv6 = False
    sends_bare_segments = False

    def start(self, state: State) -> None:
        """Start nothing."""


class Pasta:
    """pasta(1) of passt, which puts the host's own addresses into the netns.

    `takes_ipv6` tells whether it takes IPv6 addresses too: no option forbids it. `mtu` is what its
    interface will have, 0 where an option says so.
    """

    driver = "pasta"
    ipv6 = ()
    sends_bare_segments = False  # see `nftables`

    def __init__(self, path: str, options: list[str]) -> None:
        """Refuse options that would keep us from starting or ending it."""
        own = (
            "-f",
            "--foreground",
            "-P",
            "--pid",
            "-l",
            "--log-file",
            "--netns",
            "-c",
            "--conf-path",
        )
        for option in own:
            if _given(options, option):
                raise ShimError(
                    INVALID_NETWORK_CONFIG, f"uplink.options: {option} is set by netns-shim itself"
                )
        self.path = path
        # A pasta whose ports can be changed has a program beside it that does so.
        pesto = f"{os.path.dirname(path)}/pesto"
        self.control = pesto if os.access(pesto, os.X_OK) else ""
        self.options = [o for o in options if o != "--map-gw"]
        self.takes_ipv6 = not (_given(options, "-4") or _given(options, "--ipv4-only"))
        is_mtu_given = _given(options, "-m") or _given(options, "--mtu")
        self.mtu = 0 if is_mtu_given else DEFAULT_MTU
        self.maps_gateway = "--map-gw" in options
        self.maps_guest = not _given(options, "--map-guest-addr")
        self.forwarders = _values(options, "--dns-forward") or (DNS_FORWARD,)
        self.host_addresses = _values(options, "--map-guest-addr") or (MAP_GUEST,)

    def command(self, state: State) -> list[str]:
        """List the arguments, in Podman's order; the last pair is the newest."""
        options = self.options
        command = [self.path, "--config-net", *options, "--pid", state.path("uplink.pid")]
        if not _given(options, "--dns-forward"):
            command += ["--dns-forward", DNS_FORWARD]
        for short, long in (
            ("-t", "--tcp-ports"),
            ("-u", "--udp-ports"),
            ("-T", "--tcp-ns"),
            ("-U", "--udp-ns"),
        ):
            if not _given(options, short) and not _given(options, long):
                command += [short, "none"]
        if not self.maps_gateway:
            command.append("--no-map-gw")
        if not any(_given(options, o) for o in ("-d", "--debug", "--trace")):
            command.append("--quiet")
        command += ["--log-file", state.path("uplink.log"), "--netns", state.pin]
        if self.maps_guest:
            command += ["--map-guest-addr", MAP_GUEST]
        if self.control:
            command += ["--conf-path", background.socket_of(state)[1]]
        return command

    def start(self, state: State) -> None:
        """Start it; it goes into the background by itself when it is ready."""
        remove_special(state.path("uplink.pid"))
        self._pid = background.start(self.command(state), state)

    def wait(self, state: State) -> int:
        """Wait until it is ready; give its process ID. ShimError (code 102) where it fails."""
        pidfd = os.pidfd_open(self._pid)
        try:
            if not interrupt.wait(pidfd, START_SECONDS, "starting the uplink"):
                raise background.failed("pasta", f"not ready after {START_SECONDS} s", state)
        except BaseException:
            background.kill(self._pid)
            raise
        finally:
            os.close(pidfd)
        status = background.end(self._pid)
        said = background.log_of(state) if status == 1 else ""
        if self.control and "unrecognized option '--conf" in said:
            self.control = ""  # the two programs are not of one package
            os.truncate(state.path("uplink.log"), 0)
            self.start(state)
            return self.wait(state)
        if self.maps_guest and "unrecognized option '--map-guest" in said:
            # Releases before August 2024 do not know the option.
            self.maps_guest, self.host_addresses = False, ()
            self.sends_bare_segments = True
            os.truncate(state.path("uplink.log"), 0)
            self.start(state)
            return self.wait(state)
        if status:
            raise background.failed("pasta", f"exit status {status}", state)
        try:
            pid = int(read_file(state.path("uplink.pid")))
            os.unlink(state.path("uplink.pid"))
        except (OSError, ValueError):
            raise background.failed("pasta", "it has not written its process ID", state) from None
        return pid


class Slirp4netns:
    """slirp4netns(1), which puts addresses of its own into the netns.

    `ipv6` is the interface, address with prefix length and gateway that it announces by router
    advertisements. We set them ourselves: the kernel ignores such advertisements as soon as a
    plugin turns on forwarding in the netns.
    """

    driver = "slirp4netns"
    ipv6: tuple[str, ...] = ()
    host_addresses: tuple[str, ...] = ()
    takes_ipv6 = False
    sends_bare_segments = False
    control = ""
    mtu = 0

    def __init__(self, path: str, options: list[str]) -> None:
        """Derive the address of its name server, the third of its network."""
        self.path = path
        self.options = options
        import ipaddress  # which pasta does not need

        cidr = (_values(options, "--cidr") or ("10.0.2.0/24",))[-1]
        try:
            self.forwarders = (str(ipaddress.IPv4Network(cidr, strict=False)[3]),)
        except (ValueError, IndexError) as error:
            raise ShimError(
                INVALID_NETWORK_CONFIG, "uplink.options: --cidr is not an IPv4 network", str(error)
            ) from None

    def command(self, state: State, ready: int) -> list[str]:
        """List the arguments, without those that this version does not know."""
        usage = _usage(self.path)
        wanted = (
            "--disable-host-loopback",
            f"--mtu={DEFAULT_MTU}",
            "--enable-sandbox",
            "--enable-seccomp",
            "--enable-ipv6",
        )
        known = [
            o
            for o in wanted
            if o.split("=")[0] in usage and not _given(self.options, o.split("=")[0])
        ]
        if "--enable-ipv6" in [*known, *self.options]:
            # The IPv6 network of libslirp is fixed; the address in it matches the IPv4 one.
            self.ipv6 = ("tap0", "fd00::100/64", "fd00::2")
        if "--api-socket" in usage and not _given(self.options, "--api-socket"):
            self.control = self.path
            known.append(f"--api-socket={background.socket_of(state)[1]}")
        place = ["--netns-type=path", state.pin, "tap0"]
        return [self.path, *known, *self.options, "-c", "-r", str(ready), *place]

    def start(self, state: State) -> None:
        """Start it in the background; it says over a pipe when it is ready."""
        self._ready, ready = os.pipe()
        try:
            self._pid = background.start(self.command(state, ready), state, ready)
        except BaseException:
            os.close(self._ready)
            raise
        finally:
            os.close(ready)

    def wait(self, state: State) -> int:
        """Wait until it is ready; give its process ID. ShimError (code 102) where it fails."""
        is_ready = False
        try:
            is_ready = (
                interrupt.wait(self._ready, START_SECONDS, "starting the uplink")
                and os.read(self._ready, 1) == b"1"
            )
        finally:
            os.close(self._ready)
            if not is_ready:
                status = background.kill(self._pid)
        if not is_ready:
            raise background.failed("slirp4netns", f"exit status {status}", state)
        return self._pid


Program = Pasta | Slirp4netns
Uplink = Nothing | Program


def choose(wanted: Wanted, environ: Mapping[str, str]) -> Uplink:
    """Make the uplink that a configuration asks for: pasta if it is installed, else slirp4netns.

    Raises ShimError (code 102) where its program is not installed.
    """
    driver, options = wanted.get("driver", ""), list(wanted.get("options", []))
    if driver == "none":
        return Nothing()
    path = wanted.get("path", "")
    for name, kind in (("pasta", Pasta), ("slirp4netns", Slirp4netns)):
        program = program_path(path or name, environ)
        if driver in ("", name) and program:
            return kind(program, options)
    missing = f"{path or driver} is not" if driver else "neither pasta nor slirp4netns is"
    raise ShimError(
        UPLINK_FAILED,
        f"no uplink: {missing} installed",
        'install passt or slirp4netns, or set "uplink": "none"',
    )


def check(wanted: Wanted, environ: Mapping[str, str]) -> Uplink:
    """Choose an uplink; raise ShimError (code 102) where it certainly cannot be started.

    pasta's own message does not name the missing device.
    """
    chosen = choose(wanted, environ)
    if not isinstance(chosen, Nothing) and not os.access(TUN, os.R_OK | os.W_OK):
        raise ShimError(
            UPLINK_FAILED, f"{TUN} cannot be used", "load the module tun; its mode must be 0666"
        )
    return chosen


def program_path(name: str, environ: Mapping[str, str]) -> str:
    """Find an uplink's program in PATH or where Podman keeps its helpers, or give ""."""
    return find_program(name, [*with_path(environ)["PATH"].split(":"), *HELPER_DIRECTORIES])


def _usage(path: str) -> str:
    try:
        return background.usage(path, "slirp4netns")[0]
    except ShimError as error:
        raise ShimError(UPLINK_FAILED, f"cannot start the uplink {path}", str(error)) from None


def _given(options: list[str], name: str) -> bool:
    """Tell whether an option is there, in any of the forms that getopt_long(3) accepts."""
    if name.startswith("--"):
        return any(o == name or o.startswith(name + "=") for o in options)
    return any(o.startswith(name) for o in options)


def _values(options: list[str], name: str) -> tuple[str, ...]:
    values = [o.partition("=")[2] for o in options if o.startswith(name + "=")]
    values += [value for o, value in itertools.pairwise(options) if o == name]
    return tuple(values)
