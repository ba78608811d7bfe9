"""The worker's task and messages: what to compare, one set of inputs, and the result of one trial."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxlint.verification.differences import Difference, compare, severity
from onnxlint.verification.inputs import Contract, Sizes

Message = dict[str, Any]

SEED = 20260
"""Seed of the first trial's inputs."""

ROUNDING = (1e-4, 1e-5)
"""Relative and absolute tolerance for outputs that the fixed model computes in another way on purpose."""


@dataclass(frozen=True)
class Task:
    """A comparison to run.

    Attributes:
        original, fixed: Files with the models; data of large initializers may lie elsewhere.
        folders: For either, the folder that its external data is relative to.
        contract: Inputs of both models.
        rtol, atol: Tolerance; both 0 for bit-equal.
        half: Tolerance in place of bit-equality, for models that compute in 16 bits; None for others.
        user: An .npz file with the user's inputs; empty for none.
        skip: Trials, by number, that crashed the original before.
        engine: `onnxruntime` or `onnx.reference`.
        seconds: After half of this no trial is begun that is not needed.
        threads: Threads of the runtime.
        outputs: Names of the original's outputs, for messages.
        renamed: Input → its name in the fixed model, if that differs.
        rounded: Outputs that may differ by rounding though the others are to be bit-equal.
        weights: Bytes of the weights of either model.
        allow_empty: Whether the models have to agree where the batch is 0 as well.
    """

    original: str
    fixed: str
    folders: tuple[str, str]
    contract: Contract
    rtol: float = 0.0
    atol: float = 0.0
    half: tuple[float, float] | None = None
    user: str = ""
    skip: tuple[int, ...] = ()
    engine: str = "onnxruntime"
    seconds: float = 300.0
    threads: int = 1
    outputs: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    rounded: tuple[str, ...] = ()
    weights: int = 0
    allow_empty: bool = False


@dataclass(frozen=True)
class Setting:
    """One set of inputs.

    Attributes:
        number: Number of trials so far, for `Task.skip`.
        sizes: Symbol → size.
        kind: `normal`, `zeros`, `large` or `user`.
        way: Which values the inputs get (see `fill`).
        rank: The rank of inputs of unknown rank.
    """

    number: int
    sizes: Sizes
    kind: str
    way: int = 0
    rank: int = 4


def begin(task: Task, what: str, setting: Setting) -> Message:
    """The message before a trial."""
    return {"begin": what, "trial": setting.number, "dims": dims_shown(task, setting), "kind": setting.kind}


def impossible(why: str) -> Difference:
    """A difference that is not a number."""
    return Difference("different", float("inf"), why)


def worst_output(task: Task, names: Sequence[str], originals: list[Any], others: list[Any]) -> tuple[Difference, str]:
    """The output that differs most, and its name."""
    if len(originals) != len(others):
        return impossible(f"{len(others)} outputs in place of {len(originals)}"), ""
    found = Difference("equal"), ""
    for name, a, b in zip(names, originals, others, strict=True):
        difference = compare(a, b, task.rtol, task.atol)
        if difference.outcome == "different" and task.half is not None and task.rtol == task.atol == 0:
            difference = compare(a, b, *task.half)
        elif difference.outcome == "different" and name in task.rounded:
            difference = compare(a, b, *ROUNDING)
        if severity(difference) > severity(found[0]):
            found = difference, name
    return found


def result(task: Task, setting: Setting, difference: Difference, output: str) -> Message:
    """The message about a trial."""
    return {
        "trial": {
            "dims": dims_shown(task, setting),
            "kind": setting.kind,
            "outcome": difference.outcome,
            "worst": difference.worst,
            "output": output,
            "why": difference.why,
            "zero_signs": difference.zero_signs,
            "sizes": list(setting.sizes.items()),
        }
    }


def dims_shown(task: Task, setting: Setting) -> str:
    """`N=2, H=96`; the file's name for inputs of the user's own."""
    if setting.kind == "user":
        return os.path.basename(task.user)
    return ", ".join(f"{symbol}={size}" for symbol, size in setting.sizes.items())
