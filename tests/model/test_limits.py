"""A process that limits itself gets no more memory than it said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onnxlint.model.limits import Budget

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


BUDGET = """
from onnxlint.model import limits
limits._budget = limits.Budget(0.2, 0.3, 64 << 20)
{}
print("not reached")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such timers")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("with limits.loading():\n    while True: pass", "it takes more than 0 s of CPU time to load"),
        (
            "with limits.running():\n    while True: pass",
            "one run of it takes more CPU time than it may (0 s, and more for large inputs)",
        ),
        (
            "with limits.running():\n    with limits.running(): pass\n    while True: pass",
            "one run of it takes more CPU time than it may (0 s, and more for large inputs)",
        ),
    ],
)
def test_what_takes_longer_than_its_budget_ends_the_process(code: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", BUDGET.format(code)], capture_output=True, timeout=60, check=False)
    assert done.returncode < 0
    assert done.stdout == b""
    assert Budget(0.2, 0.3, 0).overrun(done.returncode) == said
    assert Budget(0.2, 0.3, 0).overrun(-11) == Budget(0.2, 0.3, 0).overrun(1) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone limits address space as we need it")
def test_the_budget_ends_with_what_it_is_for() -> None:
    code = """
for limited in (limits.loading, limits.running):
    with limited(): pass
try:
    with limits.loading(): bytearray(256 << 20)
except MemoryError: print("too much")
bytearray(256 << 20)
import time
while time.process_time() < 1: pass
"""
    done = subprocess.run([sys.executable, "-c", BUDGET.format(code)], capture_output=True, timeout=60, check=False)
    assert done.stdout.split() == [b"too", b"much", b"not", b"reached"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is a library of Linux")
def test_memory_that_is_kept_is_not_fetched_again() -> None:
    code = """
import resource, sys
from onnxlint.model.limits import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def use():
    held = [b"x" * (4000 + i % 2) for i in range(2000)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.run([sys.executable, "-c", code, word], capture_output=True, check=True).stdout)
        for word in ("keep", "plain")
    ]
    assert faults[0] < faults[1] / 2, faults
