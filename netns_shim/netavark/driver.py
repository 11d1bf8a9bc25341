# SPDX-License-Identifier: Apache-2.0
"""A driver of netavark with the interface of a CNI plugin.

An external driver is a plugin of netavark; bridge, macvlan and ipvlan are built into the binary
`netavark`. Neither allocates addresses, so an IPAM plugin of CNI does. Neither remembers its
request, and a teardown needs the same request: so we keep it in a file until that has succeeded.
"""

from __future__ import annotations

import os

from .. import child, encoding, invoke, netns, versions
from ..attachment import ReferenceName
from ..errors import (
    INVALID_NETWORK_CONFIG,
    NOT_AVAILABLE,
    PLUGIN_MISBEHAVED,
    ShimError,
    warn,
)
from ..locks import Lock, NoLock
from ..shared.files import write_atomically
from ..state import make_below, read_file
from . import configs, program, translate, wire
from .empty import EmptyNetns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..conf import Configuration
    from ..decoding import Json
    from .shapes import Asked, Network, StatusBlock


class Driver:
    """One entry with `driver`; it has the interface of `invoke.Plugin`.

    `directory` is where its state is kept. Making one finds the programs; ShimError (code 7) where
    they are missing.
    """

    __slots__ = (
        "_directory",
        "_entry",
        "_ipam",
        "_is_parallel",
        "_path",
        "_versions",
        "timeout",
        "type",
    )

    def __init__(
        self,
        entry: Json,
        conf: Configuration,
        search_path: str,
        environ: Mapping[str, str],
        known: versions.Versions,
        directory: str,
    ) -> None:
        self.type: str = entry["driver"]
        self.timeout = conf.timeout
        self._is_parallel = conf.parallel is True
        self._entry = entry
        self._path = program.find(entry, conf.plugin_dirs, environ)
        kind = translate.ipam_of(entry).get("type")
        self._ipam = invoke.Plugin(kind, search_path, conf.timeout) if kind else None
        self._versions = known
        self._directory = directory

    def call(self, verb: str, environ: Mapping[str, str], conf: Json) -> Json | None:
        """Call a verb of CNI; give the result of ADD. GC has nothing to do here."""
        if verb == "ADD":
            return self._add(environ, conf)
        if verb == "DEL":
            self._delete(environ, conf)
        elif verb == "CHECK":
            from ..shared import netlink  # pyroute2: runtimes call CHECK seldom

            previous = translate.checked_result(conf.get("prevResult") or {})
            netlink.verify(environ.get("CNI_NETNS", ""), environ["CNI_IFNAME"], previous)
        elif verb == "STATUS":
            self._status(environ)
        return None

    def _add(self, environ: Mapping[str, str], conf: Json) -> Json:
        translate.check_supported(self._entry, conf.get("runtimeConfig") or {})
        if self._entry.get("dns_enabled") and not program.aardvark(self._path):
            raise ShimError(
                INVALID_NETWORK_CONFIG,
                "dns_enabled: aardvark-dns is not installed",
                "install it, or set dns_enabled to false",
            )
        # `conf` has the options of the entry, and maybe one of the shim's.
        entry = {**self._entry, "options": conf.get("options")}
        asked = translate.request(entry, environ, conf, self._allocate(environ, conf))
        path = self._file(environ, conf)
        self._make(configs.REQUESTS)
        write_atomically(path, encoding.compact(asked))
        status = self._setup(environ, asked)
        if self._entry.get("dns_enabled"):
            self._check_names()
        return translate.result_of(asked, status, environ.get("CNI_NETNS", ""))

    def _setup(self, environ: Mapping[str, str], asked: Asked) -> StatusBlock:
        text = self._run("setup", environ["CNI_NETNS"], environ, asked)
        what = f"driver {self.type!r}"
        if not translate.is_built_in(self._entry):
            return wire.decode_status(text, what)
        name = asked["network"]["name"]
        return wire.decode_statuses(text, what).get(name, {})

    def _check_names(self) -> None:
        """See whether the name server runs: some releases say nothing where it does not."""
        from ..names import server  # only where a network has names

        if not server.await_start(f"{self._directory}/{self._config}/aardvark-dns"):
            warn("names of containers do not resolve: netavark has started no aardvark-dns")

    @property
    def _config(self) -> str:
        # Its aardvark-dns serves only the netns in which it was started.
        return configs.of_place(os.stat("/proc/self/ns/net").st_ino)

    def _delete(self, environ: Mapping[str, str], conf: Json) -> None:
        path = self._file(environ, conf)
        if os.path.lexists(path):  # otherwise nothing was set up
            try:
                asked = wire.decode_asked(read_file(path))
            except (OSError, ShimError) as error:
                # A power cut has lost the file, and the request with it.
                warn(f"driver {self.type!r} is not called: its request cannot be read: {error}")
            else:
                self._tear_down(environ, asked)
            os.unlink(path)
        if self._ipam is not None:
            self._call_ipam("DEL", environ, conf)

    def _tear_down(self, environ: Mapping[str, str], asked: Asked) -> None:
        """Tear down. A missing interface is an error for netavark, but not for us."""
        path = environ.get("CNI_NETNS", "")
        if translate.is_built_in(self._entry) and netns.identity(path) is None:
            # netavark before 2.1 does nothing without a netns, and its rules stay for ever.
            try:
                with EmptyNetns() as path:
                    self._tear_down_in(path, environ, asked, expected="No such device")
                return
            except PermissionError:
                path = environ.get("CNI_NETNS", "")
        self._tear_down_in(path, environ, asked)

    def _tear_down_in(
        self, path: str, environ: Mapping[str, str], asked: Asked, expected: str | None = None
    ) -> None:
        try:
            self._run("teardown", path, environ, asked)
        except ShimError as error:
            if netns.has_interface(path, environ["CNI_IFNAME"]):
                raise
            # Several errors come as one line each.
            is_news = expected is None or expected not in error.message or "\n" in error.message
            if is_news:
                warn(f"the interface is gone already: {error}")

    def _status(self, environ: Mapping[str, str]) -> None:
        """Ask the program what it is."""
        command = "version" if translate.is_built_in(self._entry) else "info"
        what = f"driver {self.type!r} ({command})"
        status, stdout, stderr = program.start(
            self._path, environ, [command], b"", what, self.timeout
        )
        # A plugin may not know `info`, which no caller uses; it is enough that it runs.
        if status and command == "version":
            raise ShimError(NOT_AVAILABLE, f"{what} failed", child.explain("", stderr or stdout))

    def _allocate(self, environ: Mapping[str, str], conf: Json) -> list[Json]:
        if self._ipam is None:
            # The caller's own addresses, if it sent any.
            return translate.ips_of_caller(conf.get("ipam") or {})
        return translate.ips_of(self._call_ipam("ADD", environ, conf), conf["cniVersion"])

    def _call_ipam(self, verb: str, environ: Mapping[str, str], conf: Json) -> Json:
        assert self._ipam is not None
        spoken = self._versions.of(self._ipam, environ)
        keys = ("name", "runtimeConfig", "args")
        asked: Json = {key: conf[key] for key in keys if key in conf}
        asked["cniVersion"] = versions.choose(spoken, conf["cniVersion"], self._ipam.type)
        asked |= {"type": self.type, "ipam": translate.ipam_of(self._entry)}
        answer = self._ipam.call(verb, environ, asked)
        if verb == "ADD" and not isinstance(answer, dict):
            raise ShimError(
                PLUGIN_MISBEHAVED,
                f"plugin {self._ipam.type!r} (ADD) succeeded without printing a result",
            )
        return {"cniVersion": asked["cniVersion"], **(answer or {})}

    def _run(self, command: str, path: str, environ: Mapping[str, str], asked: Asked) -> bytes:
        """Run the program to its end; give its stdout. ShimError where it fails."""
        # A path may look like an option.
        arguments = [command, f"./{path}" if path.startswith("-") else path]
        given: Mapping[str, object] = asked
        is_built_in = translate.is_built_in(self._entry)
        if is_built_in:
            given = translate.network_options(asked)
            if self._entry.get("dns_enabled"):
                from . import systemd  # few networks have names

                environ = systemd.environment(invoke.with_path(environ), self._directory)
        what = f"driver {self.type!r} ({command})"
        # Podman runs one at a time, and netavark relies on that: otherwise the last teardown of
        # one container could remove a bridge that another setup has just found.
        who = f"{what} for container {environ['CNI_CONTAINERID']!r}"
        turn = Lock(f"{self._directory}/lock", self.timeout, who)
        self._make("")
        with NoLock() if self._is_parallel else turn:
            if is_built_in:
                # Not before: another call may just be removing its directory, see `configs`.
                arguments = [*self._global_arguments(), *arguments]
            return program.run(self._path, environ, arguments, given, what, self.timeout)

    def _global_arguments(self) -> list[str]:
        config = self._make(self._config)
        names = program.aardvark(self._path)
        rootless = "false" if netns.is_initial_userns() else "true"
        arguments = ["--config", config, f"--rootless={rootless}"]
        return [*arguments, f"--aardvark-binary={names}"] if names else arguments

    def _make(self, name: str) -> str:
        directory, own = os.path.split(self._directory)
        make_below(directory, f"{own}/{name}")
        return f"{self._directory}/{name}"

    def _file(self, environ: Mapping[str, str], conf: Json) -> str:
        container_id, ifname = environ["CNI_CONTAINERID"], environ["CNI_IFNAME"]
        name = ReferenceName.of(conf["name"], container_id, ifname, [self.type])
        return f"{self._directory}/{configs.REQUESTS}/{name}"


def create(
    entry: Json, conf: Configuration, environ: Mapping[str, str], network: Network
) -> bytes:
    """Let a plugin of netavark complete a network; give its stdout."""
    path = program.find(entry, conf.plugin_dirs, environ)
    what = f"driver {entry['driver']!r} (create)"
    return program.run(path, environ, ["create"], network, what, conf.timeout)
