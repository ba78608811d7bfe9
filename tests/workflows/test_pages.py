"""The tutorial, and the pages of the workflows and targets: every command runs as printed, and prints what the page shows.

ONNXLINT_UPDATE_PAGES=1 writes what commands print into the pages.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types of its own

from onnxlint.backends import backends
from onnxlint.cli.commands import COMMANDS
from onnxlint.demo.model import detector
from tests.support.command import onnxlint

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / "docs" / "workflows").glob("*.md"))
TARGETS = sorted((ROOT / "docs" / "targets").glob("*.md"))
PAGES = [ROOT / "docs" / "tutorial.md", *WORKFLOWS, *TARGETS]
REFUSED = ("--to ncnn --shape 48,48,3", "--images ./try/images")
"""Ends of the commands that cannot work, and say what to type."""

_BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
_FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^(?=\$ )", re.MULTILINE)


def commands(page: Path) -> list[str]:
    blocks = [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "console"]
    return [part.splitlines()[0].removeprefix("$ ") for text in blocks for part in _COMMAND.split(text) if part]


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a line as a shell would, from a clone; what it prints, errors included."""
    words = shlex.split(command)
    words[:1] = {"python": [sys.executable], "onnxlint": [sys.executable, "-m", "onnxlint"]}[words[0]]
    path = os.pathsep.join([str(ROOT), str(ROOT / "rules")])
    with subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        if command.startswith("onnxlint view"):
            shown = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
            return process.returncode, shown + rest
        printed, _ = process.communicate(timeout=1200)
    return process.returncode, printed


def plain(text: str) -> str:
    """What a command prints, but for numbers, widths of columns, and which model a verdict names."""
    text = re.sub(
        r"note: latency.*?idle|\blatency\b|[±–]", "", text, flags=re.DOTALL
    )  # of a busy machine there is none
    text = re.sub(r"\btry/\S*|\b\w+\.(?:onnx|param)\b", "FILE", text)
    text = re.sub(r"\d[\d.,e+-]*( ?[KM]?B\b| ms| s\b| bytes)?", "#", text)
    return " ".join(sorted(set(re.sub(r"[-\s]+", " ", text).split())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_line_is_understood(page: Path) -> None:
    lines = commands(page)
    assert lines
    assert not any(line.startswith("#") for line in lines)
    for line in lines:
        words = shlex.split(line)
        if words[0] != "onnxlint":
            assert words[0] == "python", line
            continue
        name = " ".join(words[1:3]) if words[1] == "ncnn" else words[1]
        assert name in COMMANDS
        shown = onnxlint(*name.split(), "--help").out
        for word in words:
            if word.startswith("--") and word != "--type":
                assert f"{word} " in f"{shown} ".replace("\n", " "), f"{name} has no {word}"


def test_every_workflow_and_target_has_a_page_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [one.name for one in backends()]
    assert sorted(page.stem for page in TARGETS) == sorted(names)
    assert len(WORKFLOWS) == 6
    for page in (*WORKFLOWS, *TARGETS):
        assert page.relative_to(ROOT).as_posix() in readme


def test_the_commit_of_the_tutorial_is_blocked_until_the_model_is_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxlint[fix]")
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (hook,) = yaml.safe_load(next(block for kind, block in _FENCE.findall(text) if kind == "yaml"))["repos"][0]["hooks"]
    check = [*hook["entry"].split()[1:], "models/pitfalls.onnx"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pitfalls.onnx").write_bytes(detector())
    blocked = onnxlint(*check)
    assert blocked.code == 1
    shown = next(block for kind, block in _FENCE.findall(text) if kind == "text")
    assert shown.rstrip().splitlines()[-1] in blocked.out
    fix = next(
        line for kind, block in _FENCE.findall(text) for line in block.splitlines() if line.startswith("onnxlint fix")
    )
    onnxlint(*fix.split()[1:])
    assert onnxlint(*check).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    for needed in ("torch", "onnxruntime", "ncnn", "pnnx", "PIL", "pycocotools", "jinja2", "netron"):
        pytest.importorskip(needed)
    (tmp_path / "try").mkdir()
    text = page.read_text(encoding="utf-8")
    made = text
    for kind, block in _BLOCK.findall(text):
        if kind == "python":
            (tmp_path / "page.py").write_text(block, encoding="utf-8")
            code, printed = run("python page.py", tmp_path)
            assert code == 0, printed
            continue
        parts = []
        for part in filter(None, _COMMAND.split(block)):
            line, _, shown = part.partition("\n")
            code, printed = run(line.removeprefix("$ "), tmp_path)
            refused = line.endswith(REFUSED) and "convert" in line
            assert code == 2 if refused else code in (0, 1), f"{line}\n{printed}"
            assert "Traceback" not in printed
            printed = re.sub(r"localhost:\d+", "localhost:8080", printed)
            for clone in (ROOT, os.path.relpath(ROOT, tmp_path.resolve())):  # the page's commands are for a clone
                printed = printed.replace(f"{clone}{os.sep}", "")
            if not shown.strip():  # the page does not show what this one prints
                parts.append(f"{line}\n")
                continue
            parts.append(f"{line}\n{printed.rstrip()}\n\n".replace("\n\n\n", "\n\n"))
            if not os.environ.get("ONNXLINT_UPDATE_PAGES"):
                assert plain(shown) == plain(printed), line
        made = made.replace(block, "".join(parts).rstrip() + "\n")
    if os.environ.get("ONNXLINT_UPDATE_PAGES"):
        page.write_text(made, encoding="utf-8")
