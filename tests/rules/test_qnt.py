"""QNT rules: what their examples cannot say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxlint_rules.qnt._weights import Weight, channel_blocks, figures, weights

from onnxlint.graph.view import GraphView
from onnxlint.lint.engine import Plan, check_file, check_view
from onnxlint.lint.finding import Finding, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

Array = npt.NDArray[np.generic]


def view_of(nodes: list[onnx.NodeProto], arrays: dict[str, Array], rank: int = 2) -> GraphView:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors))
    return make_view(Model("m.onnx", model, 0))


def findings(code: str, view: GraphView, read: bool = True) -> list[Finding]:
    found, _, failures = check_view(view, Plan((load_registry().find(code),), Options(weights=read)))
    assert not failures
    return found


def matmul(array: Array) -> GraphView:
    return view_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": array})


def channels(view: GraphView, weight: Weight) -> list[list[float]]:
    """Weights of each output channel, as the blocks give them."""
    found: dict[int, list[float]] = {}
    for block in channel_blocks(view, weight):
        for values in block.pieces():
            for i in range(values.shape[1]):
                found.setdefault(block.first + i, []).extend(values[:, i].reshape(-1).tolist())
    return [sorted(found[i]) for i in sorted(found)]


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "expected"),
    [
        ("Conv", (4, 2, 3), {}, lambda w: list(w)),
        ("ConvTranspose", (2, 4, 3), {}, lambda w: [w[:, i] for i in range(4)]),
        (
            "ConvTranspose",
            (4, 3, 2),
            {"group": 2},
            lambda w: [w[g * 2 : g * 2 + 2, i] for g in (0, 1) for i in range(3)],
        ),
        ("MatMul", (2, 3, 5), {}, lambda w: [w[..., i] for i in range(5)]),
        ("Gemm", (3, 5), {}, lambda w: list(w.T)),
        ("Gemm", (3, 5), {"transB": 1}, lambda w: list(w)),
    ],
)
def test_output_channels_are_along_the_right_axis(op, shape, attributes, expected) -> None:  # type: ignore[no-untyped-def]
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    view = view_of([helper.make_node(op, ["x", "w"], ["y"], **attributes)], {"w": values}, rank=3)
    (weight,) = weights(view)
    assert channels(view, weight) == [sorted(channel.reshape(-1).tolist()) for channel in expected(values)]


def test_weights_are_found_behind_transpose_and_identity() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    nodes = [
        helper.make_node("Identity", ["w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "b"], ["y"]),
    ]
    view = view_of(nodes, {"w": values})
    (weight,) = weights(view)
    assert channels(view, weight) == [[0, 1, 2], [3, 4, 5]]


def test_blocks_of_a_large_weight_hold_each_number_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxlint_rules.qnt._weights.CHUNK", 10)
    values = np.arange(120, dtype=np.float32).reshape(8, 15)
    cases: list[tuple[dict[str, Any], np.ndarray]] = [({}, values.T), ({"transB": 1}, values)]
    for attributes, rows in cases:
        view = view_of([helper.make_node("Gemm", ["x", "w"], ["y"], **attributes)], {"w": values})
        assert channels(view, weights(view)[0]) == rows.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=40),
    st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16]),
)
def test_figures_count_what_is_there(numbers: list[float], kind: type) -> None:
    with np.errstate(all="ignore"):
        array: np.ndarray = np.array(numbers, np.float64).astype(kind)
    view = matmul(array.reshape(1, -1))
    seen = figures(view, view.main.initializers["w"])
    assert seen is not None
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    assert (seen.count, seen.nan, seen.inf) == (len(numbers), np.isnan(wide).sum(), np.isinf(wide).sum())
    assert seen.largest == (np.abs(finite).max() if finite.size else 0)
    assert seen.energy == pytest.approx(float((finite**2).sum()), rel=1e-4, abs=1e-30)


def test_large_weights_are_read_only_on_demand(tmp_path: Path) -> None:
    values = np.ones((100, 100), np.float32)
    values[7, 7] = np.nan
    view = matmul(values)
    path = str(tmp_path / "m.onnx")
    onnx.save(view.proto, path)
    rules = (load_registry().find("QNT003"),)
    assert not check_file(path, Plan(rules, Options())).findings
    (found,) = check_file(path, Plan(rules, Options(weights=True))).findings
    assert found.severity is Severity.ERROR
    assert found.message == "1 tensor of weights holds NaN (w: 1 of 10,000)"


def test_a_nan_statistic_is_seen_without_weights() -> None:
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])
    ones = np.ones(2, np.float32)
    view = view_of([node], {"s": ones, "b": ones, "m": ones, "v": np.array([np.inf, np.nan], np.float32)})
    (found,) = findings("QNT003", view, read=False)
    assert found.location.value == "v"


def test_weights_that_are_all_too_small_for_float16() -> None:
    (found,) = findings("QNT001", matmul(np.full((4, 4), 1e-9, np.float32)))
    assert found.message.startswith("100 % of 16 weights are subnormal in float16 (largest 1e-09)")


def test_float16_weights_cannot_leave_the_range_of_float16() -> None:
    assert not findings("QNT001", matmul(np.full((4, 4), 1e-7, np.float16)))


def test_bfloat16_weights_can() -> None:
    (found,) = findings("QNT001", matmul(np.full((4, 4), 1e6, ml_dtypes.bfloat16)))
    assert "16 of 16 weights are infinite in float16" in found.message


def test_a_mask_is_a_constant_and_no_weight() -> None:
    node = helper.make_node("Add", ["x", "mask"], ["y"])
    (found,) = findings("QNT001", view_of([node], {"mask": np.full((2, 2), -3e38, np.float32)}))
    assert found.severity is Severity.INFO
    assert found.message == "1 constant is infinite in float16: ±3e+38 in Add"


def test_equal_ranges_lose_nothing() -> None:
    generator = np.random.default_rng(0)
    assert not findings("QNT002", matmul(generator.standard_normal((64, 32)).astype(np.float32)))


def test_the_worst_layer_is_named() -> None:
    generator = np.random.default_rng(0)
    good = generator.standard_normal((32, 32)).astype(np.float32)
    bad, worse = good.copy(), good.copy()
    bad[:, :20] *= 1 / 80
    worse[:, :30] *= 1 / 80
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="second"),
        helper.make_node("MatMul", ["q", "c"], ["y"], name="third"),
    ]
    (found,) = findings("QNT002", view_of(nodes, {"a": good, "b": bad, "c": worse}))
    assert found.location.node == "third"
    assert "in 30 of 32 channels" in found.message
    assert "1 other layer loses channels too" in found.message


def test_weights_whose_data_is_missing_are_left_to_others(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = matmul(np.ones((100, 100), np.float32)).proto
    onnx.save(model, path, save_as_external_data=True, location="m.bin")
    (tmp_path / "m.bin").unlink()
    rules = tuple(load_registry().find(f"QNT00{i}") for i in range(1, 5))
    result = check_file(str(path), Plan(rules, Options(weights=True)))
    assert not result.findings
    assert result.error is None
