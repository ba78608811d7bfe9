"""Comparisons in these tests run in the tests' own process, which is faster; `test_worker` has those of the other."""

from __future__ import annotations

import pytest

from onnxlint.accuracy import worker
from onnxlint.accuracy.in_process import compare_here


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "in_child", compare_here)
