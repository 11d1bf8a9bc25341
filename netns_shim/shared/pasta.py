# SPDX-License-Identifier: Apache-2.0
"""The uplink pasta(1) of passt: its arguments, which differ between releases, and its start."""

from __future__ import annotations

import os

from .. import hostnet
from ..errors import INVALID_NETWORK_CONFIG, ShimError
from . import background, resolvconf, tap
from .forwarding import Forwarding, of_old_pasta, of_pasta
from .names import FORWARDER, FORWARDER6
from .options import is_given, values
from .uplink import DEFAULT_MTU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

# Options of pasta without which it could not be started, ended or asked for ports.
OWN_OPTIONS = (
    *("-f", "--foreground", "-P", "--pid", "-l", "--log-file", "--netns"),
    *("-c", "--conf-path"),
)
MAP_GUEST = "169.254.1.2"


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
            if is_given(options, option):
                raise ShimError(
                    INVALID_NETWORK_CONFIG, f"uplink.options: {option} is set by netns-shim itself"
                )
        self.path = path
        # A pasta whose ports can be changed has a program beside it that does so.
        pesto = f"{os.path.dirname(path)}/pesto"
        self.control = pesto if os.access(pesto, os.X_OK) else ""
        self.options = [o for o in options if o != "--map-gw"]
        self.takes_ipv6 = not is_given(options, *tap.ONLY_IPV4)
        self.copies_addresses = is_given(options, *tap.ADDRESSING)
        self.mtu = 0 if is_given(options, "-m", "--mtu") else DEFAULT_MTU
        self.maps_gateway = "--map-gw" in options
        self.maps_guest = not is_given(options, "--map-guest-addr")
        self.names_host = True
        # An address that the user has chosen is the user's affair.
        own = values(options, "--dns-forward")
        ours = (FORWARDER, FORWARDER6) if self.takes_ipv6 else (FORWARDER,)
        self.forwarders: tuple[str, ...] = own or ours
        self.forwards: list[str] | None = None if own else []
        self.host_addresses = values(options, "--map-guest-addr") or (MAP_GUEST,)

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
            if not is_given(options, short, long):
                command += [short, value]
        if not self.maps_gateway:
            command.append("--no-map-gw")
        if not any(is_given(options, o) for o in ("-d", "--debug", "--trace")):
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
            said = background.ready(
                self._ready, self._pid, background.START_SECONDS, "starting the uplink"
            )
            if said is None:
                raise background.failed(
                    "pasta", f"not ready after {background.START_SECONDS} s", state
                )
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
