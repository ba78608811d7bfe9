"""Refuse outputs that would destroy something: an input, a model, or the weights of a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from onnxlint.errors import OnnxlintError
from onnxlint.model.output import MODEL_SUFFIXES, is_stream
from onnxlint.model.reading import read_small
from onnxlint.model.scratch import PREFIX
from onnxlint.model.skeleton import STDIN, Model, is_external, open_model, walk_tensors
from onnxlint.text import printable


def refuse_inputs(output: str, inputs: Iterable[str], way_out: str = "choose another name") -> None:
    """Raise OnnxlintError if an output is one of the files that are read, under whatever name.

    Args:
        output: The file to write.
        inputs: Files that are read: models, images, labels, configurations; `-` is none of them.
        way_out: What the message advises.
    """
    for path in inputs:
        if path != STDIN and _is_same(output, path):
            raise OnnxlintError(f"{printable(output)}: is an input of this command; {way_out}")


def refuse_report(output: str, models: Iterable[str] = ()) -> None:
    """Raise OnnxlintError if a report or a table would replace a model, or the weights of one.

    Args:
        output: The file to write.
        models: Models that the command reads; those in the folder of `output` are looked at, too.
    """
    if not os.path.isfile(output):
        return
    inputs = list(models)
    refuse_inputs(output, inputs, "choose another name for the report")
    if os.path.splitext(output)[1].lower() in MODEL_SUFFIXES or is_model(output):
        raise OnnxlintError(f"{printable(output)}: is a model, which a report must not replace; choose another name")
    refuse_weights(output, inputs)


def refuse_weights(output: str, models: Iterable[str] = (), owner: str | None = None) -> None:
    """Raise OnnxlintError if an output would replace data that a model refers to.

    Args:
        output: The file to write.
        models: Models to look at, beside those in the folder of `output`.
        owner: The model that is written together with it, and may refer to it.
    """
    for path in dict.fromkeys([*models, *_neighbours(output)]):
        if (owner is None or not _is_same(path, owner)) and refers_to(path, output):
            raise OnnxlintError(
                f"{printable(output)}: holds the weights of {printable(path)}, which would be lost; choose another name"
            )


def holds_weights(path: str) -> bool:
    """Whether a model in the folder of a file refers to it."""
    return any(refers_to(model, path) for model in _neighbours(path))


def refuse_model_output(output: str, source: Model | None = None) -> None:
    """Raise OnnxlintError if a model would replace the weights of its source, or of a model in that folder."""
    if is_stream(output) or not os.path.isfile(output):
        return
    if source is not None and _refers(source, output):
        raise OnnxlintError(
            f"{printable(output)}: holds the weights of {printable(source.path)}, which would be lost; "
            "choose another name"
        )
    if not is_model(output):
        refuse_weights(output)


def refuse_external_data(target: str, output: str, source: Model) -> None:
    """Raise OnnxlintError if weights would replace a file that is not this output's own earlier data.

    Args:
        target: The file that takes the weights.
        output: The model that will refer to it.
        source: The model that the weights come from.
    """
    shown = printable(target)
    if any(_is_same(target, other) for other in (output, source.path) if other != STDIN):
        raise OnnxlintError(f"{shown}: is a model itself; give its weights another name")
    if not os.path.lexists(target):
        return
    if not _is_same(source.path, output) and _refers(source, target):
        raise OnnxlintError(
            f"{shown}: holds the weights of {printable(source.path)}; give --external-data another name"
        )
    refuse_weights(target, owner=output)
    if was_interrupted(target):
        return
    if not (os.path.isfile(output) and refers_to(output, target)):
        raise OnnxlintError(
            f"{shown}: exists, and is not the data of {printable(output)}; remove it, or give --external-data another name"
        )


def note_of(target: str) -> str:
    """A file beside a data file that is being moved in place; it says which file the new one is, and the old one.

    Should the process be killed between moving the data and moving the model that refers to it, the note tells the data
    from a file that somebody else put there.
    """
    folder, name = os.path.split(os.path.realpath(target))
    return os.path.join(folder, f"{PREFIX}{name}.note")


def identity(path: str) -> str:
    """Identity of a file, kept by renaming; empty if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def was_interrupted(target: str) -> bool:
    """Whether a data file was moved there by an earlier write of ours that was killed."""
    try:
        noted = read_small(note_of(target), 256)
    except (OSError, OnnxlintError):
        return False  # there is no such note
    return identity(target) in noted.decode("ascii", "replace").split()


def refers_to(path: str, data: str) -> bool:
    """Whether a model keeps weights in a file; False for a file that is not a model."""
    if path == STDIN or not os.path.isfile(path):
        return False
    try:
        return _refers(open_model(path), data)
    except OnnxlintError:
        return False


def is_model(path: str) -> bool:
    """Whether a file can be opened as a model."""
    try:
        open_model(path)
    except OnnxlintError:
        return False
    return True


def _refers(model: Model, data: str) -> bool:
    locations = {
        entry.value
        for tensor in walk_tensors(model.proto)
        if is_external(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return any("\0" not in where and _is_same(os.path.join(model.base_dir, where), data) for where in locations)


def _neighbours(path: str) -> Iterator[str]:
    """Models in the folder of a file."""
    folder = os.path.dirname(path) or "."
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.lower().endswith(MODEL_SUFFIXES):
            yield os.path.join(folder, name) if os.path.dirname(path) else name


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.realpath(one) == os.path.realpath(other)
