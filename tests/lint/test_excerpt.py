"""What is drawn around a finding."""

from __future__ import annotations

import pickle

import pytest

from onnxlint.fixes.rule_tests import parse
from onnxlint.graph.location import Location
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.excerpt import MOST, with_neighbourhoods
from onnxlint.lint.finding import Finding, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from tests.support.report_samples import DETECTOR, rules


def around(text: str, place: Location, operand: str = "") -> Neighbourhood | None:
    view = make_view(Model("m.onnx", parse(text), size=0))
    evidence = (("operand", operand),) if operand else ()
    finding = Finding("ABC001", "a", Severity.INFO, "m", place, evidence=evidence)
    return with_neighbourhoods(view, [finding])[0].neighbourhood


def edges(picture: Neighbourhood | None) -> set[tuple[str, str, str]]:
    assert picture is not None
    return {(picture.boxes[a].title, picture.boxes[b].title, label) for a, b, label in picture.edges}


CHAIN = """
<ir_version: 8, opset_import: ["": 13]>
g (float[N,4,H,W] x, float[N,4,A,B] y) => (float[N,4,C,D] z, float[N,4,C,D] w)
<int64[2] channels = {1, 4}, int64[1] zero = {0}, int64[1] two = {2}> {
    shape = Shape (y)
    first = Slice (shape, zero, two)
    sizes = Concat <axis = 0> (channels, first)
    z = Resize (x, , , sizes)
    w = Relu (z)
}
"""


def test_the_chain_of_a_node_and_what_reads_it() -> None:
    picture = around(CHAIN, Location("m.onnx", node="", op_type="Resize", index=3), operand="sizes")
    assert picture is not None
    assert picture.boxes[picture.center] == Box("node", "Resize")
    assert {
        ("y", "Shape", "N×4×A×B"),
        ("Shape", "Slice", "4"),
        ("Slice", "Concat", "2"),
        ("Concat", "Resize", "4"),
        ("x", "Resize", "N×4×H×W"),
    } <= edges(picture)
    titles = [box.title for box in picture.boxes]
    assert titles.index("Shape") < titles.index("Resize") < titles.index("Relu")
    assert "zero" not in titles


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("x", "input", ("x", "Resize", "N×4×H×W")),
        ("w", "output", ("Relu", "w", "N×4×?×?")),
        ("zero", "constant", ("zero", "Slice", "1")),
    ],
)
def test_findings_about_values(value: str, kind: str, expected: tuple[str, str, str]) -> None:
    picture = around(CHAIN, Location("m.onnx", value=value))
    assert picture is not None
    assert picture.boxes[picture.center] == Box(kind, value)
    assert expected[:2] in {edge[:2] for edge in edges(picture)}


def test_the_whole_model_has_no_neighbours() -> None:
    assert around(CHAIN, Location("m.onnx")) is None
    assert around(CHAIN, Location("m.onnx", value="unknown")) is None
    assert around(CHAIN, Location("m.onnx", "graph/nowhere", index=0)) is None


def test_nodes_in_a_subgraph_have_neighbours_outside() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[2] x, bool c) => (float[2] y) {
        a = Neg (x)
        [branch] y = If (c) <
            then_branch = t () => (float[2] b) { b = Relu (a) },
            else_branch = e () => (float[2] d) { d = Abs (a) }
        >
    }
    """
    picture = around(text, Location("m.onnx", "graph/branch.then_branch", op_type="Relu", index=0))
    assert ("Neg", "Relu", "2") in edges(picture)


def test_a_picture_stays_small_and_cheap() -> None:
    users = "\n".join(f"o{i} = Relu (x)" for i in range(300))
    names = ", ".join(f"o{i}" for i in range(300))
    text = f"""
    <ir_version: 8, opset_import: ["": 13]>
    g (float[2] x) => (float[600] y) {{
        {users}
        y = Concat <axis = 0> ({names})
    }}
    """
    for place in (Location("m.onnx", value="x"), Location("m.onnx", op_type="Concat", index=300)):
        picture = around(text, place)
        assert picture is not None
        assert len(picture.boxes) == MOST


def test_the_plan_decides_and_results_can_be_sent_to_other_processes() -> None:
    view = make_view(Model("m.onnx", parse(DETECTOR), size=0))
    plan = Plan(rules("SHP001"), neighbourhoods=True)
    assert pickle.loads(pickle.dumps(plan)) == plan
    found, _, _ = check_view(view, plan)
    assert found
    assert all(finding.neighbourhood is not None for finding in found)
    assert pickle.loads(pickle.dumps(found)) == found
    bare, _, _ = check_view(view, Plan(rules("SHP001")))
    assert all(finding.neighbourhood is None for finding in bare)
