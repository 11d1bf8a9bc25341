# SPDX-License-Identifier: Apache-2.0
"""Where the state of a user is, whichever way the user has come, and where new state goes.

A log-in has a runtime directory, cron and `su` have none, and a service may have its own /tmp. The
first place that is in use counts, in a fixed order, so all find what any of them has made. A warm
call does not come here: see `state.base_dir`.
"""

from __future__ import annotations

import os
import stat

from .. import netns, state
from ..errors import IO_FAILURE, ShimError
from ..shared import processes
from .record import HolderRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TEMPORARY = "/tmp"


def choose(environ: Mapping[str, str], part: str = "") -> str:
    """Give the state directory that has `part`, or its netns, or else the first that is in use.

    Where none is, it is where new state goes: in the runtime directory, else in /tmp, where
    TMPDIR counts only if /tmp cannot be used. For root it is always in /run. Raises ShimError
    where none can be made, and OSError where an error hides what is there.
    """
    used = in_use(environ)
    if len(used) > 1 and part:
        for wanted in (part, f"{part.partition('/')[0]}/refs"):
            for base, top in used.items():
                if os.path.lexists(f"{top}/{wanted}"):
                    return base
    return next(iter(used), "") or _new(environ)


def in_use(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the state directories of this user in which something is attached, the first first.

    The value is the path by which this process can read it: that of another mount namespace leads
    through /proc.
    """
    found = {base: base for base in _candidates(environ) if _is_used(base)}
    for base, top in _held_elsewhere():
        if base not in found and _is_used(top):
            found[base] = top
    return found


def is_usual(base: str, environ: Mapping[str, str]) -> bool:
    """Tell whether a state directory is where this environment has it, without a `stateDir`."""
    return base in _candidates(environ)


def _candidates(environ: Mapping[str, str]) -> list[str]:
    uid = state.user_id(environ)
    found = [*state.usual(environ, uid)]
    if uid == "0":
        return found
    for directory in dict.fromkeys((TEMPORARY, _given(environ))):
        if directory:
            found += _numbered(directory, uid)
            runtimes = [f"{directory.rstrip('/')}/{name}{uid}" for name in state.MADE_UP]
            found += [f"{path}/netns-shim" for path in runtimes if state.owns(path)]
    return list(dict.fromkeys(found))


def _given(environ: Mapping[str, str]) -> str:
    given = environ.get("TMPDIR", "")
    return os.path.normpath(given) if given.startswith("/") else ""


def _numbered(directory: str, uid: str) -> list[str]:
    """List the state directories of a user in a directory for temporary files, by their numbers.

    Another user may have taken the name, so that there is a number behind it.
    """
    plain = f"netns-shim-{uid}"
    try:
        names = [name for name in os.listdir(directory) if name.startswith(plain)]
    except OSError:
        names = [plain]  # it may be searched, but not read
    numbers = {0 if name == plain else _number(name, plain) for name in names}
    paths = [_path(directory, uid, number) for number in sorted(numbers) if number >= 0]
    return [path for path in paths if state.owns(path)]


def _number(name: str, plain: str) -> int:
    """Read the number behind a name; -1 where it is written as `_path` would not."""
    digits = name.removeprefix(f"{plain}-")
    is_ours = digits.isascii() and digits.isdigit() and digits[0] != "0" and len(digits) < 10
    return int(digits) if is_ours else -1


def _path(directory: str, uid: str, number: int) -> str:
    end = f"-{number}" if number else ""
    return f"{directory.rstrip('/')}/netns-shim-{uid}{end}"


def _is_used(base: str) -> bool:
    """Tell whether something is attached in a state directory, or a pause process is of it."""
    if not state.owns(base):
        return False
    names = os.listdir(base)
    return state.HOLDER in names or any(_is_up(base, name) for name in names)


def _is_up(base: str, name: str) -> bool:
    """Tell whether there is a shared netns of that name, or something attached in place."""
    try:
        held = os.listdir(f"{base}/{name}/refs")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(held) or name != state.IN_PLACE


def _held_elsewhere() -> Iterator[tuple[str, str]]:
    """Find state by the pause process of this user: its arguments and its record say where.

    So it is found if XDG_RUNTIME_DIR or TMPDIR were others then, or its /tmp is another one.
    """
    if netns.is_privileged():
        return  # it can use what is pinned in its own mounts only
    for pid, path in holders():
        top = f"/proc/{pid}/root{os.path.dirname(path)}"
        try:
            record = HolderRecord.read(state.read_file(f"{top}/{state.HOLDER}"))
        except OSError:
            continue  # it is gone
        if record.pid == pid and record.is_usual and record.is_alive:
            yield os.path.dirname(path), top


def holders() -> Iterator[tuple[int, str]]:
    """Find the pause processes of this user: the ID of each, and the path of its record."""
    from . import start  # not where state is found by its place

    told = [word.encode() for word in start.arguments("")]
    here = os.readlink("/proc/self/ns/user")
    for pid in processes.ids():
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(1 << 13).split(b"\0")
            if words[:2] != told[:2] or len(words) != len(told) + 1:
                continue
            is_elsewhere = os.readlink(f"/proc/{pid}/ns/user") != here
            if is_elsewhere and words[2].endswith(f"/{state.HOLDER}".encode()):
                yield pid, os.fsdecode(words[2])
        except OSError:
            continue  # it has ended


def _new(environ: Mapping[str, str]) -> str:
    uid = state.user_id(environ)
    if uid == "0" or state.runtime_directories(environ, uid):
        return next(state.usual(environ, uid))
    problems = []
    for directory in filter(None, dict.fromkeys((TEMPORARY, _given(environ)))):
        if why := _why_not(directory):
            problems.append(f"{directory} {why}")
        else:
            return _free(directory, uid)
    raise ShimError(
        IO_FAILURE,
        "there is no place for the state directory",
        f"{'; '.join(problems)}: set XDG_RUNTIME_DIR to a directory of yours, of mode 0700",
    )


def _why_not(directory: str) -> str:
    """Tell why no state can be made in a directory for temporary files; "" where it can."""
    try:
        mode = os.stat(directory).st_mode
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    if not os.access(directory, os.W_OK | os.X_OK):
        return "is not writable"
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return f"has the mode {stat.S_IMODE(mode):04o}, so others can replace what is in it"
    return ""


def _free(directory: str, uid: str) -> str:
    """Give the first name in a directory that is this user's, or not there.

    Another user who takes names does not keep us out: there is always a next one.
    """
    number = 0
    while True:
        path = _path(directory, uid, number)
        if state.owns(path) or not os.path.lexists(path):
            return path
        number += 1
