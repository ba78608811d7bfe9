"""What README and the pages of docs/ tell to type, and a folder in which those lines run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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
    typed = [line for line in block_lines(text, "console") if line.startswith("$ onnxlint ")]
    words = [shlex.split(line, comments=True)[2:] for line in typed]
    return [one[: one.index("|")] if "|" in one else one for one in words]


def check_options(words: list[str]) -> None:
    """Raises AssertionError where a command has no option of that name."""
    outcome = onnxlint(*words[: 2 if words[0] == "ncnn" else 1], "--help")
    assert outcome.code == 0
    for word in words:
        if word.startswith("--") and words[0] in COMMANDS:
            assert f"{word} " in f"{outcome.out} ".replace("\n", " "), f"{words[0]} has no {word}"


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
    (folder / "wider.txt").write_text("".join(f"{name}\n1\n10 10 100 100 0 0 0 0 0 0\n" for name in names))


def run_as_printed(words: list[str]) -> None:
    """Run a line in the working directory.

    Raises:
        AssertionError: It ends with an error or a traceback.
    """
    if words[0].startswith("-"):  # --install-completion changes the user's shell
        return
    outcome = onnxlint(*words)
    assert outcome.code in (0, 1), f"{shlex.join(words)}\n{outcome.out}\n{outcome.err}"
    assert "Traceback" not in outcome.err
