# SPDX-License-Identifier: Apache-2.0
"""A fake of netavark, as a plugin of it or as the binary: a small real script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fakes

NETNS = "/run/netns/none"  # where nothing is
MAC = "02:00:00:00:00:01"
SUBNET: dict[str, Any] = {"subnet": "10.89.8.0/24", "gateway": "10.89.8.1"}

# What every fake of netavark begins with, a plugin or the binary: it writes its call down where
# the fake plugins of CNI do. `conf` holds the arguments, what was on stdin, and which signals are
# ignored.
PROLOGUE = f"""#!/usr/bin/python3 -IS
import json, os, signal, sys

def answer(value):
    sys.stdout.write(json.dumps(value))

def fail(message):
    answer({{"error": message}})
    sys.exit(1)

name, directory = os.path.basename(sys.argv[0]), os.path.dirname(sys.argv[0])
text = sys.stdin.read()
asked = json.loads(text) if text else {{}}
known = ("create", "setup", "teardown", "info", "version")
verb = next((word for word in sys.argv[1:] if word in known), "")
signals = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
ignored = [number.name for number in signals if signal.getsignal(number) == signal.SIG_IGN]
conf = {{"argv": sys.argv[1:], "stdin": asked, "ignored": ignored}}
with open(directory + "/{fakes.LOG}", "a") as log:
    record = {{"name": name, "verb": verb, "environ": dict(os.environ), "conf": conf}}
    log.write(json.dumps(record) + "\\n")

def status(options, network, mac="", ifname=""):
    subnets = []
    for ip, subnet in zip(options.get("static_ips") or [], network.get("subnets") or []):
        ipnet = ip + "/" + subnet["subnet"].partition("/")[2]
        subnets.append({{"ipnet": ipnet, "gateway": subnet.get("gateway")}})
    mac = mac or options.get("static_mac") or "{MAC}"
    made = {{"mac_address": mac, "subnets": subnets}}
    return {{"interfaces": {{ifname or options["interface_name"]: made}}}}
"""

# What it does unless it has been told otherwise.
EPILOGUE = """
if verb == "setup" and "networks" in asked:
    networks = asked["network_info"]
    answer({name: status(asked["networks"][name], networks[name]) for name in networks})
elif verb == "setup":
    answer(status(asked["network_options"], asked["network"]))
elif verb == "create":
    answer(asked)
elif verb != "teardown":
    answer({"version": "1.0.0", "api_version": "1.0.0"})
"""


def netavark(directory: Path, name: str = "mock", script: str = "") -> Path:
    """Write a plugin of netavark, or the binary, that logs its calls and does what is asked.

    A script in Python goes first: it finds `verb`, `asked`, `status(…)`, `answer(value)` and
    `fail(message)`, and can exit.
    """
    return fakes.executable(directory / name, PROLOGUE + script + EPILOGUE)


def ipam(directory: Path, name: str = "host-local", address: str = "10.89.8.2/24") -> Path:
    """Write an IPAM plugin that gives one address."""
    return fakes.strict_plugin(directory, name, address=address)
