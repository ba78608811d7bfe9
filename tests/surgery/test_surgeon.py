"""Into graphsurgeon and back: nothing is lost, for any model that can be found, whether a patch comes by or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

from fixtures import old_operators, pitfalls
from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model, open_model
from onnxlint.surgery.surgeon import Surgeon
from tests.support.zoo import SHARED, parse, view

SUITE = Path(os.path.dirname(onnx.__file__), "backend/test/data")

# Nothing in, nothing out


def canonical(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def assert_lossless(held: GraphView) -> None:
    """No patch: the very same message. Put together anew: the same bytes."""
    before = canonical(held.proto)
    assert Surgeon(held).close() is held.proto
    surgeon = Surgeon(held)
    surgeon.drop_value_info.add("no such value")  # makes it put the main graph together anew
    again = surgeon.close()
    assert again is not held.proto
    assert canonical(again) == before
    assert canonical(held.proto) == before


def all_files() -> Iterator[Path]:
    yield from sorted(SUITE.rglob("*.onnx"))
    yield from sorted(SHARED.rglob("*.onnx"))


def test_the_files_of_the_backend_suite_and_of_shared_data() -> None:
    files = list(all_files())
    assert len(files) > 100
    for path in files:
        assert_lossless(GraphView(open_model(path)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of making the cases
def test_the_generated_models_of_the_backend_suite() -> None:
    from onnx.backend.test.case.node import collect_testcases

    models = {case.name: case.model for case in collect_testcases(None) if case.model is not None}
    assert len(models) > 1500
    for name, proto in models.items():
        try:
            assert_lossless(view(proto))
        except (AssertionError, OnnxlintError) as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("opset", [9, 11])
def test_the_pitfalls(tmp_path: Path, opset: int) -> None:
    for path in pitfalls.build(tmp_path, opset=opset):
        assert_lossless(GraphView(open_model(path)))


def test_old_operators() -> None:
    for model in old_operators.MODELS:
        assert_lossless(view(model.proto()))


# A patch elsewhere


def patched(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model after a patch that takes its Identity `noop` out; `proto` stays as it is."""
    before = canonical(proto)
    held = view(proto)
    surgeon = Surgeon(held)
    node = next(node for node in held.main.nodes if node.name == "noop")
    made = surgeon.node(node)
    made.outputs[0].outputs[0].inputs = [made.inputs[0]]
    after = surgeon.close()
    assert canonical(proto) == before
    assert [node.name for node in after.graph.node] == [n.name for n in proto.graph.node if n.name != "noop"]
    return after


def expected(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same patch by hand, on the message."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    noop = next(node for node in copy.graph.node if node.name == "noop")
    for node in copy.graph.node:
        for i, name in enumerate(node.input):
            if name == noop.output[0]:
                node.input[i] = noop.input[0]
    copy.graph.node.remove(noop)
    return copy


def assert_only_the_patch(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto)
    assert canonical(patched(proto)) == canonical(expected(proto))


def base() -> onnx.ModelProto:
    """x → Relu → noop → Sigmoid → y, and an Add of a weight."""
    return parse("""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}> {
            [relu] a = Relu (x)
            [noop] b = Identity (a)
            [sigmoid] c = Sigmoid (b)
            [add] y = Add (c, w)
        }
    """)


def with_metadata(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.append(helper.make_tensor_value_info("a", 1, [2, 3]))
    opset = [helper.make_opsetid("", 21)]
    twice = helper.make_function("own", "Twice", ["q"], ["r"], [helper.make_node("Add", ["q", "q"], ["r"])], opset)
    proto.functions.append(twice)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    holders: list[Any] = [proto, proto.graph, proto.functions[0], *proto.graph.node, *proto.graph.value_info]
    holders += [*proto.graph.input, *proto.graph.output, *proto.graph.initializer, proto.functions[0].node[0]]
    for i, holder in enumerate(holders):
        holder.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"line {i}")
        holder.metadata_props.add(key="é", value="")


def with_doc_strings(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.append(helper.make_tensor_value_info("c", 1, [2, 3]))
    holders: list[Any] = [
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
    ]
    for i, holder in enumerate([*holders, *proto.graph.initializer]):
        holder.doc_string = f"what it is, {i}"


def with_header(proto: onnx.ModelProto) -> None:
    proto.domain, proto.model_version, proto.producer_name, proto.producer_version = "org.example", 7, "p", "1.2"


def with_denotations(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.denotation = "IMAGE"
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    proto.graph.output[0].type.tensor_type.shape.dim[1].denotation = "DATA_FEATURE"


def with_quantization_annotations(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0.1], np.float32), "a_scale"))
    annotation = proto.graph.quantization_annotation.add(tensor_name="a")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="a_scale")


def with_training_info(proto: onnx.ModelProto) -> None:
    info = proto.training_info.add()
    info.algorithm.CopyFrom(helper.make_graph([helper.make_node("Neg", ["w"], ["v"])], "algorithm", [], []))
    info.initialization_binding.add(key="w", value="v")


def with_initializers_as_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.insert(0, helper.make_tensor_value_info("w", 1, [3]))


def with_unused_initializers(proto: onnx.ModelProto) -> None:
    for name in ("z", "m"):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.float32), name))


def with_initializers_in_another_order(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.insert(0, numpy_helper.from_array(np.array([4, 5, 6], np.float32), "last"))
    proto.graph.node[-1].output[0] = "d"
    proto.graph.node.append(helper.make_node("Mul", ["d", "last"], ["y"], "mul"))


def with_sequences(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("SequenceConstruct", ["a", "c"], ["s"], "sequence"))
    proto.graph.output.append(helper.make_tensor_sequence_value_info("s", 1, [2, 3]))
    proto.graph.input.append(helper.make_tensor_sequence_value_info("t", 1, ["n", None]))
    proto.graph.node.append(helper.make_node("SequenceLength", ["t"], ["length"], "length"))
    proto.graph.output.append(helper.make_tensor_value_info("length", 7, []))


def with_an_empty_shape(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("ReduceSum", ["a"], ["sum"], "sum", keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("sum", 1, []))


def with_function_overloads(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("own", 1))
    for overload, op in (("", "Neg"), ("other", "Abs")):
        function = helper.make_function(
            "own", "F", ["q"], ["r"], [helper.make_node(op, ["q"], ["r"])], [helper.make_opsetid("", 21)]
        )
        function.overload = overload
        proto.functions.append(function)
        node = helper.make_node("F", ["a"], [f"f{overload}"], f"f_{overload}", domain="own")
        node.overload = overload
        proto.graph.node.append(node)
        proto.graph.output.append(helper.make_tensor_value_info(f"f{overload}", 1, [2, 3]))


def with_strange_attributes(proto: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.array([1], np.float32), "sparse")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([2], np.int64), "places"), [5])
    constant = helper.make_node("Constant", [], ["dense"], "constant", sparse_value=sparse)
    optional = helper.make_node("Optional", [], ["none"], "optional")
    kind = optional.attribute.add(name="type", type=onnx.AttributeProto.TYPE_PROTO)
    kind.tp.CopyFrom(helper.make_tensor_type_proto(1, [2]))
    proto.graph.node.extend([constant, optional])
    proto.graph.output.append(helper.make_tensor_value_info("dense", 1, [5]))


def with_texts_that_are_not_utf8(proto: onnx.ModelProto) -> None:
    bytes_node = helper.make_node("Constant", [], ["text"], "text", value_string=b"\xff\xfe")
    many = helper.make_node("Constant", [], ["texts"], "texts", value_strings=[b"\xff", b"ok"])
    proto.graph.node.extend([bytes_node, many])


def with_empty_lists(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["none"], "none")
    node.attribute.add(name="value_ints", type=onnx.AttributeProto.INTS)
    proto.graph.node.append(node)


def with_sparse_initializers(proto: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.array([1, 2], np.float32), "sparse_w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 2], np.int64), ""), [3])
    proto.graph.sparse_initializer.append(sparse)
    proto.graph.node.append(helper.make_node("Add", ["a", "sparse_w"], ["s"], "sparse_add"))
    proto.graph.output.append(helper.make_tensor_value_info("s", 1, [2, 3]))


def with_optional_inputs(proto: onnx.ModelProto) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
    proto.graph.input.append(helper.make_value_info("maybe", kind))
    proto.graph.node.append(helper.make_node("OptionalHasElement", ["maybe"], ["has"], "has"))
    proto.graph.output.append(helper.make_tensor_value_info("has", 9, []))


def with_captured_initializers(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("flag", 9, []))
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["a", "w"], [f"{name}_out"], f"{name}_{op}")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", 1, [2, 3])],
        )
        for name, op in (("then", "Mul"), ("else", "Sub"))
    }
    proto.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], "if", **branches))
    proto.graph.output.append(helper.make_tensor_value_info("chosen", 1, [2, 3]))


def with_other_types(proto: onnx.ModelProto) -> None:
    small = TensorProto(data_type=TensorProto.INT4, dims=[3], name="small", raw_data=b"\x21\x03")
    proto.graph.initializer.append(small)
    proto.graph.node.append(helper.make_node("Identity", ["small"], ["out4"], "keep"))
    proto.graph.output.append(helper.make_tensor_value_info("out4", TensorProto.INT4, [3]))


def with_dead_nodes(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Exp", ["a"], ["nobody"], "dead"))


@pytest.mark.parametrize(
    "addition",
    [
        with_captured_initializers,
        with_dead_nodes,
        with_denotations,
        with_doc_strings,
        with_empty_lists,
        with_an_empty_shape,
        with_function_overloads,
        with_header,
        with_initializers_as_inputs,
        with_initializers_in_another_order,
        with_metadata,
        with_optional_inputs,
        with_other_types,
        with_quantization_annotations,
        with_sequences,
        with_sparse_initializers,
        with_strange_attributes,
        with_texts_that_are_not_utf8,
        with_training_info,
        with_unused_initializers,
    ],
    ids=lambda addition: addition.__name__[len("with_") :],
)
def test_a_patch_changes_nothing_else(addition: Callable[[onnx.ModelProto], None]) -> None:
    proto = base()
    addition(proto)
    assert_lossless(view(proto))
    assert_only_the_patch(proto)


def test_a_patch_in_a_branch_leaves_the_other_branch_and_the_weights(tmp_path: Path) -> None:
    proto = base()
    with_captured_initializers(proto)
    held = view(proto)
    surgeon = Surgeon(held)
    inner = next(node for node in held.nodes("Mul") if node.graph is not held.main)
    surgeon.node(inner).op = "Div"
    after = surgeon.close()
    wanted = onnx.ModelProto()
    wanted.CopyFrom(proto)
    branch = next(a.g for a in wanted.graph.node[-1].attribute if a.name == "then_branch")
    branch.node[0].op_type = "Div"
    assert canonical(after) == canonical(wanted)


def test_claims_about_values_that_are_gone_go_with_them() -> None:
    proto = base()
    for name in "abc":
        proto.graph.value_info.append(helper.make_tensor_value_info(name, 1, [2, 3]))
    proto.graph.quantization_annotation.add(tensor_name="b")
    after = patched(proto)
    assert [value.name for value in after.graph.value_info] == ["a", "c"]
    assert not after.graph.quantization_annotation


def test_what_a_patch_brings_stands_before_its_readers() -> None:
    held = view(base())
    surgeon = Surgeon(held)
    sigmoid = held.main.nodes[2]
    output = surgeon.add("Neg", [surgeon.tensor(sigmoid, "b")], sigmoid, "negated")
    weight = surgeon.constant("w", np.array([7], np.float32))
    scaled = surgeon.add("Mul", [output, weight], sigmoid, "scaled")
    surgeon.node(sigmoid).inputs = [scaled]
    after = surgeon.close()
    onnx.checker.check_model(after)
    assert [node.op_type for node in after.graph.node] == ["Relu", "Identity", "Neg", "Mul", "Sigmoid", "Add"]
    assert [tensor.name for tensor in after.graph.initializer] == ["w", "w_1"], "the name w is taken"


def test_weights_are_not_read(tmp_path: Path) -> None:
    """References stay references: the skeleton that comes back is as small as the one that went in."""
    proto = base()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((500, 500), np.float32), "large"))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    model = open_model(path)
    closed = Model(model.path, model.proto, model.size, model.base_dir, buffer=None)
    held = GraphView(closed)
    surgeon = Surgeon(held)
    surgeon.drop_initializer(held.main, "nothing")
    assert surgeon.close().ByteSize() == model.proto.ByteSize() < 5000


def test_a_function_cannot_be_patched_and_says_so() -> None:
    proto = base()
    with_function_overloads(proto)
    held = view(proto)
    function = next(graph for graph in held.graphs if graph.is_function)
    with pytest.raises(OnnxlintError, match=r"function:own\.F cannot be patched"):
        Surgeon(held).node(function.nodes[0])


def test_a_subgraph_of_a_patch_is_refused() -> None:
    held = view(base())
    surgeon = Surgeon(held)
    surgeon.node(held.main.nodes[0]).attrs["body"] = gs.Graph()
    with pytest.raises(OnnxlintError, match="a patch added a subgraph"):
        surgeon.close()
