# SPDX-License-Identifier: Apache-2.0
"""Making and writing directories and files of ours; a warm call only reads them, see `state`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from ..state import FILE_MODE, MAXIMUM_FILE, is_private


def make_private(path: str) -> None:
    """Make a directory of mode 0700, parents included; an existing one must be ours."""
    if is_private(path):
        return
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        is_private(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        make_private(path)


def read_text(path: str) -> str:
    """Read a file of the host, such as /etc/subuid; OSError where it is no file, or is missing.

    From a pipe in its place we would wait for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="replace") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        return file.read(MAXIMUM_FILE)


def write_atomically(path: str, text: str) -> None:
    """Write a file of FILE_MODE by a temporary file and rename(2).

    The temporary file has one name for all writers, so that killed ones do not leave more and more
    of them. Raises BlockingIOError where another process is writing the same file.
    """
    temporary = f"{path}.new"
    remove_special(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(temporary, flags, FILE_MODE)
    with open(fd, "w", encoding="utf-8") as file:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last process with the lock may have given the file its final name.
        if not _is_at(fd, temporary):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        try:
            os.ftruncate(fd, 0)
            file.write(text)
            file.flush()
            os.rename(temporary, path)
        except OSError as error:
            error.filename = path  # for a person who makes room
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise


def remove_special(path: str) -> None:
    """Remove an object at the path of a file that is neither a file nor a directory."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            os.unlink(path)
    except FileNotFoundError:
        pass


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def file_at(path: str) -> tuple[int, int] | None:
    """Give what tells a file from all others, device and inode; None where it is missing."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def is_same(path: str, other: str) -> bool:
    """Tell whether two paths name the same entry of a directory, which may be gone.

    One user's calls may spell a path in several ways: /var/run is a link to /run.
    """
    if path == other:
        return True
    (directory, name), (its_directory, its_name) = os.path.split(path), os.path.split(other)
    where = file_at(directory)
    return name == its_name and where is not None and where == file_at(its_directory)
