"""How images become the inputs of the models that are compared: as the user says, else as the candidates were made, else as
the metadata of the reference says.

A candidate that `onnxlint convert` made has a manifest beside it, with the recipe and the size that it was made with. Where
the user says nothing, that recipe is used; where the user says something else, the candidate's report says so. Candidates
that were made for different sizes are each compared at their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxlint.accuracy.participants import Participant
from onnxlint.conversion.manifest import recipe_of
from onnxlint.errors import OnnxlintError
from onnxlint.images.noted import in_words, noted_recipe
from onnxlint.images.recipe import Recipe
from onnxlint.images.sizes import recipe_for
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable


@dataclass
class Group:
    """Candidates that are compared on the same inputs, and how images become these."""

    recipe: Recipe
    candidates: list[Participant]


def describe(recipe: Recipe) -> str:
    """A recipe in the words of the command line."""
    return " ".join([*([_size(recipe.size, recipe.channels)] if recipe.size is not None else []), in_words(recipe)])


def _size(size: tuple[int, int], channels: int) -> str:
    return f"--shape {size[0]},{size[1]},{channels}"


def groups_of(
    models: Sequence[Participant],
    recipe: Recipe | None,
    shapes: Mapping[str, tuple[int, ...]],
    reads_images: bool,
    noted: bool = True,
) -> list[Group]:
    """The candidates, by the recipe and size that they are compared with; notes are left with them.

    A candidate without a manifest takes the size that the first one with a manifest was made for.

    Args:
        models: The reference, and the candidates.
        recipe: The user's recipe; None if none was given.
        shapes: Input → whole shape, as the user gives it.
        reads_images: Whether the inputs are images.
        noted: Whether the recipe in the reference's metadata holds, where neither the user nor a manifest gives one.

    Raises:
        OnnxlintError: A model and its recipe do not fit.
    """
    reference, *candidates = models
    recorded = {one.path: _recorded(one) for one in candidates}
    said = recipe or Recipe()
    if reads_images and not said.defines_values:
        known = [(one, made) for one in candidates if (made := recorded[one.path]) is not None and made.defines_values]
        if known:
            source, made = known[0]
            said = replace(made, size=said.size, suggested=said.suggested, multiples=(1, 1))
            source.notes.append(f"preprocessed as it was converted, which its manifest records: {in_words(said)}")
        elif noted and reference.is_onnx:
            said = _from_metadata(models, said)
    groups: list[Group] = []
    first_made = next((made for made in recorded.values() if made is not None and made.size is not None), None)
    for one in candidates:
        made = recorded[one.path]
        chosen = _sized([reference, one], said, made or first_made, shapes, reads_images)
        if made is not None and reads_images:
            one.notes += _disagreements(made, chosen)
        group = next((group for group in groups if group.recipe == chosen), None)
        if group is None:
            groups.append(Group(chosen, [one]))
        else:
            group.candidates.append(one)
    return groups


def _from_metadata(models: Sequence[Participant], said: Recipe) -> Recipe:
    """The recipe in the reference's metadata, at the size that is said; unchanged where it has none."""
    reference, *candidates = models
    made = noted_recipe(open_model(reference.path).proto, reference.path)
    if made is None:
        return said
    candidates[0].notes.append(f"preprocessed as the metadata of {printable(reference.path)} says: {in_words(made)}")
    size, suggested = (made.size, True) if said.size is None else (said.size, said.suggested)
    return replace(made, size=size, suggested=suggested)


def _recorded(model: Participant) -> Recipe | None:
    return recipe_of(model.path)


def _sized(
    models: Sequence[Participant],
    recipe: Recipe,
    made: Recipe | None,
    shapes: Mapping[str, tuple[int, ...]],
    reads_images: bool,
) -> Recipe:
    """The recipe at the size that both models take: what the user says, what a model fixes, what a manifest records."""
    across, down = (1, 1) if made is None else made.multiples
    if made is not None and made.size is not None and (recipe.size is None or recipe.suggested):
        recipe = replace(recipe, size=made.size, suggested=True)
    is_suggested = recipe.suggested
    for i, model in enumerate(models):
        if not model.is_onnx:
            continue
        adapted = recipe_for(open_model(model.path), recipe, shapes if i == 0 else {}, reads_images)
        across, down = math.lcm(across, adapted.multiples[0]), math.lcm(down, adapted.multiples[1])
        if i and adapted.size != recipe.size and recipe.size is not None and not recipe.suggested:
            raise OnnxlintError(
                f"{printable(model.path)}: takes {_by(adapted.size)}, and the reference is compared at "
                f"{_by(recipe.size)}: compare it with a reference of that size, or one whose sizes are free"
            )
        recipe = adapted
        if is_suggested and i == 0 and not _is_fixed(model):
            recipe = replace(recipe, suggested=True)  # the candidate may still fix it
    multiples = (across, down) if recipe.size is None else (1, 1)
    return replace(recipe, suggested=False, multiples=multiples)


def _is_fixed(model: Participant) -> bool:

    main = make_view(open_model(model.path)).main
    shapes = [main.shape(name) or () for name in main.data_inputs]
    return any(len(shape) == 4 and all(isinstance(size, int) for size in shape[2:]) for shape in shapes)


def _by(size: tuple[int, int] | None) -> str:
    return "images of any size" if size is None else f"{size[0]}×{size[1]}"


def _disagreements(made: Recipe, used: Recipe) -> list[str]:
    """How the recipe of a comparison differs from the one that a candidate was made with."""
    notes = []
    if made.defines_values and in_words(made) != in_words(used):
        notes.append(
            f"converted with {in_words(made)}, but compared with {in_words(used)}: use the same options, or its accuracy "
            "is judged on inputs that it was not calibrated for"
        )
    if made.size is not None and used.size is not None and made.size != used.size:
        notes.append(f"converted for {_by(made.size)}, but compared at {_by(used.size)}")
    return notes
