"""What is done to a model before it is quantized: BatchNormalization becomes part of the layers before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxlint.backends.ort.prepare import prepare
from onnxlint.backends.ort.session import start

SHAPES = {"Conv": (6, 4, 3, 3), "ConvTranspose": (4, 6, 3, 3), "ConvTranspose, groups": (4, 3, 3, 3)}
NORM = ("scale", "shift", "mean", "variance")


def network(kind: str, *, bias: bool = True, listed: bool = False, twice: bool = False) -> onnx.ModelProto:
    """A layer and the BatchNormalization that reads it; with `listed`, weights are inputs as well, as in files of IR
    version 3, and with `twice` the layer's result is an output, too."""
    generator = np.random.default_rng(3)
    op = kind.split(",")[0]
    groups = 2 if "groups" in kind else 1
    names = ["x", "w", *(["b"] if bias else [])]
    nodes = [
        onnx.helper.make_node(op, names, ["y"], name="layer", kernel_shape=[3, 3], group=groups),
        onnx.helper.make_node("BatchNormalization", ["y", *NORM], ["z"], name="norm", epsilon=1e-3),
        onnx.helper.make_node("Relu", ["z"], ["out"], name="act"),
    ]
    arrays = {"w": generator.standard_normal(SHAPES[kind])}
    if bias:
        arrays["b"] = generator.standard_normal(6)
    arrays |= {name: generator.uniform(0.5, 2, 6) for name in NORM}
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("x", 1, [1, 4, 8, 8])]
    if listed:
        inputs += [value(one.name, 1, one.dims) for one in weights]
    outputs = [value(name, 1, None) for name in (["out", "y"] if twice else ["out"])]
    graph = onnx.helper.make_graph(nodes, "net", inputs, outputs, weights)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=3 if listed else 8
    )


def prepared(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    path = str(folder / "model.onnx")
    onnx.save(model, path)
    made = prepare(path)
    x = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    for one, other in zip(start(path).run(None, x), start(made).run(None, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert [value.name for value in made.graph.input] == ["x"]
    return made


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_batch_normalization_becomes_part_of_its_layer(kind: str, bias: bool, listed: bool, tmp_path: Path) -> None:
    made = prepared(network(kind, bias=bias, listed=listed), tmp_path)
    assert [node.op_type for node in made.graph.node] == [kind.split(",")[0], "Relu"]
    assert len(made.graph.initializer) == 2


def test_batch_normalization_in_training_stays(tmp_path: Path) -> None:
    model = network("ConvTranspose")
    model.opset_import[0].version = 15
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    onnx.save(model, tmp_path / "model.onnx")
    made = prepare(str(tmp_path / "model.onnx"))
    assert "BatchNormalization" in [node.op_type for node in made.graph.node]


def test_what_others_read_keeps_its_batch_normalization(tmp_path: Path) -> None:
    made = prepared(network("ConvTranspose", twice=True), tmp_path)
    assert "BatchNormalization" in [node.op_type for node in made.graph.node]
