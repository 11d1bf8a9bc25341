# SPDX-License-Identifier: Apache-2.0
"""What every verb needs first: the configuration, the plugins, and where they are to run."""

from __future__ import annotations

import os

from . import conf, enter, log, references, state
from .attachment import ReferenceName
from .chain import Chain
from .errors import ShimError
from .place import InPlace, Shared, is_in_place
from .request import Request
from .versions import Versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .first import First
    from .place import Place
    from .turn import Beside, Turn


class Call:
    """A request with its configuration, its plugins and its place.

    Making it changes and enters nothing. `name` is that of the attachment's reference.
    """

    __slots__ = ("chain", "conf", "name", "place", "request", "versions", "was_valid")

    def __init__(self, request: Request, where: Place | None = None) -> None:
        """Check the configuration and find the plugins.

        `where` is its place if that is known. Raises ShimError for whatever is wrong.
        """
        self.request = request
        log.about(request)
        self.conf = conf.read(request.conf)
        self.place = request.place = where or request.place or self._place()
        state_of = self.place.state
        if state.is_private(state_of.base):
            state.is_private(state_of.dir)
        self.was_valid = conf.check(request.conf, state_of.stamps)
        self.versions = Versions(state_of.path("plugins.json"))
        kinds = [entry.get("driver") or entry["type"] for entry in self.conf.plugins]
        self.name = ReferenceName.of(request.network, request.container_id, request.ifname, kinds)
        request.environ = {**request.environ, **references.mark(state_of, self.name)}
        self.chain = Chain(self.conf, request, self.versions, state_of.path("netavark"))

    def _place(self) -> Place:
        environ = self.request.environ
        base = state.base_dir(environ, self.conf.state_dir)
        if is_in_place(self.conf.enter, base):
            return InPlace(state.State(base, state.IN_PLACE))
        return Shared(state.State(base, self.conf.netns), self.conf.uplink, environ)

    def inside(self, fd: int | None) -> enter.Inside | enter.Unchanged:
        """Give the context for plugins in the open netns of the place."""
        return self.place.inside(fd, enter.paths_of(self.request))

    def nowhere(self) -> enter.Inside | enter.Unchanged:
        """Give the context for plugins where the place has no netns."""
        return self.place.nowhere(enter.paths_of(self.request))

    def turn(self) -> First | Turn | Beside:
        """Give the context in which this call has its turn among others; see `first`."""
        return self.place.turn(self.request, self.conf)

    def remember(self) -> None:
        """Save the next call the validation, and asking the plugins for their versions.

        To be called while a reference is held: nothing may be written into a directory that is
        being removed.
        """
        if not self.was_valid:
            stamps = self.place.state.stamps
            try:
                # No parents: what `netns-shim stop` has removed meanwhile must not come back.
                if not state.is_private(stamps):
                    os.mkdir(stamps, 0o700)
            except FileExistsError:
                pass  # another call was faster
            except (OSError, ShimError):
                return
            conf.remember(self.request.conf, stamps)
        self.versions.remember()
