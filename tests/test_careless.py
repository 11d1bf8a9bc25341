# SPDX-License-Identifier: Apache-2.0
"""Careless and malicious surroundings of the real thing: links, limits, variables, namespaces."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import bench
import fakes
import pytest
from fake_netavark import NETNS
from runtime import PLUGIN, Runtime, bridge, kill_for_good, reaches

from netns_shim import errors
from netns_shim.cli import install


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is installed, with its libraries."""
    directory = tmp_path_factory.mktemp("bin")
    return Path(install.install(str(directory), "netns-shim", force=False))


def in_place(directory: Path, verb: str = "ADD", **keys: object) -> tuple[dict[str, str], bytes]:
    """Return environment and stdin of a call that enters nothing."""
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "netns-shim",
        "enter": "never",
        "stateDir": str(directory / "state"),
        "delegate": {"type": "fake"},
        **keys,
    }
    environ = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": NETNS,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
        "PATH": os.environ["PATH"],
    }
    return environ, json.dumps(conf).encode()


def call(
    installed: Path, environ: dict[str, str], stdin: bytes, script: str = 'exec "$0"'
) -> subprocess.CompletedProcess[bytes]:
    """Call the plugin from a shell."""
    return subprocess.run(
        ["/bin/bash", "-c", script, installed],
        env=environ,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_python_variables(installed: Path, tmp_path: Path) -> None:
    """No variable of Python, and nothing in the working directory, changes what is run."""
    evil = tmp_path / "evil"
    (evil / "netns_shim").mkdir(parents=True)
    for name in ("json", "os", "sitecustomize", "usercustomize", "netns_shim/__init__"):
        (evil / f"{name}.py").write_text("print('evil')\nraise SystemExit(66)\n")
    environ = {
        "CNI_COMMAND": "VERSION",
        "PYTHONPATH": str(evil),
        "PYTHONHOME": str(evil),
        "PYTHONSTARTUP": str(evil / "json.py"),
        "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": str(evil),
        "PYTHONBREAKPOINT": "evil.json",
        "PYTHONWARNINGS": "error",
    }

    done = call(installed, environ, b"{}", f'cd "{evil}"; exec "$0"')

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["supportedVersions"]


@pytest.mark.parametrize("mask", ["0777", "0000", "0022"])
def test_umask(installed: Path, tmp_path: Path, mask: str) -> None:
    """Files have the mode 01600 and directories 0700, whatever the umask of the caller."""
    fakes.strict_plugin(tmp_path, "fake")
    tmp_path.joinpath(fakes.LOG).touch()

    environ, stdin = in_place(tmp_path)
    done = call(installed, environ, stdin, f'umask {mask}; exec "$0"')

    assert done.returncode == 0, done.stdout
    made = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert len(made) > 5
    for path in made:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o1600), path


@pytest.mark.parametrize("limit", ["-n 5", "-n 7", "-n 9", "-n 11", "-n 13", "-f 0", "-f 1"])
def test_limits(installed: Path, tmp_path: Path, limit: str) -> None:
    """A limit that an ADD does not get by with is one error, and nothing is left."""
    fakes.strict_plugin(tmp_path, "fake")
    tmp_path.joinpath(fakes.LOG).touch()
    environ, stdin = in_place(tmp_path)

    done = call(installed, environ, stdin, f'ulimit {limit}; exec "$0"')

    assert json.loads(done.stdout), done.stderr
    if done.returncode:
        assert json.loads(done.stdout)["code"] != errors.INTERNAL
        assert b"Traceback" not in done.stderr
        refs = tmp_path / "state/.in-place/refs"
        assert not refs.exists() or list(refs.iterdir()) == []


@pytest.mark.parametrize("streams", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams(installed: Path, tmp_path: Path, streams: str) -> None:
    """With closed streams there is one answer all the same."""
    fakes.strict_plugin(tmp_path, "fake")
    environ, stdin = in_place(tmp_path)

    done = call(installed, environ, stdin, f'exec "$0" {streams}')

    answer = json.loads(done.stdout)
    assert answer["cniVersion"]
    assert done.returncode == (1 if "<" in streams else 0)
    assert b"Traceback" not in done.stderr


def test_standard_streams_that_do_not_block(installed: Path, tmp_path: Path) -> None:
    """A configuration that arrives late by a pipe that does not block is waited for."""
    fakes.strict_plugin(tmp_path, "fake")
    environ, stdin = in_place(tmp_path)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with subprocess.Popen(
        [installed], env=environ, stdin=reader, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(reader)
        os.write(writer, stdin)
        os.close(writer)
        answer, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert json.loads(answer)["ips"]


def test_the_shim_in_the_shim(installed: Path, tmp_path: Path) -> None:
    """Under another name it can be wrapped by itself, as deeply as is written; never for ever."""
    fakes.strict_plugin(tmp_path, "fake")
    (tmp_path / "other").symlink_to(installed)
    inner = {
        "enter": "never",
        "stateDir": str(tmp_path / "inner"),
        "delegate": {"type": "fake"},
    }
    environ, stdin = in_place(tmp_path, delegate={"type": "other", **inner})
    assert call(installed, environ, stdin).returncode == 0

    environ, stdin = in_place(tmp_path, name="more", delegate={"type": "other"})
    done = call(installed, environ, stdin)

    assert json.loads(done.stdout)["code"] == errors.INVALID_NETWORK_CONFIG


def test_a_driver_that_is_the_shim(installed: Path, tmp_path: Path) -> None:
    """A network in a file that leads back to itself, behind a script, is an error in a while."""
    fakes.executable(tmp_path / "round", f'#!/bin/sh\nexec {installed} "$@"\n')
    (tmp_path / "net.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "net",
                "plugins": [
                    {
                        "type": "netns-shim",
                        "enter": "never",
                        "stateDir": str(tmp_path / "state"),
                        "pluginDirs": [str(tmp_path)],
                        "delegate": {
                            "driver": "round",
                            "options": {"conf": str(tmp_path / "net.conflist")},
                        },
                    }
                ],
            }
        )
    )
    network = {
        "name": "net",
        "id": "a" * 64,
        "driver": "cni",
        "dns_enabled": False,
        "internal": False,
        "ipv6_enabled": False,
        "options": {"conf": str(tmp_path / "net.conflist")},
    }
    asked = {
        "container_id": "c",
        "container_name": "web",
        "network": network,
        "network_options": {"interface_name": "eth0"},
    }

    done = subprocess.run(
        [installed, "setup", NETNS],
        env={"PATH": os.environ["PATH"]},
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert "another operation on this attachment is running" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("end", ["/", "/.", "//"])
def test_a_link_to_a_directory(installed: Path, tmp_path: Path, end: str) -> None:
    """A `stateDir` that is a link is refused however it is written."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    fakes.strict_plugin(tmp_path, "fake")
    environ, stdin = in_place(tmp_path, stateDir=f"{tmp_path}/link{end}")

    error = json.loads(call(installed, environ, stdin).stdout)

    assert error["msg"] == f"refusing the state directory {tmp_path}/link"
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("path", ["", ":/usr/bin", ".:/usr/bin", "bin", "/usr/bin::"])
def test_a_program_in_the_working_directory(
    world: bench.World, session: bench.Session, path: str
) -> None:
    """No uplink is started from where the caller happens to be."""
    runtime = Runtime(session, delegate=bridge())
    home = world.env["HOME"]
    script = """cd "$0"; mkdir bin; for name in pasta slirp4netns bin/pasta; do
        printf '#!/bin/sh\\necho evil >%s/started; exit 1\\n' "$0" >$name; chmod +x $name; done"""
    session.run(["sh", "-euc", script, home], check=True)
    with session.container() as container:
        env = runtime.environment("ADD", "c", container.netns, PATH=path)
        argv = ["/bin/sh", "-c", 'cd "$0"; exec "$1"', home, PLUGIN]
        done = session.run(argv, env=env, input=json.dumps(runtime.conf))

        assert done.returncode == 0, done.stdout
        assert not session.path(f"{home}/started").exists()
        runtime.delete("c", container)
    assert world.leftovers() == []


NAMES = [
    *("uplink.json", "uplink.json.new", "uplink.log", "uplink.pid", "resolv.conf"),
    *("resolv.conf.new", "plugins.json", "plugins.json.new", "started", "validated"),
]


@pytest.mark.spread
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_link(world: bench.World, session: bench.Session, name: str) -> None:
    """A link in the place of a file is replaced or left out; what it leads to stays as it is."""
    runtime = Runtime(session, delegate=bridge())
    where = f"{world.state_dir}/default"
    outside = f"{world.env['HOME']}/outside"
    is_directory = name in ("started", "validated")
    make = f'mkdir "{outside}"; echo kept >"{outside}/file"' if is_directory else "echo kept >$0"
    session.run(["sh", "-euc", make, outside], check=True)
    kept = session.path(f"{outside}/file" if is_directory else outside)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        (before,) = runtime.status()
        script = 'rm -rf "$0"; ln -s "$1" "$0"'
        session.run(["sh", "-euc", script, f"{where}/{name}", outside], check=True)
        # So that all of it is written again.
        kill_for_good(before["uplink"])
        runtime.add("new", new, conf={"timeout": 77})
        assert reaches(new, "10.89.0.1")
        runtime.delete("old", old)
        runtime.delete("new", new)

    assert kept.read_text() == "kept\n"
    assert world.leftovers() == []


def test_a_link_in_the_place_of_the_pin(world: bench.World, session: bench.Session) -> None:
    """A pin that is a link is none: another is made, and what it led to stays mounted."""
    runtime = Runtime(session, delegate=bridge())
    pin = f"{world.state_dir}/default/netns"
    with (
        session.container(pinned="/run/netns/other") as other,
        session.container() as old,
        session.container() as new,
    ):
        runtime.add("old", old)
        script = 'umount --lazy "$0"; rm "$0"; ln -s "$1" "$0"'
        (before,) = runtime.status()
        kill_for_good(before["uplink"])
        session.run(["sh", "-euc", script, pin, other.netns], check=True)

        runtime.add("new", new)

        assert "cni0" not in other.run(["ip", "-brief", "link"]).stdout
        assert not session.path(pin).is_symlink()
        assert session.run(["mountpoint", "-q", other.netns]).returncode == 0
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_a_link_in_the_place_of_the_references(world: bench.World, session: bench.Session) -> None:
    """A directory of references that is a link is refused, and what is in there stays."""
    runtime = Runtime(session, delegate=bridge())
    where = f"{world.state_dir}/default"
    outside = f"{world.env['HOME']}/outside"
    with session.container() as container:
        runtime.add("c", container)
        session.run(["sh", "-euc", 'mv "$0/refs" "$1"; ln -s "$1" "$0/refs"', where, outside])

        for verb in ("ADD", "DEL", "CHECK"):
            error = runtime.fail(verb, "c", container.netns)
            assert error["code"] == errors.IO_FAILURE
            assert error["details"] == "it is a link: remove it"

        assert len(list(session.path(outside).iterdir())) == 1
        session.run(["sh", "-euc", 'rm "$0/refs"; mv "$1" "$0/refs"', where, outside])
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_link_to_a_container(world: bench.World, session: bench.Session) -> None:
    """A CNI_NETNS that is a link is as good as what it leads to."""
    runtime = Runtime(session, delegate=bridge())
    link = f"{world.env['HOME']}/link"
    with session.container() as container:
        session.run(["ln", "-s", container.netns, link], check=True)
        runtime.succeed("ADD", "c", link)
        assert reaches(container, "10.89.0.1")
        runtime.succeed("DEL", "c", link)
        assert "eth0" not in container.run(["ip", "-brief", "link"]).stdout
    assert world.leftovers() == []


def test_the_shared_netns_is_no_container(world: bench.World, session: bench.Session) -> None:
    """A CNI_NETNS that is the shared netns is refused by every path to it."""
    runtime = Runtime(session, delegate=bridge())
    pin = f"{world.state_dir}/default/netns"
    link = f"{world.env['HOME']}/link"
    session.run(["ln", "-s", pin, link], check=True)
    with session.container() as container:
        runtime.add("c", container)

        for path in (pin, link):
            assert runtime.fail("ADD", "d", path)["code"] == errors.INVALID_NETNS
            runtime.succeed("DEL", "d", path, CNI_IFNAME="cni0")

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_the_netns_of_the_caller_is_no_container(world: bench.World, mode: str) -> None:
    """As root too a CNI_NETNS that is the caller's own is refused, and a DEL leaves it alone."""
    runtime = Runtime(
        world.root, delegate=bridge(), enter=mode, uplink="none", stateDir="/run/careless"
    )
    script = """touch /run/own; mount --bind /proc/self/ns/net /run/own
        ip link add victim0 type veth peer victim1"""
    try:
        world.root.run(["sh", "-euc", script], check=True)
        before = world.root.run(["ip", "-brief", "link"]).stdout
        for path in (f"/proc/{world.root.pid}/ns/net", "/run/own", "/proc/self/ns/net"):
            error = runtime.fail("ADD", "c", path, CNI_IFNAME="victim0")
            assert error["code"] == errors.INVALID_NETNS
            runtime.succeed("DEL", "c", path, CNI_IFNAME="victim0")
        after = world.root.run(["ip", "-brief", "link"]).stdout
        assert [line.split()[0] for line in after.splitlines()] == [
            line.split()[0] for line in before.splitlines()
        ]
    finally:
        clean = "umount /run/own; rm /run/own; ip link delete victim0; rm -rf /run/careless"
        world.root.run(["sh", "-c", f"{clean} /var/lib/cni"])
    assert world.leftovers() == []


def test_what_is_mounted_in_the_state_is_not_removed(
    world: bench.World, session: bench.Session
) -> None:
    """A foreign file system that is mounted in there is neither emptied nor forgotten."""
    runtime = Runtime(session, delegate=bridge())
    where = f"{world.state_dir}/default/var/lib/cni"
    outside = f"{world.env['HOME']}/outside"
    with session.container() as container:
        runtime.add("c", container)
        script = 'mkdir "$1" "$0/mine"; echo kept >"$1/file"; mount --bind "$1" "$0/mine"'
        session.run(["sh", "-euc", script, where, outside], check=True)

        error = runtime.fail("DEL", "c", container.netns)

        assert error["code"] == errors.TRY_AGAIN_LATER
        assert session.path(f"{outside}/file").read_text() == "kept\n"
        session.run(["umount", f"{where}/mine"], check=True)
        runtime.delete("c", container)
    assert session.path(f"{outside}/file").read_text() == "kept\n"
    assert world.leftovers() == []


def call_under(
    runtime: Runtime, before: list[str], verb: str, container: bench.Container
) -> dict[str, Any]:
    """Make a call by way of another program; give its answer, empty for a success without one."""
    env = runtime.environment(verb, "c", container.netns)
    done = runtime.place.run([*before, PLUGIN], env=env, input=json.dumps(runtime.conf))
    return json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize("uplink", ["none", "pasta"])
def test_without_the_way_back(world: bench.World, session: bench.Session, uplink: str) -> None:
    """Without CAP_SYS_CHROOT a call is refused before anything is made, cold and warm."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    drop = ["setpriv", "--bounding-set=-sys_chroot", "--inh-caps=-sys_chroot"]
    with session.container() as container, session.container() as other:
        for warm in (False, True):
            if warm:
                runtime.add("other", other)
            answer = call_under(runtime, drop, "ADD", container)
            assert answer["code"] == errors.CANNOT_ENTER
            assert "CAP_SYS_CHROOT" in answer["msg"]
            assert call_under(runtime, drop, "DEL", container) == {}  # it is not attached
            assert "eth0" not in container.run(["ip", "-brief", "link"]).stdout
            assert warm or world.leftovers() == []
        runtime.delete("other", other)
    assert world.leftovers() == []


# What a caller may lack, and still gets its network or an error that has left nothing.
CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "ipc_lock", "kill"),
    *("mknod", "net_admin", "net_bind_service", "net_raw", "setfcap", "setgid", "setpcap"),
    *("setuid", "sys_admin", "sys_chroot", "sys_nice", "sys_ptrace", "sys_resource"),
)


def test_without_a_capability(world: bench.World, session: bench.Session) -> None:
    """Whichever a caller lacks, an ADD either works or has left nothing."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    failed = set()
    for name in CAPABILITIES:
        drop = ["setpriv", f"--bounding-set=-{name}", f"--inh-caps=-{name}"]
        # Below /proc, a process without CAP_SYS_PTRACE might not see it.
        with session.container(pinned=f"{world.env['HOME']}/container") as container:
            answer = call_under(runtime, drop, "ADD", container)
            links = container.run(["ip", "-brief", "link"]).stdout

            if "code" in answer:
                failed.add(name)
                assert "eth0" not in links, name
            else:
                assert reaches(container, "10.89.0.1"), name
                runtime.delete("c", container)
            assert world.leftovers() == [], name
    assert failed == {"net_admin", "sys_admin", "sys_chroot"}


# The first setns(2) is the way in.
@pytest.mark.parametrize(("step", "number"), [("chroot", "1"), ("setns", "2"), ("fchdir", "1")])
def test_the_way_back_is_refused(
    world: bench.World, session: bench.Session, step: str, number: str
) -> None:
    """Where the kernel refuses it for another reason, the plugins' DEL follows inside."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    inject = f"inject={step}:error=EPERM:when={number}"
    strace = ["strace", "-qqq", "-o", "/dev/null", "-e", f"trace={step}", "-e", inject]
    with session.container() as container, session.container() as other:
        runtime.add("other", other)

        answer = call_under(runtime, strace, "ADD", container)

        assert answer["code"] == errors.IO_FAILURE, answer
        assert "eth0" not in container.run(["ip", "-brief", "link"]).stdout
        assert len(runtime.status()[0]["references"]) == 1
        leases = session.path(f"{world.state_dir}/default/var/lib/cni/networks/rootless")
        assert len(list(leases.glob("10.*"))) == 1
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.mark.parametrize("uplink", ["none", "pasta", "slirp4netns"])
def test_a_working_directory_that_may_not_be_searched(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """As after `sudo -u USER` in /root: every call works, and so does every command."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    place = f"{world.env['HOME']}/searched"
    # The owner, and who may override permissions, could search it.
    script = 'mkdir "$0"; cd "$0"; chown 1:1 .; chmod 0700 .; shift; exec setpriv "$@"'
    powers = "-dac_override,-dac_read_search"
    drop = [f"--bounding-set={powers}", f"--inh-caps={powers}", "--"]
    enter = ["sh", "-euc", script, place, "", *drop]
    again = ["sh", "-euc", script.replace('mkdir "$0"; ', ""), place, "", *drop]
    with session.container() as container:
        assert "code" not in call_under(runtime, enter, "ADD", container)
        assert reaches(container, "10.89.0.1")
        for command in (["status"], ["run", "--", "true"], ["refresh"], ["gc", "--dry-run"]):
            done = session.run([*again, PLUGIN, *command])
            assert done.returncode == 0, done.stderr
        assert call_under(runtime, again, "CHECK", container) == {}
        assert call_under(runtime, again, "DEL", container) == {}
    assert world.leftovers() == []
    session.run(["rm", "-rf", place], check=True)


def test_few_open_files(world: bench.World) -> None:
    """`unshare` works with a limit below the number of its own descriptor, and leaves nothing."""
    done = world.run(["prlimit", "--nofile=32", PLUGIN, "unshare", "--", "echo", "works"])

    assert (done.stdout, done.stderr) == ("works\n", "")
    assert world.leftovers() == []


def test_resolv_conf_that_is_a_directory(world: bench.World) -> None:
    """Docker makes a directory where the file was missing; names do not resolve, and no more."""
    path = world.path("/etc/resolv.conf")
    before = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        done = world.run([PLUGIN, "run", "--uplink", "none", "--", "echo", "works"])
    finally:
        path.rmdir()
        path.write_bytes(before)

    assert done.stdout == "works\n"
    assert "/etc/resolv.conf is a directory" in done.stderr
    assert world.leftovers() == []


def test_proc_without_the_kernels_values(world: bench.World) -> None:
    """Where proc(5) is mounted with subset=pid, the error says so."""
    script = "mount -t proc -o subset=pid proc /proc; exec setpriv --reuid=$0 --clear-groups "
    words = [PLUGIN, "run", "--uplink", "none", "--", "true"]
    command = ["unshare", "--mount", "sh", "-euc", f'{script} "$@"', str(world.uid), *words]

    done = world.root.run(command, env=world.env)

    assert done.returncode == 1
    assert "mount proc(5) without subset=pid" in done.stderr
    assert world.leftovers() == []
