#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write docs/netns-shim.1, the manual page, from the parser of the commands.

    .venv/bin/python scripts/manpage.py

A test tells when it has to be run again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "netns-shim.1"
sys.path.insert(0, str(ROOT))

from netns_shim import __version__, cli, log  # noqa: E402 (the path comes first)

HEAD = r"""
.SH NAME
netns\-shim \- run CNI plugins inside a shared rootless network namespace
.SH SYNOPSIS
.B netns\-shim
.I COMMAND
.RI [ ARGUMENT ]...
.SH DESCRIPTION
A CNI runtime calls
.B netns\-shim
without arguments, as a plugin: it makes a network namespace that belongs to the user,
joins it to the outside with
.BR pasta (1)
or
.BR slirp4netns (1),
and runs other plugins in there. Podman calls it as a plugin of netavark. docs/reference.md says
what a configuration can contain, and so does the schema that
.B netns\-shim schema
prints. You call it with one of these commands.
.SH COMMANDS
""".lstrip()

TAIL = r"""
.SH EXIT STATUS
0 if all went well, 1 if something failed or is wrong, 2 if the arguments are wrong.
.B run
and
.B unshare
exit with the status of the command, or with 128 plus the number of the signal that has ended it.
.SH ENVIRONMENT
.TP
.B XDG_RUNTIME_DIR
The state is in the directory
.I netns\-shim
in there, if a configuration has no
.B stateDir
and nothing is attached elsewhere.
.TP
.B NETNS_SHIM_LOG
The absolute path of a file to which each call of a plugin appends a line, or a level
(@LEVELS@), a colon and the path. It wins over the keys
.BR logFile " and " logLevel .
.TP
.B NO_COLOR
If it is set to anything, the commands print no colors.
.SH FILES
.TP
.I $XDG_RUNTIME_DIR/netns\-shim/NAME/
The state of the shared network namespace NAME, as long as it is up.
.SH EXAMPLES
Rewrite a network that you have, so that it runs through the shim, and check the file:
.PP
.RS
.nf
netns\-shim wrap /etc/cni/net.d/mine.conflist >wrapped.conflist
netns\-shim validate wrapped.conflist
.fi
.RE
.PP
Look into the shared network namespace:
.PP
.RS
.nf
netns\-shim run \-\- ip address
.fi
.RE
.SH SEE ALSO
.BR pasta (1),
.BR slirp4netns (1),
.BR unshare (1),
.BR network_namespaces (7),
.BR user_namespaces (7)
""".lstrip()


def page() -> str:
    """Write the whole page."""
    parser = cli.make_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines = ['.\\" Written by scripts/manpage.py: change the commands, or that.']
    lines.append(f'.TH NETNS\\-SHIM 1 "" "netns\\-shim {escape(__version__)}" "User Commands"')
    lines.append(HEAD.rstrip("\n"))
    for name, command in commands.choices.items():
        lines += of_command([name], command)
    lines.append(TAIL.rstrip("\n").replace("@LEVELS@", ", ".join(log.LEVELS)))
    return "\n".join(lines) + "\n"


def of_command(names: list[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    """Write a command: how it is called, what it does, what it takes."""
    actions = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    inner = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
    plain = [a for a in actions if a not in inner]
    yield f".SS {escape(' '.join(names))}"
    yield " ".join([f"\\fB{escape(' '.join(['netns-shim', *names]))}\\fR", *map(usage, plain)])
    yield ".PP"
    yield text(parser.description or "")
    formatter = argparse.HelpFormatter("netns-shim")
    for action in plain:
        if action.help and action.help != argparse.SUPPRESS:
            yield ".TP"
            yield heading(action)
            yield text(formatter._expand_help(action))
    for action in inner:
        for name, command in action.choices.items():
            yield from of_command([*names, name], command)


def value(action: argparse.Action) -> str:
    """Write the value of an argument as a person is to read it."""
    if action.nargs == 0:
        return ""
    if action.choices and not action.metavar:
        return "|".join(f"\\fB{escape(str(choice))}\\fR" for choice in action.choices)
    metavar = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    return f"\\fI{escape(str(metavar))}\\fR"


def heading(action: argparse.Action) -> str:
    """Write an argument with all its names."""
    names = ", ".join(f"\\fB{escape(name)}\\fR" for name in action.option_strings)
    return " ".join(filter(None, [names, value(action)]))


def usage(action: argparse.Action) -> str:
    """Write an argument as it stands in the line of a call."""
    if action.option_strings:
        called = f"\\fB{escape(action.option_strings[-1])}\\fR"
        written = " ".join(filter(None, [called, value(action)]))
        return written if action.required else f"[{written}]"
    written = value(action)
    if action.nargs in ("+", "*"):
        written += "..."
    return f"[{written}]" if action.nargs in ("?", "*") else written


def text(words: str) -> str:
    """Write a text: what stands in backticks is bold."""
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escape(words))


def escape(words: str) -> str:
    """Write characters that mean something to roff(7) as themselves."""
    words = words.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", words)


if __name__ == "__main__":
    PAGE.write_text(page())
