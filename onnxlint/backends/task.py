"""What outputs are used for: judges of quantized models that count what people read, such as found faces.

A backend gets a `TaskLoss` with its `Job` and knows none by name; those of onnxlint are in `onnxlint.accuracy.loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Outputs = Mapping[str, npt.NDArray[np.generic]]
Pairs = Iterable[tuple[Outputs, Outputs, tuple[int, int]]]
"""For each input: the reference's outputs and a candidate's, with a batch axis of 1, and the input's width and height."""


@dataclass(frozen=True)
class Loss:
    """How a candidate's answers differ from the reference's.

    Attributes:
        rank: What candidates are ordered by, the smaller the better, the first number first; empty where the outputs are
            not those of the task.
        values: Metrics by name: `found`, `top1`, `cosine`, `snr` and others.
    """

    rank: tuple[float, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_none(self) -> bool:
        """Whether nothing that counts is lost: a score may differ, but no answer."""
        return bool(self.rank) and self.rank[0] == 0


MORE = 4
"""Numbers of layers that are tried between those of the series: see `least_loss`."""


class TaskLoss(Protocol):
    """Measures a candidate by what its outputs are used for. It can be pickled."""

    def measure(self, pairs: Pairs) -> Loss:
        """Compare the answers of a candidate with those of the reference.

        Raises:
            OnnxlintError: The outputs are not those of the task that the user named.
        """

    def record(self) -> Mapping[str, object]:
        """What the manifest says about it: JSON values by name."""


def lengths(count: int) -> list[int]:
    """How many of `count` layers, the most important first, candidates keep in float: all numbers of a series that grows
    by half, down to 0. A larger budget has the candidates of a smaller one, and others."""
    series = [0, 1]
    while series[-1] <= count:
        series.append(max(series[-1] + 1, round(series[-1] * 1.5)))
    return [one for one in reversed(series) if one <= count]


def least_loss(count: int, make: Callable[[int], tuple[T, Loss]]) -> tuple[int, T, list[tuple[int, Loss]]]:
    """The candidate with the least loss, of several the one that keeps most; none of fewer layers is made after one that
    loses nothing. Where it keeps fewer layers than it may, by one answer perhaps, `MORE` numbers between are tried as well,
    the largest first, and the first is taken that loses as many answers: its outputs are closer.

    Args:
        count: Layers that may stay in float.
        make: Makes the candidate that keeps so many, and measures it.

    Returns:
        How many layers it keeps, the candidate, and all that were measured.
    """
    best: tuple[int, T, Loss] | None = None
    tried = []
    for length in lengths(count):
        made, loss = make(length)
        tried.append((length, loss))
        if best is None or loss.rank < best[2].rank:
            best = (length, made, loss)
        if loss.is_none:
            break
    assert best is not None
    between = [n for n in range(count, best[0], -1) if n not in {length for length, _ in tried}]
    for length in between[:MORE]:
        made, loss = make(length)
        tried.append((length, loss))
        if loss.rank[:1] == best[2].rank[:1] and loss.rank[:-1] <= best[2].rank[:-1]:
            return length, made, tried
    return best[0], best[1], tried


def facts_of(tried: Iterable[tuple[int, Loss]]) -> list[dict[str, float]]:
    """What was measured, for the manifest."""
    return [
        {"layers": length, **{name: round(value, 4) for name, value in loss.values.items()}} for length, loss in tried
    ]


def size_of(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of an input (…, H, W); 0 and 0 of something else."""
    return (int(shape[-1]), int(shape[-2])) if len(shape) >= 3 else (0, 0)
