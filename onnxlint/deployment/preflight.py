"""Checks before anything is written: whether targets can be made, inputs prepared and the model run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Job, Progress, Target, backend_for
from onnxlint.conversion.child import call_in_child
from onnxlint.conversion.preflight import require_targets
from onnxlint.deployment.options import Options
from onnxlint.deployment.samples.writing import require_jinja
from onnxlint.deployment.steps import targets_of
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import read_assumption, require_fitting
from onnxlint.images.recipe import PRESETS, ImageSet, Recipe
from onnxlint.images.sizes import recipe_for, require_values
from onnxlint.model.skeleton import Model, external_files, open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks import Task


def preflight(path: str, folder: str | None, to: Sequence[str], options: Options, progress: Progress) -> Recipe:
    """Find out what would fail later, without writing anything.

    Args:
        path: The model.
        folder: Where everything is to be written; None: the default beside the model.
        to: Names of targets.
        options: As given.
        progress: Called with the current action.

    Returns:
        The recipe, with the model's own input size where none was given.

    Raises:
        OnnxlintError: The first thing that is wrong.
    """
    targets = targets_of(to)
    require_jinja()
    model = open_model(path)
    external_files(model)  # before anything is written
    _, fixed = places(path, folder)
    if os.path.exists(fixed) and os.path.samefile(fixed, path):
        raise OnnxlintError(
            f"--out-dir {printable(os.path.dirname(fixed))}: the fixed model would replace the original; choose another"
        )
    _require_images(targets, options)
    _task(options)
    known = _known_recipe(model, options)
    images = options.images
    recipe = recipe_for(model, known, options.shapes, reads_images=images is not None and images.arrays is None)
    require_fitting(model, options.fixing.assumptions, _sizes(model, recipe, options))
    job = Job(
        recipe,
        images,
        options.shapes,
        options.converting.method,
        threads=options.converting.threads,
        tools=options.converting.tools,
    )
    if targets:
        require_targets(targets, path, job)
    progress("a first run", 0, None)
    call_in_child(path, _run_once, path, recipe, options)
    return recipe


def _sizes(model: Model, recipe: Recipe, options: Options) -> dict[str, Sequence[int]]:
    """Input → its shape, where that is known: given, or the size of images with 1 for the rest."""
    known: dict[str, Sequence[int]] = dict(options.shapes)
    main = make_view(model).main
    for name in main.data_inputs:
        shape = main.shape(name) or ()
        if name not in known and len(shape) == 4 and recipe.size is not None:
            known[name] = (1, recipe.channels, *recipe.size[::-1])
    return known


def preflight_network(network: Any, to: Sequence[str], options: Options) -> None:
    """Find out what would fail after the export of a network, as far as that can be known before.

    Raises:
        OnnxlintError: The first thing that is wrong.
    """
    targets = targets_of(to)
    require_jinja()
    for text in options.fixing.assumptions:
        read_assumption(text)
    _require_images(targets, options)
    recipe, images = options.recipe, options.images
    if images is not None and images.arrays is None and options.comparing.task != "detection":
        _require_values(network if isinstance(network, str) else type(network).__name__, recipe, images)
    if options.comparing.task is not None:
        _task(options)


def with_task(path: str, options: Options) -> Options:
    """The options with the task that the outputs tell, where labels were given and no task.

    Raises:
        OnnxlintError: The model does not run, or its outputs do not tell.
    """
    if options.comparing.labels is None or options.comparing.task is not None:
        return options
    task = call_in_child(path, _task_told_by, path, options)
    if task is None:
        raise OnnxlintError("--labels needs --task: classification or detection")
    return replace(options, comparing=replace(options.comparing, task=task))


def _task_told_by(path: str, options: Options) -> str | None:
    """Run a model on one random image; whether it gives a score for each class, or what a known detector gives."""
    from onnxlint.accuracy.tasks.decoder import choose
    from onnxlint.accuracy.tasks.labels import read_class_list, read_classes

    labels = options.comparing.labels or ""
    model = open_model(path)
    view = make_view(model)
    inputs = view.main.data_inputs
    recipe = recipe_for(model, options.recipe, options.shapes)
    shape = list(options.shapes.get(inputs[0], view.main.shape(inputs[0]) or ())) if len(inputs) == 1 else []
    if len(shape) != 4:
        return None
    if recipe.size is not None:
        shape = [1, shape[1] if isinstance(shape[1], int) else recipe.channels, *recipe.size[::-1]]
    sizes = [one if isinstance(one, int) else 1 for one in shape]
    session = backend_for(path).open(path, options.converting.threads)
    x = np.random.default_rng(0).random(sizes, np.float32)
    outputs = {port.name: array for port, array in zip(session.outputs, session.run({inputs[0]: x}), strict=True)}
    count = len(read_classes(labels).names) if os.path.isdir(labels) else len(read_class_list(labels))
    flat = [array for array in outputs.values() if array.ndim == 2 and array.shape[0] == 1 and array.shape[1] > 1]
    if len(flat) == len(outputs) and any(count in (0, array.shape[1]) for array in flat):
        return "classification"
    try:
        choose(outputs, (sizes[3], sizes[2]), _heads(model))
    except OnnxlintError:  # no decoder fits the outputs
        return None
    return "detection"


def _require_images(targets: Sequence[tuple[Any, Target]], options: Options) -> None:
    calibrated = [target.name for _, target in targets if target.calibrates]
    if calibrated and options.images is None:
        raise OnnxlintError(
            f"{calibrated[0]} is calibrated with images: add --images with a folder, a list or an .npz file"
        )


def places(path: str, folder: str | None) -> tuple[str, str]:
    """The folder of a deployment (by default `NAME_deploy` beside the model), and the path of the fixed model in it."""
    stem = os.path.splitext(path)[0]
    folder = folder if folder is not None else f"{stem}_deploy"
    return folder, os.path.join(folder, f"{os.path.basename(stem)}.onnx")


def shared_multiple(wanted: int | None, recipe: Recipe) -> int | None:
    """The largest divisor of the assumed multiple that the recipe's size is a multiple of; None if that is 1."""
    if wanted is None or recipe.size is None:
        return wanted
    shared = math.gcd(wanted, *recipe.size)
    return shared if shared > 1 else None


def _task(options: Options) -> Task | None:
    """The task that outputs are judged by; conditions and labels are checked too.

    Raises:
        OnnxlintError: The comparison could not begin.
    """
    from onnxlint.accuracy.conditions import parse_conditions
    from onnxlint.accuracy.tasks import make_task

    parse_conditions(options.comparing.fail_if, None if options.comparing.task else ())
    if options.comparing.task is None:
        return None
    if options.images is None and options.comparing.labels is not None and not _is_list(options.comparing.labels):
        raise OnnxlintError("--task with labels of images needs --images")
    return make_task(
        options.comparing.task,
        recipe=options.recipe,
        images=options.images,
        labels=options.comparing.labels,
        detection=options.comparing.detection,
    )


def _is_list(labels: str) -> bool:
    """Whether labels are no more than the names of classes."""
    from onnxlint.accuracy.tasks.labels import read_class_list

    return not os.path.isdir(labels) and bool(read_class_list(labels))


def _run_once(path: str, recipe: Recipe, options: Options) -> None:
    """Run the model on one input: a model that does not run, or does not fit the task, need not be converted.

    Raises:
        OnnxlintError: It does not run on such inputs, or its outputs do not fit the task.
    """
    from onnxlint.accuracy.inputs import make_inputs, renamed_feeds

    session = backend_for(path).open(path, options.converting.threads)
    inputs = make_inputs(path, session, options.images, recipe, options.shapes, options.converting.threads)
    _, feeds = next(iter(inputs.few(1)))
    arrays = session.run(renamed_feeds(feeds, session, path))
    task = _task(options)
    if task is not None:
        outputs = {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}
        shape = next(iter(feeds.values())).shape
        task.read(outputs, (int(shape[-1]), int(shape[-2])), _heads(open_model(path)))


def _known_recipe(model: Model, options: Options) -> Recipe:
    """The recipe as given, or RetinaFace's for a detector with its outputs.

    Raises:
        OnnxlintError: Images are given, and no recipe.
    """
    recipe, images = options.recipe, options.images
    if recipe.defines_values or images is None or images.arrays is not None:
        return recipe
    if (
        options.comparing.task == "detection"
        and replace(recipe, size=None) == Recipe()
        and not options.comparing.detection
    ):
        known = replace(PRESETS["retinaface"], size=recipe.size or PRESETS["retinaface"].size)
        wanted = replace(known, size=None) if recipe.size is None else known
        if call_in_child(model.path, _is_retinaface, model.path, wanted, options.converting.threads):
            return known if recipe.size is not None else recipe_for(model, replace(known, size=None), {})
    _require_values(model.path, recipe, images)
    return recipe


def _require_values(name: str, recipe: Recipe, images: ImageSet) -> None:
    line = f"onnxlint deploy {printable(name)} … --images {printable(images.source)}"
    require_values(printable(name), recipe, line)


def _is_retinaface(path: str, recipe: Recipe, threads: int) -> bool:
    """Whether a model takes images and gives as many boxes, classes and landmarks as RetinaFace has priors."""
    from onnxlint.accuracy.tasks.decoder import choose

    model = open_model(path)
    size = recipe_for(model, recipe, {}).size
    if size is None:
        return False
    session = backend_for(path).open(path, threads)
    if len(session.inputs) != 1:
        return False
    arrays = session.run({session.inputs[0].name: np.zeros((1, 3, size[1], size[0]), np.float32)})
    outputs = {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}
    try:
        return choose(outputs, size, _heads(model)).preset == "retinaface"
    except OnnxlintError:  # no decoder fits the outputs
        return False


def _heads(model: Model) -> Any:
    from onnxlint.fixes.heads import read_heads

    return read_heads(model.proto)
