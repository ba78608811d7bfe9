"""What README and the pages of docs/ tell to type, and a folder in which those lines run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fixtures import pictures
from onnxlint.cli.commands import COMMANDS
from tests.support.command import onnxlint

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "tutorial.md")
"""The pages whose lines run in `make_place`; tests/workflows has the others."""


def block_lines(text: str, kind: str) -> list[str]:
    """The lines of the code blocks of a kind (`console`, `python`)."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def commands(text: str) -> list[list[str]]:
    """Each `$ onnxlint …` line in words; a pipe and what follows it is left out."""
    return [_words(line) for line in block_lines(text, "console") if line.startswith("$ onnxlint ")]


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)[2:]
    return words[: words.index("|")] if "|" in words else words


def answer(text: str, words: list[str]) -> str:
    """The line that a page shows below a command, empty if it shows none."""
    lines = block_lines(text, "console")
    at = next(i for i, line in enumerate(lines) if line.startswith("$ onnxlint ") and _words(line) == words)
    below = lines[at + 1] if at + 1 < len(lines) else ""
    return "" if below.startswith("$ ") else below


def check_options(words: list[str]) -> None:
    """Raises AssertionError where a command has no option of that name."""
    outcome = onnxlint(*words[: 2 if words[0] == "ncnn" else 1], "--help")
    assert outcome.code == 0
    for word in words:
        if word.startswith("--") and words[0] in COMMANDS:
            assert f"{word} " in f"{outcome.out} ".replace("\n", " "), f"{words[0]} has no {word}"


_CLASSIFIER = """\
from torch import nn


def factory():
    layers = nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers)
"""


def make_place(folder: Path) -> None:
    """Fill a folder with what the lines name: a narrow RetinaFace under several names, images, a list of them, labels."""
    for needed in ("torch", "onnxruntime", "ncnn", "pnnx", "PIL", "pycocotools", "jinja2"):
        pytest.importorskip(needed)
    import torch

    from fixtures.retinaface import build, make_network

    build(folder / "built", size=640, only=["op11_dyn", "op11_st"], width=32)
    dynamic = (folder / "built" / "original_op11_dyn.onnx").read_bytes()
    for copy in (
        *("model.onnx", "old.onnx", "new.onnx", "simplified.onnx", "net.onnx", "original.onnx", "retinaface.onnx"),
        *("original_op11_dyn.onnx", "exports/one.onnx", "models/deep/one.onnx"),
    ):
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes(dynamic)
    (folder / "static.onnx").write_bytes((folder / "built" / "original_op11_st.onnx").read_bytes())
    pictures.build(folder / "calibration", 3, 640, 640)
    pictures.build(folder / "photos", 2, 640, 640)
    names = sorted(path.name for path in (folder / "photos").iterdir())
    assert names
    listed = sorted(path.name for path in (folder / "calibration").iterdir())
    (folder / "imagelist.txt").write_text("".join(f"calibration/{name}\n" for name in listed))
    (folder / "models" / "net.py").write_text(
        "from fixtures.retinaface import RetinaFace\n\n\ndef Net():\n    return RetinaFace(width=32)\n"
    )
    torch.save(make_network("original", width=32).state_dict(), folder / "net.pth")
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(_CLASSIFIER)
    classifier: dict[str, Any] = {}
    exec(_CLASSIFIER, classifier)
    torch.save(classifier["factory"]().state_dict(), folder / "best.pth")
    (folder / "classes.txt").write_text("cat\ndog\nbird\n")
    made = onnxlint("fix", str(folder / "original.onnx"), "-o", str(folder / "fixed.onnx"))
    assert made.code in (0, 1), made.err
    (folder / "wider.txt").write_text("".join(f"{name}\n1\n10 10 100 100 0 0 0 0 0 0\n" for name in names))


def run_as_printed(words: list[str], shown: str = "") -> None:
    """Run a line in the working directory; `shown` is the line that a page has below it.

    Raises:
        AssertionError: It ends with a traceback, or with an error that is not the one shown.
    """
    if words[0].startswith("-"):  # --install-completion changes the user's shell
        return
    outcome = onnxlint(*words)
    if shown.startswith("error: "):
        assert (outcome.code, outcome.err.rstrip()) == (2, shown)
        return
    assert outcome.code in (0, 1), f"{shlex.join(words)}\n{outcome.out}\n{outcome.err}"
    assert "Traceback" not in outcome.err
