# SPDX-License-Identifier: Apache-2.0
"""A driver of netavark with the interface of a CNI plugin.

An external driver is a plugin of netavark; bridge, macvlan and ipvlan are built into the binary
`netavark`. Neither allocates addresses, so an IPAM plugin of CNI does. Neither remembers its
request, and a teardown needs the same request: so we keep it in a file until that has succeeded.
"""

from __future__ import annotations

import json
import os
import re

from .. import child, invoke, netns, versions
from ..attachment import ReferenceName
from ..errors import (
    INTERNAL,
    INVALID_NETWORK_CONFIG,
    NOT_AVAILABLE,
    PLUGIN_MISBEHAVED,
    ShimError,
    warn,
)
from ..locks import Lock, NoLock
from ..state import make_below, read_file, write_atomically
from . import translate, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..conf import Configuration
    from ..decoding import Json

# Where Podman looks for plugins of netavark.
PLUGIN_DIRS = (
    "/usr/local/libexec/netavark",
    "/usr/libexec/netavark",
    "/usr/local/lib/netavark",
    "/usr/lib/netavark",
)


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
        self._path = find(entry, conf.plugin_dirs, environ)
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
        if self._entry.get("dns_enabled") and not aardvark(self._path):
            raise ShimError(
                INVALID_NETWORK_CONFIG,
                "dns_enabled: aardvark-dns is not installed",
                "install it, or set dns_enabled to false",
            )
        # `conf` has the options of the entry, and maybe one of the shim's.
        entry = {**self._entry, "options": conf.get("options")}
        asked = translate.request(entry, environ, conf, self._allocate(environ, conf))
        path = self._file(environ, conf)
        self._make("attachments")
        write_atomically(path, json.dumps(asked))
        status = self._setup(environ, asked)
        return translate.result_of(asked, status, environ.get("CNI_NETNS", ""))

    def _setup(self, environ: Mapping[str, str], asked: Json) -> Json:
        text = self._run("setup", environ["CNI_NETNS"], environ, asked)
        what = f"driver {self.type!r}"
        if not translate.is_built_in(self._entry):
            return wire.decode_status(text, what)
        name = asked["network"]["name"]
        status: Json = wire.decode_statuses(text, what).get(name, {})
        return status

    def _delete(self, environ: Mapping[str, str], conf: Json) -> None:
        path = self._file(environ, conf)
        if os.path.lexists(path):  # otherwise nothing was set up
            try:
                asked = wire.decode_asked(read_file(path))
            except (OSError, ShimError) as error:
                # A power cut has lost the file, and the request with it.
                warn(f"what driver {self.type!r} was asked is lost: {error}")
            else:
                self._tear_down(environ, asked)
            os.unlink(path)
        if self._ipam is not None:
            self._call_ipam("DEL", environ, conf)

    def _tear_down(self, environ: Mapping[str, str], asked: Json) -> None:
        """Tear down. A missing interface is an error for netavark, but not for us."""
        path = environ.get("CNI_NETNS", "")
        if translate.is_built_in(self._entry) and netns.identity(path) is None:
            # netavark before 2.1 does nothing without a netns, and its rules stay for ever.
            try:
                with netns.StandIn() as path:
                    self._tear_down_in(path, environ, asked, expected="No such device")
                return
            except PermissionError:
                path = environ.get("CNI_NETNS", "")
        self._tear_down_in(path, environ, asked)

    def _tear_down_in(
        self, path: str, environ: Mapping[str, str], asked: Json, expected: str | None = None
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
        status, stdout, stderr = _start(self._path, environ, [command], b"", what, self.timeout)
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

    def _run(self, command: str, path: str, environ: Mapping[str, str], asked: Json) -> bytes:
        """Run the program to its end; give its stdout. ShimError where it fails."""
        # A path may look like an option.
        arguments = [command, f"./{path}" if path.startswith("-") else path]
        given = asked
        if translate.is_built_in(self._entry):
            arguments = [*self._global_arguments(), *arguments]
            given = translate.network_options(asked)
        what = f"driver {self.type!r} ({command})"
        # Podman runs one at a time, and netavark relies on that: otherwise the last teardown of
        # one container could remove a bridge that another setup has just found.
        who = f"{what} for container {environ['CNI_CONTAINERID']!r}"
        turn = Lock(f"{self._directory}/lock", self.timeout, who)
        with NoLock() if self._is_parallel else turn:
            return _run(self._path, environ, arguments, given, what, self.timeout)

    def _global_arguments(self) -> list[str]:
        # Its aardvark-dns serves only the netns in which it was started.
        config = self._make(f"config-{os.stat('/proc/self/ns/net').st_ino}")
        names = aardvark(self._path)
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
        return f"{self._directory}/attachments/{name}"


def create(entry: Json, conf: Configuration, environ: Mapping[str, str], network: Json) -> bytes:
    """Let a plugin of netavark complete a network; give its stdout."""
    path = find(entry, conf.plugin_dirs, environ)
    what = f"driver {entry['driver']!r} (create)"
    return _run(path, environ, ["create"], network, what, conf.timeout)


def _run(
    path: str,
    environ: Mapping[str, str],
    arguments: list[str],
    given: Json,
    what: str,
    timeout: float,
) -> bytes:
    text = json.dumps(given).encode()
    status, stdout, stderr = _start(path, environ, arguments, text, what, timeout)
    if status == 0:
        invoke.pass_on(stderr)
        return stdout
    error = wire.parse_error(stdout)
    if error:
        raise ShimError(INTERNAL, f"{what} failed: {error}", child.explain("", stderr))
    raise ShimError(
        PLUGIN_MISBEHAVED,
        f"{what} {invoke.ending(status)}",
        child.explain(f"it printed {stdout[:500]!r}" if stdout else "", stderr),
    )


def _start(
    path: str,
    environ: Mapping[str, str],
    arguments: list[str],
    stdin: bytes,
    what: str,
    timeout: float,
) -> tuple[int, bytes, bytes]:
    inherited = {k: v for k, v in environ.items() if not k.startswith("CNI_")}
    return child.run(
        path,
        invoke.with_path(inherited),
        stdin,
        arguments=arguments,
        name=what,
        what=what,
        timeout=timeout,
    )


def find(entry: Json, plugin_dirs: list[str], environ: Mapping[str, str]) -> str:
    """Find the program of an entry: `path`, the netavark binary, or a plugin of netavark.

    Raises ShimError (code 7) where it is not found.
    """
    name = entry["driver"]
    if entry.get("path"):
        candidates = [entry["path"]]
    elif translate.is_built_in(entry):
        candidates = binaries("netavark", environ)
    else:
        candidates = [f"{directory}/{name}" for directory in plugin_dirs or PLUGIN_DIRS]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK) and not is_shim(path):
            return str(path)
    places = ":".join(os.path.dirname(path) for path in candidates)
    raise ShimError(
        INVALID_NETWORK_CONFIG,
        f"failed to find driver {name!r} in path [{places}]",
        "install netavark" if translate.is_built_in(entry) else "install it, or set pluginDirs",
    )


def binaries(name: str, environ: Mapping[str, str]) -> list[str]:
    """List where a binary of netavark may be, the best first."""
    directories = invoke.with_path(environ)["PATH"].split(":")
    return [f"{directory}/{name}" for directory in (*directories, *invoke.HELPER_DIRECTORIES)]


def aardvark(beside: str) -> str:
    """Find aardvark-dns: beside the netavark binary, else among Podman's helpers; or ""."""
    directories = [os.path.dirname(beside), *invoke.HELPER_DIRECTORIES]
    for path in [f"{directory}/aardvark-dns" for directory in directories]:
        if os.access(path, os.X_OK):
            return path
    return ""


def is_shim(path: str) -> bool:
    """Tell whether a program is our own launcher, which would wait for itself for ever."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return re.match(rb"#!.*python", start) is not None and b"netns_shim.main" in start
