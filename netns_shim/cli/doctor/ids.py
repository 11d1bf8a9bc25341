# SPDX-License-Identifier: Apache-2.0
"""Subordinate IDs, subuid(5), and the programs that map them, newuidmap(1)."""

from __future__ import annotations

import grp
import os
import pwd
import stat

from ... import state
from ...userns import start, subids
from .check import IN_PLACE, OK, PROBLEM, SKIPPED, WARNING, Context, Result

# How many IDs an image may use, which is also what distributions give to each user.
ENOUGH = 65536
# Where distributions begin with them, login.defs(5).
FIRST = 100000
CAP_SETGID = 6
CAP_SETUID = 7


def subordinate_ids(context: Context) -> Result:
    """Check that the user has subordinate IDs, and enough of them."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    if context.is_privileged:
        return _mapped()
    user = user_name()
    found = {kind: subids.found(kind, context.environ) for kind in subids.FILES}
    counts = {kind: _sum(subids.usable(kind, ranges)) for kind, ranges in found.items()}
    said = ", ".join(_say(kind, counts[kind], _sum(found[kind]), context) for kind in found)
    closed = [path for path in map(subids.FILES.get, found) if path and _is_closed(path)]
    if closed and not subids.is_elsewhere():
        why = f"{' and '.join(closed)} cannot be read: {said}"
        return Result(PROBLEM, why, f"chmod 0644 {' '.join(closed)} (as root)")
    lacking = [kind for kind, count in counts.items() if count < ENOUGH]
    none = [kind for kind, count in counts.items() if not count]
    if none:
        what = "none" if none == list(counts) else f"no {none[0]}s"
        return Result(PROBLEM, f"{user} has {what}: {said}", _cure(user, lacking))
    if lacking:
        why = f"{user} has few, and images want {ENOUGH}: {said}"
        return Result(WARNING, why, _cure(user, lacking))
    return Result(OK, f"{user} has {said}")


def _is_closed(path: str) -> bool:
    return os.path.exists(path) and not os.access(path, os.R_OK)


def _sum(ranges: list[subids.Range]) -> int:
    return sum(count for _, count in ranges)


def _say(kind: str, usable: int, written: int, context: Context) -> str:
    source = subids.source(kind, context.environ)
    place = f"from {source} for {kind}s" if source == subids.PROGRAM else f"in {source}"
    more = f" ({written} with duplicates and your own ID)" if written > usable else ""
    return f"{usable} {place}{more}"


def _cure(user: str, kinds: list[str]) -> str:
    """Say how the user gets subordinate IDs of these kinds that no user of this machine has."""
    if subids.is_elsewhere():
        return "ask the administrator of the source that /etc/nsswitch.conf names for some"
    first = free()
    if first + ENOUGH > _end():
        return (
            f"this container has no IDs from {_end()} on: give it more of them first, {ENOUGH} "
            "for each user"
        )
    numbers = f"{first}-{first + ENOUGH - 1}"
    options = " ".join(f"--add-sub{kind}s {numbers}" for kind in kinds)
    return f"usermod {options} {user} (as root)"


def free() -> int:
    """Find the first of ENOUGH IDs that no user has: as a subordinate one, or as their own."""
    taken = [
        (begin, count) for path in subids.FILES.values() for _, begin, count in subids.lines(path)
    ]
    taken += [(entry.pw_uid, 1) for entry in pwd.getpwall()]
    taken += [(group.gr_gid, 1) for group in grp.getgrall()]
    first = FIRST
    for begin, count in sorted(taken):
        if begin < first + ENOUGH and begin + count > first:
            first = begin + count
    return first


def _end() -> int:
    """Give the first ID that does not exist in this user namespace."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return max(sum(map(int, line.split()[::2])) for line in file)


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
            "install uidmap (Debian, Ubuntu) or shadow-utils (Fedora), again if it is there",
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
        return "is not set-uid root and has no file capabilities"
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
