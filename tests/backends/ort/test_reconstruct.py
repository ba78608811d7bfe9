"""What layers read, and two models computed side by side."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.backends.ort.beside import SideBySide
from onnxlint.backends.ort.calibrate import BINS, COUNTED, Histogram, clipped, histograms
from onnxlint.backends.ort.qdq import rounded
from onnxlint.backends.ort.reconstruct import _Sample
from onnxlint.backends.ort.session import run, start

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3×3": ((1, 4, 9, 7), (6, 4, 3, 3), {"pads": [1, 2, 0, 1], "strides": [2, 1]}),
    "dilated groups, a batch": ((2, 6, 11, 9), (6, 1, 3, 2), {"group": 6, "dilations": [2, 3]}),
    "1×1": ((1, 8, 5, 5), (3, 8, 1, 1), {}),
    "one axis": ((3, 4, 20), (2, 4, 5), {"pads": [2, 2], "strides": [3]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weights_times_what_a_layer_reads_is_what_it_makes(name: str) -> None:
    shape, weights, attributes = CONVOLUTIONS[name]
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal(size).astype(np.float32) for size in (shape, weights))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (made,) = run(start(model), "m", {"x": x})
    groups = attributes.get("group", 1)
    sample = _Sample.of(node, weights[2:], groups, [(x, -x)])
    assert sample is not None
    exact, given = (sample.read(which, 0, groups) for which in (0, 1))
    np.testing.assert_array_equal(sample.read(0, groups - 1, groups, 2), exact[groups - 1 :, :, ::2])
    np.testing.assert_array_equal(exact, -given)
    found = np.matmul(w.reshape(groups, len(w) // groups, -1), exact)
    np.testing.assert_allclose(
        found.reshape(len(w), -1), np.moveaxis(made, 1, 0).reshape(len(w), -1), rtol=1e-4, atol=1e-5
    )


SOURCE = """<ir_version: 8, opset_import: ["" : 17]> agraph (float[1,2,4,4] x) => (float y)
<float[2,2,1,1] a = {1.0, 2.0, -3.0, 0.5}, float[2,2,1,1] b = {1.0, -1.0, 0.25, 2.0},
float[2,2,1,1] c = {1.0, 0.0, 0.0, 1.0}> {
  r = Relu(x)
  p = Conv(r, a)
  q = Sigmoid(p)
  s = Mul(q, r)
  t = Conv(s, b)
  u = Add(t, q)
  v = Conv(u, c)
  y = ReduceSum(v)
}"""


def test_side_by_side_each_node_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(SOURCE)
    for node in model.graph.node:
        node.name = node.output[0]
    ran: list[str] = []
    original = start

    def noted(piece: onnx.ModelProto, **options: Any) -> Any:
        ran.extend(node.name for node in piece.graph.node if not node.name.endswith("Linear"))
        return original(piece, **options)

    monkeypatch.setattr("onnxlint.backends.ort.beside.start", noted)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    pair = SideBySide((model, model), [{"x": x}], {1: "r", 4: "s", 6: "u"}, {"p", "t"}, name="m", threads=1)
    pair.ranges["r"] = (0.0, 1.0)  # narrower than it is: it shows
    ((exact, given),) = pair.reach("r")
    assert exact is given  # nothing has been rounded yet
    pair.leave("r")
    ((exact, given),) = pair.reach("s")
    a = numpy_helper.to_array(model.graph.initializer[0])[:, :, 0, 0]
    r = np.maximum(x, 0)

    def gated(read: np.ndarray) -> np.ndarray:
        return np.asarray(r / (1 + np.exp(-np.einsum("oc,nchw->nohw", a, read))))

    np.testing.assert_allclose(exact, gated(r), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(given, gated(rounded(r, (0.0, 1.0))), rtol=1e-4, atol=1e-6)
    assert np.abs(exact - given).max() > 0.01
    pair.ranges["s"] = (0.0, 2.0)
    pair.leave("s")
    ((exact, given),) = pair.reach("u")
    assert exact.shape == given.shape
    assert sorted(ran) == sorted(["r", *2 * ["p", "q", "s", "t", "u"]])  # in either model, but for what is the same
    assert set(pair._exact[0]) == {"u"}  # what is held in memory


def test_histograms_count_every_value() -> None:
    values = np.concatenate([np.linspace(-1, 3, 100_000, dtype=np.float32), np.full(7, 3, np.float32)])
    found = histograms([{}], lambda feeds: [values], ["x"], {"x": (-1.0, 3.0)})["x"]
    wanted, _ = np.histogram(values.astype(np.float64), BINS, (-1.0, 3.0))
    assert found.counts.sum() == len(values)
    assert np.abs(found.counts - wanted).max() <= 2  # a value on an edge, in float32


def test_histograms_of_large_tensors_count_some() -> None:
    random = np.random.default_rng(0)
    values = random.laplace(size=3 * COUNTED + 5).astype(np.float32)
    ends = float(values.min()), float(values.max())
    found = histograms([{}], lambda feeds: [values], ["x"], {"x": ends})["x"]
    assert COUNTED / 2 < found.counts.sum() <= COUNTED
    whole = Histogram(*ends, np.histogram(values, BINS, ends)[0].astype(np.float64))
    for method in ("percentile", "mse"):
        assert np.allclose(clipped(method, found), clipped(method, whole), rtol=0.1)
