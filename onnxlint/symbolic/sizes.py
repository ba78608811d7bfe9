"""Sizes as exact expressions of the inputs' symbols, and proofs about them.

Sizes of a network are sums and products of symbols and of floor divisions by numbers: a convolution with stride 2 turns
`h` into `floor((h + 1)/2)`. In the normal form kept here two such expressions are equal when they are the same, and nested
divisions melt into one, so that comparing them costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache, total_ordering

MAX_TERMS = 64
"""Expressions with more terms than this are given up: the caller sees a new symbol."""


MAX_NUMBER = 2**63
"""Coefficients beyond this are given up: no runtime has such sizes, and their digits would grow without bounds."""

MAX_FACTORS = 16
"""Products of more symbols than this are given up."""

MAX_TEXT = 2000
"""Divisions whose text is longer than this are given up: one that contains another twice doubles it."""


@total_ordering
class Floor:
    """`floor(num / den)`, where den is a number greater than 1 and nothing can be taken out of num."""

    __slots__ = ("_key", "den", "num")
    name = "floor"

    def __init__(self, num: Size, den: int) -> None:
        self.num = num
        self.den = den
        self._key = f"{self.name}({num}/{den})"
        if len(self._key) > MAX_TEXT:
            raise TooComplexError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Floor) and self._key == other._key

    def __lt__(self, other: object) -> bool:
        return _atom_key(self) < _atom_key(other)

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        terms, constant = self.num.terms, self.num.constant
        if constant == self.den - 1 and len(terms) == 1 and terms[0][1] == 1:
            return f"ceil({Size(terms, 0)}/{self.den})"
        inner = str(self.num)
        return f"floor({inner if ' ' not in inner else f'({inner})'}/{self.den})"

    def of(self, num: AnySize) -> AnySize:
        """The same division of another size."""
        return num // self.den


class Truncated(Floor):
    """`num / den` rounded towards 0, where num may be negative: as onnxruntime counts the windows of pooling."""

    __slots__ = ()
    name = "trunc"

    def __str__(self) -> str:
        inner = str(self.num)
        return f"trunc({inner if ' ' not in inner else f'({inner})'}/{self.den})"

    def of(self, num: AnySize) -> AnySize:
        """The same division of another size."""
        return truncated(num, self.den)

    @property
    def windows(self) -> AnySize:
        """What one more than this is, unless that is 0, where it is 1; 0 if it is no such size.

        That is how often a window that moves by its own size fits into a map of at least 1.
        """
        size = self.num + self.den
        least = lower_bound(size)
        if least is None or least < 1 or isinstance(size, int):
            return 0
        if counts_windows(size):
            (((inner,), _),) = size.terms
            size = inner.windows if isinstance(inner, Truncated) else 0
        elif in_floors(size) != size:
            return 0
        return size // self.den


Atom = str | Floor
Monomial = tuple[Atom, ...]


class Size:
    """A size that depends on symbols: a sum of products of atoms, with whole coefficients, and a constant.

    Sizes that are plain numbers are ints; arithmetic returns an int wherever the result is one.
    """

    __slots__ = ("_hash", "_symbols", "_text", "constant", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...], constant: int) -> None:
        if not -MAX_NUMBER <= constant <= MAX_NUMBER:
            raise TooComplexError
        for mono, k in terms:
            if not -MAX_NUMBER <= k <= MAX_NUMBER or len(mono) > MAX_FACTORS:
                raise TooComplexError
        self.terms = terms
        self.constant = constant
        self._hash = hash((terms, constant))
        self._symbols: frozenset[str] | None = None
        self._text = ""

    @staticmethod
    @lru_cache(maxsize=1024)
    def symbol(name: str) -> Size:
        """The size that is a symbol by itself."""
        return Size((((name,), 1),), 0)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Size)
            and self._hash == other._hash
            and self.constant == other.constant
            and self.terms == other.terms
        )

    def __add__(self, other: AnySize) -> AnySize:
        if isinstance(other, int):
            return Size(self.terms, self.constant + other) if other else self
        return _sum((*self.terms, *other.terms), self.constant + other.constant)

    __radd__ = __add__

    def __neg__(self) -> AnySize:
        return self * -1

    def __sub__(self, other: AnySize) -> AnySize:
        return self + (other * -1)

    def __rsub__(self, other: AnySize) -> AnySize:
        return (self * -1) + other

    def __mul__(self, other: AnySize) -> AnySize:
        if isinstance(other, int):
            if other == 0:
                return 0
            if other == 1:
                return self
            return Size(tuple((mono, k * other) for mono, k in self.terms), self.constant * other)
        products = [
            (_product(a, b), k * m)
            for a, k in (*self.terms, *_constant_term(self.constant))
            for b, m in (*other.terms, *_constant_term(other.constant))
        ]
        if len(products) > MAX_TERMS:
            raise TooComplexError
        constant = sum(k for mono, k in products if not mono)
        return _sum((p for p in products if p[0]), constant)

    __rmul__ = __mul__

    def __floordiv__(self, den: int) -> AnySize:
        """Floor division by a positive number, in normal form.

        Raises:
            ValueError: It is not one: what a file says may be of any type.
        """
        if type(den) is not int or den < 1:
            raise ValueError(den)
        if den == 1:
            return self
        # What is divisible comes out: floor((d·A + B)/d) = A + floor(B/d), for coefficients and the constant alike.
        out: AnySize = self.constant // den
        rest: list[tuple[Monomial, int]] = []
        for mono, k in self.terms:
            whole, left = divmod(k, den)
            if whole:
                out = out + Size(((mono, whole),), 0)
            if left:
                rest.append((mono, left))
        constant = self.constant % den
        if not rest:
            return out
        # floor((floor(x/a) + A + c)/b) = floor((x + a·A + a·c)/(a·b)) for whole A
        floors = [(i, mono[0]) for i, (mono, k) in enumerate(rest) if k == 1 and len(mono) == 1]
        floors = [(i, atom) for i, atom in floors if type(atom) is Floor]
        if len(floors) == 1 and isinstance(inner := floors[0][1], Floor):
            others = tuple(term for i, term in enumerate(rest) if i != floors[0][0])
            beside: AnySize = Size(others, constant) if others else constant
            return out + (inner.num + beside * inner.den) // (inner.den * den)
        # floor((g·A + c)/(g·d)) = floor((A + floor(c/g))/d) for whole A
        common = math.gcd(den, *(k for _, k in rest))
        if common > 1:
            reduced = Size(tuple((mono, k // common) for mono, k in rest), constant // common)
            return out + reduced // (den // common)
        return out + Size((((Floor(Size(tuple(rest), constant), den),), 1),), 0)

    def __str__(self) -> str:
        if not self._text:
            self._text = self._written()
        return self._text

    __repr__ = __str__

    def _written(self) -> str:
        parts: list[str] = []
        constant = self.constant
        for mono, k in self.terms:
            body = "*".join(str(atom) for atom in mono)
            if 0 < k <= constant and len(mono) == 1 and isinstance(mono[0], Truncated) and mono[0].windows:
                body, constant = f"max(1, {mono[0].windows})", constant - k
            sign = "- " if k < 0 else "+ "
            parts.append(sign + (body if abs(k) == 1 else f"{abs(k)}*{body}"))
        if constant or not parts:
            parts.append(f"{'-' if constant < 0 else '+'} {abs(constant)}")
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else "-" + text[2:]


AnySize = int | Size


class TooComplexError(Exception):
    """An expression outgrew the bounds of this module: the work is given up."""


def ceil_div(size: AnySize, den: int) -> AnySize:
    """`ceil(size / den)`."""
    return (size + (den - 1)) // den


def truncated(num: AnySize, den: int, empty: Collection[str] = ()) -> AnySize:
    """`num / den`, rounded towards 0.

    Args:
        num: The dividend; negative ones are those for which this is not a floor division.
        den: A positive number.
        empty: Symbols of inputs that may be 0.

    Raises:
        ValueError: The divisor is no positive number.
    """
    if type(den) is not int or den < 1:
        raise ValueError(den)
    if isinstance(num, int):
        return num // den if num >= 0 else -(-num // den)
    least = lower_bound(num, empty)
    if den == 1 or (least is not None and least >= 0):
        return num // den
    return Size((((Truncated(num, den),), 1),), 0)


def in_floors(size: AnySize) -> AnySize:
    """The size with every division that rounds towards 0 replaced by a floor division."""
    if isinstance(size, int):
        return size
    return _rebuilt(size, lambda atom: Size.symbol(atom) if isinstance(atom, str) else in_floors(atom.num) // atom.den)


def _rebuilt(size: Size, value_of: Callable[[Atom], AnySize]) -> AnySize:
    """The size with another value in the place of each symbol and quotient."""
    result: AnySize = size.constant
    for mono, k in size.terms:
        part: AnySize = k
        for atom in mono:
            part = part * value_of(atom)
        result = result + part
    return result


def counts_windows(size: AnySize) -> bool:
    """Whether a size is the number of windows of a pooling that may be larger than its map."""
    return isinstance(size, Size) and size.constant == 1 and isinstance(_only_atom(size), Truncated)


def _only_atom(size: Size) -> Atom | None:
    """The symbol or quotient that a size is, a constant aside; None where it is another sum or product."""
    if len(size.terms) != 1:
        return None
    ((mono, k),) = size.terms
    return mono[0] if k == 1 and len(mono) == 1 else None


def product(sizes: Iterable[AnySize]) -> AnySize:
    """Product of sizes.

    Raises:
        TooComplexError: It is not a number that a runtime can hold.
    """
    result: AnySize = 1
    for size in sizes:
        result = result * size
        if isinstance(result, int) and abs(result) > MAX_NUMBER:
            raise TooComplexError
    return result


def symbols(size: AnySize) -> frozenset[str]:
    """Names of the symbols that a size depends on."""
    if isinstance(size, int):
        return frozenset()
    if size._symbols is None:
        found: set[str] = set()
        for mono, _ in size.terms:
            for atom in mono:
                found |= {atom} if isinstance(atom, str) else symbols(atom.num)
        size._symbols = frozenset(found)
    return size._symbols


def floors_in(size: AnySize) -> Iterator[Floor]:
    """The quotients that a size is computed of, those within others too."""
    for factors, _ in () if isinstance(size, int) else size.terms:
        for factor in factors:
            if isinstance(factor, Floor):
                yield factor
                yield from floors_in(factor.num)


def substitute(size: AnySize, values: Mapping[str, AnySize]) -> AnySize:
    """The size with symbols replaced."""
    if isinstance(size, int) or symbols(size).isdisjoint(values):
        return size

    def value_of(atom: Atom) -> AnySize:
        if isinstance(atom, str):
            value = values.get(atom)
            return Size.symbol(atom) if value is None else value
        return atom.of(substitute(atom.num, values))

    return _rebuilt(size, value_of)


def with_ceilings(size: AnySize) -> AnySize:
    """The same size with `n - floor(a*n/d)` written as `ceil((d - a)*n/d)`, which has a lower bound."""
    if isinstance(size, int):
        return size
    result: AnySize = size
    known = dict(size.terms)
    for mono, k in size.terms:
        floor = mono[0] if len(mono) == 1 else ""
        if k >= 0 or not isinstance(floor, Floor) or isinstance(floor, Truncated):
            continue
        if floor.num.constant or len(floor.num.terms) != 1:
            continue
        ((inner, a),) = floor.num.terms
        if 0 < a < floor.den and known.get(inner, 0) >= -k:
            known[inner] += k
            n = Size(((inner, 1),), 0)
            result = result + k * n + -k * Size(((mono, 1),), 0) + -k * ceil_div((floor.den - a) * n, floor.den)
    return result


def least_symbols(sizes: Iterable[Size]) -> dict[str, int]:
    """Symbol → the smallest number for which these sizes are at least 1: 4 for h where one is `floor(h/4)`."""
    found: dict[str, int] = {}
    for size in sizes:
        floor = None if size.constant else _only_atom(size)
        name = _only_atom(floor.num) if isinstance(floor, Floor) and type(floor) is Floor else None
        if isinstance(floor, Floor) and isinstance(name, str):
            found[name] = max(found.get(name, 1), floor.den - floor.num.constant)
    return found


def divide(num: Iterable[AnySize], den: Iterable[AnySize]) -> AnySize | None:
    """Exact quotient of two products of sizes; None if it cannot be told.

    Args:
        num, den: The factors. Equal ones cancel; what is left must divide.
    """
    above, below = list(num), []
    for factor in den:
        if factor in above:
            above.remove(factor)
        elif factor != 1:
            below.append(factor)
    over = product(above)
    for factor in below:
        quotient = _divide_one(over, factor)
        if quotient is None:
            return None
        over = quotient
    return over


def _divide_one(size: AnySize, by: AnySize) -> AnySize | None:
    if size == by:
        return 1
    if isinstance(by, int):
        if by == 0:
            return None
        if isinstance(size, int):
            return size // by if size % by == 0 else None
        if size.constant % by or any(k % by for _, k in size.terms):
            return None
        return Size(tuple((mono, k // by) for mono, k in size.terms), size.constant // by)
    if isinstance(size, int) or size.constant or by.constant or len(by.terms) != 1:
        # A sum divides only what is a multiple of it as a whole: try the ratio of the leading coefficients.
        ratio = ratio_of(size, by)
        return int(ratio) if ratio is not None and ratio.denominator == 1 else None
    (mono, k), terms = by.terms[0], []
    for other, m in size.terms:
        left = list(other)
        for atom in mono:
            if atom not in left:
                return None
            left.remove(atom)
        if m % k:
            return None
        terms.append((tuple(left), m // k))
    constant = sum(m for left_mono, m in terms if not left_mono)
    return _sum(((left_mono, m) for left_mono, m in terms if left_mono), constant)


def ratio_of(size: AnySize, by: AnySize) -> Fraction | None:
    """`size / by` where it is one number for all inputs; else None."""
    if isinstance(size, int) and isinstance(by, int):
        return Fraction(size, by) if by else None
    if isinstance(size, int) or isinstance(by, int) or len(size.terms) != len(by.terms):
        return None
    num, den = size.terms[0][1], by.terms[0][1]
    for (mono, k), (other, m) in zip(size.terms, by.terms, strict=True):
        if mono != other or k * den != m * num:
            return None
    return Fraction(num, den) if size.constant * den == by.constant * num else None


def lower_bound(size: AnySize, empty: Collection[str] = ()) -> int | None:
    """A lower bound of the size; None if there is none.

    Args:
        size: Its symbols are sizes of inputs, which are at least 1, and symbols that inference made up (`?3`,
            `min(H,512)`), which may be 0: the number of boxes that are left, say.
        empty: Symbols of inputs that may be 0, too.
    """
    if isinstance(size, int):
        return size
    bound = size.constant
    for mono, k in size.terms:
        if k < 0:
            return None
        part = k
        for atom in mono:
            if isinstance(atom, Floor):
                inner = lower_bound(atom.num, empty)
                least = None if inner is None else atom.of(inner)
                if not isinstance(least, int) or least < 0:
                    return None
                part *= least
            elif atom in empty or is_made_up(atom):
                part = 0
        bound += part
    return bound


def is_made_up(symbol: str) -> bool:
    """Whether inference made up a symbol for a size that it cannot follow, or that is the smaller one of two."""
    return symbol.startswith(("?", "min("))


def _atom_key(atom: object) -> str:
    return atom if isinstance(atom, str) else getattr(atom, "_key", "")


def _product(a: Monomial, b: Monomial) -> Monomial:
    if not a or not b:
        return a or b
    return tuple(sorted((*a, *b), key=_atom_key))


def _constant_term(constant: int) -> tuple[tuple[Monomial, int], ...]:
    return (((), constant),) if constant else ()


def _sum(terms: Iterable[tuple[Monomial, int]], constant: int) -> AnySize:
    merged: dict[Monomial, int] = {}
    for mono, k in terms:
        merged[mono] = merged.get(mono, 0) + k
    found = [term for term in merged.items() if term[1]]
    kept = tuple(found if len(found) < 2 else sorted(found, key=_term_key))
    if len(kept) > MAX_TERMS:
        raise TooComplexError
    return Size(kept, constant) if kept else constant


def _term_key(term: tuple[Monomial, int]) -> tuple[str, ...]:
    return tuple(map(_atom_key, term[0]))
