"""The recipe for a model: its own input size and conditions, where the recipe leaves them open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS, Recipe
from onnxlint.model.assumptions import Assumption, assumptions
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.text import counted, did_you_mean, printable

HEIGHT, WIDTH = 2, 3
"""Axes of N×C×H×W."""


def recipe_for(
    model: Model, recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], reads_images: bool = True
) -> Recipe:
    """The recipe with the model's own input size where nobody gave one; a preset only suggests a size. Where images
    keep their own size, and the model was fixed for multiples, the recipe brings them to these.

    Args:
        model: What is fed.
        recipe: The user's recipe.
        shapes: Input → whole shape, as the user gives it.
        reads_images: Whether images are fed at all.

    Raises:
        OnnxlintError: Model and recipe do not fit.
    """
    main = make_view(model).main
    for name in shapes:
        if name not in main.data_inputs:
            near = (
                did_you_mean(name, main.data_inputs) or f" (its inputs: {', '.join(map(printable, main.data_inputs))})"
            )
            raise OnnxlintError(f"--input-shape {printable(name)}: {printable(model.path)} has no such input{near}")
    pictures = [name for name in main.data_inputs if len(main.shape(name) or ()) == 4]
    if len(pictures) != 1:
        return replace(recipe, suggested=False)
    name = pictures[0]
    _, channels, height, width = main.shape(name) or ()
    shown = f"{printable(model.path)}: input {printable(name)!r}"
    if isinstance(channels, int) and channels != recipe.channels:
        if reads_images:
            _refuse_channels(shown, channels, width, recipe)
        return replace(recipe, suggested=False)
    known = [one for one in assumptions(model.proto) if one.input == name]
    across, down = multiples_of(known)
    fixed = (width if isinstance(width, int) else None, height if isinstance(height, int) else None)
    if recipe.size is None:
        whole = None if None in fixed else (fixed[0] or 0, fixed[1] or 0)
        return replace(recipe, size=whole, multiples=(across, down) if whole is None else (1, 1), suggested=False)
    if recipe.suggested:
        size = tuple(
            own or math.ceil(have / of) * of for own, have, of in zip(fixed, recipe.size, (across, down), strict=True)
        )
        return replace(recipe, size=(size[0], size[1]), suggested=False)
    _require_conditions(shown, known, recipe.size)
    if any(own is not None and own != have for own, have in zip(fixed, recipe.size, strict=True)):
        size = tuple(own or have for own, have in zip(fixed, recipe.size, strict=True))
        raise OnnxlintError(
            f"{shown} is fixed to width {fixed[0] or 'any'} and height {fixed[1] or 'any'}, not {recipe.size[0]} and "
            f"{recipe.size[1]}: use --shape {size[0]},{size[1]},{recipe.channels}, or make the sizes free with "
            "'onnxlint fix --dynamic'"
        )
    return recipe


def multiples_of(conditions: list[Assumption]) -> tuple[int, int]:
    """What (width, height) have to be multiples of."""
    found = {HEIGHT: 1, WIDTH: 1}
    for one in conditions:
        if one.axis in found:
            found[one.axis] = math.lcm(found[one.axis], one.multiple)
    return found[WIDTH], found[HEIGHT]


def broken_condition(model_conditions: list[Assumption], shape: tuple[int, ...]) -> str:
    """The condition that an input's shape (N, C, H, W) breaks, in words; empty if it breaks none."""
    for one in model_conditions:
        if one.axis < len(shape) and shape[one.axis] % one.multiple:
            return f"{shape[one.axis]} on axis {one.axis} violates the model's condition ({printable(one.clause)})"
    return ""


def _require_conditions(shown: str, known: list[Assumption], size: tuple[int, int]) -> None:
    """Raise if the size breaks a condition that `onnxlint fix` wrote into the model."""
    sizes = {HEIGHT: size[1], WIDTH: size[0]}
    for one in known:
        if sizes.get(one.axis, 0) % one.multiple:
            raise OnnxlintError(
                f"{shown}: {sizes[one.axis]} violates the model's condition ({printable(one.clause)}): "
                f"choose a --shape of multiples of {one.multiple}"
            )


def _refuse_channels(shown: str, channels: int, width: object, recipe: Recipe) -> None:
    """Raise if images of the recipe have other channels than the input."""
    if width == recipe.channels:
        raise OnnxlintError(
            f"{shown} has its channels last; onnxlint feeds images as N×C×H×W: export it with that layout"
        )
    way = {1: "--pixel GRAY", 3: "--pixel BGR or RGB"}.get(channels)
    if way is not None:
        raise OnnxlintError(
            f"{shown} has {counted(channels, 'channel')}, and --pixel {recipe.pixel} gives {recipe.channels}: use {way}"
        )


def require_values(shown: str, recipe: Recipe, line: str) -> None:
    """Raise if the preprocessing of pixel values is not given.

    Args:
        shown: The model, in the message.
        recipe: The user's recipe.
        line: The command without what is asked for.

    Raises:
        OnnxlintError: The question, with lines that answer it.
    """
    if not recipe.defines_values:
        raise OnnxlintError(
            f"{shown}: preprocessing of pixels (0–255) unknown; type '{line} --preset imagenet' (or "
            f"{', '.join(sorted(set(PRESETS) - {'imagenet'}))}), or add your training's --mean A,B,C --norm A,B,C; "
            "--mean 0,0,0 feeds raw pixels"
        )
