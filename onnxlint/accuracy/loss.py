"""What a candidate loses for a task, as quantizers and `--max-drop` measure it: by the reference's answers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.metrics import Ratio, mean_db
from onnxlint.accuracy.tasks import TASKS
from onnxlint.backends.task import Loss, Outputs, Pairs
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks.decoder import Decoder, Found
    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]
Pair = tuple[Outputs, Outputs, tuple[int, int]]

EXACT_DB = 300.0
"""SNR of outputs that are equal."""

CLASSES = "logit|prob|class|score|softmax|pred"
"""Names of outputs that are scores of classes, where there are several outputs."""

METRICS = {
    "detection": ("found", "extra", "score_shift"),
    "classification": ("top1", "margin"),
    "verification": ("cosine", "min_cosine"),
}
"""Task → its metrics, beside `snr`, which all outputs have."""


@dataclass(frozen=True)
class AnswerLoss:
    """A task's loss; see `onnxlint.backends.task.TaskLoss`.

    Detection: `found` (share of the reference's objects), `extra` (objects that it has not, as a share of its number),
    `score_shift` (mean change of the scores of found objects). Classification: `top1` (share of inputs with the
    reference's class), `margin` (distance of that class from the next, as a share of the reference's). Verification:
    `cosine` and `min_cosine` of embeddings with the reference's. Always: `snr`, the mean over the outputs in dB.

    Attributes:
        task: One of `onnxlint.accuracy.tasks.TASKS`; empty: detection where the outputs are RetinaFace's or an SSD's, else
            none.
        detection: The table `[detection]` of the configuration.
        heads: Slices of joined outputs that the model's metadata records.
    """

    task: str = ""
    detection: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[Joined, ...] = ()

    def __post_init__(self) -> None:
        if self.task and self.task not in TASKS:
            hint = did_you_mean(self.task, TASKS, choices(TASKS))
            raise OnnxlintError(f"--task: no such task: {printable(self.task)!r}{hint}")

    def record(self) -> dict[str, Any]:
        """The task and the table of the configuration."""
        return {"task": self.task, **({"detection": dict(self.detection)} if self.detection else {})}

    def measure(self, pairs: Pairs) -> Loss:
        """See `TaskLoss.measure`."""
        known = list(pairs)
        snr = {"snr": _snr(known)}
        by_task: dict[str, Callable[[Sequence[Pair]], Loss]] = {
            "classification": _classes,
            "verification": _embeddings,
            "detection": self._objects,
            "": self._recognized,
        }
        loss = by_task[self.task](known) if self.task in by_task else Loss()
        return Loss(loss.rank, {**loss.values, **snr})

    def _recognized(self, pairs: Sequence[Pair]) -> Loss:
        try:
            return self._objects(pairs)
        except OnnxlintError:  # another kind of model
            return Loss()

    def _objects(self, pairs: Sequence[Pair]) -> Loss:
        from onnxlint.accuracy.tasks.detection import pair_up
        from onnxlint.accuracy.tasks.detection_table import read_table

        decoder = read_table(self.detection)
        found = missed = extra = 0
        shift: list[float] = []
        for reference, candidate, size in pairs:
            decoder, truth, ours = self._decoded(reference, candidate, size, decoder)
            hits = pair_up(ours.boxes, ours.labels, truth.boxes, truth.labels)
            found += len(hits)
            missed += len(truth.boxes) - len(hits)
            extra += len(ours.boxes) - len(hits)
            shift += [float(ours.scores[i] - truth.scores[j]) for i, j, _ in hits]
        mean = float(np.mean(shift)) if shift else 0.0
        values = {"score_shift": mean}
        if found + missed:
            values |= {"found": found / (found + missed), "extra": extra / (found + missed)}
        return Loss((float(missed), float(extra), abs(mean)), values)

    def _decoded(
        self, reference: Outputs, candidate: Outputs, size: tuple[int, int], decoder: Decoder | None
    ) -> tuple[Decoder, Found, Found]:
        """The decoder, and what it finds in the outputs of both."""
        from onnxlint.accuracy.tasks.decoder import choose, decode

        decoder = decoder or choose(reference, size, self.heads)
        truth, ours = (
            _sure(decode(one, size, decoder, self.heads, strict=False), decoder.threshold)
            for one in (reference, candidate)
        )
        return decoder, truth, ours


def loss_for(path: str, task: str | None, detection: Mapping[str, Any] | None = None) -> AnswerLoss:
    """The loss of a task for an ONNX model, whose metadata may record heads.

    Args:
        path: The model.
        task: As `--task` says it; None: what the outputs tell.
        detection: The table `[detection]` of the configuration.

    Raises:
        OnnxlintError: There is no such task, or the model cannot be read.
    """
    from onnxlint.fixes.heads import read_heads
    from onnxlint.model.skeleton import open_model

    name = (task or "").lower().replace("_", "-")
    return AnswerLoss(name, dict(detection or {}), tuple(read_heads(open_model(path).proto)))


def _sure(found: Found, threshold: float) -> Found:
    from dataclasses import replace

    keep = found.scores >= threshold
    return replace(
        found,
        boxes=found.boxes[keep],
        scores=found.scores[keep],
        labels=found.labels[keep],
        landmarks=found.landmarks[keep],
    )


def _classes(pairs: Sequence[Pair]) -> Loss:
    from onnxlint.accuracy.tasks.vector import pick_vector

    same, ours, theirs = 0, [], []
    for reference, candidate, _ in pairs:
        a, b = (
            pick_vector(one, "logit|prob|class|score|softmax|pred", "classification")[1]
            for one in (reference, candidate)
        )
        best = int(a.argmax())
        same += int(b.argmax()) == best
        ours.append(_margin(b, best))
        theirs.append(_margin(a, best))
    margin = float(np.mean(ours)) / max(float(np.mean(theirs)), 1e-12)
    lost = float(len(pairs) - same)
    return Loss(
        (lost, float(np.mean(np.abs(np.subtract(ours, theirs))))), {"top1": same / len(pairs), "margin": margin}
    )


def _margin(values: Array, best: int) -> float:
    return float(values[best] - np.delete(values, best).max())


def _embeddings(pairs: Sequence[Pair]) -> Loss:
    from onnxlint.accuracy.tasks.vector import pick_vector
    from onnxlint.accuracy.tasks.verification import cosine_of

    cosines = [
        cosine_of(*(pick_vector(one, "emb|feat|out", "verification")[1] for one in (reference, candidate)))
        for reference, candidate, _ in pairs
    ]
    mean, least = float(np.mean(cosines)), float(np.min(cosines))
    return Loss((round(1 - mean, 3), 1 - mean), {"cosine": mean, "min_cosine": least})


def _snr(pairs: Sequence[Pair]) -> float:
    """The mean over the outputs of their SNR over all inputs, dB."""
    meters: dict[str, Ratio] = {}
    for reference, candidate, _ in pairs:
        for name, array in reference.items():
            other = candidate.get(name)
            if array.dtype.kind == "f" and other is not None and other.size == array.size:
                meters.setdefault(name, Ratio()).add(array, np.asarray(other))
    return float(np.clip(mean_db(meter.snr_db for meter in meters.values()), -EXACT_DB, EXACT_DB)) if meters else 0.0
