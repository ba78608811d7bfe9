"""`onnxlint demo` with the base install, and where it may write; tests/test_readme.py runs it whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxlint.demo.graph import parameter_shapes
from onnxlint.demo.model import WIDTH, detector, pack, unpack
from onnxlint.demo.pictures import draw
from tests.support.command import onnxlint

_BASE = """
import sys
for module in ("onnxruntime", "PIL", "sympy", "ncnn", "pnnx", "torch", "jinja2", "altair"):
    sys.modules[module] = None
from onnxlint.cli.app import run
sys.exit(run(["demo", "place"]))
"""


def test_with_the_base_install_it_checks_and_fixes_and_says_what_the_extras_add(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BASE], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    commands = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ onnxlint")]
    assert commands == ["check", "fix", "heads"]
    assert "onnxruntime, pillow, sympy, ncnn and pnnx are not installed" in done.stdout
    assert done.stdout.endswith("pip install 'onnxlint[all]' && onnxlint demo place\n")
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["fixed.onnx", "pitfalls.onnx"]


def test_a_name_reaches_no_terminal_as_it_is(tmp_path: Path) -> None:
    code = _BASE.replace('"place"', r'"a\x1b[31m\n::error::forged"')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\n::error" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["taken", "taken/file.txt", "taken/file.txt/below"])
def test_what_is_there_is_left_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file.txt").write_text("mine")
    outcome = onnxlint("demo", name)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {name}: ")
    assert outcome.err.count("\n") == 1
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file.txt"]
    assert (tmp_path / "taken" / "file.txt").read_text() == "mine"


def test_weights_are_small_and_packed_as_they_are_read() -> None:
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(size=shape).astype(np.float16).astype(np.float32)
        for name, shape in parameter_shapes(WIDTH).items()
    }
    read = unpack(pack(weights))
    assert all(np.array_equal(read[name], value) for name, value in weights.items())
    assert len(detector()) < 60_000


def test_pictures_show_faces_where_the_labels_say() -> None:
    for seed in range(4):
        scene = draw(seed)
        assert np.array_equal(scene.pixels, draw(seed).pixels)
        assert len(scene.boxes) == len(scene.landmarks) > 0
        for (x1, y1, x2, y2), points in zip(scene.boxes, scene.landmarks, strict=True):
            assert 0 <= x1 < x2 <= scene.pixels.shape[1]
            assert 0 <= y1 < y2 <= scene.pixels.shape[0]
            assert ((points > (x1, y1)) & (points < (x2, y2))).all()
            eye = scene.pixels[int(points[0, 1]), int(points[0, 0])].astype(int).sum()
            skin = scene.pixels[int((y1 + y2) / 2), int(x1 + 0.2 * (x2 - x1))].astype(int).sum()
            assert eye < skin
