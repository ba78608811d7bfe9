"""Shape chains where a size may be 0: a `-1` beside it would be refused by every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model as parse

import onnxlint
from tests.support import zoo

HEAD = '<ir_version: 8, opset_import: ["": 17]> '

DECIDED_BY_DATA = """g (float[b, c, 6] x) => (float[n, q] y) <int64[1] i = {0}, int64[1] j = {1}> {
    n = NonZero(x)
    t = Transpose(n)
    s = Shape(t)
    a = Gather(s, i)
    xs = Shape(x)
    c0 = Gather(xs, j)
    r = Concat<axis = 0>(a, c0, c0)
    m = ConstantOfShape(r)
    cc = Mul(c0, c0)
    tt = Concat<axis = 0>(a, cc)
    y = Reshape(m, tt)
}"""

BATCH = """g (float[b, 4, h, w] x) => (float[b, 4, n] y)
    <int64[1] i = {0}, int64[1] j = {2}, int64[1] k = {3}, int64[1] c = {4}> {
    s = Shape(x)
    b0 = Gather(s, i)
    h0 = Gather(s, j)
    w0 = Gather(s, k)
    m = Mul(h0, w0)
    t = Concat<axis = 0>(b0, c, m)
    y = Reshape(x, t)
}"""


ALLOWZERO = """g (float[b, h, w, 4] x) => (float[b, n, 2] y)
    <int64[1] i = {0}, int64 j = {0}, int64[2] rest = {-1, 2}> {
    s = Shape(x)
    b0 = Gather(s, j)
    b1 = Unsqueeze(b0, i)
    t = Concat<axis = 0>(b1, rest)
    y = Reshape<allowzero = 1>(x, t)
}"""


MOVED = """g (float[b, t, 8] x) => (float[b, p, q] y)
    <int64[1] i = {0}, int64[1] j = {1}, int64[1] c = {8}, int64[1] far = {9223372036854775807}> {
    z = Slice(x, j, far, j)
    s = Shape(z)
    b0 = Gather(s, i)
    t0 = Gather(s, j)
    t = Concat<axis = 0>(b0, c, t0)
    y = Reshape(z, t)
}"""
"""`[0, 8, 0]` copies the last size, where the batch and the slice are empty."""


def fixed(text: str, tmp_path: Path, **options: Any) -> onnx.ModelProto:
    path, out = tmp_path / "m.onnx", tmp_path / "fixed.onnx"
    onnx.save(parse(HEAD + text), path)
    onnxlint.fix(str(path), str(out), verify=False, **options)
    return onnx.load(out)


def test_sizes_that_data_decide_may_be_zero(tmp_path: Path) -> None:
    model = fixed(DECIDED_BY_DATA, tmp_path)
    for x in (np.zeros((1, 3, 6), np.float32), np.ones((2, 3, 6), np.float32)):
        (wanted,) = zoo.session(parse(HEAD + DECIDED_BY_DATA)).run(None, {"x": x})
        (now,) = zoo.session(model).run(None, {"x": x})
        assert now.shape == wanted.shape


@pytest.mark.parametrize("shape", [(0, 4, 2, 3), (2, 4, 0, 3), (2, 4, 5, 3)])
def test_sizes_of_inputs_may_be_zero_where_that_is_asked_for(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = fixed(BATCH, tmp_path, allow_empty=True)
    x = np.ones(shape, np.float32)
    (wanted,) = zoo.session(parse(HEAD + BATCH)).run(None, {"x": x})
    (now,) = zoo.session(model).run(None, {"x": x})
    assert now.shape == wanted.shape


@pytest.mark.parametrize("batch", [0, 2])
def test_an_empty_batch_beside_minus_one_needs_allowzero(tmp_path: Path, batch: int) -> None:
    model = fixed(ALLOWZERO, tmp_path, allow_empty=True)
    x = np.ones((batch, 3, 5, 4), np.float32)
    (wanted,) = zoo.session(parse(HEAD + ALLOWZERO)).run(None, {"x": x})
    (now,) = zoo.session(model).run(None, {"x": x})
    assert now.shape == wanted.shape


@pytest.mark.parametrize("shape", [(0, 1, 8), (0, 4, 8), (2, 4, 8)])
def test_a_zero_that_copies_another_size_is_none_of_its_own(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = fixed(MOVED, tmp_path, allow_empty=True)
    x = np.ones(shape, np.float32)
    (wanted,) = zoo.session(parse(HEAD + MOVED)).run(None, {"x": x})
    (now,) = zoo.session(model).run(None, {"x": x})
    assert now.shape == wanted.shape
    assert not [entry for entry in model.metadata_props if entry.key == "onnxlint.min_size"]
