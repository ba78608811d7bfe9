"""Free sizes of inputs that one number alone satisfies, by what the operators of a model demand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from onnxlint.graph.view import GraphView, Node
from onnxlint.symbolic.demands import Demand, demands
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.sizes import AnySize, Floor, Size, TooComplexError, Truncated, is_made_up, substitute, symbols

MAX_SIZE = 2**31
"""Sizes beyond this are not looked for."""

MAX_ROUNDS = 8
"""How often sizes that were found are put into the other demands."""

MAX_TRIES = 256
"""Sizes that are tried for one of two symbols, to find an example of both."""

MAX_SYMBOLS = 4
"""Of an equation that is solved."""

_SHIFTS = (*range(33), *range(40, 257, 8))
"""How far the sizes of an equation are moved at most: as much as convolutions without padding take off."""


class BakedSize(NamedTuple):
    """A free size of an input that the model is right for at one number alone, in one range, or together with others.

    Attributes:
        input: Name of the graph input.
        axis: Its axis.
        smallest, largest: The sizes from the one to the other, which are the same where there is only one.
        node: The node that demands it.
        fails: Whether the model fails at all other sizes; else some of them run, and mix up elements of different axes.
        other: Another size at which the node runs, by repeating what is 1 there; 0 if there is none.
        relation: What several sizes satisfy together (`h*w = 36`); smallest and largest are then an example, and so are
            those of the other axes. Empty where this axis has only the one size or range.
    """

    input: str
    axis: int
    smallest: int
    largest: int
    node: Node
    fails: bool
    other: int = 0
    relation: str = ""


def baked_sizes(view: GraphView) -> list[BakedSize]:
    """Axes of inputs that are declared free, and that one size alone satisfies, in the order of the inputs."""
    key = "onnxlint.symbolic.baked"
    known: list[BakedSize] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = list(_baked(view))
    return known


class _Found(NamedTuple):
    smallest: int
    largest: int
    node: Node
    fails: bool
    other: int = 0
    relation: str = ""


class _Equation(NamedTuple):
    left: AnySize
    right: AnySize
    demand: Demand
    fails: bool


def only_sizes(view: GraphView) -> dict[str, AnySize]:
    """Symbols of inputs that one number alone satisfies, with that number: at all others the model fails."""
    numbers = _numbers(_solved(view))
    return {
        name: numbers[name] for name, one in _solved(view).items() if name in numbers and one.fails and not one.other
    }


def _solved(view: GraphView) -> dict[str, _Found]:
    key = "onnxlint.symbolic.solved"
    known: dict[str, _Found] | None = view.memo.get(key)
    if known is None:
        all_of = [demand for demand in demands(view) if not _is_followed_by_data(demand)]
        known = view.memo[key] = _solve(all_of)
    return known


def _baked(view: GraphView) -> Iterator[BakedSize]:
    found = _solved(view)
    if not found:
        return
    symbolic = exact_sizes(view)
    main = view.main
    for name in main.data_inputs:
        for axis, size in enumerate(symbolic.shape(main, name) or ()):
            names = symbols(size)
            if isinstance(size, int) or len(names) != 1:
                continue
            answer = found.get(next(iter(names)))
            if answer is None:
                continue
            (symbol,) = names
            ends = [substitute(size, {symbol: end}) for end in (answer.smallest, answer.largest, answer.other or 0)]
            low, high, other = (end if isinstance(end, int) else 0 for end in ends)
            if low > 0:
                other = other if answer.other else 0
                yield BakedSize(name, axis, low, high, answer.node, answer.fails, other, answer.relation)


def _is_followed_by_data(demand: Demand) -> bool:
    """Whether a size in a demand is one that inference made up: nothing is known about it."""
    return any(is_made_up(name) for name in (*symbols(demand.left), *symbols(demand.right)))


def _solve(all_of: Sequence[Demand]) -> dict[str, _Found]:
    """Symbol → sizes that satisfy the constraints; constraints that runtimes enforce come first."""
    strict = [_Equation(one.left, one.right, one, True) for one in all_of if not one.multiple and not one.or_one]
    loose = [_Equation(one.left, one.right, one, True) for one in all_of if not one.multiple and one.or_one]
    by_place = [_Equation(left, right, one, False) for one in all_of for left, right in one.pairs]
    found: dict[str, _Found] = {}
    stages = (strict, loose, by_place)
    k = 0
    for _ in range(MAX_ROUNDS * len(stages)):
        before = len(found)
        for equation in stages[k]:
            answer = _of_one_symbol(equation, found)
            if answer is not None:
                found.setdefault(*answer)
        k = 0 if len(found) > before else k + 1  # what was found may settle more of the stricter ones
        if k == len(stages):
            break
    for equation in (*strict, *loose, *by_place):
        found |= _together(equation, found)
    return found


def _of_one_symbol(equation: _Equation, found: Mapping[str, _Found]) -> tuple[str, _Found] | None:
    """The symbol that an equation depends on, if it is one, and the sizes for which it holds."""
    difference, shift = _difference(equation, found)
    names = symbols(difference)
    if isinstance(difference, int) or len(names) != 1:
        return None
    (symbol,) = names
    smallest = _first(lambda n: _at(difference, symbol, n) >= 0)
    largest = _first(lambda n: _at(difference, symbol, n) > 0)
    if smallest is None or largest is None or largest <= smallest or _at(difference, symbol, smallest):
        return None
    smallest, largest = smallest + shift, largest + shift
    # What rests on a size that other inputs may have is no more certain than that.
    rests_on = [found[name] for name in (symbols(equation.left) | symbols(equation.right)) & found.keys()]
    fails = equation.fails and all(one.fails and not one.other for one in rests_on)
    other = _where_it_is_one(equation, symbol, found) if equation.demand.or_one else 0
    other = 0 if smallest <= other < largest else other
    return symbol, _Found(smallest, largest - 1, equation.demand.node, fails, other)


def _where_it_is_one(equation: _Equation, symbol: str, found: Mapping[str, _Found]) -> int:
    """The size for which a side of an equation is 1, and so repeated; 0 if there is none."""
    for side in (equation.left, equation.right):
        size = substitute(side, _numbers(found))
        if isinstance(size, Size) and symbols(size) == {symbol} and _is_rising(size):
            number = _first(lambda n, size=size: _at(size, symbol, n) >= 1)  # type: ignore[misc]
            if number is not None and _at(size, symbol, number) == 1:
                return number
    return 0


def _together(equation: _Equation, found: Mapping[str, _Found]) -> dict[str, _Found]:
    """Sizes of several symbols of which an equation admits few: `h*w` has to be 36."""
    difference, shift = _difference(equation, found)
    names = sorted(symbols(difference))
    if isinstance(difference, int) or len(names) < 2 or any(name in found for name in names):
        return {}
    example = _example(difference, names)
    if example is None:
        return {}
    relation = _relation(equation, found)
    return {
        name: _Found(size + shift, size + shift, equation.demand.node, equation.fails, 0, relation)
        for name, size in example.items()
    }


def _relation(equation: _Equation, found: Mapping[str, _Found]) -> str:
    """An equation for people: `h*w = 36`."""
    numbers = _numbers(found)
    difference = _reduced(substitute(equation.left, numbers) - substitute(equation.right, numbers))
    assert isinstance(difference, Size)
    if difference.constant > 0:
        difference = Size(tuple((factors, -k) for factors, k in difference.terms), -difference.constant)
    factor = math.gcd(difference.constant, *(k for _, k in difference.terms))
    left = Size(tuple((factors, k // factor) for factors, k in difference.terms), 0)
    ones = dict.fromkeys(symbols(difference), 1)
    is_one = equation.demand.or_one and _at_all(difference, ones) - difference.constant == 1
    return f"{left} = {-difference.constant // factor}{' or 1' * is_one}"


def _example(difference: Size, names: Sequence[str]) -> dict[str, int] | None:
    """Sizes for which a rising difference is 0: all the same if there are such ones, the largest of them."""

    def at(*sizes: int) -> int:
        return _at_all(difference, dict(zip(names, sizes, strict=True)))

    above = _first(lambda n: at(*[n] * len(names)) > 0)
    if above is None:
        return None
    if above > 1 and at(*[above - 1] * len(names)) == 0:
        return dict.fromkeys(names, above - 1)
    if len(names) != 2:
        return None
    for step in range(MAX_TRIES):
        one = above - step
        if one < 1:
            break
        over = _first(lambda n, one=one: at(one, n) > 0)  # type: ignore[misc]
        if over is not None and over > 1 and at(one, over - 1) == 0:
            return dict(zip(names, (one, over - 1), strict=True))
    return None


def _difference(equation: _Equation, found: Mapping[str, _Found]) -> tuple[AnySize, int]:
    """Left less right, with what was found put in, as a size that only grows with its symbols, and a shift of these.

    A symbol stands for its size less the shift: where `h - 2` is a size, `(h - 2)*(w - 2)` grows from 3 on.

    Returns:
        0 for what is no such size.
    """
    numbers = _numbers(found)
    try:
        plain = _reduced(substitute(equation.left, numbers) - substitute(equation.right, numbers))
        for shift in _SHIFTS if len(symbols(plain)) <= MAX_SYMBOLS else ():
            moved = substitute(plain, {name: Size.symbol(name) + shift for name in symbols(plain)})
            for difference in (moved, moved * -1):
                if isinstance(difference, Size) and _is_rising(difference):
                    return difference, shift
            if isinstance(plain, int) or not any(len(factors) > 1 for factors, _ in plain.terms):
                break  # a sum stays what it is
    except TooComplexError:
        pass
    return 0, 0


def _numbers(found: Mapping[str, _Found]) -> dict[str, AnySize]:
    return {name: one.smallest for name, one in found.items() if one.smallest == one.largest and not one.relation}


def _reduced(size: AnySize) -> AnySize:
    """A size without the symbols that all its terms have as a factor: they are no 0."""
    if isinstance(size, int) or size.constant:
        return size
    shared = Counter(size.terms[0][0])
    for factors, _ in size.terms[1:]:
        shared &= Counter(factors)
    common = [factor for factor in shared.elements() if not isinstance(factor, Truncated)]
    if not common:
        return size
    result: AnySize = 0
    for factors, k in size.terms:
        rest = list(factors)
        for factor in common:
            rest.remove(factor)
        result = result + (Size(((tuple(rest), k),), 0) if rest else k)
    return result


def _is_rising(size: Size) -> bool:
    """Whether a size only grows with its symbols."""
    return all(
        k > 0 and all(isinstance(factor, str) or _rises_within(factor) for factor in factors)
        for factors, k in size.terms
    )


def _rises_within(factor: Floor) -> bool:
    return _is_rising(factor.num)


def _at(size: AnySize, symbol: str, number: int) -> int:
    return _at_all(size, {symbol: number})


def _at_all(size: AnySize, numbers: Mapping[str, int]) -> int:
    result = substitute(size, dict(numbers))
    return result if isinstance(result, int) else 0


def _first(holds: Callable[[int], bool]) -> int | None:
    """The smallest number from 1 on for which something holds that then goes on to hold."""
    low, high = 1, 1
    while not holds(high):
        low, high = high + 1, high * 2
        if high > MAX_SIZE:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
