# SPDX-License-Identifier: Apache-2.0
"""What the documents say is so: links, examples, tables, layers."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import bench
import pytest
from runtime import until

from netns_shim import errors
from netns_shim.validate import quick

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "netns_shim"
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
WRITTEN = ROOT / "benchmarks/results"  # by a run of the benchmarks
DOCUMENTS = sorted(
    path
    for path in {*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")}
    if WRITTEN not in path.parents
)
OF_CNI = {"cniVersion", "name", "type", "capabilities", "runtimeConfig", "prevResult", "args"}
OF_RUNTIMES = {"disableCheck", "disableGC"}
# Words that readers have to translate.
ODD_WORDS = r"\b(?:whom?ever|nobody|(?:is|are) none|he|him|his|netns's|anew|(?:dis)?honou?red)\b"


def block(text: str, language: str, number: int = 0) -> str:
    """Give the content of a fenced block."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return found[number]


def rows(heading: str) -> list[list[str]]:
    """Give the cells of the first table below a heading of the reference."""
    section = REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert table, heading
    return [line.strip("| ").split(" | ") for line in table[0].splitlines()[2:]]


def anchors(document: Path) -> set[str]:
    """List the anchors of the headings of a document, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of the repository, or a heading in it, is to one that exists."""
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", document.read_text()):
        if "://" not in target:
            file = document.parent / target if target else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_documents_exist(document: Path) -> None:
    """Samples, scripts, tests and pages that a document speaks of are there."""
    named = r"(?<![\w./~-])(?:conf|scripts|docs|tests)/[\w./\-]+\b"
    for path in re.findall(named, document.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(document: Path) -> None:
    """Lines of a document end before column 100; tables and blocks of code may be wider."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)

    assert [line for line in text.splitlines() if len(line) > 100 and line[:1] != "|"] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_are_plain(document: Path) -> None:
    """A document says who does what, in words that its reader need not translate."""
    assert re.findall(ODD_WORDS, document.read_text(), re.I) == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to each document in docs/, and the README to that."""
    linked = re.findall(r"\]\(([^)#]+)", (ROOT / "docs/README.md").read_text())

    pages = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    assert pages - {"README.md"} <= set(linked)
    assert "](docs/README.md)" in README


def test_every_variable_is_explained() -> None:
    """docs/reference.md names each variable of the environment that the package reads."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', source))
    read |= set(re.findall(r'"(CNI_[A-Z_]+|NETNS_SHIM_[A-Z]+|_ARGCOMPLETE)"', source))

    assert {name for name in read if f"`{name}`" not in REFERENCE} == set()


RELIABILITY = (ROOT / "docs/reliability.md").read_text()


def test_tests_named_for_reliability_exist() -> None:
    """Every test that docs/reliability.md names is there, and is named with its file."""
    named = set(re.findall(r"`(test_\w+)\.py::(test_\w+)`", RELIABILITY))

    for file, name in sorted(named):
        tree = ast.parse((ROOT / f"tests/{file}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
    assert {name for _, name in named} == set(re.findall(r"(?<!\w)test_\w+(?=`)", RELIABILITY))


def test_every_pain_has_its_test() -> None:
    """Each row of docs/reliability.md names a test that shows it, and has each test of pains."""
    of_pains = re.findall(r"^def (test_\w+)", (ROOT / "tests/test_pains.py").read_text(), re.M)
    tables = RELIABILITY.partition("\n## One namespace")[2].partition("\n## Not covered")[0]
    rows = [line for line in tables.splitlines() if re.match(r"\| (?!what happened)", line)]

    assert [row for row in rows if "::test_" not in row.split(" | ")[2]] == []
    assert [name for name in of_pains if f"::{name}`" not in tables] == []


def test_readme_shows_a_sample() -> None:
    """The configuration to copy is one of the tested samples."""
    sample = json.loads((ROOT / "conf/10-bridge.conflist").read_text())

    assert json.loads(block(README, "json")) == sample


def test_samples_are_described() -> None:
    """conf/README.md has a line in its table, and a paragraph, for each sample."""
    text = (ROOT / "conf/README.md").read_text()

    for sample in (ROOT / "conf").glob("*.conflist"):
        network = json.loads(sample.read_text())["name"]
        assert re.search(rf"^\| `{sample.name}` \| `{network}`, ", text, re.M)
        assert f"\n**{sample.stem}.** " in text


def test_every_key_is_explained() -> None:
    """The table of keys has those of the schema that are the shim's own."""
    known = set(json.loads(quick.schema_text())["properties"])

    assert {row[0].strip("`") for row in rows("Configuration")} == known - OF_CNI - OF_RUNTIMES


def test_every_code_is_explained() -> None:
    """The table of errors has every code that the package uses, and messages that it has."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    used = {
        value
        for name, value in vars(errors).items()
        if name.isupper() and len(re.findall(rf"\b{name}\b", source)) > 1
    }
    table = rows("Errors")

    assert {int(row[0]) for row in table} == used
    for message in (m for row in table for m in re.findall(r"`([^`]+)`", row[2])):
        assert is_said(message, source), message


def is_said(message: str, source: str) -> bool:
    """Tell whether what a document quotes of a message is in the package."""
    # Adjacent literals are one text, with whatever is filled in taken out.
    texts = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s+f?"', "", source))
    return all(part in texts for part in filter(None, map(str.strip, message.split("…"))))


def test_troubles_are_of_the_product() -> None:
    """The messages in docs/troubleshooting.md are the package's, with codes of the reference."""
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    text = (ROOT / "docs/troubleshooting.md").read_text()
    troubles = text.partition("\n## By what the error says\n")[2].partition("\n## ")[0]
    headings = re.findall(r"^### (.*) \((.*)\)$", troubles, re.M)
    table = {row[0]: row[2] for row in rows("Errors")}

    assert len(headings) == len(re.findall("^### ", troubles, re.M)) > 10
    for messages, codes in headings:
        numbers = re.findall(r"\d+", codes)
        for message in re.findall(r"`([^`]+)`", messages):
            assert is_said(message, source), message
            assert any(f"`{message}`" in table[number] for number in numbers), message


@pytest.mark.parametrize(
    "file",
    sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.json")]),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_code_is_in_plain_english(file: Path) -> None:
    """Comments, docstrings, messages and schemas have nouns, where pronouns could be."""
    assert re.findall(rf"{ODD_WORDS}|\bsomebody\b", file.read_text()) == []


def test_design_lists_every_module() -> None:
    """docs/design.md has each module under its folder, once; of the commands it has the folder."""
    listed, folder = [], ""
    for line in block((ROOT / "docs/design.md").read_text(), "modules").splitlines():
        words = re.split(r" {2,}", line.strip())
        if re.match(r"[a-z]+/", line):
            folder = line.split("/")[0] + "/"
        else:
            listed += [folder + word for word in words if re.fullmatch(r"[a-z_0-9]+", word)]

    found = [str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py")]
    assert sorted(listed) == sorted(
        name for name in found if "__init__" not in name and not name.startswith("cli/")
    )


@pytest.mark.usefixtures("session")  # which removes what is left if this fails
def test_by_hand(world: bench.World) -> None:
    """What the README says to type works, and leaves nothing."""
    home = world.env["HOME"]
    env = {**world.env, "PATH": f"/opt/netns-shim/bin:{world.env['PATH']}"}
    (install,) = re.findall(r"^    (netns-shim install)$", README, re.M)
    world.run(install.split(), env=env, check=True)

    typed = f"cd {home}\n" + block(README, "sh")
    done = world.run(["sh", "-eux"], env=env, input=typed)

    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    assert '"address": "10.89.1.2/24"' in shown
    assert re.search(r"^eth0@\S+ +UP +10\.89\.1\.2/24", shown, re.M)
    assert "── ● c1  eth0  10.89.1.2/24  rootless  " in shown
    assert re.search(r"^cni-rootless +UP +10\.89\.1\.1/24", shown, re.M)
    assert "no shared network namespace is up" in shown
    assert until(lambda: world.leftovers() == [])
    assert not world.path(f"{home}/net.json").exists()
