"""A recipe kept in a model's metadata: written by `onnxlint export`, read where nobody says another one.

The metadata of a model is untrusted: what is read passes through `make_recipe`, as words of a command line do.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe, make_recipe
from onnxlint.model.metadata import RECIPE_KEY, metadata
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.images.options import ImageOptions
    from onnxlint.model.skeleton import Model

LONGEST = 4096
"""Characters of an entry that is read."""

_FIELDS = ("mean", "norm", "pixel", "resize", "size")


def note_recipe(proto: onnx.ModelProto, recipe: Recipe) -> None:
    """Write a recipe into a model's metadata, in place. A size that is a preset's suggestion is left out."""
    entry: dict[str, object] = {
        "mean": list(recipe.mean),
        "norm": list(recipe.norm),
        "pixel": recipe.pixel,
        "resize": recipe.resize,
    }
    if recipe.size is not None and not recipe.suggested:
        entry["size"] = list(recipe.size)
    for one in proto.metadata_props:
        if one.key == RECIPE_KEY:
            one.value = json.dumps(entry)
            return
    proto.metadata_props.add(key=RECIPE_KEY, value=json.dumps(entry))


def completed(recipe: Recipe, inputs: ImageOptions, model: Model) -> Recipe:
    """A recipe, with the values of pixels from the model's metadata where nothing else says them; a size stays.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    if recipe.defines_values or not inputs.noted:
        return recipe
    noted = noted_recipe(model.proto, model.path)
    if noted is None:
        return recipe
    own = noted.size is not None and recipe.size is None
    size, suggested = (noted.size, True) if own else (recipe.size, recipe.suggested)
    return replace(noted, size=size, suggested=suggested, multiples=recipe.multiples)


def in_words(recipe: Recipe) -> str:
    """All of a recipe but the size, in the words of the command line."""
    words = []
    for name, values in (("mean", recipe.mean), ("norm", recipe.norm)):
        if values:
            words.append(f"--{name} {','.join(f'{value:.6g}' for value in values)}")
    return " ".join([*words, f"--pixel {recipe.pixel}", f"--resize {recipe.resize}"])


def noted_recipe(proto: onnx.ModelProto, path: str) -> Recipe | None:
    """The recipe in a model's metadata; None if there is none.

    Args:
        proto: The model.
        path: Its file, for the message.

    Raises:
        OnnxlintError: It is damaged.
    """
    text = metadata(proto).get(RECIPE_KEY)
    if text is None:
        return None
    where = f"{printable(path)}: its metadata '{RECIPE_KEY}'"
    way_out = "; give the recipe yourself: --mean and --norm, or --preset"
    try:
        entry = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or not all(key in _FIELDS for key in entry):
        raise OnnxlintError(f"{where} holds no recipe{way_out}")
    words: dict[str, str | None] = {}
    for key, value in entry.items():
        if key in ("pixel", "resize"):
            good = isinstance(value, str)
            words[key] = value if good else None
        else:
            good = isinstance(value, list) and all(
                isinstance(one, int | float) and not isinstance(one, bool) for one in value
            )
            words["shape" if key == "size" else key] = ",".join(map(repr, value)) if good and value else None
        if not good:
            raise OnnxlintError(f"{where}: its {key} is damaged{way_out}")
    try:
        return make_recipe(**words)
    except OnnxlintError as error:
        raise OnnxlintError(f"{where} is no recipe: {error}{way_out}") from None
