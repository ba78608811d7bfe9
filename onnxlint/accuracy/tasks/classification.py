"""Classification: which class a model says an image has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.results import TaskResult
from onnxlint.accuracy.tasks.base import Answer
from onnxlint.accuracy.tasks.labels import ByName, ClassLabels, match, read_classes
from onnxlint.accuracy.tasks.vector import pick_vector
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined
    from onnxlint.images.recipe import ImageSet

Array = npt.NDArray[Any]

CHANGES = 5
"""So many of the most frequent changes of class are named."""


@dataclass
class _Tally:
    images: int = 0
    labelled: int = 0
    first: int = 0
    first_five: int = 0
    agree: int = 0
    agree_five: int = 0
    broken: int = 0
    repaired: int = 0
    changes: Counter[tuple[int, int]] = field(default_factory=Counter)


class ClassificationTask:
    """See `onnxlint.accuracy.tasks.Task`.

    Metrics: with labels `top1` and `top5` (None with five classes or fewer), `broken` and `repaired` (images that only the
    reference, or only the candidate, has right); always `agreement` (share of images with the reference's class) and
    `top5_agreement` (its class among the candidate's first five). Notes tell which classes were taken for which instead.
    """

    name = "classification"

    def __init__(self, images: ImageSet | None, labels: str | None) -> None:
        self.truth = "the reference's classes"
        self._labels: ClassLabels | None = None
        self._is_labelled = False
        self._notes: tuple[str, ...] = ()
        if labels is not None:
            self._labels = read_classes(labels)
            self._lookup = ByName(self._labels.images) if self._labels.images else self._labels
            if _names_alone(self._labels, labels, images):
                why = "names the classes, and no image is in a folder of one: judged by the reference's classes"
                self._notes = (f"{printable(labels)} {why}",)
            else:
                example = next(iter(self._labels.images or self._labels.names))
                self._notes = match(self._lookup, images, labels, example)
                self.truth = labels
                self._is_labelled = True
        self._classes = 0
        self._tallies: dict[str, _Tally] = {}

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """The class scores of one image. Raises OnnxlintError if no output can be them."""
        _, values = pick_vector(outputs, "logit|prob|class|score|softmax|pred", self.name)
        if not self._classes:
            self._check(len(values))
            self._classes = len(values)
        if len(values) != self._classes:
            raise OnnxlintError(
                f"--task classification: the reference has {self._classes} classes, this model {len(values)}"
            )
        values = np.nan_to_num(values, nan=-np.inf, posinf=1e30, neginf=-1e30)
        best = int(values.argmax())
        share = float(_probabilities(values)[best])
        return Answer(f"{self._class_name(best)} {share:.2f}", values)

    def _check(self, count: int) -> None:
        """Labels have to be numbered as the model's classes are."""
        labels = self._labels
        if labels is None:
            return
        if labels.names and len(labels.names) != count:
            where = printable(self.truth)
            what = f"{len(labels.names)} classes are named" if labels.complete else f"{len(labels.names)} folders"
            raise OnnxlintError(
                f"{where}: {what}, but the model has {count} classes; put a classes.txt there that names all of them,"
                " one per line, in the model's order"
            )
        highest = max(labels.images.values(), default=0)
        if highest >= count:
            raise OnnxlintError(
                f"{printable(self.truth)}: has a class {highest}, but the model's {count} classes end at {count - 1}"
            )

    def _class_name(self, number: int) -> str:
        names = self._labels.names if self._labels is not None else ()
        return printable(names[number]) if number < len(names) else f"class {number}"

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Count whether the candidate names the reference's class, and the labelled one."""
        tally = self._tallies.setdefault(model, _Tally())
        five = first_five(candidate.values)
        before, now = int(reference.values.argmax()), int(five[0])
        tally.images += 1
        tally.agree += before == now
        tally.agree_five += before in five
        if before != now:
            tally.changes[before, now] += 1
        truth = self._lookup.get(image) if self._is_labelled else None
        if truth is not None:
            tally.labelled += 1
            tally.first += now == truth
            tally.first_five += truth in five
            tally.broken += before == truth != now
            tally.repaired += before != truth == now

    def results(self) -> dict[str, TaskResult]:
        """Shares of images (0 to 1) that agree with the reference and with labels; `broken` and `repaired` count images."""
        out = {}
        for model, tally in self._tallies.items():
            many = self._classes > 5
            metrics: dict[str, float | None] = {}
            if self._is_labelled:
                metrics["top1"] = _share(tally.first, tally.labelled)
                metrics["top5"] = _share(tally.first_five, tally.labelled) if many else None
                metrics["broken"] = tally.broken
                metrics["repaired"] = tally.repaired
            metrics["agreement"] = _share(tally.agree, tally.images)
            metrics["top5_agreement"] = _share(tally.agree_five, tally.images) if many else None
            changes = tuple(
                f"{self._class_name(before)} became {self._class_name(now)}: {count} image{'s' * (count > 1)}"
                for (before, now), count in tally.changes.most_common(CHANGES)
            )
            if len(tally.changes) > CHANGES:
                changes += (f"and {len(tally.changes) - CHANGES} other changes of class",)
            out[model] = TaskResult(self.name, metrics, self.truth, self._notes + changes)
        return out


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def first_five(values: Array) -> list[int]:
    """The five classes with the highest scores, the best first; of equal ones the first, as argmax has it."""
    return [int(i) for i in np.argsort(-values, kind="stable")[:5]]


def _names_alone(labels: ClassLabels, path: str, images: ImageSet | None) -> bool:
    """Whether a list names classes, and the images are in one folder, so that it says of none which of them it is."""
    if labels.images or os.path.isdir(path) or images is None or len(set(map(os.path.dirname, images.paths))) > 1:
        return False
    return not any(labels.get(name) is not None for name in images.paths)


def _probabilities(values: Array) -> Array:
    if values.min() >= -0.01 and abs(values.sum() - 1) < 0.02 + 0.004 * len(values) and values.max() <= 1.01:
        return values
    top = values.max()
    powers = np.exp(values - top) if np.isfinite(top) else np.ones(len(values))
    return np.asarray(powers / powers.sum())
