# SPDX-License-Identifier: Apache-2.0
"""Running the delegated plugins of one configuration, as libcni runs a list.

Each result is the next plugin's `prevResult`. DEL goes in reverse. A key of `runtimeConfig` goes
only to the plugins that have its capability. A failed ADD is undone.
"""

from __future__ import annotations

from . import interrupt, invoke, result
from .cni import SINCE, SUPPORTED_VERSIONS
from .errors import PLUGIN_MISBEHAVED, PluginFailed, ShimError, note, warn
from .versions import Versions, at_least, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .conf import Configuration
    from .decoding import Json
    from .netavark.driver import Driver
    from .request import Request

# A path that never leads to a namespace: no process has the ID 0.
NOWHERE = "/proc/0/ns/net"


# Plugins that make links of 1500 bytes where they are given no `mtu`. Others that know the key
# take that of the interface below, such as macvlan, and refuse a larger one.
WITH_MTU = ("bridge", "ptp")


class Link:
    """One plugin of a chain: its configuration as written, and the version to speak with it."""

    __slots__ = ("conf", "plugin", "spoken", "version")

    def __init__(
        self, conf: Json, plugin: invoke.Plugin | Driver, spoken: Sequence[str], version: str
    ) -> None:
        self.conf = conf
        self.plugin = plugin
        self.spoken = spoken
        self.version = version

    def knows(self, verb: str) -> bool:
        """Tell whether it says that it knows CHECK, GC or STATUS."""
        return bool(self.spoken) and at_least(self.version, SINCE[verb])


class Chain:
    """The plugins of a configuration, bound to one call of the runtime.

    Making it finds all of them and settles their versions, so that a misfit is found before
    anything is done. Raises ShimError (code 7 where one is not found, 1 where it speaks no known
    version, 2 where an ADD is asked for what no plugin takes).
    """

    def __init__(
        self,
        conf: Configuration,
        request: Request,
        environ: Mapping[str, str],
        versions: Versions,
        driver_state: str,
    ) -> None:
        """Take the environment of the plugins, and where drivers of netavark keep their state."""
        self._request = request
        self._environ = environ
        self._is_list = "plugins" in request.conf
        self._offer = request.conf.get("runtimeConfig") or {}
        # A plugin that gets values without the capability, and these.
        self._adopter: Json = {}
        self._adopted: Json = {}
        # In bytes, for plugins that know `mtu` and were given none; 0 leaves them as they are.
        self.mtu = 0
        self._links = [self._link(entry, conf, versions, driver_state) for entry in conf.plugins]
        self._settle(conf)

    def _link(
        self, entry: Json, conf: Configuration, versions: Versions, driver_state: str
    ) -> Link:
        path, environ, wanted = self._request.path, self._environ, self._request.cni_version
        if "driver" in entry:
            from .netavark.driver import Driver  # only where a plugin is one

            driver = Driver(entry, conf, path, environ, versions, driver_state)
            # It answers in the version in which it is asked.
            return Link(entry, driver, SUPPORTED_VERSIONS, wanted)
        plugin = invoke.Plugin(entry["type"], path, conf.timeout)
        spoken = versions.of(plugin, environ)
        return Link(entry, plugin, spoken, choose(spoken, wanted, plugin.type))

    def _settle(self, conf: Configuration) -> None:
        """Find a plugin for the values of the runtime that no plugin claims, or refuse them."""
        given = self._request.conf.get("runtimeConfig") or {}
        if not given:
            return
        entries = conf.plugins
        claimed = {key for entry in entries for key in self._offered(entry)}
        if conf.names:
            claimed.add("aliases")  # we take them, see the wing `names`
        left = {key: value for key, value in given.items() if value and key not in claimed}
        if not left:
            return
        from . import offered  # only where there are such values

        self._adopter, self._adopted = offered.adopt(entries, left)
        if self._request.verb == "ADD":
            left = {key: value for key, value in left.items() if key not in self._adopted}
            offered.check(left, self._request.conf.get("capabilities"))

    def lose_netns(self) -> None:
        """Make CNI_NETNS lead nowhere for the plugins, as after the end of the container.

        The variable is not emptied, because `bridge` would then leave its rules for masquerading.
        """
        self._environ = {**self._environ, "CNI_NETNS": NOWHERE}

    def mark(self, variables: Mapping[str, str]) -> None:
        """Mark the processes of the call in another way, see `references.mark`."""
        self._environ = {**self._environ, **variables}

    def takes(self, capability: str) -> bool:
        """Tell whether the runtime sent a value for a capability, and a plugin takes it."""
        return any(capability in self._offered(link.conf) for link in self._links)

    def offer(self, capability: str, value: Any) -> None:
        """Replace the value of a capability that the runtime has sent."""
        self._offer = {**self._offer, capability: value}

    def knows(self, verb: str) -> bool:
        """Tell whether one of the plugins says that it knows CHECK, GC or STATUS."""
        return any(link.knows(verb) for link in self._links)

    def add(self, note: Callable[[Json], None] | None = None) -> Json:
        """Attach; give the result in the version of the request.

        `note` is called with each result that goes to a next plugin, before that begins. A failure
        is undone before it is raised: DEL is called on the plugin that failed and on those before
        it, in reverse.
        """
        previous: Json | None = self._request.conf.get("prevResult")
        for position, link in enumerate(self._links):
            try:
                if position and note is not None and previous is not None:
                    note(previous)
                previous = self._add(link, previous)
            except BaseException as error:
                self._explain(link, error)
                self._undo(self._links[: position + 1], previous)
                raise
        assert previous is not None  # a configuration has at least one plugin
        return previous

    def _add(self, link: Link, previous: Json | None) -> Json:
        answer = self._call("ADD", link, previous)
        if not isinstance(answer, dict):
            raise ShimError(
                PLUGIN_MISBEHAVED,
                f"plugin {link.plugin.type!r} (ADD) succeeded without printing a result",
                "a plugin must print one JSON object for ADD",
            )
        return result.convert(answer, self._request.cni_version, assume=link.version)

    def _explain(self, link: Link, error: BaseException) -> None:
        """Say what to do about an error of a plugin that does not say it."""
        if isinstance(error, PluginFailed):
            from . import daemons  # only after a failure

            if daemons.is_missing(link.conf, error):
                how = daemons.how(self._request.conf)
                warn(f"no dhcp daemon runs in the netns of the plugins: {how}")
            from .shared import advice  # see above

            advice.add(error, link.conf)

    def _undo(self, links: list[Link], previous: Json | None) -> None:
        interrupt.disregard()
        for link in reversed(links):
            try:
                self._detach(link, previous)
            except (ShimError, OSError) as error:
                warn(f"undoing a failed ADD: {error}")

    def _detach(self, link: Link, previous: Json | None) -> None:
        """Call DEL; without its IPAM plugin where the daemon of that is gone with all leases."""
        try:
            self._call("DEL", link, previous)
        except PluginFailed as error:
            from . import daemons  # only after a failure

            if not daemons.is_missing(link.conf, error):
                raise
            other = Link(daemons.without(link.conf), link.plugin, link.spoken, link.version)
            self._call("DEL", other, previous)
            warn("no dhcp daemon runs in the netns of the plugins, so no lease was released")

    def delete(self, previous: Json | None) -> None:
        """Detach; the first error ends it, because the runtime will call again.

        But a plugin that answers with an error is first called once more. After an earlier call
        that was killed, `bridge` removes its link and then fails because its rules are missing;
        without a link it does not look for them. And some runtimes do not call again.
        """
        for link in reversed(self._links):
            try:
                self._detach(link, previous)
            except PluginFailed as error:
                self._detach(link, previous)
                note(f"plugin {link.plugin.type!r} (DEL) succeeded when called again: {error}")

    def forward(self, verb: str, previous: Json | None = None) -> None:
        """Pass CHECK, GC or STATUS to the plugins that know the verb; the first error ends it."""
        for link in self._links:
            if link.knows(verb):
                self._call(verb, link, previous)

    def _call(self, verb: str, link: Link, previous: Json | None) -> Any:
        request = self._request
        conf = {**link.conf, "cniVersion": link.version, "name": request.network}
        if self.mtu and _lacks_mtu(conf):
            _set_mtu(conf, self.mtu)
        offered = self._offered(link.conf)
        if "ipam" in offered:
            # The caller has allocated the addresses itself, as Podman does.
            conf["ipam"] = offered.pop("ipam")
        if offered:
            conf["runtimeConfig"] = offered
        conf.pop("prevResult", None)
        if previous is not None and (verb != "DEL" or at_least(link.version, "0.4.0")):
            conf["prevResult"] = result.convert(previous, link.version)
        for key, value in request.conf.items():
            if key == "args" or (verb == "GC" and key.startswith("cni.dev/")):
                conf.setdefault(key, value)
        return link.plugin.call(verb, self._environ, conf)

    def _offered(self, entry: Json) -> Json:
        """Choose the keys of runtimeConfig for a plugin: those for which it has the capability.

        A single delegate need not repeat the capabilities that stand beside it.
        """
        capabilities = entry.get("capabilities")
        if capabilities is None and not self._is_list:
            capabilities = self._request.conf.get("capabilities")
        share = {k: v for k, v in self._offer.items() if (capabilities or {}).get(k) is True}
        return {**share, **self._adopted} if entry is self._adopter else share


def _lacks_mtu(entry: Json) -> bool:
    """Tell whether an entry is of a plugin that knows `mtu`, and says nothing about it."""
    if "driver" in entry:
        # As in the plugins of CNI, bridge is the one that asks no other interface.
        return entry["driver"] == "bridge" and "mtu" not in (entry.get("options") or {})
    return entry["type"] in WITH_MTU and "mtu" not in entry


def _set_mtu(conf: Json, mtu: int) -> None:
    if "driver" in conf:
        conf["options"] = {**(conf.get("options") or {}), "mtu": str(mtu)}
    else:
        conf["mtu"] = mtu
