# SPDX-License-Identifier: Apache-2.0
"""The uplink slirp4netns(1): its arguments, its sandbox, and its start."""

from __future__ import annotations

import ipaddress
import os

from .. import enter, interrupt, netns
from ..errors import INVALID_NETWORK_CONFIG, UPLINK_FAILED, ShimError, warn
from ..in_place import Unchanged
from . import background, resolvconf
from .options import is_given, values
from .uplink import DEFAULT_MTU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

# What slirp4netns says where it cannot mount: as on a root that is in memory, or in a container.
NO_SANDBOX = "create_sandbox failed"


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
        cidr = (values(options, "--cidr") or ("10.0.2.0/24",))[-1]
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
            if o.split("=")[0] in usage and not is_given(self.options, o.split("=")[0])
        ]
        if "--enable-ipv6" in [*known, *self.options]:
            # The IPv6 network of libslirp is fixed; the address in it matches the IPv4 one.
            self.ipv6 = ("tap0", "fd00::100/64", "fd00::2")
            self.forwarders = (self.forwarders[0], "fd00::3")
        if "--api-socket" in usage and not is_given(self.options, "--api-socket"):
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
                interrupt.wait(self._ready, background.START_SECONDS, "starting the uplink")
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


def _usage(path: str) -> str:
    try:
        return background.usage(path, "slirp4netns")[0]
    except ShimError as error:
        raise ShimError(UPLINK_FAILED, f"cannot start the uplink {path}", str(error)) from None
