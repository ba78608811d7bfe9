"""Boxes (x1, y1, x2, y2): how much they overlap, and which of them stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def overlaps(one: Array, others: Array) -> Array:
    """IoU of boxes (N, 4) with boxes (M, 4): (N, M)."""
    low = np.maximum(one[:, None, :2], others[None, :, :2])
    high = np.minimum(one[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = np.clip(one[:, 2:] - one[:, :2], 0, None).prod(axis=1)
    areas = np.clip(others[:, 2:] - others[:, :2], 0, None).prod(axis=1)
    union = area[:, None] + areas[None] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def suppress(boxes: Array, scores: Array, labels: Array, threshold: float, limit: int) -> Array:
    """Non-maximum suppression in each class: indices of the boxes that stay, the best score first.

    Args:
        boxes: (K, 4).
        scores: (K,).
        labels: (K,).
        threshold: Boxes that overlap a better one more than this (IoU) go; from 1 on all stay.
        limit: How many may stay.
    """
    order = np.argsort(-scores, kind="stable")
    if threshold >= 1:
        return order[:limit]
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        first, order = order[0], order[1:]
        kept.append(int(first))
        if len(order):
            gone = (overlaps(boxes[first : first + 1], boxes[order])[0] > threshold) & (labels[order] == labels[first])
            order = order[~gone]
    return np.asarray(kept, np.intp)
