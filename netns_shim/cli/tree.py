# SPDX-License-Identifier: Apache-2.0
"""The facts about each shared netns as a tree on a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from ..attachment import LIVE
from ..errors import shown
from . import published
from .lines import GAP, Cell, aligned, line
from .printing import age, ports, short_id

if TYPE_CHECKING:
    from ..decoding import Json

REFRESH = "netns-shim refresh renews it"
GUARD = "netns-shim refresh gives it one"


class Marks:
    """The marks before a line: alive, gone, unknown, in progress, note."""

    def __init__(self, *, is_ascii: bool) -> None:
        self.is_ascii = is_ascii
        marks = [*("*x?~!" if is_ascii else "●✗○◌!")]
        self.live, self.gone, self.unknown, self.changing, self.note = marks


def draw(facts: Json, now: float, *, is_whole: bool = True, is_ascii: bool = False) -> Group:
    """Draw the facts of `inspection.collect`, a tree for each netns.

    `now` is the time from which ages are counted. Container IDs that a program has made are
    shortened unless `is_whole`.
    """
    if not facts["netns"] and not facts["inPlace"]:
        return Group(Text(f"no shared network namespace is up ({shown(facts['stateDir'])})"))
    marks = Marks(is_ascii=is_ascii)
    trees = [_Drawing(netns, now, marks, is_whole).tree for netns in facts["netns"]]
    trees += [_InPlace(place, now, marks, is_whole).tree for place in facts["inPlace"]]
    holder = facts["pauseProcess"]
    words = [Text(f"pause process  PID {shown(holder['pid'])}", "dim")] if holder else []
    return Group(*trees, *words)


class _Drawing:
    """One netns; `tree` is all of it."""

    def __init__(self, netns: Json, now: float, marks: Marks, is_whole: bool) -> None:
        self._netns = netns
        self._now = now
        self._marks = marks
        self._is_whole = is_whole
        self.tree = Tree(self._title(), guide_style="dim")
        self._draw()

    def _title(self) -> Text:
        return Text(shown(self._netns["name"]), "bold")

    def _draw(self) -> None:
        self._draw_uplink()
        self._draw_ports()
        self._draw_names()
        self._draw_attachments()
        self._draw_links()
        self._draw_commands()
        self._draw_notes()

    def _draw_uplink(self) -> None:
        uplink = self._netns["uplink"]
        mark = self._mark(alive=uplink["alive"] and not uplink["problems"])
        driver = _word(uplink["driver"], "unknown")
        words: list[Cell] = [mark, (f"uplink {driver}", "bold"), (_word(uplink["interface"]), "")]
        words += [(_word(address), "cyan") for address in self._netns["addresses"]]
        words += [(f"PID {_word(uplink['pid'])}" if uplink["pid"] else "", "dim")]
        words += [(age(uplink["since"], self._now), "dim")]
        guardian = uplink["guardian"] or {"pid": None, "alive": False, "problem": None}
        words += [(f"guardian PID {_word(guardian['pid'])}" if guardian["alive"] else "", "dim")]
        words += [("" if uplink["alive"] or uplink["pending"] else "gone", "bold red")]
        branch = self.tree.add(line(words))
        if uplink["pending"]:
            self._note(branch, f"waits until the host has a network: {shown(uplink['pending'])}")
        elif not uplink["alive"]:
            who = "its guardian" if guardian["alive"] else "the next ADD"
            problem = shown(guardian["problem"] or "")
            tried = f", but could not so far: {problem}" if guardian["alive"] and problem else ""
            self._note(branch, f"{who} starts it again{tried}")
        elif uplink["pid"] and not guardian["alive"]:
            self._note(branch, f"it has no guardian to restart it: {GUARD}")
        for problem in uplink["problems"] or []:
            self._note(branch, f"{shown(problem)}: {REFRESH}")
        if uplink["changes"]:
            changed = " and ".join(map(_CHANGES.__getitem__, uplink["changes"]))
            self._note(branch, f"the host's {changed} have changed since it started: {REFRESH}")

    def _draw_ports(self) -> None:
        """Draw the ports of the netns itself."""
        if self._netns["ports"]:
            branch = self.tree.add(Text("ports of the namespace itself"))
            self._add_ports(branch, self._netns["ports"], self._netns["name"])

    def _draw_names(self) -> None:
        """Draw the server of names."""
        server = self._netns["names"]
        if not server:
            return
        words: list[Cell] = [(self._mark(alive=server["alive"])), ("names", "bold")]
        words += [(shown(address), "cyan") for address in server["addresses"]]
        words += [(f"PID {server['pid']}" if server["pid"] else "", "dim")]
        words += [(f"guardian PID {server['guardian']}" if server["guardian"] else "", "dim")]
        words += [("" if server["alive"] else "gone", "bold red")]
        branch = self.tree.add(line(words))
        if not server["alive"]:
            self._note(branch, "the next ADD of a network with names starts it again")

    def _draw_attachments(self) -> None:
        entries = self._netns["references"]
        links = {link["name"]: link for link in self._netns["links"] or []}
        bridges = [name for name, link in links.items() if link["kind"] == "bridge"]
        bridges += [entry["bridge"] for entry in entries if entry["bridge"]]
        on, others = _sorted(entries, "bridge"), _sorted(self._others(), "master")
        for name in dict.fromkeys(bridges):
            here, links_there = on.get(name, []), others.get(name, [])
            words: list[Cell] = [(f"bridge {shown(name)}", "bold"), *_condition(links.get(name))]
            # Without a port a bridge has the kernel's default, until it gets one.
            if any(link["master"] == name for link in links.values()):
                words.append((f"MTU {links[name]['mtu']}", "dim"))
            branch = self.tree.add(line(words))
            self._add_attachments(branch, here)
            self._add(branch, map(_link, links_there))
        rest = [entry for entry in entries if not entry["bridge"]]
        if rest:
            self._add_attachments(self.tree.add(Text("without a bridge")), rest)

    def _add_attachments(self, branch: Tree, entries: list[Json]) -> None:
        lines = aligned([self._attachment(entry) for entry in entries])
        for entry, text in zip(entries, lines, strict=True):
            self._add_ports(branch.add(text), entry["ports"], self._name(entry))

    def _add_ports(self, branch: Tree, entries: list[Json], name: str) -> None:
        rows = ports(entries, name, is_ascii=self._marks.is_ascii)
        self._add(branch, ([(text, ""), (state, style)] for text, state, style in rows))

    def _name(self, entry: Json) -> str:
        name = entry["containerID"]
        return str(name if self._is_whole else short_id(name))

    def _attachment(self, entry: Json) -> list[Cell]:
        is_live = entry["phase"] == LIVE
        mark = self._mark(alive=entry["alive"])
        if not is_live and entry["alive"] is not False:
            mark = (self._marks.changing, "yellow")
        state = [] if is_live else [(_word(entry["phase"]), "yellow")]
        if entry["alive"] is False:
            state.append(("gone", "bold red"))
        elif entry["alive"] is None and entry["sign"]:
            state.append(("may be gone", "yellow"))
        kinds = "" if entry["bridge"] else _word("+".join(entry["plugins"]))
        return [
            mark,
            (shown(self._name(entry)), "bold"),
            (shown(entry["ifname"]), ""),
            (_word(", ".join(entry["ips"]), "no address"), "cyan"),
            (_word(", ".join(entry["names"])), ""),
            (kinds, ""),
            (shown(entry["network"]), "magenta"),
            (age(entry["since"], self._now), "dim"),
            (", ".join(text for text, _ in state), state[-1][1] if state else ""),
        ]

    def _others(self) -> list[Json]:
        """List the links that are no bridge, and not of the uplink, a publisher, a container."""
        shown_elsewhere = {self._netns["uplink"]["interface"]}
        for entry in (self._netns, *self._netns["references"]):
            shown_elsewhere.update(entry.get("hostInterfaces", ()))
            shown_elsewhere.add((entry["publisher"] or {}).get("interface"))
        links = self._netns["links"] or []
        return [
            link
            for link in links
            if link["kind"] != "bridge"
            and link["name"] not in shown_elsewhere
            and not link["leadsTo"]
        ]

    def _draw_links(self) -> None:
        bridges = {link["name"] for link in self._netns["links"] or [] if link["kind"] == "bridge"}
        rest = [link for link in self._others() if link["master"] not in bridges]
        if rest:
            self._add(self.tree.add(Text("other links")), map(_link, rest))

    def _draw_commands(self) -> None:
        rows: list[list[Cell]] = []
        for command in self._netns["commands"]:
            alive = command["alive"]
            rows.append(
                [
                    self._mark(alive=alive),
                    (_word(shlex.join(command["command"]), "unknown"), "bold"),
                    (f"PID {_word(command['pid'])}" if command["pid"] else "", "dim"),
                    (age(command["since"], self._now), "dim"),
                    ("gone" if alive is False else "", "bold red"),
                ]
            )
        if rows:
            self._add(self.tree.add(Text("commands")), rows)

    def _note_gone(self) -> None:
        gone = sum(entry["alive"] is False for entry in self._netns["references"])
        if gone:
            what = "1 container is" if gone == 1 else f"{gone} containers are"
            self._note(self.tree, f"{what} gone: netns-shim gc detaches what is left")

    def _draw_notes(self) -> None:
        self._note_gone()
        live = [entry for entry in self._netns["references"] if entry["phase"] == LIVE]
        shut = sum(map(published.count_shut, [self._netns, *live]))
        if shut:
            what = "1 published port is" if shut == 1 else f"{shut} published ports are"
            self._note(self.tree, f"{what} not open: netns-shim refresh opens what is free")
        if self._netns["problem"]:
            self._note(self.tree, f"not all can be seen: {shown(self._netns['problem'])}")

    def _mark(self, *, alive: bool | None) -> Cell:
        if alive is None:
            return self._marks.unknown, "dim"
        return (self._marks.live, "green") if alive else (self._marks.gone, "red")

    def _note(self, branch: Tree, text: str) -> None:
        branch.add(line([(self._marks.note, "bold yellow"), (text, "yellow")]))

    def _add(self, branch: Tree, rows: Iterable[list[Cell]]) -> None:
        for text in aligned(list(rows)):
            branch.add(text)


class _InPlace(_Drawing):
    """What is attached in one netns of a caller."""

    def _title(self) -> Text:
        place = self._netns
        inode = f"net:[{place['inode']}]" if place["inode"] else "unknown"
        words = "" if place["alive"] else "gone" if place["alive"] is False else "not seen"
        words = "here" if place["here"] else words
        title = Text.assemble(("in place", "bold"), GAP, (inode, "dim"), GAP, words)
        title.rstrip()
        return title

    def _draw(self) -> None:
        self._draw_names()
        on = _sorted(self._netns["references"], "bridge")
        for name, entries in on.items():
            words = f"bridge {shown(name)}" if name else "without a bridge"
            self._add_attachments(self.tree.add(Text(words, "bold" if name else "")), entries)
        self._note_gone()


def _sorted(entries: list[Json], key: str) -> dict[Any, list[Json]]:
    """Sort entries by the value of a key."""
    found: dict[Any, list[Json]] = {}
    for entry in entries:
        found.setdefault(entry[key], []).append(entry)
    return found


_CHANGES = {"nameServers": "name servers", "routes": "routes", "addresses": "addresses"}


def _word(value: Any, otherwise: str = "") -> str:
    return shown(value) if value not in (None, "") else otherwise


def _link(link: Json) -> list[Cell]:
    kind = _word(link["kind"], "link")
    on = f"on {shown(link['parent'])}" if link["parent"] else ""
    return [("-", "dim"), (kind, ""), (shown(link["name"]), "bold"), (on, ""), *_condition(link)]


def _condition(link: Json | None) -> list[Cell]:
    """Say what addresses a link has, and whether it is down."""
    if link is None:
        return []
    found: list[Cell] = [(shown(address), "cyan") for address in link["addresses"]]
    return found if link["up"] else [*found, ("down", "yellow")]
