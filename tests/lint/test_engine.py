"""Checking one model after another."""

from __future__ import annotations

import gc
from pathlib import Path

import onnx
import onnx.parser
import pytest

from onnxlint.lint.configuration import Configs, Settings
from onnxlint.lint.engine import check_file
from onnxlint.lint.session import Plans

MODELS = {
    "convolutions": """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[N,3,H,W] x) => (float[N,B,C] y, float[N,D] z) <float[4,3,3,3] w, int64 one = {1}, int64[1] rest = {-1}> {
            a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
            b = MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (a)
            shape = Shape (b)
            batch = Gather (shape, one)
            row = Unsqueeze (batch, rest)
            target = Concat <axis = 0> (row, rest, rest)
            y = Reshape (b, target)
            z = Flatten (b)
        }
    """,
    "bodies": """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1,4] x, float[M,4] v, bool c) => (float[A,B] y) {
            y = If (c) <
                then_branch = yes () => (float[A,B] p) { p = Einsum <equation = "ij,ij->ij"> (x, v) },
                else_branch = no () => (float[A,B] q) { q = Relu (v) }
            >
        }
    """,
}


@pytest.mark.parametrize("text", MODELS.values(), ids=list(MODELS))
def test_nothing_of_a_model_waits_for_the_garbage_collector(tmp_path: Path, text: str) -> None:
    """It seldom runs: one cycle that holds a model is a leak where thousands are checked."""
    path = tmp_path / "model.onnx"
    model = onnx.parser.parse_model(text)
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.raw_data = bytes(4 * 4 * 27)
    path.write_bytes(model.SerializeToString())
    plan = Plans(Configs(Settings(), None, True)).of(str(path))
    check_file(str(path), plan)  # what is made once stays
    gc.collect()
    gc.disable()
    try:
        check_file(str(path), plan)
        assert gc.collect() == 0
    finally:
        gc.enable()
