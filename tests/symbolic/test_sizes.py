"""The algebra of sizes: whatever it says about an expression holds for every number put in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxlint.symbolic.conditions import when_equal
from onnxlint.symbolic.reshapes import constant_target, reshape_steps
from onnxlint.symbolic.sizes import (
    AnySize,
    Size,
    TooComplexError,
    ceil_div,
    divide,
    least_symbols,
    lower_bound,
    product,
    ratio_of,
    substitute,
    symbols,
    truncated,
    with_ceilings,
)
from tests.support.guards import reached, reaching


def filled(size: AnySize) -> bool:
    """The promise of a proof: no size is 0."""
    return size != 0


H, W, N = Size.symbol("H"), Size.symbol("W"), Size.symbol("N")


@dataclass(frozen=True)
class Expression:
    """A size, and the same computed by plain Python for given symbols."""

    size: AnySize
    number: Callable[[Mapping[str, int]], int]

    def __repr__(self) -> str:
        return str(self.size)


def leaf(name: str) -> Expression:
    return Expression(Size.symbol(name), lambda values: values[name])


def number(n: int) -> Expression:
    return Expression(n, lambda values: n)


def combined(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    den = st.integers(1, 8)
    return st.one_of(
        st.builds(lambda a, b: Expression(a.size + b.size, lambda v: a.number(v) + b.number(v)), parts, parts),
        st.builds(lambda a, b: Expression(a.size - b.size, lambda v: a.number(v) - b.number(v)), parts, parts),
        st.builds(lambda a, b: Expression(a.size * b.size, lambda v: a.number(v) * b.number(v)), parts, parts),
        st.builds(lambda a, d: Expression(a.size // d, lambda v: a.number(v) // d), parts, den),
        st.builds(lambda a, d: Expression(ceil_div(a.size, d), lambda v: -(-a.number(v) // d)), parts, den),
    )


def expressions(*names: str) -> st.SearchStrategy[Expression]:
    leaves = st.one_of(st.sampled_from([leaf(name) for name in names]), st.integers(-9, 9).map(number))
    return st.recursive(leaves, combined, max_leaves=8)


def strided(name: str) -> st.SearchStrategy[Expression]:
    """Sizes as convolutions make them: `floor((size + a)/b) + c`, again and again."""

    def step(e: Expression, a: int, b: int, c: int) -> Expression:
        return Expression((e.size + a) // b + c, lambda v: (e.number(v) + a) // b + c)

    return st.recursive(
        st.just(leaf(name)),
        lambda e: st.builds(step, e, st.integers(-3, 7), st.integers(1, 4), st.integers(-1, 2)),
        max_leaves=6,
    )


VALUES = st.fixed_dictionaries({name: st.integers(1, 200) for name in ("H", "W", "N")})
ANY = expressions("H", "W", "N")


@given(ANY, VALUES)
def test_an_expression_is_what_it_computes(e: Expression, values: dict[str, int]) -> None:
    assert substitute(e.size, values) == e.number(values)


@reaching(5)
@given(ANY, ANY, VALUES)
def test_equal_expressions_are_equal_numbers(a: Expression, b: Expression, values: dict[str, int]) -> None:
    if a.size == b.size:
        reached()
        assert hash(a.size) == hash(b.size)
        assert a.number(values) == b.number(values)


@reaching(50)
@given(ANY, st.sampled_from(["H", "W"]), ANY, VALUES)
def test_substituting_an_expression(e: Expression, name: str, inner: Expression, values: dict[str, int]) -> None:
    try:
        size = substitute(e.size, {name: inner.size})
    except TooComplexError:
        return
    reached()
    assert substitute(size, values) == e.number({**values, name: inner.number(values)})


@given(ANY)
def test_symbols_are_those_that_matter(e: Expression) -> None:
    names = symbols(e.size)
    assert names <= {"H", "W", "N"}
    if not names:
        assert isinstance(e.size, int)
    assert all(name in str(e.size) for name in names)


@given(strided("H"), st.integers(1, 12), st.integers(1, 12), st.integers(-30, 30))
def test_nested_floors_melt(e: Expression, a: int, b: int, c: int) -> None:
    assert (e.size // a) // b == e.size // (a * b)
    assert (e.size // a + c) // b == (e.size + c * a) // (a * b)
    assert (e.size // a + H * c) // b == (e.size + H * c * a) // (a * b)


@reaching(30)
@given(ANY, VALUES)
def test_lower_bound_is_one(e: Expression, values: dict[str, int]) -> None:
    bound = lower_bound(e.size)
    if bound is not None:
        reached()
        assert bound <= e.number(values)


def test_lower_bound_of_what_inference_made_up() -> None:
    assert lower_bound(Size.symbol("?1")) == 0
    assert lower_bound(Size.symbol("min(H,512)") + 3) == 3
    assert lower_bound(H * W + 2) == 3
    assert lower_bound(H - 1) == 0
    assert lower_bound(4 - H) is None


@reaching(20)
@given(st.lists(ANY, max_size=3), st.lists(ANY, min_size=1, max_size=3), VALUES)
def test_divide_is_exact(num: list[Expression], den: list[Expression], values: dict[str, int]) -> None:
    try:
        above = [e.size for e in (*num, *den[:1])]  # so that something cancels now and then
        quotient = divide(above, [e.size for e in den])
    except TooComplexError:
        return
    below = math.prod(e.number(values) for e in den)
    if quotient is not None and below:
        reached()
        over = math.prod(e.number(values) for e in (*num, den[0]))
        assert Fraction(over, below) == substitute(quotient, values)


@given(ANY, st.integers(-6, 6), st.integers(1, 6))
def test_divide_finds_factors(e: Expression, k: int, m: int) -> None:
    assume(isinstance(e.size, Size) and k)
    assert divide([e.size * k * m], [m]) == e.size * k
    assert divide([e.size, H], [H]) == e.size
    assert divide([e.size * k], [e.size]) == k
    assert divide([H * W * N], [W]) == H * N


def test_divide_by_what_does_not() -> None:
    assert divide([H], [2]) is None
    assert divide([H * 2 + 1], [2]) is None
    assert divide([H], [W]) is None
    assert divide([H + 1], [H]) is None
    assert divide([H], [0]) is None
    assert divide([6], [4]) is None
    assert divide([H // 2 * 6], [(H // 2) * 3]) == 2


@reaching(10)
@given(ANY, ANY, VALUES)
def test_ratio_is_one_number(a: Expression, b: Expression, values: dict[str, int]) -> None:
    ratio = ratio_of(a.size, b.size)
    if ratio is not None and b.number(values):
        reached()
        assert Fraction(a.number(values), b.number(values)) == ratio


@given(ANY, st.integers(1, 9), st.integers(1, 9))
def test_ratio_of_multiples(e: Expression, a: int, b: int) -> None:
    assume(isinstance(e.size, Size))
    assert ratio_of(e.size * a, e.size * b) == Fraction(a, b)


# Proofs by cases


def levels(p: int, q: int, a: int, b: int, k: int) -> tuple[Expression, Expression, int, int]:
    """Two levels of a pyramid, one a q-th of the other where the size divides, and what they are enlarged by."""
    return (
        Expression((H + a) // p, lambda v: (v["H"] + a) // p),
        Expression(((H + a) // p + b) // q, lambda v: ((v["H"] + a) // p + b) // q),
        k,
        k * q,
    )


DEN = st.sampled_from([1, 2, 3, 4, 5, 6, 7])
LEVELS = st.builds(levels, DEN, DEN, st.integers(-1, 6), st.integers(-1, 6), st.integers(1, 4))


@reaching(60)
@settings(max_examples=300)
@given(st.one_of(LEVELS, st.tuples(strided("H"), strided("H"), st.integers(1, 4), st.integers(1, 4))))
def test_when_equal_names_exactly_the_residues(case: tuple[Expression, Expression, int, int]) -> None:
    a, b, k, m = case
    left, right = a.size * k, b.size * m
    conditions = when_equal(left, right)

    def equal(h: int) -> bool:
        return a.number({"H": h}) * k == b.number({"H": h}) * m

    if conditions is None:
        # Never along a whole residue class; at single sizes they may meet.
        assert left != right
        return
    if not conditions:
        assert all(map(equal, range(1, 400)))
        return
    reached()
    (condition,) = conditions
    assert condition.symbol == "H"
    assert not condition.always
    for residue in range(condition.period):
        class_of = range(residue or condition.period, residue + 40 * condition.period + 1, condition.period)
        assert (residue in condition.residues) == all(map(equal, class_of))
    if condition.multiple is None:
        assert "in {" in str(condition)
    else:
        assert str(condition) == f"H % {condition.multiple} == 0"
        assert all(equal(condition.multiple * i) for i in range(1, 200))
        # The smallest one: no smaller number would do for all its multiples.
        assert not any(all(equal(n * i) for i in range(1, condition.period * 2)) for n in range(1, condition.multiple))


def test_the_sizes_of_an_fpn() -> None:
    eighth, sixteenth = ceil_div(H, 8), ceil_div(H, 16)
    (condition,) = when_equal(eighth, sixteenth * 2) or []
    assert str(condition) == "H % 16 == 0"
    assert condition.period == 16
    assert condition.residues == {0, *range(9, 16)}
    assert when_equal(ceil_div(ceil_div(H, 2), 2), ceil_div(H, 4)) == []
    assert when_equal(H, H + 1) is None
    assert when_equal(H, W) is None
    assert when_equal(3, 3) == []
    assert when_equal(3, 4) is None


def test_multiples_prove_what_holds_under_them() -> None:
    k = Size.symbol("k")
    assert substitute(ceil_div(H, 16) * 2, {"H": k * 32}) == substitute(ceil_div(H, 8), {"H": k * 32}) == k * 4


def test_work_is_bounded() -> None:
    with pytest.raises(TooComplexError):
        product(Size.symbol(f"a{i}") + 1 for i in range(40))
    assert when_equal(H // 97 // 89, H // 8191) is None  # its period is too large


# Reshape


@reaching(30)
@given(st.data())
def test_constant_target_reshapes_alike(data: st.DataObject) -> None:
    """Against what onnx.reference does with `0` and `-1`, wherever the sizes agree."""
    sizes = data.draw(st.lists(st.sampled_from([N, H, W, 2, 3, H * W]), min_size=1, max_size=4))
    order = data.draw(st.permutations(sizes))
    cut = data.draw(st.integers(0, len(order)))
    target: list[AnySize] = [*order[:cut], product(order[cut:])]
    constant = constant_target(sizes, target, filled)
    if constant is None:
        return
    reached()
    assert constant.count(-1) <= 1
    values = data.draw(VALUES)
    shape = [cast(int, substitute(size, values)) for size in sizes]
    wanted = [substitute(size, values) for size in target]
    copied = [shape[i] if dim == 0 else dim for i, dim in enumerate(constant)]
    rest = math.prod(dim for dim in copied if dim != -1)
    assert [math.prod(shape) // rest if dim == -1 else dim for dim in copied] == wanted


def apply(steps: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], array: np.ndarray) -> np.ndarray:
    for unsqueeze, target, squeeze in steps:
        rank = array.ndim + len(unsqueeze)
        kept = iter(array.shape)
        array = array.reshape([1 if i in unsqueeze else next(kept) for i in range(rank)])
        array = array.reshape([array.shape[i] if dim == 0 else dim for i, dim in enumerate(target)])
        assert all(array.shape[i] == 1 for i in squeeze)
        dims: tuple[int, ...] = array.shape
        left = [dim for i, dim in enumerate(dims) if i not in squeeze]
        array = array.reshape(left)
    return array


SMALL = {"N": 2, "H": 6, "W": 10, "k": 3}
HALF_H, HALF_W = H // 2, W // 2


@reaching(30)
@given(st.data())
def test_reshape_steps_say_the_same(data: st.DataObject) -> None:
    """Windows, heads and flattened images: each run of axes is cut or joined in its own way."""
    k = Size.symbol("k")
    ways: list[tuple[list[AnySize], list[AnySize]]] = [
        ([N], [N]),
        ([H], [H]),
        ([W], [W]),
        ([H, W], [H * W]),
        ([H * W], [H, W]),
        ([12], [3, 4]),
        ([3, 4], [12]),
        ([1], []),
        ([], [1]),
        ([H * 4], [H, 4]),
        ([H, 4], [H * 4]),
        ([H * 8], [H * 4, 2]),
        ([N, 6], [N * 2, 3]),
        ([k * 7], [k, 7]),
        ([k, 7], [k * 7]),
        ([N * k], [N, k]),
    ]
    chosen = data.draw(st.lists(st.sampled_from(ways), min_size=1, max_size=4))
    sizes = [size for left, _ in chosen for size in left]
    target = [size for _, right in chosen for size in right]
    assume(sizes and target)
    steps = reshape_steps(sizes, target, filled)
    if steps is None:
        return
    reached()
    shape = [int(substitute(size, SMALL)) for size in sizes]  # type: ignore[arg-type]
    wanted = [int(substitute(size, SMALL)) for size in target]  # type: ignore[arg-type]
    array = np.arange(math.prod(shape)).reshape(shape)
    done = apply([(step.unsqueeze, step.target, step.squeeze) for step in steps], array)
    assert done.shape == tuple(wanted)
    np.testing.assert_array_equal(done, array.reshape(wanted))
    assert all(step.target.count(-1) <= 1 for step in steps)


def test_reshape_steps_that_cannot_be() -> None:
    assert reshape_steps([N, H * W], [N, H, W], filled) is None  # two new sizes in one group
    (step,) = reshape_steps([N, H, W], [N, H * W], filled) or []
    assert step.target == (0, -1)


@pytest.mark.parametrize("number", [0, -2, 1.5, float("nan"), float("inf"), True])
def test_a_division_by_what_is_no_positive_number_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match=str(number)):
        Size.symbol("h") // number
    with pytest.raises(ValueError, match=str(number)):
        truncated(Size.symbol("h"), number)


@given(
    st.sampled_from([H, H // 4, (H + 3) // 8, H * W, (H // 2) * W, H - 1]),
    st.integers(2, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(-1, 4),
    st.dictionaries(st.sampled_from(["H", "W"]), st.integers(1, 99), min_size=2),
)
def test_what_is_left_of_a_part_is_a_ceiling(
    n: Size, den: int, a: int, k: int, times: int, values: dict[str, int]
) -> None:
    size = times * n - k * ((a * n) // den)
    assert substitute(with_ceilings(size), values) == substitute(size, values)


def test_what_is_left_of_a_part_has_a_lower_bound() -> None:
    rows, columns = H // 4, (W + 1) // 2
    assert isinstance(rows, Size)
    assert isinstance(columns, Size)
    assert least_symbols([rows, columns]) == {"H": 4, "W": 1}
    size = rows - (3 * rows) // 4
    assert lower_bound(size) is None
    at_least = {"H": H + 3}
    assert lower_bound(substitute(with_ceilings(size), at_least)) == 1
    assert all(lower_bound(substitute(size, {"H": h})) for h in range(4, 200))
