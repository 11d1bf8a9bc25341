# SPDX-License-Identifier: Apache-2.0
"""The command line of the binary `netavark`, and the document that it names."""

from __future__ import annotations

import os

from .. import skel
from ..errors import INVALID_NETWORK_CONFIG, ShimError

# Options of netavark that take a value, and whether that is a path.
WITH_PATH = ("-c", "--config", "-f", "--file", "-a", "--aardvark-binary", "--plugin-directory")
WITH_VALUE = (*WITH_PATH, "-r", "--rootless", "--firewall-driver")


class Arguments:
    """The arguments of the binary: `command`, its own `argument`, and the `paths` in options."""

    def __init__(self, words: list[str]) -> None:
        # The indices of the command and its argument in the words.
        self._places: list[int] = []
        self.paths: list[str] = []
        self.file = ""
        rest = iter(enumerate(words))
        for place, word in rest:
            name, equals, value = word.partition("=")
            if not name.startswith("-"):
                self._places.append(place)
                continue
            if not name.startswith("--"):
                name, equals, value = word[:2], word[2:], word[2:].removeprefix("=")
            if name in WITH_VALUE and not equals:
                _, value = next(rest, (0, ""))
            if name in WITH_PATH:
                self.paths.append(value)
            if name in ("-f", "--file"):
                self.file = value
        self.words = words
        self.command, self.argument = [*(words[place] for place in self._places), "", ""][:2]

    def with_argument(self, argument: str, command: str = "") -> list[str]:
        """Give the words with another argument, and another command if one is given."""
        words = list(self.words)
        words[self._places[0]] = command or self.command
        words[self._places[1]] = argument
        return words

    def read(self) -> bytes:
        """Read the document for netavark: the file that is named, or stdin.

        Raises ShimError (code 7) where that cannot be read.
        """
        if not self.file:
            return skel.read(0)
        fd = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return skel.read(fd)
        except OSError as error:
            what = f"cannot read {self.file}"
            raise ShimError(INVALID_NETWORK_CONFIG, what, str(error)) from None
        finally:
            os.close(fd)
