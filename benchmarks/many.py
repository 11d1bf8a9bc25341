# SPDX-License-Identifier: Apache-2.0
"""The figure `many`: what looks at all attachments, or detaches them all."""

from __future__ import annotations

import bench
from measure import Row, Turn, ratio, rounds_of, times
from networks import call, shim
from runtime import PLUGIN
from stage import Sample, Stage

MANY = (100, 1000, 5000)
LOOKS = ("gc --dry-run", "status --json", "status")
ENDS = ("gc", "stop --force")
# By the square it would be 5.5. The kernel and the caches of the processor have a share in it.
GOAL = 1.5

# Writes references like the one that is there, each with a lease; prints what links they have.
POPULATE = """
import json, os, sys
state, many = sys.argv[1], int(sys.argv[2])
(name,) = os.listdir(f"{state}/refs")
text = open(f"{state}/refs/{name}").read()
leases = f"{state}/var/lib/cni/networks/many"
os.makedirs(leases, exist_ok=True)
for n in range(1, many):
    container, address = f"other{n}", f"10.91.{n >> 8}.{n & 255}"
    result = {"cniVersion": "1.0.0", "interfaces": [{"name": f"v{n}"}]}
    result["ips"] = [{"address": f"{address}/16"}]
    with open(f"{state}/refs/{name.replace('container0', container)}", "x") as file:
        file.write(text.replace("container0", container))
        file.write(json.dumps({"result": result}) + "\\n")
    with open(f"{leases}/{address}", "x") as file:
        file.write(f"{container}\\r\\neth0")
    print(f"link add v{n} type veth peer name w{n}")
"""


def populate(stage: Stage, many: int, directory: str, *, netns: str) -> str:
    """Attach so many: the first one as a runtime does, the others by writing what is written.

    It gives what would make their links, for `ip`.
    """
    conf = shim("many", delegate={"type": "nothing"}, uplink="none", stateDir=directory)
    stage.outside.run(call(stage, "ADD", conf, CNI_NETNS=netns))
    argv = [stage.python, "-IS", "-c", POPULATE, f"{directory}/default", str(many)]
    return str(stage.session.run(argv, check=True).stdout)


def command(stage: Stage, words: str, directory: str) -> Sample:
    """Run a command of the shim in a state directory; give what it took."""
    argv = [PLUGIN, *words.split(), "--state-dir", directory]
    env = {"PATH": bench.ROOT_PATH, "XDG_RUNTIME_DIR": stage.world.runtime_dir}
    return stage.outside.run([{"argv": argv, "env": env, "conf": None}])[0]


def many(stage: Stage, rounds: int) -> list[Row]:
    """`gc`, `status` and `stop --force` of 100, 1,000 and 5,000 attachments."""
    alive = {}
    for number in MANY:
        alive[number] = stage.state_dir(f"many{number}")
        links = populate(stage, number, alive[number], netns=stage.containers[0].netns)
        enter = ["nsenter", f"--net={alive[number]}/default/netns", "ip", "-batch", "-"]
        stage.session.run(enter, input=links, check=True)

    def look(words: str, number: int) -> Turn:
        name = f"{words}, {number} alive"
        return lambda: {name: command(stage, words, alive[number])}

    looked = rounds_of(max(3, rounds // 4), [look(w, n) for w in LOOKS for n in MANY])
    for directory in alive.values():
        command(stage, "stop --force", directory)

    def end(words: str, number: int) -> Turn:
        def turn() -> dict[str, Sample]:
            directory = stage.state_dir("ended")
            with stage.session.container() as container:
                populate(stage, number, directory, netns=container.netns)
            # Without their links, which would show that they live.
            return {f"{words}, {number} gone": command(stage, words, directory)}

        return turn

    ended = rounds_of(max(1, rounds // 16), [end(w, n) for w in ENDS for n in MANY])
    return [
        *(_growth(looked, words, "alive") for words in LOOKS),
        *(_growth(ended, words, "gone") for words in ENDS),
        *times("many", looked),
        *times("many", ended),
    ]


def _growth(found: list[dict[str, Sample]], words: str, kind: str) -> Row:
    """Compare what each attachment takes: beyond 100 of them, and beyond 1,000."""
    few, some, most = (f"{words}, {number} {kind}" for number in MANY)

    def quotient(value: dict[str, float]) -> float:
        each = (value[some] - value[few]) / (MANY[1] - MANY[0])
        return (value[most] - value[some]) / (MANY[2] - MANY[1]) / each

    return ratio("many", f"{words}: each of 5,000 / each of 1,000", found, quotient, GOAL)
