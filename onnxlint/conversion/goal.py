"""`--max-drop`: the cheapest int8 file that keeps what the user asks for, on images that nothing was calibrated on."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxlint.backends import Artifact, Backend, Job, backend_for
from onnxlint.backends.options import ConvertOptions
from onnxlint.backends.task import Outputs, TaskLoss, size_of
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, tensors
from onnxlint.text import choices, did_you_mean, printable

HOLDOUT = 0.3
"""Part of the images that is held out where the user does not say."""

BUDGETS = (0.001, 0.005, 0.02, 0.08, 0.3)
"""Growth of the weights that is tried after none, as far as the user's budget goes, which is tried last."""

_BOUND = re.compile(r"\s*([\w-]+)\s*(>=|<=|>|<)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(%|db)?\s*", re.I)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Bound:
    """`found>=0.99`: a metric, an operator and a number; `text` as the user wrote it."""

    text: str
    metric: str
    sign: str
    number: float

    def distance(self, values: Mapping[str, float]) -> float:
        """How far values are from it; 0 where it is kept."""
        value = values[self.metric]
        if _OPERATORS[self.sign](value, self.number):
            return 0.0
        return abs(value - self.number) or 1e-12


@dataclass(frozen=True)
class Held:
    """Images that nothing is calibrated on, and the model and the task that results are judged by.

    Attributes:
        reference: The ONNX model.
        images: The images.
        task: What outputs are used for.
    """

    reference: str
    images: ImageSet
    task: TaskLoss


def parse_bounds(texts: Sequence[str]) -> tuple[Bound, ...]:
    """Read conditions: `found>=0.99`, `top1 >= 99.5%`, `snr>=25`.

    Raises:
        OnnxlintError: One is not of that form.
    """
    found = []
    for text in texts:
        parts = _BOUND.fullmatch(text)
        example = "write it as METRIC>=NUMBER, such as 'found>=0.99'"
        if parts is None:
            raise OnnxlintError(f"--max-drop {printable(text)!r}: {example}")
        name, sign, number, unit = parts.groups()
        try:
            bound = float(number) * (0.01 if unit == "%" else 1.0)
        except ValueError:
            raise OnnxlintError(f"--max-drop {printable(text)!r}: {number} is not a number; {example}") from None
        found.append(Bound(printable(text.strip()), name.lower().replace("-", "_"), sign, bound))
    return tuple(found)


@dataclass(frozen=True)
class Goal:
    """What int8 files have to keep, and what that is measured on."""

    bounds: tuple[Bound, ...]
    held: Held


def goal_of(path: str, job: Job, options: ConvertOptions) -> tuple[Job, Goal | None]:
    """The job without the images that are held out, and what is asked for on these.

    Args:
        path: The ONNX model.
        job: With all images.
        options: What the user says.

    Raises:
        OnnxlintError: An option is wrong, or there are too few images.
    """
    bounds = parse_bounds(options.max_drop)
    if not bounds and not options.holdout:
        return job, None
    if not 0 <= options.holdout < 1:
        raise OnnxlintError(f"--holdout {options.holdout:g}: is a part of the images, such as 0.3")
    if not bounds:
        raise OnnxlintError("--holdout: images are held out for --max-drop; say what has to be kept on them")
    if job.images is None or options.task is None:
        raise OnnxlintError("--max-drop: is judged on images; give some with --images")
    rest, held = split_images(job.images, options.holdout or HOLDOUT)
    return replace(job, images=rest), Goal(bounds, Held(path, held, options.task))


def split_images(images: ImageSet, part: float) -> tuple[ImageSet, ImageSet]:
    """Images to calibrate with, and evenly taken from all, those that are held out.

    Args:
        images: All.
        part: The share to hold out, from 0 to 1.

    Raises:
        OnnxlintError: There are too few.
    """
    count = len(images)
    held = {i for i in range(count) if math.floor((i + 1) * part) > math.floor(i * part)}
    if not held or len(held) == count:
        raise OnnxlintError(
            f"--holdout {part:g}: of {count} images that leaves none to {'calibrate with' if held else 'judge by'}; "
            "give more images, or another part"
        )
    rest, out = ([i for i in range(count) if (i in held) is one] for one in (False, True))
    return _taken(images, rest), _taken(images, out)


def _taken(images: ImageSet, places: Sequence[int]) -> ImageSet:
    if images.arrays is not None:
        return replace(images, arrays=images.arrays[places])
    return replace(images, paths=tuple(images.paths[i] for i in places))


def candidates(job: Job) -> Iterator[Job]:
    """How files are made that are tried, the cheapest first."""
    plain = replace(job, task=None)  # which layers stay in float is decided on the images that are held out
    yield replace(plain, mixed=False)
    for budget in (*(one for one in BUDGETS if one < job.budget), job.budget):
        if budget > 0:
            yield replace(plain, mixed=True, budget=budget)


def measured(backend: Backend, artifact: Artifact, held: Held, job: Job) -> dict[str, float]:
    """The task's metrics of an artifact on the images that are held out.

    Raises:
        OnnxlintError: It cannot be run, or the outputs are not those of the task.
    """
    reference = backend_for(held.reference).open(held.reference, job.threads)
    candidate = backend.open(artifact.files[0], job.threads)
    names = [port.name for port in reference.outputs]
    ours = [port.name for port in candidate.outputs]

    def pairs() -> Iterator[tuple[Outputs, Outputs, tuple[int, int]]]:
        for _, x in tensors(held.images, job.recipe, threads=job.threads):
            truth = dict(zip(names, reference.run({reference.inputs[0].name: x[None]}), strict=True))
            found = dict(zip(ours, candidate.run({candidate.inputs[0].name: x[None]}), strict=True))
            if len(ours) == len(names) and set(ours) != set(names):  # converters rename outputs, and keep their order
                found = dict(zip(names, found.values(), strict=True))
            yield truth, found, size_of(x.shape)

    values = held.task.measure(pairs()).values
    return {name: float(np.round(value, 6)) for name, value in values.items()}


def distance(bounds: Sequence[Bound], values: Mapping[str, float]) -> float:
    """How far values are from all bounds together; 0 where all are kept.

    Raises:
        OnnxlintError: A metric is none of the task's.
    """
    for bound in bounds:
        if bound.metric not in values:
            hint = did_you_mean(bound.metric, values, choices(values))
            raise OnnxlintError(
                f"--max-drop {bound.text!r}: {printable(bound.metric)} is not measured on these images{hint}; "
                "say with --task what the outputs are"
            )
    return sum(bound.distance(values) for bound in bounds)
