# SPDX-License-Identifier: Apache-2.0
"""Being a plugin of netavark: `create`, `setup NETNS`, `teardown NETNS`, `info`.

`setup` is an ADD, `teardown` a DEL. The network becomes a configuration, the request for a
container becomes that of a CNI runtime, and the result becomes a StatusBlock.
"""

from __future__ import annotations

from .. import interrupt, references, result, state
from ..cni import CURRENT_VERSION
from ..errors import INVALID_NETWORK_CONFIG, ShimError, warn
from ..netavark import convert, network, wire
from ..request import Request
from ..validate import addressing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..attaching import Attached
    from ..decoding import Json
    from ..netavark.wire import Exec


class Face:
    """One call of netavark, or of Podman, which calls `create` itself."""

    __slots__ = ("_arguments", "_attached", "_environ", "verb")

    def __init__(self, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.verb, *self._arguments = arguments
        # The caller may have inherited a CNI_COMMAND and the like.
        self._environ = {k: v for k, v in environ.items() if k == "CNI_PATH" or k[:4] != "CNI_"}

    def prepare(self) -> bool:
        """Refuse what can be refused before stdin is read; `info` does not read it."""
        wanted = 1 if self.verb in ("setup", "teardown") else 0
        if len(self._arguments) != wanted or not all(self._arguments):
            what = "the path of a network namespace" if wanted else "nothing"
            raise ShimError(INVALID_NETWORK_CONFIG, f"{self.verb} takes {what} as argument")
        return self.verb != "info"

    def answer(self, text: bytes) -> str:
        """Do what the caller asks for; give the text for stdout."""
        if self.verb == "info":
            return wire.format_info()
        if self.verb == "create":
            from . import netavark_create  # only for `create`, which runs once a network

            return netavark_create.complete(wire.decode_network(text), self._environ)
        asked = wire.decode_exec(text)
        if self.verb == "setup":
            from .. import attaching  # a setup does without DEL

            request = _request("ADD", asked, self._arguments[0], self._environ)
            self._attached = attaching.add(request)
            return _answer(asked, self._attached, self._arguments[0])
        _teardown(asked, self._arguments[0], self._environ)
        return ""

    def failure(self, error: ShimError, text: bytes) -> str:
        """Write an error as netavark reads it."""
        return wire.format_error(error)

    def undo(self) -> None:
        """Detach again, because the caller did not get the answer."""
        if self.verb == "setup":
            self._attached.undo()


def _answer(asked: Exec, attached: Attached, netns: str) -> str:
    try:
        answer = result.convert(attached.result, CURRENT_VERSION)
        _check_requests(asked, answer)
        return wire.format_status(answer, netns, asked.ifname)
    except BaseException:
        interrupt.disregard()
        # netavark does not tear down the driver that failed.
        try:
            attached.undo()
        except (ShimError, OSError) as error:
            warn(f"undoing a failed setup: {error}")
        raise


def _teardown(asked: Exec, netns: str, environ: Mapping[str, str]) -> None:
    """Detach with the setup's own input, even if files it was made from have changed."""
    from .. import detaching  # a teardown does without ADD

    request = _recall(asked, environ)
    if request is not None:
        detaching.delete(request)
        return
    # One teardown too many, or the attachment went with the last boot: nothing need be there.
    try:
        detaching.delete(_request("DEL", asked, netns, environ))
    except ShimError as error:
        warn(f"nothing is known about container {asked.container_id!r}: {error}")


def _recall(asked: Exec, environ: Mapping[str, str]) -> Request | None:
    """Make the request of the setup again; None where nothing is attached.

    The network may have got its `stateDir` after the setup.
    """
    from .. import recall, search  # not for a setup

    given = asked.network.get("options", {}).get("stateDir", "")
    # Podman calls from its own netns.
    part = references.index(state.IN_PLACE, asked.container_id, asked.ifname)
    for base in dict.fromkeys(state.base_dir(environ, each, part) for each in (given, "")):
        for _, record in search.records_in(base, asked.container_id, asked.ifname):
            request = recall.undoing(record, environ)
            if request is not None:
                return request
    return None


def _request(verb: str, asked: Exec, netns: str, environ: Mapping[str, str]) -> Request:
    """Make the request that a CNI runtime would make."""
    conf = network.configuration(asked.network, environ)
    path = network.cni_path(asked.network, environ)
    args = _args(asked)
    conf["runtimeConfig"] = _runtime_config(asked, conf, is_needed=verb == "ADD")
    if asked.options.get("options"):
        # For a wrapped driver; other plugins that know these keys find them as well.
        conf["args"] = {"netavark": {"options": asked.options["options"]}}
    variables = {
        "CNI_CONTAINERID": asked.container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": asked.ifname,
        "CNI_ARGS": args,
        "CNI_PATH": path,
    }
    return Request(
        verb,
        network=conf["name"],
        cni_version=conf["cniVersion"],
        conf=conf,
        environ={**environ, **variables},
        container_id=asked.container_id,
        netns=netns,
        ifname=asked.ifname,
        args=args,
        path=path,
    )


def _args(asked: Exec) -> str:
    """Write CNI_ARGS: for plugins that do not look at runtimeConfig."""
    pairs = {
        "K8S_POD_NAME": asked.container_name,
        "MAC": asked.options.get("static_mac", ""),
    }
    ips = asked.options.get("static_ips", [])
    if len(ips) == 1 and not network.is_by_caller(asked.network):
        pairs["IP"] = ips[0]
    # A plugin fails on an unknown key, unless it is told not to.
    written = ["IgnoreUnknown=1"]
    for key, value in pairs.items():
        if ";" in value or "=" in value:
            warn(f"{key} cannot be passed on, because it contains ; or =: {value!r}")
        elif value:
            written.append(f"{key}={value}")
    return ";".join(written)


def _runtime_config(asked: Exec, conf: Json, *, is_needed: bool) -> Json:
    ips = asked.options.get("static_ips", [])
    aliases = asked.options.get("aliases")
    offered: Json = {
        "aliases": {conf["name"]: aliases} if aliases else None,
        "mac": asked.options.get("static_mac"),
        "portMappings": convert.expand_ports(asked.ports),
    }
    if network.is_by_caller(asked.network):
        offered["ipam"] = _allocated(asked, conf, ips, is_needed=is_needed)
    else:
        offered["ips"] = ips
    return {key: value for key, value in offered.items() if value}


def _allocated(asked: Exec, conf: Json, ips: list[str], *, is_needed: bool) -> Json:
    """Write the caller's addresses as a configuration of `static`."""
    subnets = asked.network["subnets"]
    found, lost = addressing.match_subnets(ips, subnets)
    if is_needed and (lost or not ips):
        why = f"{', '.join(lost)} are in no subnet" if lost else "none are given"
        raise ShimError(INVALID_NETWORK_CONFIG, f"network_options.static_ips: {why}")
    addresses = []
    for ip, subnet in found.items():
        entry = {"address": f"{ip}/{subnet['subnet'].partition('/')[2]}"}
        if subnet.get("gateway"):
            entry["gateway"] = subnet["gateway"]
        addresses.append(entry)
    gateways = [entry["gateway"] for entry in addresses if "gateway" in entry]
    return {
        "type": "static",
        "addresses": addresses,
        "routes": network.routes(asked.network, conf, gateways),
    }


def _check_requests(asked: Exec, answer: Json) -> None:
    found = [i.get("mac") or "" for i in answer.get("interfaces") or [] if i.get("sandbox")]
    macs = [given for given in found if isinstance(given, str)]
    convert.check_requests("plugin", asked.options, result.addresses(answer), macs)
