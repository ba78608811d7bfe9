"""Rewrites of the PyTorch line of a finding, if it is one call on one line."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from fractions import Fraction

LONGEST = 1000
"""Characters of a line that is looked at."""


def with_scale_factor(line: str, factors: Sequence[Fraction]) -> str:
    """`F.interpolate(x, size=y.shape[2:])` with `scale_factor=` in place of the size; empty if it is not such a line.

    Args:
        line: One line of Python, stripped.
        factors: Of the spatial axes.
    """
    call = _only_call(line, "interpolate")
    if call is None or any(keyword.arg in ("scale_factor", None) for keyword in call.keywords):
        return ""
    size = next((keyword for keyword in call.keywords if keyword.arg == "size"), None)
    span = size if size is not None else call.args[1] if len(call.args) == 2 else None
    if span is None or isinstance(span, ast.Starred):
        return ""
    return _replaced(line, span, f"scale_factor={scale_text(factors)}")


def scale_text(factors: Sequence[Fraction]) -> str:
    """The value of `scale_factor=`: `2`, `3 / 2`, `(2, 1)`."""
    values = [_number(factor) for factor in factors]
    return values[0] if len(set(values)) == 1 else f"({', '.join(values)})"


def with_flatten(line: str) -> str:
    """`x.view(x.size(0), -1)` as `x.flatten(1)`; empty if it is not such a line."""
    call = _only_call(line, "view") or _only_call(line, "reshape")
    if call is None or len(call.args) != 2 or call.keywords or not isinstance(call.func, ast.Attribute):
        return ""
    owner = call.func.value
    batch, rest = call.args
    name = ast.unparse(owner)
    if ast.unparse(rest) != "-1" or ast.unparse(batch) not in (f"{name}.size(0)", f"{name}.shape[0]"):
        return ""
    text = ast.get_source_segment(line, owner)
    return _replaced(line, call, f"{text}.flatten(1)") if text else ""


def _only_call(line: str, name: str) -> ast.Call | None:
    """The one call of a function or method of a name on a line; None if there are none or several."""
    if len(line) > LONGEST or not line.isascii():  # columns are bytes
        return None
    try:
        tree = ast.parse(f"{line}\n    pass" if line.endswith(":") else line)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # a part of a statement
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == name]
    return calls[0] if len(calls) == 1 and calls[0].lineno == calls[0].end_lineno == 1 else None


def _name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _replaced(line: str, span: ast.expr | ast.keyword, text: str) -> str:
    end = span.end_col_offset
    return "" if end is None else f"{line[: span.col_offset]}{text}{line[end:]}"


def _number(factor: Fraction) -> str:
    return str(factor.numerator) if factor.denominator == 1 else f"{factor.numerator} / {factor.denominator}"
