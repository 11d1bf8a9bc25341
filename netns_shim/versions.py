# SPDX-License-Identifier: Apache-2.0
"""Which versions of the specification a plugin speaks: each executable is asked once.

The Go library compares versions as texts, so a plugin must be spoken to in one it names.
"""

from __future__ import annotations

import os

from . import cni, decoding, encoding, invoke
from .errors import INCOMPATIBLE_VERSION, PLUGIN_TIMED_OUT, PluginFailed, ShimError
from .state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The answer of Go plugins older than the verb VERSION; they speak only the first version.
UNKNOWN_VERB = "unknown CNI_COMMAND: VERSION"


class Versions:
    """The versions that plugins speak, as far as known; a file serves as a cache.

    The file maps a path to the identity of the executable and to its versions; the list is empty
    where the plugin gives no sensible answer.
    """

    __slots__ = ("_file", "_is_changed", "_known")

    def __init__(self, file: str | None) -> None:
        """Read the cache; without a file every plugin is asked again."""
        self._file = file
        self._is_changed = False
        self._known: dict[str, list[object]] = {}
        if file is not None:
            try:
                known = decoding.one(read_file(file))
            except (OSError, ValueError):
                return
            if isinstance(known, dict):
                self._known = known

    def of(self, plugin: invoke.Plugin, environ: Mapping[str, str]) -> list[str]:
        """List the versions a plugin speaks, as it says; empty where it does not say."""
        info = os.stat(plugin.path)
        # Not the time of the last modification: chmod(1) cures a plugin as well.
        identity = [info.st_dev, info.st_ino, info.st_ctime_ns, info.st_size]
        known = self._known.get(plugin.path)
        if isinstance(known, list) and known[:-1] == identity:
            spoken = known[-1]
            if isinstance(spoken, list) and _makes_sense(spoken):
                return [str(version) for version in spoken]
        versions = _ask(plugin, environ)
        if versions is None:
            return []  # maybe an accident: do not remember it
        self._known[plugin.path] = [*identity, versions]
        self._is_changed = True
        return versions

    def remember(self) -> None:
        """Write the cache; losing it costs time and nothing else."""
        if self._is_changed and self._file is not None:
            from .shared import files  # only where a plugin was asked

            try:
                files.write_atomically(self._file, encoding.compact(self._known))
            except OSError:
                pass


def _makes_sense(versions: list[object]) -> bool:
    # Without a version in common the plugin could not be called: it is worth asking again.
    return not versions or any(version in cni.SUPPORTED_VERSIONS for version in versions)


def choose(spoken: list[str], wanted: str, type_: str) -> str:
    """Choose the version to speak with a plugin: the wanted one, else the nearest, older first.

    A plugin that does not say what it speaks gets the wanted version, as from libcni, which never
    asks. Raises ShimError (code 1) where there is no version in common.
    """
    if wanted in spoken or not spoken:
        return wanted
    known = sorted({v for v in cni.SUPPORTED_VERSIONS if v in spoken}, key=_key)
    if not known:
        raise ShimError(
            INCOMPATIBLE_VERSION,
            f"plugin {type_!r} speaks no version of the CNI specification known here",
            f"it speaks {spoken}, known are {list(cni.SUPPORTED_VERSIONS)}",
        )
    older = [v for v in known if not at_least(v, wanted)]
    return older[-1] if older else known[0]


def at_least(version: str, minimum: str) -> bool:
    """Tell whether a version is the same as another or newer."""
    return _key(version) >= _key(minimum)


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _ask(plugin: invoke.Plugin, environ: Mapping[str, str]) -> list[str] | None:
    """Ask a plugin; empty where its answer has no versions, None where the call failed."""
    dummies = {"CNI_CONTAINERID": "", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_ARGS": ""}
    newest = cni.SUPPORTED_VERSIONS[-1]
    try:
        answer = plugin.call("VERSION", {**environ, **dummies}, {"cniVersion": newest})
    except PluginFailed as error:
        return ["0.1.0"] if error.message == UNKNOWN_VERB else []
    except ShimError as error:
        if error.code == PLUGIN_TIMED_OUT:
            raise
        return None
    if not isinstance(answer, dict):
        return []
    versions = answer.get("supportedVersions")
    if versions is None and answer.get("cniVersion") == "0.2.0":
        return ["0.1.0", "0.2.0"]
    if not isinstance(versions, list):
        return []
    return [v for v in versions if isinstance(v, str)]
