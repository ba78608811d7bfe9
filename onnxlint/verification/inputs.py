"""What to feed a model: sizes for its free dimensions that it may accept, and values that make sense.

Needs NumPy alone: it runs in the process that also runs the models (see `trials`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Dim = int | str
Sizes = dict[str, int]

LARGE_SCALE = 100.0
"""Standard deviation of `large` inputs; that of `normal` ones is 1."""

_IMAGES = ((64, 96), (128, 96), (224, 224), (256, 320), (32, 48), (384, 384), (512, 512), (640, 640), (28, 28), (1, 1))
_LENGTHS = (8, 16, 32, 64, 512, 1, 128, 256, 5, 1024, 2, 77, 400, 3000, 16000)
_BATCH_NAMES = frozenset(("n", "b", "bs", "batch", "batch_size", "batchsize"))


@dataclass(frozen=True)
class Input:
    """A graph input, and what is sensible to feed it.

    Attributes:
        name: As in the model.
        dtype: NumPy's name; `str` for strings.
        dims: Sizes and symbols; None where the rank is unknown.
        role: `index` (integers below `high`), `mask` (0 and 1), `size` (a shape or factor: positive), or empty.
        high: For `index`.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None
    role: str = ""
    high: int = 0


@dataclass(frozen=True)
class Contract:
    """What a model takes.

    Attributes:
        inputs: Its inputs.
        multiples: Symbol → number that its size has to be a multiple of.
        hints: Symbol → the only size that can be right for it, from the weights that it meets.
    """

    inputs: tuple[Input, ...]
    multiples: Mapping[str, int] = field(default_factory=dict)
    hints: Mapping[str, int] = field(default_factory=dict)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks to try for inputs of unknown rank; one, of no meaning, where there is none."""
        return (4, 3, 2, 1, 0) if any(one.dims is None for one in self.inputs) else (4,)


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
                if symbol.lower() in _BATCH_NAMES or (axis == 0 and len(dims) >= 2) or is_state:
                    role = "batch"  # the state of a recurrent network is [layers, batch, hidden]
                elif is_image and axis in (height, width):
                    role = "height" if axis == height else "width"
                elif is_image and axis == 1 and not is_channels_last:
                    role = "channel"
                else:
                    role = "length"
                before = found.get(symbol)
                found[symbol] = role if before in (None, role) else "length"
    return found


def candidates(contract: Contract, rank: int) -> Iterator[Sizes]:
    """Sizes that the original may run on, the likeliest first."""
    kinds = roles(contract.inputs, rank)
    has_images = any(kind in ("height", "width") for kind in kinds.values())
    has_lengths = "length" in kinds.values()
    channels = (3, 1, 4, 16, 64) if "channel" in kinds.values() and not contract.hints else (3,)
    grid: list[tuple[tuple[int, int], int, int, int]] = []
    images = _IMAGES if has_images else _IMAGES[:1]
    lengths = _LENGTHS if has_lengths else _LENGTHS[:1]
    grid += [(image, lengths[0], channels[0], 1) for image in images]
    grid += [(images[0], length, channels[0], 1) for length in lengths[1:]]
    grid += [(image, lengths[0], channel, 1) for channel in channels[1:] for image in images[:3]]
    grid += [(image, length, channels[0], 1) for image in images[1:4] for length in lengths[1:4]]
    grid += [(images[0], lengths[0], channels[0], 2)]
    seen: set[tuple[tuple[str, int], ...]] = set()
    for (height, width), length, channel, batch in grid:
        by_role = {"batch": batch, "height": height, "width": width, "length": length, "channel": channel}
        sizes = {symbol: _up(by_role[kind], contract, symbol) for symbol, kind in kinds.items()}
        key = tuple(sorted(sizes.items()))
        if key not in seen:
            seen.add(key)
            yield sizes


def variations(contract: Contract, base: Sizes, rank: int) -> Iterator[Sizes]:
    """Other shapes than one on which the original runs.

    Three images at once; twice as large; odd multiples and primes of what each size has to be a multiple of; sizes that all
    differ. Then more of them, for originals that do not take these.
    """
    kinds = roles(contract.inputs, rank)
    free = [symbol for symbol in base if symbol not in contract.hints and kinds.get(symbol) != "channel"]

    def shape(batch: int, size: Callable[[str, int, int], int]) -> Sizes:
        sizes = dict(base)
        for i, symbol in enumerate(free):
            if kinds.get(symbol) == "batch":
                sizes[symbol] = _up(batch, contract, symbol)
            else:
                step = contract.multiples.get(symbol, 1)
                sizes[symbol] = step * max(1, size(symbol, max(1, base[symbol] // step), i))
        return sizes

    tried = {tuple(sorted(base.items()))}
    made = (
        shape(3, lambda s, k, i: k),
        shape(1, lambda s, k, i: 2 * k),
        shape(3, lambda s, k, i: (k + 1) | 1),
        shape(1, lambda s, k, i: _prime(k + 1 + 4 * i)),
        shape(2, lambda s, k, i: _prime(k // 2 + 1 + 3 * i)),
        shape(2, lambda s, k, i: k + 1 + i),
        shape(2, lambda s, k, i: k),
        shape(5, lambda s, k, i: k),
        shape(1, lambda s, k, i: 3 * k),
        shape(3, lambda s, k, i: 2 * k),
        shape(1, lambda s, k, i: k + 32 if k % 32 == 0 else k + 8),
        shape(1, lambda s, k, i: k + 64 * (1 + i) if k % 32 == 0 else k + 3),
        shape(1, lambda s, k, i: 4 * k),
        shape(1, lambda s, k, i: k // 2),
        shape(4, lambda s, k, i: 1),
    )
    for sizes in made:
        key = tuple(sorted(sizes.items()))
        if key not in tried:
            tried.add(key)
            yield sizes


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
    """Symbols of a dimension: `past + 1` has one; anything that is no such expression is one symbol."""
    tree = _expression(dim)
    if tree is None:
        return (dim,)
    return tuple(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def size_of(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size that a dimension has."""
    if isinstance(dim, int):
        return dim
    tree = _expression(dim)
    return sizes[dim] if tree is None else max(0, _evaluate(tree, sizes))


def _expression(dim: str) -> ast.expr | None:
    """A sum, difference, product or quotient of symbols and numbers, as exporters write sizes; None for a mere symbol."""
    if len(dim) > 200:
        return None
    try:
        tree = ast.parse(dim, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    allowed = (ast.BinOp, ast.Name, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Load)
    nodes = list(ast.walk(tree))
    if not isinstance(tree, ast.BinOp) or not all(isinstance(node, allowed) for node in nodes):
        return None
    return tree if all(type(n.value) is int for n in nodes if isinstance(n, ast.Constant)) else None


def _evaluate(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.Constant):
        return int(tree.value)  # type: ignore[arg-type]
    assert isinstance(tree, ast.BinOp)
    left, right = _evaluate(tree.left, sizes), _evaluate(tree.right, sizes)
    if isinstance(tree.op, ast.Add):
        return left + right
    if isinstance(tree.op, ast.Sub):
        return left - right
    if isinstance(tree.op, ast.Mult):
        return left * right
    return left // right if right else 0


def dims_of(one: Input, rank: int) -> tuple[Dim, ...]:
    return tuple(f"{one.name}[{axis}]" for axis in range(rank)) if one.dims is None else one.dims


# Values


def dtype_of(one: Input) -> Any:
    import numpy as np

    return np.dtype(object) if one.dtype == "str" else np.dtype(one.dtype)


def fill(one: Input, shape: tuple[int, ...], kind: str, way: int, generator: np.random.Generator) -> Array:
    """Values for an input.

    Args:
        one: The input.
        shape: Its shape.
        kind: `normal`, `zeros` or `large`.
        way: 0 what its role says; then, for originals that refuse that: 1 ones and positive numbers, 2 zeros, 3 integers
            that count along the last axis.
        generator: Seeded.
    """
    import numpy as np

    dtype = dtype_of(one)
    if one.dtype == "str":
        return np.full(shape, "onnxlint" if kind == "normal" else "", dtype=object)
    if dtype.kind in "fc":
        if one.role == "size":
            factors = np.full(shape, 2, dtype)
            if len(shape) == 1 and shape[0] > 2:
                factors[:2] = 1  # of batch and channels
            return factors
        numbers = generator.standard_normal(shape) * {"normal": 1.0, "zeros": 0.0, "large": LARGE_SCALE}[kind]
        return np.asarray(np.abs(numbers) if way == 1 else numbers, dtype)
    if dtype.kind == "b":
        is_set = kind == "zeros" or way == 1
        return np.ones(shape, dtype) if is_set else np.asarray(generator.integers(0, 2, shape), dtype)
    if way == 1 or (way == 0 and one.role == "size"):
        return np.full(shape, 1 if way == 1 else 2, dtype)
    if way == 2 or (kind == "zeros" and one.role != "mask"):
        return np.zeros(shape, dtype)
    high = one.high if one.role == "index" else 2 if one.role == "mask" else 256 if len(shape) >= 3 else 4
    high = max(1, min(high, int(np.iinfo(dtype).max) + 1))
    if way == 3:
        counted = np.arange(shape[-1] if shape else 1) % high
        return np.asarray(np.broadcast_to(counted, shape or (1,)).reshape(shape), dtype)
    if one.role == "mask":
        # A row without a single 1 makes attention divide by zero.
        mask = np.ones(shape, dtype) if kind == "zeros" else np.asarray(generator.integers(0, 2, shape), dtype)
        if shape:
            mask[..., :1] = 1
        return mask
    return np.asarray(generator.integers(high // 2 if kind == "large" else 0, high, shape), dtype)


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
