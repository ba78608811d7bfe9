"""Shape chains: from an operand back to the shapes that it is computed from."""

from __future__ import annotations

import pytest

from onnxlint.graph.chains import MAX_CHAIN, SHAPE_OPERANDS, origins, trace
from onnxlint.graph.view import Node
from tests.support.zoo import RETINAFACE, parse, view

FLATTEN = """net (float[N,C,H,W] x) => (float[a,b] y) <int64 zero = {0}, int64[1] axis = {0}, int64[1] rest = {-1}> {
    s = Shape (x)
    n = Gather (s, zero)
    u = Unsqueeze (n, axis)
    t = Concat <axis = 0> (u, rest)
    y = Reshape (x, t)
}"""


def last(text: str) -> Node:
    return view(text).main.nodes[-1]


def test_the_way_from_a_shape_to_its_reader() -> None:
    chain = trace(last(FLATTEN), 1)
    assert chain is not None
    assert chain.path() == ["Shape", "Gather", "Unsqueeze", "Concat"]
    assert [node.op for node in chain.nodes] == ["Concat", "Unsqueeze", "Gather", "Shape"]
    assert len(chain.shapes) == 1
    assert chain.ends == ()


def test_constants_and_absent_operands_have_no_chain() -> None:
    node = last("net (float[N,4] x) => (float[a,b] y) <int64[2] t = {0, -1}> { y = Reshape (x, t) }")
    assert trace(node, 1) is None
    assert origins(node, 1) is None
    resize = last("net (float[N,3,4,4] x) => (float[a,b,c,d] y) <float[4] k = {1,1,2,2}> { y = Resize (x, , k) }")
    assert [trace(resize, i) for i in SHAPE_OPERANDS["Resize"]] == [None, None]


def test_an_operand_that_comes_from_data_is_no_chain_and_has_an_end() -> None:
    node = last("net (float[N,4] x, int64[2] t) => (float[a,b] y) { u = Abs (t) y = Reshape (x, u) }")
    assert trace(node, 1) is None
    chain = origins(node, 1)
    assert chain is not None
    assert (chain.ends, chain.shapes, chain.path()) == (("t",), (), [])


def test_two_shapes_and_data_in_one_operand() -> None:
    node = last(
        """net (float[N,4] x, float[M,4] z, int64[1] k) => (float[a] y) <int64 one = {1}> {
            s = Shape (x)
            r = Size (z)
            t = Mul (s, k)
            u = Add (t, r)
            w = Conv (z, z)
            v = Cast <to = 7> (w)
            c = Sub (u, v)
            y = ConstantOfShape (c)
        }"""
    )
    chain = trace(node, 0)
    assert chain is not None
    assert sorted(shape.op for shape in chain.shapes) == ["Shape", "Size"]
    assert sorted(chain.ends) == ["k", "w"]


def test_shared_chains_are_traced_for_each_reader() -> None:
    held = view(FLATTEN.replace("y = Reshape (x, t)", "z = Reshape (x, t) e = Expand (z, t) y = Abs (e)"))
    chains = [trace(node, 1) for node in held.nodes("Reshape", "Expand")]
    assert [chain.path() for chain in chains if chain] == [["Shape", "Gather", "Unsqueeze", "Concat"]] * 2


def test_from_inside_a_branch_to_the_graph_around_it() -> None:
    held = view(
        """net (float[N,4] x, bool c) => (float[a,b] y) {
            s = Shape (x)
            y = If (c) <
                then_branch = g1 () => (float[a,b] p) { u = Abs (s) p = Reshape (x, u) },
                else_branch = g2 () => (float[a,b] q) { q = Neg (x) }
            >
        }"""
    )
    chain = trace(next(iter(held.nodes("Reshape"))), 1)
    assert chain is not None
    assert [node.graph.path for node in chain.nodes] == [held.graphs[1].path, "graph"]
    assert chain.path() == ["Shape", "Abs"]


def test_diamonds_and_long_chains_stay_cheap() -> None:
    """Each node reads the one before it twice: 2^3000 ways, of which each node is on many, and visited once."""
    steps = "".join(f"v{i + 1} = Add (v{i}, v{i}) " for i in range(3000))
    node = last(f"net (float[N] x) => (float[a] y) {{ v0 = Shape (x) {steps} y = ConstantOfShape (v3000) }}")
    chain = origins(node, 0)
    assert chain is not None
    assert len(chain.nodes) == MAX_CHAIN
    short = steps.split("v1001 ")[0]
    chain = trace(last(f"net (float[N] x) => (float[a] y) {{ v0 = Shape (x) {short} y = Expand (x, v1000) }}"), 1)
    assert chain is not None
    assert len(chain.nodes) == 1001
    assert chain.path() == ["Shape", *["Add"] * 1000]


@pytest.mark.parametrize("name", ["original_op9_dyn", "original_op11_dyn", "original_op17_dyn", "original_dynamo_dyn"])
def test_retinaface_has_nine_reshapes_and_two_resizes(name: str) -> None:
    """What the released exports are known to hold."""
    from onnxlint.graph.view import GraphView
    from onnxlint.model.skeleton import open_model

    path = RETINAFACE / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    held = GraphView(open_model(path))
    assert sum(trace(node, 1) is not None for node in held.nodes("Reshape")) == 9
    resizes = list(held.nodes("Resize", "Upsample"))
    assert sum(any(trace(node, i) for i in SHAPE_OPERANDS[node.op]) for node in resizes) == 2


def test_the_operators_with_shape_operands_exist() -> None:
    import onnx.defs

    for op, operands in SHAPE_OPERANDS.items():
        versions = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.name == op]
        assert versions, op
        most = max(len(schema.inputs) for schema in versions)
        assert all(i < most for i in operands), op
    assert parse(FLATTEN).graph.node
