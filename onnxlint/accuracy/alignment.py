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
    left = weight.copy()
    left[list(found.values()), :] = 0
    left[:, list(found)] = 0
    while left.size and left.max() >= 1:  # cosine 0.9
        i, j = divmod(int(left.argmax()), m)
        found[j] = i
        left[i, :] = 0
        left[:, j] = 0
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
        similar = _unit([reference[i] for i in rows]) @ _unit([candidate[j] for j in columns]).T
        places = {reference[i].known_as: a for a, i in enumerate(rows)}
        named = [(places[candidate[j].known_as], b) for b, j in enumerate(columns) if candidate[j].known_as in places]
        for a, b in {*map(tuple, np.argwhere(similar >= _ENOUGH).tolist()), *named}:
            r, c = reference[rows[a]], candidate[columns[b]]
            cosine = float(similar[a, b])
            is_named = r.known_as == c.known_as and not r.known_as.isdigit()  # ncnn's numbers are not the exporter's
            if (cosine < _ENOUGH and not is_named) or not same_layout(r.shape, c.shape):
                continue
            scope = r_scopes.get(r.known_as, "")
            is_scoped = bool(scope) and scope == c_scopes.get(c.known_as, "")
            nines = -np.log10(max(1 - max(cosine, 0.0), 1e-6))
            weight[rows[a], columns[b]] = max(nines, 0.01) + 2.0 * is_named + 0.5 * is_scoped
    return weight


def _unit(tensors: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    rows = np.stack([tensor.sample for tensor in tensors])
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20), np.float32)
