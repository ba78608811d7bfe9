"""How two outputs of a model differ: arrays, sequences of them, or None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLIPS = 1e-3
"""Share of the numbers of an integer output that may differ where rounding is allowed (ArgMax over near-equal values)."""


@dataclass(frozen=True)
class Difference:
    """How two values differ.

    Attributes:
        outcome: `equal`, `close`, `different` or `original failed`.
        worst: Largest absolute difference; infinite if they cannot be compared.
        why: In words, where they differ in more than values.
        zero_signs: Whether zeros of equal values have different signs.
    """

    outcome: str
    worst: float = 0.0
    why: str = ""
    zero_signs: bool = False


def compare(a: Any, b: Any, rtol: float, atol: float) -> Difference:
    """Compare two outputs: arrays, or lists of them for sequences, or None.

    NaN equals NaN, and 0.0 equals -0.0. With a tolerance, `|a - b| <= atol * max(1, m) + rtol * max(|a|, |b|)` has to hold
    everywhere for floating-point numbers, where m is the largest number of the output: small differences of large numbers
    cannot be better than these. Integers may differ in `FLIPS` of the places.
    """
    import numpy as np

    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
            return Difference("different", float("inf"), "a sequence of another length")
        parts = [compare(x, y, rtol, atol) for x, y in zip(a, b, strict=True)]
        return max(parts, key=severity, default=Difference("equal"))
    if a is None or b is None:
        return Difference("equal") if a is b else Difference("different", float("inf"), "there in one only")
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return Difference("different", float("inf"), f"shape {list(y.shape)} in place of {list(x.shape)}")
    if x.dtype != y.dtype:
        return Difference("different", float("inf"), f"{y.dtype} in place of {x.dtype}")
    if x.dtype.kind not in "fciub":
        x, y = (x, y) if x.dtype.kind in "OSU" else (x.astype(np.float64), y.astype(np.float64))  # ml_dtypes
        if x.dtype.kind != "f":
            return Difference("equal") if bool(np.all(x == y)) else Difference("different", float("inf"), "other texts")
    same = x == y
    if x.dtype.kind in "fc":
        same |= np.isnan(x) & np.isnan(y)
    if bool(np.all(same)):
        signs = x.dtype.kind == "f" and bool(np.any(np.signbit(x) != np.signbit(y), where=x == 0))
        return Difference("equal", zero_signs=signs)
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    p, q = x[~same].astype(wide), y[~same].astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(p - q)
    gap = np.where(np.isnan(gap), np.inf, gap)
    worst = float(gap.max())
    if rtol == atol == 0:
        return Difference("different", worst)
    if x.dtype.kind in "iub":
        return Difference("close" if p.size <= FLIPS * x.size else "different", worst, f"{p.size} of {x.size} numbers")
    magnitude = float(np.max(np.abs(x), where=np.isfinite(x), initial=1.0))
    is_close = bool(np.all(gap <= atol * magnitude + rtol * np.maximum(np.abs(p), np.abs(q))) and np.isfinite(worst))
    return Difference("close" if is_close else "different", worst)


def severity(difference: Difference) -> tuple[int, float, bool]:
    """Sorts differences: the worst is the largest."""
    """What differences are ordered by: outcome first, then the worst difference."""
    return ("equal", "close", "different").index(difference.outcome), difference.worst, difference.zero_signs
