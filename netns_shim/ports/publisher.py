# SPDX-License-Identifier: Apache-2.0
"""What opens ports of the host: the interface of all publishers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..decoding import Json
    from .mappings import Binding


class Publisher:
    """One way to open ports of the host, for one attachment.

    `driver` is its name in records. `is_own` tells that it is a process of its own, which has a
    `number` in the shared netns.
    """

    driver = ""
    is_own = False
    number = 0

    @property
    def fields(self) -> Json:
        """What the record of the attachment has to say of it, so that ports can be closed."""
        return {"driver": self.driver}

    @property
    def is_running(self) -> bool:
        """Whether it still has open what it has opened; the uplink's ports end with the uplink."""
        return False

    def prepare(self) -> None:
        """Get ready, while this process is in the host's netns, to open ports later."""

    def open(self, wanted: Sequence[Binding]) -> None:
        """Open ports. Raises ShimError (code 106) where one cannot be, and leaves none open."""
        raise NotImplementedError

    def close(self, wanted: Sequence[Binding]) -> None:
        """Close ports; it does not matter whether they are open.

        Raises ShimError (code 106) where the program that has them open does not answer.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """End what `prepare` has made, if it still waits."""
