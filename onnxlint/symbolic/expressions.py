"""Dimensions that exporters write as expressions: `32*h`, `s0//2`, `((s0 - 1)//2) + 1`.

`torch.onnx.export(dynamo=True)` names a dimension by the expression that its shape environment has for it, as sympy prints
it. Names that people give (`batch-size`, `height/32`) are left alone: `-` is an operator only between spaces or within
parentheses, and `/` only within `floor(…)` and `ceiling(…)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, ceil_div, lower_bound, symbols, truncated

MAX_LENGTH = 256
"""Longer texts are names."""

MAX_DEPTH = 16
"""Parentheses within parentheses."""

MAX_EXPONENT = 4

_TOKEN = re.compile(r"(?P<minus>(?P<spaced> )?-)|//|\*\*|[+*/(),]|[0-9]{1,18}(?![\w.])|[A-Za-z_][\w.]*|(?P<space> )")

Ratio = tuple[AnySize, int]


class _NotAnExpressionError(Exception):
    """The text is a name, or means something that is not followed."""


@lru_cache(maxsize=4096)
def parse_size(text: str) -> AnySize | None:
    """The size that the text of a dimension means; None if it is a plain name or cannot be followed."""
    if len(text) > MAX_LENGTH or re.fullmatch(r"[\w.]*", text):
        return None
    try:
        parser = _Parser(_tokens(text.strip()))
        num, den = parser.sum(0)
        parser.end()
    except (_NotAnExpressionError, TooComplexError):
        return None
    # A symbol that cancels out (`h - h + w`) was not written by an exporter: what the text means cannot be told.
    return num if den == 1 and isinstance(num, Size) and symbols(num) == parser.names else None


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = depth = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or (match["minus"] and tokens and not match["spaced"] and not depth):
            raise _NotAnExpressionError
        place = match.end()
        if not match["space"]:
            tokens.append(match[0].strip())
            depth += (tokens[-1] == "(") - (tokens[-1] == ")")
    return tokens


class _Parser:
    """Recursive descent; every value is a size and the number that it is divided by."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.names: set[str] = set()
        self.place = 0

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def end(self) -> None:
        if self.peek():
            raise _NotAnExpressionError

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise _NotAnExpressionError

    def sum(self, depth: int) -> Ratio:
        if depth > MAX_DEPTH:
            raise _NotAnExpressionError
        negative = self.peek() == "-"
        if negative:
            self.take()
        num, den = self.product(depth)
        num = num * -1 if negative else num
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            other, below = self.product(depth)
            num, den = num * below + other * den * sign, den * below
        return num, den

    def product(self, depth: int) -> Ratio:
        num, den = self.power(depth)
        while self.peek() in ("*", "/", "//"):
            operator = self.take()
            other, below = self.power(depth)
            if operator == "*":
                num, den = num * other, den * below
                continue
            if not isinstance(other, int) or other <= 0 or below != 1:
                raise _NotAnExpressionError
            num, den = (num, den * other) if operator == "/" else (num // (den * other), 1)
        return num, den

    def power(self, depth: int) -> Ratio:
        num, den = self.atom(depth)
        if self.peek() != "**":
            return num, den
        self.take()
        exponent = self.take()
        if not exponent.isdecimal() or not 1 <= int(exponent) <= MAX_EXPONENT or den != 1:
            raise _NotAnExpressionError
        result = num
        for _ in range(int(exponent) - 1):
            result = result * num
        return result, 1

    def atom(self, depth: int) -> Ratio:
        token = self.take()
        if token == "(":
            value = self.sum(depth + 1)
            self.expect(")")
            return value
        if token.isdecimal():
            return int(token), 1
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise _NotAnExpressionError
        if self.peek() != "(":
            self.names.add(token)
            return Size.symbol(token), 1
        call = _FUNCTIONS.get(token)
        if call is None:
            raise _NotAnExpressionError
        return call(self.arguments(depth))

    def arguments(self, depth: int) -> list[Ratio]:
        self.expect("(")
        found = [self.sum(depth + 1)]
        while self.peek() == ",":
            self.take()
            found.append(self.sum(depth + 1))
        self.expect(")")
        return found


def _floor(arguments: list[Ratio]) -> Ratio:
    ((num, den),) = _exactly(1, arguments)
    return num // den, 1


def _ceiling(arguments: list[Ratio]) -> Ratio:
    ((num, den),) = _exactly(1, arguments)
    return ceil_div(num, den), 1


def _truncated(arguments: list[Ratio]) -> Ratio:
    ((num, den),) = _exactly(1, arguments)
    return truncated(num, den), 1


def _ratio(arguments: list[Ratio]) -> Ratio:
    (num, den), (by, below) = _exactly(2, arguments)
    if not isinstance(by, int) or by <= 0 or below != 1:
        raise _NotAnExpressionError
    return num, den * by


def _floor_ratio(arguments: list[Ratio]) -> Ratio:
    return _floor([_ratio(arguments)])


def _modulo(arguments: list[Ratio]) -> Ratio:
    (num, den), (by, below) = _exactly(2, arguments)
    if not isinstance(by, int) or by <= 0 or den != 1 or below != 1:
        raise _NotAnExpressionError
    return num - (num // by) * by, 1


def _maximum(arguments: list[Ratio]) -> Ratio:
    """The one that is never below the other: `Max(1, h)` is h."""
    (a, den), (b, below) = _exactly(2, arguments)
    if den == below == 1:
        for one, other in ((a, b), (b, a)):
            bound = lower_bound(one - other)
            if bound is not None and bound >= 0:
                return one, 1
    raise _NotAnExpressionError


def _exactly(count: int, arguments: list[Ratio]) -> list[Ratio]:
    if len(arguments) != count:
        raise _NotAnExpressionError
    return arguments


_FUNCTIONS: dict[str, Callable[[list[Ratio]], Ratio]] = {
    "CeilToInt": _ceiling,
    "CleanDiv": _floor_ratio,
    "FloorDiv": _floor_ratio,
    "FloorToInt": _floor,
    "IntTrueDiv": _ratio,
    "Max": _maximum,
    "Mod": _modulo,
    "PythonMod": _modulo,
    "ceil": _ceiling,
    "ceiling": _ceiling,
    "floor": _floor,
    "trunc": _truncated,
}
"""Functions that sympy and torch's shape environment print."""
