# SPDX-License-Identifier: Apache-2.0
"""What a hostile or careless caller sends, and calls of the faces within the process of the test.

Nothing is entered, as all configurations say `enter: never`; so a call costs milliseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
from fake_netavark import NETNS
from hypothesis import strategies as st

from netns_shim import as_cni, cni, errors, interrupt, skel
from netns_shim.faces import netavark_plugin

Json = dict[str, Any]
Place = tuple[str | int, ...]

# A fake that answers a verb, of CNI or of netavark, with the file of that name beside it, and ends
# with the status in another. It takes a tenth of the time of those in Python.
ANSWERING = """#!/bin/sh
verb=${CNI_COMMAND:-$1}
cat >/dev/null
[ ! -e "$0.$verb" ] || cat "$0.$verb"
[ ! -e "$0.$verb.status" ] || read -r status <"$0.$verb.status"
exit "${status:-0}"
"""
SPOKEN = {"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}
RESULT: Json = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": NETNS}],
    "ips": [{"address": "10.89.8.2/24", "gateway": "10.89.8.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.89.8.1"}],
    "dns": {"nameservers": ["192.0.2.53"], "domain": "example", "search": ["example"]},
}
STATUS: Json = {
    "interfaces": {
        "eth0": {
            "mac_address": "02:00:00:00:00:01",
            "subnets": [{"ipnet": "10.89.8.2/24", "gateway": "10.89.8.1"}],
        }
    },
    "dns_server_ips": ["192.0.2.53"],
    "dns_search_domains": ["example"],
}
SUBNET: Json = {"subnet": "10.89.8.0/24", "gateway": "10.89.8.1"}


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


# What stands in the place of a value: of every type, and odd ones of each.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**4200, 0.5, -1e308),
    *("", " ", ".", "..", "/", "../x", "/bin/sh", "a:b", "a\n", "\0", "x\0y", "\x1b[2J"),
    *("\ud800", "\udcff", "é", "名", "x" * 300, "x" * 5000, "-f", "1.0.0", "eth0", "1::2:::/64"),
    *("10.0.0.1", "10.0.0.1/99", "0", "true", "netns-shim", "ADD"),
    *([], [None], [0], [""], [[]], [{}], ["x", "x"], nested(50), nested(300), nested(940)),
    *({}, {"": None}, {"x": {}}, {"type": 0}, {"driver": []}, {"cni": 0}, {"\ud800": "\0"}),
]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """List the places of all values in a document."""
    yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*place, index))


def replaced(value: Any, place: Place, new: Any) -> Any:
    """Return a document with another value in a place; one that is not there changes nothing."""
    if not place:
        return new
    if isinstance(value, dict) and place[0] in value:
        return {**value, place[0]: replaced(value[place[0]], place[1:], new)}
    if isinstance(value, list) and isinstance(place[0], int) and place[0] < len(value):
        return [
            replaced(item, place[1:], new) if index == place[0] else item
            for index, item in enumerate(value)
        ]
    return value


def damaged(value: Any, but: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Choose a document in which one value, or two, are something else.

    What is below the keys `but` stays.
    """
    chosen = [place for place in places(value) if place[:1] not in [(key,) for key in but]]
    change = st.tuples(st.sampled_from(chosen), st.sampled_from(VALUES))
    return st.lists(change, min_size=1, max_size=2).map(lambda changes: _changed(value, changes))


def _changed(value: Any, changes: list[tuple[Place, Any]]) -> Any:
    for place, new in changes:
        value = replaced(value, place, new)
    return value


# What a program may print, or a file hold, that is not a document at all, or is one and more.
TEXTS = [
    *(b"", b" ", b"\0", b"\n\n", b"{", b"nonsense", b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN"),
    *(b"{}{}", b"{}{}{}{}{}{}{}{}{}", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":1e999}', b"1" * 5000),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'"\xed\xa0\x80"', b'{"code":', b"x" * 70_000),
]


def text(value: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Choose a text: a document as it is written, or what is none."""
    written = value.map(lambda document: json.dumps(document).encode())
    return st.one_of(written, written, written, st.sampled_from(TEXTS), st.binary(max_size=30))


def answering(directory: Path, name: str, **answers: Any) -> Path:
    """Write a fake that answers verbs with texts or documents."""
    path = directory / name
    if not path.exists():
        fakes.executable(path, ANSWERING)
    for verb, answer in answers.items():
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        Path(f"{path}.{verb}").write_bytes(data)
    return path


def ending(directory: Path, name: str, verb: str, status: int) -> None:
    """Have a fake end a verb with an exit status."""
    (directory / f"{name}.{verb}.status").write_text(f"{status}\n")


def serve(face: Any, stdin: bytes) -> tuple[int, bytes]:
    """Serve a call; give the exit status and what was on stdout."""
    interrupt.heed()  # whose pipe stays
    before = _descriptors()
    given, printed = os.memfd_create("stdin"), os.memfd_create("stdout")
    try:
        with open(given, "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(given, 0, os.SEEK_SET)
        status = skel.serve(face, given, printed)
        return status, os.pread(printed, os.fstat(printed).st_size, 0)
    finally:
        # As the end of a process does, with the locks that they hold.
        for fd in _descriptors() - before:
            os.close(fd)


def _descriptors() -> set[int]:
    # The one that the listing itself takes is closed again by now.
    found = os.listdir("/proc/self/fd")
    return {int(fd) for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")}


def by_cni(verb: str, directory: Path, stdin: bytes, **variables: str) -> tuple[int, bytes]:
    """Serve a call of a CNI runtime."""
    environ = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": NETNS,
        "CNI_NETNS_OVERRIDE": "1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
        **variables,
    }
    return serve(as_cni.Face(environ), stdin)


def by_netavark(*words: str, directory: Path, stdin: bytes) -> tuple[int, bytes]:
    """Serve a call of netavark."""
    environ = {"XDG_RUNTIME_DIR": str(directory), "PATH": str(directory)}
    return serve(netavark_plugin.Face(list(words), environ), stdin)


def checked(answer: tuple[int, bytes], *, is_own: bool = True) -> Json | None:
    """Check what a CNI runtime was answered; give the error, None for success.

    One that is not our own is a plugin's, with a code of its own.
    """
    status, printed = answer
    if status == 0:
        assert not printed or isinstance(json.loads(printed), dict)
        return None
    error: Json = json.loads(printed)
    assert status == 1
    assert type(error["code"]) is int
    assert isinstance(error["msg"], str)
    assert error["msg"] or not is_own
    # A plugin's own error is passed on as it is, and null there is read as no details.
    assert isinstance(error.get("details", "") or "", str)
    if is_own:
        assert error.get("details") != ""
        assert error.get("details", "") is not None
        assert set(error) <= {"cniVersion", "code", "msg", "details"}
        assert error["cniVersion"] in cni.SUPPORTED_VERSIONS
        assert 0 < error["code"] < errors.INTERNAL, error
    assert len(printed) < 200_000
    return error


def checked_netavark(answer: tuple[int, bytes]) -> str:
    """Check what netavark was answered; give the error, "" for success."""
    status, printed = answer
    if status == 0:
        assert not printed or isinstance(json.loads(printed), dict)
        return ""
    error = json.loads(printed)
    assert status == 1
    assert list(error) == ["error"]
    assert isinstance(error["error"], str)
    assert "bug in netns-shim" not in error["error"], error
    assert len(printed) < 200_000
    return str(error["error"])
