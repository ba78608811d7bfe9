"""Numbers computed from sizes, and the small tensors that hold them."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from onnxlint.model.onnx_types import ElementType
from onnxlint.symbolic.sizes import MAX_NUMBER, AnySize

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


_RANGES: dict[int, tuple[int, int]] = {
    ElementType.UINT8: (0, 2**8 - 1),
    ElementType.INT8: (-(2**7), 2**7 - 1),
    ElementType.UINT16: (0, 2**16 - 1),
    ElementType.INT16: (-(2**15), 2**15 - 1),
    ElementType.INT32: (-(2**31), 2**31 - 1),
    ElementType.INT64: (-(2**63), 2**63 - 1),
    ElementType.UINT32: (0, 2**32 - 1),
    ElementType.UINT64: (0, 2**64 - 1),
    ElementType.FLOAT: (-(2**24), 2**24),
    ElementType.DOUBLE: (-(2**53), 2**53),
}
"""Element type → whole numbers that it holds: beyond them integers wrap around, and floating-point numbers are rounded."""

_HELD_BY_ALL = range(2**7)


def holds(element_type: int, number: Number | None) -> bool:
    """Whether an element type holds a number as it is; for a size, whether it holds the factors in it."""
    if number is None or isinstance(number, Quotient):
        return True
    whole = (number,) if isinstance(number, int) else (number.constant, *(factor for _, factor in number.terms))
    if all(each in _HELD_BY_ALL for each in whole):
        return True
    low, high = _RANGES.get(element_type, (-(2**63), 2**63 - 1))
    if not isinstance(number, int):
        low = -high  # a size may be less a number, and is none below 0 all the same
    if all(low <= each <= high for each in whole):
        return True
    if element_type != ElementType.FLOAT or not isinstance(number, int) or abs(number) > MAX_NUMBER:
        return False
    return in_single(number) == number
