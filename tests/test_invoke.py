# SPDX-License-Identifier: Apache-2.0
"""Calling a plugin: what it is given, what is read, and what becomes of a broken one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_shim import decoding, encoding, errors, invoke
from netns_shim.errors import PluginFailed, ShimError

ENVIRON = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0", "PATH": "/usr/bin"}
RESULT = {"cniVersion": "1.0.0"}
# 1 MiB: more than any pipe holds.
LARGE = "x" * (1 << 20)


def plugin(directory: Path, script: str, timeout: float = 60) -> invoke.Plugin:
    """Return a plugin that is this script."""
    fakes.executable(directory / "fake", script)
    return invoke.Plugin("fake", str(directory), timeout)


def call(directory: Path, script: str, verb: str = "ADD", **conf: Any) -> Any:
    """Return what a script answers."""
    return plugin(directory, script).call(verb, ENVIRON, conf)


def failure(directory: Path, script: str, verb: str = "ADD", timeout: float = 60) -> ShimError:
    """Return the error that calling a script must end in."""
    with pytest.raises(ShimError) as caught:
        plugin(directory, script, timeout).call(verb, ENVIRON, {})
    return caught.value


def is_inheritable(fd: int) -> bool:
    """Tell whether a descriptor is open and survives execve(2)."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_first_regular_file_is_found(tmp_path: Path) -> None:
    """CNI_PATH is searched in order, for a file; links count, empty entries do not."""
    first, second, third = (tmp_path / name for name in "123")
    (first / "bridge").mkdir(parents=True)
    second.mkdir()
    third.mkdir()
    fakes.executable(third / "bridge", "")
    (second / "bridge").symlink_to(third / "bridge")

    found = invoke.find("bridge", f":/no/such:{first}:{second}:{third}")

    assert found == f"{second}/bridge"


def test_plugin_that_is_nowhere() -> None:
    """The error has the words of libcni and names the path that was searched."""
    with pytest.raises(ShimError) as caught:
        invoke.find("brigde", "/no/such:/nor/this")

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert caught.value.message == "failed to find plugin 'brigde' in path [/no/such:/nor/this]"


def test_plugin_is_given_the_call(tmp_path: Path) -> None:
    """The environment of the caller with the verb in it, and the configuration on stdin."""
    fakes.fake_plugin(tmp_path, "fake", f"answer({RESULT})")
    fake = invoke.Plugin("fake", str(tmp_path), 60)

    answer = fake.call("ADD", {**ENVIRON, "CNI_COMMAND": "DEL"}, {"name": "n", "é": 1 << 70})

    assert answer == RESULT
    (logged,) = fakes.calls(tmp_path)
    assert (logged.verb, logged.conf) == ("ADD", {"name": "n", "é": 1 << 70})
    assert logged.environ == {k: v for k, v in ENVIRON.items() if k != "PATH"} | {
        "CNI_COMMAND": "ADD"
    }


@pytest.mark.parametrize(
    ("given_path", "expected"),
    [
        (None, invoke.DEFAULT_PATH),
        ("", invoke.DEFAULT_PATH),
        (invoke.DEFAULT_PATH, invoke.DEFAULT_PATH),
        ("/opt/bin:/bin", "/opt/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"),
    ],
)
def test_path_is_made_complete(tmp_path: Path, given_path: str | None, expected: str) -> None:
    """Plugins find iptables whatever PATH the runtime has; its own entries stay first."""
    environ = {} if given_path is None else {"PATH": given_path}
    fakes.fake_plugin(tmp_path, "fake", "answer({'path': os.environ['PATH']})")

    answer = invoke.Plugin("fake", str(tmp_path), 60).call("ADD", environ, {})

    assert answer == {"path": expected}


def test_nothing_is_no_answer(tmp_path: Path) -> None:
    """A plugin that prints nothing has given no answer; whether that is wrong depends."""
    assert call(tmp_path, fakes.MISBEHAVIOURS["nothing"]) is None


def test_null_is_no_answer(tmp_path: Path) -> None:
    """The document null is no answer either."""
    assert call(tmp_path, fakes.MISBEHAVIOURS["null"]) is None


@pytest.mark.parametrize(
    "name",
    [
        "garbage",
        "invalid UTF-8",
        "truncated",
        "not a number",
        "infinite",
        "many documents",
        "nested",
    ],
)
def test_answer_that_is_no_json(tmp_path: Path, name: str) -> None:
    """An answer that cannot be passed on is an error that shows it."""
    error = failure(tmp_path, fakes.MISBEHAVIOURS[name])

    assert error.code == errors.PLUGIN_MISBEHAVED
    assert error.message == "plugin 'fake' (ADD) ended and printed no JSON"
    assert "it printed b'" in error.details
    assert len(error.details) < 2000


@pytest.mark.parametrize("verb", invoke.WITHOUT_ANSWER)
@pytest.mark.parametrize("name", ["garbage", "invalid UTF-8", "nested", "array"])
def test_unwanted_answers_are_not_looked_at(tmp_path: Path, name: str, verb: str) -> None:
    """What a plugin prints in success for a verb without an answer is ignored, as by libcni."""
    assert call(tmp_path, fakes.MISBEHAVIOURS[name], verb) is None


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_error_is_kept_as_it_is(tmp_path: Path, verb: str) -> None:
    """The error of a plugin is passed on byte for byte, unknown keys and all."""
    text = '{ "msg":"caf\\u00e9 é", "code" : 142,\n\t"details": "d", "x": 1.50 }'
    script = f"#!/bin/sh\ncat << 'END'\n\n{text}\nEND\necho log >&2\nexit 1\n"

    error = failure(tmp_path, script, verb)

    assert isinstance(error, PluginFailed)
    assert (error.code, error.message, error.details) == (142, "café é", "d")
    assert error.answer == text


def test_last_of_two_documents_is_the_error(tmp_path: Path) -> None:
    """The Go library prints a result and then an error where its netns check fails late."""
    script = """#!/bin/sh
echo '{"cniVersion": "1.0.0", "code": 1}{"code": 8, "msg": "same netns"}'
exit 1
"""

    error = failure(tmp_path, script)

    assert isinstance(error, PluginFailed)
    assert error.answer == '{"code": 8, "msg": "same netns"}'


def test_last_of_two_documents_is_the_result(tmp_path: Path) -> None:
    """Of two documents in success the last one counts as well."""
    script = '#!/bin/sh\necho \'{"debug": 1}\n{"cniVersion": "1.0.0"}\'\n'

    assert call(tmp_path, script) == RESULT


@pytest.mark.parametrize(
    ("name", "message", "details"),
    [
        ("status 3", "failed with exit status 3", "stderr: no such device"),
        ("signal", "was ended by SIGSEGV", ""),
        ("failing garbage", "failed with exit status 1 and printed no JSON", "no such device"),
        (
            "no error",
            "failed with exit status 1 and printed no error object",
            'it printed {"cniVersion": "1.0.0"}',
        ),
    ],
)
def test_failure_without_an_error(tmp_path: Path, name: str, message: str, details: str) -> None:
    """A plugin that fails without saying why gets an error that says all that is known."""
    error = failure(tmp_path, fakes.MISBEHAVIOURS[name])

    assert error.code == errors.PLUGIN_MISBEHAVED
    assert error.message == f"plugin 'fake' (ADD) {message}"
    assert details in error.details


@pytest.mark.parametrize("document", ["null", "[]", "7", '"x"', "{}", '{"code": "7", "msg": ""}'])
def test_failure_with_what_is_no_error(tmp_path: Path, document: str) -> None:
    """Only an object with a numeric code and a message is an error."""
    error = failure(tmp_path, f"#!/bin/sh\necho '{document}'\nexit 1\n")

    assert type(error) is ShimError
    assert error.code == errors.PLUGIN_MISBEHAVED
    assert error.message.endswith("and printed no error object")


def test_real_time_signal(tmp_path: Path) -> None:
    """A signal without a name is named by its number."""
    error = failure(tmp_path, "#!/bin/sh\nkill -40 $$\n")

    assert error.message == "plugin 'fake' (ADD) was ended by signal 40"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no interpreter", "No such file or directory"),
        ("no executable", "Exec format error"),
    ],
)
def test_file_that_cannot_be_executed(tmp_path: Path, name: str, reason: str) -> None:
    """The error says that it is this file, and why."""
    error = failure(tmp_path, fakes.MISBEHAVIOURS[name])

    assert error.code == errors.PLUGIN_MISBEHAVED
    assert error.message == "plugin 'fake' cannot be executed"
    assert error.details == f"{tmp_path}/fake: {reason}"


def test_file_without_permission(tmp_path: Path) -> None:
    """A plugin that lacks its mode bit is found, as by libcni, and cannot be executed."""
    fake = plugin(tmp_path, "#!/bin/sh\n")
    (tmp_path / "fake").chmod(0o644)

    with pytest.raises(ShimError) as caught:
        fake.call("ADD", ENVIRON, {})

    assert caught.value.details == f"{tmp_path}/fake: Permission denied"


def test_file_that_is_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy file is tried again, as while it is installed."""
    fake = plugin(tmp_path, f"#!/bin/sh\necho '{json.dumps(RESULT)}'\n")
    writer = os.open(tmp_path / "fake", os.O_WRONLY)
    waits = []

    def close_instead(seconds: float) -> None:
        waits.append(seconds)
        os.close(writer)

    monkeypatch.setattr(time, "sleep", close_instead)

    assert fake.call("ADD", ENVIRON, {}) == RESULT
    assert len(waits) == 1


def test_stdin_that_is_not_read(tmp_path: Path) -> None:
    """A plugin need not read its configuration, however large it is."""
    script = f"#!/bin/sh\nexec <&-\necho '{json.dumps(RESULT)}'\n"

    assert call(tmp_path, script, large=LARGE) == RESULT


def test_output_before_input(tmp_path: Path) -> None:
    """A plugin may print more than a pipe holds before it reads a large configuration."""
    script = """#!/usr/bin/python3 -IS
import sys
print('{"large": "' + "x" * (1 << 20) + '",', flush=True)
print("log" * 100000, file=sys.stderr, flush=True)
print('"read":', len(sys.stdin.read()), '}')
"""

    answer = call(tmp_path, script, large=LARGE)

    assert answer == {"large": LARGE, "read": len(encoding.compact({"large": LARGE}))}


def test_log_of_success_reaches_the_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a plugin that succeeds writes to stderr is written to ours."""
    call(tmp_path, "#!/bin/sh\necho 'a warning' >&2\necho '{}'\n")

    assert capfd.readouterr().err == "a warning\n"


def test_log_that_nobody_reads_is_no_failure(tmp_path: Path) -> None:
    """A plugin has succeeded even if its log cannot be written."""
    fake = plugin(tmp_path, "#!/bin/sh\necho 'a warning' >&2\necho '{}'\n")
    stderr = os.dup(2)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.dup2(writer, 2)

        assert fake.call("ADD", ENVIRON, {}) == {}
    finally:
        os.dup2(stderr, 2)
        for fd in (stderr, writer):
            os.close(fd)


def test_time_is_limited_for_the_whole_group(tmp_path: Path) -> None:
    """A plugin that hangs is killed when its time is over, and so is what it started."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"""#!/bin/sh
exec 3> {fifo}
echo started >&3
echo 'waiting for a lock' >&2
sleep 600 &
wait
"""

    error = failure(tmp_path, script, "DEL", timeout=0.3)

    assert error.code == errors.PLUGIN_TIMED_OUT
    assert error.message == "plugin 'fake' (DEL) did not end within 0.3 s"
    assert error.details == "it was killed; stderr: waiting for a lock"
    assert fakes.is_let_go(fifo, reader)
    os.close(reader)


def test_closed_streams_are_not_the_end(tmp_path: Path) -> None:
    """A plugin has ended when its process has, not when it closes its streams."""
    script = "#!/bin/sh\nexec 0<&- 1>&- 2>&-\nread nothing\nexit 7\n"

    assert failure(tmp_path, script).message == "plugin 'fake' (ADD) failed with exit status 7"


def test_background_process_is_not_waited_for(tmp_path: Path) -> None:
    """A descendant that keeps the streams open delays nothing, and lives on."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"#!/bin/sh\necho '{json.dumps(RESULT)}'\nread line < {gate} &\n"

    answer = call(tmp_path, script)

    assert answer == RESULT
    # It waits for a process to open the FIFO, so this would fail if there were no reader.
    fd = os.open(gate, os.O_WRONLY)
    os.close(fd)


def test_output_is_limited(tmp_path: Path) -> None:
    """A plugin that prints without end is killed."""
    error = failure(tmp_path, fakes.MISBEHAVIOURS["endless"])

    assert error.code == errors.PLUGIN_MISBEHAVED
    assert error.message == "plugin 'fake' (ADD) printed more than 16 MiB"


def test_output_below_the_limit(tmp_path: Path) -> None:
    """An answer of almost 16 MiB is read."""
    size = 15 << 20
    script = f"#!/usr/bin/python3 -IS\nprint('{{\"x\": \"' + 'x' * {size} + '\"}}')\n"

    assert len(call(tmp_path, script)["x"]) == size


def test_signals_are_as_from_a_shell(tmp_path: Path) -> None:
    """What we or our parent ignore or block, a plugin does not."""
    script = """#!/bin/sh
while read key value; do
    case $key in SigIgn:) ignored=$value ;; SigBlk:) blocked=$value ;; esac
done < /proc/self/status
echo "{\\"ignored\\": \\"$ignored\\", \\"blocked\\": \\"$blocked\\"}"
"""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        answer = call(tmp_path, script)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)

    assert int(answer["ignored"], 16) & sum(1 << number - 1 for number in numbers) == 0
    assert int(answer["blocked"], 16) == 0


def test_nothing_else_is_inherited(tmp_path: Path) -> None:
    """A plugin gets one end of three pipes, and of ours only what was passed on to us."""
    script = """#!/usr/bin/python3 -IS
import json, os
fds = [fd for fd in range(3, 50) if os.path.exists(f"/proc/self/fd/{fd}")]
print(json.dumps({"links": [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]}))
"""
    reader, writer = os.pipe()

    answer = call(tmp_path, script)

    os.close(reader)
    os.close(writer)
    passed_on = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 50) if is_inheritable(fd)]
    # The interpreter itself may hold the script.
    assert set(answer["links"]) <= {f"{tmp_path}/fake", *passed_on}


@pytest.mark.parametrize("name", ["no interpreter", "endless", "signal", "garbage"])
def test_failures_leave_no_descriptor_and_no_child(tmp_path: Path, name: str) -> None:
    """However a call ends, all that it took is given back."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = os.listdir("/proc/self/fd"), children.read_text()

    failure(tmp_path, fakes.MISBEHAVIOURS[name])

    assert (os.listdir("/proc/self/fd"), children.read_text()) == before


def test_lock_of_ours_is_not_held_by_a_plugin(tmp_path: Path) -> None:
    """What a plugin leaves in the background does not keep a lock of ours."""
    gate, lock = tmp_path / "gate", tmp_path / "lock"
    os.mkfifo(gate)
    fd = os.open(lock, os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    call(tmp_path, f"#!/bin/sh\necho '{{}}'\nread line < {gate} &\n")

    os.close(fd)
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(os.open(gate, os.O_WRONLY))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # A lone surrogate is none of the characters that a plugin can print.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(JSON.map(json.dumps), max_size=invoke.MAXIMUM_DOCUMENTS), st.sampled_from(" \n"))
def test_documents_are_split(texts: list[str], space: str) -> None:
    """Each document is found with the text in which it was written."""
    found = decoding.several(space.join(["", *texts, ""]), invoke.MAXIMUM_DOCUMENTS)

    assert [text for _, text in found] == texts
    assert [value for value, _ in found] == [json.loads(text) for text in texts]


@given(st.text())
def test_documents_of_any_text(text: str) -> None:
    """Any text is documents or a ValueError."""
    try:
        found = decoding.several(text, invoke.MAXIMUM_DOCUMENTS)
    except ValueError:
        return
    assert all(part in text and json.loads(part) == value for value, part in found)


def test_programs_are_found_in_order(tmp_path: Path) -> None:
    """The first file that can be executed counts; a path is itself, and directories are none."""
    first, second, third = (tmp_path / name for name in "abc")
    for directory in (first, second, third):
        directory.mkdir()
    (first / "tool").mkdir()
    (second / "tool").write_text("")
    places = [str(directory) for directory in (first, second, third)]

    assert invoke.find_program("tool", places) == ""
    (third / "tool").write_text("")
    (third / "tool").chmod(0o755)
    assert invoke.find_program("tool", places) == f"{third}/tool"
    assert invoke.find_program(f"{third}/tool", []) == f"{third}/tool"
    assert invoke.find_program(f"{second}/tool", places) == ""
