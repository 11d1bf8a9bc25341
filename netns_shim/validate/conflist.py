# SPDX-License-Identifier: Apache-2.0
"""A CNI network in a file, as a runtime finds and reads it (section 1 of the specification)."""

from __future__ import annotations

import os

from .. import cni
from ..errors import INVALID_NETWORK_CONFIG, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..decoding import Json

# Where runtimes look for plugins; those of Podman 4, which were the last to be named for it.
PLUGIN_DIRS = (
    "/usr/local/libexec/cni",
    "/usr/libexec/cni",
    "/usr/local/lib/cni",
    "/usr/lib/cni",
    "/opt/cni/bin",
)
# The largest file to read, in bytes: no network is that large.
MAXIMUM_SIZE = 16 << 20
SYSTEM_DIR = "/etc/cni/net.d"
# Keys that make an entry one of the shim, under any name of it. Not so the `delegate` of flannel,
# which need not name a plugin.
OURS = ("delegate", "plugins")
# Keys that belong to the network or the runtime, and so not to the shim.
OF_CNI = ("cniVersion", "name", "type", "capabilities", *OURS)


def load(wanted: str, environ: Mapping[str, str]) -> Json:
    """Read a network by the path of its file, or by its name.

    Gives `name`, `cniVersion` and `plugins`. If its entries already belong to the shim, it gives
    the plugins in them, with the shim's own keys beside those. Raises ShimError (code 6 or 7).
    """
    if "/" in wanted:
        return _read(wanted)
    directories = _directories(environ)
    for path in _candidates(directories):
        network = _read(path)
        if network["name"] == wanted:
            return network
    raise ShimError(
        INVALID_NETWORK_CONFIG, f"no CNI network {wanted!r}", f"looked in {', '.join(directories)}"
    )


def _directories(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME') or '/root'}/.config"
    return [*filter(None, [environ.get("NETCONFPATH")]), f"{home}/cni/net.d", SYSTEM_DIR]


def files(environ: Mapping[str, str]) -> list[str]:
    """List the files that may have networks."""
    return [path for path in _candidates(_directories(environ)) if os.path.isfile(path)]


def _candidates(directories: list[str]) -> list[str]:
    """List the files in the order in which libcni takes them: lists first, each sorted."""
    found = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for endings in ((".conflist",), (".conf", ".json")):
            found += [f"{directory}/{name}" for name in names if name.endswith(endings)]
    return found


def _read(path: str) -> Json:
    if not path.startswith("/"):
        raise ShimError(INVALID_NETWORK_CONFIG, f"not an absolute path: {path!r}")
    try:
        if not os.path.isfile(path):
            raise ValueError("it is not a file" if os.path.exists(path) else "it does not exist")
        with open(path, "rb") as file:
            text = file.read(MAXIMUM_SIZE + 1)
        if len(text) > MAXIMUM_SIZE:
            raise ValueError(f"it is larger than {MAXIMUM_SIZE >> 20} MiB")
    except (OSError, ValueError) as error:
        raise ShimError(INVALID_NETWORK_CONFIG, f"cannot read {path!r}", str(error)) from None
    conf = cni.decode(text, what=f"CNI network in {path}")
    if "type" in conf or "plugins" not in conf:
        # A single plugin, in a file that ends with .conf or .json.
        conf = {**conf, "plugins": [conf]}
    name, plugins = conf.get("name"), conf["plugins"]
    if not isinstance(name, str) or not cni.is_name(name):
        raise ShimError(INVALID_NETWORK_CONFIG, f"{path}: missing or invalid network name")
    if not are_entries(plugins):
        raise ShimError(INVALID_NETWORK_CONFIG, f"{path}: 'plugins' must be a list of objects")
    return {"name": name, "cniVersion": version(conf), **_unwrap(plugins, path)}


def are_entries(plugins: Any) -> bool:
    """Tell whether a value is a list of at least one object."""
    return (
        isinstance(plugins, list) and bool(plugins) and all(isinstance(p, dict) for p in plugins)
    )


def version(conf: Json) -> str:
    """Choose the newest version that the network has and we speak, as libcni does.

    Raises ShimError (code 1 or 6) where there is no such version.
    """
    offered = conf.get("cniVersions")
    versions = [conf.get("cniVersion"), *(offered if isinstance(offered, list) else [])]
    known = [spoken for spoken in cni.SUPPORTED_VERSIONS if spoken in versions]
    if known:
        return known[-1]
    return cni.config_version(conf)


def _unwrap(plugins: list[Json], path: str) -> Json:
    ours = [plugin for plugin in plugins if _is_ours(plugin)]
    if not ours:
        return {"plugins": plugins}
    if len(ours) < len(plugins):
        message = f"{path}: entries of netns-shim must be alone"
        raise ShimError(INVALID_NETWORK_CONFIG, message)
    return unwrap(ours, path)


def _is_ours(entry: Json) -> bool:
    return entry.get("type") != "flannel" and any(key in entry for key in OURS)


def unwrap(ours: list[Json], path: str) -> Json:
    """Give the plugins in the shim's entries as `plugins`, and beside them the shim's own keys.

    `path` is the network's name in errors. Raises ShimError (code 7) where they do not agree.
    """
    keys = [{k: v for k, v in entry.items() if k not in OF_CNI} for entry in ours]
    if any(key != keys[0] for key in keys):
        message = f"{path}: entries of netns-shim must agree in their keys"
        raise ShimError(INVALID_NETWORK_CONFIG, message)
    inner: list[Json] = []
    for entry in ours:
        wrapped: Any = [entry["delegate"]] if "delegate" in entry else entry.get("plugins")
        if not are_entries(wrapped):
            message = f"{path}: 'delegate' must be an object, or 'plugins' a list of objects"
            raise ShimError(INVALID_NETWORK_CONFIG, message)
        if "delegate" in entry:
            wrapped = [{"capabilities": entry.get("capabilities"), **entry["delegate"]}]
        inner += wrapped
    return {**keys[0], "plugins": [{k: v for k, v in p.items() if v is not None} for p in inner]}
