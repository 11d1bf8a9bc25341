# SPDX-License-Identifier: Apache-2.0
"""What an attachment is called, and what the files for aardvark-dns say."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim import errors
from netns_shim.attachment import AttachmentRecord, ReferenceName
from netns_shim.names import entries
from netns_shim.request import Request

ID = "0123456789ab" * 5


def request(text: str = "", container_id: str = ID, **conf: Any) -> Request:
    """Make a request for a container."""
    return Request(
        "ADD",
        network="net",
        cni_version="1.0.0",
        conf=conf,
        environ={},
        container_id=container_id,
        args=text,
    )


def record(name: str, **entry: Any) -> AttachmentRecord:
    """Make the record of an attachment with names."""
    return AttachmentRecord(ReferenceName(name), {"naming": entry})


WEB = {"names": ["web"], "ips": ["10.0.0.2", "fd00::2"], "gateways": ["10.0.0.1", "fd00::1"]}


@pytest.mark.parametrize(
    ("args", "conf", "names"),
    [
        ("", {}, [ID, ID[:12]]),
        ("IgnoreUnknown=1;K8S_POD_NAME=Web", {}, ["web", ID[:12]]),
        ("", {"runtimeConfig": {"aliases": ["a", "b"]}}, [ID, "a", "b", ID[:12]]),
        ("", {"runtimeConfig": {"aliases": {"net": ["a"], "other": ["b"]}}}, [ID, "a", ID[:12]]),
        ("", {"args": {"cni": {"aliases": ["a", 1]}}}, [ID, "a", ID[:12]]),
        ("", {"runtimeConfig": {"aliases": ["Db.", "c.DNS.podman."]}}, [ID, "db", "c", ID[:12]]),
        ("", {"args": {"cni": []}, "runtimeConfig": {"aliases": "a"}}, [ID, ID[:12]]),
    ],
)
def test_names(args: str, conf: dict[str, Any], names: list[str]) -> None:
    """A container has its name or ID, its aliases in all shapes, and the start of its ID."""
    assert entries.of_request(request(args, **conf)) == names


@pytest.mark.parametrize("wrong", ["a b", "a,b", "a\nb", "-a", "a..b", "x" * 64, "a." * 130 + "a"])
def test_what_is_no_name(wrong: str) -> None:
    """A name that breaks the files, or that a question cannot have, is left out with a warning."""
    names = entries.of_request(request(runtimeConfig={"aliases": [wrong, "good"]}))

    assert names == [ID, "good", ID[:12]]
    assert "cannot be names" in errors.warnings[-1]


@pytest.mark.parametrize("wrong", ["web", ["web", 1], 1, {"net": "web"}])
def test_aliases_of_a_wrong_kind(wrong: object) -> None:
    """What is no list of names is left out, with a warning."""
    names = entries.of_request(request(runtimeConfig={"aliases": wrong}))

    assert names in ([ID, ID[:12]], [ID, "web", ID[:12]])
    assert "must be a list of names" in errors.warnings[-1]


def test_buildah() -> None:
    """With Buildah the name of the container comes first; the start of its ID says nothing."""
    made_up = "buildah-buildah1234"
    asked = request(f"K8S_POD_NAME={made_up}", container_id=made_up)

    assert entries.of_request(asked, ["web", "0123456789ab"]) == ["web", "0123456789ab", made_up]


@pytest.mark.parametrize(
    ("container_id", "environ", "names"),
    [
        ("default-web", {}, ["web", "default-web"]),
        ("ours-web", {"CONTAINERD_NAMESPACE": "ours"}, ["web", "ours-web"]),
        ("ours-web", {}, ["ours-web"]),
        (f"default-{'f' * 64}", {}, ["f" * 12]),
        ("default-", {}, ["default-"]),
    ],
)
def test_containerd(container_id: str, environ: dict[str, str], names: list[str]) -> None:
    """Clients of containerd put its namespace before what the user has called the container."""
    asked = request(container_id=container_id)
    asked.environ = environ

    assert entries.of_request(asked) == names


def test_a_long_id_is_no_name() -> None:
    """Of an ID that is too long for a name only the beginning is one, without a warning."""
    assert entries.of_request(request(container_id="f" * 64)) == ["f" * 12]
    assert errors.warnings == []


def test_file() -> None:
    """A file has who listens, whom to ask, the host, and a line for each container."""
    own = record("net:b:eth0:bridge", **{**WEB, "names": ["db", "b"], "servers": ["192.0.2.1"]})
    found, marker, listening = entries.files(
        [own, record("net:a:eth0:bridge", **WEB)],
        ["169.254.1.1"],
        ["169.254.1.2"],
        is_cut_off=False,
    )

    assert found["net.net"].splitlines() == [
        "10.0.0.1,fd00::1 169.254.1.1",
        "-netns-shim-host 169.254.1.2  host.containers.internal,host.docker.internal",
        "a 10.0.0.2 fd00::2 web",
        "b 10.0.0.2 fd00::2 db,b 192.0.2.1",
        f"-netns-shim 127.0.0.1  {marker}",
    ]
    assert listening == ["10.0.0.1", "fd00::1"]


def test_marker_tells_contents_apart() -> None:
    """Other names have another marker, the same names the same."""
    one, same, other = (
        entries.files(
            [record("n:a:eth0:x", **{**WEB, "names": [name]})], [], [], is_cut_off=False
        )[1]
        for name in ("web", "web", "db")
    )

    assert one == same != other


@pytest.mark.parametrize("internal", [[True, True], [True, False]])
def test_internal_network(internal: list[bool]) -> None:
    """Where no container has a way out, no other server is asked, and no host is named."""
    records = [
        record(f"net:{number}:eth0:x", **WEB, internal=each)
        for number, each in enumerate(internal)
    ]
    found, _, _ = entries.files(records, ["169.254.1.1"], ["169.254.1.2"], is_cut_off=False)

    (name,) = found
    assert name.endswith("%int") == all(internal)
    assert ("169.254.1" in found[name]) != all(internal)


def test_wrapped_one_by_one() -> None:
    """Two entries of one attachment are one container in the file."""
    both = [record(f"net:a:eth0:{kind}", **WEB) for kind in ("bridge", "tuning")]

    text = entries.files(both, [], [], is_cut_off=False)[0]["net.net"]

    assert text.count("10.0.0.2") == 1


def test_who_may_ask() -> None:
    """At an address the containers of its networks may ask, all if one network is not known."""
    of_both = {**WEB, "subnets": ["10.0.0.0/24", "fd00::/64"]}
    later = {**WEB, "subnets": ["10.0.1.0/24"], "gateways": ["10.0.0.1", "10.0.1.1"]}
    known = [record("a:a:eth0:x", **of_both), record("b:b:eth0:x", **later)]
    before = record("c:c:eth0:x", **{**WEB, "gateways": ["10.0.1.1"]})

    assert entries.allowed(known) == {
        "10.0.0.1": ["10.0.0.0/24", "10.0.1.0/24"],
        "10.0.1.1": ["10.0.1.0/24"],
        "fd00::1": ["fd00::/64"],
    }
    assert "10.0.1.1" not in entries.allowed([*known, before])
