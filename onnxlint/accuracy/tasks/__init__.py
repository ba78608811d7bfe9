"""Tasks: the meaning of a model's outputs, and metrics for them.

    task = make_task("detection", recipe=recipe, images=images, labels=None, detection=config.detection)
    for image, x in tensors(images, recipe):
        size = x.shape[2], x.shape[1]
        reference = task.read(outputs_of_the_reference, size)
        candidate = task.read(outputs_of_a_candidate, size, heads)
        task.judge("the reference", image, reference, reference)
        task.judge("a candidate", image, reference, candidate)
    task.results()["a candidate"]

An `Answer` is one model's result for one image; it can be dropped once it is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxlint.accuracy.results import Detection, TaskResult
from onnxlint.accuracy.tasks.base import Answer, Array, Task
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.images.recipe import ImageSet, Recipe

TASKS = {
    "detection": "boxes with classes and scores",
    "classification": "one class an image",
    "verification": "embeddings that tell whether two images show the same",
    "super-resolution": "an image out of an image",
}
"""Task name → description of the outputs."""


def task_name(name: str) -> str:
    """The task of a name that may be written with `_` and capitals.

    Raises:
        OnnxlintError: There is none.
    """
    wanted = name.lower().replace("_", "-")
    if wanted not in TASKS:
        raise OnnxlintError(f"--task: no such task: {printable(name)!r}{did_you_mean(wanted, TASKS, choices(TASKS))}")
    return wanted


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
        images: Inputs of the models; labels are matched with them right away.
        labels: File or folder with the truth; None: the reference's answers are the truth.
        detection: The table `[detection]` of the configuration.

    Raises:
        OnnxlintError: There is no such task, or the labels or the table cannot be used.
    """
    wanted = task_name(name)
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


__all__ = ["TASKS", "Answer", "Array", "Detection", "Task", "TaskResult", "make_task", "task_name"]
