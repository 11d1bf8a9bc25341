# SPDX-License-Identifier: Apache-2.0
"""`netns-shim validate` of a network of Podman, in the file that netavark reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from podman import network

from netns_shim.main import main

CONF = Path(__file__).resolve().parent.parent / "conf"


def validate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, conf: Any
) -> tuple[int, list[str]]:
    """Write a file and run the command; give its exit status and the lines that it printed."""
    path = tmp_path / "net.json"
    path.write_text(conf if isinstance(conf, str) else json.dumps(conf, indent=1))
    status = main(["netns-shim", "validate", str(path)])
    return status, capsys.readouterr().out.replace(f"{path}", "net.json").splitlines()


@pytest.mark.parametrize("name", ["mine", "wrapped"])
def test_samples(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The samples that need no other file are valid."""
    text = (CONF / "podman" / f"{name}.json").read_text()

    assert validate(capsys, tmp_path, text) == (0, ["net.json: valid"])


def test_all_problems_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options, addresses and the name of the bridge are checked, each with its line."""
    conf = network("10.89.10.0/24", type="bridge", isGateway="ja", mtuu="1400", timeout="soon")
    conf["subnets"][0]["gateway"] = "10.89.11.1"
    conf["network_interface"] = "a-name-that-is-too-long"

    status, lines = validate(capsys, tmp_path, conf)

    assert status == 1
    text = json.dumps(conf, indent=1).splitlines()
    for key, why in [
        ("$.network_interface", "longer than the 15 bytes"),
        ("$.subnets[0].gateway", "10.89.11.1 is not in 10.89.10.0/24"),
        ("$.options.isGateway", "must be true or false"),
        ("$.options.mtuu", "unknown option"),
        ("$.options.timeout", "must be a number of seconds"),
    ]:
        (line,) = (line for line in lines if f" {key}: " in line)
        assert why in line
        number = int(line.split(":")[1])
        assert f'"{key.rpartition(".")[2]}"' in text[number - 1]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"id": None}, "$.id: is missing"),
        ({"name": 7}, "$.name: must be a string, is 7"),
        ({"options": {}}, "$.options: one of conf (a CNI network), type (a CNI plugin)"),
        ({"options": {"conf": "/nowhere"}}, "$.options.conf: cannot read '/nowhere'"),
    ],
)
def test_what_is_no_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, Any], why: str
) -> None:
    """What `create` would refuse is a problem, in its words."""
    status, lines = validate(capsys, tmp_path, {**network(type="bridge"), **keys})

    assert status == 1
    assert any(why in line for line in lines), lines


def test_options_of_a_driver_of_netavark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options that the shim passes on to a driver are checked as in a network of CNI."""
    conf = network("10.89.10.0/24", driver="bridge", vlan="5000", isolat="true")

    status, lines = validate(capsys, tmp_path, conf)

    assert status == 1
    vlan, isolate = sorted(lines, key=lambda line: "isolat" in line)
    assert "$.options.vlan: must be 0 to 4094" in vlan
    assert "$.options.isolat: " in isolate
    assert "did you mean 'isolate'" in isolate


def test_network_of_another_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that netavark serves by itself is none of the shim's."""
    conf = {**network("10.89.10.0/24"), "driver": "bridge"}

    assert validate(capsys, tmp_path, conf) == (
        0,
        ["net.json: no entry of netns-shim in it, only bridge"],
    )


def test_plugin_that_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said where nothing is known about the keys of a plugin."""
    assert validate(capsys, tmp_path, network(type="ovs")) == (
        0,
        ["net.json: valid, but nothing is known about the keys of ovs"],
    )
