"""The README shows what the demo prints: run it, and compare. ONNXLINT_UPDATE_README=1 writes it anew."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

import dev
from fixtures import pictures, pitfalls
from tests.support.command import onnxlint

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_DEMO = re.compile(r"(<!-- demo -->\n)(.*?)(<!-- /demo -->)", re.DOTALL)
VARIABLE = ("convert", "compare")
"""Commands whose numbers depend on the processor and the libraries."""


def without_times(text: str) -> str:
    """Seconds and rounding differ from machine to machine."""
    text = re.sub(r"\d+\.\d+ s\b", "… s", text)
    return re.sub(r"\(worst [\d.e-]+\)", "(worst …)", text)


def without_numbers(text: str) -> str:
    """What convert and compare print, but for numbers and the widths of columns."""
    return re.sub(r"[ -]+", " ", re.sub(r"\d[\d.,e-]*( ?[KM]?B\b| ms| s\b| bytes)?", "#", text).replace(" ?", ""))


def excerpt(command: str, printed: str) -> str:
    """What the README shows of it: of a comparison the summary."""
    return printed.split("\n\n")[0] + "\n\n" + printed.split("\n\n")[1] + "\n…\n" if "compare" in command else printed


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("onnxruntime", "ncnn", "pnnx", "PIL"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    pitfalls.build(tmp_path / "demo")
    pictures.build(tmp_path / "demo" / "images", 8, 192, 128)
    shown = []
    for words in dev.DEMO:
        outcome = onnxlint(*shlex.split(words))
        assert outcome.code == words.startswith("check"), outcome.err
        shown.append(f"$ onnxlint {words}\n{excerpt(words, outcome.out)}")
    text = README.read_text(encoding="utf-8")
    if os.environ.get("ONNXLINT_UPDATE_README"):
        block = "```console\n" + "\n".join(shown) + "```\n"
        README.write_text(_DEMO.sub(lambda match: match[1] + block + match[3], text), encoding="utf-8")
        return
    match = _DEMO.search(text)
    assert match is not None
    parts = re.split(
        r"^(?=\$ onnxlint )", match[2].removeprefix("```console\n").removesuffix("```\n"), flags=re.MULTILINE
    )
    assert len(parts) == len(shown) + 1
    for words, there, here in zip(dev.DEMO, parts[1:], shown, strict=True):
        plain = without_numbers if words.startswith(VARIABLE) else without_times
        assert plain(there).strip() == plain(here).strip()
