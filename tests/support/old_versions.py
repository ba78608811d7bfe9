"""Tests that need versions which Python 3.10 does not have: its last onnxruntime is 1.23, its last onnxsim 0.7."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

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
            "fixes/test_opset.py::test_an_old_operator_gives_the_same_numbers[10: q = QuantizeLinear(x, s, z) y",
            "fixes/test_opset.py::test_an_old_operator_gives_the_same_numbers[9: y = LpNormalization",
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
            "verification/test_sizes.py::test_an_axis_named_n_is_no_batch_because_of_its_name",
            "rules/test_shp_empty.py::test_an_empty_batch_beside_minus_one_needs_allowzero[0]",
        ),
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


def too_old(test: str) -> str:
    """Why a test cannot run with the packages that are installed; empty if it can.

    Args:
        test: Its node id, from tests/ on.
    """
    for package, first, what, names in NEEDED:
        if not any(test.startswith(name) for name in names):
            continue
        try:
            have = version(package)
        except PackageNotFoundError:
            continue
        if tuple(map(int, have.split(".")[:2])) < first:
            return f"{package} {have} {what}"
    return ""
