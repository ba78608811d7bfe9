"""What stands in the way of a comparison, as far as it can be said before any model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from onnxlint.accuracy.conditions import parse_conditions
from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.participants import Participant
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, find_images, require_pillow
from onnxlint.lint.engines import check_engine
from onnxlint.text import printable


def require_usable(models: Sequence[Participant], inputs: ImageOptions, options: CompareOptions) -> None:
    """Raise if a comparison cannot be made, whatever the models are like. Takes well under a second.

    Raises:
        OnnxlintError: A package is missing, there are no such images or labels, or an option is wrong.
    """
    check_engine(options.engine)
    parse_conditions(options.fail_if, None if options.task else ())
    _require_runtimes(models)
    _require_task(inputs, options)
    images = inputs.images
    if images is None or isinstance(images, ImageSet) or are_arrays(images):
        return
    if not os.path.exists(images):
        find_images(images)  # a pattern, or nothing
    require_pillow(os.fspath(images))


def are_arrays(images: str | os.PathLike[str] | ImageSet | None) -> bool:
    """Whether `--images` names an .npz or .npy file."""
    return not isinstance(images, ImageSet) and os.fspath(images or "").lower().endswith((".npz", ".npy"))


def _require_runtimes(models: Sequence[Participant]) -> None:
    """Raise if the runtime of a model is not installed; names every model that lacks it."""
    for model in models:
        # A backend of somebody else may have been written before there was this method.
        check = getattr(model.backend, "missing_to_run", None)
        if check is not None and (missing := check()):
            raise OnnxlintError(f"{printable(model.path)}: {missing}, or compare the others without it")


def _require_task(inputs: ImageOptions, options: CompareOptions) -> None:
    from onnxlint.accuracy.tasks import task_name
    from onnxlint.accuracy.tasks.labels import require_labels
    from onnxlint.accuracy.tasks.optional import require_installed

    if options.task is None:
        if options.labels is not None:
            raise OnnxlintError("--labels needs --task (for example --task detection)")
        return
    require_installed(task_name(options.task), options.labels is not None)
    if inputs.images is None:
        raise OnnxlintError("--task needs --images: tasks are evaluated on images")
    if options.labels is not None:
        require_labels(options.labels)
