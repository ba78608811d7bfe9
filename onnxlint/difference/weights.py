"""Compare the values of two models' weights in chunks: a weight is never held as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from onnxlint.difference.constants import Constant, raw_bytes, type_text
from onnxlint.difference.result import Change, Detail, WeightChange, Weights
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import usable_cores

PIECE = 1 << 20
"""Elements that are compared at a time."""

Pair = tuple[Constant, Constant]


@dataclass(frozen=True)
class _Distance:
    """Sums over the elements of two weights of one type and shape."""

    differing: int = 0
    squares: float = 0.0
    reference: float = 0.0
    largest: float = 0.0
    problem: str = ""


def compare_weights(pairs: Sequence[Pair], gone: Sequence[Constant], came: Sequence[Constant]) -> Weights:
    """What became of the weights.

    Args:
        pairs: (old, new): weights that stand in the same place.
        gone: Weights of the old model that have no counterpart.
        came: Weights of the new model that have none.
    """
    comparable = [pair for pair in pairs if (pair[0].dtype, pair[0].shape) == (pair[1].dtype, pair[1].shape)]
    distances = dict(zip(((a.key, b.key) for a, b in comparable), _distances(comparable), strict=True))
    changes: list[WeightChange] = []
    renamed: list[tuple[str, str]] = []
    unread: list[str] = []
    squares = reference = 0.0
    for old, new in pairs:
        distance = distances.get((old.key, new.key))
        if distance is not None and distance.problem:
            unread.append(distance.problem)
        elif distance is not None and not distance.differing:
            if old.name != new.name:
                renamed.append((old.name, new.name))
        else:
            changes.append(_changed(old, new, distance))
            if distance is not None:
                squares, reference = squares + distance.squares, reference + distance.reference
    changes += [WeightChange(Change.REMOVED, one.name, (_type(one, None),), one.elements) for one in gone]
    changes += [WeightChange(Change.ADDED, one.name, (_type(None, one),), one.elements) for one in came]
    compared = sum(not distance.problem for distance in distances.values())
    return Weights(compared, tuple(changes), tuple(renamed), _ratio(squares, reference), tuple(unread))


def _changed(old: Constant, new: Constant, distance: _Distance | None) -> WeightChange:
    details = []
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        details.append(_type(old, new))
    if old.name != new.name:
        details.append(Detail("name", old.name, new.name))
    if distance is None:
        return WeightChange(Change.CHANGED, new.name, tuple(details), new.elements)
    return WeightChange(
        Change.CHANGED,
        new.name,
        tuple(details),
        new.elements,
        distance.differing,
        _ratio(distance.squares, distance.reference),
        distance.largest if math.isfinite(distance.largest) else None,
    )


def _type(old: Constant | None, new: Constant | None) -> Detail:
    before, after = (type_text(one.dtype, one.shape) if one is not None else "" for one in (old, new))
    return Detail("type", before, after)


def _ratio(squares: float, reference: float) -> float | None:
    """Relative norm; None if it is not a number, or the old values are all zero."""
    if not (math.isfinite(squares) and math.isfinite(reference)) or reference <= 0:
        return None
    return math.sqrt(squares / reference)


def _distances(pairs: Sequence[Pair]) -> Iterable[_Distance]:
    """The distance of each pair, on all cores: NumPy lets other threads run while it computes."""
    if sum(pair[0].elements for pair in pairs) < PIECE:
        return [_distance(pair) for pair in pairs]
    with ThreadPoolExecutor(min(len(pairs), usable_cores())) as pool:
        return list(pool.map(_distance, pairs))


def _distance(pair: Pair) -> _Distance:
    try:
        return _measured(*pair)
    finally:
        for one in pair:
            if one.elements >= PIECE:
                one.release()


def _measured(old: Constant, new: Constant) -> _Distance:
    import numpy as np

    try:
        a, b = old.array(), new.array()
    except OnnxlintError as error:
        return _Distance(problem=str(error))
    if _equal_bytes(raw_bytes(a), raw_bytes(b)):
        return _Distance()
    if a.dtype.kind in "OSU" or a.dtype != b.dtype:
        return _Distance(differing=old.elements)
    a, b = a.reshape(-1), b.reshape(-1)
    differing, squares, reference, largest = 0, 0.0, 0.0, 0.0
    for start in range(0, a.size, PIECE):
        one, other = a[start : start + PIECE], b[start : start + PIECE]
        unequal = (one != other) & ~((one != one) & (other != other))
        differing += int(np.count_nonzero(unequal))
        x, y = one.astype(np.float64), other.astype(np.float64)
        difference = np.abs(y - x)
        squares += float(difference @ difference)
        reference += float(x @ x)
        largest = max(largest, float(difference.max(initial=0.0)))
    return _Distance(differing, squares, reference, largest)


def _equal_bytes(a: memoryview, b: memoryview) -> bool:
    import numpy as np

    if len(a) != len(b):
        return False
    kind = np.dtype(np.uint64 if len(a) % 8 == 0 else np.uint8)
    x, y = np.frombuffer(a, kind), np.frombuffer(b, kind)
    step = PIECE // kind.itemsize  # both pieces and the answer stay in the cache
    return all(np.array_equal(x[start : start + step], y[start : start + step]) for start in range(0, x.size, step))
