"""Which outputs stand for each other."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint.accuracy.activations import Activation
from onnxlint.accuracy.match import End, Matched, ends_of, match, same_layout, split_like
from onnxlint.errors import OnnxlintError

Arrays = dict[str, np.ndarray]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e: np.ndarray = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: np.ndarray = e / e.sum(axis=-1, keepdims=True)
    return shares


def whole(arrays: Arrays) -> list[End]:
    return [End(name, name) for name in arrays]


def matched(r: Arrays, c: Arrays) -> Matched:
    return match(whole(r), whole(c), r, c)


def names(found: Matched) -> list[tuple[str, str]]:
    return [(pair.reference.name, pair.candidate.place) for pair in found.pairs]


def test_by_name_whatever_the_order() -> None:
    a, b = numbers(1, 4), numbers(1, 4, seed=1)
    found = matched({"a": a, "b": b}, {"b": b, "a": a})
    assert names(found) == [("a", "a"), ("b", "b")]
    assert not found.notes


def test_by_order_where_names_differ() -> None:
    a, b = numbers(1, 4), numbers(1, 4, seed=1)
    found = matched({"a": a, "b": b}, {"x": a, "y": b})
    assert names(found) == [("a", "x"), ("b", "y")]
    assert "by their order" in found.notes[0]


def test_by_shape_where_order_does_not_fit() -> None:
    a, b = numbers(1, 4), numbers(1, 6)
    found = matched({"a": a, "b": b}, {"x": b, "y": a})
    assert names(found) == [("a", "y"), ("b", "x")]
    assert "by their shapes" in found.notes[0]


def test_nothing_is_guessed() -> None:
    a, b = numbers(1, 4), numbers(1, 4, seed=1)
    found = matched({"a": a, "b": b}, {"x": a})
    assert not found.pairs
    assert len(found.unmatched) == 3
    found = matched({"a": a}, {"x": numbers(1, 5)})
    assert not found.pairs
    assert "1×5" in found.unmatched[1]


def test_one_name_and_two_shapes_do_not_match() -> None:
    found = matched({"a": numbers(1, 4), "b": numbers(1, 3)}, {"a": numbers(1, 5), "b": numbers(1, 3)})
    assert names(found) == [("b", "b")]
    assert found.unmatched == ("a: 1×4 in the reference, 1×5 in the candidate",)


def test_strings_are_no_numbers() -> None:
    found = matched({"a": np.array(["x"], object)}, {"a": np.array(["x"], object)})
    assert "is not numeric" in found.unmatched[0]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_joined_output_without_a_record_is_cut_by_the_sizes(swapped: bool) -> None:
    boxes, classes = numbers(1, 9, 4), numbers(1, 9, 2)
    apart, joined = {"boxes": boxes, "classes": classes}, {"out0": np.concatenate([boxes, classes], axis=-1)[0][None]}
    r, c = (joined, apart) if swapped else (apart, joined)
    found = matched(r, c)
    assert len(found.pairs) == 2
    assert "out0 records no heads" in found.notes[0]
    for pair in found.pairs:
        np.testing.assert_array_equal(*pair.arrays(r, c))
    if not swapped:
        assert names(found)[1] == ("classes", "out0[..., 4:6]")


def test_a_joined_output_of_another_size_is_not_cut() -> None:
    found = matched({"boxes": numbers(1, 9, 4), "classes": numbers(1, 9, 2)}, {"out0": numbers(1, 9, 7)})
    assert not found.pairs


FIXED = """
<ir_version: 8, opset_import: ["": 17]>
net (float[N,6] x) => (float[N,6] out) { out = Relu (x) }
"""


def fixed(**metadata: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(FIXED)
    for key, value in metadata.items():
        proto.metadata_props.add(key=f"onnxlint.{key}", value=value)
    return proto


RECORD = (
    '[{"output": "out", "axis": 1, "heads": [{"name": "boxes", "start": 0, "stop": 4},'
    ' {"name": "scores", "start": 4, "stop": 6}]}]'
)


def test_recorded_heads_and_a_dropped_softmax() -> None:
    proto = fixed(heads=RECORD, dropped_activations='{"scores": {"op": "Softmax", "axis": -1}}')
    boxes, logits = numbers(3, 4), numbers(3, 2)
    r = {"boxes": boxes, "scores": softmax(logits)}
    c = {"out": np.concatenate([boxes, logits], axis=-1)}
    found = match(whole(r), ends_of(proto, ["out"]), r, c)
    assert names(found) == [("boxes", "out[..., 0:4]"), ("scores", "out[..., 4:6]")]
    assert "Softmax, which 'onnxlint fix' dropped, is applied to the candidate's" in found.notes[0]
    for pair in found.pairs:
        np.testing.assert_allclose(*pair.arrays(r, c), atol=1e-6)


def test_a_file_without_metadata_takes_the_record_of_the_model_it_was_made_from() -> None:
    pattern = ends_of(fixed(heads=RECORD), ["out"])
    assert [end.name for end in split_like([End("out", "out")], pattern)] == ["boxes", "scores"]
    assert [end.name for end in split_like([End("other", "other")], pattern)] == ["other"]


@pytest.mark.parametrize(
    "record",
    [
        "[1",
        "3",
        "[" * 50_000,
        '{"out": 1}',
        '{"out": {"op": "Foo"}}',
        '{"out": {"op": ["Softmax"]}}',
        '{"out": {"op": "Softmax", "axis": 1e999}}',
        '{"out": {"op": "Softmax", "axis": true}}',
        '{"out": {"op": "Softmax", "axis": 1' + "0" * 300 + "}}",
    ],
)
def test_a_damaged_record_of_activations_is_one_line(record: str) -> None:
    with pytest.raises(OnnxlintError, match=r"dropped_activations is damaged \(.*\); fix the original again"):
        ends_of(fixed(dropped_activations=record), ["out"])


def test_an_axis_that_the_output_has_not_is_one_line() -> None:
    (end,) = ends_of(fixed(dropped_activations='{"out": {"op": "Softmax", "axis": 9}}'), ["out"])
    assert end.dropped is not None
    with pytest.raises(OnnxlintError, match="axis 9 was dropped by the record, and the output has 2 axes"):
        end.dropped.apply(numbers(1, 5))


def test_a_damaged_record_is_one_line() -> None:
    heads = ends_of(fixed(heads=RECORD), ["out"])
    with pytest.raises(OnnxlintError, match="fix the original again"):
        match(heads, heads, {"out": numbers(1, 5)}, {"out": numbers(1, 5)})


@pytest.mark.parametrize("op", ["Softmax", "Sigmoid", "LogSoftmax"])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_activation_that_only_one_side_has_is_applied_to_the_other(op: str, swapped: bool) -> None:
    logits = 5 * numbers(6, 3)
    activation = Activation(op)
    with_it, without = {"y": activation.apply(logits).astype(np.float32)}, {"y": logits}
    ends = [End("y", "y", activation=activation)], [End("y", "y")]
    r, c = (without, with_it) if swapped else (with_it, without)
    found = match(*(ends[::-1] if swapped else ends), r, c)
    assert f"ends in {op}" in found.notes[0]
    np.testing.assert_allclose(*found.pairs[0].arrays(r, c), atol=1e-5)


def test_probabilities_are_not_activated_twice() -> None:
    y = {"y": softmax(numbers(6, 3))}
    found = match([End("y", "y", activation=Activation("Softmax"))], [End("y", "y")], y, y)
    assert not found.notes
    assert found.pairs[0].on_candidate is None


def test_the_end_of_a_graph_is_seen_through_casts() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N,6] x) => (float[N,6] y, float[N,6] z) {
            p = Softmax <axis = 1> (x)
            y = Cast <to = 1> (p)
            z = Relu (p)
        }
        """
    )
    y, z = ends_of(proto, ["y", "z"])
    assert y.activation == Activation("Softmax", 1)
    assert z.activation is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ((1, 16, 4), (16, 4), True),
        ((1, 16, 4), (1, 1, 64), True),
        ((1, 2, 3, 4), (6, 4), True),
        ((2, 12), (6, 4), False),
        ((4, 6), (6, 4), False),
        ((1, 5), (1, 6), False),
        ((), (1, 1), True),
        ((0, 3), (3, 0), True),
    ],
)
def test_layouts(a: tuple[int, ...], b: tuple[int, ...], same: bool) -> None:
    assert same_layout(a, b) is same
    assert same_layout(b, a) is same


@given(st.lists(st.integers(1, 5), max_size=5), st.data())
def test_axes_of_one_change_no_layout(shape: list[int], data: st.DataObject) -> None:
    other = list(shape)
    other.insert(data.draw(st.integers(0, len(shape))), 1)
    assert same_layout(tuple(shape), tuple(other))


def test_outputs_that_change_their_shape_between_inputs_are_an_error() -> None:
    y = {"y": numbers(1, 4)}
    pair = matched(y, y).pairs[0]
    with pytest.raises(OnnxlintError, match="for one of the inputs"):
        pair.arrays({"y": numbers(1, 4)}, {"y": numbers(1, 5)})
