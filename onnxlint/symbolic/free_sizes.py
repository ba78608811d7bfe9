"""Free sizes of a model's inputs, and the names that conditions on them may use."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from onnxlint.graph.view import GraphView
from onnxlint.model.assumptions import read_clause
from onnxlint.model.dim_names import as_multiple, axis_symbol
from onnxlint.symbolic.expressions import parse_size
from onnxlint.symbolic.sizes import symbols


class FreeSize(NamedTuple):
    """A free size of an input.

    Attributes:
        input, axis: Where.
        name: In the file, or `x[2]` where that names no size.
        symbol, factor: The size is the symbol times the factor: h and 8 where it is `8*h`.
        within: Other symbols, where the size is another expression: s0 in `2*s0 + 1`.
        letter: N, H or W where the input is an image and the axis is one of these.
    """

    input: str
    axis: int
    name: str
    symbol: str
    factor: int
    within: frozenset[str]
    letter: str


def free_sizes(view: GraphView) -> tuple[FreeSize, ...]:
    """Free sizes of all inputs."""
    return tuple(
        _free_size(name, axis, dim or "", len(shape))
        for name in view.main.data_inputs
        for shape in [view.main.shape(name) or ()]
        for axis, dim in enumerate(shape)
        if not isinstance(dim, int)
    )


def _free_size(value: str, axis: int, dim: str, rank: int) -> FreeSize:
    name = axis_symbol(dim, value, axis)
    symbol, factor = as_multiple(name)
    parsed = parse_size(name) if symbol == name else None
    letter = {0: "N", rank - 2: "H", rank - 1: "W"}.get(axis, "") if rank >= 4 else ""
    return FreeSize(value, axis, name, symbol, factor, frozenset() if parsed is None else symbols(parsed), letter)


def named(sizes: Iterable[FreeSize], name: str) -> list[str]:
    """Sizes that a name stands for, as conditions have them: its exact name, else whatever its case, else N, H or W.

    In place of the name of a whole size its symbol may be given: both `8*h` and h.
    """
    known = tuple(sizes)
    whole = list(dict.fromkeys(size.name for size in known))
    inner = [symbol for size in known for symbol in (size.symbol, *size.within)]
    found = [one for one in whole if one.strip() == name]
    if found or name in inner:
        return found or [name]
    found = [one for one in whole if one.lower() == name.lower()]
    found = found or [size.name for size in known if size.letter and size.letter == name.upper()]
    found = found or [one for one in inner if one.lower() == name.lower()]
    return list(dict.fromkeys(found))


def image_sides(sizes: Iterable[FreeSize]) -> list[FreeSize]:
    """Heights and widths of images."""
    return [size for size in sizes if size.letter in ("H", "W")]


def option_for(sizes: Iterable[FreeSize], condition: str) -> str:
    """The option of `onnxlint fix` that allows what is exact under a condition: `--multiple-of 32` where all of it follows
    from what height and width of images are multiples of, else `--assume` and the condition."""
    sides = image_sides(sizes)
    multiple = 1
    for text in condition.split(" and "):
        clause = read_clause(text)
        factors = [size.factor for size in sides if clause is not None and size.symbol == clause[0]]
        if clause is None or not factors:
            return f"--assume {shlex.quote(condition.replace(' and ', ','))}"
        multiple = math.lcm(multiple, clause[1] * min(factors))
    return f"{MULTIPLE_OF}{multiple}"


MULTIPLE_OF = "--multiple-of "
"""The option for the height and width of images, before its number."""
