"""How many inputs are planned for a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.verification import worker
from onnxlint.verification.contract import common_contract
from onnxlint.verification.inputs import Contract, Input
from onnxlint.verification.interface import Incomparable
from onnxlint.verification.trials import Task


def batches(tmp_path: Path, dims: tuple[int | str, ...], weights: int) -> tuple[int, set[int]]:
    """How many trials were made, and the numbers of samples among them."""
    shape = ",".join(map(str, dims))
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu (x) }}
        """
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    task = Task(str(path), str(path), ("", ""), Contract((Input("x", "float32", dims),)), outputs=("y",))
    trials = [one["trial"] for one in worker.compare_models(replace(task, weights=weights)) if "trial" in one]
    results = [one for one in trials if isinstance(one, dict)]
    assert {one["outcome"] for one in results} <= {"equal", "original failed"}
    shown = {one["dims"] for one in results}
    return len(results), {int(text.split(",")[0].removeprefix("N=")) for text in shown if text}


def test_a_heavy_model_runs_on_few_batches(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    heavy, few = batches(tmp_path, ("N", 3, 8, 8), worker.HEAVY)
    light, more = batches(tmp_path, ("N", 3, 8, 8), 0)
    assert heavy < light
    assert {1, 2, 3} <= few < more


def test_where_other_sizes_are_free_none_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert batches(tmp_path, ("N", 3, "H", "W"), worker.HEAVY) == batches(tmp_path, ("N", 3, "H", "W"), 0)


def test_more_axes_than_numpy_has() -> None:
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1] * 65)],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1] * 65)],
        )
    )
    view = make_view(Model("m.onnx", model, 0))
    with pytest.raises(Incomparable, match=r"its input .x. has 65 axes, and NumPy has (32|64) at most"):
        common_contract(view, view, {})


def test_an_input_that_no_memory_holds() -> None:
    shapes: tuple[list[int | str | None], ...] = ([2**63 - 1], [2**31, 2**31, 0], ["N", 2**40, 2])
    for shape in shapes:
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("Relu", ["x"], ["y"])],
                "g",
                [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
                [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            )
        )
        view = make_view(Model("m.onnx", model, 0))
        with pytest.raises(Incomparable, match=r"its input .x. of shape \[.*\] does not fit into memory"):
            common_contract(view, view, {})
