"""Conditions on the sizes of inputs: read from the command line and from a model's metadata, combined, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from onnxlint.errors import OnnxlintError
from onnxlint.model.assumptions import MAX_MULTIPLE, combined_multiples, read_clause
from onnxlint.model.metadata import ASSUMES_KEY, metadata
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.free_sizes import FreeSize, free_sizes, image_sides, named
from onnxlint.symbolic.view import make_view
from onnxlint.text import brief, listed

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


def require_fitting(model: Model, assumptions: Sequence[str], sizes: Mapping[str, Sequence[int]]) -> None:
    """Refuse conditions that the sizes that a model is used at do not meet.

    Args:
        model: The model.
        assumptions: As for `noted_multiples`.
        sizes: Input → its shape, as it will be.

    Raises:
        OnnxlintError: A condition is malformed, about a size that no input has, or not met.
    """
    if not assumptions:
        return
    free = free_sizes(make_view(model))
    for text in assumptions:
        names, number = _assumed(free, text)
        wanted = combined_multiples((name, number) for name in names)
        for one in free:
            shape = sizes.get(one.input, ())
            if one.axis < len(shape) and shape[one.axis] % (one.factor * wanted.get(one.symbol, 1)):
                there = f"input {brief(one.input)!r} will have {brief(one.name)} = {shape[one.axis]}"
                raise OnnxlintError(f"{_shown(text)}: {there}; change the condition or --shape")


def noted_multiples(model: Model, assumptions: Sequence[str] = (), multiple_of: int | None = None) -> dict[str, int]:
    """Symbol → number that it is a multiple of, from the command line and from the model's own metadata.

    Conditions in the metadata that cannot be used are left out: SHP011 reports them.

    Args:
        model: The model.
        assumptions: `H % 32 == 0` and the like; symbols of the inputs, or N, H and W for the axes of images.
        multiple_of: The same for the height and width of all images.

    Raises:
        OnnxlintError: An assumption of the command line is malformed, or about a size that no input has.
    """
    known = metadata(model.proto).get(ASSUMES_KEY, "")
    if not assumptions and multiple_of is None and not known:
        return {}
    sizes = free_sizes(make_view(model))
    pairs = [(side.name, multiple_of) for side in image_sides(sizes) if multiple_of is not None]
    for text in assumptions:
        names, number = _assumed(sizes, text)
        pairs += [(name, number) for name in names]
    for text in known.split(" and "):
        parsed = read_clause(text)
        if parsed is not None:
            pairs += [(name, parsed[1]) for name in named(sizes, parsed[0])]
    return combined_multiples(pairs)


def _assumed(sizes: Sequence[FreeSize], text: str) -> tuple[list[str], int]:
    """The sizes that an assumption of the user is about, and the number that they are multiples of.

    Raises:
        OnnxlintError: It is malformed, or about a size that no input has.
    """
    name, number = read_assumption(text)
    found = named(sizes, name)
    if not found:
        names = dict.fromkeys(size.name for size in sizes)
        there = listed(map(brief, names), 12) if names else "none"
        raise OnnxlintError(f"{_shown(text)}: no input has a free size {brief(name)!r}; free sizes: {there}")
    return found, number
