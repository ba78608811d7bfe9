"""Conditions on the inputs under which sizes are equal.

What holds only for some inputs is decided by cases: a size is linear in its symbol along each residue class of its
period, and there are few of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from onnxlint.symbolic.sizes import AnySize, Floor, Size, substitute, symbols

MAX_PERIOD = 4096
"""Residue classes that a proof by cases looks at, at most."""


class Condition(NamedTuple):
    """Under which inputs two sizes are equal.

    Attributes:
        symbol: The input's symbol that it is about.
        period: Equality depends on the symbol modulo this.
        residues: The residues for which it holds; all of them where it always holds.
        multiple: The smallest number such that every multiple of it satisfies the condition; None if there is none.
    """

    symbol: str
    period: int
    residues: frozenset[int]
    multiple: int | None

    @property
    def always(self) -> bool:
        """Whether it holds for every number."""
        return len(self.residues) == self.period

    def __str__(self) -> str:
        if self.multiple is not None:
            return f"{self.symbol} % {self.multiple} == 0"
        return f"{self.symbol} % {self.period} in {{{', '.join(map(str, sorted(self.residues)))}}}"


def when_equal(a: AnySize, b: AnySize) -> list[Condition] | None:
    """The conditions under which two sizes are equal: all of them have to hold.

    Decided by cases: `a - b` is split into parts of one symbol each, which are linear along every residue class of their
    period. An empty list means always.

    Returns:
        None if they are never equal, or where it cannot be decided (several symbols in one term, a period that is
        too large).
    """
    found = _when_equal(a, b)
    return None if found is None else list(found)


@lru_cache(maxsize=1024)
def _when_equal(a: AnySize, b: AnySize) -> tuple[Condition, ...] | None:
    difference = a - b
    if isinstance(difference, int):
        return () if difference == 0 else None
    by_symbol: dict[str, AnySize] = {}
    for mono, k in difference.terms:
        names = symbols(Size(((mono, k),), 0))
        if len(names) != 1 or len(mono) != 1:
            return None
        (name,) = names
        by_symbol[name] = by_symbol.get(name, 0) + Size(((mono, k),), 0)
    if len(by_symbol) != 1:
        return None
    (name,) = by_symbol
    period = _period(difference)
    if period > MAX_PERIOD:
        return None
    step = Size.symbol("k")
    residues = frozenset(
        r
        for r in range(period)
        # Two numbers rule most residues out; what is left is decided for all of them.
        if substitute(difference, {name: r}) == 0
        and substitute(difference, {name: period + r}) == 0
        and substitute(difference, {name: step * period + r}) == 0
    )
    if not residues:
        return None
    if len(residues) == period:
        return ()
    multiples = [m for m in range(2, period + 1) if period % m == 0 and all(r in residues for r in range(0, period, m))]
    return (Condition(name, period, residues, min(multiples, default=None)),)


def _period(size: AnySize) -> int:
    """A number after which the floors of a size of one symbol repeat their pattern."""
    if isinstance(size, int):
        return 1
    period = 1
    for mono, _ in size.terms:
        for atom in mono:
            if isinstance(atom, Floor):
                period = math.lcm(period, atom.den * _period(atom.num))
    return period
