# SPDX-License-Identifier: Apache-2.0
"""What every verb needs first: the configuration, the plugins, and where they are to run."""

from __future__ import annotations

from . import conf, enter, netns, references, shared, state
from .chain import Chain
from .request import Request
from .versions import Versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .references import Reference

    Json = dict[str, Any]

# What is remembered for plugins that run in place; no shared netns has a name with a dot first.
IN_PLACE = ".in-place"


class Call:
    """A request with its configuration and its plugins. Making it changes and enters nothing.

    `in_place` tells that the plugins work in the caller's own netns; else `state` is that of the
    shared netns, which need not exist yet, and `name` the name of the attachment's reference.
    """

    __slots__ = ("chain", "conf", "in_place", "name", "request", "state", "versions", "was_valid")

    def __init__(self, request: Request, *, in_place: bool | None = None) -> None:
        """Check the configuration and find the plugins.

        `in_place` is to be given by a caller that has entered a netns already and so cannot be
        asked where it came from. Raises ShimError for whatever is wrong.
        """
        self.request = request
        self.conf = conf.read(request.conf)
        self.in_place = netns.is_in_place(self.conf.enter) if in_place is None else in_place
        base = state.base_dir(request.environ, self.conf.state_dir)
        self.state = state.State(base, IN_PLACE if self.in_place else self.conf.netns)
        if state.is_private(base):
            state.is_private(self.state.dir)
        self.was_valid = conf.check(request.conf, self.state.stamps)
        self.versions = Versions(self.state.path("plugins.json"))
        self.chain = Chain(self.conf, request, self.versions)
        types = [plugin["type"] for plugin in self.conf.plugins]
        self.name = references.reference_name(
            request.network, request.container_id, request.ifname, types
        )

    def take(self) -> Reference:
        """Take the reference of the attachment; see `shared.take`."""
        return shared.take(self.state, self.name, self.conf.uplink, self.request.environ)

    def inside(self, fd: int | None) -> enter.Inside:
        """Give the context for plugins in an open netns, or in a new one with the same state."""
        keep = enter.paths_of(self.request)
        return enter.Inside(fd, enter.plan(self.state, self.request.environ, keep))

    def nowhere(self) -> enter.Inside:
        """Give the context for plugins when there is no shared netns: one that ends with us."""
        keep = enter.paths_of(self.request)
        return enter.Inside(None, enter.throwaway_plan(self.request.environ, keep))

    def remember(self) -> None:
        """Save the next call the validation, and asking the plugins for their versions.

        To be called while a reference is held: nothing may be written into a directory that is
        being removed.
        """
        if not self.was_valid:
            try:
                for directory in (self.state.base, self.state.dir, self.state.stamps):
                    state.make_private(directory)
            except OSError:
                return
            conf.remember(self.request.conf, self.state.stamps)
        self.versions.remember()


def cached(request: Request, record: Json) -> Call | None:
    """Make the DEL of an attachment from what its ADD was given; None where it was given nothing.

    A reference without a first line belongs to an ADD that was cut off before it did anything.
    """
    if not isinstance(record.get("conf"), dict):
        return None
    container_id, netns_path, ifname = record["containerID"], record["netns"], record["ifname"]
    variables = {
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns_path,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": record["args"],
        "CNI_PATH": record["path"],
    }
    cached = Request(
        "DEL",
        network=record["network"],
        cni_version=record["conf"].get("cniVersion") or "0.1.0",
        conf={k: v for k, v in record["conf"].items() if k != "prevResult"},
        environ={**request.environ, **variables},
        container_id=container_id,
        netns=netns_path,
        ifname=ifname,
        args=record["args"],
        path=record["path"],
    )
    return Call(cached, in_place=False)
