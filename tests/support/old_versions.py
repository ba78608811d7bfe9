"""Tests that need newer versions than the lowest that pyproject.toml admits, or the last that Python 3.10 has: onnxruntime
1.23 and onnxsim 0.7.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import onnx
import onnx.helper

NEEDED: tuple[tuple[str, tuple[int, int], str, tuple[str, ...]], ...] = (
    (
        "onnxruntime",
        (1, 24),
        "lacks the operator, or computes it otherwise",
        (
            "fixes/test_opset_expand.py::test_attention_computes_the_same",
            "fixes/test_opset_expand.py::test_operators_compute_the_same[17-LayerNormalization-feeds2",
            "fixes/test_opset_expand.py::test_operators_compute_the_same[23-",
            "fixes/test_opset_expand.py::test_operators_compute_the_same[24-",
            "fixes/test_opset.py::test_an_old_operator_gives_the_same_numbers[9: y = LpNormalization",
            "fixes/test_odd_models.py::test_a_fixed_model_computes_the_same[pool_one_int]",
            "fixes/test_odd_options.py::test_what_was_asked_for_computes_the_same[pool_one_int]",
            "symbolic/test_inference.py::test_sizes_and_numbers_are_those_of_a_run[resize by axes]",
            "symbolic/test_inference.py::test_sizes_and_numbers_are_those_of_a_run[picked numbers]",
        ),
    ),
    (
        "onnxruntime",
        (1, 24),
        "pads by reflection otherwise, or refuses sizes of 0",
        (
            "fixes/test_odd_models.py::test_a_fixed_model_computes_the_same[op11_pad_reflect]",
            "fixes/test_odd_models.py::test_a_fixed_model_computes_the_same[op10_pad]",
            "fixes/test_odd_options.py::test_what_was_asked_for_computes_the_same[op11_pad_reflect]",
            "fixes/test_odd_options.py::test_what_was_asked_for_computes_the_same[op10_pad]",
            "verification/test_sizes.py::test_an_axis_named_n_is_no_batch_because_of_its_name",
            "rules/test_shp_empty.py::test_an_empty_batch_beside_minus_one_needs_allowzero[0]",
        ),
    ),
    (
        "onnxruntime",
        (1, 23),
        "does not know operator set 23",
        (
            "fixes/test_opset_expand.py::test_heads_are_known_behind_a_rotary_embedding",
            "symbolic/test_constraints.py::test_a_size_that_everything_else_fails_at[mask]",
            "symbolic/test_constraints.py::test_a_size_that_everything_else_fails_at[rotary cache]",
        ),
    ),
    (
        "onnxruntime",
        (1, 23),  # 1.21 does, 1.22 does not
        "makes no integer convolution of one whose bias is a float",
        ("backends/ort/test_int8.py::test_relu_networks_run_in_integers",),
    ),
    (
        "onnxruntime",
        (1, 23),
        "rounds otherwise than what README.md shows",
        ("test_readme.py::test_the_demo_prints_what_the_readme_shows",),
    ),
    (
        "onnx",
        (1, 21),
        "does not know the operators of opset 26",
        (
            "rules/test_tgt_tables.py::test_operators_exist[onnxruntime]",
            "rules/test_tgt_tables.py::test_operators_exist[tflite]",
        ),
    ),
    (
        "onnx",
        (1, 23),
        "counts no numbers of small tensors",
        ("rules/test_spc_checker.py::test_small_weights_shorter_than_their_shape",),
    ),
    (
        "onnxsim",
        (0, 8),
        "simplifies less",
        (
            "fixes/test_simplify.py::test_what_onnxsim_drops_is_put_back",
            "fixes/test_simplify.py::test_simplifying_twice_changes_nothing",
            "fixes/test_simplify.py::test_wrong_results_are_taken_back_with_the_reason",
        ),
    ),
)
"""Package, the first version that a test runs with, what the ones before do, and how the tests' names begin."""


@cache
def newest_opset() -> int:
    """The newest operator set that onnxruntime loads."""
    from onnxlint.telemetry import load_onnxruntime

    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for opset in range(onnx.defs.onnx_opset_version(), 17, -1):
        imports = [onnx.helper.make_opsetid("", opset)]
        shape = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [onnx.helper.make_value_info("x", shape)],
            [onnx.helper.make_value_info("y", shape)],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=imports, ir_version=onnx.helper.find_min_ir_version_for(imports)
        )
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen classes that share none
            if "under development" not in str(error) and "IR version" not in str(error):
                raise
        else:
            return opset
    raise AssertionError("onnxruntime loads no operator set")


def have(package: str) -> tuple[int, ...]:
    """Major and minor version of an installed package; empty where there is none."""
    try:
        return tuple(map(int, version(package).split(".")[:2]))
    except PackageNotFoundError:
        return ()


def too_old(test: str) -> str:
    """Why a test cannot run with the packages that are installed; empty if it can.

    Args:
        test: Its node id, from tests/ on.
    """
    for package, first, what, names in NEEDED:
        if not any(test.startswith(name) for name in names):
            continue
        if () < have(package) < first:
            return f"{package} {version(package)} {what}"
    return ""
