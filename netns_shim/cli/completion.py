# SPDX-License-Identifier: Apache-2.0
"""`netns-shim completion`: what a shell has to read so that it completes the other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argcomplete.shell_integration import shellcode

if TYPE_CHECKING:
    import argparse

SUMMARY = "Print the code by which a shell completes commands, names and options."
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
    print(shellcode([PROGRAM], shell=arguments.shell))
    return 0
