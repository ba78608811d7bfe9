"""What is measured when models are compared; accuracy and deployment take it as one argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CompareOptions:
    """What is measured, and which results fail.

    Attributes:
        task: The task that outputs are judged by (`onnxlint.accuracy.tasks.TASKS`); None: outputs only.
        labels: File or folder with ground-truth labels; None: the reference's answers.
        detection: The table `[detection]` of the configuration.
        layers: Whether to compare intermediate values too, and to measure how much of the loss each layer causes.
        suggest: Whether to try out settings that may reduce the loss.
        fail_if: Conditions (`snr<20`) on each candidate.
        threads: How many each model may use.
        time: Whether to measure latency.
        engine: Where the models are run on the inputs: `local`, or `ray` as for `onnxlint check`. Latency, layers and
            suggestions are measured on this machine.
    """

    task: str | None = None
    labels: str | None = None
    detection: Mapping[str, Any] = field(default_factory=dict)
    layers: bool = False
    suggest: bool = False
    fail_if: tuple[str, ...] = ()
    threads: int = 2
    time: bool = True
    engine: str = "local"
