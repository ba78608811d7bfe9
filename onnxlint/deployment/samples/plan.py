"""The plan of a sample: outputs to read, preprocessing of images, decoding of detections."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Session
from onnxlint.deployment.samples.parts import Part, parts_of
from onnxlint.errors import OnnxlintError
from onnxlint.text import listed, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.accuracy.tasks.decoder import Decoder
    from onnxlint.accuracy.tasks.heads import Part as RolePart
    from onnxlint.images.recipe import Recipe

_ROLE_SLICE = re.compile(r"(.+?)\[(?:\s*\.\.\.\s*,|\s*:\s*,)*\s*(-?\d*)\s*:\s*(-?\d*)\s*\]")

RUNTIMES = {".mnn": "mnn", ".param": "ncnn", ".xml": "openvino"}
"""Ending of an artifact's first file → what its samples run it with; any other: onnxruntime."""


@dataclass(frozen=True)
class Place:
    """Where the values of a role are: a part, and columns of it (all of them where `stop` is None)."""

    part: int
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Level:
    """Prior boxes of one feature map.

    Attributes:
        cells: Cells along an edge; 0: as many as the step allows.
        step: Pixels between cells; 0: the input's edge divided by the cells.
        boxes: Width and height in pixels of the boxes in each cell.
    """

    cells: int
    step: float
    boxes: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Priors:
    """Prior boxes (anchors) and how offsets from them are scaled; as in `onnxlint.accuracy.tasks.decoder.Decoder`."""

    levels: tuple[Level, ...]
    variances: tuple[float, ...]
    center: float
    clip: bool


@dataclass(frozen=True)
class DetectionPlan:
    """How the outputs of a detector are decoded.

    Attributes:
        layout: `rows` (candidates × values) or `columns`.
        stacked: Whether a role's candidates come from several outputs.
        box: Form of the boxes: `offsets`, `distances`, `cxcywh`, `xywh` or `xyxy`.
        relative: Whether boxes are parts of the input's sides.
        activation: Applied to the scores: `softmax`, `sigmoid` or `none`.
        objectness: `probability`, `sigmoid` (a logit), or empty if the model has none.
        has_labels: Whether the model gives class numbers.
        landmarks: Form of the landmarks; empty if there are none.
        points: Landmarks of a box.
        background: Index of the background class; None if there is none.
        priors: Prior boxes; None if boxes do not depend on any.
        places: Role (`boxes`, `scores`, …) → where its values are.
        threshold: Least score.
        nms: Largest overlap of two kept boxes.
        limit: Most boxes that are kept.
        names: Names of the classes.
        classes: How many there are, without the background; 0 if the model gives class numbers.
    """

    layout: str
    stacked: bool
    box: str
    relative: bool
    activation: str
    objectness: str
    has_labels: bool
    landmarks: str
    points: int
    background: int | None
    priors: Priors | None
    places: Mapping[str, Sequence[Place]]
    threshold: float
    nms: float
    limit: int
    names: tuple[str, ...]
    classes: int


@dataclass(frozen=True)
class Plan:
    """All that the templates read.

    Attributes:
        target: The artifact's target.
        files: Names of its files.
        runtime: `mnn`, `ncnn`, `openvino` or `onnxruntime`.
        input: Name of its input.
        dtype: Element type of its input.
        outputs: Names of its outputs.
        parts: What is in them.
        resize: How images are resized; `none` where they keep their size.
        pixel: `BGR`, `RGB` or `GRAY`.
        size: Width and height of the input; None if it is free.
        mean, norm: Of each channel.
        task: One of `onnxlint.accuracy.tasks.TASKS`, or `none`.
        classes: Names of the classes.
        scores: Which part holds what classification, verification and super-resolution read.
        logits: Whether a softmax has to be applied to the scores of a classifier.
        scale, shift: Of each channel, from the output to pixels (super-resolution).
        d: How detections are decoded; None for other tasks.
        overflows: Whether int8 sums overflow on x86 with AVX2 alone, as weights have all 8 bits.
    """

    target: str
    files: tuple[str, ...]
    runtime: str
    input: str
    dtype: str
    outputs: tuple[str, ...]
    parts: tuple[Part, ...]
    resize: str
    pixel: str
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    norm: tuple[float, ...]
    task: str = "none"
    classes: tuple[str, ...] = ()
    scores: int = 0
    logits: bool = False
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    d: DetectionPlan | None = None
    overflows: bool = False

    @property
    def activations(self) -> frozenset[str]:
        """The functions that a sample calls: `softmax`, `logsoftmax`, `sigmoid`."""
        used = {part.activation.lower() for part in self.parts}
        if self.d is not None:
            used |= {self.d.activation, self.d.objectness}
        if self.logits or "logsoftmax" in used:
            used.add("softmax")
        return frozenset(used & {"softmax", "logsoftmax", "sigmoid"})

    @property
    def slices(self) -> bool:
        """Whether a sample takes slices of outputs."""
        return self.d is not None or any(part.axis is not None for part in self.parts)


def make_plan(
    target: str,
    files: Sequence[str],
    session: Session,
    model: onnx.ModelProto,
    recipe: Recipe,
    x: Array,
    *,
    task: str | None,
    detection: Mapping[str, Any],
    classes: Sequence[str] | Callable[[int], Sequence[str]],
) -> Plan:
    """Run an artifact once and find out what its samples have to do; the arguments are those of `sample_texts`.

    Raises:
        OnnxlintError: The model does not take one image, or its outputs do not fit the task.
    """
    if len(session.inputs) != 1:
        shown = listed(printable(port.name) for port in session.inputs)
        raise OnnxlintError(f"{target}: samples are written for models with one image input; the inputs are {shown}")
    if x.ndim != 4 or x.shape[1] != recipe.channels:
        raise OnnxlintError(f"{target}: samples are written for image inputs; the input has shape {x.shape}")
    port = session.inputs[0]
    outputs = session.run({port.name: x})
    names = [one.name for one in session.outputs]
    base = tuple(os.path.basename(file) for file in files)
    plan = Plan(
        target,
        base,
        RUNTIMES.get(os.path.splitext(base[0])[1].lower(), "onnxruntime"),
        port.name,
        port.dtype,
        tuple(names),
        tuple(parts_of(model, names, outputs)),
        recipe.resize if recipe.size is not None else "none",
        recipe.pixel,
        recipe.size,
        recipe.mean or (0.0,) * recipe.channels,
        recipe.norm or (1.0,) * recipe.channels,
        classes=() if callable(classes) else tuple(classes),
        overflows=_overflows(target, files[0]),
    )
    if task is None:
        return plan
    plan = replace(plan, task=task)
    if task == "detection":
        found = plan_detection(plan.parts, outputs, (x.shape[3], x.shape[2]), detection)
        named = tuple(classes(found.classes)) if callable(classes) and found.classes else plan.classes
        return replace(plan, d=found, classes=found.names or named)
    if task == "super-resolution":
        return _super_resolution(plan, outputs, recipe)
    return _vector(plan, outputs)


def _overflows(target: str, path: str) -> bool:
    if target == "onnx-int8-static":
        from onnxlint.backends.ort import saturation
        from onnxlint.backends.ort.session import load

        return saturation.has_large(load(path).graph.initializer)
    if target == "openvino-int8":
        from onnxlint.backends.openvino.runtime import read_ir
        from onnxlint.backends.openvino.saturation import has_large

        return has_large(read_ir(path))
    return False


def _vector(plan: Plan, outputs: Sequence[Array]) -> Plan:
    """For tasks that read one vector: a classifier's scores, an embedding."""
    from onnxlint.accuracy.tasks.vector import pick_vector

    arrays = {part.name: part.of(outputs) for part in plan.parts}
    names = "logit|prob|class|score|softmax|pred" if plan.task == "classification" else "emb|feat|out"
    name, values = pick_vector(arrays, names, plan.task)
    index = [part.name for part in plan.parts].index(name)
    logits = plan.task == "classification" and not plan.parts[index].activation and not _is_probability(values)
    return replace(plan, scores=index, logits=logits)


def _is_probability(values: Array) -> bool:
    return _is_unit(values) and bool(abs(values.sum() - 1) < 0.02 + 0.004 * len(values))


def _super_resolution(plan: Plan, outputs: Sequence[Array], recipe: Recipe) -> Plan:
    from onnxlint.accuracy.tasks.super_resolution import find_scale

    for i, part in enumerate(plan.parts):
        array = part.of(outputs)
        if array.ndim >= 3 and array.shape[-3] in (1, 3):
            scale = find_scale(array.reshape(array.shape[-3:]).transpose(1, 2, 0).astype(np.float32), recipe)
            channels = int(array.shape[-3])
            factor, offset = (tuple(v) * (channels // len(v)) for v in (scale.factor, scale.offset))
            return replace(plan, scores=i, scale=factor, shift=offset)
    raise OnnxlintError("--task super-resolution: samples need an output picture of shape 1×C×H×W with C 1 or 3")


def plan_detection(
    parts: Sequence[Part], outputs: Sequence[Array], size: tuple[int, int], table: Mapping[str, Any]
) -> DetectionPlan:
    """How the outputs of a detector are decoded.

    Args:
        parts: What is in the outputs.
        outputs: Arrays with a batch axis.
        size: Width and height of the input, in pixels.
        table: The table `[detection]` of the configuration.

    Raises:
        OnnxlintError: It is not clear which outputs hold boxes and scores.
    """
    from onnxlint.accuracy.tasks import heads
    from onnxlint.accuracy.tasks.decoder import choose
    from onnxlint.accuracy.tasks.detection_table import read_table

    arrays = {part.name: part.of(outputs) for part in parts}
    chosen = read_table(table) or choose(arrays, size)
    pieces = [
        replace(piece, activation=part.activation)
        for part, piece in zip(parts, heads.split_outputs(arrays, columns=chosen.layout == "columns"), strict=True)
    ]
    specs = {role: names for role in heads.ROLES if (names := getattr(chosen, role))}
    roles = heads.named_roles(pieces, specs) if specs else heads.guess_roles(pieces, chosen.joined)
    if "boxes" not in roles or "scores" not in roles:
        raise heads.unclear(pieces)
    places = {
        role: tuple(_place(name, parts, pieces) for name in specs.get(role, (part.name,)))
        for role, part in roles.items()
    }
    scores, objectness, landmarks = roles["scores"], "", ""
    if "objectness" in roles:
        done = roles["objectness"].activation or _is_unit(roles["objectness"].rows)
        objectness = "probability" if done else "sigmoid"
    if "landmarks" in roles:
        landmarks = chosen.box if chosen.priors is not None else chosen.unit
    has_background = chosen.background is not None and scores.width > 1 and "labels" not in roles
    return DetectionPlan(
        layout=chosen.layout,
        stacked=any(len(place) > 1 for place in places.values()),
        box=chosen.box,
        relative=chosen.box not in ("offsets", "distances") and chosen.unit == "relative",
        activation=_score_activation(scores, chosen),
        objectness=objectness,
        has_labels="labels" in roles,
        landmarks=landmarks,
        points=roles["landmarks"].width // 2 if landmarks else 0,
        background=(chosen.background or 0) % scores.width if has_background else None,
        priors=_priors(chosen),
        places=places,
        threshold=chosen.threshold,
        nms=chosen.nms,
        limit=chosen.limit,
        names=tuple(chosen.names),
        classes=0 if "labels" in roles else scores.width - has_background,
    )


def _score_activation(scores: RolePart, chosen: Decoder) -> str:
    """The activation still to apply: none if the removed one is applied already, or scores are probabilities."""
    if scores.activation:
        return "none"
    activation = chosen.activation
    if activation == "softmax" and (scores.width == 1 or _sum_to_one(scores.rows)):
        activation = "sigmoid"
    return "none" if activation == "sigmoid" and _is_unit(scores.rows) else activation


def _sum_to_one(rows: Array) -> bool:
    """Whether each row holds probabilities that add up to 1."""
    return _is_unit(rows) and bool((np.abs(rows.sum(axis=-1) - 1) < 0.05).all())


def _is_unit(rows: Array) -> bool:
    return bool(((rows >= -0.01) & (rows <= 1.01)).all())


def _place(name: str, parts: Sequence[Part], pieces: Sequence[RolePart]) -> Place:
    """Which part a role's name means, and which of its columns."""
    for i, part in enumerate(parts):
        if part.name == name:
            return Place(i)
    match = _ROLE_SLICE.fullmatch(name)
    for i, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        if match is not None and part.name == match[1]:
            start, stop, _ = slice(int(match[2]) if match[2] else None, int(match[3]) if match[3] else None).indices(
                piece.width
            )
            return Place(i, start, stop)
    raise OnnxlintError(f"--task detection: no such output: {printable(name)}")


def _priors(decoder: Decoder) -> Priors | None:
    priors = decoder.priors
    if priors is None:
        return None
    levels = []
    for i, sizes in enumerate(priors.min_sizes):
        boxes: list[tuple[float, float]] = [(size, size) for size in sizes]
        if priors.max_sizes:
            boxes += [(math.sqrt(size * priors.max_sizes[i]),) * 2 for size in sizes]
        for ratio in priors.aspect_ratios[i] if priors.aspect_ratios else ():
            root = math.sqrt(ratio)
            for size in sizes:
                boxes += [(size * root, size / root), (size / root, size * root)]
        cells = priors.features[i] if priors.features else 0
        levels.append(Level(cells, priors.steps[i] if priors.steps else 0, tuple(boxes)))
    return Priors(tuple(levels), tuple(priors.variances), priors.center, priors.clip)
