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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

FLIPS = 1e-3
"""Part of the numbers of an integer output that may differ where rounding may (ArgMax over what is almost equal)."""


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


class Unrunnable(Exception):  # noqa: N818 - an answer, not an error
    """A model cannot be loaded or run; the message says why."""


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
        original, is_bare = _load(task, task.original, task.folders[0])
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
        fixed, _ = _load(task, task.fixed, task.folders[1], is_bare)
    except Unrunnable as why:
        yield _result(
            task, done[0][0], Difference("different", float("inf"), f"it cannot be loaded any more: {why}"), ""
        )
        return
    while done:
        setting, feeds, outputs = done.pop(0)
        yield {"begin": "fixed", "trial": setting.number, "dims": _dims(task, setting), "kind": setting.kind}
        try:
            others = fixed(feeds)
        except Unrunnable as why:
            yield _result(task, setting, Difference("different", float("inf"), f"it does not run any more: {why}"), "")
            continue
        yield _result(task, setting, *_worst(task, fixed.outputs, outputs, others))


@dataclass(frozen=True)
class Difference:
    """How two values differ.

    Attributes:
        outcome: `equal`, `close`, `different` or `original failed`.
        worst: Largest absolute difference; infinite where they cannot be compared.
        why: In words, where they differ in more than values.
    """

    outcome: str
    worst: float = 0.0
    why: str = ""


def compare(a: Any, b: Any, rtol: float, atol: float) -> Difference:
    """Compare two outputs: arrays, or lists of them for sequences, or None.

    NaN equals NaN, and 0.0 equals -0.0. With a tolerance, `|a - b| <= atol * max(1, m) + rtol * max(|a|, |b|)` has to hold
    everywhere for floating-point numbers, where m is the largest number of the output: small differences of large numbers
    cannot be better than these. Integers may differ in `FLIPS` of the places.
    """
    import numpy as np

    if isinstance(a, list) or isinstance(b, list):
        if not isinstance(a, list) or not isinstance(b, list) or len(a) != len(b):
            return Difference("different", float("inf"), "a sequence of another length")
        parts = [compare(x, y, rtol, atol) for x, y in zip(a, b, strict=True)]
        return max(parts, key=_severity, default=Difference("equal"))
    if a is None or b is None:
        return Difference("equal") if a is b else Difference("different", float("inf"), "there in one only")
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return Difference("different", float("inf"), f"shape {list(y.shape)} in place of {list(x.shape)}")
    if x.dtype != y.dtype:
        return Difference("different", float("inf"), f"{y.dtype} in place of {x.dtype}")
    if x.dtype.kind not in "fciub":
        x, y = (x, y) if x.dtype.kind in "OSU" else (x.astype(np.float64), y.astype(np.float64))  # ml_dtypes
        if x.dtype.kind != "f":
            return Difference("equal") if bool(np.all(x == y)) else Difference("different", float("inf"), "other texts")
    same = x == y
    if x.dtype.kind in "fc":
        same |= np.isnan(x) & np.isnan(y)
    if bool(np.all(same)):
        return Difference("equal")
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    p, q = x[~same].astype(wide), y[~same].astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(p - q)
    gap = np.where(np.isnan(gap), np.inf, gap)
    worst = float(gap.max())
    if rtol == atol == 0:
        return Difference("different", worst)
    if x.dtype.kind in "iub":
        return Difference("close" if p.size <= FLIPS * x.size else "different", worst, f"{p.size} of {x.size} numbers")
    magnitude = float(np.max(np.abs(x), where=np.isfinite(x), initial=1.0))
    is_close = bool(np.all(gap <= atol * magnitude + rtol * np.maximum(np.abs(p), np.abs(q))) and np.isfinite(worst))
    return Difference("close" if is_close else "different", worst)


def _severity(difference: Difference) -> tuple[int, float]:
    return ("equal", "close", "different").index(difference.outcome), difference.worst


def _worst(task: Task, names: Sequence[str], originals: list[Any], others: list[Any]) -> tuple[Difference, str]:
    """The output that differs most, and its name."""
    if len(originals) != len(others):
        return Difference("different", float("inf"), f"{len(others)} outputs in place of {len(originals)}"), ""
    found = Difference("equal"), ""
    for name, a, b in zip(names, originals, others, strict=True):
        difference = compare(a, b, task.rtol, task.atol)
        if difference.outcome == "different" and task.half is not None and task.rtol == task.atol == 0:
            difference = compare(a, b, task.half[0], task.half[1])
        if _severity(difference) > _severity(found[0]):
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


# Engines


class _Session:
    """A model in onnxruntime: optimizations off, so that what runs is what the file says."""

    def __init__(self, model: bytes, folder: str, threads: int) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Buffers that are shared by what declared shapes say would make a wrong claim an error.
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        self.outputs = [output.name for output in self._session.get_outputs()]
        self._takes = {value.name for value in self._session.get_inputs()}

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]:
        try:
            return list(self._session.run(None, {name: x for name, x in feeds.items() if name in self._takes}))
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error


class _Reference:
    """A model in onnx's own evaluator, slow and complete, for what onnxruntime does not take."""

    def __init__(self, model: bytes, folder: str) -> None:
        import onnx
        from onnx.external_data_helper import load_external_data_for_model
        from onnx.reference import ReferenceEvaluator

        try:
            proto = onnx.ModelProto.FromString(model)
            if folder:
                load_external_data_for_model(proto, folder)
            self._evaluator = ReferenceEvaluator(proto)
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        self.outputs = [output.name for output in proto.graph.output]
        self._takes = {value.name for value in proto.graph.input}

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]:
        import numpy as np

        try:
            with np.errstate(all="ignore"):
                outputs = self._evaluator.run(None, {name: x for name, x in feeds.items() if name in self._takes})
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        return list(outputs)


_Engine = _Session | _Reference


def _load(task: Task, path: str, folder: str, is_bare: bool = False) -> tuple[_Engine, bool]:
    """The model, and whether its declared shapes had to be taken off for it to load."""
    with open(path, "rb") as file:
        data = file.read()
    if task.engine != "onnxruntime":
        return _Reference(data, folder), False
    if not is_bare:
        try:
            return _Session(data, folder, task.threads), False
        except Unrunnable as error:
            why = error
        try:
            return _Session(_without_claims(data), folder, task.threads), True
        except Unrunnable:
            raise why from None
    return _Session(_without_claims(data), folder, task.threads), True


def _without_claims(data: bytes) -> bytes:
    """The model without the shapes that it declares for what it computes: they may contradict the truth."""
    import onnx

    proto = onnx.ModelProto.FromString(data)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return proto.SerializeToString()


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ")[:300]


def say_problem(path: str, folder: str) -> None:
    """Print as JSON why onnxruntime does not load a model; null where it does."""
    with open(path, "rb") as file:
        data = file.read()
    problem = None
    try:
        _Session(data, folder, 1)
    except Unrunnable as error:
        problem = str(error)
    sys.stdout.write(json.dumps(problem) + "\n")


def main(path: str) -> None:
    """Do what a task file says; messages go to standard output."""
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    inputs = (
        Input(**{**one, "dims": None if one["dims"] is None else tuple(one["dims"])})
        for one in raw["contract"]["inputs"]
    )
    contract = Contract(**{**raw["contract"], "inputs": tuple(inputs)})
    task = Task(**{**raw, "contract": contract, "folders": tuple(raw["folders"]), "skip": tuple(raw["skip"])})
    for message in compare_models(task):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
