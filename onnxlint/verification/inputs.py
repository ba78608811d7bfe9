"""Test inputs of a model: the roles of its inputs, and sensible values.

Needs NumPy alone: it runs in the process that also runs the models (see `worker`).
"""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True)
class Input:
    """A graph input, and its sensible values.

    Attributes:
        name: As in the model.
        dtype: NumPy's name; `str` for strings.
        dims: Sizes and symbols; None if the rank is unknown.
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
    """Inputs of a model.

    Attributes:
        inputs: Its inputs.
        multiples: Symbol → number that its size has to be a multiple of.
        hints: Symbol → the only size that can be right for it, from the weights that it meets.
        numbers: Numbers in constants that shapes are made of: sizes that the model may be fixed to.
        pairs: Height and width in such constants.
        likely: Symbol → a size that the model was found to demand; it is tried first.
        wide: The inputs as the fixed model declares them, if it frees sizes that are fixed in the original.
        freed: Symbol of `wide` → the number that it was.
    """

    inputs: tuple[Input, ...]
    multiples: Mapping[str, int] = field(default_factory=dict)
    hints: Mapping[str, int] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    likely: Mapping[str, int] = field(default_factory=dict)
    wide: tuple[Input, ...] = ()
    freed: Mapping[str, int] = field(default_factory=dict)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks to try for inputs of unknown rank; one, of no meaning, if there is none."""
        return (4, 3, 2, 1, 0) if any(one.dims is None for one in self.inputs) else (4,)


def dims_of(one: Input, rank: int) -> tuple[Dim, ...]:
    """Sizes and symbols of an input; made up, one for each of `rank` axes, where it declares none."""
    return tuple(f"{one.name}[{axis}]" for axis in range(rank)) if one.dims is None else one.dims


# Values


def dtype_of(one: Input) -> Any:
    """The NumPy type of an input's values; object for text."""
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
