"""Running models in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.backends import backend_for
from onnxlint.errors import OnnxlintError

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, H, W] x) => (float[N, 4, H, W] y, int64[4] s)
<float[4, 3, 1, 1] w = {1, 2, 3, 4, 5, 6, -1, -2, -3, 0.5, 0.25, 1}>
{
    c = Conv (x, w)
    r = Relu (c)
    y = Mul (r, r)
    s = Shape (y)
}
"""


def model(tmp_path: Path, text: str = TEXT, name: str = "model.onnx") -> str:
    path = tmp_path / name
    onnx.save(onnx.parser.parse_model(text), path)
    return str(path)


def picture(seed: int = 0, shape: tuple[int, ...] = (1, 3, 4, 5)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_outputs_and_what_is_inside(tmp_path: Path) -> None:
    path = model(tmp_path)
    session = backend_for(path).open(path)
    assert [(port.name, port.shape, port.dtype) for port in session.inputs] == [("x", (None, 3, None, None), "float32")]
    assert [port.name for port in session.outputs] == ["y", "s"]
    assert session.tensors() == (("c", "Conv"), ("r", "Relu"), ("y", "Mul"))
    x = picture()
    y, shape = session.run({"x": x})
    assert shape.tolist() == [1, 4, 4, 5]
    c, again = session.run({"x": x}, ["c", "y"])
    np.testing.assert_allclose(again, np.maximum(c, 0) ** 2, rtol=1e-6)
    np.testing.assert_allclose(again, y, rtol=1e-5)


def test_given_inner_values_replace_what_would_be_computed(tmp_path: Path) -> None:
    path = model(tmp_path)
    session = backend_for(path).open(path)
    r = np.full((1, 4, 2, 2), 3, np.float32)
    assert session.run({"r": r}, ["y"])[0].tolist() == (r * r).tolist()  # without the input, which is not needed then
    assert session.run({"x": picture(), "r": r})[0].tolist() == (r * r).tolist()
    assert session.run({"x": picture(), "r": r}, ["r", "y"])[0] is r
    assert session.run({"x": picture()}, ["x"])[0].tolist() == picture().tolist()


def test_errors_are_one_line_and_name_the_way_out(tmp_path: Path) -> None:
    path = model(tmp_path)
    session = backend_for(path).open(path)
    with pytest.raises(OnnxlintError, match=r"has no value 'q'"):
        session.run({"x": picture()}, ["q"])
    with pytest.raises(OnnxlintError, match=r"input 'x' is not given"):
        session.run({})
    with pytest.raises(OnnxlintError, match=r"cannot run it on x \[1, 2, 4, 5\].*check --shape") as error:
        session.run({"x": picture(shape=(1, 2, 4, 5))})
    assert "\n" not in str(error.value)
    bad = model(tmp_path, TEXT.replace("Relu (c)", "Unheard (c)"), "bad.onnx")
    with pytest.raises(OnnxlintError, match=r"bad.onnx: onnxruntime cannot load it"):
        backend_for(bad).open(bad)


def test_external_data_counts_and_parameters_are_counted_without_reading(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(TEXT)
    weight = proto.graph.initializer[0]
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), "w")
    )  # raw data, which can move out
    path = tmp_path / "big.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="big.data", size_threshold=0)
    backend = backend_for(str(path))
    assert [Path(one).name for one in backend.files(str(path))] == ["big.onnx", "big.data"]
    assert backend.parameters(str(path)) == 12
    x = picture()
    plain = model(tmp_path)
    for names in (None, ["c"]):  # as a whole, and cut
        a = backend.open(str(path)).run({"x": x}, names)
        b = backend.open(plain).run({"x": x}, names)
        assert a[0].tolist() == b[0].tolist()
    (tmp_path / "big.data").unlink()
    assert backend.parameters(str(path)) == 12


def test_values_that_a_subgraph_reads_are_there_for_it(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x, bool c) => (float[N] y) {
        a = Abs (x)
        b = Neg (x)
        y = If (c) <then_branch = t () => (float[N] p) { p = Sqrt (a) }, else_branch = e () => (float[N] q) { q = Exp (b) }>
    }
    """
    path = model(tmp_path, text)
    session = backend_for(path).open(path)
    x = np.array([4, 9], np.float32)
    assert session.run({"x": x, "c": np.array(True)}, ["a", "y"])[1].tolist() == [2, 3]
    assert session.run({"a": x * 4, "x": x, "c": np.array(True)}, ["y"])[0].tolist() == [4, 6]
