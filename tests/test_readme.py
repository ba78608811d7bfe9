"""The README shows what the demo prints: run it, and compare. ONNXLINT_UPDATE_README=1 writes it anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.command import onnxlint
from tests.support.documents import block_lines, check_options, commands, make_place, run_as_printed

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


SHOWN = re.compile(r"\$ |\S+\.onnx$|.*(SHP00[123]|OUT001)|\[\*\]|Found|  (rule|assumes|verified) |Fixed")
"""Lines of check and fix that the README shows, with what is indented deeper below them."""


def excerpt(printed: str) -> str:
    """The part of the demo's output that the README shows: of check and fix some lines, of compare its first table."""
    shown = []
    for part in parts(printed):
        command = part.split()[2]
        if command == "compare":
            shown.append("\n\n".join(part.split("\n\n")[:3]) + "\n…\n")
        elif command in ("check", "fix"):
            kept: list[str] = []
            below = True
            for line in part.rstrip().splitlines():
                below = below if line.startswith(" " * 10) else bool(SHOWN.match(line)) and "left:" not in line
                if below:
                    kept.append(line)
                elif kept[-1] != "…":
                    kept.append("…")
            shown.append("\n".join(kept) + "\n")
    return "\n".join(shown)


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("onnxruntime", "ncnn", "pnnx", "PIL", "pycocotools"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    outcome = onnxlint("demo")
    assert outcome.code == 0, outcome.err
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    printed = excerpt(outcome.out)
    if os.environ.get("ONNXLINT_UPDATE_README"):
        block = f"```console\n{printed}```\n"
        README.write_text(_DEMO.sub(lambda match: match[1] + block + match[3], text), encoding="utf-8")
        return
    match = _DEMO.search(text)
    assert match is not None
    shown = match[2].removeprefix("```console\n").removesuffix("```\n")
    assert len(parts(shown)) == len(parts(printed)) == 3
    for there, here in zip(parts(shown), parts(printed), strict=True):
        plain = without_numbers if here.split()[2] in VARIABLE else without_times
        assert plain(there).strip() == plain(here).strip()


# Everything else that the README tells to type


def rest() -> str:
    """The README, but for what the demo prints."""
    return _DEMO.sub("", README.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's lines name."""
    folder = tmp_path_factory.mktemp("readme")
    make_place(folder)
    return folder


def test_every_line_of_the_readme_is_understood() -> None:
    assert len(commands(rest())) > 6
    for words in commands(rest()):
        check_options(words)


@pytest.mark.slow
def test_the_lines_of_the_readme_run_as_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for words in commands(rest()):
        run_as_printed(words)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile("\n".join(block_lines(rest(), "python")), "README.md", "exec"), {})
