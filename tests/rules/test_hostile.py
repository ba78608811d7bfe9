"""No rule is switched off by what a file says: odd constants, damaged metadata, lying traces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import Finding
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.lint.targets import names as target_names
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from tests.support.fixing import DEFAULT

RULES = tuple(load_registry())
OPTIONS = Options(targets=target_names(), weights=True)

OPERANDS: dict[str, int] = {
    "Reshape": 1,
    "Expand": 1,
    "Tile": 1,
    "Resize": 3,
    "Upsample": 1,
    "Slice": 4,
    "Pad": 2,
    "Squeeze": 1,
    "Unsqueeze": 1,
    "ReduceMean": 1,
    "ReduceSum": 1,
    "Split": 1,
    "TopK": 1,
    "ConstantOfShape": 0,
    "Range": 2,
    "OneHot": 2,
    "Gather": 1,
    "ScatterND": 2,
    "CumSum": 1,
    "Clip": 2,
    "Where": 2,
    "Dropout": 2,
    "Trilu": 1,
    "Conv": 2,
    "Gemm": 2,
    "MatMul": 1,
    "BatchNormalization": 4,
    "LSTM": 7,
    "GRU": 5,
    "QuantizeLinear": 2,
    "DequantizeLinear": 2,
    "NonMaxSuppression": 4,
    "Pow": 1,
    "Mod": 1,
    "Cast": 0,
    "If": 0,
    "Loop": 1,
    "Add": 1,
}
"""Operator → last operand that is made a constant of an odd type."""

KINDS = (
    *(TensorProto.COMPLEX64, TensorProto.STRING, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT64),
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT4),
)


def constant(name: str, kind: int, shape: tuple[int, ...]) -> onnx.TensorProto:
    count = int(np.prod(shape))
    if kind == TensorProto.STRING:
        return helper.make_tensor(name, kind, shape, cast(Any, [b"h"] * count))
    if kind in (TensorProto.INT4, TensorProto.BFLOAT16):
        return helper.make_tensor(name, kind, shape, [1.0] * count)
    values = np.ones(shape, helper.tensor_dtype_to_np_dtype(kind))
    if kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16) and count:
        values.reshape(-1)[-1] = np.nan
    return numpy_helper.from_array(values, name)


def odd_models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """One model for each operator and type, with a node for each shape of the constants."""
    for op, last in OPERANDS.items():
        for kind in KINDS:
            nodes, constants = [], []
            for n, shape in enumerate(((), (0,), (1,), (4,), (2, 2))):
                names = [f"c{n}_{i}" for i in range(1, last + 1)]
                nodes.append(helper.make_node(op, ["x", *names] if last else [f"c{n}_0"], [f"y{n}"]))
                constants += [constant(name, kind, shape) for name in names or [f"c{n}_0"]]
            yield f"{op} {TensorProto.DataType.Name(kind)}", model_of(nodes, constants)


ATTRIBUTES = (
    *("allowzero", "alpha", "auto_pad", "axes", "axis", "beta", "blocksize", "body", "bias", "ceil_mode", "cond"),
    *("coordinate_transformation_mode", "direction", "dilations", "else_branch", "epsilon", "group", "hidden_size"),
    *("keepdims", "kernel_shape", "layout", "max", "min", "mode", "momentum", "nearest_mode", "output_shape", "p"),
    *("noop_with_empty_axes", "num_outputs", "pads", "perm", "ratio", "scales", "shape", "split", "starts", "ends"),
    *("strides", "then_branch", "to", "training_mode", "transA", "transB", "value", "value_ints", "antialias"),
)


MORE = "Transpose Flatten Softmax Concat Identity Constant AveragePool Relu Shape".split()
VALUES: tuple[Any, ...] = ("odd", [1.5], helper.make_tensor("t", 1, [0], []))


def odd_attributes() -> Iterator[tuple[str, onnx.ModelProto]]:
    """One model for each operator and odd value, which all attributes have that some operator knows."""
    for op in (*OPERANDS, *MORE):
        for value in (*VALUES, 1.5, float("nan"), -(2**62), [b"x"], []):
            count = OPERANDS.get(op, 0)
            node = helper.make_node(op, ["x", *[f"c{i}" for i in range(count)]], ["y"])
            for name in ATTRIBUTES:
                kind = onnx.AttributeProto.INTS if value == [] else None
                node.attribute.append(helper.make_attribute(name, value, attr_type=kind))
            yield f"{op} {value!r}", model_of([node], [constant(f"c{i}", 7, (1,)) for i in range(count)])


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(model: onnx.ModelProto) -> tuple[list[Finding], tuple[str, ...]]:
    view = make_view(Model(path="hostile.onnx", proto=model, size=0))
    findings, _, failures = check_view(view, Plan(RULES, OPTIONS))
    return findings, tuple(failures)


@pytest.mark.parametrize("models", [odd_models, odd_attributes])
def test_operands_and_attributes_of_odd_types_switch_no_rule_off(
    models: Callable[[], Iterator[tuple[str, onnx.ModelProto]]],
) -> None:
    failed, seen = [], 0
    for name, model in models():
        seen += 1
        failed += [f"{name}: {failure}" for failure in check(model)[1]]
    assert seen > 300
    assert not failed, f"{len(failed)} failures: " + "\n".join(failed[:20])


@pytest.mark.parametrize(
    "op", ["Upsample", "Resize", "Reshape", "Shape", "Split", "Softmax", "Slice", "Gather", "Conv"]
)
@pytest.mark.parametrize("value", VALUES, ids=["text", "numbers", "tensor"])
@pytest.mark.parametrize("opset", [9, 23])
def test_no_patch_fails_for_an_attribute_of_an_odd_type(op: str, value: Any, opset: int) -> None:
    names = [name for name in ATTRIBUTES if name != "mode"] if isinstance(value, str) else ATTRIBUTES
    for constants in ([constant("c0", 1, (4, 3, 3, 3))], [constant("c0", 7, (1,))]):
        constants[0].raw_data = b"\xff" * len(constants[0].raw_data)  # -1, or not a number
        node = helper.make_node(op, ["x", "c0"][: 1 + (op in OPERANDS)], ["y"])
        node.attribute.extend(helper.make_attribute(name, value) for name in names)
        shape = [helper.make_node("Shape", ["y"], ["s"]), helper.make_node("Reshape", ["y", "s"], ["z"])]
        model = model_of([node, *shape], constants)
        model.opset_import[0].version = opset
        for request in (Request(), Request(opset=12)):
            plan = Plan(DEFAULT, Options(min_opset=request.opset or 11))
            try:
                _, report = fix_model(Model("hostile.onnx", model, 0), plan, request)
                said = [left.why for left in report.left]
            except OnnxlintError as error:
                said = [str(error)]
            assert not [why for why in said if "please report" in why]


def with_metadata(node_metadata: dict[str, str] | None = None, **metadata: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 17]>
        g (float[1,3,H,W] x) => (float[1,3,H,W] z) { y = Identity (x)  z = Relu (y) }
        """
    )
    for key, value in (node_metadata or {}).items():
        model.graph.node[0].metadata_props.add(key=key, value=value)
    for key, value in metadata.items():
        model.metadata_props.add(key=f"onnxlint.{key}", value=value)
    return model


TRACES = (
    'File "' + "a" * 70_000 + '.py", line 3, in forward',
    'File "/' + "b/" * 3000 + 'm.py", line 3',
    'File "m.py", line ' + "9" * 5000 + ", in f",
    'File "\x00m.py", line 1, in f',
    'File "m.py", line 1, in f\n' * 5000,
)


@pytest.mark.parametrize("trace", TRACES, ids=range(len(TRACES)))
def test_stack_traces_switch_no_rule_off(trace: str) -> None:
    for key in ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"):
        lists = {"pkg.torch.onnx.stack_trace": 'File "m.py", line 1, in f', key: trace}
        findings, failures = check(with_metadata(lists))
        assert not failures
        assert any(f.code == "GRF003" for f in findings)


CONDITIONS = (
    "h % " + "9" * 5000 + " == 0",
    " " * 30_000,
    "% " * 20_000,
    " and " * 5000,
    "h % 0 == 0",
    "rm -rf / and $(id)",
    "unknown % 2 == 0",
    "h % ٣ == 0",
    "",
)


@pytest.mark.parametrize("condition", CONDITIONS, ids=range(len(CONDITIONS)))
def test_damaged_conditions_are_a_finding(condition: str) -> None:
    findings, failures = check(with_metadata(assumes=condition))
    assert not failures
    (found,) = (f for f in findings if f.code == "SHP011")
    assert len(found.message) < 400
    assert "in the model's metadata" in found.message


@pytest.mark.parametrize(
    "symbols",
    ["[" * 100_000, json.dumps({"H": [["x", 1e999]]}), '{"H": [["x", -1]]}', '{"H": 3}', "[]", "", '{"H": [["x"]]}'],
    ids=range(7),
)
def test_damaged_places_of_symbols_leave_the_inputs_own(symbols: str) -> None:
    model = with_metadata(assumes="H % 32 == 0", symbols=symbols)
    findings, failures = check(model)
    assert not failures
    assert not [f for f in findings if f.code == "SHP011"]
