# SPDX-License-Identifier: Apache-2.0
"""Whether this user can have a user namespace, user_namespaces(7), and mount in it."""

from __future__ import annotations

import errno
import os

from ... import libc, netns
from ...errors import ShimError
from ...userns import start
from .. import programs
from .check import IN_PLACE, OK, PROBLEM, SKIPPED, WARNING, Context, Result

# How to allow user namespaces again: sysctls of the kernel, of Debian, of AppArmor in Ubuntu.
CURES = {
    "user.max_user_namespaces": "sysctl -w user.max_user_namespaces=28633",
    "kernel.unprivileged_userns_clone": "sysctl -w kernel.unprivileged_userns_clone=1",
    "kernel.apparmor_restrict_unprivileged_userns": "give the container runtime an AppArmor "
    "profile that allows `userns`, or "
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
}
AS_ROOT = "as root, and in /etc/sysctl.d to keep it"


def user_namespaces(context: Context) -> Result:
    """Check that user namespaces are allowed, by making one."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    if context.is_privileged:
        if netns.is_initial_userns():
            return Result(SKIPPED, "root needs none")
        return Result(OK, "you are root of one already")
    # First: inside of a new user namespace, the limit is another one.
    forbidding = start.forbidding()
    said = ", ".join(f"{name} is {value}" for name, value in forbidding.items())
    cure = "; ".join(f"{CURES[name]} ({AS_ROOT})" for name in forbidding)
    try:
        enter()
    except OSError as error:
        why = f"{error.strerror}; {said}" if said else str(error.strerror)
        return Result(PROBLEM, f"cannot be made: {why}", cure or _guess(error))
    if said:
        return Result(WARNING, f"one can be made here, but {said}: others may be refused", cure)
    return Result(OK, "one can be made")


def _guess(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"raise user.max_user_namespaces ({AS_ROOT}), or nest them less deeply"
    return (
        "a security module, or the container or chroot that this runs in, forbids it: "
        "look into its policy and the kernel's log"
    )


def enter() -> None:
    """Move this process for good into namespaces in which it may mount and make rules.

    It becomes root of a user namespace of one ID, unless it has the power already. OSError if it
    may not.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
    except PermissionError:
        libc.unshare(libc.CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
    # AppArmor allows a user namespace, but gives it no power.
    libc.mount(None, "/", None, libc.MS_SLAVE | libc.MS_REC)


def session(context: Context) -> Result:
    """Check that the command of the README works, with subordinate IDs."""
    if context.is_privileged:
        why = "root needs none" if netns.is_initial_userns() else "you are root of one already"
        return Result(SKIPPED, IN_PLACE if context.is_in_place else why)
    path = programs.find("unshare", context.environ)
    if not path:
        return Result(SKIPPED, "unshare, with which to try, is not installed")
    options = ["--user", "--map-root-user", "--map-auto", "--mount"]
    try:
        programs.output(path, [*options, "true"], context.environ)
    except ShimError as error:
        if "unrecognized option '--map-auto'" in error.details:
            return Result(
                SKIPPED, "unshare is too old to try with: util-linux 2.38 has --map-auto"
            )
        why = error.details.removeprefix("stderr: ") or error.message
        return Result(
            PROBLEM,
            f"unshare cannot make one with all IDs: {why}",
            "see the checks above for what is missing",
        )
    return Result(OK, f"`unshare {' '.join(options)}` works")


def mounts(context: Context) -> Result:
    """Check that the network namespace can be pinned in the mount namespace of this process."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    if not context.is_privileged:
        return Result(SKIPPED, "the shim makes a mount namespace for them")
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(libc.ns_userns(fd))
    except PermissionError:
        return Result(
            PROBLEM,
            "this user namespace cannot mount: it has no mount namespace of its own",
            "start it with `netns-shim unshare -- RUNTIME`",
        )
    finally:
        os.close(fd)
    return Result(OK, "can be made in this mount namespace")
