"""Prior boxes (anchors) of detection models, which offsets are relative to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Priors:
    """Boxes that a network's offsets are relative to; sizes in pixels of the input.

    For every level, row by row, in every cell: a square of each min size, with a max size one of √(min · max), then
    for each aspect ratio r (r > 1) of each min size the wide and the tall box.

    Attributes:
        min_sizes: Of each level.
        steps: Pixels between cells, of each level.
        max_sizes: One of each level; empty: none.
        aspect_ratios: Of each level; empty: none.
        features: Cells along an edge, of each level; empty: the input's size by the step, rounded up.
        variances: What offsets of centres and of sizes are multiplied by.
        clip: Whether centres and sizes are kept within the image.
        center: Where in its cell a box is centred.
    """

    min_sizes: tuple[tuple[float, ...], ...]
    steps: tuple[float, ...] = ()
    max_sizes: tuple[float, ...] = ()
    aspect_ratios: tuple[tuple[float, ...], ...] = ()
    features: tuple[int, ...] = ()
    variances: tuple[float, float] = (0.1, 0.2)
    clip: bool = False
    center: float = 0.5


@lru_cache(maxsize=16)
def prior_boxes(priors: Priors, width: int, height: int) -> Array:
    """(P, 4): centres and sizes, relative to an input of width × height pixels; float64."""
    levels = []
    for i, sizes in enumerate(priors.min_sizes):
        if priors.features:
            nx = ny = priors.features[i]
            step_x, step_y = (priors.steps[i],) * 2 if priors.steps else (width / nx, height / ny)
        else:
            step_x = step_y = priors.steps[i]
            nx, ny = math.ceil(width / step_x), math.ceil(height / step_y)
        shapes = [(size, size) for size in sizes]
        if priors.max_sizes:
            shapes += [(math.sqrt(size * priors.max_sizes[i]),) * 2 for size in sizes]
        for ratio in priors.aspect_ratios[i] if priors.aspect_ratios else ():
            root = math.sqrt(ratio)
            for size in sizes:
                shapes += [(size * root, size / root), (size / root, size * root)]
        cells = np.empty((ny, nx, len(shapes), 4))
        cells[..., 0] = ((np.arange(nx) + priors.center) * step_x / width)[None, :, None]
        cells[..., 1] = ((np.arange(ny) + priors.center) * step_y / height)[:, None, None]
        cells[..., 2:] = np.asarray(shapes) / (width, height)
        levels.append(cells.reshape(-1, 4))
    boxes = np.concatenate(levels)
    boxes = np.clip(boxes, 0, 1) if priors.clip else boxes
    boxes.flags.writeable = False  # shared by all who ask
    return boxes


@lru_cache(maxsize=16)
def prior_steps(priors: Priors, width: int, height: int) -> Array:
    """(P,): the step of each prior's level, in pixels."""
    counts = [len(prior_boxes(_level(priors, i), width, height)) for i in range(len(priors.min_sizes))]
    return np.repeat(np.asarray(priors.steps), counts)


def _level(priors: Priors, i: int) -> Priors:
    def one(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values[i : i + 1]

    return replace(
        priors,
        min_sizes=one(priors.min_sizes),
        steps=one(priors.steps),
        max_sizes=one(priors.max_sizes),
        aspect_ratios=one(priors.aspect_ratios),
        features=one(priors.features),
    )
