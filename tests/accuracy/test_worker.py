"""Comparisons run in a process of their own: a crash of a runtime is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.accuracy import worker
from onnxlint.accuracy.in_process import compare_here
from onnxlint.accuracy.options import CompareOptions
from onnxlint.api import compare
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions
from onnxlint.verification.compare import verify
from tests.support.accuracy_models import SIZE, detector, images, rough
from tests.support.recipes import RECIPE


@pytest.fixture(autouse=True)
def in_this_process() -> None:
    """Nothing is done in this process here."""


DYING = """
import sys, json, os; sys.path[:] = json.loads(sys.argv[1])
from onnxlint.backends.ort import session
real = session.OrtSession.{method}
def dying(self, *arguments, **named):
    if "candidate" in {path}: os.abort()
    return real(self, *arguments, **named)
session.OrtSession.{method} = dying
from onnxlint.accuracy.worker import main; main()
"""


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    return detector(tmp_path / "reference.onnx"), detector(tmp_path / "candidate.onnx", changed=rough("w1"))


def test_the_report_is_that_of_a_comparison_in_this_process(models: tuple[str, str], tmp_path: Path) -> None:
    pictures = images(tmp_path / "pictures.npy")
    told: list[tuple[str, int, int | None]] = []
    there = compare(
        models[0], [models[1]], images=pictures, recipe=RECIPE, time=False, progress=lambda *step: told.append(step)
    )
    options = CompareOptions(time=False)
    assert there == compare_here(models[0], [models[1]], ImageOptions(pictures, RECIPE), options)
    assert ("comparing candidate.onnx", 4, 5) in told


def test_a_crash_while_loading_names_the_model(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_START", DYING.format(method="__init__", path="arguments[0]"))
    with pytest.raises(OnnxlintError, match=r"candidate.onnx: onnxruntime crashed \(SIGABRT\) while loading it"):
        compare(models[0], [models[1]], shapes={"image": (1, 3, SIZE, SIZE)}, time=False)


def test_an_error_of_the_user_is_the_same_line(models: tuple[str, str]) -> None:
    with pytest.raises(OnnxlintError, match="the folder holds no image"):
        compare(models[0], [models[1]], images=str(Path(models[0]).parent), recipe=RECIPE)
    with pytest.raises(OnnxlintError, match="no candidate given"):
        compare(models[0], [])


def test_a_bug_is_one_line_that_says_where(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_START", "raise RuntimeError('oh')")
    with pytest.raises(OnnxlintError, match=r"ended \(exit code 1\); the last line that it wrote: RuntimeError: oh"):
        compare(models[0], [models[1]], time=False)


def test_an_exception_of_a_backend_is_no_crash(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken = DYING.replace("os.abort()", "raise TypeError('oh')")
    monkeypatch.setattr(worker, "_START", broken.format(method="__init__", path="arguments[0]"))
    said = r"candidate.onnx: loading it fails: TypeError: oh \(.*line \d+\); this is a bug, please report it$"
    with pytest.raises(OnnxlintError, match=said):
        compare(models[0], [models[1]], shapes={"image": (1, 3, SIZE, SIZE)}, time=False)


def half(path: Path) -> str:
    """A float16 MatMul behind a Transpose, on which onnxruntime 1.32 dies when it loads it."""
    weight = np.random.default_rng(0).standard_normal((16, 48)).astype(np.float16)
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float16[b,t,16] x) => (float16[t,b,48] y) { z = Transpose <perm = [1, 0, 2]> (x)
            y = MatMul (z, w)
        }
        """
    )
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path.write_bytes(proto.SerializeToString())
    return str(path)


LOAD = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"


def test_a_model_that_kills_onnxruntime_is_one_line(tmp_path: Path) -> None:
    path = half(tmp_path / "half.onnx")
    done = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, check=False)
    if done.returncode >= 0:
        pytest.skip("this release of onnxruntime loads it")
    with pytest.raises(OnnxlintError, match=r"half.onnx: onnxruntime crashed \(SIG[A-Z]+\) while loading it"):
        compare(path, [path], shapes={"x": (2, 3, 16)}, time=False)
    found = verify(path, path)  # without optimizations it loads
    assert found.verified or found.skipped
