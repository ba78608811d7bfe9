"""docs/exporting.md: what it tells to type does what it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import onnxlint

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "exporting.md"

_NUMBERS = re.compile(r"[0-9.]+e-[0-9]+|[0-9.]+ [KM]?B")


def blocks(kind: str) -> list[str]:
    return [re.sub(r"(?m)^   ", "", one) if one.startswith("   ") else one for one in _blocks(kind)]


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^ *```{kind}\n(.*?)^ *```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_has_options_that_exist() -> None:
    words = {word for block in blocks("console") for word in re.findall(r"--[a-z][a-z-]+", block)}
    words |= set(re.findall(r"`(--[a-z-]+)", PAGE.read_text(encoding="utf-8")))
    known = " ".join(onnxlint(name, "--help").out for name in ("export", "convert"))
    assert len(words) > 15
    assert {word for word in words if word not in known} == set()


@pytest.mark.slow
def test_the_page_prints_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "onnxscript", "onnxruntime", "libcst", "sympy", "PIL"):
        pytest.importorskip(package)
    from fixtures import pictures

    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        if match := re.match(r"# (\w+\.py)\n", block):
            Path(match[1]).write_text(block[match.end() :], encoding="utf-8")
    source = Path("net.py").read_text(encoding="utf-8")
    subprocess.run([sys.executable, "train.py"], check=True, cwd=tmp_path)
    pictures.build(Path("images"), 4, 96, 96)
    consoles = blocks("console")
    assert len(consoles) == 4
    for block in consoles:
        typed, _, printed = block.partition("\n")
        outcome = onnxlint(*shlex.split(typed.removeprefix("$ onnxlint ")))
        assert _NUMBERS.sub("#", outcome.err + outcome.out).strip() == _NUMBERS.sub("#", printed).strip()
        Path("net.py").write_text(source, encoding="utf-8")
    assert os.path.exists("net_quan_static.onnx")
