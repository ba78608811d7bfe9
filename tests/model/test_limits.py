"""A process that limits itself gets no more memory than it said."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from onnxlint.model.limits import limit_memory
limit_memory(300 << 20)
small = bytearray(100 << 20)
try:
    large = bytearray(400 << 20)
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_more_than_the_limit_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
