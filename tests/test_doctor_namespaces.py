# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: user namespaces, subordinate IDs and what maps them, mounts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import bench
import pytest
from diagnosis import FAKES, Fakes, ask, ask_in, command, hide, replaced, results
from runtime import PLUGIN

from netns_shim.cli.doctor import ids

UNSHARE = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]
# User namespaces are refused to a process that is in a chroot, unshare(2): EPERM.
CHROOT = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/root
mount --rbind / /mnt/root
set -- /usr/sbin/chroot /mnt/root "$@"
"""


def sysctl(name: str, value: int) -> str:
    """Write a script that gives the kernel a sysctl that it may not have."""
    return f"""
        mount -t tmpfs tmpfs /proc/sys/kernel
        echo {value} >/proc/sys/kernel/{name}
    """


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """Fakes of programs."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def test_user_namespaces(world: bench.World, session: bench.Session) -> None:
    """A user can make one, in a session there is one, and root needs none."""
    found = [ask(place)["user namespaces"] for place in (world, session, world.root)]

    assert [(result["result"], result["message"]) for result in found] == [
        ("ok", "one can be made"),
        ("ok", "you are root of one already"),
        ("skipped", "plugins work in place here: nothing has to be made for them"),
    ]


def test_none_is_allowed(session: bench.Session) -> None:
    """Where user.max_user_namespaces is 0 that is the problem, and how to raise it is said."""
    script = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
    become = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]

    done = session.run(["sh", "-euc", script, "sh", *become, *command()])

    found = results(done)
    assert found["user namespaces"]["result"] == "problem"
    assert "user.max_user_namespaces is 0" in found["user namespaces"]["message"]
    assert "sysctl -w user.max_user_namespaces=" in found["user namespaces"]["advice"]
    assert found["unshare"]["result"] == "problem"
    # What cannot be tried is not called broken.
    assert (found["iptables"]["result"], found["nft"]["result"]) == ("skipped", "skipped")


@pytest.mark.parametrize(
    ("name", "value"),
    [("unprivileged_userns_clone", 0), ("apparmor_restrict_unprivileged_userns", 1)],
)
def test_sysctl_that_forbids(world: bench.World, name: str, value: int) -> None:
    """What is refused is explained by the sysctl; where it works here, that is a warning."""
    refused = ask_in(world, sysctl(name, value) + CHROOT)
    works = ask_in(world, sysctl(name, value))
    allowed = ask_in(world, sysctl(name, 1 - value))

    assert refused["user namespaces"]["result"] == "problem"
    assert works["user namespaces"]["result"] == "warning"
    for found in (refused, works):
        assert f"kernel.{name} is {value}" in found["user namespaces"]["message"]
        assert f"kernel.{name}=" in found["user namespaces"]["advice"]
    assert allowed["user namespaces"]["result"] == "ok"


def test_refused_for_no_known_reason(world: bench.World) -> None:
    """Where no sysctl explains it, other causes are named."""
    found = ask_in(world, CHROOT)["user namespaces"]

    assert found["result"] == "problem"
    assert found["message"] == "cannot be made: Operation not permitted"
    assert "chroot" in found["advice"]


def test_subordinate_ids(world: bench.World, session: bench.Session) -> None:
    """Those of the user are counted, and in a session those that are mapped."""
    assert ask(world)["subordinate IDs"]["message"] == (
        "shim has 65536 in /etc/subuid, 65536 in /etc/subgid"
    )
    assert ask(session)["subordinate IDs"]["result"] == "ok"
    assert ask(world.root)["subordinate IDs"]["result"] == "skipped"


@pytest.mark.spread
@pytest.mark.parametrize("file", ["subuid", "subgid"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "problem"),
        ("other:100000:65536\n", "problem"),
        ("shim:100000\nshim:100000:many\n", "problem"),
        ("shim:100000:65535\n", "warning"),
        ("shim:100000:30000\nshim:200000:40000\n", "ok"),
        ("{uid}:100000:65536\n", "ok"),
    ],
)
def test_ranges_of_ids(world: bench.World, file: str, text: str, kind: str) -> None:
    """Ranges count by name or number, all together; one without a partner is of no use."""
    with replaced(world, f"/etc/{file}", text.format(uid=world.uid)):
        found = ask(world)["subordinate IDs"]

    assert found["result"] == kind
    assert (kind == "ok") == (not found["advice"])
    if kind != "ok":
        assert re.fullmatch(rf"usermod --add-{file}s [-0-9]+ shim \(as root\)", found["advice"])


@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_ids_that_cannot_be_read(world: bench.World, file: str) -> None:
    """A file that only root may read has no IDs for the shim: the cure is to open it."""
    world.root.run(["chmod", "0600", f"/etc/{file}"], check=True)
    try:
        found = ask(world)["subordinate IDs"]
        said = world.run([PLUGIN, "run", "--uplink", "none", "--", "true"]).stderr
    finally:
        world.root.run(["chmod", "0644", f"/etc/{file}"], check=True)

    assert found["result"] == "problem"
    assert found["message"].startswith(f"/etc/{file} cannot be read: ")
    assert found["advice"] == f"chmod 0644 /etc/{file} (as root)"
    assert f"no subordinate {file[3:]}s, as /etc/{file} cannot be read" in said


def test_lines_that_count_once(world: bench.World) -> None:
    """IDs that are there twice are said, as the sum of the lines is another one."""
    text = f"shim:200000:65536\n{world.uid}:200000:65536\n"
    with replaced(world, "/etc/subuid", text):
        found = ask(world)["subordinate IDs"]

    assert found["result"] == "ok"
    assert "65536 in /etc/subuid (131072 with duplicates and your own ID)" in found["message"]


@pytest.mark.spread
@pytest.mark.parametrize(
    ("subuid", "subgid", "first"),
    [
        ("other:100000:65536\n", "", 165536),
        ("a:100000:65536\nb:165536:65536\n", "c:290000:65536\n", 355536),
        ("b:165537:10\na:100001:65536\n", "", 165547),
        ("a:231072:65536\n", "", 100000),
        ("", "", 100000),
    ],
)
def test_cure_names_ids_that_are_free(
    world: bench.World, subuid: str, subgid: str, first: int
) -> None:
    """The range in the advice belongs to no user of the machine, for users and for groups."""
    with replaced(world, "/etc/subuid", subuid), replaced(world, "/etc/subgid", subgid):
        found = ask(world)["subordinate IDs"]

    numbers = f"{first}-{first + 65535}"
    assert found["advice"] == (
        f"usermod --add-subuids {numbers} --add-subgids {numbers} shim (as root)"
    )


def test_cure_where_there_are_no_more_ids(
    world: bench.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with few IDs, none of them is promised."""
    monkeypatch.setattr(ids, "_end", lambda: 65536)

    assert "this container has no IDs from 65536 on" in ids._cure("shim", ["uid", "gid"])


def test_no_files_of_ids(world: bench.World) -> None:
    """Without the files there are no IDs."""
    world.path("/etc/subuid").rename(world.path("/etc/subuid.away"))
    try:
        found = ask(world)["subordinate IDs"]
    finally:
        world.path("/etc/subuid.away").rename(world.path("/etc/subuid"))

    assert found["result"] == "problem"
    assert "0 in /etc/subuid, 65536 in /etc/subgid" in found["message"]


def test_ids_from_elsewhere(world: bench.World, fakes: Fakes) -> None:
    """Where nsswitch.conf names another source, getsubids is asked."""
    before = world.path("/etc/nsswitch.conf").read_text()
    fakes.add("getsubids", '#!/bin/sh\necho "0: ${1#-g} 100000 70000"\n')
    with replaced(world, "/etc/nsswitch.conf", before + "subid: sss # of the domain\n"):
        found = ask(world, PATH=fakes.first)["subordinate IDs"]
        fakes.add("getsubids", "#!/bin/sh\necho 'Error fetching ranges' >&2\nexit 1\n")
        failed = ask(world, PATH=fakes.first)["subordinate IDs"]
    with replaced(world, "/etc/nsswitch.conf", before + "subid: files\n"):
        files = ask(world, PATH=fakes.first)["subordinate IDs"]

    assert "70000 from getsubids for uids, 70000 from getsubids for gids" in found["message"]
    assert "administrator of the source" in failed["advice"]
    assert failed["result"] == "problem"
    assert "65536 in /etc/subuid" in files["message"]


def test_few_ids_are_mapped(world: bench.World) -> None:
    """In a user namespace of one ID most images cannot run."""
    done = world.run(["unshare", "--user", "--map-root-user", "--mount", *command()])

    found = results(done)["subordinate IDs"]
    assert found["result"] == "warning"
    assert "1 user and 1 group IDs are mapped here" in found["message"]
    assert "netns-shim unshare" in found["advice"]


def test_mappers(world: bench.World, session: bench.Session) -> None:
    """newuidmap and newgidmap are set-uid here, and not needed in a session."""
    assert ask(world)["newuidmap"]["result"] == "ok"
    assert ask(session)["newuidmap"]["message"] == "the IDs are mapped already"
    assert ask(world.root)["newuidmap"]["result"] == "skipped"


@pytest.mark.parametrize("name", ["newuidmap", "newgidmap"])
def test_mapper_is_missing(world: bench.World, name: str) -> None:
    """Without one of them no IDs can be mapped, and unshare fails."""
    found = ask_in(world, hide(f"/usr/bin/{name}"))

    assert found["newuidmap"]["message"] == f"{name} is not installed"
    assert "uidmap" in found["newuidmap"]["advice"]
    assert found["newuidmap"]["result"] == found["unshare"]["result"] == "problem"


COPY = f"cp /usr/bin/newuidmap /usr/bin/newgidmap {FAKES}"
INSTEAD = "\n".join(
    f"mount --bind {FAKES}/{name} /usr/bin/{name}" for name in ("newuidmap", "newgidmap")
)


def test_mapper_without_power(world: bench.World, fakes: Fakes) -> None:
    """A copy without the set-uid bit is of no use, as unshare finds out as well."""
    found = ask_in(world, f"{COPY}\n{INSTEAD}", PATH=fakes.first)

    assert "is not set-uid root and has no file capabilities" in found["newuidmap"]["message"]
    assert "/usr/bin/newuidmap" in found["newuidmap"]["message"]
    assert found["newuidmap"]["result"] == found["unshare"]["result"] == "problem"


def test_mapper_of_a_package_manager_of_the_user(world: bench.World, fakes: Fakes) -> None:
    """A namesake without power that is first in PATH is not the one that counts."""
    world.root.run(["sh", "-euc", COPY], check=True)

    found = ask(world, PATH=fakes.first)

    assert found["newuidmap"]["message"] == "/usr/bin/newuidmap and /usr/bin/newgidmap"
    assert found["newuidmap"]["result"] == "ok"


def test_mapper_with_capabilities(world: bench.World, fakes: Fakes) -> None:
    """File capabilities do as well, each the one that it needs."""
    setcap = "/usr/sbin/setcap"
    caps = f"{setcap} cap_setuid+ep {{0}}/newuidmap; {setcap} cap_set{{1}}+ep {{0}}/newgidmap"
    right, wrong = (
        ask_in(world, f"{COPY}\n{caps.format(FAKES, kind)}\n{INSTEAD}", PATH=fakes.first)
        for kind in ("gid", "uid")
    )

    assert right["newuidmap"]["result"] == right["unshare"]["result"] == "ok"
    assert wrong["newuidmap"]["message"].startswith("/usr/bin/newgidmap is not set-uid")


def test_mapper_on_nosuid(world: bench.World, fakes: Fakes) -> None:
    """On a file system that is mounted nosuid the bit has no effect."""
    script = f"mount -t tmpfs -o nosuid,mode=755 tmpfs {FAKES}; {COPY}; chmod u+s {FAKES}/*"

    found = ask_in(world, f"{script}\n{INSTEAD}", PATH=fakes.first)

    assert "mounted nosuid" in found["newuidmap"]["message"]
    assert found["newuidmap"]["result"] == found["unshare"]["result"] == "problem"


def test_no_new_privileges(world: bench.World) -> None:
    """A process that may gain no privileges cannot use them."""
    found = results(world.run(["setpriv", "--no-new-privs", *command()]))

    assert "no effect in this process" in found["newuidmap"]["message"]
    assert found["newuidmap"]["result"] == found["unshare"]["result"] == "problem"


def test_unshare_works(world: bench.World, session: bench.Session) -> None:
    """What the README says to type is tried, where it is needed."""
    assert " ".join(UNSHARE) in ask(world)["unshare"]["message"]
    assert ask(session)["unshare"]["result"] == "skipped"


def test_unshare_cannot_be_tried(world: bench.World, fakes: Fakes) -> None:
    """A missing or old unshare proves nothing."""
    missing = ask_in(world, hide("/usr/bin/unshare"))
    old = "#!/bin/sh\necho \"unshare: unrecognized option '--map-auto'\" >&2\nexit 1\n"
    fakes.add("unshare", old)

    found = ask(world, PATH=fakes.first)

    assert missing["unshare"]["result"] == "skipped"
    assert "not installed" in missing["unshare"]["message"]
    assert found["unshare"]["result"] == "skipped"
    assert "too old" in found["unshare"]["message"]


def test_mounts(world: bench.World, session: bench.Session) -> None:
    """In a session you can mount; outside of it the shim makes a mount namespace."""
    assert ask(session)["mounts"]["result"] == "ok"
    assert ask(world.root)["mounts"]["result"] == "skipped"
    outside = ask(world)["mounts"]
    assert (outside["result"], outside["advice"]) == ("skipped", "")


def test_no_mounts(world: bench.World) -> None:
    """A user namespace without a mount namespace of its own is of no use."""
    done = world.run(["unshare", "--user", "--map-root-user", "--map-auto", *command()])

    found = results(done)["mounts"]
    assert found["result"] == "problem"
    assert "netns-shim unshare" in found["advice"]
