# SPDX-License-Identifier: Apache-2.0
"""The configuration of the shim, and whether it has been validated before.

Validation takes as long as a call, and jsonschema, if something is wrong, much longer. A valid
configuration therefore leaves a *stamp*: a file with the version of the shim and the whole static
part of the configuration, which is compared for equality. A stamp saves time and nothing else: one
that is odd in any way means "not validated". This module runs at every call, so it
imports little.
"""

from __future__ import annotations

import binascii
import os

from . import __version__, encoding
from .cni import is_name
from .errors import INVALID_NETWORK_CONFIG, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .decoding import Json

DEFAULT_NETNS = "default"
DEFAULT_ENTER = "auto"
DEFAULT_TIMEOUT = 120.0
# Networks get the MTU of their uplink.
DEFAULT_MTU = "uplink"
MINIMUM_MTU, MAXIMUM_MTU = 68, 65535  # of IPv4, and of Linux
# The driver is chosen, its options are only ours, and its program is looked up.
DEFAULT_UPLINK = {"driver": "", "options": [], "path": ""}
MAX_NETNS_LENGTH = 64

# The keys that a runtime adds to a call (section 3 of the specification): they differ each time.
_RUN_TIME_KEYS = ("prevResult", "runtimeConfig", "args")
# The keys that say where plugins run and where the state is.
PLACE_KEYS = ("netns", "stateDir", "enter")
_RESERVED_PREFIX = "cni.dev/"

_S_IFMT = 0o170000
_S_IFREG = 0o100000


class Configuration:
    """The shim's own keys of a configuration, with the defaults filled in.

    `plugins` are the delegated configurations as they were written, one or more; `netns` is the
    name of the shared network namespace; `uplink` has the keys `driver` (empty: the shim chooses),
    `options` and `path` (empty: the shim looks it up), and `publish` for ports of the shared netns
    itself; `enter` is auto, always or never; `mtu` is what a plugin gets that knows the key and
    was given none: "uplink" for that of the uplink, a number of bytes, or 0 for its own default;
    `publish` tells whether port mappings of the runtime are opened on the host; `names` whether
    containers of the network find each other by name; `state_dir` is an
    absolute path, or empty for the default; `timeout` is in seconds, for one delegated plugin and
    for waiting for other calls; `keep` lists paths that plugins see; `plugin_dirs` lists where to
    look for plugins of netavark, empty for the default; `parallel` is True to wait for no other
    call, False to go one at a time, None to wait where plugins are known to clash.
    """

    __slots__ = (
        "enter",
        "keep",
        "mtu",
        "names",
        "netns",
        "parallel",
        "plugin_dirs",
        "plugins",
        "publish",
        "state_dir",
        "timeout",
        "uplink",
    )

    def __init__(
        self,
        *,
        plugins: list[Json],
        netns: str = DEFAULT_NETNS,
        uplink: Json | None = None,
        enter: str = DEFAULT_ENTER,
        state_dir: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        plugin_dirs: list[str] | None = None,
        keep: list[str] | None = None,
        parallel: bool | None = None,
        mtu: str | float = DEFAULT_MTU,
        publish: bool = True,
        names: bool = False,
    ) -> None:
        self.plugins = plugins
        self.netns = netns
        self.uplink = uplink or DEFAULT_UPLINK
        self.enter = enter
        self.state_dir = state_dir
        self.timeout = timeout
        self.plugin_dirs = plugin_dirs or []
        self.keep = keep or []
        self.parallel = parallel
        self.mtu = mtu
        self.publish = publish
        self.names = names

    @property
    def types(self) -> list[str]:
        """The types of the plugins, or what a driver of netavark is called; as for `plugins`."""
        return [entry.get("driver") or entry["type"] for entry in self.plugins]


def read(conf: Json) -> Configuration:
    """Read the shim's own keys.

    You need `netns`, `stateDir` and `enter` to find the stamp, so these are right: a configuration
    in which they are not is refused as `check` would refuse it, with ShimError (code 7). The other
    keys are as they were written until `check` has looked at them.
    """
    if not _leads_to_stamps(conf):
        _validate(conf)
    uplink = conf.get("uplink", {})
    return Configuration(
        plugins=[conf["delegate"]] if "delegate" in conf else conf.get("plugins", []),
        netns=conf.get("netns", DEFAULT_NETNS),
        uplink={
            **DEFAULT_UPLINK,
            **(uplink if isinstance(uplink, dict) else {"driver": uplink}),
            **_published(conf.get("publish")),
        },
        enter=conf.get("enter", DEFAULT_ENTER),
        state_dir=conf.get("stateDir", ""),
        timeout=conf.get("timeout", DEFAULT_TIMEOUT),
        plugin_dirs=conf.get("pluginDirs"),
        keep=conf.get("keep"),
        parallel=conf.get("parallel"),
        publish=conf.get("publish") is not False,
        names=conf.get("names") is True,
        mtu=conf.get("mtu", DEFAULT_MTU),
    )


def _leads_to_stamps(conf: Json) -> bool:
    """Tell whether the keys that lead to the stamps are right; False where that is unclear."""
    netns, state_dir = conf.get("netns", DEFAULT_NETNS), conf.get("stateDir", "/")
    return (
        isinstance(netns, str)
        and is_name(netns)
        and len(netns) <= MAX_NETNS_LENGTH
        and isinstance(state_dir, str)
        and state_dir.startswith("/")
        and state_dir.isprintable()
        and conf.get("enter", DEFAULT_ENTER) in ("auto", "always", "never")
    )


def _published(publish: object) -> Json:
    return {"publish": publish} if isinstance(publish, list) else {}


def static(conf: Json) -> Json:
    """Leave out the keys of the runtime: what is left is in the file of the network."""
    return {
        key: value
        for key, value in conf.items()
        if key not in _RUN_TIME_KEYS and not key.startswith(_RESERVED_PREFIX)
    }


def is_same_network(one: Json | None, other: Json) -> bool:
    """Tell whether two calls were given the same network."""
    return one is not None and static(one) == static(other)


def is_same_call(one: Json | None, other: Json) -> bool:
    """Tell whether a runtime asks for the same as in an earlier call, but for a result."""
    return is_same_network(one, other) and all(
        (one or {}).get(key) == other.get(key) for key in _RUN_TIME_KEYS if key != "prevResult"
    )


def static_part(conf: Json) -> str:
    """Give `static` of a configuration as canonical JSON in ASCII.

    Raises ShimError (code 7) where it is nested too deeply to be written.
    """
    try:
        return encoding.compact(static(conf), sort_keys=True)
    except RecursionError:
        message = "invalid configuration: nested too deeply"
        raise ShimError(INVALID_NETWORK_CONFIG, message) from None


def check(conf: Json, stamp_dir: str | None) -> bool:
    """Check that the configuration is valid; True if a stamp says so, False if it was validated.

    After False, call `remember`. Raises ShimError (code 7) with all problems at once.
    """
    # No stamp covers these keys, so every call checks them.
    for key in _RUN_TIME_KEYS:
        if not isinstance(conf.get(key), dict | None):
            raise ShimError(INVALID_NETWORK_CONFIG, f"$.{key}: must be an object")
    if stamp_dir is not None:
        text = static_part(conf)
        if _holds(os.path.join(stamp_dir, _stamp_name(conf, text)), _stamp_content(text)):
            return True
    _validate(conf)
    return False


def remember(conf: Json, stamp_dir: str) -> None:
    """Leave a stamp for a configuration that `check` accepted, in a directory that exists.

    A failure to write it does no harm: the configuration is validated again next time.
    """
    from .shared import files  # only for a configuration that is new

    text = static_part(conf)
    path = os.path.join(stamp_dir, _stamp_name(conf, text))
    try:
        # It is not synced: what a power cut leaves is not equal, and so not a stamp.
        files.write_atomically(path, _stamp_content(text).decode())
    except OSError:
        return


def number(conf: Json) -> int:
    """Tell a configuration from others of its network, which has few."""
    return binascii.crc32(static_part(conf).encode("ascii"))


def _stamp_name(conf: Json, text: str) -> str:
    name = conf.get("name")
    # The wire has checked the name, but `validate` reads configurations from files.
    if not isinstance(name, str) or not is_name(name):
        name = ""
    return f"{name}-{binascii.crc32(text.encode('ascii')):08x}"


def _stamp_content(text: str) -> bytes:
    return f"netns-shim {__version__}\n{text}\n".encode("ascii")


def _holds(path: str, content: bytes) -> bool:
    try:
        # O_NONBLOCK: a FIFO in the place of a stamp must not stop us.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        return (
            status.st_mode & _S_IFMT == _S_IFREG
            and status.st_mode & 0o022 == 0
            and status.st_uid == os.geteuid()
            and status.st_size == len(content)
            and os.read(fd, len(content) + 1) == content
        )
    except OSError:
        return False
    finally:
        os.close(fd)


def _validate(conf: Json) -> None:
    from .validate import quick  # only without a valid stamp

    if not quick.is_right(conf):
        from .validate import explain  # only to say what is wrong

        explain.validate(conf)
