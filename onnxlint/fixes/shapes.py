"""Shapes as users write them: `image=N,3,H,W`, `image=1,3,?,?`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.model.dim_names import is_placeholder
from onnxlint.text import brief, counted, did_you_mean, listed, printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView

KEPT = "?"
"""The word for an axis that stays unchanged."""

MAX_SIZE = 2**31 - 1
"""Largest size of an axis; runtimes take no larger ones."""

WantedDim = int | str | None
"""A number, a letter for a size that is to be free, or None for an axis that stays as it is."""


def parse_shape(view: GraphView, flag: str, text: str) -> tuple[str, tuple[WantedDim, ...]]:
    """The input's name and the sizes that it is to have.

    Args:
        view: The model.
        flag: The option, for messages.
        text: `image=N,3,?,W`; the sizes alone where the model has one input.

    Raises:
        OnnxlintError: It is malformed, or does not fit an input of the model.
    """
    name, equals, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split(",")]
    shown = f"{flag} {printable(text[:80])!r}"
    inputs = view.main.data_inputs
    example = f"{flag} '{example_shape(view, flag)}'" if inputs else ""
    if not equals and text and all(part.lower() in _AXES for part in parts):
        return _named_axes(view, flag, parts)
    if not equals and len(inputs) == 1 and len(parts) > 1:
        name = inputs[0]
    elif not equals or not all(parts):
        raise OnnxlintError(f"{shown}: write it as {example}")
    if not all(parts):
        raise OnnxlintError(f"{shown}: write it as {example}")
    shape = view.main.shape(require_input(view, flag, name))
    if shape is None or len(shape) != len(parts):
        has = "no known rank" if shape is None else counted(len(shape), "axis", "axes")
        raise OnnxlintError(
            f"{flag}: {printable(name)!r} has {has}, and {counted(len(parts), 'size')} "
            f"{'is' if len(parts) == 1 else 'are'} given"
        )
    dims: list[WantedDim] = []
    for part in parts:
        is_number = part.isascii() and part.isdigit()
        if is_number and not (len(part) <= len(str(MAX_SIZE)) and 0 < int(part) <= MAX_SIZE):
            raise OnnxlintError(f"{shown}: a size is a number from 1 to {MAX_SIZE}")
        if not is_number and part != KEPT and _is_name(part) and is_placeholder(part):
            raise OnnxlintError(f"{shown}: {brief(part)!r} says that a size is unknown; name it, such as H")
        if not is_number and part != KEPT and not _is_name(part):
            raise OnnxlintError(
                f"{shown}: a size is a number, a name such as H, or {KEPT} for an axis that stays as it is"
            )
        dims.append(int(part) if is_number else None if part == KEPT else part)
    return name, tuple(dims)


_AXES = {"batch": 0, "n": 0, "channels": 1, "c": 1, "height": 2, "h": 2, "width": 3, "w": 3}
"""Words for axes of images."""


def _named_axes(view: GraphView, flag: str, words: list[str]) -> tuple[str, tuple[WantedDim, ...]]:
    """`height,width`: these axes of the image that the model takes."""
    images = [name for name in view.main.data_inputs if len(view.main.shape(name) or ()) == 4]
    if len(images) != 1 or flag != "--dynamic":
        example = f"{flag} '{example_shape(view, flag)}'" if view.main.data_inputs else f"{flag} 'input=…'"
        raise OnnxlintError(f"{flag} {','.join(words)}: name the input, such as {example}")
    dims: list[WantedDim] = [None] * 4
    for word in words:
        dims[_AXES[word.lower()]] = word
    return images[0], tuple(dims)


def _is_name(text: str) -> bool:
    return text.replace("_", "a").isalnum() and not text[0].isnumeric()


def require_input(view: GraphView, flag: str, name: str) -> str:
    """The name of an input, as it is.

    Raises:
        OnnxlintError: The model has no such input.
    """
    inputs = view.main.data_inputs
    if name not in inputs:
        there = f"; its inputs: {listed(map(printable, inputs), 8)}" if inputs else "; it has no inputs"
        raise OnnxlintError(f"{flag}: the model has no input {printable(name)!r}{did_you_mean(name, inputs) or there}")
    return name


def example_shape(view: GraphView, flag: str) -> str:
    """How a shape of the model's first input is written, for `--dynamic` with letters and for `--static` with numbers."""
    name = next(iter(view.main.data_inputs))
    shape = view.main.shape(name) or (1, 3, 640, 640)
    letters = "NCHW" if len(shape) == 4 else "NABDEFGH"
    free = [letters[i : i + 1] or f"X{i}" for i in range(len(shape))]
    if flag == "--static":
        free = [{"N": "1", "C": "3"}.get(letter, "640") for letter in free]
    dims = [str(dim) if isinstance(dim, int) else free[i] for i, dim in enumerate(shape)]
    return f"{printable(name)}={','.join(dims)}"
