"""Known findings: what a baseline leaves out, what it keeps, and how it survives re-export."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.command import BAD, CLEAN, onnxlint, save

SELECT = ("--select", "SHP001,SHP002")
DATA = Path(__file__).parents[3] / "shared" / "data" / "retinaface"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(path: str = "onnxlint-baseline.json") -> dict[str, dict[str, int]]:
    models: dict[str, dict[str, int]] = json.loads(Path(path).read_text())["models"]
    return models


def test_written_findings_are_known_from_then_on(here: Path) -> None:
    save(here / "models/a.onnx")
    written = onnxlint("check", "models", *SELECT, "--write-baseline", "known.json")
    assert written.code == 0
    assert "known.json now holds 2 known findings" in written.err
    assert entries("known.json") == {"models/a.onnx": {"SHP001|graph|fpn|Resize": 2}}
    again = onnxlint("check", "models", *SELECT, "--baseline", "known.json")
    assert again.code == 0
    assert "SHP001 " not in again.out
    assert "2 suppressed (SHP001)" in again.out
    assert "2" in again.out  # the number of known findings that are not shown
    assert again.err == ""
    assert onnxlint("check", "models", *SELECT).code == 1


def test_the_file_name_may_be_left_out_and_a_model_is_never_taken_for_it(here: Path) -> None:
    model = save(here / "a.onnx")
    before = model.read_bytes()
    assert onnxlint("check", *SELECT, "--write-baseline", "a.onnx").code == 0
    assert model.read_bytes() == before
    assert list(entries()) == ["a.onnx"]
    assert onnxlint("check", "a.onnx", *SELECT, "--write-baseline").code == 0
    assert onnxlint("check", "a.onnx", *SELECT, "--baseline", "other.json", "--write-baseline").code == 0
    assert list(entries("other.json")) == ["a.onnx"]


def test_a_file_that_is_no_baseline_is_not_overwritten(here: Path) -> None:
    save(here / "a.onnx")
    Path("package.json").write_text('{"name": "x"}')
    outcome = onnxlint("check", "a.onnx", *SELECT, "--write-baseline", "package.json")
    assert outcome.code == 2
    assert outcome.err.startswith('error: package.json: not a baseline: it has no object "models"')
    assert Path("package.json").read_text() == '{"name": "x"}'


def test_the_configuration_names_a_baseline_relative_to_itself(here: Path) -> None:
    save(here / "sub/models/a.onnx")
    (here / "sub/onnxlint.toml").write_text('select = ["SHP001"]\nbaseline = "known.json"')
    assert "no such baseline" in onnxlint("check", "sub").err
    assert onnxlint("check", "sub", "--write-baseline").code == 0
    assert list(entries("sub/known.json")) == ["models/a.onnx"]
    assert onnxlint("check", "sub").code == 0
    os.chdir("sub/models")
    assert onnxlint("check", "a.onnx").code == 0


def test_new_findings_are_shown_and_old_ones_are_not(here: Path) -> None:
    save(here / "a.onnx")
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    third = BAD.replace(
        "features = Resize", 'third = Resize <mode = "nearest"> (resized, , , shape)\n    features = Resize'
    )
    save(here / "a.onnx", third)
    outcome = onnxlint("check", "a.onnx", *SELECT, "--baseline", "onnxlint-baseline.json")
    assert outcome.code == 1
    assert outcome.out.count("warning SHP001") == 1
    save(here / "a.onnx", scope="head")
    moved = onnxlint("check", "a.onnx", *SELECT, "--baseline", "onnxlint-baseline.json")
    assert moved.out.count("warning SHP001") == 2
    save(here / "b.onnx")
    other = onnxlint("check", "b.onnx", *SELECT, "--baseline", "onnxlint-baseline.json")
    assert other.out.count("warning SHP001") == 2


def test_findings_that_are_gone_are_noted_and_taken_out(here: Path) -> None:
    save(here / "a.onnx")
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    save(here / "a.onnx", CLEAN)
    outcome = onnxlint("check", "a.onnx", *SELECT, "--baseline", "onnxlint-baseline.json")
    assert outcome.code == 0
    assert outcome.err == ("note: 2 findings of onnxlint-baseline.json no longer there; --write-baseline updates it\n")
    assert onnxlint("check", "a.onnx", *SELECT, "--baseline", "onnxlint-baseline.json", "--quiet").err == ""
    # a rule that did not run says nothing about its entries
    assert onnxlint("check", "a.onnx", "--select", "OUT", "--baseline", "onnxlint-baseline.json").err == ""
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    assert entries() == {}


def test_what_was_not_checked_stays_known(here: Path) -> None:
    save(here / "a.onnx")
    save(here / "b.onnx")
    onnxlint("check", ".", *SELECT, "--write-baseline")
    save(here / "a.onnx", CLEAN)
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    assert list(entries()) == ["b.onnx"]
    (here / "b.onnx").write_bytes(b"broken")
    broken = onnxlint("check", "b.onnx", *SELECT, "--write-baseline")
    assert broken.code == 2
    assert list(entries()) == ["b.onnx"]
    save(here / "b.onnx")
    onnxlint("check", "b.onnx", "--select", "OUT001", "--write-baseline")
    assert list(entries()) == ["b.onnx"]
    (here / "b.onnx").unlink()
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    assert entries() == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not a baseline (Expecting property name enclosed in double quotes"),
        ("[]", 'it has no object "models"'),
        ('{"models": {}}', '"onnxlint-baseline" is not 1'),
        ('{"onnxlint-baseline": 1, "models": {"a": []}}', "the entry of 'a' is not an object"),
        ('{"onnxlint-baseline": 1, "models": {"a": {"SHP001|": 0}}}', "the count of 'SHP001|' is not a whole number"),
        ("[" * 100_000, "not a baseline"),
    ],
)
def test_broken_baselines(here: Path, text: str, problem: str) -> None:
    save(here / "a.onnx")
    Path("known.json").write_text(text)
    for option in ("--baseline", "--write-baseline"):
        outcome = onnxlint("check", "a.onnx", option, "known.json")
        assert outcome.code == 2
        assert outcome.err.startswith("error: known.json: not a baseline")
        assert problem in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_missing_baseline_says_how_to_make_it(here: Path) -> None:
    save(here / "a.onnx")
    outcome = onnxlint("check", "a.onnx", "--baseline", "nope.json")
    assert outcome.code == 2
    assert outcome.err == "error: nope.json: no such baseline; write it with --write-baseline nope.json\n"


def test_a_baseline_that_cannot_be_written(here: Path) -> None:
    save(here / "a.onnx")
    outcome = onnxlint("check", "a.onnx", *SELECT, "--write-baseline", "nope/known.json")
    assert outcome.code == 2
    assert "nope/known.json: cannot be written" in outcome.err


def test_standard_input_has_an_entry_of_its_own(here: Path) -> None:
    data = save(here / "a.onnx").read_bytes()
    assert onnxlint("check", "-", *SELECT, "--write-baseline", stdin=data).code == 0
    assert list(entries()) == ["-"]
    assert onnxlint("check", "-", *SELECT, "--baseline", "onnxlint-baseline.json", stdin=data).code == 0


def test_numbers_of_nodes_may_change(here: Path) -> None:
    save(here / "a.onnx", first=0)
    onnxlint("check", "a.onnx", *SELECT, "--write-baseline")
    save(here / "a.onnx", "\n" + BAD.replace("shape)", "sizes)").replace("shape = Shape", "sizes = Shape"), first=41)
    outcome = onnxlint("check", "a.onnx", *SELECT, "--baseline", "onnxlint-baseline.json")
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("first", "second"),
    [("original_op11_dyn", "original_op17_dyn"), ("original_op17_dyn", "original_op11_dyn")],
)
def test_real_re_exports_know_the_same_findings(here: Path, first: str, second: str) -> None:
    shutil.copy(DATA / f"{first}.onnx", here / "model.onnx")
    written = onnxlint("check", "model.onnx", "--select", "SHP,OUT", "--write-baseline")
    assert written.code == 0
    assert sum(entries()["model.onnx"].values()) >= 14
    shutil.copy(DATA / f"{second}.onnx", here / "model.onnx")
    outcome = onnxlint("check", "model.onnx", "--select", "SHP,OUT", "--baseline", "onnxlint-baseline.json")
    assert (outcome.code, outcome.err) == (0, ""), outcome.out
