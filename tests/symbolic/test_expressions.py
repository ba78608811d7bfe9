"""Dimensions that are expressions: what sympy prints is read back as the same size."""

from __future__ import annotations

import time

import pytest
import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

from onnxlint.symbolic.expressions import parse_size
from onnxlint.symbolic.sizes import Size, ceil_div, substitute
from tests.support.guards import reached, reaching

H, W, S = Size.symbol("h"), Size.symbol("w"), Size.symbol("s0")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32*h", H * 32),
        ("h*32", H * 32),
        ("s0//2", S // 2),
        ("(h+1)//2", ceil_div(H, 2)),
        ("(h + 1)//2", ceil_div(H, 2)),
        ("((s0 - 1)//2) + 1", (S - 1) // 2 + 1),
        ("2*s0 - 1", S * 2 - 1),
        ("h*w", H * W),
        ("s0**2", S * S),
        ("-h + 2*w", W * 2 - H),
        ("floor(h/2)", H // 2),
        ("ceiling(h/16)", ceil_div(H, 16)),
        ("ceil(h/16)", ceil_div(H, 16)),
        ("FloorDiv(h, 4)", H // 4),
        ("CeilToInt(IntTrueDiv(h, 4))", ceil_div(H, 4)),
        ("Max(1, h)", H),
        ("Mod(h, 2)", H - (H // 2) * 2),
        (
            "past_sequence_length + sequence_length",
            Size.symbol("past_sequence_length") + Size.symbol("sequence_length"),
        ),
    ],
)
def test_expressions(text: str, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("h", "batch", "", "batch-size", "height/32", "batch x heads", "a.b", "3", "2*3", "-1", "2.5*h", "1e9*h"),
        *(
            "h//0",
            "h//w",
            "h/0",
            "floor(h)(2)",
            "h**-1",
            "h**99",
            "h +",
            "(h",
            "h)",
            "f(h)",
            "Max(h, w)",
            "import os",
            "h;w",
        ),
    ],
)
def test_names_are_no_expressions(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "h" + ")" * 5000,
        "(" * 100 + "h" + ")" * 100,
        " " * 100_000,
        "h*" * 100_000 + "h",
        "*".join(["(a + b + c + d)"] * 16),
        "h**9999999999",
        "9" * 5000 + "*h",
        "-" * 250 + "h",
    ],
)
def test_hostile_texts_cost_nothing(text: str) -> None:
    start = time.process_time()
    assert parse_size(text) is None
    assert time.process_time() - start < 0.5


h, w = sympy.symbols("h w", integer=True, positive=True)
SYMPY = st.recursive(
    st.one_of(st.sampled_from([h, w]), st.integers(1, 9).map(sympy.Integer)),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, n: sympy.floor(a / n), inner, st.integers(1, 8)),
        st.builds(lambda a, n: sympy.ceiling(a / n), inner, st.integers(1, 8)),
    ),
    max_leaves=6,
)


@reaching(30)
@given(SYMPY, st.integers(1, 99), st.integers(1, 99))
def test_what_sympy_prints(expression: sympy.Expr, height: int, width: int) -> None:
    assume(expression.free_symbols and not expression.is_Symbol)
    size = parse_size(str(expression))
    if size is not None:
        reached()
        assert substitute(size, {"h": height, "w": width}) == expression.subs({h: height, w: width})


def test_most_of_what_sympy_prints_is_understood() -> None:
    texts = [
        str(e)
        for e in (32 * h, h * w, sympy.floor((h + 1) / 2), 2 * h - 1, (h - 1) * w, h**2 + 3, sympy.floor(h / 2) + 1)
    ]
    assert [text for text in texts if parse_size(text) is None] == []
