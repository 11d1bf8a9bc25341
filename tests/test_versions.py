# SPDX-License-Identifier: Apache-2.0
"""Which versions a plugin speaks: asked once, remembered, chosen from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_shim import cni, errors, invoke, versions
from netns_shim.errors import ShimError

ENVIRON = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0", "CNI_ARGS": "A=B"}


def spoken(directory: Path, script: str) -> list[str]:
    """Return the versions of a plugin that is this script."""
    fakes.executable(directory / "fake", script)
    return versions.Versions(None).of(plugin(directory), ENVIRON)


def plugin(directory: Path, name: str = "fake", timeout: float = 60) -> invoke.Plugin:
    """Return the plugin in a directory."""
    return invoke.Plugin(name, str(directory), timeout)


def ask(file: Path, *plugins: invoke.Plugin) -> list[list[str]]:
    """Return the versions of some plugins, as a new process would."""
    memory = versions.Versions(str(file))
    answers = [memory.of(each, ENVIRON) for each in plugins]
    memory.remember()
    return answers


def test_question_is_that_of_libcni(tmp_path: Path) -> None:
    """VERSION is asked in the newest version and without the attachment of the call."""
    fakes.strict_plugin(tmp_path, "fake", versions=["0.3.1", "0.4.0"])

    found = versions.Versions(None).of(plugin(tmp_path), {**ENVIRON, "CNI_PATH": "/p"})

    assert found == ["0.3.1", "0.4.0"]
    (call,) = fakes.calls(tmp_path)
    assert call.conf == {"cniVersion": "1.1.0"}
    assert call.environ == {
        "CNI_COMMAND": "VERSION",
        "CNI_CONTAINERID": "",
        "CNI_NETNS": "dummy",
        "CNI_IFNAME": "dummy",
        "CNI_ARGS": "",
        "CNI_PATH": "/p",
    }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo \'{"cniVersion": "0.2.0"}\'', ["0.1.0", "0.2.0"]),
        (
            'echo \'{"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}\'; exit 1',
            ["0.1.0"],
        ),
        ('echo \'{"code": 4, "msg": "what?"}\'; exit 1', []),
        ('echo \'{"cniVersion": "1.0.0"}\'', []),
        ('echo \'{"cniVersion": "1.0.0", "supportedVersions": "1.0.0"}\'', []),
        ('echo \'{"cniVersion": "1.0.0", "supportedVersions": []}\'', []),
        ('echo \'{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", 2, null]}\'', ["1.0.0"]),
    ],
)
def test_answers(tmp_path: Path, script: str, expected: list[str]) -> None:
    """Old plugins answer in their own way; what makes no sense is no answer."""
    assert spoken(tmp_path, f"#!/bin/sh\n{script}\n") == expected


@pytest.mark.parametrize("name", sorted(fakes.MISBEHAVIOURS))
def test_broken_plugins(tmp_path: Path, name: str) -> None:
    """A plugin that cannot answer says nothing; the verb that follows will show why."""
    assert spoken(tmp_path, fakes.MISBEHAVIOURS[name]) == []


def test_plugin_that_hangs(tmp_path: Path) -> None:
    """A plugin that hangs is not waited for twice."""
    fakes.executable(tmp_path / "fake", "#!/bin/sh\nexec sleep 600\n")

    with pytest.raises(ShimError) as caught:
        versions.Versions(None).of(plugin(tmp_path, timeout=0.2), ENVIRON)

    assert caught.value.code == errors.PLUGIN_TIMED_OUT


def test_answer_is_remembered(tmp_path: Path) -> None:
    """Each plugin is asked once, and the file serves all of them."""
    fakes.strict_plugin(tmp_path, "one", versions=["0.3.1"])
    fakes.strict_plugin(tmp_path, "two", versions=["0.4.0"])
    one, two, file = plugin(tmp_path, "one"), plugin(tmp_path, "two"), tmp_path / "plugins.json"

    answers = [ask(file, one), ask(file, one, two), ask(file, one, two)]

    assert answers == [[["0.3.1"]], [["0.3.1"], ["0.4.0"]], [["0.3.1"], ["0.4.0"]]]
    assert [call.name for call in fakes.calls(tmp_path)] == ["one", "two"]


def test_no_answer_is_remembered(tmp_path: Path) -> None:
    """A plugin that does not say what it speaks is not asked again either."""
    fakes.fake_plugin(tmp_path, "fake")
    file = tmp_path / "plugins.json"

    assert [ask(file, plugin(tmp_path)) for _ in range(2)] == [[[]], [[]]]
    assert len(fakes.calls(tmp_path)) == 1


def test_new_executable_is_asked_again(tmp_path: Path) -> None:
    """A plugin that was installed again is another plugin."""
    file = tmp_path / "plugins.json"
    fakes.strict_plugin(tmp_path, "fake", versions=["0.4.0"])
    ask(file, plugin(tmp_path))
    os.unlink(tmp_path / "fake")
    fakes.strict_plugin(tmp_path, "fake", versions=["1.0.0"])

    assert ask(file, plugin(tmp_path)) == [["1.0.0"]]


def test_cured_executable_is_asked_again(tmp_path: Path) -> None:
    """A plugin that could not be executed is asked again after chmod."""
    file = tmp_path / "plugins.json"
    fakes.strict_plugin(tmp_path, "fake", versions=["0.4.0"]).chmod(0o644)
    assert ask(file, plugin(tmp_path)) == [[]]

    (tmp_path / "fake").chmod(0o755)

    assert ask(file, plugin(tmp_path)) == [["0.4.0"]]


def test_accident_is_not_remembered(tmp_path: Path) -> None:
    """A plugin that broke down, by a lack of memory for one, is asked again."""
    file, flag = tmp_path / "plugins.json", tmp_path / "flag"
    answer = '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}'
    script = f"#!/bin/sh\ntest -e {flag} || kill -KILL $$\necho '{answer}'\n"
    fakes.executable(tmp_path / "fake", script)
    assert ask(file, plugin(tmp_path)) == [[]]

    flag.touch()

    assert ask(file, plugin(tmp_path)) == [["1.0.0"]]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"PATH": 7}', '{"PATH": []}', '{"PATH": [1, 2, 3, 4, 5]}']
)
def test_unreadable_memory(tmp_path: Path, content: str) -> None:
    """A damaged file means that nothing is known, and is replaced."""
    file = tmp_path / "plugins.json"
    path = fakes.strict_plugin(tmp_path, "fake", versions=["0.4.0"])
    file.write_text(content.replace("PATH", str(path)))

    assert ask(file, plugin(tmp_path)) == [["0.4.0"]]
    assert json.loads(file.read_text())[str(path)][-1] == ["0.4.0"]


def test_memory_that_cannot_be_written(tmp_path: Path) -> None:
    """A place that cannot be written costs time and nothing else."""
    fakes.strict_plugin(tmp_path, "fake", versions=["0.4.0"])

    assert ask(tmp_path / "no" / "such" / "place", plugin(tmp_path)) == [["0.4.0"]]


def test_nothing_is_written_without_news(tmp_path: Path) -> None:
    """The file is left alone where nothing was learned."""
    file = tmp_path / "plugins.json"
    fakes.strict_plugin(tmp_path, "fake")
    ask(file, plugin(tmp_path))
    before = file.stat().st_ino

    ask(file, plugin(tmp_path))

    assert file.stat().st_ino == before


@pytest.mark.parametrize(
    ("known", "wanted", "chosen"),
    [
        (["0.3.1", "0.4.0", "1.0.0"], "0.4.0", "0.4.0"),
        (["0.3.1"], "1.1.0", "0.3.1"),
        (["1.0.0", "0.1.0", "0.4.0"], "1.1.0", "1.0.0"),
        (["0.1.0", "0.4.0", "1.0.0"], "0.3.1", "0.1.0"),
        (["1.0.0", "0.4.0"], "0.3.1", "0.4.0"),
        (["2.0.0", "1.0.0"], "1.1.0", "1.0.0"),
        ([], "0.4.0", "0.4.0"),
    ],
)
def test_choice(known: list[str], wanted: str, chosen: str) -> None:
    """The wanted version, else the newest older one, else the oldest; unknown ones never."""
    assert versions.choose(known, wanted, "fake") == chosen


def test_nothing_in_common() -> None:
    """A plugin of the future is refused with code 1."""
    with pytest.raises(ShimError) as caught:
        versions.choose(["2.0.0", "x"], "1.1.0", "fake")

    assert caught.value.code == errors.INCOMPATIBLE_VERSION
    assert "'fake'" in caught.value.message
    assert "2.0.0" in caught.value.details


@given(st.lists(st.sampled_from(cni.SUPPORTED_VERSIONS)), st.sampled_from(cni.SUPPORTED_VERSIONS))
def test_choice_is_one_that_is_spoken(known: list[Any], wanted: str) -> None:
    """What is chosen is spoken, and the wanted one is chosen where it is."""
    chosen = versions.choose(known, wanted, "fake")

    assert chosen in (known or [wanted])
    assert (chosen == wanted) == (wanted in known or not known)


@pytest.mark.parametrize("minimum", cni.SUPPORTED_VERSIONS)
@pytest.mark.parametrize("version", cni.SUPPORTED_VERSIONS)
def test_order(version: str, minimum: str) -> None:
    """Versions are compared as numbers, in the order in which they were published."""
    order = cni.SUPPORTED_VERSIONS.index

    assert versions.at_least(version, minimum) == (order(version) >= order(minimum))
