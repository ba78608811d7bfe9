"""Of several int8 models the one that answers best: judged by what the outputs are used for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Array, Job
from onnxlint.backends.channels import ROOM_COST
from onnxlint.backends.closeness import Powers, powers
from onnxlint.backends.openvino.convert import save
from onnxlint.backends.openvino.session import OpenVinoSession
from onnxlint.backends.ort.calibration import parts_of
from onnxlint.backends.ort.feeds import from_images, spread
from onnxlint.backends.ort.judge import probabilities
from onnxlint.backends.task import Loss, TaskLoss, size_of
from onnxlint.text import counted

if TYPE_CHECKING:
    from onnxlint.backends.ort.session import OrtSession

JUDGED = 16
"""Images, at most, on which they are compared."""

CHANCE = 1.0
"""Answers by which one may lose more than the other by chance: then the outputs' SNR decides, where that is no chance."""


def judged_on(session: OrtSession, job: Job) -> tuple[list[Mapping[str, Array]], str]:
    """Inputs on which candidates are compared, and what they are: fitted weights look better than they are on what they were
    fitted to.

    Args:
        session: The ONNX model.
        job: With the calibration images.

    Raises:
        OnnxlintError: They cannot be fed to the model.
    """
    assert job.images is not None
    others = parts_of(session, job).unfitted
    if len(others):
        inputs: list[Mapping[str, Array]] = list(from_images(session.path, session.inputs, job, others))
        return inputs, f"{counted(len(inputs), 'calibration image')} that weights were not fitted to"
    inputs = list(from_images(session.path, session.inputs, job, spread(job.images, JUDGED)))
    return inputs, counted(len(inputs), "calibration image")


@dataclass(frozen=True)
class Judged:
    """What an int8 model loses.

    Attributes:
        loss: Of the task, or else of the signal, with the same rank for all models.
        powers: Of each output, and of the odds where it is a probability, on each input.
    """

    loss: Loss
    powers: Powers


def is_second_better(first: Judged, second: Judged) -> bool:
    """Whether the second of two candidates is to be taken, of which the first has room in its ranges: that may cost
    `ROOM_COST` on the images that judge, and is for others."""
    if not second.loss.rank:  # its outputs are not those of the task
        return False
    fewer = first.loss.rank[0] - second.loss.rank[0]
    if abs(fewer) > CHANCE:
        return fewer > 0
    return second.powers.is_closer(first.powers, ROOM_COST)


@dataclass(frozen=True)
class Comparison:
    """What candidates are compared by.

    Attributes:
        session: The ONNX model in onnxruntime.
        inputs: On which they are compared.
        images: What these are.
        task: What counts, where the outputs are those of it; None or else: the mean SNR of the outputs.
        threads: For OpenVINO.
    """

    session: OrtSession
    inputs: Sequence[Mapping[str, Array]]
    images: str
    task: TaskLoss | None
    threads: int

    @classmethod
    def of(cls, session: OrtSession, job: Job) -> Comparison:
        """By the images of a job, and its task.

        Raises:
            OnnxlintError: The images cannot be fed to the model.
        """
        inputs, images = judged_on(session, job)
        return cls(session, inputs, images, job.task, job.threads)

    def judged(self, model: Any, known: frozenset[str]) -> Judged:
        """What an int8 model loses, run in OpenVINO, computed exactly: processors whose sums overflow choose as others do.

        Args:
            model: An `openvino.Model`.
            known: Names of the ONNX model.

        Raises:
            OnnxlintError: It does not run, or its outputs are not those of the task.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = (os.path.join(folder, "tried.xml"), os.path.join(folder, "tried.bin"))
            save(model.clone(), files, known, half=False, source=self.session.path)
            made = OpenVinoSession(files[0], self.threads, integers=False)
            found = [made.run(feeds) for feeds in self.inputs]
        sure = probabilities(self.session.proto)
        _, judged = powers(self.session.outputs, zip(self._truth, found, strict=True), self.session.path, sure)
        if self._known_task is not None:
            return Judged(self._known_task.measure(self._pairs(found)), judged)
        return Judged(Loss((0.0,), {"snr": judged.score}), judged)

    @cached_property
    def _truth(self) -> list[list[Array]]:
        return [self.session.run(feeds) for feeds in self.inputs]

    @cached_property
    def _known_task(self) -> TaskLoss | None:
        task = self.task
        return task if task is not None and task.measure(self._pairs(self._truth)).rank else None

    def _pairs(
        self, outputs: Sequence[Sequence[Array]]
    ) -> Iterator[tuple[Mapping[str, Array], Mapping[str, Array], tuple[int, int]]]:
        names = [port.name for port in self.session.outputs]
        for feeds, reference, found in zip(self.inputs, self._truth, outputs, strict=True):
            size = size_of(next(iter(feeds.values())).shape)
            yield dict(zip(names, reference, strict=True)), dict(zip(names, found, strict=True)), size


def shown(loss: Loss) -> str:
    """What people read of a loss: `38.0 dB SNR, 97 % of the objects found, 3 % extra`."""
    percent = {name: f"{value * 100:.0f} %" for name, value in loss.values.items()}
    words = {
        "snr": f"{loss.values.get('snr', 0.0):.1f} dB SNR",
        "found": f"{percent.get('found')} of the objects found",
        "extra": f"{percent.get('extra')} extra",
        "top1": f"the same class on {percent.get('top1')} of them",
        "cosine": f"mean cosine {loss.values.get('cosine', 0.0):.4f}",
    }
    return ", ".join(text for name, text in words.items() if name in loss.values) or "nothing measured"
