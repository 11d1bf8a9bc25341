# SPDX-License-Identifier: Apache-2.0
"""The rules that a shared netns needs with an old pasta, as nft(8) reads it."""

from __future__ import annotations

import bench
import pytest

from netns_shim.errors import ShimError
from netns_shim.shared import nftables
from netns_shim.shared.nsenter import run_in

OTHER = "table ip other { chain c { }; }\n"
RULES = """
table inet netns-shim {
    chain prerouting {
        type filter hook prerouting priority raw
        tcp flags & (syn | rst | ack) == 0 counter drop comment "%s"
        iifname "tap0" tcp flags & (rst | ack) == rst counter tcp flags set rst | ack comment "%s"
    }
}
"""


def mend() -> None:
    """Mend what comes in by an interface of this name."""
    nftables.repair_segments("tap0")


def test_rules(session: bench.Session) -> None:
    """They are what is meant, are there once however often asked for, and touch no others."""
    with session.container() as container, session.container() as expected:
        rules = RULES % tuple(text.rstrip(b"\0").decode() for text in nftables.COMMENTS)
        expected.run(["/usr/sbin/nft", "-f", "-"], input=OTHER + rules, check=True)
        container.run(["/usr/sbin/nft", "-f", "-"], input=OTHER, check=True)
        run_in(container.netns, mend)
        run_in(container.netns, mend)

        show = ["/usr/sbin/nft", "list", "ruleset"]
        found, wanted = (c.run(show, check=True).stdout for c in (container, expected))
    assert found == wanted


def test_the_kernel_refuses(session: bench.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take is an error with its reason, and nothing is left of it."""
    monkeypatch.setattr(nftables, "CHAIN", b"x" * 300 + b"\0")  # longer than a name can be
    with session.container() as container:
        with pytest.raises(ShimError) as caught:
            run_in(container.netns, mend)
        assert container.run(["/usr/sbin/nft", "list", "ruleset"], check=True).stdout == ""
    assert "[Errno " in caught.value.details
