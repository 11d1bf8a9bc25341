# SPDX-License-Identifier: Apache-2.0
"""`netns-shim install`: the launcher it writes, and what it refuses to replace."""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bench
import fakes
import pytest
from runtime import Runtime, bridge

from netns_shim import cni
from netns_shim.cli import directories, install
from netns_shim.errors import ShimError
from netns_shim.main import main

CHECKOUT = Path(__file__).resolve().parent.parent


def put(directory: Path, name: str = "netns-shim", *, force: bool = False) -> Path:
    """Install the plugin and return its path."""
    return Path(install.install(str(directory), name, force=force))


def run(path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a plugin with nothing but these variables, from elsewhere."""
    return subprocess.run(
        [path],
        env=environ,
        cwd="/",
        input='{"cniVersion": "1.0.0"}',
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_launcher_is_for_everybody(tmp_path: Path, mask: int) -> None:
    """Whatever the umask, everybody can run the plugin; its directory is made if need be."""
    before = os.umask(mask)
    try:
        path = put(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert path == tmp_path / "a" / "b" / "netns-shim"
    assert path.stat().st_mode & 0o7777 == 0o755
    assert os.listdir(path.parent) == ["netns-shim"]


def test_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is this one, by the name that outlives an upgrade of the distribution.

    It is isolated from the environment, and without `site`.
    """
    link = tmp_path / "python3"
    link.symlink_to(sys.executable)
    monkeypatch.setattr(install, "INTERPRETER", str(link))
    of_distribution = put(tmp_path / "a").read_text().splitlines()[0]
    monkeypatch.setattr(install, "INTERPRETER", "/bin/sh")
    own = put(tmp_path / "b").read_text().splitlines()[0]

    assert of_distribution == f"#!{link} -IS"
    assert own == f"#!{os.path.realpath(sys.executable)} -IS"


def test_launcher_needs_nothing(tmp_path: Path) -> None:
    """With an empty environment and from another directory it answers, all libraries included."""
    path = put(tmp_path)

    version = run(path, CNI_COMMAND="VERSION")
    # Its validation needs the packages beside ours.
    invalid = subprocess.run(
        [path],
        env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/none"},
        cwd="/",
        input='{"cniVersion": "1.1.0", "name": "n", "delegat": {}}',
        capture_output=True,
        text=True,
        check=False,
    )

    assert json.loads(version.stdout)["supportedVersions"] == list(cni.SUPPORTED_VERSIONS)
    assert (version.returncode, version.stderr) == (0, "")
    assert "delegate" in invalid.stdout
    assert "missing" not in invalid.stderr


def test_launcher_with_a_file_of_compiled_modules(tmp_path: Path) -> None:
    """A launcher from the time of that file answers, and `install` replaces it."""
    path = put(tmp_path)
    new = path.read_text()
    line = "from netns_shim.main import run\n"
    use = "from netns_shim import compiled\n    compiled.use('/var/cache/netns-shim/shim-0')\n    "
    path.write_text(new.replace(line, use + line))
    assert "compiled" in path.read_text()

    assert json.loads(run(path, CNI_COMMAND="VERSION").stdout)["supportedVersions"]

    put(tmp_path)
    assert path.read_text() == new


def test_environment_changes_nothing(tmp_path: Path) -> None:
    """Variables of the caller do not change what is imported."""
    (tmp_path / "json.py").write_text("raise SystemExit(77)")
    path = put(tmp_path / "bin")

    answer = run(path, CNI_COMMAND="VERSION", PYTHONPATH=str(tmp_path), PYTHONHOME="/none")

    assert answer.returncode == 0


def test_older_launcher_is_replaced_at_once(tmp_path: Path) -> None:
    """An older launcher is replaced as a whole: who has it open still reads the old one."""
    path = put(tmp_path)
    old = path.read_text().replace("import sys\n", "import sys  # old\n")
    path.write_text(old)

    with open(path) as reader:
        assert put(tmp_path) == path

        assert reader.read() == old
    assert "# old" not in path.read_text()
    assert os.listdir(tmp_path) == ["netns-shim"]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\xff\xfe", b"\n\n\n\nx"])
def test_foreign_file_is_kept(tmp_path: Path, content: bytes) -> None:
    """A file that is something else is kept, unless it is to be replaced by force."""
    path = tmp_path / "netns-shim"
    path.write_bytes(content)

    with pytest.raises(ShimError, match="is something else") as caught:
        put(tmp_path)

    assert "--force" in caught.value.details
    assert path.read_bytes() == content
    put(tmp_path, force=True)
    assert run(path, CNI_COMMAND="VERSION").returncode == 0


@pytest.mark.parametrize("target", ["nowhere", "foreign"])
def test_link_is_a_foreign_file(tmp_path: Path, target: str) -> None:
    """A link to something else is kept; by force the link is replaced and not its target."""
    (tmp_path / "foreign").write_text("foreign")
    (tmp_path / "netns-shim").symlink_to(target)
    with pytest.raises(ShimError, match="is something else"):
        put(tmp_path)

    put(tmp_path, force=True)

    assert not (tmp_path / "netns-shim").is_symlink()
    assert (tmp_path / "foreign").read_text() == "foreign"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("force", [False, True])
def test_directory_in_the_way(tmp_path: Path, force: bool) -> None:
    """A directory is never replaced, and the attempt leaves nothing behind."""
    (tmp_path / "netns-shim").mkdir()

    with pytest.raises(ShimError, match="netns-shim is a directory") as caught:
        put(tmp_path, force=force)

    assert "--force" not in str(caught.value)

    assert os.listdir(tmp_path) == ["netns-shim"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/bin/sh", "a\nb", "\0", "\x1b[31m"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    """A plugin's type is a file name that can be shown."""
    with pytest.raises(ShimError, match="not a name for a plugin"):
        put(tmp_path / "bin", name)

    assert not (tmp_path / "bin").exists()


def test_other_name(tmp_path: Path) -> None:
    """The plugin can have any other name."""
    path = put(tmp_path, "my-shim")

    assert path == tmp_path / "my-shim"
    assert run(path, CNI_COMMAND="VERSION").returncode == 0


@pytest.mark.parametrize("interpreter", ["/opt/my python/bin/python", f"/{'x' * 300}/python"])
def test_interpreter_that_cannot_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    """An interpreter that does not fit into the first line of a script is an error."""
    monkeypatch.setattr(sys, "executable", interpreter)

    with pytest.raises(ShimError, match="does not fit into the first line of a script"):
        put(tmp_path)

    assert os.listdir(tmp_path) == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`netns-shim install` prints where the plugin is; a refusal is one line and status 1."""
    assert main(["netns-shim", "install", str(tmp_path), "--name", "shim"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/shim\n"
    (tmp_path / "shim").write_text("foreign")

    assert main(["netns-shim", "install", "--name", "shim", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"netns-shim: {tmp_path}/shim is something else: use --force to replace it"
    )
    assert main(["netns-shim", "install", "--name", "shim", "--force", str(tmp_path)]) == 0


def test_checkout_is_a_plugin_directory() -> None:
    """The plugin in the source tree is what scripts/launcher.py writes, and answers."""
    plugin = CHECKOUT / "plugins" / "netns-shim"
    script = runpy.run_path(str(CHECKOUT / "scripts" / "launcher.py"))

    answer = run(plugin, CNI_COMMAND="VERSION")

    assert plugin.read_text() == script["of_checkout"]()
    assert json.loads(answer.stdout)["cniVersion"] == "1.0.0"


def test_plugin_without_libraries(tmp_path: Path) -> None:
    """ADD and DEL need no library. An explanation and a command name the one that is missing."""
    fakes.strict_plugin(tmp_path, "fake")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "netns_shim").symlink_to(CHECKOUT / "netns_shim")
    plugin = tmp_path / "netns-shim"
    path = install.path_of([str(tmp_path / "modules")])
    plugin.write_text(install.text(install.INTERPRETER, install.MARK, path))
    plugin.chmod(0o755)
    conf = {"cniVersion": "1.0.0", "name": "net", "enter": "never", "delegate": {"type": "fake"}}

    def call(verb: str, **keys: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [plugin],
            env=fakes.environment(tmp_path, verb),
            input=json.dumps({**conf, "stateDir": str(tmp_path / "state"), **keys}),
            capture_output=True,
            text=True,
            check=False,
        )

    added, deleted, wrong = call("ADD"), call("DEL"), call("ADD", delegat={})
    command = subprocess.run([plugin, "graph"], capture_output=True, text=True, check=False)

    assert (added.returncode, deleted.returncode) == (0, 0), added.stdout + deleted.stdout
    verbs = [made.verb for made in fakes.calls(tmp_path) if made.verb != "VERSION"]
    assert verbs == ["ADD", "DEL"]
    assert json.loads(wrong.stdout)["msg"] == "the Python package 'jsonschema' is missing"
    assert command.stderr.startswith("netns-shim: the Python package ")


@pytest.fixture
def home(session: bench.Session, world: bench.World) -> str:
    """The directory of a user, in which nothing is installed."""
    return world.env["HOME"]


def command(
    place: bench.Place, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command of the package under test."""
    return place.run(["/opt/netns-shim/bin/netns-shim", *arguments], env={**place.env, **environ})


def test_of_a_user(world: bench.World, session: bench.Session, home: str) -> None:
    """A user's plugin goes into the home, and the line to copy makes a runtime find it."""
    done = command(world, "install")

    path = f"{home}/.local/lib/cni/netns-shim"
    assert done.stdout == f"{path}\n"
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"export CNI_PATH={home}/.local/lib/cni:")
    shown = world.run(["sh", "-euc", f"{line}; printenv CNI_PATH"]).stdout.strip().split(":")
    assert {"/usr/lib/cni", "/opt/cni/bin"} <= set(shown)
    answer = world.run([path], env={"CNI_COMMAND": "VERSION"}, input="{}")
    assert json.loads(answer.stdout)["supportedVersions"] == list(cni.SUPPORTED_VERSIONS)
    # Who is root of a user namespace only is a user still.
    assert command(session, "install").stdout == f"{path}\n"

    assert command(world, "uninstall").stdout == f"removed {path}\n"
    assert not world.path(path).exists()
    nothing = f"nothing to remove: no netns-shim in {home}/.local/lib/cni\n"
    again = command(world, "uninstall")
    assert (again.returncode, again.stdout) == (0, nothing)


def test_of_a_user_for_netavark(world: bench.World, home: str) -> None:
    """For netavark it has the name of a driver, and Podman's own words to be told of it."""
    done = command(world, "install", "--for", "netavark")

    path = f"{home}/.local/lib/netavark/cni"
    assert done.stdout == f"{path}\n"
    assert done.stderr.splitlines()[-2:] == [
        "[network]",
        f'netavark_plugin_dirs = ["{home}/.local/lib/netavark"]',
    ]
    assert json.loads(world.run([path, "info"]).stdout)["api_version"]
    assert command(world, "uninstall", "--for", "netavark").stdout == f"removed {path}\n"


def test_of_root(world: bench.World) -> None:
    """Root's goes where the machine's plugins are, and nobody has to be told of that."""
    script = """
        n=/opt/netns-shim/bin/netns-shim
        for d in /usr/lib/cni /opt/cni /usr/local/lib; do mount -t tmpfs tmpfs $d; done
        $n install; $n uninstall
        mkdir /opt/cni/bin; printf '' >/opt/cni/bin/loopback; chmod 755 /opt/cni/bin/loopback
        $n install; $n install --name other; $n uninstall; $n uninstall --name other; $n uninstall
        $n install --for netavark; $n uninstall --for netavark
    """
    done = world.root.run(["unshare", "--mount", "sh", "-eu"], input=script)

    # The libraries are those of the tests, which may be a user's.
    assert [line for line in done.stderr.splitlines() if "site-packages" not in line] == []
    assert done.stdout.splitlines() == [
        "/usr/lib/cni/netns-shim",
        "removed /usr/lib/cni/netns-shim",
        "/opt/cni/bin/netns-shim",
        "/opt/cni/bin/other",
        "removed /opt/cni/bin/netns-shim",
        "removed /opt/cni/bin/other",
        "nothing to remove: no netns-shim in /opt/cni/bin, /usr/lib/cni",
        "/usr/local/lib/netavark/cni",
        "removed /usr/local/lib/netavark/cni",
    ]


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("chown {uid} {file}", "chown 0 {file}", "the user {uid} can change {file},"),
        ("chmod o+w {file}", "chmod o-w {file}", "every user can change {file},"),
        ("chown {uid} {package}", "chown 0 {package}", "the user {uid} can change {package}"),
        ("chmod o+w {package}/..", "chmod o-w {package}/..", "every user can change"),
        (
            "chown 0:{uid} {file}; chmod g+w {file}",
            "chmod g-w {file}; chown 0:0 {file}",
            "the group {uid} can change {file},",
        ),
    ],
)
def test_of_root_from_what_others_can_write(
    world: bench.World, change: str, back: str, said: str
) -> None:
    """Root is warned of a plugin whose code another user can change."""
    package = f"/opt/netns-shim/{bench.LIB}/netns_shim"
    facts = {"uid": world.uid, "package": package, "file": f"{package}/errors.py"}
    before, after = (["sh", "-euc", words.format(**facts)] for words in (change, back))
    world.root.run(before, check=True)
    try:
        done = world.root.run(["/opt/netns-shim/bin/netns-shim", "install", "/opt/cni/warned"])
    finally:
        world.root.run(after, check=True)
        world.root.run(["rm", "-r", "/opt/cni/warned"], check=True)

    assert done.returncode == 0
    assert said.format(**facts) in done.stderr
    assert "install the package as root" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")
def test_writers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file of a library is looked at, and what leads to it by a link; an empty group is not.

    Debian's /usr/local belongs to the group staff, which may write, and in which there is no user.
    """
    library, home = tmp_path / "library", tmp_path / "home"
    file = home / "real" / "library" / "more" / "file.py"
    file.parent.mkdir(parents=True)
    file.touch(0o644)
    library.symlink_to(home / "real" / "library")

    def said() -> str:
        install._warn_of_writers([str(library)])
        return capsys.readouterr().err

    before = said()
    os.chown(file, 0, grp.getgrnam("staff").gr_gid)
    file.chmod(0o664)
    assert said() == before == ""
    for path in (file, home):
        os.chown(path, 65534, 0)
        assert f"the user 65534 can change {path}," in said()
        os.chown(path, 0, 0)
    file.chmod(0o666)
    assert f"every user can change {file}," in said()


def test_uninstall_of_what_is_up(world: bench.World, session: bench.Session) -> None:
    """While a shared netns is up, that is said, as its containers need the plugin."""
    directory = f"{world.env['HOME']}/plugins"
    command(session, "install", directory)
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as container:
        runtime.add("c", container)

        done = command(session, "uninstall", directory)

        assert done.returncode == 0
        assert "a shared network namespace is up" in done.stderr
        runtime.delete("c", container)
    assert world.leftovers() == []


def script_of_pip(path: Path) -> None:
    """Write what pip installs as the command."""
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom netns_shim.main import console\n"
        "if __name__ == '__main__':\n    sys.exit(console())\n"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("#!/bin/sh\n"),
        lambda path: path.write_bytes(b"\x7fELF\xff"),
        lambda path: path.write_text(f"#!/bin/sh\n{install.MARK}\n"),
        script_of_pip,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(put(path.parent, "launcher")),
    ],
)
def test_what_is_not_uninstalled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    """Whatever else has the name is left: other files, pip's script, directories, links."""
    make(tmp_path / "netns-shim")
    before = sorted(os.listdir(tmp_path))

    assert main(["netns-shim", "uninstall", str(tmp_path)]) == 1

    assert "is something else: it is left as it is" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


def test_uninstall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the file of the name is removed, of whichever release it is; there may be none."""
    put(tmp_path)
    other = put(tmp_path, "other")

    assert main(["netns-shim", "uninstall", str(tmp_path)]) == 0
    assert main(["netns-shim", "uninstall", str(tmp_path / "none")]) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"removed {tmp_path}/netns-shim",
        f"nothing to remove: no netns-shim in {tmp_path}/none",
    ]
    assert os.listdir(tmp_path) == [other.name]
    assert main(["netns-shim", "uninstall", "--name", "a/b", str(tmp_path)]) == 1


def test_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home has to say which directory."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(ShimError, match="HOME is not set"):
        directories.candidates("cni", {})


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin that a package of the distribution has brought, where root's would be put."""
    path = tmp_path / "netns-shim"
    path.write_text(
        install.text("/usr/bin/python3", install.PACKAGED, install.path_of(["/nowhere"]))
    )
    monkeypatch.setattr(directories, "candidates", lambda *_: [str(tmp_path)])
    monkeypatch.setattr(directories, "PACKAGED_NETAVARK", str(tmp_path / "netavark"))
    (tmp_path / "netavark").mkdir()
    (tmp_path / "netavark" / "cni").write_text(path.read_text())
    return path


def test_the_package_need_not_be_installed(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command of the distribution's package says where its plugins are, and writes nothing."""
    monkeypatch.setattr(install, "PACKAGE", f"{install.DIST_PACKAGES}/netns_shim")
    before = packaged.read_bytes()

    assert main(["netns-shim", "install"]) == 0
    assert capsys.readouterr().out == f"{packaged}\n"

    monkeypatch.setattr(directories, "candidates", lambda *_: [directories.OF_NETAVARK])
    assert main(["netns-shim", "install", "--for", "netavark"]) == 0
    assert capsys.readouterr().out == f"{packaged.parent}/netavark/cni\n"
    assert packaged.read_bytes() == before


def test_the_package_is_left_alone(packaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another installation neither replaces nor removes what the distribution has brought."""
    before = packaged.read_bytes()

    assert main(["netns-shim", "install"]) == 1
    assert "is the distribution's netns-shim: name another directory" in capsys.readouterr().err
    assert main(["netns-shim", "uninstall"]) == 1
    assert "is the distribution's netns-shim: remove that" in capsys.readouterr().err
    assert packaged.read_bytes() == before


def test_link_to_the_package_is_replaced(
    packaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Links to all plugins of a machine may be in a directory of yours; the package stays."""
    before = packaged.read_bytes()
    mine = packaged.parent / "mine"
    mine.mkdir()
    (mine / "netns-shim").symlink_to(packaged)

    assert main(["netns-shim", "uninstall", str(mine)]) == 1
    assert "is something else: it is left as it is" in capsys.readouterr().err
    assert main(["netns-shim", "install", str(mine)]) == 0

    assert not (mine / "netns-shim").is_symlink()
    assert run(mine / "netns-shim", CNI_COMMAND="VERSION").returncode == 0
    assert packaged.read_bytes() == before


def test_any_python_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the distribution's libraries the launcher outlives its present Python."""
    monkeypatch.setattr(install, "PACKAGE", f"{install.DIST_PACKAGES}/netns_shim")
    monkeypatch.setattr(install, "_place", lambda name: f"{install.DIST_PACKAGES}/{name}")
    monkeypatch.setattr(install, "INTERPRETER", sys.executable)

    first = install.launcher().splitlines()[0]

    assert first == f"#!{sys.executable} -IS"


def test_libraries_that_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only commands need may be missing when the plugin is installed; the rest may not."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    assert [install._place(name) for name in install.OPTIONAL] == [""] * 5
    with pytest.raises(ModuleNotFoundError, match="pyroute2"):
        install._place("pyroute2")
