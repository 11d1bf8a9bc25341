# SPDX-License-Identifier: Apache-2.0
"""Being a CNI plugin: turn a call that comes by the CNI wire into a call of a verb."""

from __future__ import annotations

from . import cni

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .errors import ShimError
    from .verbs import Attached

VERBS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


class Face:
    """One call of a CNI runtime."""

    __slots__ = ("_attached", "_environ", "verb")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.verb = environ.get("CNI_COMMAND", "")
        # What an ADD has made, see `verbs.Attached`.
        self._attached: Attached | None = None

    def prepare(self) -> bool:
        """Refuse a call that can be refused before stdin is read."""
        cni.check_environment(self._environ)
        return True

    def answer(self, text: bytes) -> str:
        """Call the function of `verbs` for what the runtime asks; give the text for stdout."""
        if self.verb == "VERSION":
            return cni.version_answer(text)
        from . import verbs  # half of all modules; VERSION, which runtimes ask often, does without

        request = cni.parse(self._environ, text)
        if self.verb == "DEL" and not cni.can_be_attached(request):
            return ""
        self._attached = getattr(verbs, VERBS[self.verb])(request)
        return "" if self._attached is None else cni.format_result(self._attached.result)

    def failure(self, error: ShimError, text: bytes) -> str:
        """Write an error as the specification has it."""
        return cni.format_error(error, cni.spoken_version(text))

    def undo(self) -> None:
        """Detach again, because the runtime did not get the result."""
        if self._attached is not None:
            self._attached.undo()
