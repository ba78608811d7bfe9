"""Numerical equivalence of two models, measured.

Both are run in onnxruntime, with its optimizations off, on the same seeded inputs: normal ones, zeros and large ones, and
for dynamic models several shapes, small, so that it is fast. Shapes that a model declares for what it computes are not
believed. What the original does not accept says nothing. The runs happen in a process of their own (see `trials`), which may
crash or hang without harm.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxlint.errors import OnnxlintError, printable
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import (
    DATA_NUMBERS,
    Model,
    inline_span,
    is_external,
    key_bytes,
    locate_external,
    open_model,
    walk_tensors,
)
from onnxlint.verification.contract import Unfit, common_contract
from onnxlint.verification.inputs import Input
from onnxlint.verification.worker import Task

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Tolerance:
    """How far two outputs may be apart: `|a - b| <= atol * max(1, m) + rtol * max(|a|, |b|)` for each number.

    m is the largest number of the output. With both at 0, numbers have to be equal (NaN equals NaN). Where
    rounding is allowed, one in a thousand integers of an output may differ: ArgMax over numbers that are almost equal.
    """

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"rtol {self.rtol:g}, atol {self.atol:g}" if self.rtol or self.atol else "bit-equal"


EXACT = Tolerance(0.0, 0.0)
"""For patches that move data and do not compute."""

ARITHMETIC = Tolerance(1e-4, 1e-5)
"""For patches that change float32 arithmetic: folded batch normalization, constants computed in advance."""

HALF = Tolerance(1e-2, 1e-3)
"""The same for models with float16 tensors (10 bits of mantissa: one rounding is 5e-4)."""

BRAIN = Tolerance(5e-2, 5e-3)
"""The same for models with bfloat16 tensors (7 bits of mantissa: one rounding is 4e-3)."""

Kind = Literal["normal", "zeros", "large", "user"]
Outcome = Literal["equal", "close", "different", "original failed"]


@dataclass(frozen=True)
class Trial:
    """Both models on one set of inputs.

    Attributes:
        dims: Sizes of the free dimensions (`N=3, H=96, W=160`); empty for static models; for `user` the file's name.
        kind: What the inputs were.
        outcome: `equal` bit by bit, `close` within the tolerance, `different`; `original failed` says nothing about the fix.
        worst: Largest absolute difference; infinite where outputs cannot be compared (shapes, a failed run).
        output: The output that differs most; empty where none does.
        why: What happened, where it is more than other numbers.
    """

    dims: str
    kind: Kind
    outcome: Outcome
    worst: float = 0.0
    output: str = ""
    why: str = ""


@dataclass(frozen=True)
class Verification:
    """What running both models showed.

    Attributes:
        trials: In the order in which they ran.
        engine: `onnxruntime`, or `onnx.reference` where that cannot run the original; empty where nothing ran.
        tolerance: What was demanded.
        skipped: Why nothing is known; empty where something is.
    """

    trials: tuple[Trial, ...] = ()
    engine: Literal["onnxruntime", "onnx.reference", ""] = ""
    tolerance: Tolerance = EXACT
    skipped: str = ""

    @property
    def equal(self) -> bool:
        """Whether no trial found a difference. Where nothing ran, none was found: see `verified`."""
        return not any(trial.outcome == "different" for trial in self.trials)

    @property
    def verified(self) -> bool:
        """Whether both models ran and were equal, within the tolerance."""
        return self.equal and not self.skipped and bool(self._ran)

    @property
    def worst(self) -> float:
        """The largest difference of all trials."""
        return max((trial.worst for trial in self._ran), default=0.0)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes on which both models were compared."""
        return tuple(dict.fromkeys(trial.dims for trial in self._ran))

    @property
    def _ran(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.outcome != "original failed"]

    def summary(self) -> str:
        """One line for users, after the word "verified"."""
        if not self.equal:
            trial = next(trial for trial in self.trials if trial.outcome == "different")
            place = f" at {printable(trial.dims)}" if trial.dims else ""
            output = f" in output {printable(trial.output)!r}" if trial.output else ""
            amount = f" by up to {trial.worst:.2g}" if math.isfinite(trial.worst) else ""
            why = f": {printable(trial.why)}" if trial.why else ""
            return f"different{place} ({trial.kind} inputs){output}{amount}{why}"
        if self.skipped:
            return f"not: {printable(self.skipped)}"
        if not self._ran:
            return "not: nothing was run"
        is_close = any(trial.outcome == "close" for trial in self._ran)
        how = f"equal within {self.tolerance} (worst difference {self.worst:.2g})" if is_close else "bit-equal"
        names = [printable(dims) for dims in self.shapes if dims]
        shown = "; ".join(names[:6]) + ("; …" if len(names) > 6 else "")
        runs = len(self._ran)
        return f"{how} in {self.engine} on {runs} input{'s' * (runs > 1)}{f' ({shown})' if shown else ''}"


def verify(
    original: str | os.PathLike[str],
    fixed: str | os.PathLike[str],
    *,
    tolerance: Tolerance = EXACT,
    multiples: Mapping[str, int] | None = None,
    inputs: str | None = None,
    seconds: float = 300.0,
) -> Verification:
    """Compare two model files that are to give the same outputs in the same order.

    Args:
        original, fixed: The files.
        tolerance: What is demanded; for models in 16 bits anything but EXACT becomes HALF or BRAIN.
        multiples: Symbol of an input → number that its size has to be a multiple of.
        inputs: An .npz file with inputs of the user's own, by name, to compare on as well.
        seconds: Time limit.

    Raises:
        OnnxlintError: A file cannot be read, or onnxruntime is not installed.
    """
    first, second = open_model(original), open_model(fixed)
    return _verify((first, first.proto), (second, second.proto), tolerance, multiples or {}, inputs, seconds)


def verify_models(
    model: Model,
    reference: onnx.ModelProto,
    result: onnx.ModelProto,
    *,
    exact: bool = True,
    multiples: Mapping[str, int] | None = None,
    inputs: str | None = None,
    seconds: float = 300.0,
) -> Verification:
    """Compare two skeletons of one model.

    Args:
        model: Where their weights are.
        reference: What the result has to equal: the original, or the original with the changes that were asked for.
        result: The other skeleton.
        exact: Whether outputs have to be bit-equal.
        multiples, inputs, seconds: As for `verify`.

    Raises:
        OnnxlintError: `inputs` does not fit, or onnxruntime is not installed.
    """
    tolerance = EXACT if exact else ARITHMETIC
    return _verify((model, reference), (model, result), tolerance, multiples or {}, inputs, seconds)


def load_problem(model: Model, proto: onnx.ModelProto, seconds: float = 300.0) -> str:
    """Why onnxruntime does not load a skeleton, in one line; empty where it does, or where that cannot be found out.

    Args:
        model: Where its weights are.
        proto: The skeleton.
        seconds: Time limit.

    Raises:
        OnnxlintError: onnxruntime is not installed.
    """
    _demand_runtime()
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as scratch:
        path = os.path.join(scratch, "model.onnx")
        try:
            folder = _write((model, proto), path)
        except Unfit:
            return ""
        command = [sys.executable, "-c", _LOAD_CODE, path, folder, json.dumps(sys.path)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return ""
    said = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode or not said:
        return "onnxruntime crashed when it loaded the model"
    return printable(json.loads(said[-1]) or "")


_Side = tuple[Model, "onnx.ModelProto"]


def _verify(
    original: _Side,
    fixed: _Side,
    tolerance: Tolerance,
    multiples: Mapping[str, int],
    inputs: str | None,
    seconds: float,
) -> Verification:
    _demand_runtime()
    view = GraphView(replace(original[0], proto=original[1]))
    half = _half(view)
    if tolerance != EXACT and half is not None:
        tolerance = half
    try:
        contract = common_contract(view, GraphView(replace(fixed[0], proto=fixed[1])), multiples)
    except Unfit as why:
        return Verification(tolerance=tolerance, skipped=str(why))
    if inputs is not None:
        _check_npz(inputs, contract.inputs)
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
        try:
            folders = tuple(
                _write(side, os.path.join(folder, name))
                for side, name in ((original, "original.onnx"), (fixed, "fixed.onnx"))
            )
        except Unfit as why:
            return Verification(tolerance=tolerance, skipped=str(why))
        task = Task(
            original=os.path.join(folder, "original.onnx"),
            fixed=os.path.join(folder, "fixed.onnx"),
            folders=(folders[0], folders[1]),
            contract=contract,
            rtol=tolerance.rtol,
            atol=tolerance.atol,
            half=None if half is None else (half.rtol, half.atol),
            user="" if inputs is None else os.path.abspath(inputs),
            seconds=seconds,
            threads=_usable_cores(),
        )
        return _run(task, os.path.join(folder, "task.json"), tolerance)


def _demand_runtime() -> None:
    from importlib.util import find_spec

    if find_spec("onnxruntime") is None:
        raise OnnxlintError(
            "comparing the models needs onnxruntime: install it with \"pip install 'onnxlint[fix]'\", "
            "or leave the comparison out with --no-verify"
        )


def _check_npz(path: str, inputs: tuple[Input, ...]) -> None:
    import zipfile

    import numpy as np

    shown = printable(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = set(getattr(file, "files", ()))
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz file"
        raise OnnxlintError(f"{shown}: the inputs cannot be read: {reason}; write them with numpy.savez") from None
    missing = [one.name for one in inputs if one.name not in names]
    if missing:
        there = ", ".join(map(printable, sorted(names))) or "nothing"
        raise OnnxlintError(
            f"{shown}: it has no array {printable(missing[0])!r} for that input of the model (it has {there}); "
            "name the arrays as the inputs"
        )


def _half(view: GraphView) -> Tolerance | None:
    """The tolerance of a model that computes in 16 bits; None for others."""
    kinds = {tensor.data_type for tensor in walk_tensors(view.proto)}
    kinds.update(value.type.tensor_type.elem_type for value in view.proto.graph.input)
    kinds.update(node.attribute("to", 0) for node in view.nodes("Cast"))
    return BRAIN if 16 in kinds else HALF if 10 in kinds else None


# Files


_BY_REFERENCE = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16))
"""Element types that onnxruntime reads out of external data as they are."""

_LIMIT = 2**31 - 1


def _write(side: _Side, path: str) -> str:
    """Write a model for the runtime; its weights stay where they are.

    Returns:
        The folder that the locations of external data are relative to; empty where there are none.

    Raises:
        Unfit: Its weights cannot be reached.
    """
    import onnx

    model, original = side
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    home = os.path.realpath(model.path) if model.path != "-" and os.path.isfile(model.path) else ""
    outside: list[tuple[onnx.TensorProto, str, int, int]] = []
    referable = {id(tensor) for tensor in proto.graph.initializer}
    kept = list(proto.graph.initializer)  # so that the ids stay theirs
    for tensor in walk_tensors(proto):
        span = inline_span(tensor)
        if span is not None:
            if home and span.field == "raw_data" and tensor.data_type in _BY_REFERENCE and id(tensor) in referable:
                outside.append((tensor, home, span.offset, span.length))
                continue
            if model.buffer is None:
                raise Unfit("its weights are out of reach: the file is closed")
            data = model.buffer[span.offset : span.offset + span.length]
            header = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
            field = key_bytes(DATA_NUMBERS[span.field], len(data)) + data
            tensor.CopyFrom(onnx.TensorProto.FromString(header.SerializeToString() + field))
        elif is_external(tensor):
            found = locate_external(model, tensor)
            if found.problem:
                raise Unfit(f"tensor {printable(tensor.name)!r}: {found.problem}")
            outside.append((tensor, os.path.realpath(found.path), found.offset, found.length))
    del kept
    folder = os.path.commonpath([os.path.dirname(place) for _, place, _, _ in outside]) if outside else ""
    for tensor, place, offset, length in outside:
        del tensor.external_data[:]
        for key, value in (("location", os.path.relpath(place, folder)), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    if proto.ByteSize() > _LIMIT:
        raise Unfit("it is larger than protobuf's 2 GiB")
    Path(path).write_bytes(proto.SerializeToString())
    return folder


# The other process


_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from onnxlint.verification.worker import main; main(sys.argv[1])"
)
_LOAD_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); "
    "from onnxlint.verification.worker import say_problem; say_problem(*sys.argv[1:3])"
)
GRACE = 20.0
"""Seconds beyond the limit before the other process is ended."""

MAX_CRASHES = 5


def _run(task: Task, path: str, tolerance: Tolerance) -> Verification:
    """Let another process do a task, again without what crashed it."""
    engine: Literal["onnxruntime", "onnx.reference"] = "onnxruntime"
    why = ""
    for _ in range(MAX_CRASHES):
        messages, death = _messages(replace(task, engine=engine), path)
        trials = tuple(Trial(**message["trial"]) for message in messages if isinstance(message.get("trial"), dict))
        user = next((message["user"] for message in messages if "user" in message), "")
        if user:
            raise OnnxlintError(f"{printable(task.user)}: {printable(user)}")
        skipped = next((message for message in messages if "skipped" in message), None)
        if skipped is not None:
            if engine == "onnxruntime" and skipped.get("engine") is False:
                engine, why = "onnx.reference", skipped["skipped"]
                continue
            return Verification(trials, "", tolerance, f"{why}; {skipped['skipped']}" if why else skipped["skipped"])
        if not death:
            return Verification(trials, engine, tolerance)
        last = next((message for message in reversed(messages) if "begin" in message), None)
        ran = any(trial.outcome != "original failed" for trial in trials)
        if last is None or death == _TOO_SLOW:
            if death == _TOO_SLOW and ran:
                return Verification(trials, engine, tolerance)
            return Verification(trials, "", tolerance, f"{engine} {death}")
        if last["begin"] == "fixed":
            dims, kind = last.get("dims", ""), last.get("kind", "normal")
            trial = Trial(dims, kind, "different", math.inf, "", f"{engine} {death} where the original ran")
            return Verification((*trials, trial), engine, tolerance)
        if last["trial"] < 0:
            if engine != "onnxruntime":
                return Verification(trials, "", tolerance, f"{engine} {death} when it loaded the original")
            engine, why = "onnx.reference", f"onnxruntime {death} when it loaded the original"
            continue
        task = replace(task, skip=(*task.skip, last["trial"]))
    return Verification((), "", tolerance, f"{engine} crashed again and again")


_TOO_SLOW = "took too long"


def _messages(task: Task, path: str) -> tuple[list[dict[str, Any]], str]:
    """What the other process says, and how it died (empty where it did not)."""
    Path(path).write_text(json.dumps(asdict(task)), encoding="utf-8")
    command = [sys.executable, "-c", _CODE, path, json.dumps(sys.path)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        death = ""
        try:
            output, _ = process.communicate(timeout=task.seconds + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            death = _TOO_SLOW
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode and not death:
            death = "crashed"
            errors.seek(0)
            text = errors.read().decode("utf-8", "replace").strip()
            if process.returncode > 0 and text:
                death += f" ({printable(text.splitlines()[-1])[:200]})"
    messages = []
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library that prints, or a line that was cut by the end of the process
        if isinstance(message, dict):
            messages.append(message)
    return messages, death


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
