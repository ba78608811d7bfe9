"""The README shows what the demo prints: run it, and compare. ONNXLINT_UPDATE_README=1 writes it anew."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from fixtures import pitfalls
from tests.command import onnxlint

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_DEMO = re.compile(r"(<!-- demo -->\n)(.*?)(<!-- /demo -->)", re.DOTALL)
COMMANDS = (
    "onnxlint check demo/pitfalls.onnx",
    "onnxlint fix demo/pitfalls.onnx -o demo/fixed.onnx --concat-heads bbox,class,landm --drop-output-activations "
    "--multiple-of 32 --exit-zero",
    "onnxlint heads demo/fixed.onnx",
)


def without_times(text: str) -> str:
    """Seconds and rounding differ from machine to machine."""
    text = re.sub(r"\d+\.\d+ s\b", "… s", text)
    return re.sub(r"\(worst [\d.e-]+\)", "(worst …)", text)


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    pitfalls.build(tmp_path / "demo")
    shown = []
    for command in COMMANDS:
        outcome = onnxlint(*shlex.split(command)[1:])
        assert outcome.code in (0, 1), outcome.err
        shown.append(f"$ {command}\n{outcome.out}")
    block = "```console\n" + "\n".join(shown) + "```\n"
    text = README.read_text(encoding="utf-8")
    if os.environ.get("ONNXLINT_UPDATE_README"):
        README.write_text(_DEMO.sub(lambda match: match[1] + block + match[3], text), encoding="utf-8")
        return
    match = _DEMO.search(text)
    assert match is not None
    assert without_times(match[2]) == without_times(block)


def test_the_demo_runs_these_commands() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    for word in ("bbox,class,landm", "--drop-output-activations", "--multiple-of", "heads"):
        assert word in source
