"""Runs two models on the same inputs, in a process of its own.

What `verify` starts: a runtime that crashes, hangs or eats all memory on an odd model takes nobody else along. Needs NumPy
and onnxruntime alone, so that the process starts fast. Each thing that is begun and each result is one line of JSON, so
that whoever reads them knows what was being done when the process died.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.verification.differences import Difference, compare, severity
from onnxlint.verification.engines import Unrunnable, load
from onnxlint.verification.inputs import Contract, Input, Sizes, candidates, dtype_of, feeds_for, variations

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

ENOUGH = 4
"""Shapes on which a dynamic model is compared at least, where it runs on that many."""

PLANNED = 5
"""Other shapes than the first that are always tried."""

MAX_SHAPES = 40
"""Shapes that are tried in search of a first one on which the original runs."""


ROUNDING = (1e-4, 1e-5)
"""Relative and absolute tolerance for outputs that the fixed model computes in another way on purpose."""


@dataclass(frozen=True)
class Task:
    """What is to be compared.

    Attributes:
        original, fixed: Files with the models; data of large initializers may lie elsewhere.
        folders: For either, the folder that its external data is relative to.
        contract: What both take.
        rtol, atol: Tolerance; both 0 for bit-equal.
        half: Tolerance in place of bit-equality, for models that compute in 16 bits; None for others.
        user: An .npz file with the user's inputs; empty for none.
        skip: Trials, by number, that crashed the original before.
        engine: `onnxruntime` or `onnx.reference`.
        seconds: After half of this no trial is begun that is not needed.
        threads: Threads of the runtime.
        outputs: Names of the original's outputs, for messages.
        renamed: Input → its name in the fixed model, where that differs.
        rounded: Outputs that may differ by rounding though the others are to be bit-equal.
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


@dataclass(frozen=True)
class Setting:
    """One set of inputs.

    Attributes:
        number: Counts what was tried, for `Task.skip`.
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


def compare_models(task: Task) -> Iterator[dict[str, Any]]:
    """Run both models; yield what happens as messages.

    `{"begin": "original"|"fixed", "trial": n}` before each load and run; `{"trial": {...}}` for each result;
    `{"skipped": reason}` where nothing can be compared.
    """
    started = time.monotonic()
    yield {"begin": "original", "trial": -1}
    try:
        original, is_bare = load(task.original, task.folders[0], task.engine, task.threads)
    except Unrunnable as why:
        yield {"skipped": f"{task.engine} cannot load the original: {why}", "engine": False}
        return
    done: list[tuple[Setting, dict[str, Any], list[Any]]] = []
    plan = _Plan(task)
    while True:
        setting = plan.next(time.monotonic() - started > task.seconds / 2)
        if setting is None:
            break
        if setting.number in task.skip:
            continue
        yield {"begin": "original", "trial": setting.number, "dims": _dims(task, setting), "kind": setting.kind}
        feeds = _feeds(task, setting)
        try:
            outputs = original(feeds)
            if not done and not all(
                compare(a, b, 0, 0).outcome == "equal" for a, b in zip(outputs, original(feeds), strict=True)
            ):
                yield {"skipped": "its outputs are random: two runs of the original differ"}
                return
            empty = _says_nothing(outputs)
            if empty and setting.kind != "user":
                raise Unrunnable(empty)
        except Unrunnable as why:
            if setting.kind == "user":
                yield {"user": f"the original does not run on them: {why}"}
                return
            yield _result(task, setting, Difference("original failed", 0.0, str(why)), "")
            continue
        plan.succeeded(feeds)
        done.append((setting, feeds, outputs))
    del original
    if not done:
        yield {"skipped": "the original runs on none of the inputs that were tried; give some with --inputs FILE.npz"}
        return
    yield {"begin": "fixed", "trial": -1}
    try:
        fixed, _ = load(task.fixed, task.folders[1], task.engine, task.threads, is_bare)
    except Unrunnable as why:
        yield _result(
            task, done[0][0], Difference("different", float("inf"), f"it cannot be loaded any more: {why}"), ""
        )
        return
    while done:
        setting, feeds, outputs = done.pop(0)
        yield {"begin": "fixed", "trial": setting.number, "dims": _dims(task, setting), "kind": setting.kind}
        try:
            others = fixed({task.renamed.get(name, name): x for name, x in feeds.items()})
        except Unrunnable as why:
            yield _result(task, setting, Difference("different", float("inf"), f"it does not run any more: {why}"), "")
            continue
        yield _result(task, setting, *_worst(task, task.outputs or fixed.outputs, outputs, others))


def _worst(task: Task, names: Sequence[str], originals: list[Any], others: list[Any]) -> tuple[Difference, str]:
    """The output that differs most, and its name."""
    if len(originals) != len(others):
        return Difference("different", float("inf"), f"{len(others)} outputs in place of {len(originals)}"), ""
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


def _result(task: Task, setting: Setting, difference: Difference, output: str) -> dict[str, Any]:
    return {
        "trial": {
            "dims": _dims(task, setting),
            "kind": setting.kind,
            "outcome": difference.outcome,
            "worst": difference.worst,
            "output": output,
            "why": difference.why,
        }
    }


def _says_nothing(outputs: list[Any]) -> str:
    """Why outputs cannot tell two models apart; empty where they can."""
    import numpy as np

    arrays = [x for part in outputs for x in (part if isinstance(part, list) else [part]) if x is not None]
    arrays = [np.asarray(x) for x in arrays]
    if all(x.size == 0 for x in arrays):
        return "all its outputs are empty"
    floats = [x for x in arrays if x.dtype.kind == "f" and x.size]
    if floats and len(floats) == len(arrays) and all(bool(np.all(np.isnan(x))) for x in floats):
        return "all its outputs are NaN"
    return ""


# Sizes


class _Plan:
    """Which inputs to try next.

    First a shape is looked for on which the original runs; then come other inputs of that shape and other shapes. What the
    original does not take says nothing, and others take its place.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._number = 0
        self._shapes: set[tuple[int, ...]] = set()
        self._current: Setting | None = None
        self._base: Setting | None = None
        self._queue = self._all()

    def next(self, is_late: bool) -> Setting | None:
        """The next setting; None where it is enough, or where it is late and there is something to show."""
        self._current = None if is_late and self._shapes else next(self._queue, None)
        return self._current

    def succeeded(self, feeds: Mapping[str, Array]) -> None:
        """The original ran on the last setting."""
        setting = self._current
        assert setting is not None
        self._shapes.add(tuple(size for feed in feeds.values() for size in (feed.ndim, *feed.shape)))
        if setting.kind == "normal" and self._base is None:
            self._base = setting

    def _setting(self, sizes: Sizes, kind: str, way: int, rank: int) -> Setting:
        self._number += 1
        return Setting(self._number, sizes, kind, way, rank)

    def _all(self) -> Iterator[Setting]:
        if self.task.user:
            yield self._setting({}, "user", 0, 4)
        for sizes, way, rank in _search(self.task):
            yield self._setting(sizes, "normal", way, rank)
            if self._base is not None:
                break
        base = self._base
        if base is None:
            return
        for kind in ("zeros", "large"):
            yield self._setting(base.sizes, kind, base.way, base.rank)
        for i, sizes in enumerate(variations(self.task.contract, base.sizes, base.rank) if base.sizes else ()):
            if i >= PLANNED and len(self._shapes) >= ENOUGH:
                break
            yield self._setting(sizes, "normal", base.way, base.rank)


def _search(task: Task) -> Iterator[tuple[Sizes, int, int]]:
    """Sizes, way to fill and rank on which the original may run: all shapes first, then odder values."""
    contract = task.contract
    each = MAX_SHAPES // len(contract.ranks)
    shapes = [(sizes, rank) for rank in contract.ranks for sizes in itertools.islice(candidates(contract, rank), each)]
    has_integers = any(one.dtype.startswith(("int", "uint")) for one in contract.inputs)
    for way in range(4 if has_integers else 2):
        for sizes, rank in shapes if way == 0 else shapes[:8]:
            yield sizes, way, rank


def _dims(task: Task, setting: Setting) -> str:
    if setting.kind == "user":
        return os.path.basename(task.user)
    return ", ".join(f"{symbol}={size}" for symbol, size in setting.sizes.items())


# Values


def _feeds(task: Task, setting: Setting) -> dict[str, Array]:
    import numpy as np

    if setting.kind == "user":
        with np.load(task.user, allow_pickle=False) as file:
            return {one.name: file[one.name].astype(dtype_of(one), copy=False) for one in task.contract.inputs}
    seed = 20260 + setting.number
    return feeds_for(task.contract, setting.sizes, setting.kind, setting.way, setting.rank, seed)


def main(path: str) -> None:
    """Do what a task file says; messages go to standard output."""
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    inputs = (
        Input(**{**one, "dims": None if one["dims"] is None else tuple(one["dims"])})
        for one in raw["contract"]["inputs"]
    )
    contract = Contract(**{**raw["contract"], "inputs": tuple(inputs)})
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    task = Task(**{**raw, **lists, "contract": contract})
    for message in compare_models(task):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
