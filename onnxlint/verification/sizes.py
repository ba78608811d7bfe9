"""Sizes for the free dimensions of a model that is to be run: those that it likely accepts, then all kinds of others.

Needs NumPy alone: it runs in the process that also runs the models (see `worker`).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from onnxlint.verification.inputs import Contract, Dim, Input, Sizes, dims_of, fill

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MAX_ELEMENTS = 1 << 24
"""Numbers that all inputs of one run hold at most, where the model leaves a choice: 64 MB of float32."""

_IMAGES = ((64, 96), (128, 96), (224, 224), (256, 320), (32, 48), (384, 384), (512, 512), (640, 640), (28, 28), (1, 1))
_LENGTHS = (8, 16, 32, 64, 512, 1, 128, 256, 5, 1024, 2, 77, 400, 3000, 16000)
_SURELY_BATCH = frozenset(("batch", "batch_size", "batchsize", "bs"))
"""Names that mean the batch on any axis."""

_LIKELY_BATCH = frozenset(("n", "b"))
"""Names that mean the batch where one of their axes may be it."""

BATCH_NAMES = _SURELY_BATCH | _LIKELY_BATCH
"""Names that mean the batch on an axis that may be it."""

_REPEATED = tuple(range(8, 65, 8))
"""Sizes that all free dimensions but the batch have at once, for models that accept multiples of 8 only."""

_STRIDES = (1, 2, 4, 8, 16, 32)
"""Factors between a size that a constant in the graph names and that of the input."""

_COARSEST = 32
"""What sizes of images are multiples of, in networks that halve them five times."""

_MAX_SYMBOL = 4096
"""Values of a symbol that are tried to give `32*h` and the like a sensible size."""


def roles(inputs: Sequence[Input], rank: int) -> dict[str, str]:
    """Symbol → `batch`, `height`, `width`, `channel` or `length`, by where it stands."""
    found: dict[str, str] = {}
    for one in inputs:
        dims = dims_of(one, rank)
        is_image = len(dims) >= 4
        is_channels_last = is_image and isinstance(dims[-1], int) and not isinstance(dims[1], int)
        height, width = (len(dims) - 3, len(dims) - 2) if is_channels_last else (len(dims) - 2, len(dims) - 1)
        for axis, dim in enumerate(dims):
            for symbol in () if isinstance(dim, int) else names_in(dim):
                is_state = axis == 1 and len(dims) == 3 and isinstance(dims[0], int) and isinstance(dims[2], int)
                if symbol.lower() in _SURELY_BATCH or (axis == 0 and len(dims) >= 2) or is_state:
                    role = "batch"  # the state of a recurrent network is [layers, batch, hidden]
                elif is_image and axis in (height, width):
                    role = "height" if axis == height else "width"
                elif is_image and axis == 1 and not is_channels_last:
                    role = "channel"
                else:
                    role = "length"
                before = found.get(symbol)
                mixed = "batch" if symbol.lower() in _LIKELY_BATCH and "batch" in (before, role) else "length"
                found[symbol] = role if before in (None, role) else mixed
    return found


def candidates(contract: Contract, rank: int) -> Iterator[Sizes]:
    """Sizes that the original may run on, the likeliest first."""
    kinds = roles(contract.inputs, rank)
    scaled = _scaled(contract, rank)
    if contract.likely:
        yield {symbol: contract.likely.get(symbol, _up(1, contract, symbol)) for symbol in kinds}
        yield {symbol: contract.likely.get(symbol, _up(scaled(symbol, 8), contract, symbol)) for symbol in kinds}
    seen: set[tuple[tuple[str, int], ...]] = set()
    smallest: tuple[int, Sizes] | None = None
    found = False
    for (height, width), length, channel, batch in _grid(contract, set(kinds.values())):
        by_role = {"batch": batch, "height": height, "width": width, "length": length, "channel": channel}
        sizes = {symbol: _up(scaled(symbol, by_role[kind]), contract, symbol) for symbol, kind in kinds.items()}
        key = tuple(sorted(sizes.items()))
        if key in seen:
            continue
        seen.add(key)
        elements = volume(contract, sizes, rank)
        if elements <= MAX_ELEMENTS:
            found = True
            yield sizes
        elif smallest is None or elements < smallest[0]:
            smallest = elements, sizes
    if smallest is not None and not found:
        yield smallest[1]  # the sizes that the model fixes are as large as that


def _grid(contract: Contract, kinds: set[str]) -> Iterator[tuple[tuple[int, int], int, int, int]]:
    """(image, length, channels, batch), the likeliest first."""
    images = _IMAGES if kinds & {"height", "width"} else _IMAGES[:1]
    lengths = _LENGTHS if "length" in kinds else _LENGTHS[:1]
    channels = (3, 1, 4, 16, 64) if "channel" in kinds and not contract.hints else (3,)
    yield images[0], lengths[0], channels[0], 1
    yield from ((pair, lengths[0], channels[0], 1) for pair in contract.pairs)
    yield from ((images[0], number, channels[0], 1) for number in contract.numbers)
    yield from ((image, lengths[0], channels[0], 1) for image in images[1:])
    yield from ((images[0], length, channels[0], 1) for length in lengths[1:])
    yield from (((size, size), size, channels[0], 1) for size in _REPEATED)
    yield from ((image, lengths[0], channel, 1) for channel in channels[1:] for image in images[:3])
    yield from ((image, length, channels[0], 1) for image in images[1:4] for length in lengths[1:4])
    yield images[0], lengths[0], channels[0], 2
    yield from ((images[0], lengths[0], channels[0], number) for number in contract.numbers)
    yield from (
        ((stride * height, stride * width), lengths[0], channels[0], 1)
        for stride in _STRIDES[1:]
        for height, width in contract.pairs
    )


def variations(contract: Contract, base: Sizes, rank: int) -> Iterator[Sizes]:
    """Other shapes than one on which the original runs.

    Three images at once; none; twice as large; all sizes 1; odd multiples and primes of what each size has to be a
    multiple of, so that no two symbols have the same size. Then more of them, for originals that refuse these.
    """
    kinds = roles(contract.inputs, rank)
    unknown = [symbol for symbol in base if symbol not in contract.hints]
    free = [symbol for symbol in unknown if kinds.get(symbol) != "channel"]
    batches = [symbol for symbol in free if kinds[symbol] == "batch"]

    def shape(batch: int, size: Callable[[int, int], int], apart: bool = False, symbols: Sequence[str] = free) -> Sizes:
        sizes = dict(base)
        taken: set[int] = set()
        for i, symbol in enumerate(symbols):
            step = contract.multiples.get(symbol, 1)
            if kinds[symbol] == "batch":
                count = batch + batches.index(symbol) if apart else batch
                sizes[symbol] = -(-count // step) * step
            else:
                count = max(1, size(max(1, base[symbol] // step), i))
                while apart and step * count in taken:
                    count += 2
                sizes[symbol] = step * count
            taken.add(sizes[symbol])
        return sizes

    made = (
        shape(3, lambda k, i: k),
        shape(0, lambda k, i: k),
        shape(1, lambda k, i: 2 * k),
        shape(2, lambda k, i: 1),
        shape(3, lambda k, i: (k + 1) | 1, apart=True),
        shape(1, lambda k, i: _prime(k + 1 + 4 * i), apart=True),
        shape(2, lambda k, i: _prime(k // 2 + 1 + 3 * i), apart=True),
        shape(2, lambda k, i: k + 1 + i, apart=True),
        # Weights mostly fix the number of channels, but none may be there.
        shape(
            2, lambda k, i: k + 1 + i, apart=True, symbols=[*batches, *(one for one in unknown if one not in batches)]
        ),
        shape(1, lambda k, i: k),
        shape(2, lambda k, i: k),
        shape(5, lambda k, i: k),
        shape(1, lambda k, i: 3 * k),
        shape(3, lambda k, i: 2 * k),
        shape(1, lambda k, i: k + 32 if k % 32 == 0 else k + 8),
        shape(1, lambda k, i: k + 64 * (1 + i) if k % 32 == 0 else k + 3),
        shape(1, lambda k, i: 4 * k),
        shape(1, lambda k, i: k // 2),
        shape(4, lambda k, i: 1),
    )
    tried = {tuple(sorted(base.items()))}
    most = max(MAX_ELEMENTS, volume(contract, base, rank))
    for sizes in made:
        key = tuple(sorted(sizes.items()))
        if key not in tried and volume(contract, sizes, rank) <= most:
            tried.add(key)
            yield sizes


def freed(contract: Contract, old: Mapping[str, int]) -> Iterator[Sizes]:
    """Other sizes than the old ones, for symbols that were numbers in the original, that can be divided as often by 2.

    Smaller ones of large images, larger ones of others.

    Args:
        contract: Of the result.
        old: Symbol → the number that it was.
    """
    kinds = roles(contract.inputs, 4)
    batches = {symbol for symbol in old if kinds.get(symbol) == "batch"}

    def shape(batch: int, size: Callable[[int], int]) -> Sizes:
        return {symbol: batch * k if symbol in batches else _up(size(k), contract, symbol) for symbol, k in old.items()}

    tried = {tuple(sorted(old.items()))}

    def doubled(k: int) -> int:
        return k // 2 if k % (2 * _COARSEST) == 0 else 2 * k

    def other(k: int) -> int:
        if k % (4 * _COARSEST) == 0:
            return 3 * k // 4
        return 3 * k // 2 if k % 2 == 0 else 3 * k

    for sizes in (shape(2, lambda k: k), shape(1, doubled), shape(3, other)):
        key = tuple(sorted(sizes.items()))
        if key not in tried:
            tried.add(key)
            yield sizes


def volume(contract: Contract, sizes: Sizes, rank: int) -> int:
    """Numbers that all inputs hold together."""
    return sum(math.prod(size_of(dim, sizes) for dim in dims_of(one, rank)) for one in contract.inputs)


def _scaled(contract: Contract, rank: int) -> Callable[[str, int], int]:
    """Symbol, wanted size → the value of the symbol for which a dimension has about that size.

    A symbol that stands alone somewhere has the size itself. One that only occurs in `32*h` gets the least value for
    which that is large enough.
    """
    dims = {dim for one in contract.inputs for dim in dims_of(one, rank) if isinstance(dim, str)}
    inside: dict[str, str] = {}
    for dim in sorted(dims):
        names = names_in(dim)
        if names != (dim,) and len(set(names)) == 1 and names[0] not in dims:
            inside.setdefault(names[0], dim)

    def value(symbol: str, wanted: int) -> int:
        dim = inside.get(symbol)
        if dim is None:
            return wanted
        return next((k for k in range(1, _MAX_SYMBOL) if size_of(dim, {symbol: k}) >= wanted), wanted)

    return value


def _up(size: int, contract: Contract, symbol: str) -> int:
    if symbol in contract.hints:
        return contract.hints[symbol]
    step = contract.multiples.get(symbol, 1)
    return -(-size // step) * step


def _prime(number: int) -> int:
    """The smallest prime that is not below a number."""
    number = max(2, number)
    while any(number % d == 0 for d in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def names_in(dim: str) -> tuple[str, ...]:
    """Symbols of a dimension: `past + 1` has one; anything that is not such an expression is one symbol."""
    tree = _expression(dim)
    if tree is None:
        return (dim,)
    return tuple(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in _FUNCTIONS)


def size_of(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size that a dimension has."""
    if isinstance(dim, int):
        return dim
    tree = _expression(dim)
    return sizes[dim] if tree is None else max(0, math.floor(_evaluate(tree, sizes)))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "ceiling": math.ceil,
    "max": max,
    "min": min,
    "Max": max,
    "Min": min,
}
"""Functions that exporters write into sizes."""

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: Fraction(a) / b if b else Fraction(0),
    ast.FloorDiv: lambda a, b: a // b if b else 0,
    ast.Mod: lambda a, b: a % b if b else 0,
}
"""Division by zero gives 0, so that sizes stay sizes."""

_MAX_EXPRESSION = 200
"""Characters of an expression; longer ones are symbols."""


def _expression(dim: str) -> ast.expr | None:
    """An expression of symbols and whole numbers, as exporters write sizes; None for a mere symbol."""
    if len(dim) > _MAX_EXPRESSION or dim.isidentifier():
        return None
    try:
        tree = ast.parse(dim.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return tree if isinstance(tree, ast.BinOp | ast.Call) and _is_size(tree) else None


def _is_size(tree: ast.expr) -> bool:
    if isinstance(tree, ast.Name):
        return tree.id not in _FUNCTIONS
    if isinstance(tree, ast.Constant):
        return type(tree.value) is int and abs(tree.value) < _MAX_NUMBER
    if isinstance(tree, ast.BinOp):
        return type(tree.op) in _OPERATORS and _is_size(tree.left) and _is_size(tree.right)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in _FUNCTIONS:
        is_choice = _FUNCTIONS[tree.func.id] in (max, min)
        fits = len(tree.args) >= 2 if is_choice else len(tree.args) == 1
        return fits and not tree.keywords and all(map(_is_size, tree.args))
    return False


_MAX_NUMBER = 10**9
"""Larger numbers are not part of a size."""


def _evaluate(tree: ast.expr, sizes: Mapping[str, int]) -> Any:
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)](_evaluate(tree.left, sizes), _evaluate(tree.right, sizes))
    assert isinstance(tree, ast.Call)
    assert isinstance(tree.func, ast.Name)
    return _FUNCTIONS[tree.func.id](*(_evaluate(one, sizes) for one in tree.args))


def feeds_for(
    contract: Contract, sizes: Mapping[str, int], kind: str, way: int, rank: int, seed: int
) -> dict[str, Array]:
    """Values for all inputs, by name; see `fill`."""
    import numpy as np

    generator = np.random.default_rng(seed)
    return {
        one.name: fill(one, tuple(size_of(dim, sizes) for dim in dims_of(one, rank)), kind, way, generator)
        for one in contract.inputs
    }
