"""Tasks: what a model's outputs mean, and how well it does what it is for.

    task = make_task("detection", recipe=recipe, images=images, labels=None, detection=config.detection)
    for image, x in tensors(images, recipe):
        size = x.shape[2], x.shape[1]
        reference = task.read(outputs_of_the_reference, size)
        candidate = task.read(outputs_of_a_candidate, size, heads)
        task.judge("the reference", image, reference, reference)
        task.judge("a candidate", image, reference, candidate)
    task.results()["a candidate"]

An `Answer` is what one model says about one image; it can be thrown away once it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from onnxlint.accuracy.results import Detection, TaskResult
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined
    from onnxlint.images.recipe import ImageSet, Recipe

Array = npt.NDArray[Any]

TASKS = {
    "detection": "boxes with classes and scores",
    "classification": "one class an image",
    "verification": "embeddings that tell whether two images show the same",
    "super-resolution": "an image out of an image",
}
"""Name → what the outputs are."""


@dataclass(frozen=True)
class Answer:
    """What one model says about one image.

    Attributes:
        words: For people: `3 faces`, `tabby cat 0.91`.
        values: The numbers that metrics are computed from: boxes with score and class, those below the threshold too
            (K, 6); the scores of all classes (C,); the embedding (D,); or the picture (H, W, C) that the model makes.
        detections: What it found, the best score first, in pixels of the network's input (detection only).
    """

    words: str
    values: Array
    detections: tuple[Detection, ...] = ()


class Task(Protocol):
    """What a model is for. Answers are kept no longer than it takes to judge them: only counts and, where a metric
    needs them all (average precision, verification), boxes or embeddings."""

    name: str
    truth: str
    """What models are judged by: `the reference's detections`, or the labels' file."""

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """What the outputs say.

        Args:
            outputs: Name → array, with a batch axis of 1.
            size: Width and height of the network's input, in pixels.
            heads: What is where in joined outputs, if the model's metadata says so (`onnxlint.fixes.heads.read_heads`).

        Raises:
            OnnxlintError: The outputs are not those of a model for this task.
        """

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Take note of how a model fared with an image (its path). The reference is judged as a model too: its answer
        is then both.

        Raises:
            OnnxlintError: The answers cannot be compared.
        """

    def results(self) -> dict[str, TaskResult]:
        """Model → metrics, in the order in which they were first judged."""


def make_task(
    name: str,
    *,
    recipe: Recipe,
    images: ImageSet | None = None,
    labels: str | None = None,
    detection: Mapping[str, Any] | None = None,
) -> Task:
    """A task to judge one reference and its candidates by.

    Args:
        name: One of `TASKS`.
        recipe: How images become the input: boxes are mapped back by it.
        images: What the models are run on; labels are matched with them at once.
        labels: File or folder with the truth; None: the reference's answers are the truth.
        detection: The table `[detection]` of the configuration.

    Raises:
        OnnxlintError: There is no such task, or the labels or the table cannot be used.
    """
    wanted = name.lower().replace("_", "-")
    if wanted not in TASKS:
        hint = did_you_mean(wanted, TASKS, choices(TASKS))
        raise OnnxlintError(f"--task: no such task: {printable(name)!r}{hint}")
    if wanted == "detection":
        from onnxlint.accuracy.tasks.detection import DetectionTask

        return DetectionTask(recipe, images, labels, detection or {})
    if wanted == "classification":
        from onnxlint.accuracy.tasks.classification import ClassificationTask

        return ClassificationTask(images, labels)
    if wanted == "verification":
        from onnxlint.accuracy.tasks.verification import VerificationTask

        return VerificationTask(images, labels)
    from onnxlint.accuracy.tasks.super_resolution import SuperResolutionTask

    return SuperResolutionTask(recipe, images, labels)


__all__ = ["TASKS", "Answer", "Array", "Detection", "Task", "TaskResult", "make_task"]
