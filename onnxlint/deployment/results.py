"""Result of a deployment, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Artifact
from onnxlint.conversion.session import Failure, target_rows
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from onnxlint.tabular import Tabular

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


@dataclass(frozen=True, repr=False)
class Deployment(Tabular):
    """The result of `deploy`; iteration yields artifacts, then failures.

    Attributes:
        model: The model as it was exported.
        folder: Where everything is.
        fixed: The fixed model.
        recipe: How images become the input.
        steps: The steps, in order.
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

    def entries(self) -> tuple[Artifact | Failure, ...]:
        """Artifacts, then failures."""
        return (*self.artifacts, *self.failures)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each target: its files, their size in bytes, its SNR in dB, and the error of one that failed."""
        snr = {one.path: one.snr_db for one in self.report.candidates} if self.report is not None else {}
        rows = target_rows(self.artifacts, self.failures)
        for row, one in zip(rows, self.entries(), strict=True):
            row["snr_db"] = snr.get(one.files[0]) if isinstance(one, Artifact) and one.files else None
        return rows

    def headline(self) -> str:
        """The model, its artifacts, and their folder."""
        made = ", ".join(one.target for one in self.artifacts) or "nothing made"
        return f"{self.model}: {made} in {self.folder}{'' if self.ok else ', not complete'}"

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
