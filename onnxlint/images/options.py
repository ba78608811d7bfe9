"""Inputs as given by a command or a Python program; one argument of conversion, accuracy and deployment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.images.recipe import ImageSet, Recipe


@dataclass(frozen=True)
class ImageOptions:
    """Inputs, and how images become them.

    Attributes:
        images: A folder, a glob, a list of files, an .npz or .npy file; None: none are given.
        recipe: How images become the input; None: nothing is said, and a preset or the model decides.
        shapes: Input → whole shape, for inputs with free sizes that are not images.
        noted: Whether the recipe in a model's metadata holds, where nothing else defines the values of pixels.
    """

    images: str | os.PathLike[str] | ImageSet | None = None
    recipe: Recipe | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    noted: bool = True


def as_recipe(recipe: Recipe | Mapping[str, Any] | str | None) -> Recipe | None:
    """A recipe from a preset's name or the arguments of `make_recipe`, whose numbers may be a list.

    Raises:
        OnnxlintError: It makes no recipe.
    """
    from onnxlint.images.recipe import make_recipe

    if isinstance(recipe, str):
        return make_recipe(preset=recipe)
    if not isinstance(recipe, Mapping):
        return recipe
    for key in recipe:
        if key not in _RECIPE_KEYS:
            hint = did_you_mean(str(key), _RECIPE_KEYS, choices(_RECIPE_KEYS))
            raise OnnxlintError(f"recipe: no such key: {printable(str(key))!r}{hint}")
    parts = {
        key: value if isinstance(value, str) else ",".join(map(str, value if isinstance(value, Iterable) else [value]))
        for key, value in recipe.items()
        if value is not None
    }
    return make_recipe(**parts)


def leaves_values(recipe: Recipe | Mapping[str, Any] | str | None) -> bool:
    """Whether a recipe says nothing of how pixels become values: none is given, or a size alone."""
    return recipe is None or (isinstance(recipe, Mapping) and not recipe.keys() - {"shape"})


_RECIPE_KEYS = ("preset", "shape", "mean", "norm", "pixel", "resize")
