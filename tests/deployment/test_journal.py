"""deploy.json and report.json in the folder of a deployment: what `--resume` makes of those that are damaged or hostile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxlint.deployment.journal import JOURNAL, LARGEST, Journal
from onnxlint.errors import OnnxlintError
from onnxlint.report.compare import json as compare_json
from tests.support.accuracy_reports import REPORT

ESCAPES = "\x1b[31mred\x1b[0m \u202egnp.exe"


def record(folder: Path, **changes: Any) -> Path:
    """A folder with a file, and a record of one step that wrote it."""
    (folder / "a.txt").write_text("a")
    journal = Journal(str(folder), resume=False, progress=lambda *_: None)
    with journal.step("fix", {"x": 1}) as step:
        step.files += (str(folder / "a.txt"),)
        step.lines += ("done",)
    path = folder / JOURNAL
    document = json.loads(path.read_text())
    document["steps"]["fix"] |= changes
    path.write_text(json.dumps(document))
    return path


def resumed(folder: Path) -> Journal:
    return Journal(str(folder), resume=True, progress=lambda *_: None)


def test_a_recorded_step_is_skipped(tmp_path: Path) -> None:
    record(tmp_path)
    assert not resumed(tmp_path).step("fix", {"x": 1}).todo
    assert resumed(tmp_path).step("fix", {"x": 2}).todo
    (tmp_path / "a.txt").write_text("b")
    assert resumed(tmp_path).step("fix", {"x": 1}).todo


def test_lines_of_the_record_are_escaped(tmp_path: Path) -> None:
    record(tmp_path, lines=[ESCAPES])
    journal = resumed(tmp_path)
    with journal.step("fix", {"x": 1}) as step:
        assert not step.todo
    (line,) = journal.steps[0].lines
    assert line.isprintable()
    assert "red" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"key": 5},
        {"state": "perfect"},
        {"seconds": "1"},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"seconds": 10**400},
        {"lines": "done"},
        {"lines": [1]},
        {"files": ["a.txt"]},
        {"files": {"../a.txt": "0"}},
        {"files": {"/etc/passwd": "0"}},
        {"files": {"a.txt": 5}},
    ],
    ids=str,
)
def test_a_damaged_step_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = record(tmp_path, **changes)
    with pytest.raises(OnnxlintError, match="run deploy without --resume") as caught:
        resumed(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"steps": []}', '{"steps": {"fix": 1}, "format": 1}', "[" * 100_000, "\ud800"]
)
def test_what_is_no_record_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / JOURNAL).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(OnnxlintError, match="run deploy without --resume") as caught:
        resumed(tmp_path)
    assert "\n" not in str(caught.value)


def test_special_files_and_large_ones_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(OnnxlintError, match="not a regular file"):
        resumed(tmp_path)
    os.unlink(tmp_path / JOURNAL)
    with open(tmp_path / JOURNAL, "wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(OnnxlintError, match="not a regular file of reasonable size"):
        resumed(tmp_path)


def test_a_recorded_file_that_became_a_pipe_is_made_anew(tmp_path: Path) -> None:
    record(tmp_path)
    os.unlink(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "a.txt")
    assert resumed(tmp_path).step("fix", {"x": 1}).todo


def test_a_missing_record_is_no_error(tmp_path: Path) -> None:
    assert resumed(tmp_path).step("fix", {"x": 1}).todo


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(name)


def _set(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _without("reference"),
        _without("version"),
        _set("x", "inputs"),
        _set(True, "inputs"),
        _set({}, "candidates"),
        _set(None, "candidates", 0),
        _set("x", "candidates", 0, "snr_db"),
        _set([1, "x"], "candidates", 0, "outputs", 0, "shape"),
        _set([], "versions"),
    ],
)
def test_a_damaged_comparison_names_the_field(change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(compare_json.render(REPORT))
    compare_json.parse(document)
    change(document)
    with pytest.raises(ValueError, match=r"report|version"):
        compare_json.parse(document)


def test_texts_of_a_comparison_are_escaped() -> None:
    document = json.loads(compare_json.render(REPORT))
    document["notes"] = [ESCAPES]
    document["candidates"][0]["name"] = ESCAPES
    report = compare_json.parse(document)
    assert all(note.isprintable() for note in (*report.notes, report.candidates[0].name))
