# SPDX-License-Identifier: Apache-2.0
"""The resolv.conf of the shared netns: which servers can be reached from there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netns_shim.records import UplinkRecord
from netns_shim.shared import connect, resolvconf
from netns_shim.state import State


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the files of the host into a directory of the test's own."""
    monkeypatch.setattr(resolvconf, "RESOLV_CONF", str(tmp_path / "host"))
    monkeypatch.setattr(
        resolvconf, "BEHIND_STUBS", tuple(str(tmp_path / name) for name in ("resolved", "manager"))
    )
    return tmp_path


def compose(files: Path, host: str, *forwarders: str, ipv6: bool = True, **others: str) -> str:
    """Return what is composed from the files of a host."""
    for name, text in {"host": host, **others}.items():
        (files / name).write_text(text)
    return resolvconf.compose(list(forwarders), has_ipv6=ipv6)


def test_forwarder_is_first(files: Path) -> None:
    """The server of the uplink comes before those of the host, which keep their order."""
    text = compose(files, "nameserver 192.0.2.2\nnameserver 192.0.2.1\n", "169.254.1.1")

    assert text == "nameserver 169.254.1.1\nnameserver 192.0.2.2\nnameserver 192.0.2.1\n"


def test_search_and_options_are_kept(files: Path) -> None:
    """Search domains and options are those of the host."""
    host = "options ndots:2 rotate\nsearch a.example b.example\nnameserver 192.0.2.1\n"

    assert compose(files, host) == (
        "search a.example b.example\nnameserver 192.0.2.1\noptions ndots:2 rotate\n"
    )


@pytest.mark.parametrize(
    "host", ["search a\nsearch b c\n", "domain a\nsearch b c\n", "search a\ndomain b c\n"]
)
def test_last_search_counts(files: Path, host: str) -> None:
    """Of several search lines the last one counts, resolv.conf(5); `domain` is one of them."""
    assert compose(files, host) == "search b c\n"


def test_options_add_up(files: Path) -> None:
    """Several lines of options are all in force."""
    assert compose(files, "options ndots:2\noptions rotate\n") == (
        "options ndots:2\noptions rotate\n"
    )


def test_servers_are_named_once(files: Path) -> None:
    """A server is not asked twice."""
    host = "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"

    assert compose(files, host, "192.0.2.2") == "nameserver 192.0.2.2\nnameserver 192.0.2.1\n"


@pytest.mark.parametrize(
    "server", ["127.0.0.1", "127.0.0.53", "::1", "0.0.0.0", "::", "fe80::1%eth0", "nonsense"]
)
def test_servers_that_cannot_be_reached(files: Path, server: str) -> None:
    """The host's own loopback, links and mistakes are left out."""
    assert compose(files, f"nameserver {server}\nnameserver 192.0.2.1\n") == (
        "nameserver 192.0.2.1\n"
    )


@pytest.mark.parametrize(("ipv6", "expected"), [(True, "nameserver 2001:db8::1\n"), (False, "")])
def test_ipv6_servers(files: Path, ipv6: bool, expected: str) -> None:
    """Servers of IPv6 are there where the netns has IPv6."""
    assert compose(files, "nameserver 2001:db8::1\n", ipv6=ipv6) == expected


@pytest.mark.parametrize("stub", ["127.0.0.53", "127.0.0.1", "::1", "0.0.0.0"])
def test_servers_behind_a_stub(files: Path, stub: str) -> None:
    """Where the host asks a resolver of its own, the file of that resolver is read instead."""
    host = f"nameserver {stub}\nsearch host\noptions edns0\n"
    resolved = "# comment\nnameserver 192.0.2.53\nsearch real\n"

    text = compose(files, host, resolved=resolved, manager="nameserver 192.0.2.99\n")

    assert text == "search real\nnameserver 192.0.2.53\n"


def test_servers_behind_the_second_stub(files: Path) -> None:
    """A file behind a stub that names no server is passed over."""
    text = compose(
        files,
        "nameserver 127.0.0.1\n",
        resolved="search x\n",
        manager="nameserver 192.0.2.99\n",
    )

    assert text == "nameserver 192.0.2.99\n"


def test_no_stub_is_looked_behind_without_need(files: Path) -> None:
    """A host with servers of its own is believed."""
    text = compose(files, "nameserver 192.0.2.1\n", resolved="nameserver 192.0.2.53\n")

    assert text == "nameserver 192.0.2.1\n"


def test_nothing_is_invented(files: Path) -> None:
    """Where no server is known none is named: above all no public one."""
    assert compose(files, "nameserver 127.0.0.53\nsearch host\n") == "search host\n"


def test_host_without_a_file() -> None:
    """A host without the file has no servers but that of the uplink."""
    assert resolvconf.compose(["169.254.1.1"], has_ipv6=False) == "nameserver 169.254.1.1\n"


def test_odd_lines(files: Path) -> None:
    """Comments, indentation, other keywords and lines without a value are understood."""
    host = (
        "# nameserver 192.0.2.9\n; nameserver 192.0.2.8\n\tnameserver\t192.0.2.1 # mine\r\n"
        "nameserver 192.0.2.2 extra\nnameserver\nsortlist 192.0.2.0\nsearch a ; b\nnonsense\n\0\n"
    )

    assert compose(files, host) == "search a\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"


def test_file_that_is_no_text(files: Path) -> None:
    """Whatever is in the file, its readable lines count."""
    (files / "host").write_bytes(b"\xff\xfe\nnameserver 192.0.2.1\n")

    assert resolvconf.compose([], has_ipv6=False) == "nameserver 192.0.2.1\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(host=st.text())
def test_any_file(files: Path, host: str) -> None:
    """Any file gives lines of three kinds."""
    (files / "host").write_text(host, encoding="utf-8", errors="replace")

    text = resolvconf.compose(["169.254.1.1"], has_ipv6=True)

    assert {line.split()[0] for line in text.splitlines()} <= {"search", "nameserver", "options"}
    assert "nameserver 169.254.1.1\n" in text


def test_shorter_text(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is cut off while it writes less than was there has written all of it."""
    where, record = State(str(files), "default"), UplinkRecord()
    (files / "default").mkdir()
    file = Path(where.path("resolv.conf"))
    (files / "host").write_text("search example.test\nnameserver 192.0.2.1\n")
    assert connect.write_resolv_conf(where, record)
    seen = file.stat()
    (files / "host").write_text("nameserver 192.0.2.2\n")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            connect.write_resolv_conf(where, record)

    assert file.read_text().strip() == "nameserver 192.0.2.2"
    assert connect.write_resolv_conf(where, record)
    assert file.read_text() == "nameserver 192.0.2.2\n"
    assert not connect.write_resolv_conf(where, record)
    assert file.stat().st_ino == seen.st_ino  # where it is mounted, it is seen
    assert sorted(path.name for path in file.parent.iterdir()) == ["resolv.conf"]


def test_nothing_to_say(files: Path) -> None:
    """A host without name servers leads to a file that is not empty: that would be cut off."""
    where = State(str(files), "default")
    (files / "default").mkdir()

    assert connect.write_resolv_conf(where, UplinkRecord())
    assert not connect.write_resolv_conf(where, UplinkRecord())
    assert Path(where.path("resolv.conf")).read_text() == "\n"
    assert "resolv.conf" not in where.missing()
