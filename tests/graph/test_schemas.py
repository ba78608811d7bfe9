"""What rules learn about operators, against onnx's own schemas."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import defs

from onnxlint.graph.schemas import newest_ir_version, newest_opset, schema
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model
from tests.support.schemas import shown

READ_IN_A_CHILD = """
import sys
from onnxlint.graph.view import GraphView
from onnxlint.model.messages import messages
from onnxlint.model.skeleton import Model
from tests.support.schemas import shown
proto = messages().ModelProto.FromString(sys.stdin.buffer.read())
sys.stdout.write(shown(GraphView(Model("model.onnx", proto, 0))))
assert not {"onnx", "numpy"} & set(sys.modules)
"""


def every_operator(opset: int) -> onnx.ModelProto:
    """A model with a node of each operator there ever was, and of some that there never were."""
    names = sorted({(one.domain, one.name) for one in defs.get_all_schemas_with_history()})
    names += [("", "Nothing"), ("ai.onnx.ml", "Conv"), ("com.example", "Relu"), ("", "Größe\n")]
    graph = onnx.GraphProto(name="g")
    for domain, name in names:
        graph.node.add(op_type=name, domain=domain)
    imports = [("", opset), ("ai.onnx.ml", 3), ("ai.onnx.preview.training", 1)]
    return onnx.ModelProto(
        ir_version=8,
        graph=graph,
        opset_import=[onnx.helper.make_opsetid(domain, version) for domain, version in imports],
    )


@pytest.mark.parametrize("opset", [1, 11, 17, 900])
def test_every_operator_of_onnx(opset: int) -> None:
    model = every_operator(opset)
    view = GraphView(Model("model.onnx", model, 0))
    for op in view.ops:
        domain, _, name = op.rpartition("::")
        ours, newest = schema(view, op), schema(view, op, newest=True)
        version = view.opset_of(domain)
        has = bool(version) and defs.has(name, version, domain)
        assert (ours is not None) == has, op
        assert (newest is not None) == defs.has(name, domain), op
        if ours is not None:
            theirs = defs.get_schema(name, version, domain)
            assert (ours.since, ours.deprecated) == (theirs.since_version, theirs.deprecated)
            assert ours.inputs == tuple(one.type_str for one in theirs.inputs)[: len(ours.inputs)]
            assert ours.allowed == {one.type_param_str: set(one.allowed_type_strs) for one in theirs.type_constraints}


def test_a_child_says_the_same() -> None:
    model = every_operator(17)
    code = [sys.executable, "-c", READ_IN_A_CHILD]
    done = subprocess.run(code, input=model.SerializeToString(), capture_output=True, timeout=60, check=True)
    assert done.stdout.decode() == shown(GraphView(Model("model.onnx", model, 0)))


def test_the_newest_versions() -> None:
    assert newest_opset() == defs.onnx_opset_version()
    assert newest_ir_version() == onnx.IR_VERSION
