"""Numbers computed from sizes, and the small tensors that hold them."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from onnxlint.symbolic.sizes import AnySize

MAX_VALUES = 64
"""Longer tensors are data, not shapes."""

SMALL = 2**12
"""Factors that single precision multiplies sizes by, and divides them by, without losing digits that matter."""


@dataclass(frozen=True)
class Quotient:
    """A floating-point number computed from sizes: `num / den`, rounded once at most.

    What would be rounded twice is not followed: `h / 49 * 49` is not h in floating point.
    """

    num: AnySize
    den: AnySize

    @property
    def is_exact(self) -> bool:
        """Whether single precision holds it without rounding, for sizes up to thousands."""
        if not isinstance(self.den, int) or self.den & (self.den - 1) or not 0 < self.den <= SMALL:
            return False
        factors = [self.num] if isinstance(self.num, int) else [self.num.constant, *(k for _, k in self.num.terms)]
        return all(abs(k) <= SMALL for k in factors)

    @property
    def has_exact_floor(self) -> bool:
        """Whether rounding it cannot have crossed a whole number, so that its floor is that of the exact quotient."""
        return isinstance(self.den, int) and 0 < self.den <= SMALL


Number = AnySize | Quotient


class Value(NamedTuple):
    """A small tensor of numbers computed from shapes.

    Attributes:
        numbers: Flat; None if a number is unknown.
        dims: Its shape; () for a scalar.
        floating: Whether its element type is floating-point.
    """

    numbers: tuple[Number | None, ...]
    dims: tuple[int, ...]
    floating: bool = False


def in_single(x: float) -> float:
    """A number as single precision rounds it; also the product of two such numbers, as it multiplies them.

    Raises:
        OverflowError: It is beyond single precision.
    """
    rounded: float = struct.unpack("f", struct.pack("f", x))[0]
    return rounded


def number_of(x: float | bool) -> Number | None:
    """A Python number as a `Number`; None if it is infinite or not a number."""
    if isinstance(x, int):
        return int(x)
    if not math.isfinite(x):
        return None
    fraction = Fraction(x)
    return fraction.numerator if fraction.denominator == 1 else Quotient(fraction.numerator, fraction.denominator)
