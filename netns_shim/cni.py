# SPDX-License-Identifier: Apache-2.0
"""The CNI wire without I/O: environment and text in, a `Request` or text out.

It runs at every call of a runtime, so it imports little.
Sections are those of the CNI specification, version 1.1.0.
"""

from __future__ import annotations

import os

from . import __version__, decoding, encoding
from .decoding import shorten
from .errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    INVALID_NETWORK_CONFIG,
    PluginFailed,
    ShimError,
)
from .request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .decoding import Json

# In the order in which they were published: the order is used to compare them.
SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT_VERSION = SUPPORTED_VERSIONS[-1]
OLDEST_VERSION = SUPPORTED_VERSIONS[0]

# A reference is a file named after the attachment and its plugins; file names end at 255 bytes.
MAX_ATTACHMENT_BYTES = 190
IFNAMSIZ = 16


def is_name(text: str) -> bool:
    """Tell whether a text is a name (section 1: a letter or digit, then also `_`, `.` and `-`)."""
    letters = text.replace("_", "a").replace(".", "a").replace("-", "a")
    return text.isascii() and text[:1].isalnum() and letters.isalnum()


# Section 2, "Parameters": what each verb takes, and whether it must be there. CNI_PATH is optional
# in the text; the reference library demands it, and so does a plugin that looks up others.
_VARIABLES: dict[str, dict[str, bool]] = {
    "ADD": {
        "CNI_CONTAINERID": True,
        "CNI_NETNS": True,
        "CNI_IFNAME": True,
        "CNI_ARGS": False,
        "CNI_PATH": True,
    },
    "CHECK": {
        "CNI_CONTAINERID": True,
        "CNI_NETNS": True,
        "CNI_IFNAME": True,
        "CNI_ARGS": False,
        "CNI_PATH": True,
    },
    "DEL": {
        "CNI_CONTAINERID": True,
        "CNI_NETNS": False,
        "CNI_IFNAME": True,
        "CNI_ARGS": False,
        "CNI_PATH": True,
    },
    "GC": {"CNI_PATH": True},
    "STATUS": {"CNI_PATH": True},
    "VERSION": {},
}

# Since which version a verb exists.
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def container_id_problem(value: str) -> str:
    """Say what is wrong with a container ID, or nothing (section 2: same letters as a name)."""
    return "" if is_name(value) else "invalid characters in CNI_CONTAINERID"


def ifname_problem(value: str) -> str:
    """Say what is wrong with an interface name, or nothing.

    The rules are those of the reference library, which are the kernel's. Control characters are
    refused as well, because the name goes into file names and into messages for people.
    """
    try:
        size = len(os.fsencode(value))
    except UnicodeEncodeError:
        return "invalid characters in CNI_IFNAME"
    if size >= IFNAMSIZ:
        return f"CNI_IFNAME is too long: {size} bytes, at most {IFNAMSIZ - 1} are possible"
    if value in (".", ".."):
        return "CNI_IFNAME is . or .."
    if any(c in "/:" or c.isspace() or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value):
        return "invalid characters in CNI_IFNAME"
    return ""


_PROBLEM: dict[str, Callable[[str], str]] = {
    "CNI_CONTAINERID": container_id_problem,
    "CNI_IFNAME": ifname_problem,
}


def check_length(network: str, container_id: str, ifname: str) -> None:
    """Refuse an attachment whose names are too long for one file name: ShimError (code 4)."""
    size = _length(network, container_id, ifname)
    if size > MAX_ATTACHMENT_BYTES:
        raise ShimError(
            INVALID_ENVIRONMENT,
            "network name, CNI_CONTAINERID and CNI_IFNAME are together too long to be a file name",
            f"{size} bytes, at most {MAX_ATTACHMENT_BYTES} are possible",
        )


def can_be_attached(request: Request) -> bool:
    """Tell whether the names of an attachment are short enough for an ADD to have succeeded."""
    parts = request.network, request.container_id, request.ifname
    return _length(*parts) <= MAX_ATTACHMENT_BYTES


def _length(network: str, container_id: str, ifname: str) -> int:
    return len(os.fsencode(f"{network}:{container_id}:{ifname}"))


def check_environment(environ: Mapping[str, str]) -> str:
    """Give the verb, once every variable that it requires is there and well formed.

    Call it before stdin is read. An empty variable counts as a missing one. Raises ShimError
    (code 4), which names all wrong variables at once.
    """
    verb = environ.get("CNI_COMMAND", "")
    if not verb:
        raise ShimError(INVALID_ENVIRONMENT, "required env variables [CNI_COMMAND] missing")
    if verb not in _VARIABLES:
        raise ShimError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {shorten(verb)}")
    required = [name for name, needed in _VARIABLES[verb].items() if needed]
    missing = [name for name in required if not environ.get(name)]
    problems = [f"required env variables [{','.join(missing)}] missing"] if missing else []
    values = []
    for name in required:
        value = environ.get(name, "")
        problem = _PROBLEM[name](value) if value and name in _PROBLEM else ""
        if problem:
            problems.append(problem)
            values.append(f"{name} is {shorten(value)!r}")
    if problems:
        raise ShimError(INVALID_ENVIRONMENT, "; ".join(problems), "; ".join(values))
    return verb


def parse(environ: Mapping[str, str], text: bytes) -> Request:
    """Make the request of a call from its environment and what was on stdin.

    Call `check_environment` first. Parameters that the verb does not take are neither looked at
    nor passed on. Raises ShimError: code 6 for a text that is not a configuration, 1 for a version
    that is not supported or is too old for the verb, 7 for a network name, 4 for names that are
    too long together.
    """
    verb = environ["CNI_COMMAND"]
    conf = decode(text)
    version = config_version(conf)
    network = network_name(conf)
    if conf.get("runtimeConfig"):
        from . import offered  # only where a runtime has something to offer

        conf["runtimeConfig"] = offered.canonical(conf["runtimeConfig"])
    since = SINCE.get(verb, OLDEST_VERSION)
    if SUPPORTED_VERSIONS.index(version) < SUPPORTED_VERSIONS.index(since):
        raise ShimError(
            INCOMPATIBLE_VERSION,
            f"config version does not allow {verb}",
            f'config is "{version}", {verb} exists since {since}',
        )
    given = {name: environ.get(name, "") for name in _VARIABLES[verb]}
    container_id = given.get("CNI_CONTAINERID", "")
    ifname = given.get("CNI_IFNAME", "")
    if verb != "DEL":  # see `can_be_attached`: a runtime calls DEL after an ADD that was refused
        check_length(network, container_id, ifname)
    return Request(
        verb,
        network=network,
        cni_version=version,
        conf=conf,
        environ=environ,
        container_id=container_id,
        netns=given.get("CNI_NETNS", ""),
        ifname=ifname,
        args=given.get("CNI_ARGS", ""),
        path=given.get("CNI_PATH", ""),
    )


def config_version(conf: Json) -> str:
    """Give the version of a configuration; ShimError (code 1 or 6) where it is not supported."""
    version = conf.get("cniVersion", "")
    if not isinstance(version, str):
        raise ShimError(DECODING_FAILURE, "cniVersion is not a string")
    if not version:
        return OLDEST_VERSION
    if version not in SUPPORTED_VERSIONS:
        # The reference library compares texts as well: "1.0" is not "1.0.0".
        supported = " ".join(f'"{known}"' for known in SUPPORTED_VERSIONS)
        details = f'config is "{shorten(version)}", plugin supports [{supported}]'
        raise ShimError(INCOMPATIBLE_VERSION, "incompatible CNI versions", details)
    return version


def decode(text: bytes, *, what: str = "network configuration") -> Json:
    """Read one JSON object, more strictly than `json` does: it can always be written again.

    Not accepted: anything but UTF-8, a second document, a key given twice, a number that JSON
    cannot express (NaN, 1e999), nesting of more than 200 levels. Raises ShimError (code 6);
    `what` is the name of the text in its message.
    """
    try:
        value = decoding.one(text, is_strict=True)
    except ValueError as error:
        # JSONDecodeError, UnicodeDecodeError, an integer of thousands of digits, and our own.
        why = str(error) if text.strip() else "it is empty"
    else:
        if isinstance(value, dict):
            return value
        why = "it is not a JSON object"
    raise ShimError(DECODING_FAILURE, f"cannot decode the {what}", why)


def spoken_version(text: bytes) -> str:
    """Give the version that a text asks for where it is supported, else ours; never raise.

    This is the `cniVersion` of an answer to a text that could not become a request.
    """
    try:
        version = decode(text).get("cniVersion")
    except ShimError:
        return CURRENT_VERSION
    return version if version in SUPPORTED_VERSIONS else CURRENT_VERSION


def version_answer(text: bytes) -> str:
    """Answer VERSION (section 2): the version of the question, and all known ones; never raise."""
    answer = {"cniVersion": spoken_version(text), "supportedVersions": SUPPORTED_VERSIONS}
    return encoding.compact(answer) + "\n"


def format_result(result: Json) -> str:
    """Write a result as the reference library does; the text is ASCII (section 5, "Success")."""
    try:
        return encoding.pretty(result) + "\n"
    except RecursionError:
        raise ShimError(DECODING_FAILURE, "cannot write the result", "nested too deeply") from None


def format_error(error: ShimError, cni_version: str) -> str:
    """Write an error (section 5, "Error"); that of a delegated plugin stays as it was written."""
    if isinstance(error, PluginFailed):
        # A lone surrogate cannot be written in UTF-8: it is written as \udcXX, as JSON does.
        text = error.answer.encode("utf-8", "backslashreplace").decode("utf-8")
        return text if text.endswith("\n") else text + "\n"  # for people who call a plugin
    answer = {"cniVersion": cni_version, "code": error.code, "msg": error.message}
    if error.details:
        answer["details"] = error.details
    return encoding.pretty(answer) + "\n"


def about() -> str:
    """Give the text for stderr when the executable is started without a command."""
    return (
        f"netns-shim {__version__}: run CNI plugins inside a shared rootless network namespace\n"
        f"CNI protocol versions supported: {', '.join(SUPPORTED_VERSIONS)}\n"
    )


def network_name(conf: Json) -> str:
    """Give the name of the network; ShimError (code 7) where it is missing or malformed."""
    name = conf.get("name")
    if not isinstance(name, str) or not name:
        raise ShimError(INVALID_NETWORK_CONFIG, "missing network name")
    if not is_name(name):
        message = "invalid characters found in network name"
        raise ShimError(INVALID_NETWORK_CONFIG, message, f"name is {shorten(name)!r}")
    return name
