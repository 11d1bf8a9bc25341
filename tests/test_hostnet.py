# SPDX-License-Identifier: Apache-2.0
"""What of the host's network an uplink needs before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import bench
import pytest
from diagnosis import ask
from runtime import DUAL, PLUGIN, Runtime, bridge, page, until

from netns_shim import hostnet

ROUTE = b"0" * 32 + b" 00 " + b"0" * 32 + b" 00 " + b"fe80" + b"0" * 28
ROUTE += b" 00000400 00000001 00000000 00000003     eth0\n"
LINK_LOCAL = b"fe80" + b"0" * 27 + b"1 02 40 20 80     eth0\n"
GLOBAL = b"2001" + b"0" * 27 + b"2 02 40 00 80     eth0\n"

Files = Callable[..., list[str]]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """Have the files of a host with these contents; give the list of those that are read.

    `looks` is what if_inet6 has at each look, the last one for ever. A look at the clock moves it.
    """

    def have(
        *looks: list[bytes], mode: bytes = b"0\n", routes: tuple[bytes, ...] = (ROUTE,)
    ) -> list[str]:
        read: list[str] = []
        addresses = itertools.chain(looks, itertools.repeat(looks[-1]))
        clock = itertools.count(step=hostnet.LINK_LOCAL_SECONDS / 10)

        def lines(path: str) -> list[bytes]:
            read.append(path.rpartition("/")[2])
            if path.endswith("/ipv6_route"):
                return list(routes)
            return next(addresses) if path.endswith("/if_inet6") else [mode]

        monkeypatch.setattr(hostnet, "read_lines", lines)
        pretended = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(clock))
        monkeypatch.setattr(hostnet, "time", pretended)
        return read

    return have


def test_a_link_local_address_that_comes_late(files: Files) -> None:
    """It is waited for, whatever other addresses the interface has already."""
    read = files([], [GLOBAL], [GLOBAL, LINK_LOCAL])

    hostnet.await_ipv6()

    assert read.count("if_inet6") == 3


def test_a_link_local_address_that_never_comes(files: Files) -> None:
    """The wait has an end."""
    read = files([GLOBAL])

    hostnet.await_ipv6()

    assert 2 < read.count("if_inet6") < 20


@pytest.mark.parametrize(
    ("mode", "routes"),
    [(b"1\n", (ROUTE,)), (b"0\n", ()), (b"0\n", (ROUTE.replace(b"eth0", b"  lo"),))],
    ids=["an interface that makes no addresses", "no route", "the route to nowhere"],
)
def test_nothing_to_wait_for(files: Files, mode: bytes, routes: tuple[bytes, ...]) -> None:
    """A tunnel without such an address and a host without IPv6 cost no time."""
    read = files([], mode=mode, routes=routes)

    hostnet.await_ipv6()

    assert read.count("if_inet6") <= 1


@pytest.fixture
def without_link_local(world: bench.World) -> Iterator[Callable[[], None]]:
    """A machine whose interface has no link-local address, and what gives it one again."""

    def set_mode(mode: str) -> None:
        # In mode 1 the kernel makes no such address, in mode 0 it makes one from the MAC address.
        script = "echo $0 >/proc/sys/net/ipv6/conf/eth0/addr_gen_mode; test $0 = 0 || ip -6 "
        script += "address flush dev eth0 scope link"
        world.root.run(["sh", "-euc", script, mode], check=True)

    set_mode("1")
    yield lambda: set_mode("0")
    set_mode("0")


def test_missing_ipv6_is_said_and_mended(
    world: bench.World, session: bench.Session, without_link_local: Callable[[], None]
) -> None:
    """An uplink that gives no IPv6 though the host has it is no secret, and `refresh` mends that.

    Which pasta needs a link-local address of the host for that differs between releases.
    """
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)
        before = runtime.status()[0]["addresses"]
        found = ask(session)["uplinks"]
        without_link_local()
        session.run([PLUGIN, "refresh"], check=True)
        after = runtime.status()[0]["addresses"]
        runtime.delete("c", container)

    is_missing = not any(":" in address for address in before)
    assert ("the host has IPv6, and pasta gave none" in done.stderr) == is_missing
    assert ("the host has IPv6, and pasta gave none" in found["message"]) == is_missing
    assert found["result"] == ("warning" if is_missing else "ok")
    assert any(":" in address for address in after)
    assert world.leftovers() == []


@pytest.mark.usefixtures("just_up")
def test_a_network_that_has_just_come_up(world: bench.World, session: bench.Session) -> None:
    """An ADD right after the network of the host came up gives IPv6 all the same."""
    runtime = Runtime(session, delegate=bridge(*DUAL))
    with session.container() as container:
        runtime.add("c", container)
        (netns,) = runtime.status()

        assert any(":" in address for address in netns["addresses"])
        assert until(lambda: page(container, bench.PAGE6))
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_interface_with_a_link_local_address(files: Files) -> None:
    """That of the default route is preferred; any other will do, and there may be none."""
    other = LINK_LOCAL.replace(b"eth0", b"wlan0")

    files([other, LINK_LOCAL])
    preferred = hostnet.link_local_interface()
    files([GLOBAL, other])
    found = hostnet.link_local_interface()
    files([GLOBAL])

    assert (preferred, found, hostnet.link_local_interface()) == ("eth0", "wlan0", "")


@pytest.mark.parametrize(("text", "has"), [(b"0\n", True), (b"1\n", False), (b"", False)])
def test_ipv6_is_turned_off(files: Files, text: bytes, has: bool) -> None:
    """The kernel says whether the administrator has turned it off, or that there is none."""
    files([], mode=text)

    assert hostnet.has_ipv6() == has
