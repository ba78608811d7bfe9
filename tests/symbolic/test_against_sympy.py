"""Our algebra of sizes against sympy's: identities that hold for all numbers, not only for those that are tried."""

from __future__ import annotations

from dataclasses import dataclass

import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxlint.symbolic.conditions import MAX_PERIOD, when_equal
from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, divide, ratio_of, substitute, symbols
from tests.support.guards import reached, reaching

NAMES = ("H", "W", "N")
SYMBOLS = {name: sympy.Symbol(name, integer=True, positive=True) for name in NAMES}
K = sympy.Symbol("k", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Pair:
    """One expression as ours and as sympy's."""

    size: AnySize
    sympy: sympy.Expr

    def __repr__(self) -> str:
        return f"{self.size} / {self.sympy}"


LEAVES = st.one_of(
    st.sampled_from([Pair(Size.symbol(name), SYMBOLS[name]) for name in NAMES]),
    st.integers(-9, 9).map(lambda n: Pair(n, sympy.Integer(n))),
)


def arithmetic(parts: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(lambda a, b: Pair(a.size + b.size, a.sympy + b.sympy), parts, parts),
        st.builds(lambda a, b: Pair(a.size - b.size, a.sympy - b.sympy), parts, parts),
        st.builds(lambda a, b: Pair(a.size * b.size, a.sympy * b.sympy), parts, parts),
    )


POLYNOMIALS = st.recursive(LEAVES, arithmetic, max_leaves=8)

DIVISORS = st.sampled_from([2, 3, 4, 5, 6, 7, 8, 9, 12, 16])
"""Multiples that are no powers of two among them."""


def strided(a: int, b: int, c: int, inner: Pair) -> Pair:
    """What a convolution or a pooling makes of a size."""
    return Pair((inner.size + a) // b + c, sympy.floor((inner.sympy + a) / b) + c)


ONE_SYMBOL = st.recursive(
    st.just(Pair(Size.symbol("H"), SYMBOLS["H"])),
    lambda inner: st.builds(strided, st.integers(-3, 7), DIVISORS, st.integers(-1, 2), inner),
    max_leaves=3,
)


def along(expression: sympy.Expr, period: int, residue: int) -> sympy.Expr:
    """The expression for `H = period*k + residue`, in which sympy takes whole numbers out of every floor."""
    return sympy.expand(expression.subs(SYMBOLS["H"], period * K + residue))


@reaching(10)
@settings(deadline=None)
@given(POLYNOMIALS, POLYNOMIALS)
def test_polynomials_are_equal_where_sympy_says_so(a: Pair, b: Pair) -> None:
    same = sympy.expand(a.sympy - b.sympy) == 0
    assert (a.size == b.size) == same
    if same:
        reached()
        assert hash(a.size) == hash(b.size)


@settings(deadline=None)
@given(POLYNOMIALS)
def test_polynomials_have_the_symbols_of_sympy(a: Pair) -> None:
    assert symbols(a.size) == {symbol.name for symbol in sympy.expand(a.sympy).free_symbols}


@reaching(20)
@settings(deadline=None)
@given(POLYNOMIALS, POLYNOMIALS)
def test_quotients_are_quotients(a: Pair, b: Pair) -> None:
    try:
        quotient = divide([a.size * b.size], [b.size])
    except TooComplexError:
        return
    if quotient is None or b.size == 0:
        return
    reached()
    value = sympy.sympify(str(quotient), locals=SYMBOLS)
    assert sympy.expand(value * b.sympy - a.sympy * b.sympy) == 0


@reaching(3)
@settings(deadline=None)
@given(POLYNOMIALS, POLYNOMIALS)
def test_ratios_are_ratios(a: Pair, b: Pair) -> None:
    ratio = ratio_of(a.size, b.size)
    if ratio is not None and not isinstance(a.size, int):
        reached()
        assert sympy.expand(a.sympy - sympy.Rational(ratio.numerator, ratio.denominator) * b.sympy) == 0


@settings(deadline=None)
@given(ONE_SYMBOL, DIVISORS, st.integers(0, 15))
def test_sizes_along_a_residue_class(a: Pair, factor: int, residue: int) -> None:
    """`H = 3*k + 2`, say: what is put in comes out of the floors as sympy takes it out."""
    ours = substitute(a.size, {"H": Size.symbol("k") * factor + residue})
    theirs = along(a.sympy, factor, residue)
    for number in (0, 1, 2, 5, 11):
        assert substitute(ours, {"k": number}) == theirs.subs(K, number)
    if not theirs.has(sympy.floor):
        assert sympy.expand(sympy.sympify(str(ours), locals={"k": K}) - theirs) == 0


H = Pair(Size.symbol("H"), SYMBOLS["H"])


def levels(p: int, q: int, a: int, b: int, k: int) -> tuple[Pair, Pair, int, int]:
    """Two levels of a pyramid, one a q-th of the other where the size divides, and what they are enlarged by."""
    return strided(a, p, 0, H), strided(b, q, 0, strided(a, p, 0, H)), k, k * q


SMALL_DIVISORS = st.sampled_from([1, 2, 3, 4, 5, 6, 7])
LEVELS = st.builds(levels, SMALL_DIVISORS, SMALL_DIVISORS, st.integers(-1, 6), st.integers(-1, 6), st.integers(1, 4))


@reaching(30)
@settings(max_examples=160, deadline=None)
@given(st.one_of(LEVELS, st.tuples(ONE_SYMBOL, ONE_SYMBOL, st.integers(1, 12), st.integers(1, 12))))
def test_conditions_are_those_of_sympy(levels: tuple[Pair, Pair, int, int]) -> None:
    """Along each residue class of the period the difference is linear: sympy says for which it is nothing."""
    a, b, k, m = levels
    conditions = when_equal(a.size * k, b.size * m)
    if not conditions:
        return
    (condition,) = conditions
    if condition.period > 200:
        return
    reached()
    assert condition.period <= MAX_PERIOD
    difference = a.sympy * k - b.sympy * m
    zero = {residue for residue in range(condition.period) if along(difference, condition.period, residue) == 0}
    assert condition.residues == zero
    if condition.multiple is not None:
        assert along(difference, condition.multiple, 0) == 0 or condition.period % condition.multiple == 0
        assert all(residue in zero for residue in range(0, condition.period, condition.multiple))


def test_a_condition_that_is_no_power_of_two() -> None:
    h = Size.symbol("H")
    for number in (3, 5, 6, 7, 12):
        (condition,) = when_equal((h // number) * number, h) or []
        assert (condition.multiple, condition.residues) == (number, frozenset({0}))
