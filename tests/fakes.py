# SPDX-License-Identifier: Apache-2.0
"""Fake plugins and uplinks: small real scripts that write down how they were called."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

LOG = "calls.jsonl"

# What every fake plugin begins with: it reads its stdin and writes the call down.
PROLOGUE = f"""#!/usr/bin/python3 -IS
import json, os, sys

def answer(value):
    sys.stdout.write(json.dumps(value))

def fail(code, message):
    answer({{"code": code, "msg": message}})
    sys.exit(1)

name, directory = os.path.basename(sys.argv[0]), os.path.dirname(sys.argv[0])
text = sys.stdin.read()
conf = json.loads(text)
verb = os.environ["CNI_COMMAND"]
environ = {{k: v for k, v in os.environ.items() if k.startswith("CNI_")}}
with open(directory + "/{LOG}", "a") as log:
    log.write(json.dumps({{"name": name, "verb": verb, "environ": environ, "conf": conf}}) + "\\n")
"""

# A plugin as strict as those of the Go library: the version of the configuration must be one of
# its own, and prevResult of the same. Its result is prevResult and one address more.
STRICT = """
versions, address, failing = json.loads({parameters!r})
if verb == "VERSION":
    answer({{"cniVersion": versions[-1], "supportedVersions": versions}})
    sys.exit()
if conf["cniVersion"] not in versions:
    fail(1, "incompatible CNI versions")
previous = conf.get("prevResult", {{"cniVersion": conf["cniVersion"]}})
if previous["cniVersion"] != conf["cniVersion"]:
    fail(999, "prevResult is of another version")
if verb in failing:
    fail(142, name + " fails " + verb)
if verb == "ADD":
    entry = {{"address": address}}
    if versions[-1] < "1":
        entry["version"] = "4"
    previous.setdefault("ips", []).append(entry)
    answer(previous)
"""

# What a broken plugin may do, each a whole script.
MISBEHAVIOURS = {
    "nothing": "#!/bin/sh\n",
    "garbage": "#!/bin/sh\necho 'panic: oh no'\n",
    "invalid UTF-8": '#!/bin/sh\nprintf \'{"cniVersion": "\\377"}\'\n',
    "null": "#!/bin/sh\necho null\n",
    "array": "#!/bin/sh\necho '[]'\n",
    "not a number": "#!/bin/sh\necho '{\"mtu\": NaN}'\n",
    "infinite": "#!/bin/sh\necho '{\"mtu\": 1e999}'\n",
    "truncated": "#!/bin/sh\nprintf '{\"cniVersion\": '\n",
    "many documents": "#!/bin/sh\nyes 1 | head -n 100000\n",
    "nested": '#!/usr/bin/python3 -IS\nprint("[" * 200000)\n',
    "signal": "#!/bin/sh\nkill -SEGV $$\n",
    "status 3": "#!/bin/sh\necho 'no such device' >&2\nexit 3\n",
    "failing garbage": "#!/bin/sh\necho 'no such device'\nexit 1\n",
    "no error": '#!/bin/sh\necho \'{"cniVersion": "1.0.0"}\'\nexit 1\n',
    "no interpreter": "#!/no/such/interpreter\n",
    "no executable": "what is this\n",
    "endless": "#!/usr/bin/python3 -IS\nwhile True: print('x' * 65536)\n",
}


class Call(NamedTuple):
    """One call of a fake plugin."""

    name: str
    verb: str
    environ: dict[str, str]
    conf: dict[str, Any]


def environment(directory: Path, verb: str = "ADD") -> dict[str, str]:
    """Give the variables of a call for a container that is the netns of the call itself.

    Its plugins are in a directory.
    """
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_NETNS_OVERRIDE": "1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
    }


def executable(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_plugin(directory: Path, name: str, script: str = "") -> Path:
    """Write a plugin that logs its calls, then does what a script in Python says.

    The script finds `verb`, `conf`, `environ`, `answer(value)` and `fail(code, message)`.
    """
    return executable(directory / name, PROLOGUE + script)


def strict_plugin(
    directory: Path,
    name: str,
    *,
    versions: Iterable[str] = ("0.3.1", "0.4.0", "1.0.0", "1.1.0"),
    address: str = "10.0.0.1/24",
    failing: Iterable[str] = (),
) -> Path:
    """Write a plugin that speaks some versions, gives an address, and fails some verbs."""
    parameters = json.dumps([list(versions), address, list(failing)])
    return fake_plugin(directory, name, STRICT.format(parameters=parameters))


def calls(directory: Path) -> list[Call]:
    """Read how the fakes in a directory were called, in the order of the calls."""
    path = directory / LOG
    if not path.exists():
        return []
    return [Call(**json.loads(line)) for line in path.read_text().splitlines()]


def verbs(directory: Path) -> list[tuple[str, str]]:
    """List name and verb of each call in a directory, but for those to VERSION."""
    return [(call.name, call.verb) for call in calls(directory) if call.verb != "VERSION"]


def is_let_go(fifo: Path, fd: int, seconds: float = 20) -> bool:
    """Wait until no process holds the other end of a FIFO, of which `fd` is the reading end.

    Something must have been written into it, so that it was open at all.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    text = b""
    while poll.poll(seconds * 1000):
        chunk = os.read(fd, 4096)
        if not chunk:
            assert text, f"no process has opened {fifo}"
            return True
        text += chunk
    return False


# An uplink like pasta in the foreground. Files beside it say how it is to behave.
PASTA = f"""#!/usr/bin/python3 -IS
import json, os, signal, sys

directory = os.path.dirname(sys.argv[0])
record = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "leads": os.getsid(0) == os.getpid()}}
with open(directory + "/{LOG}", "a") as log:
    log.write(json.dumps(record) + "\\n")
print("No routable interface to syslog", file=sys.stderr)
if os.path.exists(directory + "/old") and "--map-guest-addr" in sys.argv:
    sys.exit("pasta: unrecognized option '--map-guest-addr'")
if os.path.exists(directory + "/broken"):
    print("Failed to open() /dev/net/tun", file=sys.stderr)
    sys.exit(2)
if os.path.exists(directory + "/hanging"):
    signal.pause()
with open(sys.argv[sys.argv.index("--pid") + 1], "w") as file:
    file.write(str(os.getpid()) + "\\n")
signal.pause()
"""

# An uplink that stays in the foreground and says when it is ready, like slirp4netns.
SLIRP4NETNS = f"""#!/usr/bin/python3 -IS
import json, os, signal, sys

directory = os.path.dirname(sys.argv[0])
if sys.argv[1:] == ["--help"]:
    print(open(directory + "/usage").read())
    sys.exit()
with open(directory + "/{LOG}", "a") as log:
    log.write(json.dumps({{"argv": sys.argv[1:]}}) + "\\n")
if os.path.exists(directory + "/broken"):
    print("cannot open the tap", file=sys.stderr)
    sys.exit(5)
ready = int(sys.argv[sys.argv.index("-r") + 1])
os.write(ready, b"1")
os.close(ready)
signal.pause()
"""


def log(directory: Path) -> list[dict[str, Any]]:
    """Read how the uplinks in a directory were called."""
    path = directory / LOG
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
