"""Inputs as given by a command or a Python program; one argument of conversion, accuracy and deployment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.images.recipe import ImageSet, Recipe


@dataclass(frozen=True)
class ImageOptions:
    """Inputs, and how images become them.

    Attributes:
        images: A folder, a glob, a list of files, an .npz or .npy file; None: none are given.
        recipe: How images become the input; None: nothing is said, and a preset or the model decides.
        shapes: Input → whole shape, for inputs with free sizes that are not images.
    """

    images: str | os.PathLike[str] | ImageSet | None = None
    recipe: Recipe | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
