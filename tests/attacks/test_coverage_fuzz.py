"""Coverage-guided fuzzing of the readers, with atheris where it is installed (`pip install 'onnxlint[fuzz]'`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from onnxlint.backends.ncnn.format import parse_param
from onnxlint.backends.ncnn.table import parse_table
from onnxlint.errors import OnnxlintError

ROOT = Path(__file__).parents[2]
SECONDS = int(60 * float(os.environ.get("ONNXLINT_FUZZ", "1")))


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["skeleton", "conditions", "param", "table", "glob"])
def test_readers(tmp_path: Path, reader: str) -> None:
    pytest.importorskip("atheris", reason="needs atheris: pip install 'onnxlint[fuzz]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.coverage_fuzz", reader, str(SECONDS), str(tmp_path / "corpus")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "rules"), *sys.path])},
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"Done (\d+) runs", done.stderr)
    assert found is not None, done.stderr[-1000:]
    assert int(found[1]) > 100


@pytest.mark.parametrize("number", ["--446602", "-", "--1", "¹", "٣", "1-2"])
def test_numbers_of_a_param_file_that_are_none(number: str) -> None:
    """Found by it: `--446602=…` raised ValueError."""
    text = f"7767517\n2 2\nInput in 0 1 in {number}=4\nReLU r 1 1 in out\n"
    with pytest.raises(OnnxlintError, match="should be an integer"):
        parse_param(text.encode())


def test_scales_that_float32_cannot_hold() -> None:
    """Found by it: 1e99 became an infinite scale, with a warning of NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (issue,) = parse_table("conv 1e99\n").issues
    assert "finite" in issue.message
