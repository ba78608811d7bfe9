"""int8 models that OpenVINO would compute wrong: it computes what onnxruntime makes of the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.backends import Job, backend_for, find_target
from onnxlint.backends.openvino.repair import NEARLY_ZERO
from tests.support.conv_nets import IMAGES, RECIPE

ov = pytest.importorskip("openvino")

WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((16, 3, 3, 3)),
    "v": np.random.default_rng(1).standard_normal((4, 16, 1, 1)),
    "u": np.random.default_rng(3).standard_normal((16, 3, 1, 1)),
    "d": np.random.default_rng(2).standard_normal((16, 1, 3, 3)),
    "zero": np.zeros(16),
}

SHARED = {
    "gate": "c = Conv(x, w)  g = GlobalAveragePool(c)  s = HardSigmoid(g)  y = Mul(c, s)",
    "relu": "c = Conv(x, w)  r = Relu(c)  y = Add(c, r)",
    "bias of 0": "c = Conv(x, w, zero)  r = Relu(c)  y = Add(c, r)",
    "pool": "c = Conv(x, w)  p = MaxPool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(c)  y = Concat<axis=1>(c, p)",
    "depthwise": "c = Conv(x, w, zero)  e = Conv<group=16>(c, d)  r = Relu(e)  y = Add(e, r)",
}
EXTREMES = {
    "maximum": "c = Conv(x, w, zero)  p = GlobalMaxPool(c)  y = Conv(p, v)",
    "minimum": "c = Conv(x, w, zero)  p = ReduceMin<axes=[2, 3]>(c)  y = Conv(p, v)",
    "of the input": "p = GlobalMaxPool(x)  y = Conv(p, u)",
}


def saved(text: str, folder: Path) -> str:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]>\nm (float[n, 3, h, t] x) => (float[n, k, a, b] y) {{ {text} }}'
    )
    used = {name for node in model.graph.node for name in node.input}
    arrays = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used)
    path = folder / "m.onnx"
    onnx.save(model, path)
    return str(path)


def made(source: str, to: str, folder: Path) -> str:
    backend, target = find_target(to)
    files = tuple(str(folder / f"m{ending}") for ending in target.files)
    # 7-bit weights, because no processor computes these wrong in onnxruntime.
    job = Job(recipe=RECIPE, images=IMAGES, method="minmax", weight_bits=7)
    return backend.make(target, source, files, job).files[0]


@pytest.mark.parametrize("kind", [*SHARED, *EXTREMES])
def test_both_runtimes_compute_the_same(tmp_path: Path, kind: str) -> None:
    source = saved({**SHARED, **EXTREMES}[kind], tmp_path)
    x = np.random.default_rng(0).uniform(-2, 2, (1, 3, 40, 56)).astype(np.float32)
    one, other = (
        backend_for(path).open(path).run({"x": x})[0]
        for path in (made(source, "onnx-int8-static", tmp_path), made(source, "openvino-int8", tmp_path))
    )
    ratio = 10 * np.log10((one.astype(np.float64) ** 2).sum() / ((one - other) ** 2).sum())
    assert ratio > 60


def test_biases_only_where_they_are_needed(tmp_path: Path) -> None:
    path = made(
        saved("c = Conv(x, w)  r = Relu(c)  e = Conv<group=16>(r, d)  s = Relu(e)  y = Add(e, s)", tmp_path),
        "openvino-int8",
        tmp_path,
    )
    model = ov.Core().read_model(path)
    added = [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant"
        and op.data.dtype == np.float32
        and np.all(op.data == np.float32(NEARLY_ZERO))
    ]
    assert len(added) == 1
    assert {"e", "y"} <= {
        name for op in model.get_ordered_ops() for output in op.outputs() for name in output.get_names()
    }
