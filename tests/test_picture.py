# SPDX-License-Identifier: Apache-2.0
"""Pictures: what is joined to what, in DOT, Mermaid and SVG; and the command that writes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bench
import pytest
from looks import attachment, command, facts, link, make, netns, port, uplink
from runtime import PLUGIN, Runtime, bridge

from netns_shim import errors
from netns_shim.cli import graph, picture
from netns_shim.errors import ShimError
from netns_shim.main import main

NETNS = netns(
    references=[
        attachment("web", "10.0.0.2/24", ports=[port(8080, 80)], names=["web", "shop", "db"]),
        attachment("web", "10.1.0.2/24", ifname="eth1", bridge="br1", phase="adding"),
        attachment("d" * 64, alive=False, sign="", bridge=None, plugins=["macvlan"]),
    ],
    commands=[command("top"), command("gone", alive=False)],
    links=[link("tap0", "tun"), link("cni0", "bridge", "10.0.0.1/24")],
)
needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")


def draw(*found: dict[str, Any]) -> picture.Picture:
    """Draw netns's."""
    return picture.Picture(facts(*found))


def test_what_is_joined() -> None:
    """From the internet over the uplink to bridges and to containers, each of them once."""
    drawn = draw(NETNS, netns("b", uplink=uplink(driver="none", interface=""), addresses=[]))

    nodes = {node.name: " ".join(node.lines) for node in drawn.nodes}
    assert [(nodes[e.start], nodes[e.end], " ".join(e.lines), e.state) for e in drawn.edges] == [
        ("internet", "pasta PID 4711", "", "live"),
        ("pasta PID 4711", "tap0 192.0.2.7", "", "live"),
        ("tap0 192.0.2.7", "cni0 10.0.0.1/24", "", "live"),
        (
            "cni0 10.0.0.1/24",
            "web shop, db",
            "eth0 10.0.0.2/24 0.0.0.0:8080 → web:80/tcp open",
            "live",
        ),
        ("tap0 192.0.2.7", "br1", "", "live"),
        ("br1", "web shop, db", "eth1 10.1.0.2/24 adding", "changing"),
        ("tap0 192.0.2.7", "dddddddddddd gone", "eth0 macvlan", "gone"),
        ("tap0 192.0.2.7", "top PID 9", "", "live"),
        ("tap0 192.0.2.7", "gone PID 9", "", "gone"),
    ]
    assert nodes["n9"] == "b"
    assert drawn.groups == ["host", "shared netns default", "shared netns b"]
    groups = {node.lines[0]: node.group for node in drawn.nodes}
    assert groups == {
        **{"internet": -1, "web": -1, "dddddddddddd": -1},
        **{"pasta": 0, "tap0": 1, "cni0": 1, "br1": 1, "top": 1, "gone": 1, "b": 2},
    }


def test_ports_of_the_netns() -> None:
    """The ports of a netns itself are at its end of the uplink, whatever that is."""
    for driver in ("pasta", "none"):
        drawn = draw(netns(uplink=uplink(driver=driver), ports=[port(8443, 443, state="closed")]))

        assert drawn.nodes[1].lines[-1] == "0.0.0.0:8443 → default:443/tcp closed"


def test_uplink_that_is_gone() -> None:
    """An uplink that is gone, and one that does not know the host's network, say so."""
    gone = draw(netns(uplink=uplink(alive=False)))
    changed = draw(netns(uplink=uplink(changes=["routes"])))

    assert [edge.state for edge in gone.edges] == ["gone", "gone"]
    assert gone.nodes[2].lines == ["pasta", "PID 4711", "gone"]
    assert changed.nodes[2].lines == ["pasta", "PID 4711", "the host's network has changed"]


def test_mermaid() -> None:
    """The flowchart has a subgraph for the host and each netns."""
    small = netns(references=[attachment("web", "10.0.0.2/24", ports=[port(8080, 80)])])

    assert picture.mermaid(draw(small)).splitlines() == [
        "flowchart LR",
        '    n0(("internet")):::live',
        '    n4("web"):::live',
        '    subgraph g0["host"]',
        '        n2["pasta<br>PID 4711"]:::live',
        "    end",
        '    subgraph g1["shared netns default"]',
        '        n1["tap0<br>192.0.2.7"]:::live',
        '        n3[["cni0"]]:::live',
        "    end",
        "    n0 --- n2",
        "    n2 --- n1",
        "    n1 --- n3",
        '    n3 ---|"eth0<br>10.0.0.2/24<br>0.0.0.0:8080 #8594; web:80/tcp open"| n4',
        "    classDef live stroke:#2e7d32",
        "    classDef gone stroke:#c62828",
        "    classDef changing stroke:#f9a825",
        "    classDef unknown stroke:#757575",
    ]


HOSTILE = [
    'a"] end; subgraph x["',
    "a\nb\x1b[31m",
    "<b>x</b><script>",
    "<<b>x</b>>",
    r"\N \G \l \"",
    "`x` **y** _z_ ~w~ [l](javascript:x)",
    "1. list",
    "- item",
    "#quot; &quot; %%{init}%%",
    "\u202e\udcff",
    "\\",
    " ",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_mermaid_labels(name: str) -> None:
    """No name ends its label, makes another line, or is taken for Markdown or HTML."""
    hostile = netns(name, references=[attachment(name, name, ifname=name, bridge=name)])
    harmless = netns("x", references=[attachment("x", "x", ifname="x", bridge="x")])
    label = re.compile(r'"[^"]*"')

    text, other = (picture.mermaid(draw(n)) for n in (hostile, harmless))

    # But for what is in the labels, it is the same.
    if name.strip():
        assert label.sub("", text) == label.sub("", other)
    for inside in label.findall(text):
        assert inside[1:-1].strip()
        rest = re.sub(r"#\d+;|<br>", "", inside[1:-1])
        assert re.fullmatch(r"[\w /:,.-]*", rest), inside
        assert not re.search(r"\.( |$)|(^|<br>)[-.]|_", rest)


@needs_dot
@pytest.mark.parametrize("name", HOSTILE)
def test_labels_that_graphviz_draws(name: str) -> None:
    """What Graphviz draws of a name is what it shows as a text, and no other node is made."""
    hostile = netns(references=[attachment(name, bridge=name.strip() or "x")])

    svg = graph.render(facts(hostile), "svg")

    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in root.iter(f"{space}text")]
    kinds = [node.get("class") for node in root.iter(f"{space}g")]
    shown = errors.shown(name)
    # Graphviz writes spaces of its own kind.
    assert [(text or "").replace("\xa0", " ") for text in texts].count(
        shown
    ) == 2 or not name.strip()
    assert kinds.count("node") == 5
    assert kinds.count("edge") == 4


@needs_dot
def test_dot_is_dot() -> None:
    """The text that is printed is what Graphviz reads."""
    text = graph.render(facts(NETNS), "dot")

    done = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, check=True)

    assert done.stderr == b""
    assert sum(line.startswith(b"edge ") for line in done.stdout.splitlines()) == 9
    assert b"10.0.0.2/24" in text


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A state directory with one netns that has lost its uplink."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    make(path, "default", {"driver": "pasta", "pid": None})
    return path


@pytest.mark.parametrize(
    ("name", "options", "begin"),
    [
        ("x", [], b'digraph "netns-shim" {\n'),
        ("x.dot", [], b'digraph "netns-shim" {\n'),
        ("x.mmd", [], b"flowchart LR\n"),
        ("x.mmd", ["--format", "dot"], b'digraph "netns-shim" {\n'),
        ("x", ["--format", "mermaid"], b"flowchart LR\n"),
        pytest.param("x.svg", [], b"<?xml ", marks=needs_dot),
    ],
)
def test_output(
    base: Path, tmp_path: Path, capsysbinary: Any, name: str, options: list[str], begin: bytes
) -> None:
    """The format is the one that is asked for, or that of the file's ending, or DOT."""
    arguments = ["netns-shim", "graph", "--state-dir", str(base), *options]
    file = tmp_path / name

    assert main([*arguments, "--output", str(file)]) == 0

    assert capsysbinary.readouterr().out == b""
    assert file.read_bytes().startswith(begin)
    if name == "x":
        assert main(arguments) == 0
        assert capsysbinary.readouterr().out == file.read_bytes()


def test_ending_of_no_format(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is named for another format is not written in one that it is not."""
    file = tmp_path / "x.png"

    assert main(["netns-shim", "graph", "--state-dir", str(base), "--output", str(file)]) == 1

    said = capsys.readouterr().err
    assert "cannot write a picture as .png" in said
    assert ".svg" in said
    assert not file.exists()


def test_without_graphviz(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the program `dot`, SVG is an error that names the package; all else is drawn."""
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["netns-shim", "graph", "--state-dir", str(base), "--format"]
    file = tmp_path / "x.svg"

    assert main([*arguments, "svg", "--output", str(file)]) == 1

    assert capsys.readouterr().err == (
        "netns-shim: the program dot, which draws SVG, is not installed: "
        "install the package graphviz, or take --format mermaid\n"
    )
    assert not file.exists()
    assert main([*arguments, "dot"]) == 0


def test_graphviz_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `dot` says where it fails is in the error."""
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\ncat >/dev/null\necho 'no layout engine' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(ShimError, match="the program dot cannot draw this: no layout engine"):
        graph.render(facts(NETNS), "svg")


def test_the_real_thing(world: bench.World, session: bench.Session) -> None:
    """A picture of what is up is written through the installed launcher."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c1", container)

        mermaid = session.run([PLUGIN, "graph", "--format", "mermaid"], check=True).stdout
        svg = session.run([PLUGIN, "graph", "--format", "svg"])

        assert '[["cni0<br>10.89.0.1/24"]]:::live' in mermaid
        assert '"eth0<br>10.89.0.2/24"' in mermaid
        if shutil.which("dot"):
            assert svg.returncode == 0, svg.stderr
            assert "10.89.0.2/24" in svg.stdout
        runtime.delete("c1", container)
    assert world.leftovers() == []
