# SPDX-License-Identifier: Apache-2.0
"""Being a CNI plugin: turn a call that comes by the CNI wire into a call of a verb."""

from __future__ import annotations

from . import cni

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .attaching import Attached
    from .errors import ShimError

# The functions of `verbs`.
SELDOM = {"CHECK": "check", "GC": "gc", "STATUS": "status"}


class Face:
    """One call of a CNI runtime."""

    __slots__ = ("_attached", "_environ", "verb")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.verb = environ.get("CNI_COMMAND", "")
        # What an ADD has made, see `attaching.Attached`.
        self._attached: Attached | None = None

    def prepare(self) -> bool:
        """Refuse a call that can be refused before stdin is read."""
        cni.check_environment(self._environ)
        return True

    def answer(self, text: bytes) -> str:
        """Do what the runtime asks for; give the text for stdout.

        VERSION, which runtimes ask often, does without half of all modules.
        """
        if self.verb == "VERSION":
            return cni.version_answer(text)
        request = cni.parse(self._environ, text)
        if self.verb == "ADD":
            from . import attaching  # an ADD does without DEL

            self._attached = attaching.add(request)
            return cni.format_result(self._attached.result)
        if self.verb == "DEL":
            if cni.can_be_attached(request):
                from . import detaching  # a DEL does without ADD

                detaching.delete(request)
            return ""
        from . import verbs  # runtimes call the others seldom

        getattr(verbs, SELDOM[self.verb])(request)
        return ""

    def failure(self, error: ShimError, text: bytes) -> str:
        """Write an error as the specification has it."""
        return cni.format_error(error, cni.spoken_version(text))

    def undo(self) -> None:
        """Detach again, because the runtime did not get the result."""
        if self._attached is not None:
            self._attached.undo()
