# SPDX-License-Identifier: Apache-2.0
"""Where state is kept, and whether that stays: XDG_RUNTIME_DIR, the user's session, linger."""

from __future__ import annotations

import os
import stat

from ... import enter, state
from ...errors import ShimError
from ...shared import mounts
from .check import OK, PROBLEM, SKIPPED, WARNING, Context, Result
from .ids import user_name

IN_MEMORY = ("tmpfs", "ramfs")
# What the state of one shared netns takes, with some to spare: bytes, and files.
ROOM, FILES = 256 << 10, 100
LINGER = "/var/lib/systemd/linger"


def runtime_directory(context: Context) -> Result:
    """Check the state directory: its owner, its mode, its file system."""
    try:
        state.is_private(context.base)
    except (ShimError, OSError) as error:
        return Result(PROBLEM, str(error), f"make it yours alone, or remove {context.base}")
    if not context.is_given and (result := _odd_variable(context)):
        return result
    parent = enter.existing_parent(context.base)
    if full := _full(parent):
        return full
    kind = file_system(parent)
    if kind not in IN_MEMORY:
        return Result(
            WARNING,
            f"{parent} is on {kind}: records of what is attached outlive a boot",
            "set XDG_RUNTIME_DIR to a directory on tmpfs, as systemd makes it at a log-in",
        )
    return Result(OK, f"{context.base}, on {kind}{_note(context)}")


def _full(place: str) -> Result | None:
    """Find that a file system has no room for what the first ADD writes."""
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    what = [f"{free >> 10} KiB"] if free < ROOM else []
    # Some file systems have no fixed number of files, and say 0.
    what += [f"{room.f_favail} files"] if room.f_files > 0 and room.f_favail < FILES else []
    if not what:
        return None
    return Result(PROBLEM, f"{place} has room for only {' and '.join(what)}", "make room there")


def _note(context: Context) -> str:
    given = context.environ.get("XDG_RUNTIME_DIR", "")
    if context.is_given:
        return ""
    if not given:
        return "; XDG_RUNTIME_DIR is not set"
    is_elsewhere = os.path.dirname(context.base) != given.rstrip("/")
    if is_elsewhere and state.user_id(context.environ) != "0":
        return f"; {given} is used once nothing is attached there"
    return ""


def _odd_variable(context: Context) -> Result | None:
    if not context.base:
        try:
            state.base_dir(context.environ)
        except ShimError as error:
            return Result(PROBLEM, str(error), "chmod 1777 /tmp (as root), or log in")
    given = context.environ.get("XDG_RUNTIME_DIR", "")
    is_ours = given.startswith("/") and state.owns(given, follow=True)
    if given and not is_ours and os.path.dirname(context.base) != given.rstrip("/"):
        return Result(
            WARNING,
            f"XDG_RUNTIME_DIR is {given}, which {_why_not(given)}: {context.base} is used",
            "unset it after su or sudo, or log in again",
        )
    runtime = f"/run/user/{state.outer_uid()}"
    if not given and os.path.basename(context.base) != "netns-shim" and not os.path.isdir(runtime):
        return Result(
            WARNING,
            f"XDG_RUNTIME_DIR is not set, and there is no {runtime}: {context.base} is used",
            f"log in again, or loginctl enable-linger {user_name()} (as root)",
        )
    mode = stat.S_IMODE(os.stat(given).st_mode) if is_ours else 0
    if mode & 0o077:
        return Result(
            WARNING,
            f"{given} has the mode {mode:04o}: it is open to others",
            f"chmod 0700 {given}",
        )
    return None


def _why_not(path: str) -> str:
    if not path.startswith("/"):
        return "is not an absolute path"
    try:
        info = os.stat(path)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not stat.S_ISDIR(info.st_mode):
        return "is not a directory"
    return f"belongs to user {info.st_uid}"


def file_system(path: str) -> str:
    """Tell the type of the file system that a path is on, see `mounts.Mount`.

    It goes by the number of the mount, not by its path: another mount may hide a longer path.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    return next((mount.kind for mount in mounts.table() if mount.number == int(number)), "?")


def user_session(context: Context) -> Result:
    """Check that the runtime directory is kept when the user logs out, loginctl(1)."""
    if not os.path.isdir("/run/systemd/system"):
        return Result(SKIPPED, "systemd does not run here")
    uid = state.outer_uid()
    if uid == "0":
        return Result(SKIPPED, "root needs none")
    user = user_name()
    advice = f"loginctl enable-linger {user} (as root)"
    if not os.path.exists(f"/run/user/{uid}/systemd/private"):
        return Result(
            WARNING,
            f"{user} has none: after su or sudo there is no runtime directory to rely on",
            f"log in by ssh or `machinectl shell`, or {advice}",
        )
    if not os.path.exists(f"{LINGER}/{user}"):
        return Result(
            WARNING,
            f"the last log-out of {user} removes the runtime directory, and ends the uplink",
            advice,
        )
    return Result(OK, f"{user} has one, which lingers after log-out")
