"""Decoders of detection models: from raw outputs to boxes in pixels of the input.

Sources: RetinaFace (arXiv:1905.00641) as biubug6/Pytorch_Retinaface decodes it; SSD (arXiv:1512.02325) as
amdegroot/ssd.pytorch, qfgaohao/pytorch-ssd and torchvision do; YOLO as ultralytics and Megvii export it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.tasks.boxes import suppress
from onnxlint.accuracy.tasks.heads import ROLES, Part, describe, guess_roles, named_roles, split_outputs
from onnxlint.accuracy.tasks.priors import Priors, prior_boxes, prior_steps
from onnxlint.errors import OnnxlintError

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]

FLOOR = 0.02
"""Boxes with lower scores do not count for average precision either."""

CANDIDATES = 5000
"""So many boxes, those with the highest scores, go through non-maximum suppression."""


@dataclass(frozen=True)
class Decoder:
    """How outputs become boxes.

    Attributes:
        preset: Name of the preset that it is based on; empty if none.
        boxes, scores, objectness, landmarks, labels: Outputs, or columns of one (`output[4:8]`); empty: what their
            names and widths tell.
        joined: Parts of a single output, in order; a width of -1 takes the rest.
        layout: `rows`: (1, boxes, values); `columns`: (1, values, boxes).
        box: `offsets` to priors; `distances` from the priors' centres (left, top, right, bottom), in steps;
            `xyxy`, `xywh` (left upper corner) or `cxcywh`.
        unit: Of boxes without priors: `pixels` of the input, or `relative` to its size.
        activation: `softmax` or `sigmoid`, applied where the scores are not yet probabilities; `none`.
        background: The class that is none (negative: from the end); None: all are classes.
        priors: Where `box` is relative to some.
        threshold: Lowest score of a detection.
        nms: Boxes of one class that overlap more (IoU) are one; 1 turns it off.
        limit: Most detections an image.
        names: Of the classes, the background left out.
    """

    preset: str = ""
    boxes: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    objectness: tuple[str, ...] = ()
    landmarks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    joined: tuple[tuple[str, int], ...] = ()
    layout: str = "rows"
    box: str = "xyxy"
    unit: str = "pixels"
    activation: str = "none"
    background: int | None = None
    priors: Priors | None = None
    threshold: float = 0.5
    nms: float = 0.45
    limit: int = 750
    names: tuple[str, ...] = ()


_R2, _R23 = (2.0,), (2.0, 3.0)
_SSD = Decoder(
    joined=(("boxes", 4), ("scores", -1)), box="offsets", unit="relative", activation="softmax", background=0, limit=200
)
_VOC_SIZES, _COCO_SIZES = (
    (30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0),
    (21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0),
)
_VGG_STEPS, _VGG_RATIOS = (8.0, 16.0, 32.0, 64.0, 100.0, 300.0), (_R2, _R23, _R23, _R23, _R2, _R2)


def _each(sizes: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    return tuple((size,) for size in sizes)


def _vgg(sizes: tuple[float, ...]) -> Priors:
    return Priors(_each(sizes[:-1]), _VGG_STEPS, sizes[1:], _VGG_RATIOS, clip=True)


_MOBILE = (60.0, 105.0, 150.0, 195.0, 240.0, 285.0, 330.0)
_LITE = tuple(320 * (0.2 + 0.15 * i) for i in range(6))  # torchvision: scales 0.2 to 0.95, then 1

PRESETS: dict[str, Decoder] = {
    "retinaface": Decoder(
        joined=(("boxes", 4), ("scores", 2), ("landmarks", 10)),
        box="offsets",
        activation="softmax",
        background=0,
        priors=Priors(((16, 32), (64, 128), (256, 512)), (8, 16, 32)),
        nms=0.4,
        names=("face",),
    ),
    "ssd300-voc": replace(_SSD, priors=_vgg(_VOC_SIZES)),
    "ssd300-coco": replace(_SSD, priors=_vgg(_COCO_SIZES)),
    "ssd300-mobilenet": replace(
        _SSD, priors=Priors(_each(_MOBILE[:-1]), (16, 32, 64, 100, 150, 300), _MOBILE[1:], (_R23,) * 6, clip=True)
    ),
    "ssdlite320": replace(
        _SSD,
        priors=Priors(
            _each(_LITE),
            max_sizes=(*_LITE[1:], 320.0),
            aspect_ratios=(_R23,) * 6,
            features=(20, 10, 5, 3, 2, 1),
            clip=True,
        ),
    ),
    "yolov5": Decoder(
        joined=(("boxes", 4), ("objectness", 1), ("scores", -1)), box="cxcywh", activation="sigmoid", threshold=0.25
    ),
    "yolov8": Decoder(
        joined=(("boxes", 4), ("scores", -1)), layout="columns", box="cxcywh", activation="sigmoid", threshold=0.25
    ),
    "yolox": Decoder(
        joined=(("boxes", 4), ("objectness", 1), ("scores", -1)),
        box="offsets",
        activation="sigmoid",
        priors=Priors(((8,), (16,), (32,)), (8, 16, 32), variances=(1.0, 1.0), center=0.0),
        threshold=0.25,
    ),
    "detr": Decoder(
        joined=(("boxes", 4), ("scores", -1)),
        box="cxcywh",
        unit="relative",
        activation="softmax",
        background=-1,
        nms=1.0,
    ),
}
PRESETS = {name: replace(decoder, preset=name) for name, decoder in PRESETS.items()}
"""Known presets: `[detection] preset = "…"`, each part of which the table can override."""

_CLASSES = {"ssd300-voc": (21,), "ssd300-coco": (81, 91)}
"""Two presets have as many priors: the number of classes tells which it is."""


@dataclass(frozen=True)
class Found:
    """Boxes after non-maximum suppression, the best score first, down to `FLOOR`.

    Attributes:
        boxes: (K, 4): x1, y1, x2, y2 in pixels of the input.
        scores: (K,).
        labels: (K,): classes, the background left out: face is 0.
        landmarks: (K, 2·L): x, y pairs in pixels.
        classes: Number of classes of the model; 0 if unknown.
    """

    boxes: Array
    scores: Array
    labels: Array
    landmarks: Array
    classes: int = 0


def choose(outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Decoder:
    """The decoder for outputs that have RetinaFace's or an SSD's priors.

    Raises:
        OnnxlintError: They have not.
    """
    parts = split_outputs(outputs, heads)
    rows = {len(part.rows) for part in parts}
    fitting = [
        decoder
        for decoder in PRESETS.values()
        if decoder.preset.startswith(("retinaface", "ssd"))
        and decoder.priors is not None
        and rows == {len(prior_boxes(decoder.priors, *size))}
    ]
    width = 0
    for decoder in fitting:
        joined = decoder.joined
        roles = guess_roles(
            parts, joined if len(parts) > 1 or sum(w for _, w in joined) == parts[0].width else _SSD.joined
        )
        width = roles["scores"].width
        if decoder.preset == "retinaface":
            if width == 2:
                return decoder if "landmarks" in roles else replace(decoder, joined=(("boxes", 4), ("scores", 2)))
        elif _are_corners(roles["boxes"].rows):
            return replace(decoder, box="xyxy", priors=None)
        elif width in _CLASSES.get(decoder.preset, (width,)):
            return decoder
    what = "; ".join(
        f"{d.preset} has that many, but not {width} classes"
        for d in fitting
        if d.preset in ("retinaface", "ssd300-coco")
    )
    raise OnnxlintError(
        f"--task detection: {describe(parts)} for an input of {size[0]}×{size[1]} are neither RetinaFace's nor a known"
        f" SSD's outputs{f' ({what})' if what else ''}; describe them in onnxlint.toml:"
        f" [detection] preset = one of {', '.join(PRESETS)}, or boxes, scores, box, …"
    )


def _are_corners(boxes: Array) -> bool:
    """Whether boxes are decoded already, to relative corners: offsets would not be in order."""
    ordered = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return bool((ordered & (np.abs(boxes).max(axis=1) < 4)).mean() > 0.99)


def decode(
    outputs: Mapping[str, Array],
    size: tuple[int, int],
    decoder: Decoder,
    heads: Sequence[Joined] = (),
    *,
    strict: bool = True,
) -> Found:
    """The boxes in one image's outputs.

    Args:
        outputs: Name → array with a batch axis of 1.
        size: Width and height of the input in pixels.
        strict: Whether outputs that the decoder names must exist; else names and widths tell where none does.

    Raises:
        OnnxlintError: The outputs do not fit the decoder.
    """
    parts = split_outputs(outputs, heads, columns=decoder.layout == "columns")
    roles = _roles(parts, decoder, strict)
    boxes = roles["boxes"].rows
    scores, labels, classes = _scores(roles, decoder)
    count = len(boxes)
    if len(scores) != count or boxes.shape[1] != 4 or any(len(part.rows) != count for part in roles.values()):
        raise OnnxlintError(f"--task detection: the outputs do not belong together: {describe(roles.values())}")
    if "landmarks" in roles and roles["landmarks"].width % 2:
        raise OnnxlintError(f"--task detection: landmarks should be x, y pairs: {describe([roles['landmarks']])}")
    if decoder.priors is not None:
        expected = len(prior_boxes(decoder.priors, *size))
        if expected != count:
            raise OnnxlintError(
                f"--task detection: {count} boxes, but {decoder.preset or '[detection]'} has {expected} priors for an"
                f" input of {size[0]}×{size[1]}; check the input's size, or the priors"
            )
    rows, columns = np.nonzero(scores >= min(FLOOR, decoder.threshold))
    best = scores[rows, columns]
    order = np.argsort(-best, kind="stable")[:CANDIDATES]
    rows, columns, best = rows[order], columns[order], best[order]
    kinds = columns if labels is None else labels[rows]
    corners = _corners(boxes[rows], rows, size, decoder)
    marks = np.empty((len(rows), 0))
    if "landmarks" in roles:
        marks = _landmarks(roles["landmarks"].rows[rows], rows, size, decoder)
    whole = np.isfinite(corners).all(axis=1)
    keep = np.flatnonzero(whole)
    keep = keep[suppress(corners[keep], best[keep], kinds[keep], decoder.nms, decoder.limit)]
    return Found(corners[keep], best[keep], kinds[keep], marks[keep], classes)


def _roles(parts: Sequence[Part], decoder: Decoder, strict: bool) -> dict[str, Part]:
    specs = {role: names for role in ROLES if (names := getattr(decoder, role))}
    if not specs:
        return guess_roles(parts, decoder.joined)
    try:
        roles = named_roles(parts, specs)
    except OnnxlintError:
        if strict:
            raise
        return guess_roles(parts, decoder.joined)
    if "boxes" not in roles or "scores" not in roles:
        used = {part.name for part in roles.values()}
        rest = [part for part in parts if part.name not in used]
        missing = [role for role in ("boxes", "scores") if role not in roles]
        if len(missing) > 1 or len(rest) != 1:
            raise OnnxlintError(
                f"[detection]: name the output that has the {' and the '.join(missing)}: {describe(parts)}"
            )
        roles[missing[0]] = rest[0]
    return roles


def _scores(roles: Mapping[str, Part], decoder: Decoder) -> tuple[Array, Array | None, int]:
    """Scores (P, classes) without the background; classes of the rows where the model tells them; their number."""
    scores = _probabilities(roles["scores"], decoder.activation)
    if decoder.background is not None and scores.shape[1] > 1 and "labels" not in roles:
        if not -scores.shape[1] <= decoder.background < scores.shape[1]:
            raise OnnxlintError(f"[detection] background: {decoder.background} is not one of {scores.shape[1]} classes")
        scores = np.delete(scores, decoder.background, axis=1)
    if "objectness" in roles:
        scores = scores * _probabilities(roles["objectness"], "sigmoid")
    if "labels" in roles:
        labels = np.nan_to_num(roles["labels"].rows.reshape(-1)).astype(np.int64)
        return scores[:, :1], labels, 0
    return scores, None, scores.shape[1]


def _probabilities(part: Part, activation: str) -> Array:
    bad = np.isnan(part.rows).any(axis=1)
    values = np.clip(np.nan_to_num(part.rows.astype(np.float64)), -1e4, 1e4)
    known = part.activation.lower()
    if known not in ("softmax", "sigmoid"):
        inside = bool(((values >= -0.01) & (values <= 1.01)).all())
        done = inside and (activation == "sigmoid" or _sums_to_one(values[~bad]))
        known = "none" if done else activation
    if known == "softmax" and values.shape[1] > 1:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    elif known != "none":
        values = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    values[bad] = 0
    return values


def _sums_to_one(values: Array) -> bool:
    # int8 leaves each probability up to half a step of 1/256 off, or makes all of them zero.
    sums = values.sum(axis=1)
    return values.shape[1] == 1 or bool(((np.abs(sums - 1) < 0.01 + 0.004 * values.shape[1]) | (sums == 0)).all())


def _corners(boxes: Array, rows: Array, size: tuple[int, int], decoder: Decoder) -> Array:
    boxes = boxes.astype(np.float64)
    scale = np.asarray(size, np.float64)
    if decoder.box == "xyxy":
        return boxes if decoder.unit == "pixels" else boxes * np.tile(scale, 2)
    if decoder.priors is not None:
        priors = prior_boxes(decoder.priors, *size)[rows]
        if decoder.box == "distances":
            steps = prior_steps(decoder.priors, *size)[rows, None]
            centers = priors[:, :2] * scale
            return np.concatenate([centers - boxes[:, :2] * steps, centers + boxes[:, 2:] * steps], axis=1)
        around, along = decoder.priors.variances
        centers = priors[:, :2] + boxes[:, :2] * around * priors[:, 2:]
        sizes = priors[:, 2:] * np.exp(np.minimum(boxes[:, 2:] * along, 50))  # a ruined model must not overflow
    else:
        centers, sizes = boxes[:, :2], boxes[:, 2:]
        if decoder.box == "xywh":
            centers = centers + sizes / 2
        if decoder.unit == "pixels":
            scale = np.ones(2)
    return np.concatenate([(centers - sizes / 2) * scale, (centers + sizes / 2) * scale], axis=1)


def _landmarks(values: Array, rows: Array, size: tuple[int, int], decoder: Decoder) -> Array:
    points = values.astype(np.float64).reshape(len(values), values.shape[1] // 2, 2)
    scale = np.asarray(size, np.float64)
    if decoder.priors is None:
        scale = scale if decoder.unit == "relative" else np.ones(2)
    elif decoder.box == "distances":
        points = (
            prior_boxes(decoder.priors, *size)[rows, None, :2] * scale
            + points * prior_steps(decoder.priors, *size)[rows, None, None]
        )
        scale = np.ones(2)
    else:
        priors = prior_boxes(decoder.priors, *size)[rows, None]
        points = priors[..., :2] + points * decoder.priors.variances[0] * priors[..., 2:]
    return np.asarray((points * scale).reshape(values.shape))
