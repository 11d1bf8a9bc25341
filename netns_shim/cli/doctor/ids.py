# SPDX-License-Identifier: Apache-2.0
"""Subordinate IDs, subuid(5), and the programs that map them, newuidmap(1)."""

from __future__ import annotations

import os
import pwd
import stat

from ... import state
from ...errors import ShimError
from ...userns import start, subids
from .. import programs
from .check import IN_PLACE, OK, PROBLEM, SKIPPED, WARNING, Context, Result

# How many IDs an image may use, which is also what distributions give to each user.
ENOUGH = 65536
CAP_SETGID = 6
CAP_SETUID = 7


def subordinate_ids(context: Context) -> Result:
    """Check that the user has subordinate IDs, and enough of them."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    if context.is_privileged:
        return _mapped()
    user = user_name()
    found = {f"sub{kind}": _count(kind, user, context) for kind in ("uid", "gid")}
    said = ", ".join(f"{count} in /etc/{file}" for file, count in found.items())
    advice = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user} (as root)"
    if min(found.values()) == 0:
        return Result(PROBLEM, f"{user} has none: {said}", advice)
    if min(found.values()) < ENOUGH:
        why = f"{user} has few, and images want {ENOUGH}: {said}"
        return Result(WARNING, why, advice)
    return Result(OK, f"{user} has {said}")


def user_name() -> str:
    """Give the user's name outside of this user namespace, or the number."""
    uid = state.outer_uid()
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return uid


def _mapped() -> Result:
    counts = {}
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            counts[kind] = sum(int(line.split()[2]) for line in file)
    said = f"{counts['uid']} user and {counts['gid']} group IDs are mapped here"
    if min(counts.values()) < ENOUGH:
        advice = "start it with `netns-shim unshare -- RUNTIME`"
        return Result(WARNING, f"{said}, and images want {ENOUGH}", advice)
    return Result(OK, said)


def _count(kind: str, user: str, context: Context) -> int:
    names = {user, state.outer_uid()}
    if _is_elsewhere():
        path = programs.find("getsubids", context.environ)
        options = ["-g", user] if kind == "gid" else [user]
        try:
            lines = programs.output(path, options, context.environ).splitlines() if path else []
        except ShimError:
            lines = []
        # Lines like "0: user 100000 65536".
        return sum(_number(line.split()[-1]) for line in lines if line.split())
    return sum(count for _, count in subids.ranges(subids.FILES[kind], names))


def _is_elsewhere() -> bool:
    """Tell whether the IDs come from another source than the files, nsswitch.conf(5)."""
    for line in _lines("/etc/nsswitch.conf"):
        key, _, value = line.partition("#")[0].partition(":")
        if key.strip() == "subid":
            return value.split() not in ([], ["files"])
    return False


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readlines()
    except OSError:
        return []


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def mappers(context: Context) -> Result:
    """Check that newuidmap and newgidmap exist and have the privileges that they need."""
    if context.is_privileged:
        why = IN_PLACE if context.is_in_place else "the IDs are mapped already"
        return Result(SKIPPED, why)
    found, problems = [], []
    for name, capability in (("newuidmap", CAP_SETUID), ("newgidmap", CAP_SETGID)):
        path = start.trusted(name, context.environ)
        problem = _problem(path, capability) if path else "is not installed"
        if problem:
            problems.append(f"{path or name} {problem}")
        found.append(path)
    if problems:
        return Result(
            PROBLEM,
            "; ".join(problems),
            "install uidmap (Debian, Ubuntu) or shadow-utils (Fedora) again, as root",
        )
    if _has_no_new_privileges():
        return Result(
            PROBLEM,
            "set-uid programs have no effect in this process",
            "it was started with no_new_privs: by systemd's NoNewPrivileges= or in a container",
        )
    return Result(OK, " and ".join(found))


def _problem(path: str, capability: int) -> str:
    info = os.stat(path)
    is_setuid = bool(info.st_mode & stat.S_ISUID) and info.st_uid == 0
    if not is_setuid and not _permits(path, capability):
        return "is neither set-uid root nor has it file capabilities"
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return "is on a file system that is mounted nosuid"
    return ""


def _permits(path: str, capability: int) -> bool:
    """Tell whether a file has a capability, of those up to 31: capabilities(7)."""
    try:
        value = os.getxattr(path, "security.capability")
    except OSError:
        return False
    return bool(int.from_bytes(value[4:8], "little") >> capability & 1)


def _has_no_new_privileges() -> bool:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return "NoNewPrivs:\t1\n" in file.readlines()
