# SPDX-License-Identifier: Apache-2.0
"""The facts about each shared netns as a picture: nodes and edges, then the code of a program."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import graphviz

from ..attachment import LIVE
from ..errors import shown
from .printing import ports, short_id

if TYPE_CHECKING:
    from ..decoding import Json

# The characters of a Mermaid label that need no escape. Others could end it, or be Markdown.
PLAIN = re.compile(r"[A-Za-z0-9 /:,]|(?<=\w)[.-](?=\w)")
COLOURS = {"live": "#2e7d32", "gone": "#c62828", "changing": "#f9a825", "unknown": "#757575"}
# By kind of node: the shape for DOT, and the brackets for Mermaid.
SHAPES = {
    "internet": ("ellipse", "((", "))"),
    "uplink": ("box", "[", "]"),
    "gate": ("box", "[", "]"),
    "bridge": ("box3d", "[[", "]]"),
    "link": ("box", "[", "]"),
    "command": ("note", "[/", "/]"),
    "container": ("component", "(", ")"),
}


class Node(NamedTuple):
    """One thing; `group` is the number of its group, -1 if it is in no group."""

    name: str
    kind: str
    group: int
    lines: list[str]
    state: str = "live"


class Edge(NamedTuple):
    """The connection of two nodes."""

    start: str
    end: str
    lines: list[str]
    state: str = "live"


class Picture:
    """Nodes, in groups with titles, and edges."""

    def __init__(self, facts: Json) -> None:
        """Make it from the facts of `inspection.collect`."""
        self.groups: list[str] = ["host"]
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self._containers: dict[str, str] = {}
        self._internet = self._node("internet", -1, ["internet"])
        for netns in facts["netns"]:
            self._add_netns(netns)
        for place in facts["inPlace"]:
            self._add_in_place(place)

    def _node(self, kind: str, group: int, lines: list[str], state: str = "live") -> str:
        name = f"n{len(self.nodes)}"
        # Mermaid does not accept an empty label.
        self.nodes.append(Node(name, kind, group, _texts(lines) or ["?"], state))
        return name

    def _edge(self, start: str, end: str, lines: list[str], state: str = "live") -> None:
        self.edges.append(Edge(start, end, _texts(lines), state))

    def _add_netns(self, netns: Json) -> None:
        group = len(self.groups)
        self.groups.append(shown(f"shared netns {netns['name']}"))
        gate = self._add_uplink(netns, group)
        places = {"": gate}
        for link in netns["links"] or []:
            if link["kind"] == "bridge":
                places[link["name"]] = self._add_bridge(link["name"], link["addresses"], group)
                self._edge(gate, places[link["name"]], [])
        for entry in netns["references"]:
            name = entry["bridge"] or ""
            if name not in places:
                places[name] = self._add_bridge(name, [], group)
                self._edge(gate, places[name], [])
            self._add_attachment(entry, places[name])
        for command in netns["commands"]:
            words = shlex.join(command["command"])
            state = "gone" if command["alive"] is False else "live"
            lines = [words or "a command", f"PID {command['pid']}" if command["pid"] else ""]
            self._edge(gate, self._node("command", group, lines, state), [], state)

    def _add_in_place(self, place: Json) -> None:
        """Add what is attached in the netns of a caller, which has an uplink of its own."""
        group = len(self.groups)
        inode = f" net:[{place['inode']}]" if place["inode"] else ""
        self.groups.append(f"in place{inode}")
        places: dict[str, str] = {}
        for entry in place["references"]:
            name = entry["bridge"] or ""
            if name not in places:
                places[name] = self._add_bridge(name or "plugins", [], group)
            self._add_attachment(entry, places[name])

    def _add_uplink(self, netns: Json, group: int) -> str:
        """Add the uplink and its interface in the netns; give the interface's node."""
        uplink = netns["uplink"]
        state = "live" if uplink["alive"] else "gone"
        lines = [uplink["interface"] or netns["name"], *netns["addresses"]]
        lines += _ports(netns["ports"], netns["name"])
        gate = self._node("gate", group, lines, state)
        if uplink["driver"] == "none":
            return gate
        lines = [uplink["driver"] or "unknown uplink"]
        lines += [f"PID {uplink['pid']}" if uplink["pid"] else ""]
        gone = "waits for the host's network" if uplink["pending"] else "gone"
        lines += ["" if uplink["alive"] else gone]
        lines += ["the host's network has changed" if uplink["changes"] else ""]
        node = self._node("uplink", 0, lines, state)
        self._edge(self._internet, node, [], state)
        self._edge(node, gate, [], state)
        return gate

    def _add_bridge(self, name: str, addresses: list[str], group: int) -> str:
        return self._node("bridge", group, [name, *addresses])

    def _add_attachment(self, entry: Json, place: str) -> None:
        state = "unknown" if entry["alive"] is None else "live" if entry["alive"] else "gone"
        if entry["phase"] != LIVE and state != "gone":
            state = "changing"
        name = entry["containerID"]
        if name not in self._containers:
            names = [each for each in entry["names"] if not name.startswith(each)]
            lines = [short_id(name), ", ".join(names), "gone" if state == "gone" else ""]
            self._containers[name] = self._node("container", -1, lines, state)
        lines = [entry["ifname"], *entry["ips"], *_ports(entry["ports"], short_id(name))]
        lines += ["" if entry["phase"] == LIVE else str(entry["phase"])]
        lines += ["" if entry["bridge"] else "+".join(entry["plugins"])]
        self._edge(place, self._containers[name], lines, state)


def _ports(entries: list[Json], name: str) -> list[str]:
    return [f"{text} {state}".rstrip() for text, state, _ in ports(entries, name)]


def _texts(lines: list[str]) -> list[str]:
    return [shown(line) for line in lines if line.strip()]


def dot(picture: Picture) -> graphviz.Digraph:
    """Write a picture for Graphviz, which draws it from left to right."""
    graph = graphviz.Digraph("netns-shim")
    graph.attr(rankdir="LR", fontname="sans-serif")
    graph.attr("node", fontname="sans-serif", style="filled", fillcolor="white")
    graph.attr("edge", fontname="sans-serif", fontsize="10", dir="none")
    groups = _by_group(picture)
    for number in range(-1, len(picture.groups)):
        nodes = groups.get(number, [])
        if not nodes:
            continue
        # Graphviz draws a group with this name as a box.
        part = graphviz.Digraph(f"cluster_{number}")
        if number >= 0:
            part.attr(label=_dot_label([picture.groups[number]]), style="rounded", color="grey")
        for node in nodes:
            target = part if number >= 0 else graph
            shape = SHAPES[node.kind][0]
            colour = COLOURS[node.state]
            target.node(node.name, _dot_label(node.lines), shape=shape, color=colour)
        if number >= 0:
            graph.subgraph(part)
    for edge in picture.edges:
        style = "dashed" if edge.state in ("gone", "changing") else "solid"
        label = _dot_label(edge.lines)
        graph.edge(edge.start, edge.end, label, style=style, color=COLOURS[edge.state])
    return graph


def _by_group(picture: Picture) -> dict[int, list[Node]]:
    """Sort the nodes by the numbers of their groups."""
    found: dict[int, list[Node]] = {}
    for node in picture.nodes:
        found.setdefault(node.group, []).append(node)
    return found


def _dot_label(lines: list[str]) -> str:
    # A backslash begins a field, an ampersand an entity, and angle brackets begin HTML.
    escaped = [str(graphviz.escape(line)).replace("&", "&amp;") for line in lines]
    text: str = graphviz.nohtml("\\n".join(escaped))
    return text


def mermaid(picture: Picture) -> str:
    """Write a picture as a flowchart of Mermaid, which GitHub draws."""
    lines = ["flowchart LR"]
    groups = _by_group(picture)
    for number in range(-1, len(picture.groups)):
        nodes = groups.get(number, [])
        indent = "    "
        if nodes and number >= 0:
            lines.append(f'    subgraph g{number}["{_mermaid_label([picture.groups[number]])}"]')
            indent = "        "
        for node in nodes:
            _, begin, end = SHAPES[node.kind]
            label = _mermaid_label(node.lines)
            lines.append(f'{indent}{node.name}{begin}"{label}"{end}:::{node.state}')
        if nodes and number >= 0:
            lines.append("    end")
    for edge in picture.edges:
        line = "-.-" if edge.state in ("gone", "changing") else "---"
        label = f'|"{_mermaid_label(edge.lines)}"|' if edge.lines else ""
        lines.append(f"    {edge.start} {line}{label} {edge.end}")
    for state, colour in COLOURS.items():
        lines.append(f"    classDef {state} stroke:{colour}")
    return "\n".join(lines) + "\n"


def _mermaid_label(lines: list[str]) -> str:
    return "<br>".join(map(_mermaid_text, lines))


def _mermaid_text(text: str) -> str:
    """Write each character that could have a meaning as its number."""
    plain = {match.start() for match in PLAIN.finditer(text)}
    return "".join(
        char if place in plain or char.isalpha() else f"#{ord(char)};"
        for place, char in enumerate(text)
    )
