# SPDX-License-Identifier: Apache-2.0
"""The stand-in: being the `netavark` binary, for callers that run it where it cannot work.

netavark makes its bridges in the netns in which it is started. In the host's netns it cannot do
that without root. Installed under that name, the shim runs the real netavark inside the shared
netns, with the same arguments and the same standard input, and passes its answer on.
"""

from __future__ import annotations

import json
import os

from .. import child, conf, encoding, interrupt, invoke, log, netns, references, skel, state
from ..attaching import mark_adding
from ..attachment import LIVE, ReferenceName
from ..detaching import is_gone, mark_deleting
from ..errors import ShimError, warn
from ..kept import Paths
from ..locks import Lock
from ..netavark import convert, program, wire
from ..netavark.empty import EmptyNetns
from ..operation import close_ports, end_orphans, give_back
from ..shared import listing
from ..target import Shared
from . import netavark_text
from .netavark_arguments import Arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..attachment import AttachmentRecord
    from ..child import Outcome
    from ..decoding import Json
    from ..ports.publication import Publication
    from ..references import Reference

NAME = "netavark"
# How long netavark may take, in seconds. It has no limit of its own.
TIMEOUT = 300.0


def main(words: list[str]) -> int:
    """Serve a caller of `netavark`; give the exit status."""
    environ = os.environ
    is_open = skel.is_open(1)
    arguments = Arguments(words)
    log.begin(arguments.command, environ)
    try:
        real = program.find({"driver": "bridge"}, [], environ)
        is_attaching = arguments.command in ("setup", "teardown") and bool(arguments.argument)
        if not is_attaching:
            os.execve(real, [real, *words], invoke.with_path(environ))
        # Before any file of ours is open, which could get the number of a stream.
        skel.settle()
        if netns.is_in_place("auto"):
            os.execve(real, [real, *words], invoke.with_path(environ))
        interrupt.heed()
        attaching = _Attaching(real, arguments, environ)
        status, stdout, stderr = attaching.run()
    except Exception as error:
        failure = skel.as_shim_error(error)
        interrupt.heed_again()
        skel.deliver(1, wire.format_error(failure).encode(), is_open=is_open)
        log.end("failed", error=str(failure), code=failure.code)
        return 1
    invoke.pass_on(stderr)
    if skel.deliver(1, stdout, is_open=is_open):
        said = wire.parse_error(stdout) if status else ""
        log.end("failed" if status else "done", error=said)
        return status if status >= 0 else 128 - status
    interrupt.disregard()
    if status == 0 and arguments.command == "setup":
        attaching.tear_down()
    log.end("unheard")
    return 1


class _Attaching:
    """A setup or teardown of one container, which is in one network or in several."""

    def __init__(self, real: str, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self._real = real
        self._arguments = arguments
        self._text = arguments.read()
        self._asked = wire.decode_options(self._text)
        networks = "+".join(self._asked["networks"])
        log.name(f"{networks}:{self._asked['container_id']}")
        name = conf.DEFAULT_NETNS
        where = state.State(state.base_dir(environ, part=f"{name}/refs"), name)
        self._target = Shared(where, conf.DEFAULT_UPLINK, environ)
        # One program runs for all networks of the container: the first network stands for it.
        self._names = {n: self._name(n, i) for n, i in self._asked["networks"].items()}
        mark = references.mark(where, next(iter(self._names.values()), ReferenceName("")))
        self._environ = {**invoke.with_path(environ), **mark}
        paths = [*arguments.paths, real, arguments.argument]
        self._keep = Paths(arguments.paths)
        for path in paths:
            self._keep.add_around(path)

    def run(self) -> Outcome:
        """Set up or tear down; give exit status, stdout and stderr of the real netavark."""
        return self._setup() if self._arguments.command == "setup" else self.tear_down()

    def _start(self, words: list[str], text: bytes = b"") -> Outcome:
        return child.run(
            self._real,
            self._environ,
            text or self._text,
            arguments=words,
            name=NAME,
            what=f"{NAME} {self._arguments.command}",
            timeout=TIMEOUT,
        )

    def _lock(self) -> Lock:
        """Give the lock of netavark: two at once disturb each other, see `driver`."""
        what = f"{NAME} {self._arguments.command}"
        return Lock(self._target.state.path("netavark.lock"), TIMEOUT, what)

    def _name(self, network: str, ifname: str) -> ReferenceName:
        return ReferenceName.of(network, self._asked["container_id"], ifname, [NAME])

    def _setup(self) -> Outcome:
        self._target.join()
        container = self._target.open_container(self._arguments.argument)
        held: list[Reference] = []
        try:
            for name in self._names.values():
                held.append(self._target.take(name))
            answer = self._attach(held, container)
        except BaseException:
            give_back(self._target, held)
            raise
        finally:
            container.close()
        if answer[0]:
            give_back(self._target, held)
        for reference in held:
            reference.close()
        return answer

    def _attach(self, held: list[Reference], container: netns.ContainerNetns) -> Outcome:
        fd = self._target.open_repaired()
        given = self._text
        if netavark_text.has_names(given):
            from ..netavark import systemd  # few networks have them

            base = self._target.state.path("netavark")
            self._environ = systemd.environment(self._environ, base)
        uplink = self._target.uplink
        if uplink.mtu:
            self._text = netavark_text.with_mtu(self._text, uplink.mtu)
        container.check_is_other(fd)
        is_leftover = end_orphans(held)
        if is_leftover:
            for reference in held:
                self._target.withdraw(reference.record)
        ours = [reference for reference in held if reference.phase != LIVE]
        ports = self._publish(ours)
        try:
            with self._lock(), self._target.inside(fd, self._keep):
                if is_leftover:
                    self._undo(netavark_text.as_set_up(given, [r.record for r in held]))
                by_pasta = uplink.driver == "pasta" or bool(ports and ports.are_by_pasta)
                if by_pasta or uplink.driver == "slirp4netns":
                    container.tune_tcp(fd, behind_pasta=by_pasta)
                for reference in ours:
                    # The ports are the container's: its first reference stands for them.
                    more = ports.fields if ports is not None and reference is ours[0] else {}
                    asked = netavark_text.asked_for(given, reference.record.name.network)
                    mark_adding(reference, container, asked=asked, **more)
                if ports is not None:
                    self._offer(ports.claim())
                answer = self._set_up(can_undo=ours == held)
            if not answer[0]:
                self._finish(ours, answer, fd, ports)
        finally:
            if ports is not None:
                ports.leave()
        return answer

    def _publish(self, ours: list[Reference]) -> Publication | None:
        """Prepare to open the ports of the container; None where it publishes none."""
        wanted = convert.expand_ports(self._asked["port_mappings"])
        if not wanted or not ours:
            return None
        return self._target.publication(ours[0], wanted)

    def _offer(self, mappings: list[Json]) -> None:
        """Have netavark use other port mappings than it was asked for."""
        asked = {**json.loads(self._text), "port_mappings": convert.gather_ports(mappings)}
        self._text = encoding.compact(asked).encode()

    def _finish(
        self,
        ours: list[Reference],
        answer: Outcome,
        fd: int,
        ports: Publication | None,
    ) -> None:
        """Open the ports of the host, and write down that the container is attached."""
        results = wire.addresses(answer[1])
        try:
            if ports is not None:
                ports.open({"ips": [ip for r in results.values() for ip in r["ips"]]})
            for reference in ours:
                if result := results.get(reference.record.name.network):
                    reference.write(LIVE, result=result)
        except BaseException:
            interrupt.disregard()
            with self._target.inside(fd, self._keep):
                self._undo()
            for reference in ours:
                close_ports(self._target, reference)
            raise

    def _set_up(self, *, can_undo: bool) -> Outcome:
        """Run the real netavark; if it fails half way, tear down what it leaves."""
        answer = 1, b"", b""
        try:
            answer = self._start(self._arguments.words)
        finally:
            if answer[0] and can_undo:
                interrupt.disregard()
                self._undo()
        return answer

    def _undo(self, text: bytes = b"") -> None:
        words = self._arguments.with_argument(self._arguments.argument, "teardown")
        try:
            self._start(words, text)
        except ShimError as error:
            warn(f"undoing what was half done: {error}")

    def tear_down(self) -> Outcome:
        """Tear the container down; drop the references of networks that are gone then."""
        self._target.join()
        found = [self._find(name) for name in self._names.values()]
        held = [reference for reference in found if reference is not None]
        self._text = netavark_text.as_set_up(self._text, [r.record for r in held])
        self._asked = wire.decode_options(self._text)
        try:
            answer, path = self._detach(held)
        except BaseException:
            give_back(self._target, held)
            raise
        for reference in held:
            ifname = reference.record.name.ifname
            if answer[0] == 0 or not netns.has_interface(path, ifname):
                if not path:
                    self._target.leave_behind(reference.record)
                reference.drop()
            reference.close()
        self._target.leave()
        return answer

    def _find(self, name: ReferenceName) -> Reference | None:
        """Open the reference of a network, whatever its interface was called at the setup."""
        where = self._target.state
        if not os.path.lexists(f"{where.refs}/{name}"):
            for other in listing.names(where, f":{name.container_id}:"):
                if (other.network, other.kinds) == (name.network, NAME):
                    return self._target.find(other)
        return self._target.find(name)

    def _detach(self, held: list[Reference]) -> tuple[Outcome, str]:
        """Tear down; give the answer and the path of the container, "" where it is gone."""
        end_orphans(held)
        path = self._arguments.argument
        if not held:
            with self._target.nowhere(self._keep):
                return self._tear_down(path), path
        fd = self._target.open_as_is()
        with self._lock():
            # Only now, because the container may have gone while this call was waiting.
            if fd is not None and any(is_gone(path, reference.record, fd) for reference in held):
                path = ""
            for reference in held:
                mark_deleting(reference)
                self._withdraw(reference.record)
            with self._target.inside(fd, self._keep):
                return self._tear_down(path), path

    def _withdraw(self, record: AttachmentRecord) -> None:
        """Close the ports of the host, and name the others that the setup was given."""
        if record.ports:
            from ..ports import mappings  # only where ports are published

            self._target.withdraw(record)
            wanted = convert.expand_ports(self._asked["port_mappings"])
            self._offer(mappings.recall(wanted, record.ports))

    def _tear_down(self, path: str) -> Outcome:
        if netns.identity(path) is not None:
            return self._start(self._arguments.with_argument(path, "teardown"))
        # netavark before 2.1 does nothing without a netns, and leaves its rules for ever.
        with EmptyNetns() as empty:
            return self._start(self._arguments.with_argument(empty, "teardown"))
