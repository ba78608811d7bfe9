"""Assumptions of a fixed model about its inputs, kept in its metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.model.dim_names import as_multiple, words_in
from onnxlint.model.metadata import ASSUMES_KEY, SYMBOLS_KEY, metadata

if TYPE_CHECKING:
    import onnx

MAX_MULTIPLE = 10**9
"""Largest number of a condition: no axis of a tensor that fits a machine has more elements."""

MAX_AXES = 1024
"""Axes of an input at most, as far as damaged metadata is believed."""

_REMAINDER = re.compile(r"\s*([0-9]{1,10})\s*==\s*0\s*")


class Assumption(NamedTuple):
    """One condition, and a place where it can be checked.

    Attributes:
        clause: `H % 32 == 0`.
        multiple: Number that the size on the axis has to be a multiple of: 32, or 64 if the axis is `2*H`.
        input: Name of the graph input.
        axis: Its axis that has the size.
    """

    clause: str
    multiple: int
    input: str
    axis: int


def read_clause(text: str) -> tuple[str, int] | None:
    """(symbol, number) of a condition like `H % 32 == 0`; None for anything else, in time linear in its length."""
    symbol, percent, rest = text.rpartition("%")
    match = _REMAINDER.fullmatch(rest)
    symbol = symbol.strip()
    if not percent or not symbol or match is None or not 0 < int(match[1]) <= MAX_MULTIPLE:
        return None
    return symbol, int(match[1])


def combined_multiples(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Symbol → the number that it is a multiple of; several conditions on a symbol make their common multiple.

    What is said of the size `8*h` is about h: where that is a multiple of 16, h is one of 2.
    """
    found: dict[str, int] = {}
    for name, number in pairs:
        symbol, factor = as_multiple(name)
        found[symbol] = math.lcm(found.get(symbol, 1), number // math.gcd(number, factor))
    return found


def combined_clauses(clauses: Iterable[str]) -> list[str]:
    """Conditions with those on one symbol made into one: `H % 4 == 0` and `H % 3 == 0` are `H % 12 == 0`.

    Unreadable entries stay unchanged, and so do conditions whose common multiple no size can have.
    """
    whole: dict[str, int] = {}
    texts: dict[str, str] = {}
    for clause in map(str.strip, clauses):
        condition = read_clause(clause)
        if condition is None:
            texts.setdefault(clause, clause)
            continue
        symbol, number = condition
        together = math.lcm(whole.get(symbol, 1), number)
        if together > MAX_MULTIPLE:
            texts.setdefault(clause, clause)
            continue
        whole[symbol] = together
        texts[f"{symbol} %"] = f"{symbol} % {together} == 0"
    return list(texts.values())


def assumptions(model: onnx.ModelProto) -> Iterator[Assumption]:
    """Assumptions in the model's metadata, at each known place."""
    properties = metadata(model)
    if ASSUMES_KEY not in properties:
        return
    known = _factors(model, properties.get(SYMBOLS_KEY, ""))
    for clause in properties[ASSUMES_KEY].split(" and "):
        condition = read_clause(clause)
        if condition is not None:
            for name, axis, factor in known.get(condition[0], ()):
                yield Assumption(clause.strip(), condition[1] * factor, name, axis)


def unusable_assumptions(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Conditions in the model's metadata that nothing can be done with: (condition, why)."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if ASSUMES_KEY not in properties:
        return []
    known = {*_factors(model, properties.get(SYMBOLS_KEY, "")), *_within(model)}
    found: list[tuple[str, str]] = []
    for clause in properties[ASSUMES_KEY].split(" and "):
        condition = read_clause(clause)
        if condition is None:
            found.append((clause.strip(), "is not of the form 'H % 32 == 0'"))
        elif condition[0] not in known:
            found.append((clause.strip(), "is about a size that no input has"))
    return found


def note_assumptions(model: onnx.ModelProto, clauses: Sequence[str]) -> None:
    """Add conditions to the model's metadata, in place, and where their symbols stand."""
    entry = next((entry for entry in model.metadata_props if entry.key == ASSUMES_KEY), None)
    if entry is None:
        entry = model.metadata_props.add(key=ASSUMES_KEY, value=" and ".join(combined_clauses(clauses)))
    else:
        entry.value = " and ".join(combined_clauses([*entry.value.split(" and "), *clauses]))
    note_symbols(model, clause_symbols(entry.value))


def note_symbols(model: onnx.ModelProto, symbols: Iterable[str]) -> None:
    """Write down where symbols stand, in place: the model may be given numbers for them later."""
    properties = {entry.key: entry for entry in model.metadata_props}
    entry = properties.get(SYMBOLS_KEY)
    known = _places(model, entry.value if entry is not None else "")
    text = json.dumps({symbol: known[symbol] for symbol in dict.fromkeys(symbols) if symbol in known})
    if entry is None:
        model.metadata_props.add(key=SYMBOLS_KEY, value=text)
    else:
        entry.value = text


def clause_symbols(text: str) -> list[str]:
    """Symbols that conditions are about."""
    return [condition[0] for clause in text.split(" and ") if (condition := read_clause(clause))]


def _factors(model: onnx.ModelProto, noted: str) -> dict[str, list[tuple[str, int, int]]]:
    """Symbol → (input, axis, factor): the size on the axis is the symbol times the factor."""
    found = {symbol: [(*place, 1) for place in places] for symbol, places in _places(model, noted).items()}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            symbol, factor = as_multiple(dim.dim_param)
            if symbol != dim.dim_param:
                found.setdefault(symbol, []).append((value.name, axis, factor))
    return found


def _within(model: onnx.ModelProto) -> set[str]:
    """Symbols of sizes that are expressions: what holds for these cannot be read off a number."""
    dims = (dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim)
    return {word for dim in dims for word in words_in(dim)}


def _places(model: onnx.ModelProto, noted: str) -> dict[str, Sequence[tuple[str, int]]]:
    """Symbol → (input, axis) pairs: those noted, and those that the inputs have now."""
    places: dict[str, dict[tuple[str, int], None]] = {}
    try:
        pairs = [
            (symbol, str(name), axis)
            for symbol, all_of in json.loads(noted).items()
            for name, axis in all_of
            if isinstance(axis, int) and 0 <= axis < MAX_AXES
        ]
    except (ValueError, TypeError, AttributeError, RecursionError):
        pairs = []  # absent, or damaged: the inputs' own symbols are left
    for symbol, name, axis in pairs:
        places.setdefault(symbol, {})[(name, axis)] = None
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            places.setdefault(f"{value.name}[{axis}]", {})[(value.name, axis)] = None
            if dim.dim_param:
                places.setdefault(dim.dim_param, {})[(value.name, axis)] = None
    return {symbol: list(found) for symbol, found in places.items()}
