"""Lines of PyTorch rewritten: only what is one call on one line, and then exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxlint_rules.shp._python import with_flatten, with_scale_factor

TWO = (Fraction(2), Fraction(2))


@pytest.mark.parametrize(
    ("line", "better"),
    [
        (
            'up3 = F.interpolate(output3, size=[output2.size(2), output2.size(3)], mode="nearest")',
            'up3 = F.interpolate(output3, scale_factor=2, mode="nearest")',
        ),
        ("return F.interpolate(x, y.shape[2:])", "return F.interpolate(x, scale_factor=2)"),
        ("x = y + nn.functional.interpolate(x, size=(h, w))", "x = y + nn.functional.interpolate(x, scale_factor=2)"),
        ("if interpolate(x, size=s).sum():", "if interpolate(x, scale_factor=2).sum():"),
        ("up = F.interpolate(x, scale_factor=2)", ""),
        ("up = F.interpolate(x, **options)", ""),
        ("up = F.interpolate(x, *sizes)", ""),
        ("up = F.interpolate(", ""),
        ("x, y = F.interpolate(a, size=s), F.interpolate(b, size=t)", ""),
        ("up = F.interpolate(größe, size=s)", ""),
        ("", ""),
    ],
)
def test_interpolate(line: str, better: str) -> None:
    assert with_scale_factor(line, TWO) == better


def test_factors_of_two_axes() -> None:
    assert with_scale_factor("F.interpolate(x, size=s)", (Fraction(2), Fraction(3, 2))) == (
        "F.interpolate(x, scale_factor=(2, 3 / 2))"
    )


@pytest.mark.parametrize(
    ("line", "better"),
    [
        ("x = x.view(x.size(0), -1)", "x = x.flatten(1)"),
        ("return self.fc(x.view(x.shape[0], -1))", "return self.fc(x.flatten(1))"),
        ("x = self.pool(x).reshape(x.size(0), -1)", ""),
        ("x = x.view(y.size(0), -1)", ""),
        ("x = x.view(x.size(0), -1, 4)", ""),
        ("x = x.view(x.size(1), -1)", ""),
    ],
)
def test_flatten(line: str, better: str) -> None:
    assert with_flatten(line) == better


@given(st.text(max_size=80))
def test_any_text_is_taken(line: str) -> None:
    for rewritten in (with_scale_factor(line, TWO), with_flatten(line)):
        assert "\n" not in rewritten or "\n" in line
