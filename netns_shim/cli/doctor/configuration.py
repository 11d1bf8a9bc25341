# SPDX-License-Identifier: Apache-2.0
"""The checks of one configuration: is it valid, and does everything that it names exist?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ... import cni, conf, invoke, kept, versions
from ...errors import ShimError
from ...netavark import driver, program, translate
from ...shared import uplink
from ...validate import conflist
from ..directories import export
from .check import (
    IN_PLACE,
    NO_ENTRY,
    OK,
    PROBLEM,
    SKIPPED,
    WARNING,
    Context,
    File,
    Result,
    installed,
    worst,
)
from .plugins import ONE
from .uplinks import examine_pasta, examine_slirp4netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...decoding import Json


def _problems(entry: Json) -> list[str]:
    from ...validate import explain  # only where there is a configuration

    return explain.problems(entry)


def validity(context: Context) -> Result:
    """Check that the configuration is valid."""
    file = _file(context)
    if file.problem:
        is_others = file.problem == NO_ENTRY
        advice = (
            f"netns-shim wrap {file.path}"
            if is_others
            else "name another file, or correct this one"
        )
        return Result(PROBLEM, f"{file.path}: {file.problem}", advice)
    problems = [line for entry in file.entries for line in _problems(entry)]
    if problems:
        said = f"{file.path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        return Result(PROBLEM, said, "correct the file", tuple(problems))
    entries = "entry" if len(file.entries) == 1 else f"{len(file.entries)} entries"
    return Result(OK, f"{file.path}: its {entries} of netns-shim can be used")


def plugins(context: Context) -> Result:
    """Check that the named plugins exist, and speak a suitable version."""
    wanted = list(_wanted_plugins(context))
    if not wanted:
        return Result(SKIPPED, "the configuration names none")
    known = versions.Versions(None)
    problems, found = [], []
    for type_, version in dict.fromkeys(wanted):
        try:
            plugin = invoke.Plugin(type_, context.plugin_path, ONE)
            spoken = known.of(plugin, context.environ)
            chosen = versions.choose(spoken, version, type_)
        except ShimError as error:
            problems.append(str(error))
        else:
            if spoken:
                found.append(f"{plugin.path}: called with CNI {chosen}")
            else:
                problems.append(f"{plugin.path}: does not say which versions it speaks")
    if problems:
        advice = "install what is missing, or set CNI_PATH as the runtime does"
        return _problem(problems, advice)
    names = ", ".join(dict.fromkeys(type_ for type_, _ in wanted))
    own = [one for one in installed(context.environ) if one not in conflist.PLUGIN_DIRS]
    if own and not context.environ.get("CNI_PATH") and any(f"{own[0]}/" in line for line in found):
        advice = f"tell the runtime where the plugin is: {export(own[0])}"
        return Result(OK, names, advice, tuple(found))
    return Result(OK, names, details=tuple(found))


def drivers(context: Context) -> Result:
    """Check that the named drivers exist and run."""
    problems, found = [], []
    for entry, read in _entries(context):
        if "driver" not in entry:
            continue
        try:
            known = versions.Versions(None)
            chosen = driver.Driver(entry, read, context.plugin_path, context.environ, known, "")
            chosen.timeout = ONE
            chosen.call("STATUS", context.environ, {})
            path = program.find(entry, read.plugin_dirs, context.environ)
        except ShimError as error:
            problems.append(str(error))
            continue
        if entry.get("dns_enabled") and not program.aardvark(path):
            problems.append(f"{entry['driver']}: dns_enabled, but there is no aardvark-dns")
        found.append(f"{entry['driver']} ({path})")
    if problems:
        return _problem(problems, "install what is missing, or set pluginDirs")
    if not found:
        return Result(SKIPPED, "the configuration names none")
    return Result(OK, ", ".join(found))


def uplinks(context: Context) -> Result:
    """Check that the named uplinks can be started, and that their programs run."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    results = []
    for _, read in usable(context):
        try:
            uplink.check(read.uplink, context.environ)
        except ShimError as error:
            return Result(PROBLEM, error.message, error.details or "correct the configuration")
        chosen = uplink.choose(read.uplink, context.environ)
        if chosen.driver == "none":
            results.append(Result(OK, "the configuration asks for none"))
        elif chosen.driver == "pasta":
            results.append(examine_pasta(chosen.path, context.environ))
        else:
            results.append(examine_slirp4netns(chosen.path, context.environ, is_needed=True))
    return worst(results) or Result(SKIPPED, "the configuration cannot be used")


def paths(context: Context) -> Result:
    """Check that the paths that are to stay visible exist, and lie where others are hidden."""
    keep = [path for _, read in usable(context) for path in read.keep]
    missing = [f"{path} is not there" for path in keep if not os.path.exists(path)]
    if missing:
        return Result(WARNING, ", ".join(missing), "start the daemon, or correct `keep`")
    useless = [path for path in keep if not kept.Paths([path]).list()]
    if useless:
        return Result(WARNING, f"visible without `keep`: {', '.join(useless)}", "correct `keep`")
    return Result(OK, ", ".join(keep)) if keep else Result(SKIPPED, "the configuration names none")


def _problem(problems: list[str], advice: str) -> Result:
    if len(problems) == 1:
        return Result(PROBLEM, problems[0], advice)
    return Result(PROBLEM, f"{len(problems)} problems", advice, tuple(problems))


def _file(context: Context) -> File:
    assert context.file is not None
    return context.file


def usable(context: Context) -> Iterator[tuple[Json, conf.Configuration]]:
    """Read the usable entries, and give each with what was read; `validity` reports the others."""
    for entry in _file(context).entries:
        if not _problems(entry):
            yield entry, conf.read(entry)


def _entries(context: Context) -> Iterator[tuple[Json, conf.Configuration]]:
    for _, read in usable(context):
        for entry in read.plugins:
            yield entry, read


def _wanted_plugins(context: Context) -> Iterator[tuple[str, str]]:
    """List the named types, each with the version of its configuration."""
    file = _file(context)
    version = _version(file)
    entries = [entry for entry, _ in _entries(context)]
    for entry in [*entries, *file.others]:
        if "driver" in entry:
            ipam: Any = translate.ipam_of(entry)
        else:
            ipam = entry.get("ipam")
            if isinstance(entry.get("type"), str):
                yield entry["type"], version
        if isinstance(ipam, dict) and isinstance(ipam.get("type"), str) and ipam["type"]:
            yield ipam["type"], version
    for entry in file.entries:
        if isinstance(entry.get("type"), str) and not _problems(entry):
            yield entry["type"], version


def _version(file: File) -> str:
    for entry in file.entries:
        if entry.get("cniVersion") in cni.SUPPORTED_VERSIONS:
            return str(entry["cniVersion"])
    return cni.OLDEST_VERSION
