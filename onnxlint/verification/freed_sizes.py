"""Verification of `--dynamic`: the fixed model at sizes that were numbers in the original."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.verification.differences import Difference
from onnxlint.verification.engines import Engine, Unrunnable, load
from onnxlint.verification.inputs import Contract
from onnxlint.verification.results import OTHERWISE
from onnxlint.verification.sizes import BATCH_NAMES, feeds_for, freed, roles
from onnxlint.verification.trials import ROUNDING, SEED, Message, Setting, Task, begin, impossible, result, worst_output

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def at_freed_sizes(task: Task, fixed: Engine, base: Setting) -> Iterator[Message]:
    """Run the fixed model at sizes that were numbers in the original.

    It has to run. It is compared with the original at that size where that runs there (its declared shapes removed), and
    a batch with the original's runs on each sample. Where neither can be done, nothing is proved, and the outcome says so.

    Args:
        task: The comparison.
        fixed: The fixed model, loaded.
        base: A setting on which the original ran, at its own sizes.
    """
    contract = replace(task.contract, inputs=task.contract.wide)
    yield {"begin": "loose", "trial": -1}
    original = None
    with contextlib.suppress(Unrunnable):
        original, _ = load(task.original, task.folders[0], task.engine, task.threads, is_loose=True)
    names = task.outputs or fixed.outputs
    for number, sizes in enumerate(freed(contract, contract.freed)):
        setting = Setting(_FREED + number, {**base.sizes, **sizes}, "normal", base.way, base.rank)
        if setting.number in task.skip:
            continue
        yield begin(task, "alone", setting)
        feeds = feeds_for(contract, setting.sizes, "normal", base.way, base.rank, SEED + setting.number)
        try:
            outputs = fixed({task.renamed.get(name, name): x for name, x in feeds.items()})
        except Unrunnable as why:
            yield result(task, setting, impossible(f"it does not run at a size that was set free: {why}"), "")
            continue
        found = Difference("ran"), ""
        if original is not None:
            yield begin(task, "loose", setting)
            found = _at_same_size(task, names, original, feeds, outputs)
            if found[0].outcome == "ran":
                found = _by_sample(task, names, original, feeds, outputs) or found
        yield result(task, setting, *found)


_FREED = 100_000
"""Number of the first trial at a size that was set free."""


def _at_same_size(
    task: Task, names: Sequence[str], original: Engine, feeds: dict[str, Array], outputs: list[Any]
) -> tuple[Difference, str]:
    """The comparison with the original at another size than its own, where they agree; a difference says nothing then:
    numbers that the original has for its own size are wrong for others."""
    try:
        found = worst_output(task, names, original(feeds), outputs)
    except Unrunnable:
        return Difference("ran"), ""
    return found if found[0].outcome in ("equal", "close") else (Difference("ran", why=OTHERWISE), found[1])


def _by_sample(
    task: Task,
    names: Sequence[str],
    original: Engine,
    feeds: dict[str, Array],
    outputs: list[Any],
) -> tuple[Difference, str] | None:
    """The comparison of a batch with the original's runs on each of its samples; None if that cannot be done."""
    import numpy as np

    axes = _batch_axes(task.contract)
    counts = {feeds[name].shape[axis] // old for name, (axis, old) in axes.items()}
    if len(counts) != 1 or (count := counts.pop()) < 2:
        return None
    runs = []
    for i in range(count):
        part = dict(feeds)
        for name, (axis, old) in axes.items():
            part[name] = np.take(feeds[name], range(i * old, (i + 1) * old), axis=axis)
        try:
            runs.append(original(part))
        except Unrunnable:
            return None
    whole = []
    for j, output in enumerate(outputs):
        pieces = [run[j] for run in runs]
        shape = np.shape(pieces[0])
        along = [a for a, size in enumerate(np.shape(output)) if len(shape) == np.ndim(output) and size != shape[a]]
        if len(along) != 1 or any(np.shape(piece) != shape for piece in pieces):
            return None
        whole.append(np.concatenate(pieces, axis=along[0]))
    rounded = replace(task, rtol=max(task.rtol, ROUNDING[0]), atol=max(task.atol, ROUNDING[1]))
    return worst_output(rounded, names, whole, outputs)


def _batch_axes(contract: Contract) -> dict[str, tuple[int, int]]:
    """Input → (axis, old size) of the axis along which samples lie, where a batch was set free.

    Only axes that are a batch beyond doubt, by their name or because images lie along them: a sequence that is cut into
    pieces gives other results.
    """
    found: dict[str, tuple[int, int]] = {}
    kinds = roles(contract.wide, 4)
    for one in contract.wide:
        dims = one.dims or ()
        for axis, dim in enumerate(dims):
            is_sure = isinstance(dim, str) and (dim.lower() in BATCH_NAMES or (axis == 0 and len(dims) >= 4))
            if isinstance(dim, str) and is_sure and dim in contract.freed and kinds[dim] == "batch":
                found[one.name] = axis, contract.freed[dim]
    return found
