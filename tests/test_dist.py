"""What a release uploads: the same bytes from each build, and a wheel that works by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_builds_are_reproducible_and_the_wheel_works_alone() -> None:
    ran = subprocess.run([sys.executable, "dev.py", "dist"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "beside onnx and numpy: " in ran.stdout
