"""The rules' pages: complete, up to date, and the same on the screen as in docs/."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import onnx.parser
import pytest

from onnxlint.lint import rule_docs as docs
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import SECTIONS, Example, Options, Rule, Silent, Status
from tests.lint.test_selection import make
from tests.support.command import onnxlint

ROOT = Path(__file__).parents[2]
RULES = list(load_registry())


def test_the_committed_pages_are_up_to_date() -> None:
    assert docs.stale(ROOT / docs.FOLDER, docs.pages(RULES)) == [], "run 'python -m onnxlint.lint.rule_docs'"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_page_has_every_section_and_every_example(rule: type[Rule]) -> None:
    page = docs.page(rule)
    titles = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    assert titles[: len(SECTIONS)] == list(SECTIONS)
    assert page.startswith(f"# {rule.code}: {rule.name}\n\n{rule.summary()}\n")
    # every fence is closed: what comes after it is text again
    assert len(re.findall(r"^ *```", page, flags=re.MULTILINE)) % 2 == 0
    shown = re.findall(r"```text\n(.*?)\n```", page, flags=re.DOTALL)
    models = [model for example in rule.examples for model in (example.bad, example.good) if model is not None]
    assert len(shown) >= len(models) + len(rule.silent)
    assert page == onnxlint("rule", rule.code).out


def test_a_page_says_when_a_rule_runs_and_what_its_examples_ask_for() -> None:
    rule = make(
        "ABC001",
        "one",
        aliases=("uno",),
        targets=frozenset({"ncnn", "tensorrt"}),
        needs_weights=True,
        status=Status.PREVIEW,
        examples=(Example(bad="\n    a\n      b\n", findings=2, options=Options(targets=("ncnn",), min_opset=13)),),
        silent=(Silent("c", why="it is small"),),
    )
    page = docs.page(rule)
    assert "preview: runs only when selected by its code or name" in page
    assert "only for --target ncnn or tensorrt" in page
    assert "reads weights: needs --weights" in page
    assert "formerly uno" in page
    assert "Bad (2 findings), with `--target ncnn --min-opset 13`:\n\n```text\na\n  b\n```" in page
    assert "Because it is small:\n\n```text\nc\n```" in page


def test_the_index_links_every_page_in_groups() -> None:
    index = docs.index([make("ZZZ001", "last"), make("SHP001", "first"), make("OUT001", "second", default=False)])
    assert re.findall(r"^## (.+)$", index, flags=re.MULTILINE) == [
        "SHP: Shapes computed at run time",
        "OUT: Outputs and heads",
        "ZZZ",
    ]
    assert "| [OUT001](OUT001.md) | second | warning | Nothing. | off by default: runs when selected |" in index


def test_writing_and_checking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "rules"
    assert docs.main(["--check", "--folder", str(folder)]) == 1
    assert "index.md" in capsys.readouterr().err
    assert docs.main(["--folder", str(folder)]) == 0
    assert docs.main(["--check", "--folder", str(folder)]) == 0
    (folder / "SHP001.md").write_text("old")
    (folder / "OLD001.md").write_text("a rule that is gone")
    assert docs.main(["--check", "--folder", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"error: {folder}: out of date: OLD001.md, SHP001.md; run 'python -m onnxlint.lint.rule_docs'\n"
    )
    assert docs.main(["--folder", str(folder)]) == 0
    assert docs.main(["--check", "--folder", str(folder)]) == 0
    assert not (folder / "OLD001.md").exists()


def rules_of_the_guide(folder: Path) -> list[Path]:
    """Writes the rules of docs/writing-rules.md into a folder, under the names that the guide gives them."""
    guide = (ROOT / "docs/writing-rules.md").read_text(encoding="utf-8")
    parts = re.findall(r"`tools/rules/(\w+\.py)`[^`]*````python\n(.*?)````", guide, flags=re.DOTALL)
    for name, code in parts:
        (folder / name).write_text(code, encoding="utf-8")
    return [folder / name for name, _ in parts]


def test_the_rules_in_the_guide_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = rules_of_the_guide(tmp_path)
    assert [file.name for file in files] == ["no_gelu.py", "split_hard_swish.py"]
    for file in files:
        outcome = onnxlint("test-rules", file.name)
        assert outcome.code == 0, outcome.err
    guide = (ROOT / "docs/writing-rules.md").read_text(encoding="utf-8")
    assert onnxlint("test-rules", "no_gelu.py").out in guide


def test_the_fix_in_the_guide_fixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").mkdir()
    rules_of_the_guide(tmp_path / "rules")
    (tmp_path / "onnxlint.toml").write_text('rule-paths = ["rules"]')
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N,8] x) => (float[N,8] z) { y = HardSwish (x)  z = Relu (y) }
        """
    )
    onnx.save(model, "model.onnx")
    outcome = onnxlint("fix", "model.onnx", "-o", "fixed.onnx", "--config", "onnxlint.toml")
    assert outcome.code == 0, outcome.err
    assert [node.op_type for node in onnx.load("fixed.onnx").graph.node] == ["HardSigmoid", "Mul", "Relu"]


def test_the_guide_lists_every_key_and_its_default() -> None:
    from onnxlint.lint.configuration import _KEYS

    guide = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", guide, flags=re.MULTILINE)) == set(_KEYS)
