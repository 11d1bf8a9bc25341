# SPDX-License-Identifier: Apache-2.0
"""`netns-shim completion`: the code with which a shell completes the other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

SUMMARY = "Print the code by which a shell completes commands, options and names."
SHELLS = ("bash", "zsh", "fish")
PROGRAM = "netns-shim"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "shell",
        choices=SHELLS,
        help='bash and zsh: eval "$(netns-shim completion bash)"; '
        "fish: netns-shim completion fish | source",
    )


def main(arguments: argparse.Namespace) -> int:
    """Print the code."""
    print(code(arguments.shell))
    return 0


def code(shell: str) -> str:
    """Make the code for a shell."""
    from argcomplete import shell_integration  # the other commands do without it

    shellcode = shell_integration.shellcode
    made: str = shellcode([PROGRAM], shell=shell)
    if shell == "zsh" and not made:
        # argcomplete before 3.0 (Debian 12 has 2.0) does not know zsh, but zsh reads bash's code.
        made = "autoload -U +X bashcompinit && bashcompinit\n" + shellcode([PROGRAM])
    return made
