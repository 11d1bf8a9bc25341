# SPDX-License-Identifier: Apache-2.0
"""The process that joins the shared netns to the host's network: pasta, slirp4netns, or none.

Each is started from the host's netns, inside the user namespace that owns the shared netns.
"""

from __future__ import annotations

import itertools
import os

from .. import enter, hostnet, interrupt, netns
from ..errors import INVALID_NETWORK_CONFIG, UPLINK_FAILED, ShimError, warn
from ..in_place import Unchanged
from ..invoke import HELPER_DIRECTORIES, find_program, with_path
from . import background, resolvconf, tap
from .forwarding import Forwarding, of_old_pasta, of_pasta
from .names import FORWARDER, FORWARDER6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..state import State

    # The key `uplink` of a configuration: `driver`, `options` and `path`.
    Wanted = Mapping[str, Any]

_given = tap.is_given
TUN = "/dev/net/tun"
START_SECONDS = 30
DEFAULT_MTU = 65520

# Options of pasta without which it could not be started, ended or asked for ports.
OWN_OPTIONS = (
    *("-f", "--foreground", "-P", "--pid", "-l", "--log-file", "--netns"),
    *("-c", "--conf-path"),
)

# What slirp4netns says where it cannot mount: as on a root that is in memory, or in a container.
NO_SANDBOX = "create_sandbox failed"
MAP_GUEST = "169.254.1.2"


class Nothing:
    """No uplink: containers reach each other and nothing else."""

    driver = "none"
    control = ""
    forwarders: tuple[str, ...] = ()
    forwards: list[str] | None = None
    host_addresses: tuple[str, ...] = ()
    takes_ipv6 = False
    copies_addresses = False
    sends_bare_segments = False

    def start(self, state: State, lifeline: int = -1) -> None:
        """Start nothing."""


class Pasta:
    """pasta(1) of passt.

    `takes_ipv6` tells whether it takes IPv6 addresses too: no option forbids it. If options say
    which addresses it gives the netns, `copies_addresses`: what it is not told is the host's. For
    `forwards`, which is known once it has been started, see `names.plan`. `mtu` is what its
    interface will have, 0 where an option says so.
    """

    driver = "pasta"
    ipv6 = ()
    sends_bare_segments = False  # see `nftables`

    def __init__(self, path: str, options: list[str]) -> None:
        """Refuse options that would keep us from starting or ending it."""
        for option in OWN_OPTIONS:
            if _given(options, option):
                raise ShimError(
                    INVALID_NETWORK_CONFIG, f"uplink.options: {option} is set by netns-shim itself"
                )
        self.path = path
        # A pasta whose ports can be changed has a program beside it that does so.
        pesto = f"{os.path.dirname(path)}/pesto"
        self.control = pesto if os.access(pesto, os.X_OK) else ""
        self.options = [o for o in options if o != "--map-gw"]
        self.takes_ipv6 = not _given(options, *tap.ONLY_IPV4)
        self.copies_addresses = _given(options, *tap.ADDRESSING)
        self.mtu = 0 if _given(options, "-m", "--mtu") else DEFAULT_MTU
        self.maps_gateway = "--map-gw" in options
        self.maps_guest = not _given(options, "--map-guest-addr")
        self.names_host = True
        # An address that the user has chosen is the user's affair.
        own = _values(options, "--dns-forward")
        ours = (FORWARDER, FORWARDER6) if self.takes_ipv6 else (FORWARDER,)
        self.forwarders: tuple[str, ...] = own or ours
        self.forwards: list[str] | None = None if own else []
        self.host_addresses = _values(options, "--map-guest-addr") or (MAP_GUEST,)

    def command(self, state: State) -> list[str]:
        """List the arguments, in Podman's order; the newest are the last."""
        options = self.options
        forwarding = self._forwarding()
        is_old = self.sends_bare_segments
        interface = tap.arguments(options, is_old=is_old, link=forwarding.link)
        command = [self.path, "--config-net", *options, *interface, "--foreground"]
        command += ["--pid", state.path("uplink.pid")]
        if self.forwards is not None:
            self.forwards = forwarding.forwards
        command += forwarding.options
        for short, long, value in (
            ("-t", "--tcp-ports", "none"),
            ("-u", "--udp-ports", "none"),
            ("-T", "--tcp-ns", forwarding.passed_on),
            ("-U", "--udp-ns", "none"),
        ):
            if not _given(options, short, long):
                command += [short, value]
        if not self.maps_gateway:
            command.append("--no-map-gw")
        if not any(_given(options, o) for o in ("-d", "--debug", "--trace")):
            command.append("--quiet")
        command += ["--log-file", state.path("uplink.log"), "--netns", state.pin]
        if self.maps_guest:
            command += ["--map-guest-addr", MAP_GUEST]
        command += forwarding.newest
        if self.control:
            command += ["--conf-path", background.socket_of(state)[1]]
        return command

    def _forwarding(self) -> Forwarding:
        if self.forwards is None:
            return Forwarding([])
        host = resolvconf.HostNames()
        if self.sends_bare_segments:
            return of_old_pasta(host, self.forwarders)
        return of_pasta(host, self.forwarders, names_host=self.names_host)

    def start(self, state: State, lifeline: int = -1) -> None:
        """Start it, with `lifeline` as its stdin; see `guardian`.

        It stays in the foreground, because one that goes into the background closes its stdin. It
        writes its process ID when it is ready: into a FIFO, so that we can wait for that.
        """
        self._lifeline = lifeline
        self._ready = background.open_fifo(state.path("uplink.pid"))
        try:
            self._pid = background.start(self.command(state), state, stdin=lifeline)
        except BaseException:
            os.close(self._ready)
            raise

    def wait(self, state: State) -> int:
        """Wait until it is ready; give its process ID. ShimError (code 102) where it fails."""
        try:
            said = background.ready(self._ready, self._pid, START_SECONDS, "starting the uplink")
            if said is None:
                raise background.failed("pasta", f"not ready after {START_SECONDS} s", state)
        except BaseException:
            background.kill(self._pid)
            raise
        finally:
            os.close(self._ready)
            os.unlink(state.path("uplink.pid"))
        if said:
            return self._pid
        status = background.end(self._pid)
        text = background.log_of(state) if status == 1 else ""
        if self._does_without(text):
            os.truncate(state.path("uplink.log"), 0)
            self.start(state, self._lifeline)
            return self.wait(state)
        raise background.failed("pasta", background.ended(status), state)

    def _does_without(self, said: str) -> bool:
        """Leave out an option of ours that this release does not know, if that was the error."""
        unknown = said.partition("unrecognized option '")[2].partition("'")[0]
        if unknown.startswith("--conf") and self.control:
            self.control = ""  # the two programs are not of one package
        elif unknown.startswith("--map-guest") and self.maps_guest:
            # Releases before August 2024 do not know it.
            self.maps_guest = False
            if self.copies_addresses:
                self.host_addresses = ()
            elif self.takes_ipv6:
                hostnet.await_ipv6()
            self.sends_bare_segments = True
        elif unknown.startswith("--dns-host") and self.names_host:
            self.names_host = False  # nor do those before October 2024
        else:
            return False
        return True


class Slirp4netns:
    """slirp4netns(1), which puts addresses of its own into the netns.

    `ipv6` is the interface, address with prefix length and gateway that it announces by router
    advertisements. We set them ourselves: the kernel ignores such advertisements as soon as a
    plugin turns on forwarding in the netns.
    """

    driver = "slirp4netns"
    forwards: list[str] | None = None
    ipv6: tuple[str, ...] = ()
    host_addresses: tuple[str, ...] = ()
    takes_ipv6 = False
    copies_addresses = False
    sends_bare_segments = False
    control = ""
    mtu = 0

    def __init__(self, path: str, options: list[str]) -> None:
        """Derive the address of its name server, the third of its network."""
        self.path = path
        self.options = options
        # In its sandbox it sees nothing but /etc and /run.
        self.has_sandbox = resolvconf.is_below("/etc", "/run")
        import ipaddress  # which pasta does not need

        cidr = (_values(options, "--cidr") or ("10.0.2.0/24",))[-1]
        try:
            third = str(ipaddress.IPv4Network(cidr, strict=False)[3])
            self.forwarders: tuple[str, ...] = (third,)
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
            *(["--enable-sandbox"] if self.has_sandbox else []),
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
            self.forwarders = (self.forwarders[0], "fd00::3")
        if "--api-socket" in usage and not _given(self.options, "--api-socket"):
            self.control = self.path
            known.append(f"--api-socket={background.socket_of(state)[1]}")
        place = ["--netns-type=path", state.pin, "tap0"]
        return [self.path, *known, *self.options, "-c", "-r", str(ready), *place]

    def start(self, state: State, lifeline: int = -1) -> None:
        """Start it, with `lifeline` as its stdin; it says over a pipe when it is ready."""
        self._lifeline = lifeline
        self._ready, ready = os.pipe()
        try:
            command = self.command(state, ready)
            with self._own_mounts():
                self._pid = background.start(command, state, ready, stdin=lifeline)
        except BaseException:
            os.close(self._ready)
            raise
        finally:
            os.close(ready)

    def _own_mounts(self) -> enter.Inside | Unchanged:
        """Give the context in which it is started, with mounts that it may cover.

        For its sandbox it mounts on /tmp, and makes only the root private before. In the mounts of
        the pause process, that would cover a /tmp that is a mount of its own.
        """
        # Without power over the mounts, it has no sandbox either.
        is_needed = self.has_sandbox and netns.is_privileged()
        return enter.Inside(enter.HERE, []) if is_needed else Unchanged()

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
        if is_ready:
            return self._pid
        if self.has_sandbox and NO_SANDBOX in background.log_of(state):
            warn(f"{self.path} cannot make its sandbox, and runs without one")
            self.has_sandbox = False
            os.truncate(state.path("uplink.log"), 0)
            self.start(state, self._lifeline)
            return self.wait(state)
        raise background.failed("slirp4netns", background.ended(status), state)


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


def _values(options: list[str], name: str) -> tuple[str, ...]:
    values = [o.partition("=")[2] for o in options if o.startswith(name + "=")]
    values += [value for o, value in itertools.pairwise(options) if o == name]
    return tuple(values)
