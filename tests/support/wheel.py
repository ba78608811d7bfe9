"""A wheel by itself in an empty environment: `python -m tests.support.wheel FILE`.

It installs the wheel with what it requires and nothing else, measures what that takes beside onnx and numpy, and runs each
command: it has to work, or to name the extra that it needs in one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxlint.cli.commands import COMMANDS
from tests.support.command import BAD

MOST_MEGABYTES = 60
"""That an installation may take beside onnx and numpy."""

NOT_COUNTED = ("onnx", "numpy", "numpy.libs", "pip", "setuptools")

WORKING = {
    "check": ["net.onnxtxt", "--exit-zero"],
    "fix": ["net.onnx", "-o", "fixed.onnx", "--no-verify", "--exit-zero"],
    "diff": ["net.onnx", "net.onnx"],
    "show": ["net.onnx"],
    "rules": [],
    "rule": ["SHP001"],
    "config": [],
    "debug-info": [],
}
"""Command → arguments with which it succeeds without any extra."""


def main(wheel: str) -> int:
    """Install and try a wheel; returns 1, with a line on standard error for each problem, where there are any."""
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder) / "venv", wheel)
        problems = [*_size(python), *_commands(python, Path(folder))]
    for problem in problems:
        print(f"wheel: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _environment(folder: Path, wheel: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    return python


def _size(python: Path) -> list[str]:
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip())
    total = 0
    for entry in packages.iterdir():
        name = entry.name.partition("-")[0] if entry.name.endswith(".dist-info") else entry.name
        if name not in NOT_COUNTED:
            files = entry.rglob("*") if entry.is_dir() else [entry]
            # pip compiles while it installs; what is downloaded and kept is the source.
            total += sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
    print(f"beside onnx and numpy: {total / 1e6:.1f} MB")
    return [f"takes {total / 1e6:.0f} MB beside onnx and numpy"] if total > MOST_MEGABYTES * 1e6 else []


def _commands(python: Path, folder: Path) -> list[str]:
    (folder / "net.onnxtxt").write_text(BAD)
    make = f"import onnx.parser, onnx; onnx.save(onnx.parser.parse_model({BAD!r}), 'net.onnx')"
    subprocess.run([python, "-c", make], cwd=folder, check=True)
    problems = []
    for name in COMMANDS:
        command: list[str | Path] = [python, "-m", "onnxlint", *name.split()]
        problems += _run([*command, "--help"], folder, works=True)
        if name in WORKING:
            problems += _run([*command, *WORKING[name]], folder, works=True)
    for words in (
        ["convert", "net.onnx", "--to", "onnx-fp16"],
        ["compare", "net.onnx", "net.onnx"],
        ["view", "net.onnx"],
    ):
        problems += _run([python, "-m", "onnxlint", *words], folder, works=False)
    return problems


def _run(command: Sequence[str | Path], folder: Path, works: bool) -> list[str]:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    shown = " ".join(str(word) for word in command[2:])
    if works:
        return [] if ran.returncode == 0 else [f"{shown}: exit code {ran.returncode}: {ran.stderr[-500:]}"]
    lines = ran.stderr.strip().splitlines()
    clear = ran.returncode == 2 and len(lines) == 1 and "pip install 'onnxlint[" in lines[0]
    return [] if clear else [f"{shown}: does not name the extra: exit code {ran.returncode}: {ran.stderr[-500:]}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
