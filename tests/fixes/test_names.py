"""Names of axes that say nothing: nothing is proved from two of them that are equal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Request
from onnxlint.model.dim_names import is_placeholder
from onnxlint.model.skeleton import Model
from tests.support import zoo

ort = pytest.importorskip("onnxruntime")

SHAPES = tuple(rule for rule in load_registry() if rule.code.startswith("SHP") and rule.default)
UNKNOWN = st.sampled_from(
    [
        "-1",
        "?",
        "",
        "N/A",
        "n/a",
        "n.a.",
        "nan",
        "None",
        "none_1",
        "null",
        "unk__1",
        "unknown",
        "dynamic",
        "any",
        "−1",
        "…",
    ]
)


@st.composite
def unknown_names(draw: st.DrawFn) -> str:
    """A name for an unknown size, in brackets, within an expression, or with blanks around it."""
    name = draw(UNKNOWN)
    kind = draw(
        st.sampled_from(["plain", "upper", "blank", "brackets", "plus", "times", "divided", "vanishing", "quotient"])
    )
    if kind in ("vanishing", "quotient") or (kind in ("plus", "times", "divided") and not any(map(str.isalpha, name))):
        return draw(st.sampled_from(["h + 0*w", "0*h + w", "h*0", "a/b", "A / B", "h//w", "floor(h/w)"]))
    if kind == "brackets":
        return draw(st.sampled_from(["<{}>", "({})", "[{}]", "'{}'", "{{{}}}"])).format(name)
    said = {"plus": f"{name} + 1", "times": f"2*{name}", "divided": f"({name})//2", "upper": name.upper()}
    return said.get(kind, name) if kind != "blank" else f" {name}\t"


def model(name: str) -> onnx.ModelProto:
    """Reshapes that do nothing if both axes of x, or those of x and z, have one size."""
    proto = zoo.parse(
        """
        g (float[A,B] x, float[A,B] z) => (turned, like)
        <int64[2] back = {1, 0}> {
            shape = Shape (x)
            swapped = Gather (shape, back)
            a = Reshape (x, swapped)
            turned = Relu (a)
            other = Shape (z)
            b = Reshape (x, other)
            like = Neg (b)
        }
        """
    )
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = name
    return proto


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(unknown_names())
@example("N/A")
@example("h + 0*w")
@example("None + 1")
def test_equal_names_that_say_nothing_are_no_equal_sizes(name: str) -> None:
    assert is_placeholder(name)
    proto = model(name)
    fixed, _ = fix_model(Model("m.onnx", proto, 0), Plan(SHAPES), Request())
    before, after = zoo.session(proto), zoo.session(fixed)
    for x, z in (((2, 6), (3, 4)), ((6, 2), (12, 1)), ((3, 3), (9, 1))):
        feeds = {"x": np.arange(np.prod(x), dtype=np.float32).reshape(x), "z": np.zeros(z, np.float32)}
        for one, other in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["h", "batch", "seq-len", "32*h", "(h + 1)//2", "H/32"])
def test_equal_names_of_sizes_are_equal_sizes(name: str) -> None:
    """The Reshapes go: what the test above looks at is not simply left alone."""
    fixed, report = fix_model(Model("m.onnx", model(name), 0), Plan(SHAPES), Request())
    assert len(report.applied) == 2
    assert "Shape" not in {node.op_type for node in fixed.graph.node}
