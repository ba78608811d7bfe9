"""Detection: objects found by a model, compared with labels or with the reference's objects."""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.results import Detection, TaskResult
from onnxlint.accuracy.tasks.base import Answer
from onnxlint.accuracy.tasks.boxes import overlaps
from onnxlint.accuracy.tasks.decoder import Decoder, Found, choose, decode
from onnxlint.accuracy.tasks.detection_table import read_table
from onnxlint.accuracy.tasks.labels import (
    Boxes,
    BoxLabels,
    ByName,
    match,
    read_boxes,
    read_class_list,
    without_background,
)
from onnxlint.accuracy.tasks.optional import optional
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import FORMATS
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined
    from onnxlint.images.recipe import ImageSet, Recipe

Array = npt.NDArray[Any]

IOU = 0.5
"""Boxes that overlap so much show the same object."""

KEPT = 300
"""Boxes an image that average precision is computed from."""


@dataclass
class _Tally:
    """One model so far. `boxes`: image's number → (K, 6) corners, score, category. `precision`: average precision, and of
    how many images: it takes seconds, and results are asked for more than once."""

    found: int = 0
    missed: int = 0
    extra: int = 0
    iou: float = 0.0
    shift: float = 0.0
    shared: int = 0
    boxes: dict[int, Array] = field(default_factory=dict)
    precision: tuple[int, tuple[float | None, float | None]] | None = None


class DetectionTask:
    """See `onnxlint.accuracy.tasks.Task`.

    Without labels the reference's detections are the truth. Metrics: `found`, `missed` and `extra` objects at the
    decoder's threshold (IoU from 0.5, same class), `mean_iou` of those found, `score_shift` (mean score less the
    reference's, of the objects that both find), `ap50` and `ap` (COCO's: mean over IoU 0.5 to 0.95).

    Attributes:
        decoder: How outputs are read; None until the reference's first outputs tell.
    """

    name = "detection"

    def __init__(self, recipe: Recipe, images: ImageSet | None, labels: str | None, table: Mapping[str, Any]) -> None:
        optional("pycocotools.cocoeval")
        self.decoder: Decoder | None = read_table(table)
        self._recipe = recipe
        self._strict = True
        self._labels: BoxLabels | None = None
        self._notes: tuple[str, ...] = ()
        self._ids: dict[int, int] | None = None
        self.truth = "the reference's detections"
        self._list = labels or ""
        self._listed = read_class_list(labels) if labels is not None else ()
        if labels is not None and not self._listed:
            self._labels = read_boxes(labels)
            self._by_name = ByName(self._labels.images)
            self._notes = match(self._by_name, images, labels, next(iter(self._labels.images)))
            self.truth = labels
        self._image = ""  # the one that is being judged, the reference's answer, and the truth about it
        self._reference: Answer | None = None
        self._truth: Boxes | None = None
        self._truths: dict[int, Boxes] = {}
        self._tallies: dict[str, _Tally] = {}

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """The detections of one image, in pixels of the network's input. Raises OnnxlintError if outputs cannot
        be decoded."""
        if self.decoder is None:
            self.decoder = choose(outputs, size, heads)
        found = decode(outputs, size, self.decoder, heads, strict=self._strict)
        self._strict = False  # candidates may have lost the reference's names
        if self._listed and not self.decoder.names and found.classes:
            names = without_background(self._list, self._listed, found.classes)
            self.decoder = replace(self.decoder, names=names)
        if self._labels is not None and self._ids is None:
            self._ids = _category_ids(self._labels, self.decoder, found.classes, self.truth)
        sure = int((found.scores >= self.decoder.threshold).sum())
        detections = tuple(_detection(found, i) for i in range(sure))
        columns = [found.boxes, found.scores[:, None], found.labels[:, None]]
        return Answer(self._words(detections), np.concatenate(columns, axis=1), detections)

    def _words(self, detections: Sequence[Detection]) -> str:
        counts = Counter(self._class_name(one.label) for one in detections)
        return ", ".join(f"{count} × {name}" for name, count in counts.most_common()) or "nothing"

    def _class_name(self, label: int) -> str:
        names = self.decoder.names if self.decoder is not None else ()
        if 0 <= label < len(names):
            return printable(names[label])
        if self._labels is not None and self._ids is not None:
            known = self._labels.categories.get(self._ids.get(label, -1))
            if known is not None:
                return printable(known)
        return f"class {label}"

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Match the candidate's detections with the labels', or with the reference's."""
        assert self.decoder is not None, "answers come from read"
        if image != self._image or reference is not self._reference:
            self._image, self._reference = image, reference
            self._truth = self._find_truth(image, reference)
            if self._truth is not None:
                self._truths[len(self._truths)] = self._truth
        tally, truth = self._tallies.setdefault(model, _Tally()), self._truth
        if truth is None:
            return
        boxes = self._in_truth(candidate.values, image)
        sure = boxes[boxes[:, 4] >= self.decoder.threshold]
        pairs = pair_up(sure[:, :4], sure[:, 5], truth.corners, truth.labels)
        ignored = truth.ignored
        hits = [(i, j, iou) for i, j, iou in pairs if not ignored[j]]
        tally.found += len(hits)
        tally.iou += sum(iou for _, _, iou in hits)
        tally.missed += int((~ignored).sum()) - len(hits)
        free = np.setdiff1d(np.arange(len(sure)), [i for i, _, _ in pairs])
        # Several boxes on one region that is to be ignored are all ignored.
        beside = overlaps(sure[free, :4], truth.corners[ignored])
        tally.extra += int((beside < IOU).all(axis=1).sum())
        for one, other in _shared(candidate.detections, reference.detections):
            tally.shift += one.score - other.score
            tally.shared += 1
        tally.boxes[len(self._truths) - 1] = boxes[:KEPT].astype(np.float32)

    def _find_truth(self, image: str, reference: Answer) -> Boxes | None:
        if self._labels is not None:
            return self._by_name.get(image)
        count = len(reference.detections)
        values = reference.values[:count]
        return Boxes(values[:, :4], values[:, 5].astype(np.int64), np.zeros(count, bool))

    def _in_truth(self, values: Array, image: str) -> Array:
        """Boxes as the truth has them: in pixels of the original, with its categories."""
        if self._labels is None or self._ids is None:
            return values
        ids = np.asarray([self._ids.get(int(label), -1) for label in values[:, 5]])
        out = np.concatenate([to_original(values[:, :4], image, self._recipe), values[:, 4:5], ids[:, None]], axis=1)
        return np.asarray(out[ids >= 0])

    def results(self) -> dict[str, TaskResult]:
        """`found`, `missed` and `extra` count boxes; mean IoU, score shift and average precision are fractions."""
        notes = self._notes
        if self._labels is not None and self._recipe.resize == "center-crop" and self._recipe.size is not None:
            notes += ("objects cut off by --resize center-crop count as missed",)
        if self.decoder is not None and self.decoder.preset:
            notes += (f"decoded as {self.decoder.preset}, from a score of {self.decoder.threshold:g}",)
        out = {}
        for model, tally in self._tallies.items():
            if tally.precision is None or tally.precision[0] != len(self._truths):
                tally.precision = len(self._truths), average_precision(self._truths, tally.boxes)
            ap50, ap = tally.precision[1]
            metrics: dict[str, float | None] = {
                "found": tally.found,
                "missed": tally.missed,
                "extra": tally.extra,
                "mean_iou": tally.iou / tally.found if tally.found else None,
                "score_shift": tally.shift / tally.shared if tally.shared else None,
                "ap50": ap50,
                "ap": ap,
            }
            out[model] = TaskResult(self.name, metrics, self.truth, notes)
        return out


def class_names(labels: str, classes: int) -> tuple[str, ...]:
    """Names of a model's classes in its order, from a list of classes or a COCO file; empty if these do not tell.

    Args:
        labels: Path of the labels.
        classes: Of the model, the background not counted.

    Raises:
        OnnxlintError: The labels cannot be read, or a list has another number of classes.
    """
    if listed := read_class_list(labels):
        return without_background(labels, listed, classes)
    known = read_boxes(labels)
    if not known.categories:
        return ()
    ids = _category_ids(known, Decoder(background=0), classes, labels)
    return tuple(known.categories.get(ids.get(i, -1), f"class {i}") for i in range(classes))


def _detection(found: Found, i: int) -> Detection:
    x1, y1, x2, y2 = map(float, found.boxes[i])
    marks = tuple(map(float, found.landmarks[i]))
    return Detection((x1, y1, x2, y2), float(found.scores[i]), int(found.labels[i]), marks)


def _category_ids(labels: BoxLabels, decoder: Decoder, classes: int, path: str) -> dict[int, int]:
    """Class of the model → category of the labels."""
    ids = list(labels.categories)
    if not ids:
        if classes > 1:
            raise OnnxlintError(
                f"{printable(path)}: labels faces, and the model has {classes} classes; give labels in COCO's format"
            )
        return {0: 0, 1: 0} if classes == 0 else {0: 0}
    if classes == 0:
        return {key: key for key in ids}
    names = list(labels.categories.values())
    if decoder.names and set(decoder.names) <= set(names):
        return {i: ids[names.index(name)] for i, name in enumerate(decoder.names)}
    if classes == len(ids):
        return dict(enumerate(ids))
    first = 1 if decoder.background == 0 else 0
    if classes + first > max(ids):  # the model's classes are COCO's ids, gaps and all
        return {i: i + first for i in range(classes) if i + first in labels.categories}
    raise OnnxlintError(
        f"{printable(path)}: has {len(ids)} categories, and the model {classes} classes; list the model's classes in order:"
        ' [detection] names = ["…"] in onnxlint.toml'
    )


def to_original(boxes: Array, image: str, recipe: Recipe) -> Array:
    """Boxes (K, 4) in pixels of the network's input, in pixels of the image file that it was made from.

    Raises:
        OnnxlintError: The image cannot be read.
    """
    if recipe.size is None:
        return boxes
    (width, height), (w, h) = recipe.size, image_size(image)
    # What the whole image was scaled to, and where its corner is: as in `recipe.fit`.
    if recipe.resize == "stretch":
        nw, nh, x, y = width, height, 0, 0
    elif recipe.resize == "letterbox":
        scale = min(width / w, height / h)
        nw, nh, x, y = min(width, max(1, round(w * scale))), min(height, max(1, round(h * scale))), 0, 0
    else:
        scale = max(width / w, height / h)
        nw, nh = max(width, round(w * scale)), max(height, round(h * scale))
        x, y = (nw - width) // 2, (nh - height) // 2
    out = (boxes + np.asarray((x, y, x, y))) * np.asarray((w / nw, h / nh, w / nw, h / nh))
    return np.asarray(np.clip(out, 0, (w, h, w, h)))


def image_size(path: str) -> tuple[int, int]:
    """Width and height of an image file, from its header.

    Raises:
        OnnxlintError: It cannot be read.
    """
    module = optional("PIL.Image")
    try:
        if not os.path.isfile(path):
            raise OSError("it is not a regular file")
        with module.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything over a broken file
        raise OnnxlintError(f"{printable(path)}: its size cannot be read ({printable(str(error))})") from None
    return int(width), int(height)


def pair_up(boxes: Array, labels: Array, truth: Array, kinds: Array) -> list[tuple[int, int, float]]:
    """Boxes, the best score first, each with the free true box of its class that it overlaps most, from `IOU`:
    (index, index of the true one, IoU)."""
    if not len(boxes) or not len(truth):
        return []
    iou = np.where(labels[:, None] == kinds[None], overlaps(boxes, truth), 0)
    pairs = []
    for i in range(len(boxes)):
        j = int(np.argmax(iou[i]))
        if iou[i, j] >= IOU:
            pairs.append((i, j, float(iou[i, j])))
            iou[:, j] = 0
    return pairs


def _shared(ours: Sequence[Detection], theirs: Sequence[Detection]) -> list[tuple[Detection, Detection]]:
    one, other = _arrays(ours), _arrays(theirs)
    return [(ours[i], theirs[j]) for i, j, _ in pair_up(*one, *other)]


def _arrays(detections: Sequence[Detection]) -> tuple[Array, Array]:
    return np.asarray([d.box for d in detections]).reshape(-1, 4), np.asarray([d.label for d in detections])


def average_precision(truths: Mapping[int, Boxes], boxes: Mapping[int, Array]) -> tuple[float | None, float | None]:
    """COCO's average precision at IoU 0.5, and the mean over 0.5, 0.55, … 0.95, by pycocotools.

    Args:
        truths: Image → true boxes; if there is none that counts, the results are None.
        boxes: Image → (K, 6): corners, score, category; the best score first.
    """
    if all(truth.ignored.all() for truth in truths.values()):
        return None, None
    coco, cocoeval = optional("pycocotools.coco"), optional("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = [
        {
            "id": 0,
            "image_id": image,
            "category_id": int(label),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "area": float((x2 - x1) * (y2 - y1)),
            "iscrowd": int(ignored),
        }
        for image, truth in truths.items()
        for (x1, y1, x2, y2), label, ignored in zip(truth.corners, truth.labels, truth.ignored, strict=True)
    ]
    for number, annotation in enumerate(annotations, 1):  # 0 would mean: no match
        annotation["id"] = number
    rows = [
        np.column_stack([np.full(len(b), image), b[:, :2], b[:, 2:4] - b[:, :2], b[:, 4:]]).astype(np.float64)
        for image, b in boxes.items()
    ]
    detections = np.concatenate(rows) if rows else np.empty((0, 7))
    if not len(detections):
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it tells how it is getting on
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image} for image in truths],
            "categories": [{"id": int(kind)} for kind in sorted({a["category_id"] for a in annotations})],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [KEPT]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # IoU, recall, category, area, most detections; −1: nothing to find

    def mean(values: Array) -> float | None:
        known = values[values > -1]
        # Against division by zero pycocotools adds 2e-16 to denominators: what is perfect would be 0.9999999999999998.
        return round(float(known.mean()), 12) if len(known) else None

    return mean(precision[0]), mean(precision)
