# SPDX-License-Identifier: Apache-2.0
"""The one error type of the package and the codes it may carry.

Codes 1 to 99 are the CNI specification's (section 5, "Error"); 8 and 999 are not in its text but
in its reference library; 100 and above are ours: the specification leaves them to plugins.
"""

from __future__ import annotations

import sys

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_NETWORK_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
PLUGIN_MISBEHAVED = 100
PLUGIN_TIMED_OUT = 101
UPLINK_FAILED = 102
CANNOT_ENTER = 103
ALREADY_ATTACHED = 104
INTERRUPTED = 105
PORT_UNAVAILABLE = 106
NAMES_UNAVAILABLE = 107
INTERNAL = 999


class ShimError(Exception):
    """A failure with an answer for the runtime: a code, one sentence, and what explains it."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.details}" if self.details else self.message


class Stopped(Exception):
    """A signal told us to stop; the text says what was stopped, and by which signal.

    It is not a ShimError, so that code that goes on after a failure does not catch it.
    """


class PluginFailed(ShimError):
    """A delegated plugin answered with an error of its own, which reaches the runtime unchanged.

    `answer` is the text of the plugin's error object as it printed it.
    """

    def __init__(self, code: int, message: str, details: str, answer: str) -> None:
        super().__init__(code, message, details)
        self.answer = answer


class PinnedElsewhere(ShimError):
    """The shared netns is that of another user namespace, which this one can never enter."""


def in_few_words(what: str, problems: list[str], *, most: int = 50) -> tuple[str, str]:
    """Write problems, one or more, as message and details of one error: a line each.

    It has at most that many: a reader stops there, and a runtime may put them in a log line.
    """
    lines = [line if len(line) <= 1000 else line[:1000] + "…" for line in problems[:most]]
    if len(problems) == 1:
        return f"{what}: {lines[0]}", ""
    if len(problems) > most:
        lines.append(f"… and {len(problems) - most} more")
    return f"{what}: {len(problems)} problems", "\n".join(lines)


# The warnings of this call: if it fails, they may explain why.
warnings: list[str] = []


def warn(message: str) -> None:
    """Write one line for people to stderr, the only channel outside the protocol."""
    note(message)
    say(message)


def note(message: str) -> None:
    """Keep a line for the log, and for the error if the call fails: there is nothing to do."""
    warnings.append(message)


def say(message: str) -> None:
    """Write a line to stderr that says who has written it, and cannot harm a terminal."""
    line = shown(message, kept="\n")
    try:
        print(f"netns-shim: {line}", file=sys.stderr)
    except OSError:
        pass  # stderr is closed or broken, which is no reason to fail


def shown(text: object, *, kept: str = "") -> str:
    """Write a text from outside so that a terminal shows it and does nothing else.

    Control characters except those in `kept`, bytes that are not text, and characters that change
    the direction of writing become escapes.
    """
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode()
        for char in str(text)
    )
