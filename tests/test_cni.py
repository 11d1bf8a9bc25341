# SPDX-License-Identifier: Apache-2.0
"""The CNI wire: what becomes a request, what is refused, and how answers are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import examples

from netns_shim import cni, errors
from netns_shim.errors import PluginFailed, ShimError
from netns_shim.request import Request

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")
WITH_ATTACHMENT = ("ADD", "CHECK", "DEL")
ENVIRON = {
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1",
    "CNI_PATH": "/opt/cni/bin",
    "HOME": "/root",
}


def environ(verb: str, **changes: str) -> dict[str, str]:
    """Return the environment of a call, as libcni makes it."""
    return {**ENVIRON, "CNI_COMMAND": verb, **changes}


def text(**changes: object) -> bytes:
    """Return what is on stdin."""
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "netns-shim", **changes}
    return json.dumps(conf).encode()


def parse(given: dict[str, str], stdin: bytes) -> Request:
    """Make the request of a call, as the face does."""
    cni.check_environment(given)
    return cni.parse(given, stdin)


def refusal(call: Callable[..., object], *arguments: object) -> ShimError:
    """Return the error that a call must end in."""
    with pytest.raises(ShimError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_every_version_is_accepted(verb: str, version: str) -> None:
    """ADD and DEL exist in every version, and the request carries every parameter."""
    conf = text(cniVersion=version)

    request = parse(environ(verb), conf)

    assert (request.verb, request.cni_version, request.network) == (verb, version, "net")
    assert (request.container_id, request.ifname) == ("c0ffee", "eth0")
    assert (request.netns, request.path) == ("/run/netns/x", "/opt/cni/bin")
    assert request.args == "IgnoreUnknown=1"
    assert request.environ["HOME"] == "/root"
    assert request.conf == json.loads(conf)


@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
@pytest.mark.parametrize(
    ("verb", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)
def test_verbs_begin_with_a_version(verb: str, since: str, version: str) -> None:
    """A verb that the configuration's version does not have is refused with code 1."""
    versions = cni.SUPPORTED_VERSIONS
    if versions.index(version) >= versions.index(since):
        assert parse(environ(verb), text(cniVersion=version)).cni_version == version
        return

    error = refusal(parse, environ(verb), text(cniVersion=version))

    assert error.code == errors.INCOMPATIBLE_VERSION
    assert error.message == f"config version does not allow {verb}"
    assert version in error.details
    assert since in error.details


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
        ("", "CNI_COMMAND"),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_missing_variables_are_reported_together(verb: str, missing: str, empty: bool) -> None:
    """An empty variable is a missing one, and all missing ones are named in one error."""
    given = dict.fromkeys(ENVIRON, "") if empty else {}

    error = refusal(cni.check_environment, {**given, "CNI_COMMAND": verb})

    assert error.code == errors.INVALID_ENVIRONMENT
    assert error.message == f"required env variables [{missing}] missing"


def test_no_command_is_a_missing_variable() -> None:
    """Without CNI_COMMAND the error names it."""
    error = refusal(cni.check_environment, {})

    assert error.message == "required env variables [CNI_COMMAND] missing"


@pytest.mark.parametrize("verb", ["FOO", "add", "ADD\n", "\udcff"])
def test_unknown_commands(verb: str) -> None:
    """Verbs are compared as they are written."""
    error = refusal(cni.check_environment, environ(verb))

    assert error.code == errors.INVALID_ENVIRONMENT
    assert error.message == f"unknown CNI_COMMAND: {verb}"


@pytest.mark.parametrize("verb", WITH_ATTACHMENT)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "a\n"),
        ("CNI_CONTAINERID", "-a"),
        ("CNI_CONTAINERID", ".."),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "a:b"),
        ("CNI_CONTAINERID", "é"),
        ("CNI_CONTAINERID", "\udcff"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "a\n"),
        ("CNI_IFNAME", "a\u2003"),
        ("CNI_IFNAME", "a\0"),
        ("CNI_IFNAME", "a\x1b"),
        ("CNI_IFNAME", "a\x7f"),
        ("CNI_IFNAME", "a\x9f"),
        ("CNI_IFNAME", "a" * 16),
        ("CNI_IFNAME", "é" * 8),
        ("CNI_IFNAME", "\ud800"),
    ],
)
def test_malformed_names_are_refused(verb: str, variable: str, value: str) -> None:
    """A malformed name is an error that names the variable and shows the value."""
    error = refusal(cni.check_environment, environ(verb, **{variable: value}))

    assert error.code == errors.INVALID_ENVIRONMENT
    assert variable in error.message
    assert error.details == f"{variable} is {value!r}"
    cni.format_error(error, "1.0.0").encode()


@pytest.mark.parametrize("value", ["a" * 15, "eth%d", "🐧🐧🐧", "\udcff", "é" * 7, "..."])
def test_odd_interface_names_are_possible(value: str) -> None:
    """The kernel takes any 15 bytes without the few that are refused, and so does the wire."""
    assert parse(environ("ADD", CNI_IFNAME=value), text()).ifname == value


def test_all_problems_of_the_environment_are_one_error() -> None:
    """Missing and malformed variables are reported together."""
    wrong = environ("ADD", CNI_CONTAINERID="a b", CNI_NETNS="", CNI_IFNAME="a/b")

    error = refusal(cni.check_environment, wrong)

    assert error.message == (
        "required env variables [CNI_NETNS] missing; invalid characters in CNI_CONTAINERID; "
        "invalid characters in CNI_IFNAME"
    )
    assert error.details == "CNI_CONTAINERID is 'a b'; CNI_IFNAME is 'a/b'"


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_parameters_of_other_verbs_are_ignored(verb: str) -> None:
    """What a verb does not take is neither validated nor passed on."""
    request = parse(environ(verb, CNI_CONTAINERID="a b", CNI_IFNAME="a/b"), text())

    assert (request.container_id, request.ifname, request.netns, request.args) == ("",) * 4
    assert request.path == "/opt/cni/bin"


def test_the_probe_of_libcni_is_a_valid_environment() -> None:
    """VERSION needs no variable but the command."""
    assert cni.check_environment({"CNI_COMMAND": "VERSION", "CNI_PATH": "dummy"}) == "VERSION"


@pytest.mark.parametrize("netns", ["", "/proc/1/ns/net", "a\nb", "\udcff"])
def test_delete_takes_any_netns(netns: str) -> None:
    """DEL gets CNI_NETNS as it is, which may be empty."""
    assert parse(environ("DEL", CNI_NETNS=netns), text()).netns == netns


@pytest.mark.parametrize(("length", "accepted"), [(180, True), (181, False)])
def test_an_attachment_must_be_a_file_name(length: int, accepted: bool) -> None:
    """Network, container and interface are together at most 190 bytes long."""
    given = environ("ADD", CNI_CONTAINERID="c", CNI_IFNAME="eth0123")
    conf = text(name="n" * length)
    if accepted:
        assert parse(given, conf).network == "n" * length
        return

    error = refusal(parse, given, conf)

    assert error.code == errors.INVALID_ENVIRONMENT
    assert "too long to be a file name" in error.message
    assert not cni.can_be_attached(parse({**given, "CNI_COMMAND": "DEL"}, conf))


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "Expecting"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"{}{}", "Extra data"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b'{"name": "a", "name": "a"}', "'name' is given twice"),
        (b'{"a": [{"b": {"x": 1, "y": 2, "x": 3}}]}', "'x' is given twice"),
        (b'{"a":' * 100_000, "deeply"),
        (b'{"a":' + b"[" * 100_000, "deeply"),
    ],
)
def test_what_is_no_configuration(stdin: bytes, why: str) -> None:
    """Text that is not exactly one well-formed JSON object is refused with code 6."""
    error = refusal(parse, environ("ADD"), stdin)

    assert error.code == errors.DECODING_FAILURE
    assert error.message == "cannot decode the network configuration"
    assert why in error.details


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"cniVersion": 1}, 6, "cniVersion is not a string"),
        ({"cniVersion": None}, 6, "cniVersion is not a string"),
        ({"cniVersion": "1.0"}, 1, "incompatible CNI versions"),
        ({"cniVersion": "1.2.0"}, 1, "incompatible CNI versions"),
        ({"cniVersion": "1.1.0\n"}, 1, "incompatible CNI versions"),
        ({"name": ""}, 7, "missing network name"),
        ({"name": None}, 7, "missing network name"),
        ({"name": 5}, 7, "missing network name"),
        ({"name": "../x"}, 7, "invalid characters found in network name"),
        ({"name": "a\n"}, 7, "invalid characters found in network name"),
        ({"name": "ä"}, 7, "invalid characters found in network name"),
    ],
)
def test_wrong_values_of_the_cni_keys(changes: dict[str, object], code: int, message: str) -> None:
    """Version and name have codes of their own and the words of the reference library."""
    error = refusal(parse, environ("ADD"), text(**changes))

    assert (error.code, error.message) == (code, message)


def test_the_details_of_an_unknown_version_list_the_known_ones() -> None:
    """Who reads the error sees which version was asked for and which there are."""
    error = refusal(parse, environ("ADD"), text(cniVersion="9.9.9"))

    assert error.details.startswith('config is "9.9.9", plugin supports ["0.1.0" ')


@pytest.mark.parametrize("conf", [b'{"name": "n"}', b'{"name": "n", "cniVersion": ""}'])
def test_no_version_is_the_oldest_one(conf: bytes) -> None:
    """A configuration without version is of version 0.1.0."""
    assert parse(environ("ADD"), conf).cni_version == "0.1.0"


def test_a_missing_name_is_reported() -> None:
    """The key may be missing altogether."""
    assert refusal(parse, environ("ADD"), b"{}").message == "missing network name"


@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
def test_version_echoes_a_supported_version(version: str) -> None:
    """VERSION answers in the version of the question, on one line."""
    answer = cni.version_answer(json.dumps({"cniVersion": version}).encode())

    assert answer.endswith("]}\n")
    assert answer.count("\n") == 1
    assert json.loads(answer) == {
        "cniVersion": version,
        "supportedVersions": list(cni.SUPPORTED_VERSIONS),
    }


@pytest.mark.parametrize(
    "stdin", [b"", b"{", b"[]", b"\xff", b"{}", b'{"cniVersion": "9"}', b'{"cniVersion": [1]}']
)
def test_version_answers_anything(stdin: bytes) -> None:
    """VERSION does not fail, whatever is on stdin."""
    assert json.loads(cni.version_answer(stdin))["cniVersion"] == "1.1.0"


def test_results_and_errors_are_indented_by_four() -> None:
    """The layout is that of the reference library, without a newline at the end."""
    error = ShimError(7, "missing network name")

    assert cni.format_result({"cniVersion": "1.0.0"}) == '{\n    "cniVersion": "1.0.0"\n}\n'
    assert json.loads(cni.format_error(error, "0.4.0")) == {
        "cniVersion": "0.4.0",
        "code": 7,
        "msg": "missing network name",
    }
    assert cni.format_error(error, "0.4.0").startswith('{\n    "cniVersion"')


def test_details_are_written_where_there_are_any() -> None:
    """`details` is left out when empty and written otherwise."""
    answer = json.loads(cni.format_error(ShimError(4, "m", "d"), "1.0.0"))

    assert answer["details"] == "d"


@pytest.mark.parametrize("odd", ["\udcff", "é", "🐧", "\0", "\u2028"])
def test_answers_are_utf8(odd: str) -> None:
    """Half characters do not break an answer."""
    failed = PluginFailed(5, "m", "", f'{{"code": 5, "msg": "{odd}"}}')

    assert json.loads(cni.format_result({"x": odd}).encode()) == {"x": odd}
    assert json.loads(cni.format_error(ShimError(5, odd, odd), "1.0.0").encode())["msg"] == odd
    cni.format_error(failed, "1.0.0").encode()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_error_of_a_plugin_is_not_touched(end: str) -> None:
    """The answer of a delegated plugin reaches the runtime byte for byte, and ends its line."""
    answer = '{ "code":7, "msg":"näh",  "own": 1 }'

    printed = cni.format_error(PluginFailed(7, "näh", "", answer + end), "1.0.0")

    assert printed == answer + (end or "\n")


def test_a_result_that_cannot_be_written() -> None:
    """A bottomless result is a decoding failure, not a crash."""
    result: dict[str, object] = {}
    for _ in range(100_000):
        result = {"x": result}

    assert refusal(cni.format_result, result).code == errors.DECODING_FAILURE


def test_about_names_all_versions() -> None:
    """The text for people ends as that of the reference library does."""
    lines = cni.about().splitlines()

    assert lines[0].startswith("netns-shim ")
    assert lines[-1] == "CNI protocol versions supported: " + ", ".join(cni.SUPPORTED_VERSIONS)


VALUES = st.one_of(
    st.sampled_from([*VERBS, *ENVIRON.values(), *cni.SUPPORTED_VERSIONS, "net", "", ".."]),
    st.text(max_size=20),
    # os.environ holds bytes that are no UTF-8 as single surrogates.
    st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(VALUES, inner, max_size=3),
    max_leaves=8,
)
CONFS = st.fixed_dictionaries(
    {}, optional={"cniVersion": JSON, "name": VALUES, "type": JSON, "delegate": JSON}
).map(lambda conf: json.dumps(conf).encode())
ENVIRONS = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from(VERBS) | VALUES},
    optional=dict.fromkeys(ENVIRON, VALUES),
) | st.sampled_from(VERBS).map(environ)


@settings(max_examples=examples(300))
@given(given=ENVIRONS, stdin=CONFS | st.binary(max_size=60))
def test_any_input_is_a_request_or_an_error(given: dict[str, str], stdin: bytes) -> None:
    """No environment and no stdin raises anything but `ShimError`, and names are safe."""
    try:
        request = parse(given, stdin)
    except ShimError as error:
        json.loads(cni.format_error(error, cni.spoken_version(stdin)).encode())
        return

    assert isinstance(request, Request)
    name = os.fsencode(f"{request.network}:{request.container_id}:{request.ifname}")
    assert len(name) <= cni.MAX_ATTACHMENT_BYTES
    assert b"/" not in name
    assert b"\0" not in name


@settings(max_examples=examples(200))
@given(stdin=CONFS | st.binary(max_size=60))
def test_version_never_fails(stdin: bytes) -> None:
    """VERSION answers with a supported version, whatever is on stdin."""
    assert json.loads(cni.version_answer(stdin))["cniVersion"] in cni.SUPPORTED_VERSIONS
