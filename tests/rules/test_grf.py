"""GRF rules: what their examples cannot say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxlint_rules.grf._liveness import liveness

import onnxlint
from onnxlint.fixes.rule_tests import findings_in, parse
from onnxlint.lint.engine import Plan, check_file, check_view
from onnxlint.lint.finding import Finding, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from tests.support.fixing import fix


def findings(code: str, model: onnx.ModelProto, weights: bool = False) -> list[Finding]:
    rule = load_registry().find(code)
    found, _, failures = check_view(make_view(Model("m.onnx", model, 0)), Plan((rule,), Options(weights=weights)))
    assert not failures
    return found


def in_text(code: str, text: str) -> list[Finding]:
    return findings_in(load_registry().find(code), text, Options())


def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@st.composite
def random_graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Graphs of Add nodes over earlier values, some of them in the branches of an If."""
    count = draw(st.integers(1, 14))
    values = ["x"]
    nodes = []
    for i in range(count):
        if draw(st.booleans()) or i == 0:
            operands = [draw(st.sampled_from(values)), draw(st.sampled_from(values))]
            nodes.append(helper.make_node("Add", operands, [f"v{i}"], name=f"n{i}"))
        else:
            bodies: dict[str, Any] = {}
            for branch in ("then_branch", "else_branch"):
                inner = [
                    helper.make_node(
                        "Add",
                        [draw(st.sampled_from(values)), draw(st.sampled_from(values))],
                        [f"{branch}{i}_{k}"],
                        name=f"{branch}{i}_{k}",
                    )
                    for k in range(draw(st.integers(1, 3)))
                ]
                bodies[branch] = helper.make_graph(inner, branch, [], [floats(inner[0].output[0], 2)])
            nodes.append(helper.make_node("If", ["c"], [f"v{i}"], name=f"n{i}", **bodies))
        values.append(f"v{i}")
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [floats("x", 2), condition], [floats(name, 2) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def living_names(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that a walk back from the outputs meets."""
    makers = {node.output[0]: node for node in model.graph.node}
    living: set[str] = set()
    pending = [value.name for value in model.graph.output]
    while pending:
        node = makers.get(pending.pop())
        if node is None or node.name in living:
            continue
        living.add(node.name)
        pending.extend(node.input)
        for attribute in node.attribute:
            inner = {n.output[0]: n for n in attribute.g.node}
            names = [value.name for value in attribute.g.output]
            while names:
                name = names.pop()
                if name in inner:
                    living.add(inner[name].name)
                    names.extend(inner[name].input)
                else:
                    pending.append(name)
    return living


@settings(max_examples=150, deadline=None)
@given(random_graphs())
def test_dead_nodes_are_those_that_a_walk_from_the_outputs_misses(model: onnx.ModelProto) -> None:
    view = make_view(Model("m.onnx", model, 0))
    state = liveness(view)
    alive = {
        node.name
        for graph in view.graphs
        for node in graph.nodes
        if id(node) not in state.dead and not state.is_inside_dead(graph)
    }
    assert alive == living_names(model)


def test_a_constant_with_many_dead_readers_costs_no_square() -> None:
    count = 20_000
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["hub"])]
    nodes += [helper.make_node("Neg", ["hub"], [f"d{i}"]) for i in range(count)]
    model = helper.make_model(helper.make_graph(nodes, "g", [floats("x", 2)], [floats("y", 2)]))
    started = time.process_time()
    found = findings("GRF002", model)
    assert [f.message for f in found] == [f"no output depends on {count + 1:,} nodes (Relu → … → Neg)"]
    assert time.process_time() - started < 5


def test_a_dead_if_takes_its_body_and_what_it_read_along() -> None:
    found = in_text(
        "GRF002",
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[N] x, bool c) => (float[N] y) {
            t = Relu (x)
            unread = If (c) <
                then_branch = then () => (float[N] a) { a = Neg (t) },
                else_branch = other () => (float[N] b) { b = Neg (t) }
            >
            y = Sigmoid (x)
        }
        """,
    )
    assert [(f.location.op_type, f.message) for f in found] == [("If", "no output depends on 2 nodes (Relu → If)")]


def test_heavy_dead_weights_are_a_warning() -> None:
    weights = numpy_helper.from_array(np.zeros((600, 600), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [floats("x", 2)], [floats("y", 2)], [weights]
    )
    (found,) = findings("GRF002", helper.make_model(graph))
    assert found.severity is Severity.WARNING
    assert found.message == "nothing reads 1 initializer, 1.4 MB (w)"


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("y = Dropout (x)", ""),  # nothing makes x: the node is needed to name the output
        ("a = Relu (x) y = Dropout (a)", "Dropout does nothing: only training drops anything"),
        ("a = Relu (x) y, mask = Dropout (a)", "Dropout does nothing"),
        ("a = Relu (x) y = Sum (a)", "Sum does nothing: it has one input"),
        ("a = Relu (x) y = Transpose <perm = [0, 1]> (a)", "Transpose does nothing: the axes keep their order"),
        ("a = Relu (x) y = Transpose <perm = [1, 0]> (a)", ""),
        ("a = Transpose (x) b = Transpose (a) y = Relu (b)", "it undoes the Transpose before it"),
        ("a = Flatten (x) y = Relu (a)", "Flatten does nothing: the input is a matrix already"),
        ("i = Cast <to = 7> (x) a = Clip (i) y = Neg (a)", "Clip does nothing: it has no bounds"),
        ("a = Clip (x) y = Relu (a)", ""),  # an infinity becomes the largest finite number
        ("p = Constant <value_ints = [0, 0, 0, 0]> () a = Pad (x, p) y = Relu (a)", "Pad does nothing"),
        ("p = Constant <value_ints = [0, 1, 0, 0]> () a = Pad (x, p) y = Relu (a)", ""),
        ("p = Constant <value_ints = [1, 1]> () a = Tile (x, p) y = Relu (a)", "Tile does nothing"),
        ("p = Constant <value_ints = [2]> () a = Expand (x, p) y = Relu (a)", "Expand does nothing"),
        ("p = Constant <value_ints = [4, 2]> () a = Expand (x, p) y = Relu (a)", ""),
        ("p = Constant <value_ints = [1]> () a = Unsqueeze (x, p) b = Squeeze (a, p) y = Relu (b)", "it undoes"),
        ("p = Constant <value_float = 0.0> () a = Sub (x, p) y = Relu (a)", "Sub does nothing: 0 is subtracted"),
        ("p = Constant <value_float = 0.0> () a = Sub (p, x) y = Relu (a)", ""),
        ("p = Constant <value_float = 1.0> () a = Div (x, p) y = Relu (a)", "Div does nothing: the divisor is 1"),
        ("a = Cast <to = 10> (x) y = Cast <to = 1> (a)", ""),
    ],
)
def test_no_op_kinds(nodes: str, says: str) -> None:
    found = in_text(
        "GRF003", f'<ir_version: 8, opset_import: ["": 13]> g (float[N,2] x) => (float[A,B] y) {{ {nodes} }}'
    )
    assert len(found) == bool(says)
    assert not says or says in found[0].message


@pytest.mark.parametrize(
    ("operator", "fill", "shape", "hit"),
    [
        ("Add", 0.0, (8,), True),
        ("Add", 0.0, (1, 1, 8), True),
        ("Add", 0.0, (4, 1), True),
        ("Sub", 0.0, (4, 8), True),
        ("Mul", 1.0, (8,), True),
        ("Div", 1.0, (8,), True),
        ("Mul", 0.0, (8,), False),
        ("Add", 1.0, (8,), False),
        ("Add", 0.0, (3, 4, 8), False),  # the free size could be 1, which this would make 3
        ("Add", 0.0, (1, 1, 4, 8), False),  # another rank
        ("Add", 0.0, (0,), False),
        ("Add", np.nan, (8,), False),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_constants_of_one_value_do_nothing_where_they_enlarge_nothing(
    tmp_path: Path, operator: str, fill: float, shape: tuple[int, ...], hit: bool, wide: bool
) -> None:
    """`wide` are constants whose data stays in the file when a model is opened."""
    width = 8192 if wide else 8
    shape = tuple(width if size == 8 else size for size in shape)
    if shape == (4, 8192):
        shape = (1, 8192)  # within what is read
    bias = numpy_helper.from_array(np.full(shape, fill, np.float32), "bias")
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node(operator, ["a", "bias"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, width if 0 not in shape else 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [bias])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)
    result = check_file(str(path), Plan((load_registry().find("GRF003"),), Options()))
    assert result.error is None
    assert [one.code for one in result.findings] == ["GRF003"] * hit


@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize("constant_first", [False, True])
@pytest.mark.parametrize("shape", [(), (8,)])
def test_what_is_added_through_an_identity_is_not_taken_for_the_data(
    tmp_path: Path, operator: str, constant_first: bool, shape: tuple[int, ...]
) -> None:
    """As the TorchScript exporter writes layers that share a bias."""
    fill = numpy_helper.from_array(np.full(shape, {"Add": 0, "Mul": 1}[operator], np.float32), "fill")
    operands = ["shared", "a"] if constant_first else ["a", "shared"]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["fill"], ["shared"]),
        helper.make_node(operator, operands, ["b"]),
        helper.make_node("Sigmoid", ["b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [floats("x", 4, 8)], [floats("y", 4, 8)], [fill])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, tmp_path / "m.onnx")
    onnxlint.fix(tmp_path / "m.onnx", tmp_path / "fixed.onnx", select=["GRF003"], verify=False, isolated=True)
    fixed = onnx.load(tmp_path / "fixed.onnx")
    assert [node.op_type for node in fixed.graph.node if node.op_type != "Identity"] == ["Relu", "Sigmoid"]


def test_one_odd_number_keeps_an_addition() -> None:
    bias = np.zeros(8, np.float32)
    bias[7] = 1e-30
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "bias"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [floats("x", 4, 8)], [floats("y", 4, 8)], [numpy_helper.from_array(bias, "bias")]
    )
    assert not findings("GRF003", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))


def test_a_mask_of_dropout_that_is_read_keeps_it() -> None:
    assert not in_text(
        "GRF003",
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[N,2] x) => (float[N,2] y, bool[N,2] mask) { a = Relu (x)  b, mask = Dropout (a)  y = Relu (b) }
        """,
    )


def test_constants_of_an_outer_graph_fold_in_a_body() -> None:
    (found,) = in_text(
        "GRF004",
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[N,2] x, bool c) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
            y = If (c) <
                then_branch = then () => (float[N,2] a) { t = Transpose (w)  a = MatMul (x, t) },
                else_branch = other () => (float[N,2] b) { b = MatMul (x, w) }
            >
        }
        """,
    )
    assert found.severity is Severity.WARNING
    assert found.location.graph.endswith(".then_branch")


def duplicates(folder: Path, external: bool) -> Path:
    """A file with two equal tensors of 40 KB, and a third that differs from them in one number in the middle."""
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    other = values.copy()
    other[50, 50] += 1
    tensors = [numpy_helper.from_array(v, name) for v, name in ((values, "a"), (values, "b"), (other, "c"))]
    nodes = [helper.make_node("MatMul", [f"t{i}", name], [f"t{i + 1}"]) for i, name in enumerate("abc")]
    graph = helper.make_graph(nodes, "g", [floats("t0", 1, 100)], [floats("t3", 1, 100)], tensors)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=external, location="model.bin")
    return path


@pytest.mark.parametrize("external", [False, True])
def test_large_duplicates_need_weights(tmp_path: Path, external: bool) -> None:
    path = str(duplicates(tmp_path, external))
    rules = (load_registry().find("GRF005"),)
    assert not check_file(path, Plan(rules, Options())).findings
    (found,) = check_file(path, Plan(rules, Options(weights=True))).findings
    assert found.message == "1 initializer repeats the bytes of another: 40.0 KB, 33 % of the weights (b is a)"


def test_tensors_at_the_same_place_of_an_external_file_are_no_waste(tmp_path: Path) -> None:
    path = duplicates(tmp_path, external=True)
    model = onnx.load(path, load_external_data=False)
    a, b, _ = model.graph.initializer
    del b.external_data[:]
    b.external_data.extend(a.external_data)
    onnx.save(model, path)
    assert not check_file(str(path), Plan((load_registry().find("GRF005"),), Options(weights=True))).findings


def test_missing_external_data_is_left_to_others(tmp_path: Path) -> None:
    path = duplicates(tmp_path, external=True)
    (tmp_path / "model.bin").unlink()
    result = check_file(str(path), Plan((load_registry().find("GRF005"),), Options(weights=True)))
    assert not result.findings
    assert result.error is None


def test_folding_a_long_chain_of_constants_is_linear() -> None:
    count = 20_000
    nodes = [helper.make_node("Neg", [f"c{i}"], [f"c{i + 1}"]) for i in range(count)]
    nodes.append(helper.make_node("Add", ["x", f"c{count}"], ["y"]))
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "c0")
    model = helper.make_model(helper.make_graph(nodes, "g", [floats("x", 2)], [floats("y", 2)], [tensor]))
    started = time.process_time()
    (found,) = findings("GRF004", model)
    assert found.message.startswith(f"{count:,} nodes (Neg → Neg → … → Neg) compute the same value")
    assert time.process_time() - started < 5


def test_what_never_runs_has_one_finding() -> None:
    """A shape chain in a branch that is never taken, and one that no output depends on: nothing but that is reported."""
    chain = "s = Shape (x)  i = Constant <value_ints = [0]> ()  b = Gather (s, i)  r = Concat <axis = 0> (b, k)"
    text = f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[b,4,6] x) => (float[m,n] y) <bool c = {{1}}, int64[1] k = {{-1}}> {{
            y = If (c) <
                then_branch = t () => (float[m,n] u) {{ u = Flatten (x) }},
                else_branch = e () => (float[m2,n2] v) {{ {chain}  v = Reshape (x, r) }}
            >
        }}
        """
    plan = Plan(tuple(rule for rule in load_registry() if rule.default and not rule.targets), Options())
    findings, _, _ = check_view(make_view(Model(path="m", proto=parse(text), size=0)), plan)
    assert [finding.code for finding in findings] == ["OPS005"]
    dead = text.replace("g (float", "g (bool z, float").replace("<bool c = {1}, ", "<").replace("If (c)", "If (z)")
    findings, _, _ = check_view(make_view(Model(path="m", proto=parse(dead), size=0)), plan)
    assert [finding.code for finding in findings] == ["SHP006"]
    dead = f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[b,4,6] x) => (float[b,4,6] y) <int64[1] k = {{-1}}> {{
            {chain}  v = Reshape (x, r)
            y = Relu (x)
        }}
        """
    findings, _, _ = check_view(make_view(Model(path="m", proto=parse(dead), size=0)), plan)
    assert [finding.code for finding in findings] == ["GRF002"]


def test_attributes_that_the_caller_of_a_function_gives_are_unknown() -> None:
    text = """
    <ir_version: 10, opset_import: ["": 17, "f": 1]>
    g (float[2,3,4] x) => (float[A,B,C] y) { y = f.turn <perm = [1, 2, 0]> (x) }
    <domain: "f", opset_import: ["": 17]>
    turn <perm> (x) => (y) { a = Transpose <perm: ints = @perm> (x) y = Transpose <perm: ints = @perm> (a) }
    """
    assert in_text("GRF003", text) == []


def test_a_dead_reader_of_a_constant_output_is_dead_and_nothing_else() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N] x) => (float[N] z, float[2] y) <float[2] w = {1, 2}> {
        z = Relu (x)
        y = Identity (w)
        unread = Neg (y)
    }
    """
    assert in_text("GRF004", text) == []
    assert len(in_text("GRF002", text)) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("variance", [1.0, -1.0, 0.0, float("nan")])
def test_a_batch_normalization_that_overflows_stays(variance: float) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,1,4,4] x) => (float[N,1,4,4] y) {
        a = Conv (x, w) y = BatchNormalization <epsilon = 0.0> (a, s, b, b, v) }"""
    model = onnx.parser.parse_model(text)
    constants = {"w": np.full((1, 1, 1, 1), 3e38), "s": [2.0], "b": [1.0], "v": [variance]}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    fixed, report = fix(Model("m.onnx", model, 0), select="GRF006")
    assert fixed is model
    assert [left.why for left in report.left] == ["the folded weights would not be finite"]
