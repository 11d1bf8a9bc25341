# SPDX-License-Identifier: Apache-2.0
"""Small checks of the values of a JSON document, which find all problems at once.

They are for documents that every call reads, where jsonschema would take longer than the call. A
*kind* takes a value and its place, and yields sentences that begin with the place.
"""

from __future__ import annotations

import ipaddress
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..decoding import Json

    Kind = Callable[[Any, str], Iterator[str]]


MAXIMUM_PORT = 0xFFFF


def text(value: Any, place: str) -> Iterator[str]:
    """Accept a string that can be an argument, a variable or a path: without NUL, in UTF-8."""
    if not isinstance(value, str):
        yield f"{place}: must be a string, is {_show(value)}"
    elif "\0" in value or not _is_encodable(value):
        yield f"{place}: holds what is no character, is {_show(value)}"


def flag(value: Any, place: str) -> Iterator[str]:
    """Accept true and false."""
    if not isinstance(value, bool):
        yield f"{place}: must be true or false, is {_show(value)}"


def number(maximum: int) -> Kind:
    """Accept integers of 0 to a maximum."""

    def check(value: Any, place: str) -> Iterator[str]:
        if type(value) is not int or not 0 <= value <= maximum:
            yield f"{place}: must be an integer of 0 to {maximum}, is {_show(value)}"

    return check


def parsed(parse: Callable[[str], object], what: str) -> Kind:
    """Accept strings that a function parses without ValueError; `what` is their name."""

    def check(value: Any, place: str) -> Iterator[str]:
        try:
            if not isinstance(value, str):
                raise ValueError
            parse(value)
        except ValueError:
            yield f"{place}: must be {what}, is {_show(value)}"

    return check


def _subnet(value: str) -> None:
    _interface(value)
    ipaddress.ip_network(value, strict=False)


def _interface(value: str) -> None:
    # `ipaddress` also accepts an address alone, or with a mask; Go and Rust do not.
    prefix = value.partition("/")[2]
    if not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(value)
    ipaddress.ip_interface(value)


port = number(MAXIMUM_PORT)
address = parsed(ipaddress.ip_address, "an IP address")
subnet = parsed(_subnet, "a subnet with its prefix length")
interface_address = parsed(_interface, "an address with its prefix length")


def list_of(kind: Kind) -> Kind:
    """Accept lists of a kind."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{place}: must be a list, is {_show(value)}"
            return
        for index, item in enumerate(value):
            yield from kind(item, f"{place}[{index}]")

    return check


def map_of(kind: Kind) -> Kind:
    """Accept objects with any keys whose values are of a kind."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{place}: must be an object, is {_show(value)}"
            return
        for key, item in value.items():
            yield from kind(item, f"{place}.{key}")

    return check


def record(required: dict[str, Kind], optional: dict[str, Kind]) -> Kind:
    """Accept objects with these keys; null counts as absent, and other keys are ignored."""

    def check(value: Any, place: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{place or 'it'}: must be an object, is {_show(value)}"
            return
        prefix = f"{place}." if place else ""
        for key, kind in {**required, **optional}.items():
            if value.get(key) is not None:
                yield from kind(value[key], prefix + key)
            elif key in required:
                yield f"{prefix}{key}: is missing"

    return check


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"


def present(value: Json) -> Json:
    """Leave out the keys that are null, which netavark writes for absent ones."""
    return {key: item for key, item in value.items() if item is not None}
