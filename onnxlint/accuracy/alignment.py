"""Match intermediate tensors of a candidate with the reference's.

By measured similarity, in order; equal names and module scopes speak for a match. Operators that one of the two has fused
have no partner, and count with the next layer that has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.match import same_layout
from onnxlint.backends import Array

_ENOUGH = 0.5
"""Cosine from which on tensors may be the same one."""


@dataclass(frozen=True)
class Tensor:
    """Statistics of a tensor after one run.

    Attributes:
        name: Of the value.
        known_as: The name that it has in a model that is not quantized.
        op: The operator that makes it.
        shape, dtype: Of the array.
        sample: Some of its numbers.
        bytes: Its size.
    """

    name: str
    known_as: str
    op: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sample: npt.NDArray[np.float32]
    bytes: int

    def like(self, value: Array) -> Array:
        """A value in this tensor's shape and type."""
        return np.asarray(value, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Link:
    """A tensor of the reference and the matching one of the candidate.

    Attributes:
        reference, candidate: The two.
        scale: Factors that turn the candidate's channels (axis 1) into the reference's, in a model whose
            channels were rescaled before it was quantized; None if they are the same.
    """

    reference: Tensor
    candidate: Tensor
    scale: Array | None = None

    def to_reference(self, value: Array) -> Array:
        """A value of the candidate as the reference would have it."""
        value = self.reference.like(value)
        return value if self.scale is None else np.asarray(value * self._along(value), value.dtype)

    def to_candidate(self, value: Array) -> Array:
        """A value of the reference as the candidate would have it."""
        if self.scale is not None:
            value = self.reference.like(value)
            value = value / self._along(value)
        return self.candidate.like(value)

    def _along(self, value: Array) -> Array:
        assert self.scale is not None
        return self.scale.reshape(1, -1, *(1,) * (value.ndim - 2))


def align(
    reference: Sequence[Tensor],
    candidate: Sequence[Tensor],
    r_scopes: Mapping[str, str],
    c_scopes: Mapping[str, str],
) -> list[Link]:
    """Matching tensors, in the candidate's order.

    The best sequence of matches that keeps the order of both, then, for branches that the two compute in different
    order, the remaining tensors that are alike.
    """
    weight = _weights(reference, candidate, r_scopes, c_scopes)
    n, m = weight.shape
    best = np.zeros((n + 1, m + 1), np.float32)
    for i in range(n):
        # The best of leaving out the reference's tensor, or matching it with each of the candidate's, or leaving out
        # that one: the last is a running maximum.
        taken = np.where(weight[i] > 0, best[i, :-1] + weight[i], 0)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    found: dict[int, int] = {}
    i, j = n, m
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found[j] = i
    rows, columns = np.nonzero(weight >= 1)  # cosine 0.9
    used = set(found.values())
    for k in np.argsort(-weight[rows, columns], kind="stable").tolist():
        i, j = int(rows[k]), int(columns[k])
        if i not in used and j not in found:
            found[j] = i
            used.add(i)
    return [Link(reference[found[j]], candidate[j]) for j in sorted(found)]


def _weights(
    reference: Sequence[Tensor], candidate: Sequence[Tensor], r_scopes: Mapping[str, str], c_scopes: Mapping[str, str]
) -> npt.NDArray[np.float32]:
    """How much speaks for each pair: the number of nines in their cosine, and more for names and scopes; 0: impossible."""
    weight = np.zeros((len(reference), len(candidate)), np.float32)
    sizes = sorted({tensor.sample.size for tensor in reference} & {tensor.sample.size for tensor in candidate})
    for size in sizes:
        rows = [i for i, tensor in enumerate(reference) if tensor.sample.size == size]
        columns = [j for j, tensor in enumerate(candidate) if tensor.sample.size == size]
        mine, others = [reference[i] for i in rows], [candidate[j] for j in columns]
        similar = np.maximum(_unit(mine) @ _unit(others).T, 0).astype(np.float64)
        # ncnn's numbers are not the exporter's
        is_named = _equal(*([one.known_as * (not one.known_as.isdigit()) for one in ones] for ones in (mine, others)))
        r_shapes, c_shapes = ({one.shape: None for one in ones} for ones in (mine, others))
        alike = np.array([[same_layout(a, b) for b in c_shapes] for a in r_shapes])
        places = [{shape: i for i, shape in enumerate(shapes)} for shapes in (r_shapes, c_shapes)]
        fits = alike[np.ix_([places[0][one.shape] for one in mine], [places[1][one.shape] for one in others])]
        is_scoped = _equal(
            [r_scopes.get(one.known_as, "") for one in mine], [c_scopes.get(one.known_as, "") for one in others]
        )
        nines = np.maximum(-np.log10(np.maximum(1 - similar, 1e-6)), 0.01)
        possible = fits & ((similar >= _ENOUGH) | is_named)
        weight[np.ix_(rows, columns)] = np.where(possible, nines + 2.0 * is_named + 0.5 * is_scoped, 0)
    return weight


def _equal(rows: Sequence[str], columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which words of two lists are the same; empty ones are not."""
    numbers = {word: i for i, word in enumerate(dict.fromkeys(filter(None, rows)), 1)}
    mine = np.array([numbers.get(word, -1) for word in rows])
    others = np.array([numbers.get(word, -2) for word in columns])
    return np.asarray(np.equal.outer(mine, others))


def _unit(tensors: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    rows = np.stack([tensor.sample for tensor in tensors])
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20), np.float32)
