"""Names of dimensions that name no size."""

from __future__ import annotations

import pytest

from onnxlint.model.dim_names import MAX_NAME, as_multiple, axis_symbol, is_placeholder


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "?", "??", "?3", "*", "_", "-", "-1", "0", "224"),
        *("None", "none", "NONE_1", "null", "nan", "unk", "unk__12", "unk__batch", "unknown", "Unknown_3", "undefined"),
        *("dynamic", "dynamic_axes_1", "dyn", "any", "DynamicDimension.0", "p2o.DynamicDimension.1", "FreeDimension"),
        *(
            "min(H,512)",
            "x[2]",
            "N/A",
            "n/a",
            "N / A",
            "n.a.",
            "na",
            "−1",
            "…",
            "\n",
            "batch?",
            "<unk>",
            "(none)",
            "'None'",
        ),
        *("None + 1", "2*unk__3", "(unknown + 1)//2", "3*4", "h + 0*w", "0*h", "h*0", "a/b", "h//w", "floor(h/w)"),
    ],
)
def test_placeholders(name: str) -> None:
    assert is_placeholder(name)
    assert axis_symbol(name, "x", 1) == "x[1]"


@pytest.mark.parametrize(
    "name",
    [
        *("N", "b", "batch", "batch_size", "h", "height", "s0", "u0", "32*h", "seq-len", "anchors", "nonet", "unkempt"),
        *("naive", "info", "void_of", "(h + 1)//2", "H/32", "10*h", "h*10", "h**2", "h - 1", "Max(1, s0)", "batch (N)"),
        *("past_sequence_length + 1", "CeilToInt(IntTrueDiv(h, 2))", "dynamic batch", "any-length", "b:0", "批次"),
    ],
)
def test_names(name: str) -> None:
    assert not is_placeholder(name)
    assert axis_symbol(name, "x", 1) == name


def test_long_names_cost_nothing() -> None:
    assert not is_placeholder("_" * 10**6 + "x")
    assert is_placeholder("_" * (MAX_NAME - 1) + "-")


@pytest.mark.parametrize(
    ("name", "is_as"),
    [
        *((text, ("h", 8)) for text in ("8*h", "h*8", "8 * h", "2*h*4", " 8*h ")),
        *(
            (text, (text, 1))
            for text in ("h", "8*h + 1", "h*w", "h**2", "0*h", "-8*h", "8*(h//8)", "8*", "*", "", "9999999999*h")
        ),
    ],
)
def test_a_number_times_a_symbol(name: str, is_as: tuple[str, int]) -> None:
    assert as_multiple(name) == is_as
