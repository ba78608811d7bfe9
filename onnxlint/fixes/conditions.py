"""Conditions on the sizes of inputs: read from the command line and from a model's metadata, combined, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.model.assumptions import MAX_MULTIPLE, read_clause
from onnxlint.model.dim_names import axis_symbol
from onnxlint.model.metadata import ASSUMES_KEY, metadata
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.text import brief, listed

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView

MAX_SHOWN = 60
"""Characters of a condition that a message repeats."""


def strictest(clauses: Iterable[str]) -> list[str]:
    """Conditions with those on one symbol combined into one (their least common multiple)."""
    multiples: dict[str, int] = {}
    others: dict[str, None] = {}
    for clause in clauses:
        condition = read_clause(clause)
        if condition is None:
            others[clause] = None
        else:
            symbol, number = condition
            multiples[symbol] = math.lcm(multiples.get(symbol, 1), number)
    return [*(f"{symbol} % {multiple} == 0" for symbol, multiple in multiples.items()), *others]


def holds(clause: str, multiples: Mapping[str, int]) -> bool:
    """Whether a condition follows from what is assumed: symbol → number that it is a multiple of."""
    condition = read_clause(clause)
    return condition is not None and multiples.get(condition[0], 1) % condition[1] == 0


def multiples_in(clauses: Iterable[str]) -> dict[str, int]:
    """Symbol → number that conditions say it is a multiple of."""
    return dict(condition for clause in strictest(clauses) if (condition := read_clause(clause)) is not None)


def read_assumption(text: str) -> tuple[str, int]:
    """The symbol of a condition that the user gave, and the number that it is a multiple of.

    Raises:
        OnnxlintError: It is malformed.
    """
    parsed = read_clause(text)
    if parsed is None:
        raise OnnxlintError(f"{_shown(text)}: write it as 'H % 32 == 0', with a number from 1 to {MAX_MULTIPLE}")
    return parsed


def _shown(assumption: str) -> str:
    return f"--assume {brief(assumption, MAX_SHOWN)!r}"


def require_fitting(proto: onnx.ModelProto, assumptions: Sequence[str], sizes: Mapping[str, Sequence[int]]) -> None:
    """Refuse conditions that the sizes that a model is used at do not meet.

    Args:
        proto: The model.
        assumptions: As for `noted_multiples`.
        sizes: Input → its shape, as it will be.

    Raises:
        OnnxlintError: A condition is malformed, about a size that no input has, or not met.
    """
    if not assumptions:
        return
    view = make_view(Model("", proto, 0))
    free = _Sizes(view)
    for text in assumptions:
        symbols, number = free.assumed(text)
        for name, shape in sizes.items():
            for axis, (dim, size) in enumerate(zip(view.main.shape(name) or (), shape, strict=False)):
                symbol = "" if isinstance(dim, int) else axis_symbol(dim or "", name, axis)
                if symbol in symbols and size % number != 0:
                    there = f"input {brief(name)!r} will have {brief(symbol)} = {size}"
                    raise OnnxlintError(f"{_shown(text)}: {there}; change the condition or --shape")


def noted_multiples(
    proto: onnx.ModelProto, assumptions: Sequence[str] = (), multiple_of: int | None = None
) -> dict[str, int]:
    """Symbol → number that it is a multiple of, from the command line and from the model's own metadata.

    Conditions in the metadata that cannot be used are left out: SHP011 reports them.

    Args:
        proto: The model.
        assumptions: `H % 32 == 0` and the like; symbols of the inputs, or N, H and W for the axes of images.
        multiple_of: The same for the height and width of all images.

    Raises:
        OnnxlintError: An assumption of the command line is malformed, or about a size that no input has.
    """
    known = metadata(proto).get(ASSUMES_KEY, "")
    if not assumptions and multiple_of is None and not known:
        return {}
    sizes = _Sizes(make_view(Model("", proto, 0)))
    multiples: dict[str, int] = {}

    def add(symbols: Iterable[str], number: int) -> None:
        for symbol in symbols:
            multiples[symbol] = math.lcm(multiples.get(symbol, 1), number)

    if multiple_of is not None:
        add(sizes.spatial, multiple_of)
    for text in assumptions:
        add(*sizes.assumed(text))
    for text in known.split(" and "):
        parsed = read_clause(text)
        if parsed is not None:
            add(sizes.named(parsed[0]), parsed[1])
    return multiples


class _Sizes:
    """Free sizes of a model's inputs, and the names that users may give them."""

    def __init__(self, view: GraphView) -> None:
        self.symbols: dict[str, None] = {}
        self.spatial: dict[str, None] = {}
        self._letters: dict[str, dict[str, None]] = {"N": {}, "H": {}, "W": {}}
        for name in view.main.data_inputs:
            shape = view.main.shape(name) or ()
            for axis, dim in enumerate(shape):
                if isinstance(dim, int):
                    continue
                symbol = axis_symbol(dim or "", name, axis)
                self.symbols[symbol] = None
                if len(shape) >= 4 and axis >= len(shape) - 2:
                    self.spatial[symbol] = None
                    self._letters["H" if axis == len(shape) - 2 else "W"][symbol] = None
                elif len(shape) >= 4 and axis == 0:
                    self._letters["N"][symbol] = None

    def named(self, name: str) -> list[str]:
        """Symbols that a name stands for: exactly, else whatever its case, else the axes that N, H and W mean."""
        found = [symbol for symbol in self.symbols if symbol == name]
        found = found or [symbol for symbol in self.symbols if symbol.lower() == name.lower()]
        return found or list(self._letters.get(name.upper(), ()))

    def assumed(self, text: str) -> tuple[list[str], int]:
        """The symbols that an assumption of the user is about, and the number that they are multiples of.

        Raises:
            OnnxlintError: It is malformed, or about a size that no input has.
        """
        name, number = read_assumption(text)
        found = self.named(name)
        if not found:
            there = listed(map(brief, self.symbols), 12) if self.symbols else "none"
            raise OnnxlintError(f"{_shown(text)}: no input has a free size {brief(name)!r}; free sizes: {there}")
        return found, number
