# SPDX-License-Identifier: Apache-2.0
"""`netns-shim validate` and `schema`: every problem of a file, with its line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_shim import cni
from netns_shim.errors import ShimError
from netns_shim.main import main
from netns_shim.validate import explain
from netns_shim.validate.located import Positions

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
PLUGIN = ROOT / "plugins" / "netns-shim"
ENTRY = {"type": "netns-shim", "delegate": {"type": "bridge"}}


def validate(
    capsys: pytest.CaptureFixture[str], *arguments: str | os.PathLike[str]
) -> tuple[int, list[str]]:
    """Run the command; give its exit status and the lines that it printed."""
    status = main(["netns-shim", "validate", *map(str, arguments)])
    return status, capsys.readouterr().out.splitlines()


def write(path: Path, content: Any) -> Path:
    """Write a file: bytes, a text, or anything else as JSON."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def one_list(*plugins: Any, **keys: Any) -> dict[str, Any]:
    """Make a list of plugins."""
    return {"cniVersion": "1.0.0", "name": "net", "plugins": list(plugins), **keys}


def test_all_problems_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is wrong is told at once, of the list and of entries of the shim, by its line."""
    text = """\
{ "cniVersion": "1.0.0",
  "name": "my net",
  "disableCheck": "perhaps",
  "plugins": [
    { "type": "netns-shim",
      "netns": "a/b",
      "uplnk": "pasta",
      "uplink": {
        "options": ["-t", 8080] },
      "plugins": [
        { "type": "bridge" },
        { "typ": "portmap" } ] },
    { "type": "firewall", "backend": "whatever it likes" },
    "x",
    { "type": "netns-shim", "delegate": { "type": "tuning" } } ] }
"""
    file = write(tmp_path / "a.conflist", text)

    status, lines = validate(capsys, file)

    assert status == 1
    assert [line.removeprefix(f"{file}:") for line in lines] == [
        "2: $.name: invalid characters found in network name: name is 'my net'",
        "3: $.disableCheck: must be true or false",
        '6: $.plugins[0].netns: "a/b" does not fit: Name of the shared network namespace: a '
        "letter or digit, then letters, digits, '_', '.' and '-', at most 64 in all. Networks "
        "that name the same one reach each other.",
        "7: $.plugins[0].uplnk: unknown key; did you mean 'uplink'?",
        "8: $.plugins[0].uplink.driver: is missing",
        "9: $.plugins[0].uplink.options[1]: must be a string, is 8080",
        "12: $.plugins[0].plugins[1].type: is missing",
        "13: $.plugins[1].backend: must be one of iptables, firewalld, nftables, is "
        '"whatever it likes"',
        "14: $.plugins[2]: must be an object",
    ]


def test_words_are_those_of_an_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told of an entry is what an ADD with it would answer."""
    entry = {**ENTRY, "timeout": 0, "enter": "perhaps", "delegat": {}}
    with pytest.raises(ShimError) as caught:
        explain.validate({**entry, "cniVersion": "1.0.0", "name": "net"})

    _, lines = validate(capsys, write(tmp_path / "a.conf", {"name": "net", **entry}))

    assert [line.partition(":1: ")[2] for line in lines] == caught.value.details.splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "1: it is empty"),
        (b" \n\n", "1: it is empty"),
        (b"7", "1: it is not a JSON object"),
        (b"[]", "1: it is not a JSON object"),
        (b"null", "1: it is not a JSON object"),
        (b'{\n"name": "net",\n\xff}', "3: 'utf-8' codec can't decode byte 0xff in position"),
        (b'{"a": 1,\n\n"b" 2}', "3: Expecting ':' delimiter (column 5)"),
        # In words of Python before 3.13, and since.
        (b'{"a": 1,\n}', ("2: Expecting property name", "1: Illegal trailing comma")),
        (b'{"a": "x\ny"}', "1: Invalid control character"),
        (b'{"a": 01}', "1: Expecting ',' delimiter"),
        (b"[" * 300 + b"]" * 300, "1: nested too deeply"),
        (b"[" * 100_000, "1: nested too deeply"),
        (b"\xff\xfe{\0}\0", "1: 'utf-8' codec can't decode byte 0xff in position 0"),
    ],
)
def test_what_is_no_json(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: bytes,
    expected: str | tuple[str, str],
) -> None:
    """Text that is no network is one problem, where it is."""
    file = write(tmp_path / "x", text)

    status, lines = validate(capsys, file)

    found = [line.removeprefix(f"{file}:") for line in lines]
    assert status == 1
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_json_that_go_takes_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys given twice, numbers that are none, marks and rests are told, and the rest is read."""
    text = (
        '\ufeff{"cniVersion": "1.0.0",\n"name": "a",\n"name": "net",\n"plugins": [\n'
        '{"type": "netns-shim",\n"delegate": {"type": "a", "mtu": NaN,\n"mtu": 1e999},\n'
        f'"timeout": {"9" * 5000},\n"nets": 1}}]}}\n{{}}\n'
    )
    file = write(tmp_path / "x", text)

    _, lines = validate(capsys, file)

    assert [line.removeprefix(f"{file}:").partition(": must")[0] for line in lines] == [
        "1: it begins with a byte order mark, which JSON does not allow",
        "3: key 'name' is given twice in one object",
        "6: NaN is not a JSON value",
        "7: key 'mtu' is given twice in one object",
        "7: number 1e999 is too large",
        "8: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
        "use sys.set_int_max_str_digits() to increase the limit",
        "8: $.plugins[0].timeout",
        "9: $.plugins[0].nets: unknown key; did you mean 'netns'?",
        "10: Extra data",
    ]


@pytest.mark.parametrize("kind", ["netns_shim", "netnsshim", "Netns-Shim", "netns-shm"])
def test_mistyped_type(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A type that was meant to be the shim's is a problem: no runtime would find the plugin."""
    file = write(tmp_path / "a.conflist", one_list({**ENTRY, "type": kind}))

    status, lines = validate(capsys, file)

    assert status == 1
    (line,) = lines
    assert line.endswith("$.plugins[0].type: no plugin has this name; did you mean 'netns-shim'?")


def test_harmless_for_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of others cannot act on the terminal."""
    content = {**one_list({"type": "\x1b[2Jbridge"}), "cniVersion": "\x1b]0;title\x07"}
    file = write(tmp_path / "\x1b[31m.conflist", content)

    _, lines = validate(capsys, file)

    assert [line for line in lines if not line.isprintable()] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"name": "net", **ENTRY}, "valid"),
        ({"name": "net", "type": "bridge"}, "no entry of netns-shim in it, only bridge"),
        (
            one_list({"type": "bridge"}, {"type": "portmap"}),
            "no entry of netns-shim in it, only bridge, portmap",
        ),
        (one_list({"type": "netns-shim-2"}), "no entry of netns-shim in it, only netns-shim-2"),
        (one_list(ENTRY, ENTRY), "valid"),
        (
            one_list(ENTRY, {"type": "x"}, {"type": "bridge"}),
            "valid, but nothing is known about the keys of x",
        ),
        ({**one_list(ENTRY), "$schema": "x", "whatever": [1]}, "valid"),
        ({**one_list(ENTRY), "cniVersion": "9.9", "cniVersions": ["1.0.0", "9.9"]}, "valid"),
    ],
)
def test_nothing_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, expected: str
) -> None:
    """Where nothing is wrong a line says so, or that there is nothing of the shim in it."""
    file = write(tmp_path / "x", content)

    assert validate(capsys, file) == (0, [f"{file}: {expected}"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.conflist", {"name": "net", **ENTRY}, "one plugin alone, not a list"),
        ("a.conf", one_list(ENTRY), "a list of plugins: runtimes read that from a file named"),
        ("a.json", one_list(ENTRY), "a list of plugins: runtimes read that from a file named"),
        ("a", {"name": "net"}, "neither a list of plugins ('plugins') nor a plugin ('type')"),
        ("a", {**one_list(), "name": "net"}, "$.plugins: must not be empty"),
        ("a", {"name": "net", "plugins": {}}, "$.plugins: must be a list"),
        ("a", one_list({"type": 7}), "$.plugins[0].type: must be the name of a plugin"),
        ("a", {"plugins": [ENTRY]}, "$.name: missing network name"),
        ("a", {**one_list(ENTRY), "cniVersion": "2"}, "$.cniVersion: incompatible CNI versions"),
        ("a", {**one_list(ENTRY), "cniVersion": 1}, "$.cniVersion: cniVersion is not a string"),
    ],
)
def test_what_runtimes_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Any, expected: str
) -> None:
    """What a runtime would refuse, or read otherwise by the name of the file, is told as well."""
    file = write(tmp_path / name, content)

    status, (line,) = validate(capsys, file)

    assert status == 1
    assert line.startswith(f"{file}:1: {expected}")


def test_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is looked at, whatever is wrong with those before it."""
    bad = write(tmp_path / "bad", one_list({**ENTRY, "enter": "?"}))
    good = write(tmp_path / "good", one_list(ENTRY))

    status, lines = validate(capsys, tmp_path / "none", tmp_path, bad, good)

    assert status == 1
    assert lines == [
        f"{tmp_path}/none: No such file or directory",
        f"{tmp_path}: Is a directory",
        f'{bad}:1: $.plugins[0].enter: must be one of "auto", "always", "never"; is "?"',
        f"{good}: valid",
    ]


def test_other_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shim may be installed under another name."""
    file = write(tmp_path / "x", one_list({"type": "mine", "netns": 7}))

    assert validate(capsys, file)[0] == 0
    status, lines = validate(capsys, "--type", "mine", file)

    assert status == 1
    assert len(lines) == 2


def test_stdin() -> None:
    """`-` is stdin; whatever it holds, the locale included, is no traceback."""
    text = json.dumps(one_list({**ENTRY, "é\ud800": 1})).replace("\\u00e9", "é")
    done = subprocess.run(
        [PLUGIN, "validate", "-"],
        input=text.encode(),
        capture_output=True,
        env={"LC_ALL": "C", "PYTHONUTF8": "0"},
    )

    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.startswith(b"stdin:1: $.plugins[0]")


def test_a_pipe_is_a_file() -> None:
    """What a shell gives as <(…) can be read."""
    program = f"{PLUGIN} validate <(cat {CONF}/10-bridge.conflist)"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)

    assert re.fullmatch(r"/dev/fd/\d+: valid\n", done.stdout)


def test_samples(capsys: pytest.CaptureFixture[str]) -> None:
    """The samples are valid."""
    samples = sorted(CONF.glob("*.conflist"))

    assert validate(capsys, *samples) == (0, [f"{sample}: valid" for sample in samples])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([None, 0, 2]))
def test_what_is_read_is_what_json_reads(value: Any, indent: int | None) -> None:
    """The reader with lines gives the value that `json` gives, and finds nothing wrong with it."""
    found = Positions(json.dumps(value, indent=indent).encode())

    assert found.value == value
    assert found.problems == []


@given(st.binary(max_size=60) | st.text('{}[]":,1e\\ \nutf', max_size=40).map(str.encode))
def test_the_reader_agrees_with_the_wire(text: bytes) -> None:
    """Whatever a text is, the reader finds it wrong where the wire does, and raises nothing."""
    found = Positions(text)
    is_object = isinstance(found.value, dict)
    try:
        value = cni.decode(text)
    except ShimError:
        assert found.problems or not is_object
    else:
        assert (found.value, found.problems) == (value, [])


def test_many_keys_take_no_time(tmp_path: Path) -> None:
    """A large file is read in a time that grows with its size."""
    text = json.dumps({f"k{i}": [i] for i in range(100_000)})
    program = (
        "import sys; from netns_shim.validate.located import Positions; "
        "assert Positions(sys.stdin.buffer.read()).line(('k99999', 0)) == 1"
    )

    subprocess.run(
        [sys.executable, "-c", program], input=text.encode(), timeout=30, check=True, cwd=ROOT
    )


def schema(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return the schema that the command prints."""
    assert main(["netns-shim", "schema", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_schema_of_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema of an entry takes those of the samples, and no wrong one."""
    validator = jsonschema.Draft202012Validator(schema(capsys))

    for sample in CONF.glob("*.conflist"):
        network = json.loads(sample.read_text())
        for entry in network["plugins"]:
            validator.validate({**entry, "cniVersion": "1.0.0", "name": network["name"]})
            assert not validator.is_valid({**entry, "netns": 5})


def test_schema_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema of a whole file takes every sample, a single plugin, and no wrong entry."""
    text = schema(capsys, "--network")
    jsonschema.Draft202012Validator.check_schema(text)
    validator = jsonschema.Draft202012Validator(text)

    for sample in CONF.glob("*.conflist"):
        validator.validate(json.loads(sample.read_text()))
    for good in ({"name": "n", **ENTRY}, one_list({"type": "x", "delegat": 1}), one_list(ENTRY)):
        validator.validate(good)
    for bad in (
        {"name": "n", **ENTRY, "nets": 1},
        one_list({**ENTRY, "nets": 1}),
        one_list({"type": "netns-shim"}),
        one_list({"typ": "netns-shim"}),
        one_list(),
        {"plugins": [ENTRY]},
    ):
        assert list(validator.iter_errors(bad)), bad


def test_what_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plugins of which the keys are not known are named, IPAM plugins as well."""
    entry = {"type": "netns-shim", "delegate": {"type": "ovs", "ipam": {"type": "hostlocal"}}}
    path = write(tmp_path / "net.conflist", one_list(entry))

    assert validate(capsys, path) == (
        0,
        [f"{path}: valid, but nothing is known about the keys of ovs, hostlocal"],
    )


def test_mistyped_capability(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A runtime offers nothing to an entry that asks for it under another name."""
    path = write(
        tmp_path / "net.conflist", one_list({**ENTRY, "capabilities": {"portMapings": True}})
    )

    status, (line,) = validate(capsys, path)

    assert status == 1
    assert line.endswith("no runtime knows \"portMapings\"; did you mean 'portMappings'?")
