"""The README shows what the demo prints: run it, and compare. ONNXLINT_UPDATE_README=1 writes it anew."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from fixtures import pictures
from onnxlint.cli.commands import COMMANDS
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
    """What convert and compare print, but for numbers, the widths of columns, and which model is best and worst."""
    command, _, printed = text.partition("\n")
    if " compare " in command:
        verdict, _, rest = printed.partition("\n\n")
        verdict = " ".join(re.sub(r"\bfixed\w*\.(onnx|param)", "MODEL", verdict).split())
        text = f"{command}\n{verdict}\n\n{rest}"
    return re.sub(r"[ -]+", " ", re.sub(r"\d[\d.,e-]*( ?[KM]?B\b| ms| s\b| bytes)?", "#", text).replace(" ?", ""))


def parts(printed: str) -> list[str]:
    """What the demo prints, a part for each command."""
    return re.split(r"^(?=\$ onnxlint )", printed, flags=re.MULTILINE)[1:]


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("onnxruntime", "ncnn", "pnnx", "PIL", "pycocotools"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    outcome = onnxlint("demo")
    assert outcome.code == 0, outcome.err
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    if os.environ.get("ONNXLINT_UPDATE_README"):
        block = f"```console\n{outcome.out}```\n"
        README.write_text(_DEMO.sub(lambda match: match[1] + block + match[3], text), encoding="utf-8")
        return
    match = _DEMO.search(text)
    assert match is not None
    shown = match[2].removeprefix("```console\n").removesuffix("```\n")
    assert len(parts(shown)) == len(parts(outcome.out)) == 5
    for there, here in zip(parts(shown), parts(outcome.out), strict=True):
        plain = without_numbers if here.split()[2] in VARIABLE else without_times
        assert plain(there).strip() == plain(here).strip()


# Everything else that the README tells to type


def lines(kind: str) -> list[str]:
    """The lines of the README's blocks of a kind, but for what the demo prints; commands without `$` and comments."""
    text = _DEMO.sub("", README.read_text(encoding="utf-8"))
    blocks = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def commands() -> list[list[str]]:
    """Each `$ onnxlint …` line in words."""
    return [shlex.split(line, comments=True)[2:] for line in lines("console") if line.startswith("$ onnxlint ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's lines name: a narrow RetinaFace, images, a list of them, labels."""
    for needed in ("torch", "onnxruntime", "ncnn", "pnnx", "PIL", "pycocotools", "jinja2"):
        pytest.importorskip(needed)
    from fixtures.retinaface import build

    folder = tmp_path_factory.mktemp("readme")
    build(folder / "built", size=640, only=["op11_dyn"], width=32)
    model = folder / "built" / "original_op11_dyn.onnx"
    for copy in ("model.onnx", "old.onnx", "new.onnx", "exports/one.onnx", "models/deep/one.onnx"):
        (folder / copy).parent.mkdir(parents=True, exist_ok=True)
        (folder / copy).write_bytes(model.read_bytes())
    pictures.build(folder / "calibration", 3, 640, 640)
    photos = pictures.build(folder / "photos", 2, 640, 640)
    names = sorted(path.name for path in (folder / "photos").iterdir())
    assert names, photos
    (folder / "imagelist.txt").write_text(
        "".join(f"calibration/{path.name}\n" for path in (folder / "calibration").iterdir())
    )
    (folder / "wider.txt").write_text("".join(f"{name}\n1\n10 10 100 100 0 0 0 0 0 0\n" for name in names))
    return folder


def test_every_line_of_the_readme_is_understood() -> None:
    assert len(commands()) > 20
    for words in commands():
        outcome = onnxlint(*words[: 2 if words[0] == "ncnn" else 1], "--help")
        assert outcome.code == 0
        for word in words:
            if word.startswith("--") and words[0] in COMMANDS:
                assert f"{word} " in f"{outcome.out} ".replace("\n", " "), f"{words[0]} has no {word}"


@pytest.mark.slow
def test_the_lines_of_the_readme_run_as_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for words in commands():
        if words[0].startswith("-"):  # --install-completion changes the user's shell
            continue
        outcome = onnxlint(*words)
        assert outcome.code in (0, 1), f"{shlex.join(words)}\n{outcome.out}\n{outcome.err}"
        assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_the_python_of_the_readme_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile("\n".join(lines("python")), "README.md", "exec"), {})
