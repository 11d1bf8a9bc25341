# SPDX-License-Identifier: Apache-2.0
"""The life of a shared netns: made by the first reference, repaired, destroyed after the last.

All of it happens under one lock a netns, outside of it, in the outer mount namespace. The lock is
never held while a plugin runs. Its file is there only while it is held: filelock looks again at
the file after it got the lock, so removing it under the lock is safe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import filelock

from . import interrupt, netns, process, resolvconf, turn, uplink
from .errors import CANNOT_ENTER, TRY_AGAIN_LATER, ShimError, warn
from .libc import (
    CLONE_NEWNET,
    MNT_DETACH,
    MS_BIND,
    UMOUNT_NOFOLLOW,
    mount,
    umount2,
    unshare,
)
from .state import (
    is_alive,
    is_private,
    make_below,
    make_private,
    remove_special,
    start_time,
    write_atomically,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .state import State
    from .uplink import Uplink

LOCK_SECONDS = 60
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# What the policies of Fedora and its kin let iptables lock and write.
SELINUX_LABEL = b"system_u:object_r:iptables_var_run_t:s0\0"


def create(state: State, wanted: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Make the netns, unless somebody else just did; `wanted` is the configured uplink."""
    chosen = uplink.choose(wanted, environ)
    make_private(state.base)
    with _locked(state):
        if state.exists():
            return
        refuse_if_elsewhere(state)
        # What a creation or a destruction that was cut off has left.
        _clear(state)
        try:
            _make_directories(state)
            _pin(state)
            _connect(state, chosen)
            # Last: its presence says that all else is there.
            os.mkdir(state.refs, 0o700)
        except BaseException:
            interrupt.disregard()
            _clear(state)
            raise


def repair(state: State, wanted: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Mend a netns that has references: a pin that is none, an uplink that is gone.

    A failure leaves things as they were; a netns with references is never destroyed.
    """
    with _locked(state):
        if netns.identity(state.pin, is_ours=True) is None:
            refuse_if_elsewhere(state)
            _forget_other_boot(state)
            process.stop_name_server(state)
            _stop_uplink(state)
            _unpin(state)
            # In a new netns somebody is the first again.
            _remove_tree(state.path("started"))
            _make_directories(state)
            _pin(state)
            warn(
                f"the shared netns {state.name!r} was lost and has been made anew; "
                "what was attached to it before has to be attached again"
            )
        elif is_alive(state.uplink()):
            return
        else:
            warn(f"the uplink of the shared netns {state.name!r} was gone and is started again")
            _stop_uplink(state)
        _connect(state, uplink.choose(wanted, environ))


def destroy(state: State) -> None:
    """Remove a netns whose `refs/` has been removed, unless somebody made it anew meanwhile."""
    with _locked(state):
        if not os.path.isdir(state.refs):
            _clear(state)


@contextlib.contextmanager
def _locked(state: State) -> Iterator[None]:
    lock = filelock.FileLock(state.lock, mode=0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    what = f"the shared netns {state.name!r} is being made or removed by another process"
    while not lock.is_locked:
        # Not filelock's own waiting, as that is not to be interrupted by a signal.
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
            break
        turn.wait(deadline, what, state.lock)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(state.lock)
        lock.release()


def refuse_if_elsewhere(state: State) -> None:
    """Refuse to touch a netns that lives in a mount namespace other than ours."""
    record = state.uplink()
    if (
        netns.identity(state.pin, is_ours=True) is not None
        or record.get("driver") == "none"
        or not is_alive(record)
    ):
        return
    raise ShimError(
        CANNOT_ENTER,
        f"the shared netns {state.name!r} is pinned in another mount namespace",
        f"mnt:[{record.get('mountNamespace')}], where its uplink {record['driver']} was started "
        f"(PID {record['pid']}): run the container runtime there, or set another 'netns' or "
        "'stateDir'; if that session is over, end this process",
    )


def _forget_other_boot(state: State) -> None:
    """Drop what an earlier boot left: its attachments and their addresses are gone with it."""
    if state.uplink().get("bootID") == _boot_id():
        return
    for name in os.listdir(state.refs):
        path = f"{state.refs}/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # Those of calls that are going on, the caller's among them, are locked.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    for name in ("run", "var", "netavark"):
        _remove_tree(state.path(name))


def _make_directories(state: State) -> None:
    make_private(state.dir)
    for name in ("started", "var", "run"):
        remove_special(state.path(name))  # a link leads out of our directory
    for name in ("started", "var/lib/cni", "run"):
        make_below(state.dir, name)
    run = state.path("run")
    if os.path.exists("/sys/fs/selinux/enforce"):
        try:
            os.setxattr(run, "security.selinux", SELINUX_LABEL)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                warn(f"cannot label {run} for iptables: {error.strerror}")


def _pin(state: State) -> None:
    """Make a netns with its loopback up and hold it by a bind mount, as `ip netns` does."""
    os.close(os.open(state.pin, os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    # In a child, because this process has to stay in the host's netns.
    pid = os.fork()
    if pid == 0:
        try:
            unshare(CLONE_NEWNET)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            mount("/proc/self/ns/net", state.pin, None, MS_BIND)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == errno.EPERM:
        raise ShimError(
            CANNOT_ENTER,
            "this user namespace cannot mount",
            "it needs a mount namespace of its own: "
            "start it with unshare --user --map-root-user --map-auto --mount",
        )
    if code:
        raise OSError(abs(code), f"cannot make a netns: {os.strerror(abs(code))}", state.pin)


def _connect(state: State, chosen: Uplink) -> None:
    """Start the uplink, then write what is known of it and the resolv.conf that leads to it."""
    chosen.start(state)
    pid, interface, addresses = None, "", list[str]()
    if not isinstance(chosen, uplink.Nothing):
        from . import netlink  # imported while the uplink starts: it takes longer (190 ms)

        pid = chosen.wait(state)
        if chosen.ipv6:
            try:
                netlink.configure_ipv6(state.pin, *chosen.ipv6)
            except ShimError as error:
                warn(f"the shared netns has no IPv6: {error.details}")
        interface, addresses = netlink.uplink_interface(state.pin)
    # Only the forwarders of a family that the netns has can be reached.
    families = {":" in address for address in addresses}
    forwarders = [f for f in chosen.forwarders if (":" in f) in families]
    write_atomically(
        state.path("resolv.conf"), resolvconf.compose(forwarders, has_ipv6=True in families)
    )
    os.chmod(state.path("resolv.conf"), 0o644)
    record = {
        "driver": chosen.driver,
        "pid": pid,
        "startTime": start_time(pid) if pid else None,
        "bootID": _boot_id(),
        "mountNamespace": os.stat("/proc/self/ns/mnt").st_ino,
        "userNamespace": os.stat("/proc/self/ns/user").st_ino,
        "netns": os.stat(state.pin).st_ino,
        "interface": interface,
        "addresses": addresses,
        "dnsForwarders": forwarders,
        "hostAddresses": list(chosen.host_addresses),
    }
    write_atomically(state.path("uplink.json"), json.dumps(record, indent=2) + "\n")


def _stop_uplink(state: State) -> None:
    record = state.uplink()
    known = []
    if isinstance(record.get("pid"), int) and isinstance(record.get("startTime"), int):
        known.append((record["pid"], record["startTime"]))
    # One that was started and not yet written down when its starter was killed.
    for pid, since in dict.fromkeys([*known, *process.stray(state)]):
        process.stop(pid, since)


def _unpin(state: State) -> None:
    while True:
        try:
            umount2(state.pin, MNT_DETACH | UMOUNT_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            # EPERM: this mount namespace is not ours, so we have mounted nothing in it.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            break
    os.unlink(state.pin)


def _clear(state: State) -> None:
    """Remove all of a netns: the uplink first, as it may hold ports, then pin and files."""
    if not is_private(state.dir):
        return
    process.stop_name_server(state)
    _stop_uplink(state)
    _unpin(state)
    _remove_tree(state.dir)


def _remove_tree(directory: str) -> None:
    """Remove a directory, but never anything that is mounted below it."""
    if not os.path.isdir(directory) or os.path.islink(directory):
        # What is in the place of it is removed, and never what a link leads to.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory)
        return
    real = os.path.realpath(directory)
    for target in _mount_points():
        if target == real or target.startswith(real + "/"):
            raise ShimError(
                TRY_AGAIN_LATER, f"not removing {directory}", f"something is mounted on {target}"
            )
    shutil.rmtree(directory, ignore_errors=False)


def _mount_points() -> list[str]:
    """List the mount points of this mount namespace, proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    return [os.fsdecode(field.decode("unicode_escape").encode("latin-1")) for field in fields]


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
