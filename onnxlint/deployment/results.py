"""What a deployment came to, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Artifact
from onnxlint.conversion.session import Failure
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe

State = Literal["done", "unchanged", "failed"]
"""Of a step: it was done, skipped because its inputs are unchanged, or it failed."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: `check`, `fix`, `convert ncnn, ncnn-int8` (the targets of one backend), `compare`, `samples`.
        state: Whether it was done.
        seconds: Wall time; of the run that did it, where it is unchanged.
        files: What it wrote, relative to the folder.
        lines: Its results, for people (escaped).
    """

    name: str
    state: State
    seconds: float
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """The result of `deploy`.

    Attributes:
        model: The model as it was exported.
        folder: Where everything is.
        fixed: The fixed model.
        recipe: How images become the input.
        steps: What was done, in order.
        artifacts: The files of each target, in the order in which targets were given.
        failures: Targets that could not be made, and why.
        report: The comparison with the model as it was exported; read back from report.json, without pictures, where
            it is unchanged.
    """

    model: str
    folder: str
    fixed: str
    recipe: Recipe
    steps: tuple[Step, ...]
    artifacts: tuple[Artifact, ...]
    failures: tuple[Failure, ...]
    report: AccuracyReport | None

    @property
    def ok(self) -> bool:
        """Whether every target was made and every step was done."""
        return not self.failures and all(step.state != "failed" for step in self.steps)


class StepError(OnnxlintError):
    """A step failed, and the deployment cannot continue.

    Attributes:
        findings: The findings of `onnxlint check` about the model, a line each (escaped).
    """

    def __init__(self, message: str, findings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)
