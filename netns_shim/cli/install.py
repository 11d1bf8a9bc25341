# SPDX-License-Identifier: Apache-2.0
"""`netns-shim install`: put the plugin into a plugin directory.

The launcher is a file of its own, because the scripts that pip makes cannot pass options to the
interpreter: with -IS it starts in a third of the time, and no variable of the caller's environment
changes what is imported.
"""

from __future__ import annotations

import compileall
import grp
import importlib.util
import os
import pwd
import stat
import sys
from typing import TYPE_CHECKING

from ..errors import IO_FAILURE, ShimError, warn
from ..main import NETAVARK_COMMANDS
from ..netavark import program
from . import directories

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SUMMARY = "Install the plugin where runtimes of CNI, or netavark, find it."
# What the launcher has to find; what these need in their turn is beside them.
LIBRARIES = ("argcomplete", "filelock", "graphviz", "jsonschema", "pyroute2", "rich", "rpds")
# What a plugin does without: only commands need these, and rpds only jsonschema from 4.18 on.
OPTIONAL = ("argcomplete", "filelock", "graphviz", "rich", "rpds")
MARK = "# Written by netns-shim install."
# In the launchers that a package of the distribution brings: see scripts/launcher.py.
PACKAGED = "# Part of the package netns-shim of the distribution."
PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# Where the distribution has Python libraries, for any version of its interpreter.
DIST_PACKAGES = "/usr/lib/python3/dist-packages"
INTERPRETER = "/usr/bin/python3"
# The end of a launcher. Where our modules cannot be loaded, it has to answer by itself. So FAILED
# imports nothing, and any Python 3 can read it. It is a string, which costs a call no compiling.
START = r'''FAILED = r"""
why = f"{type(error).__name__}: {error}"
if getattr(error, "errno", 0) in (23, 24) or "open files" in why:
    cure = "raise the limit of open files (ulimit -n)"
elif isinstance(error, MemoryError) or "memory" in why or "failed to map" in why:
    cure = "raise the limit of memory (ulimit -v)"
elif isinstance(error, (EOFError, TypeError, ValueError)) or "is not a file" in why:
    cure = "remove the directories __pycache__ of netns_shim: files in there are damaged"
else:
    cure = "install netns-shim again, and call `netns-shim install`"
cure += f" (Python {sys.version.split()[0]}; modules are in {', '.join(sys.path)})"
message = f"netns-shim cannot be loaded: {why}"
if sys.argv[0].endswith("/netavark") or " ".join(sys.argv[1:2]) in NETAVARK_COMMANDS:
    answer = '{"error":"%s: %s"}'
elif sys.argv[1:]:
    sys.exit(f"netns-shim: {message}: {cure}")
else:
    answer = '{"cniVersion":"1.0.0","code":5,"msg":"%s","details":"%s"}'


def escaped(text):
    codes = ["\\u%04x" % min(ord(c), 65533) for c in text]  # surrogates would come in pairs
    return "".join(c if " " <= c <= "~" and c not in '"\\' else u for c, u in zip(text, codes))


print(answer % (escaped(message), escaped(cure)))
sys.exit(1)
"""

gc.disable()  # a call ends before there is anything to collect
try:
    for name in ("__init__", "main", "finder"):
        code = f"{PLACE}/netns_shim/__pycache__/{name}.{sys.implementation.cache_tag}.pyc"
        if os.path.exists(code) and not os.path.isfile(code):
            raise ValueError(f"{code} is not a file")  # Python would wait for a pipe
    from netns_shim.main import run
except Exception as error:
    exec(FAILED)
run()
'''.replace("NETAVARK_COMMANDS", str(NETAVARK_COMMANDS))
# What fits into the first line of a script, execve(2).
MAXIMUM_SHEBANG = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    directories.add_arguments(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace a file that is something else"
    )


def main(arguments: argparse.Namespace) -> int:
    """Write the launcher and say where it is; on stderr, how a runtime is told of that."""
    name = arguments.name or directories.NAMES[arguments.kind]
    directory = arguments.directory or directories.candidates(arguments.kind, os.environ)[0]
    if not arguments.directory and directory == directories.OF_NETAVARK:
        packaged = f"{directories.PACKAGED_NETAVARK}/{name}"
        directory = os.path.dirname(packaged) if is_packaged(packaged) else directory
    # At once: what is to be set comes after it, also where both streams go to one file.
    print(install(directory, name, force=arguments.force), flush=True)
    if not arguments.directory:
        told = directories.hint(arguments.kind, directory, os.environ)
        print(told, end="\n" if told else "", file=sys.stderr)
    return 0


def install(directory: str, name: str, *, force: bool) -> str:
    """Write the launcher by temporary file and rename; give its path.

    Raises ShimError where the name is no plain file name, or another file is in the way.
    """
    check_name(name)
    path = os.path.join(os.path.abspath(directory), name)
    of_package = is_packaged(path)
    if not force and of_package:
        if os.path.dirname(PACKAGE) == DIST_PACKAGES:
            return path  # it is this one's already
        if not os.path.islink(path):  # a link is replaced, and what it leads to is not
            raise ShimError(
                IO_FAILURE, f"{path} is the distribution's netns-shim", "name another directory"
            )
    if os.path.isdir(path) and not os.path.islink(path):
        raise ShimError(IO_FAILURE, f"{path} is a directory", "remove it, or take another --name")
    if not force and os.path.lexists(path) and not of_package and not is_launcher(path):
        raise ShimError(IO_FAILURE, f"{path} is something else", "use --force to replace it")
    os.makedirs(directory, exist_ok=True)
    text = launcher()
    # Users whose plugin this is may not be able to write the byte code of the modules themselves.
    compileall.compile_dir(PACKAGE, quiet=2)
    _write(path, text)
    return path


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o755)
            file.write(os.fsencode(text))
            file.flush()
            os.fsync(fd)  # half a file would be in the way of every call
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_name(name: str) -> None:
    """Refuse a name that is not a file name, or cannot be shown; ShimError (code 5)."""
    if "/" in name or name in ("", ".", "..") or not name.isprintable():
        raise ShimError(IO_FAILURE, f"not a name for a plugin: {name!r}")


def launcher() -> str:
    """Write the text of the launcher for this package, interpreter and set of libraries."""
    files = [PACKAGE, *map(_place, LIBRARIES)]
    paths = list(dict.fromkeys(os.path.dirname(file) for file in files if file))
    # The name that outlives an upgrade of the distribution: calls need nothing but our modules.
    interpreter = os.path.realpath(sys.executable)
    is_distribution = interpreter == os.path.realpath(INTERPRETER)
    interpreter = INTERPRETER if is_distribution else interpreter
    is_any = is_distribution and paths == [DIST_PACKAGES]
    shebang = f"#!{interpreter} -IS"
    if " " in interpreter or len(os.fsencode(shebang)) > MAXIMUM_SHEBANG:
        raise ShimError(
            IO_FAILURE,
            "the path of the interpreter does not fit into the first line of a script",
            interpreter,
        )
    if os.geteuid() == 0 and not is_any:
        for path in [interpreter, *paths]:
            _warn_if_private(path)
        _warn_of_writers([interpreter, *filter(None, files)])
    return text(interpreter, MARK, path_of(paths))


def text(interpreter: str, mark: str, path: str) -> str:
    """Write a launcher: there is no other source of one.

    `mark` is a comment that says who has written it. `path` are the lines that tell Python where
    the modules are, with PLACE, the directory that has the package.
    """
    return f"#!{interpreter} -IS\n{mark}\nimport gc\n{path}{START}"


def path_of(paths: list[str]) -> str:
    """Write the lines of a launcher for modules that are in these directories."""
    return f"import os\nimport sys\n\nsys.path += {paths!r}\nPLACE = {paths[0]!r}\n"


def _place(library: str) -> str:
    """Find the directory of a library without importing it, which for all takes 200 ms.

    "" where an optional one is missing.
    """
    found = importlib.util.find_spec(library)
    if found is not None and found.origin is not None:
        return os.path.dirname(found.origin)
    if library in OPTIONAL:
        return ""
    raise ModuleNotFoundError(f"No module named {library!r}", name=library)


def is_launcher(path: str) -> bool:
    """Tell whether a file is a launcher that was written here. The script of pip is not."""
    return _is_marked(path, MARK)


def is_packaged(path: str) -> bool:
    """Tell whether a file is a launcher that a package of the distribution has brought."""
    return _is_marked(path, PACKAGED)


def _is_marked(path: str, mark: str) -> bool:
    if not os.path.isfile(path):
        return False  # a pipe may have no end
    try:
        with open(path, encoding="utf-8") as file:
            is_marked = mark in file.read(4096).splitlines()[:3]
    except (OSError, UnicodeDecodeError):
        return False
    return is_marked and program.is_shim(path)


def _warn_if_private(path: str) -> None:
    """Warn about a directory that other users cannot enter: the plugin would be root's alone."""
    for parent in _parents(path):
        if not os.stat(parent).st_mode & stat.S_IXOTH:
            warn(f"only {parent}'s owner can use the plugin: {path} is below it")
            return


def _warn_of_writers(paths: list[str]) -> None:
    """Warn if others than root can change what a plugin that root calls would run."""
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        for place in (*_below(real), real, *_parents(real), *_parents(path)):
            if place in seen:
                continue
            seen.add(place)
            if writer := _writer(os.stat(place)):
                warn(
                    f"{writer} can change {place}, and so decides what root runs with this "
                    "plugin: install the package as root"
                )
                return


def _writer(found: os.stat_result) -> str:
    """Tell who besides root can change a file or directory; "" for none."""
    if found.st_uid:
        return f"the user {found.st_uid}"
    if found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "every user"
    if found.st_mode & stat.S_IWGRP and found.st_gid and _has_members(found.st_gid):
        return f"the group {found.st_gid}"
    return ""


def _has_members(gid: int) -> bool:
    """Tell whether a group has members: Debian's group staff may write, and has none."""
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:
        return True  # its members are not known here
    return bool(members) or any(user.pw_gid == gid and user.pw_uid for user in pwd.getpwall())


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _below(path: str) -> Iterator[str]:
    """List what is in a directory, but what is not there: a link may lead to nothing."""
    for directory, _, files in os.walk(path):
        yield from (p for p in (f"{directory}/{f}" for f in ("", *files)) if os.path.exists(p))
