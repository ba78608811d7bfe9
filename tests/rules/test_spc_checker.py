"""SPC001 to SPC003 where text cannot say it: weights left in the file, places, many faults, odd files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.lint.engine import Plan, check_file, check_model
from onnxlint.lint.finding import Finding
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import Model, inline_span, open_model
from onnxlint.model.wire import LARGE

CODES = ("SPC001", "SPC002", "SPC003", "SEC001", "SEC002", "SEC003")
PLAN = Plan(tuple(load_registry().find(code) for code in CODES))


def findings(text: str) -> list[Finding]:
    result = check_model(Model("m.onnx", onnx.parser.parse_model(text), size=0), PLAN)
    assert result.error is None
    return list(result.findings)


def model_with(weights: onnx.TensorProto, **extra: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("raw", [True, False], ids=["raw_data", "float_data"])
def test_weights_left_in_the_file_are_no_fault(tmp_path: Path, raw: bool) -> None:
    values = np.zeros((64, 64), np.float32)
    tensor = (
        numpy_helper.from_array(values, "w")
        if raw
        else helper.make_tensor("w", TensorProto.FLOAT, [64, 64], values.reshape(-1).tolist())
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model_with(tensor).SerializeToString())
    opened = open_model(path)
    assert inline_span(opened.proto.graph.initializer[0]) is not None

    assert check_file(str(path), PLAN).findings == ()


def test_weights_shorter_than_their_shape(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64], raw_data=bytes(LARGE))
    path = tmp_path / "m.onnx"
    path.write_bytes(model_with(tensor).SerializeToString())

    (found,) = check_file(str(path), PLAN).findings

    assert found.code == "SPC001"
    assert found.message == "tensor 'w' holds 4096 bytes, and its shape [64, 64] takes 16384"
    assert found.location.value == "w"


def test_small_weights_shorter_than_their_shape() -> None:
    (found,) = findings("""<ir_version: 8, opset_import: ["": 13]>
    g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3}> { y = Add (x, w) }""")
    assert (found.code, found.location.value) == ("SPC001", "w")
    assert "float_data size (3) is too small" in found.message


def test_a_large_constant_node(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros((64, 64), np.float32), "c"))
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [64, 64])])
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )

    assert check_file(str(path), PLAN).findings == ()


def test_each_fault_is_found_at_its_node() -> None:
    found = findings(
        """
        <ir_version: 8, opset_import: ["": 13, "local": 1]>
        g (float[2,4] x, bool c) => (float[2,4] y, float[2,4] z) {
            [first] a = Relu <slope = 1.0> (x)
            [branch] b = If (c) <
                then_branch = t () => (float[2,4] u) { [inner] u = Cast (a) },
                else_branch = e () => (float[2,4] v) { v = Neg (a) }
            >
            y = local.Act (b)
            [last] z = Add (y)
        }
        <domain: "local", opset_import: ["": 13]>
        Act (a) => (b) { [body] b = Elu <beta = 2.0> (a) }
        """
    )

    assert [(f.code, f.location.node, f.location.graph) for f in found] == [
        ("SPC001", "first", "graph"),
        ("SPC001", "last", "graph"),
        ("SPC001", "inner", "graph/branch.then_branch"),
        ("SPC001", "body", "function:local.Act"),
    ]
    assert all("§" not in f.message for f in found)


def test_faults_are_reported_up_to_a_limit() -> None:
    nodes = "\n".join(f"a{i} = Relu <slope = 1.0> (x)" for i in range(40))

    found = findings(f'<ir_version: 8, opset_import: ["": 13]> g (float[2] x) => (float[2] a0) {{ {nodes} }}')

    assert len(found) == 10


def test_nodes_in_any_order_are_one_finding_and_hide_no_other() -> None:
    nodes = "\n".join(f"a{i} = Relu (a{i + 1})" for i in range(30))

    found = findings(
        f"""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2] x) => (float[2] a0) {{ {nodes} [bad] a30 = Cast (x) }}
        """
    )

    assert [f.message for f in found] == [
        "Relu reads 'a1' before the node that makes it, as do 29 other nodes: nodes must be sorted",
        "Required attribute 'to' is missing",
    ]
    assert found[1].location.node == "bad"


def test_a_name_that_says_it_is_an_error_does_not_become_one() -> None:
    found = findings(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2,3] x, float[4,5] w) => (float[A,B] y) {
            ["(op_type:Relu, node name: §0.9§): [ShapeInferenceError] forged"] y = MatMul (x, w)
        }
        """
    )

    assert [f.code for f in found] == ["SPC002"]
    assert found[0].message == (
        "MatMul: Incompatible dimensions for matrix multiplication: inputs are [2, 3] and [4, 5]"
    )


def test_a_conflict_says_nothing_of_what_follows_from_it() -> None:
    found = findings(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2,3] x, float[4,5] w) => (float[A,B] y) {
            [cause] a = MatMul (x, w)
            b = Relu (a)
            c = Neg (b)
            y = Add (c, x)
        }
        """
    )

    assert [(f.code, f.location.node) for f in found] == [("SPC002", "cause")]


def test_types_inside_a_branch() -> None:
    found = findings(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, bool c) => (float[2] y) <float16[2] h = {1, 2}> {
            y = If (c) <
                then_branch = t () => (float[2] u) { [mixed] u = Add (x, h) },
                else_branch = e () => (float[2] v) { v = Neg (x) }
            >
        }
        """
    )

    assert [(f.code, f.location.node) for f in found] == [("SPC003", "mixed")]


def test_many_bad_names_are_one_finding() -> None:
    nodes = "\n".join(f'"a{i}\x07" = Relu (x)' for i in range(50))

    found = findings(f'<ir_version: 8, opset_import: ["": 13]> g (float[2] x) => (float[2] "a0\x07") {{ {nodes} }}')

    assert [f.code for f in found] == ["SEC003"]
    assert found[0].message == r"value or dim name 'a0\x07' holds the control character U+0007; 49 more such names"
