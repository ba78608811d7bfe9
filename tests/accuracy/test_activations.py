"""Activations at the ends of two models: seen in the graphs, and applied where only one of them has it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from onnxlint.accuracy.activations import Activation, Seen, along_axis, seen_at, seen_in_parts
from onnxlint.accuracy.match import Matched, ends_of, match

HEADS = (
    '[{"output": "all", "axis": 2, "heads": [{"name": "boxes", "start": 0, "stop": 4},'
    ' {"name": "scores", "start": 4, "stop": 6}]}]'
)


def net(body: str, outputs: str = "float[N,5,6] all", opset: int = 17, **metadata: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> net (float[N,5,4] x) => ({outputs})'
        f"<float[4,2] w = {{3, 0, 0, 3, 1, 2, 0, 0}}> {{ {body} }}"
    )
    for key, value in metadata.items():
        proto.metadata_props.add(key=f"onnxlint.{key}", value=value)
    return proto


def run(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    names = [value.name for value in proto.graph.output]
    return dict(zip(names, ReferenceEvaluator(proto).run(None, {"x": x}), strict=True))


def matched(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> tuple[Matched, list[float]]:
    """The match, and the largest difference of each pair."""
    r, c = run(reference), run(candidate)
    found = match(ends_of(reference, list(r)), ends_of(candidate, list(c)), r, c)
    return found, [float(np.abs(np.subtract(*pair.arrays(r, c))).max()) for pair in found.pairs]


JOINED = "logits = MatMul (x, w)\n all = Concat <axis = 2> (x, logits)"
JOINED_SOFTMAX = "logits = MatMul (x, w)\n s = Softmax <axis = 2> (logits)\n all = Concat <axis = 2> (x, s)"
TWO = "boxes = Identity (x)\n scores = MatMul (x, w)"
TWO_SOFTMAX = "boxes = Identity (x)\n logits = MatMul (x, w)\n scores = Softmax <axis = 2> (logits)"
ENDS = "float[N,5,4] boxes, float[N,5,2] scores"
DROPPED = '{"scores": {"op": "Softmax", "axis": 2}}'


@pytest.mark.parametrize(
    ("reference", "applied"),
    [
        (net(JOINED), False),  # joined by hand, logits: nothing is to be applied
        (net(JOINED_SOFTMAX), True),
        (net(TWO, ENDS), False),
        (net(TWO_SOFTMAX, ENDS), True),
        (net(JOINED, heads=HEADS, dropped_activations=DROPPED), False),
        (net(JOINED_SOFTMAX, heads=HEADS), True),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_dropped_softmax_is_applied_only_where_the_other_model_has_it(
    reference: onnx.ModelProto, applied: bool, swapped: bool
) -> None:
    fixed = net(JOINED, heads=HEADS, dropped_activations=DROPPED)
    found, differences = matched(*((fixed, reference) if swapped else (reference, fixed)))
    assert len(found.pairs) == 2
    assert max(differences) < 1e-6
    assert any("is applied to the" in note for note in found.notes) is applied
    whose = "reference" if swapped else "candidate"
    assert all(f"is applied to the {whose}'s" in note for note in found.notes if "applied" in note)


@pytest.mark.parametrize(
    "body",
    [
        "logits = MatMul (x, w)\n e = Exp (logits)\n t = ReduceSum <axes = [2], keepdims = 1> (e)\n scores = Div (e, t)",
        "logits = MatMul (x, w)\n s = Softmax <axis = 2> (logits)\n a = Transpose <perm = [0, 2, 1]> (s)\n"
        "scores = Transpose <perm = [0, 2, 1]> (a)",
    ],
)
def test_a_softmax_in_other_operators_or_before_others_is_seen_in_its_numbers(body: str) -> None:
    reference = net(f"boxes = Identity (x)\n {body}", ENDS, opset=11)
    found, differences = matched(reference, net(JOINED, heads=HEADS, dropped_activations=DROPPED))
    assert len(found.notes) == 1
    assert max(differences) < 1e-5


def test_what_the_graph_shows() -> None:
    moved = net("s = Sigmoid (x)\n y = Transpose <perm = [0, 2, 1]> (s)\n z = Relu (s)", "float y, float z")
    assert seen_at(moved, "y") == Seen(True, Activation("Sigmoid"))
    assert seen_at(moved, "z") == Seen(True)
    levels = net(
        "a = Softmax <axis = 2> (x)\n b = Softmax <axis = 2> (x)\n c = Relu (x)\n y = Concat <axis = 1> (a, b)\n"
        "z = Concat <axis = 1> (a, c)",
        "float y, float z",
    )
    assert seen_at(levels, "y") == Seen(True, Activation("Softmax", 2))
    assert seen_at(levels, "z") == Seen()
    assert seen_in_parts(levels, "z") == (Seen(True, Activation("Softmax", 2)), Seen(True))
    assert seen_in_parts(levels, "a") == ()


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [None, 1, 2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_axes_are_those_of_the_operator_set(op: str, axis: int | None, opset: int) -> None:
    given = "" if axis is None else f"<axis = {axis}>"
    proto = net(f"y = {op} {given} (x)", "float[N,5,4] y", opset)
    seen = seen_at(proto, "y").activation
    assert seen == along_axis(op, axis, opset)
    x = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    if opset < 13:  # onnx.reference has the newer meaning for all operator sets
        import onnxruntime

        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (truth,) = session.run(None, {"x": x})
    else:
        (truth,) = ReferenceEvaluator(proto).run(None, {"x": x})
    assert seen is not None
    np.testing.assert_allclose(seen.apply(x), truth, atol=1e-5)
    assert seen.could_produce(truth)
