"""Documents that onnxlint reads again (comparisons, records of deployments, manifests, baselines, files of the bot): each
field missing, or of another type, or of a value that hurts. One clear line, or a document that everything can be made of."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxlint.bot.comment import comment
from onnxlint.bot.entries import from_json, to_json
from onnxlint.bot.post import line_notes
from onnxlint.conversion.manifest import read_manifest, recipe_from
from onnxlint.deployment.journal import JOURNAL, Journal
from onnxlint.errors import OnnxlintError
from onnxlint.lint.baseline import load
from onnxlint.report.compare import html, junit, markdown
from onnxlint.report.compare import json as compare_json
from onnxlint.report.compare import text as compare_text
from tests.support.accuracy_reports import REPORT
from tests.support.command import BAD, onnxlint, save

NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**300,
    math.nan,
    math.inf,
    "",
    "x" * 5000,
    "\x1b[31m\n::error::forged\r\u202e\0",
    "../../../etc/passwd",
    "\ud800",
    [],
    {},
    [[]],
    NESTED,
)
"""What a field is set to."""

MISSING = object()


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a document; of a list, of its first one."""
    if path:
        yield path
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:1] if isinstance(document, list) else ())
    )
    for key, value in items:
        yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(document)
    parent = made
    for key in path[:-1]:
        parent = parent[key]
    if value is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return made


def renamed(document: Any, path: tuple[Any, ...]) -> Any:
    """A document in which a key is a hostile text."""
    made = copy.deepcopy(document)
    parent = made
    for key in path[:-1]:
        parent = parent[key]
    if isinstance(parent, dict):
        parent[VALUES[10]] = parent.pop(path[-1])
    return made


def mutants(document: Any) -> Iterator[tuple[str, str]]:
    """(what was changed, text) of every change of one value."""
    for path in places(document):
        where = ".".join(map(str, path))
        yield f"{where} renamed", json.dumps(renamed(document, path))
        for value in (MISSING, *VALUES):
            said = "missing" if value is MISSING else f"{value!r}"[:40]
            yield f"{where} = {said}", json.dumps(changed(document, path, value))


def is_clean(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


def trouble(text: str, read: Callable[[str], str]) -> tuple[bool, str]:
    """Whether a document is refused, and what is wrong with how it ends."""
    try:
        shown = read(text)
    except OnnxlintError as error:
        said = str(error)
        return True, "" if "\n" not in said and is_clean(said) and len(said) < 2000 else f"says {said[:300]!r}"
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return False, f"{type(error).__name__}: {error}"[:300]
    return False, "" if is_clean(shown) and "\n::error::" not in shown else f"makes {shown[:300]!r}"


def assert_all_read(document: Any, read: Callable[[str], str], number: int, every: int = 1) -> None:
    """Each mutant is refused with one line, or read, and what is made of it is clean; some are refused, and some not."""
    found = {
        what: trouble(text, read) for what, text in itertools.islice(mutants(document), number % every, None, every)
    }
    assert {what: said for what, (_, said) in found.items() if said} == {}
    assert {refused for refused, _ in found.values()} == {False, True}


SOME = [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 12))]
"""Parts of the mutants of large documents: every twelfth."""


@pytest.mark.parametrize("number", SOME)
def test_comparisons(number: int) -> None:
    def read(text: str) -> str:
        try:
            report = compare_json.parse(json.loads(text))
        except ValueError as error:  # `deploy` says which file it is
            raise OnnxlintError(str(error)) from None
        for render in (html.render, junit.render, markdown.render):
            render(report)
        json.loads(compare_json.render(report))
        return compare_text.render(report)

    assert_all_read(json.loads(compare_json.render(REPORT)), read, number, 12)


def test_records_of_deployments(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    journal = Journal(str(tmp_path), False, lambda *_: None)
    for name in ("fix", "convert onnx-fp16"):
        with journal.step(name, {"key": 1}) as step:
            step.files += (str(tmp_path / "a.onnx"),)
            step.lines += ("a line",)
    document = json.loads((tmp_path / JOURNAL).read_text())

    def read(text: str) -> str:
        (tmp_path / JOURNAL).write_text(text)
        again = Journal(str(tmp_path), True, lambda *_: None)
        for name in ("fix", "convert onnx-fp16"):
            with again.step(name, {"key": 1}) as step:
                step.files += () if not step.todo else (str(tmp_path / "a.onnx"),)
        return "\n".join(line for step in again.steps for line in (step.name, *step.lines))

    assert_all_read(document, read, 0, 3)


@pytest.mark.parametrize("number", SOME)
def test_files_of_the_bot(number: int) -> None:
    from tests.bot.test_post import DIRTY

    def read(text: str) -> str:
        entries = from_json(text.encode(), "f.json")
        return "\n".join([comment(entries), *(note.body for note in line_notes(entries))])

    assert_all_read(json.loads(to_json(DIRTY)), read, number, 12)


def test_baselines(tmp_path: Path) -> None:
    save(tmp_path / "bad.onnx", BAD)
    onnxlint("check", tmp_path / "bad.onnx", "--isolated", "--write-baseline", tmp_path / "b.json")
    document = json.loads((tmp_path / "b.json").read_text())

    def read(text: str) -> str:
        (tmp_path / "b.json").write_text(text)
        baseline = load(str(tmp_path / "b.json"))
        return f"{baseline.total}"

    assert_all_read(document, read, 0, 3)


def test_manifests(tmp_path: Path) -> None:
    save(
        tmp_path / "m.onnx",
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu (x) }',
    )
    assert onnxlint("convert", tmp_path / "m.onnx", "--to", "onnx-fp16", "--mean", "0,0,0").code == 0
    place = tmp_path / "m.onnxlint.json"
    document = json.loads(place.read_text())

    def read(text: str) -> str:
        place.write_text(text)
        found = read_manifest(str(place))
        for entry in found["targets"].values():
            recipe_from(entry["job"]["recipe"], str(place))
        return ""

    assert_all_read(document, read, 0, 3)


def test_a_comparison_without_any_output() -> None:
    """No table has columns then."""
    document = json.loads(compare_json.render(REPORT))
    for candidate in document["candidates"]:
        candidate["outputs"] = []
    report = compare_json.parse(document)
    assert "compared with" not in compare_text.render(report)
    assert "| |" not in markdown.render(report)
    assert html.render(report)
