"""Base classes of tasks: read answers from a model's outputs, evaluate them, and sum up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from onnxlint.accuracy.results import Detection, TaskResult

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """One model's result for one image.

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
    """The purpose of a model. Answers are kept only until they are evaluated: only counts and, where a metric
    needs them all (average precision, verification), boxes or embeddings."""

    name: str
    truth: str
    """What models are judged by: `the reference's detections`, or the labels' file."""

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """What the outputs say.

        Args:
            outputs: Name → array, with a batch axis of 1.
            size: Width and height of the network's input, in pixels.
            heads: Slices of joined outputs, if the model's metadata has them (`onnxlint.fixes.heads.read_heads`).

        Raises:
            OnnxlintError: The outputs are not those of a model for this task.
        """

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Record how a model did on an image (its path). The reference is judged as a model too: its answer
        is then both.

        Raises:
            OnnxlintError: The answers cannot be compared.
        """

    def results(self) -> dict[str, TaskResult]:
        """Model → metrics, in the order in which they were first judged."""
