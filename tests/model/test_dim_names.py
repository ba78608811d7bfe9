"""Names of dimensions that name no size."""

from __future__ import annotations

import pytest

from onnxlint.model.dim_names import MAX_NAME, axis_symbol, is_placeholder


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "?", "??", "?3", "*", "_", "-", "-1", "0", "224"),
        *("None", "none", "NONE_1", "null", "nan", "unk", "unk__12", "unk__batch", "unknown", "Unknown_3", "undefined"),
        *("dynamic", "dynamic_axes_1", "dyn", "any", "DynamicDimension.0", "p2o.DynamicDimension.1", "FreeDimension"),
        *("min(H,512)", "x[2]"),
    ],
)
def test_placeholders(name: str) -> None:
    assert is_placeholder(name)
    assert axis_symbol(name, "x", 1) == "x[1]"


@pytest.mark.parametrize(
    "name",
    ["N", "b", "batch", "batch_size", "h", "height", "s0", "u0", "32*h", "seq-len", "anchors", "nonet", "unkempt"],
)
def test_names(name: str) -> None:
    assert not is_placeholder(name)
    assert axis_symbol(name, "x", 1) == name


def test_long_names_cost_nothing() -> None:
    assert not is_placeholder("_" * 10**6 + "x")
    assert is_placeholder("_" * (MAX_NAME - 1) + "-")
