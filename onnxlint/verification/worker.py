"""Runs two models on the same inputs, in a process of its own.

What `verify` starts: a runtime that crashes, hangs or eats all memory on an odd model takes nobody else along. Needs NumPy
and onnxruntime alone, so that the process starts fast. Each thing that is begun and each result is one line of JSON, so
that the reader knows the current action if the process dies.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxlint.model.arrays import read_inputs
from onnxlint.model.limits import FOR_THREAD, die_with_parent, limit_memory, set_budget
from onnxlint.telemetry import load_onnxruntime
from onnxlint.verification.differences import Difference, compare
from onnxlint.verification.engines import Engine, TooLarge, Unrunnable, load
from onnxlint.verification.freed_sizes import at_freed_sizes
from onnxlint.verification.inputs import Contract, Input, Sizes, dtype_of
from onnxlint.verification.sizes import candidates, feeds_for, roles, variations
from onnxlint.verification.trials import (
    SEED,
    Message,
    Setting,
    Task,
    begin,
    dims_shown,
    impossible,
    result,
    worst_output,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

ENOUGH = 4
"""Shapes on which a dynamic model is compared at least, where it runs on that many."""

PLANNED = 7
"""Other shapes than the first that are always tried."""

HEAVY = 1 << 26
"""Bytes of a model from which each run costs so much that batches of FEW sizes are enough, where nothing else is free."""

FEW = 3

MAX_SHAPES = 60
"""Shapes that are tried in search of a first one on which the original runs."""

HELD = 1 << 28
"""Bytes of outputs of the original that are held until the fixed model has run; no further trial begins beyond that."""

MEMORY = 2 << 30
"""Bytes that the process may allocate, beside four times the weights of a model: inputs are small."""


@dataclass
class _Run:
    """What the original made of a setting."""

    setting: Setting
    feeds: dict[str, Array]
    outputs: list[Any]


def compare_models(task: Task) -> Iterator[Message]:
    """Run both models; yield events as messages.

    `{"begin": "original"|"fixed"|"alone"|"loose", "trial": n}` before each load and run; `{"trial": {...}}` for each result;
    `{"skipped": reason}` where nothing can be compared; `{"user": reason}` where the user's inputs cannot be used.
    """
    yield {"begin": "original", "trial": -1}
    try:
        original, is_bare = load(task.original, task.folders[0], task.engine, task.threads)
    except Unrunnable as why:
        yield {"skipped": f"{task.engine} cannot load the original: {why}", "engine": False}
        return
    done: list[_Run] = []
    for message in _run_original(task, original, done):
        yield message
        if "skipped" in message or "user" in message:
            return
    del original
    yield {"begin": "fixed", "trial": -1}
    try:
        fixed, _ = load(task.fixed, task.folders[1], task.engine, task.threads, is_bare)
    except Unrunnable as why:
        yield result(task, done[0].setting, impossible(f"it no longer loads: {why}"), "")
        return
    first = done[0].setting
    while done:
        run = done.pop(0)
        yield begin(task, "fixed", run.setting)
        yield result(task, run.setting, *_compared(task, fixed, run))
    if task.contract.freed:
        yield from at_freed_sizes(task, fixed, first)


def _run_original(task: Task, original: Engine, done: list[_Run]) -> Iterator[Message]:
    """Run the original on all that the plan has; `done` gets the settings on which it ran."""
    started = time.monotonic()
    plan = _Plan(task)
    first_refusal, ran = "", False
    held = 0
    while True:
        setting = plan.next(time.monotonic() - started > task.seconds / 2 or held > HELD)
        if setting is None:
            break
        if setting.number in task.skip:
            continue
        yield begin(task, "original", setting)
        try:
            feeds = _feeds(task, setting)
            outputs = original(feeds)
            if not done and not _is_repeatable(original, feeds, outputs):
                yield {"skipped": "its outputs are random: two runs of the original differ"}
                return
            empty = _uninformative(outputs)
            if empty and setting.kind != "user" and not (done and 0 in setting.sizes.values()):
                ran = True
                raise Unrunnable(empty)
        except Unrunnable as why:
            if setting.kind == "user":
                yield {"user": f"the original does not run on them: {why}"}
                return
            place = dims_shown(task, setting)
            first_refusal = first_refusal or f"{f'at {place}: ' if place else ''}{why}"
            yield result(task, setting, Difference("original failed", 0.0, str(why)), "")
            if isinstance(why, TooLarge):
                break
            continue
        plan.succeeded(feeds)
        held += sum(array.nbytes for array in _arrays(outputs))
        done.append(_Run(setting, feeds, outputs))
    if not done:
        why_not = f" ({first_refusal})" if first_refusal else ""
        what = "outputs of the original for the inputs" if ran else "the original runs on none of the inputs"
        tells = f"{what} that were tried{' tell nothing' * ran}{why_not}"
        yield {"skipped": f"{tells}; give some with --inputs FILE.npz"}


def _is_repeatable(engine: Engine, feeds: dict[str, Array], outputs: list[Any]) -> bool:
    return all(compare(a, b, 0, 0).outcome == "equal" for a, b in zip(outputs, engine(feeds), strict=True))


def _compared(task: Task, fixed: Engine, run: _Run) -> tuple[Difference, str]:
    """How the fixed model's outputs differ from the original's; where that is in a batch of 0, it may be excluded."""
    try:
        others = fixed({task.renamed.get(name, name): x for name, x in run.feeds.items()})
        difference, output = worst_output(task, task.outputs or fixed.outputs, run.outputs, others)
    except Unrunnable as why:
        difference, output = impossible(f"it no longer runs: {why}"), ""
    if difference.outcome == "different" and 0 in run.setting.sizes.values() and not task.allow_empty:
        return replace(difference, outcome="excluded"), output
    return difference, output


def _arrays(outputs: list[Any]) -> list[Array]:
    """All arrays among outputs, those inside sequences included."""
    import numpy as np

    parts = [x for part in outputs for x in (part if isinstance(part, list) else [part]) if x is not None]
    return [np.asarray(x) for x in parts]


def _uninformative(outputs: list[Any]) -> str:
    """Why outputs cannot tell two models apart; empty if they can."""
    import numpy as np

    arrays = _arrays(outputs)
    if all(x.size == 0 for x in arrays):
        return "all its outputs are empty"
    floats = [x for x in arrays if x.dtype.kind == "f" and x.size]
    if floats and len(floats) == len(arrays) and all(bool(np.all(np.isnan(x))) for x in floats):
        return "all its outputs are NaN"
    return ""


# The plan


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
        """The next setting; None if there are enough, or after the deadline."""
        self._current = None if is_late else next(self._queue, None)
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

    def _is_heavy(self, base: Setting) -> bool:
        """Whether a large model has no other free sizes than the number of samples."""
        kinds = roles(self.task.contract.inputs, base.rank)
        return self.task.weights >= HEAVY and all(kinds.get(symbol) == "batch" for symbol in base.sizes)

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
        planned, enough = (FEW, FEW) if self._is_heavy(base) else (PLANNED, ENOUGH)
        for i, sizes in enumerate(variations(self.task.contract, base.sizes, base.rank) if base.sizes else ()):
            if i >= planned and len(self._shapes) >= enough:
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


# Values


def _feeds(task: Task, setting: Setting) -> dict[str, Array]:
    """The inputs of a setting; the user's file was read before, and is as it should be."""
    if setting.kind == "user":
        arrays = read_inputs(task.user, [one.name for one in task.contract.inputs])
        return {one.name: arrays[one.name].astype(dtype_of(one), copy=False) for one in task.contract.inputs}
    seed = SEED + setting.number
    return feeds_for(task.contract, setting.sizes, setting.kind, setting.way, setting.rank, seed)


def main(parent: int) -> None:
    """Run a task file for a process, which writes its path to standard input; messages go to standard output."""
    die_with_parent(parent)
    load_onnxruntime()  # and NumPy: most of what a small model takes, so it is done before there is a task
    path = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if not path:
        return  # none came
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    task = Task(**{**raw, **lists, "contract": _contract(raw["contract"])})
    limit_memory(MEMORY + 4 * task.weights + task.threads * FOR_THREAD)
    set_budget(task.weights)
    for message in compare_models(task):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    os._exit(0)  # freeing the runtime and the models takes as long as running a small model


def _contract(raw: dict[str, Any]) -> Contract:
    def inputs(entries: list[dict[str, Any]]) -> tuple[Input, ...]:
        return tuple(Input(**{**one, "dims": None if one["dims"] is None else tuple(one["dims"])}) for one in entries)

    pairs = tuple((height, width) for height, width in raw["pairs"])
    return Contract(
        **{
            **raw,
            "inputs": inputs(raw["inputs"]),
            "wide": inputs(raw["wide"]),
            "numbers": tuple(raw["numbers"]),
            "pairs": pairs,
        }
    )
