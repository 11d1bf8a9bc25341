# SPDX-License-Identifier: Apache-2.0
"""Being a plugin: one document on stdout whatever happens, and the exit status to it."""

from __future__ import annotations

import errno
import json
import os
import runpy
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import fakes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import examples

from netns_shim import __version__, as_cni, attaching, cni, detaching, errors, skel, verbs
from netns_shim.cli import install
from netns_shim.errors import PluginFailed, ShimError
from netns_shim.request import Request

PLUGIN = Path(__file__).parent.parent / "plugins" / "netns-shim"
ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_NETNS_OVERRIDE": "1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/no/such/directory",
}
CONF: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "netns-shim"}

Completed = subprocess.CompletedProcess[bytes]


def call(
    environ: dict[str, str], stdin: bytes = b"", words: tuple[str | Path, ...] = (PLUGIN,)
) -> Completed:
    """Call the plugin with nothing but these variables."""
    return subprocess.run(words, env=environ, input=stdin, capture_output=True, check=False)


def error_of(answer: Completed) -> dict[str, Any]:
    """Return the error that is the only document on stdout."""
    error: dict[str, Any] = json.loads(answer.stdout)
    assert answer.returncode == 1
    assert error["cniVersion"] in cni.SUPPORTED_VERSIONS
    assert type(error["code"]) is int
    assert error["msg"]
    assert set(error) <= {"cniVersion", "code", "msg", "details"}
    return error


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is installed, with its libraries."""
    directory = tmp_path_factory.mktemp("bin")
    return Path(install.install(str(directory), "netns-shim", force=False))


def in_place(tmp_path: Path, version: str = "1.0.0") -> tuple[dict[str, str], bytes]:
    """Return environment and stdin of a call that runs a plugin without entering anything."""
    conf = {
        **CONF,
        "cniVersion": version,
        "enter": "never",
        "stateDir": str(tmp_path / "state"),
        "delegate": {"type": "fake"},
    }
    return {**ENVIRON, "CNI_PATH": str(tmp_path)}, json.dumps(conf).encode()


def test_about() -> None:
    """Without a command it says what it is on stderr, does not read stdin, and succeeds."""
    with subprocess.Popen(
        [PLUGIN],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # stdin stays open meanwhile.
        stderr = process.stderr.read()
        assert process.stdout.read() == ""
        assert process.wait() == 0

    first, second = stderr.splitlines()
    assert first.startswith(f"netns-shim {__version__}: ")
    assert second == (
        "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    )


@pytest.mark.parametrize("command", [{}, {"CNI_COMMAND": ""}])
def test_empty_command_is_none(command: dict[str, str]) -> None:
    """An empty CNI_COMMAND is as good as none."""
    answer = call(command)

    assert (answer.returncode, answer.stdout) == (0, b"")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CNI_CONTAINERID": "", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"},
        {"CNI_CONTAINERID": "\n/..", "CNI_NETNS": "\n", "CNI_IFNAME": "x" * 99, "CNI_PATH": ""},
    ],
)
@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion":"0.3.1"}', "0.3.1"),
        (b'{"cniVersion":"9.9.9"}', "1.1.0"),
        (b"", "1.1.0"),
        (b"\xff", "1.1.0"),
    ],
)
def test_version(environ: dict[str, str], stdin: bytes, version: str) -> None:
    """VERSION looks at no variable, and answers whatever is on stdin."""
    answer = call({**environ, "CNI_COMMAND": "VERSION"}, stdin)

    assert json.loads(answer.stdout) == {
        "cniVersion": version,
        "supportedVersions": list(cni.SUPPORTED_VERSIONS),
    }
    assert (answer.returncode, answer.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({"CNI_COMMAND": "ADD"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "add"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "\udcff\udc80"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "A" * 10000}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_CONTAINERID": "../x"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_CONTAINERID": "\udcff"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_CONTAINERID": "c" * 10000}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_IFNAME": "eth0\n"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_IFNAME": "\udcff/"}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "CHECK", "CNI_NETNS": ""}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "GC", "CNI_PATH": ""}, errors.INVALID_ENVIRONMENT),
        ({**ENVIRON, "CNI_COMMAND": "GC"}, errors.INCOMPATIBLE_VERSION),
        ({**ENVIRON, "CNI_COMMAND": "STATUS"}, errors.INCOMPATIBLE_VERSION),
    ],
)
def test_bad_environment(environ: dict[str, str], code: int) -> None:
    """Whatever is wrong with the environment is one error, and nothing is on stderr."""
    answer = call(environ, json.dumps(CONF).encode())

    assert error_of(answer)["code"] == code
    assert answer.stderr == b""


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"", errors.DECODING_FAILURE),
        (b" \n", errors.DECODING_FAILURE),
        (b"null", errors.DECODING_FAILURE),
        (b"[]", errors.DECODING_FAILURE),
        (b"{", errors.DECODING_FAILURE),
        (b"{}{}", errors.DECODING_FAILURE),
        (b"\xff\xfe{\x00}\x00", errors.DECODING_FAILURE),
        (b"\xef\xbb\xbf{}", errors.DECODING_FAILURE),
        (b'{"name":"a","name":"b"}', errors.DECODING_FAILURE),
        (b'{"name":"net","mtu":NaN}', errors.DECODING_FAILURE),
        (b'{"name":"net","mtu":1e999}', errors.DECODING_FAILURE),
        (b'{"name":"net","mtu":' + b"9" * 5000 + b"}", errors.DECODING_FAILURE),
        (b"[" * 100000, errors.DECODING_FAILURE),
        (b'{"x":' * 100000, errors.DECODING_FAILURE),
        (b" " * (17 << 20), errors.IO_FAILURE),
        (b'{"cniVersion":1}', errors.DECODING_FAILURE),
        (b'{"cniVersion":"1.0","name":"net"}', errors.INCOMPATIBLE_VERSION),
        (b'{"cniVersion":"\\ud800","name":"net"}', errors.INCOMPATIBLE_VERSION),
        (b"{}", errors.INVALID_NETWORK_CONFIG),
        (b'{"name":"\\ud800"}', errors.INVALID_NETWORK_CONFIG),
        (b'{"name":"../x"}', errors.INVALID_NETWORK_CONFIG),
    ],
)
def test_bad_configuration(stdin: bytes, code: int) -> None:
    """Whatever is on stdin is one error, and nothing is on stderr."""
    answer = call(ENVIRON, stdin)

    assert error_of(answer)["code"] == code
    assert answer.stderr == b""


@pytest.mark.spread
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delegate": 7},
        {"plugins": []},
        {"plugins": [7]},
        {"delegate": {}},
        {"delegate": {"type": 7}},
        {"delegate": {"type": "../../bin/sh"}},
        {"delegate": {"type": "none"}},
        {"delegate": {"type": "none"}, "delegates": []},
        {"delegate": {"type": "none"}, "netns": "/"},
        {"delegate": {"type": "none"}, "enter": "perhaps"},
        {"delegate": {"type": "none"}, "timeout": "soon"},
        {"delegate": {"type": "none"}, "timeout": -1},
        {"delegate": {"type": "none"}, "uplink": 7},
        {"delegate": {"type": "none"}, "uplink": {"driver": []}},
        {"delegate": {"type": "none"}, "stateDir": "relative"},
        {"delegate": {"type": "none"}, "stateDir": "/x\0y"},
        {"delegate": {"type": "none"}, "prevResult": 7},
        {"delegate": {"type": "none"}, "runtimeConfig": []},
        {"delegate": {"type": "none"}, "args": "x"},
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_bad_keys(installed: Path, changes: dict[str, Any], verb: str, tmp_path: Path) -> None:
    """A configuration that cannot work is refused with code 7, and nothing is made for it."""
    conf = {**CONF, "enter": "never", "stateDir": str(tmp_path / "state"), **changes}
    environ = {**ENVIRON, "CNI_COMMAND": verb}

    answer = call(environ, json.dumps(conf).encode(), (installed,))

    assert error_of(answer)["code"] == errors.INVALID_NETWORK_CONFIG
    assert os.listdir(tmp_path) == []


@settings(max_examples=examples(60))
@given(
    verb=st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "x"]),
    values=st.fixed_dictionaries(
        {
            name: st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)
            for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")
        }
    ),
    stdin=st.binary(max_size=50)
    | st.dictionaries(
        st.sampled_from(["cniVersion", "name", "type", "x"]),
        st.text() | st.integers() | st.none() | st.sampled_from(cni.SUPPORTED_VERSIONS),
    ).map(lambda conf: json.dumps(conf).encode()),
)
def test_any_call(verb: str, values: dict[str, str], stdin: bytes) -> None:
    """Any call without a plugin to run is an error, or VERSION."""
    answer = call({"CNI_COMMAND": verb, "CNI_PATH": "/none", **values}, stdin)

    if verb == "VERSION":
        assert json.loads(answer.stdout)["supportedVersions"]
        assert answer.returncode == 0
    else:
        assert error_of(answer)["code"] != errors.INTERNAL


@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
def test_result(installed: Path, tmp_path: Path, version: str) -> None:
    """The answer to ADD is the result in the version of the configuration."""
    fakes.strict_plugin(tmp_path, "fake")
    environ, stdin = in_place(tmp_path, version)

    answer = call(environ, stdin, (installed,))

    assert json.loads(answer.stdout)["cniVersion"] == version
    assert "10.0.0.1/24" in answer.stdout.decode()
    assert (answer.returncode, answer.stderr) == (0, b"")


@pytest.mark.parametrize("verb", ["DEL", "CHECK"])
def test_nothing_to_say(installed: Path, tmp_path: Path, verb: str) -> None:
    """The other verbs say nothing in success, even where the plugin does."""
    script = """if verb == 'VERSION': answer({'supportedVersions': ['1.0.0']})
elif verb == 'ADD': answer({})
else: print('done')"""
    fakes.fake_plugin(tmp_path, "fake", script)
    environ, stdin = in_place(tmp_path)
    call(environ, stdin, (installed,))

    answer = call({**environ, "CNI_COMMAND": verb}, stdin, (installed,))

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"", b"")
    assert fakes.verbs(tmp_path) == [("fake", "ADD"), ("fake", verb)]


def test_error_of_a_plugin(installed: Path, tmp_path: Path) -> None:
    """The error of a plugin is the answer, byte for byte, and a line that ends."""
    text = '{ "msg":"caf\\u00e9 é", "code" : 142,\t"x": 1.50 }'
    script = f"if verb == 'ADD':\n    print({text!r})\n    sys.exit(1)\n"
    fakes.fake_plugin(tmp_path, "fake", script)
    environ, stdin = in_place(tmp_path)

    answer = call({**environ, "LC_ALL": "C.UTF-8"}, stdin, (installed,))

    assert (answer.returncode, answer.stdout.decode()) == (1, f"{text}\n")


@pytest.mark.parametrize("name", sorted(fakes.MISBEHAVIOURS))
def test_broken_plugins(installed: Path, tmp_path: Path, name: str) -> None:
    """Whatever a plugin does, the answer is one error, and no bug of ours."""
    fakes.executable(tmp_path / "fake", fakes.MISBEHAVIOURS[name])
    environ, stdin = in_place(tmp_path)

    error = error_of(call(environ, stdin, (installed,)))

    assert error["code"] == errors.PLUGIN_MISBEHAVED
    assert "'fake'" in error["msg"]


def test_closed_stderr(installed: Path, tmp_path: Path) -> None:
    """A warning does not get among the answers where the caller has closed stderr."""
    fakes.strict_plugin(tmp_path, "fake", failing=["ADD", "DEL"])
    environ, stdin = in_place(tmp_path)

    answer = call(environ, stdin, ("/bin/sh", "-c", 'exec "$0" 2>&-', installed))

    assert json.loads(answer.stdout)["msg"] == "fake fails ADD"
    assert answer.returncode == 1


def test_broken_stderr(installed: Path, tmp_path: Path) -> None:
    """A warning without a reader changes nothing."""
    fakes.strict_plugin(tmp_path, "fake", failing=["ADD", "DEL"])
    environ, stdin = in_place(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)

    answer = subprocess.run(
        [installed], env=environ, input=stdin, stdout=subprocess.PIPE, stderr=writer, check=False
    )

    os.close(writer)
    assert json.loads(answer.stdout)["msg"] == "fake fails ADD"


def test_ignored_children(installed: Path, tmp_path: Path) -> None:
    """A caller that ignores SIGCHLD gets its answer, and plugins do not inherit that."""
    script = "import signal\nfail(77, str(signal.getsignal(signal.SIGCHLD)))\n"
    fakes.fake_plugin(tmp_path, "fake", script)
    environ, stdin = in_place(tmp_path)

    answer = call(environ, stdin, ("/bin/sh", "-c", "trap '' CHLD; exec \"$0\"", installed))

    assert json.loads(answer.stdout)["msg"] == str(signal.SIG_DFL)


def test_output_that_cannot_be_written(installed: Path, tmp_path: Path) -> None:
    """An answer that cannot be written is a failure."""
    fakes.strict_plugin(tmp_path, "fake")
    environ, stdin = in_place(tmp_path)

    with open("/dev/full", "wb") as full:
        answer = subprocess.run(
            [installed], env=environ, input=stdin, stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert answer.returncode == 1


# The function that each verb is.
FUNCTIONS = {
    "ADD": (attaching, "add"),
    "DEL": (detaching, "delete"),
    "CHECK": (verbs, "check"),
    "GC": (verbs, "gc"),
    "STATUS": (verbs, "status"),
}


def serve(verb: str, function: Any, version: str = "1.1.0") -> tuple[int, str]:
    """Serve a call by a function that stands for each verb; return exit status and stdout."""
    (stdin, to_stdin), (from_stdout, stdout) = os.pipe(), os.pipe()
    os.write(to_stdin, json.dumps({**CONF, "cniVersion": version}).encode())
    os.close(to_stdin)
    face = as_cni.Face({**ENVIRON, "CNI_COMMAND": verb})
    try:
        with ExitStack() as stack:
            for module, name in FUNCTIONS.values():
                stack.enter_context(patch.object(module, name, function(name)))
            status = skel.serve(face, stdin, stdout)
    finally:
        os.close(stdout)
        os.close(stdin)
    with open(from_stdout) as file:
        return status, file.read()


def attached(result: dict[str, Any]) -> Any:
    """Return what an ADD gives, with this result."""
    return SimpleNamespace(result=result)


def raising(error: Exception) -> Any:
    """Return what makes functions that raise an error."""

    def function(_: Any) -> None:
        raise error

    return lambda _: function


@pytest.mark.parametrize(("verb", "function"), FUNCTIONS.items())
def test_verbs(verb: str, function: tuple[ModuleType, str]) -> None:
    """Each verb is the function of its name, and gets the request; ADD alone answers."""
    called = []

    def of_name(name: str) -> Any:
        def called_by(request: Request) -> Any:
            called.append((name, request.verb))
            return attached({"x": name})

        return called_by

    status, stdout = serve(verb, of_name)

    assert called == [(function[1], verb)]
    assert (status, stdout and json.loads(stdout)) == (0, {"x": "add"} if verb == "ADD" else "")


@pytest.mark.parametrize(
    ("error", "code", "message", "details"),
    [
        (ShimError(11, "later", "why"), 11, "later", "why"),
        (ShimError(11, "later \udcff é"), 11, "later \udcff é", None),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 5, "No such file", "/x"),
        (OSError(errno.EIO, "Input/output error"), 5, "Input/output error", None),
        (OSError("is a link"), 5, "is a link", None),
        (OSError(errno.ENOSPC, "No space"), 5, "No space", None),
        (
            OSError(errno.ENOSPC, "No space", "/run/x"),
            5,
            "No space",
            "/run/x; make room on its file system",
        ),
        (MemoryError(), 5, "not enough memory", None),
        (
            ModuleNotFoundError("x", name="filelock"),
            5,
            "the Python package 'filelock' is missing",
            "install it, or netns-shim with pip, then call `netns-shim install` again",
        ),
    ],
)
def test_errors(
    error: Exception,
    code: int,
    message: str,
    details: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every expected error has a code, and nothing is on stderr."""
    status, stdout = serve("ADD", raising(error), "0.4.0")

    answer = json.loads(stdout)
    assert (status, answer["cniVersion"]) == (1, "0.4.0")
    assert (answer["code"], answer["msg"], answer.get("details")) == (code, message, details)
    assert capsys.readouterr().err == ""


def test_warnings_are_in_the_error() -> None:
    """What was a warning until then is in the error too, as libcni throws stderr away."""

    def function(_: Any) -> None:
        errors.warn("the uplink was gone")
        raise ShimError(11, "later", "why")

    _, stdout = serve("ADD", lambda _: function)

    assert json.loads(stdout)["details"] == "why; the uplink was gone"


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("deep")])
def test_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error is code 999, with the traceback on stderr."""
    status, stdout = serve("DEL", raising(error))

    answer = json.loads(stdout)
    assert (status, answer["code"]) == (1, errors.INTERNAL)
    assert answer["details"].startswith(type(error).__name__)
    assert "Traceback" in capsys.readouterr().err


def test_answer_of_a_plugin_is_kept() -> None:
    """An error of a plugin is written as the plugin wrote it."""
    status, stdout = serve("ADD", raising(PluginFailed(7, "x", "", '{"code":7, "msg":"x"}')))

    assert (status, stdout) == (1, '{"code":7, "msg":"x"}\n')


def test_result_that_cannot_be_written() -> None:
    """A result nested too deeply to be written is an error."""
    deep: dict[str, Any] = {}
    for _ in range(100000):
        deep = {"x": deep}

    status, stdout = serve("ADD", lambda _: lambda _: attached(deep))

    # Taken apart again by hand, as the recursion of the interpreter is limited here as well.
    while deep:
        deep = deep.pop("x")
    assert (status, json.loads(stdout)["code"]) == (1, errors.DECODING_FAILURE)


@pytest.mark.parametrize("text", ["this is Python 4\n", "\0" * 64])
def test_source_that_is_no_python(tmp_path: Path, text: str) -> None:
    """What a power cut leaves of a module is an error that says what to do, and no bug."""
    (tmp_path / "spoilt.py").write_text(text)

    try:
        runpy.run_path(str(tmp_path / "spoilt.py"))
    except Exception as caught:
        error = skel.as_shim_error(caught)

    assert error.code == errors.IO_FAILURE
    assert "install it again" in error.details
