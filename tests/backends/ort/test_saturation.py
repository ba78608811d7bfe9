"""Overflow of int8 sums, measured."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxlint.backends.ort.saturation import has_large, measured_share, notes_for

pytest.importorskip("onnxruntime")

SCALES = np.full(3, 127, np.int8)


def test_processors_with_vnni_compute_the_largest_sums_exactly() -> None:
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        pytest.skip("flags of the processor are not known here")
    has_vnni = "vnni" in info.read_text(encoding="utf-8")
    assert (measured_share() > 0.99) is has_vnni


@pytest.mark.parametrize(("largest", "large"), [(64, False), (65, True), (-128, True), (-64, False)])
def test_weights_of_seven_bits_are_not_large(largest: int, large: bool) -> None:
    tensor = numpy_helper.from_array(np.array([[1, largest]], np.int8), "w")
    assert has_large([tensor]) is large


def test_float_weights_and_scales_are_not_looked_at(tmp_path: Path) -> None:
    arrays: list[np.ndarray] = [np.ones((2, 2), np.float32), SCALES]
    tensors = [numpy_helper.from_array(one, f"w{i}") for i, one in enumerate(arrays)]
    assert not has_large(tensors)
    graph = helper.make_graph([], "net", [], [], tensors)
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert notes_for(str(tmp_path / "m.onnx")) == ()


def test_a_model_with_full_weights_has_a_note_where_sums_overflow(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.full((2, 2), 127, np.int8), "w")
    onnx.save(helper.make_model(helper.make_graph([], "net", [], [], [weight])), tmp_path / "m.onnx")
    assert bool(notes_for(str(tmp_path / "m.onnx"))) is (measured_share() < 0.9)
