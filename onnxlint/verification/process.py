"""The child process that runs the models: their files, its task, its messages, and how it ended."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget
from onnxlint.model.skeleton import Model, inline_span, is_external, locate_external, walk_tensors
from onnxlint.model.wire import DATA_NUMBERS, key_bytes
from onnxlint.text import printable
from onnxlint.verification.interface import Incomparable
from onnxlint.verification.results import Tolerance, Trial, Verification
from onnxlint.verification.trials import Task

if TYPE_CHECKING:
    import onnx

_BY_REFERENCE = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16))
"""Element types that onnxruntime reads out of external data as they are."""

_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Written:
    """A model as it was written: the folder that the locations of its external data are relative to (empty if there is
    none), and the bytes of file and data together."""

    folder: str
    bytes: int


def write_model(model: Model, skeleton: onnx.ModelProto, path: str) -> Written:
    """Write a model for the runtime; its weights stay where they are.

    Raises:
        Incomparable: Its weights cannot be reached.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(skeleton)
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
                raise Incomparable("its weights are out of reach: the file is closed")
            data = model.buffer[span.offset : span.offset + span.length]
            header = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
            field = key_bytes(DATA_NUMBERS[span.field], len(data)) + data
            tensor.CopyFrom(onnx.TensorProto.FromString(header.SerializeToString() + field))
        elif is_external(tensor):
            found = locate_external(model, tensor)
            if found.problem:
                raise Incomparable(f"tensor {printable(tensor.name)!r}: {found.problem}")
            outside.append((tensor, os.path.realpath(found.path), found.offset, found.length))
    del kept
    folder = os.path.commonpath([os.path.dirname(place) for _, place, _, _ in outside]) if outside else ""
    for tensor, place, offset, length in outside:
        del tensor.external_data[:]
        for key, value in (("location", os.path.relpath(place, folder)), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    if proto.ByteSize() > _LIMIT:
        raise Incomparable("it is larger than protobuf's 2 GiB")
    data = proto.SerializeToString()
    Path(path).write_bytes(data)
    return Written(folder, len(data) + sum(length for _, _, _, length in outside))


_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from onnxlint.verification.worker import main; main(int(sys.argv[2]))"
)
_LOAD_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[5]); "
    "from onnxlint.verification.engines import print_load_problem; print_load_problem(*sys.argv[1:5])"
)
_FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy's threads, one for each core, keep their cores busy for a while when it is imported, and nothing here uses them."""

LOADING = 60.0
"""Seconds that loading the original may take; two gigabytes of weights take a fifth of that."""

GRACE = 20.0
"""Seconds beyond the limit before the other process is ended."""

REFERENCE = 60.0
"""Seconds that onnx's reference evaluator may take for a model of a few bytes."""

MAX_CRASHES = 5


def load_failure(path: str, written: Written, seconds: float) -> str:
    """Why onnxruntime does not load a file, in one line; empty if it does, or where it takes longer than it may."""
    words = [path, written.folder, str(written.bytes), str(os.getpid())]
    command = [sys.executable, "-c", _LOAD_CODE, *words, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=_FEW_THREADS | os.environ,
        )
    except subprocess.TimeoutExpired:
        return ""
    if Budget.of(written.bytes).overrun(done.returncode):
        return ""
    said = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode or not said:
        return "onnxruntime crashed when it loaded the model"
    return printable(json.loads(said[-1]) or "")


def run_worker(task: Task, path: str, tolerance: Tolerance) -> Verification:
    """Let another process do a task, again without the trials that crashed it.

    Raises:
        OnnxlintError: The original does not run on the user's inputs.
    """
    engine: Literal["onnxruntime", "onnx.reference"] = "onnxruntime"
    why = ""
    for _ in range(MAX_CRASHES):
        messages, death = _messages(replace(task, engine=engine), path)
        trials = tuple(_trial(message["trial"]) for message in messages if isinstance(message.get("trial"), dict))
        user = next((message["user"] for message in messages if "user" in message), "")
        if user:
            raise OnnxlintError(f"{printable(task.user)}: {printable(user)}")
        skipped = next((message for message in messages if "skipped" in message), None)
        if skipped is not None:
            if engine == "onnxruntime" and skipped.get("engine") is False:
                engine, why = "onnx.reference", skipped["skipped"]
                task = replace(task, seconds=min(task.seconds, REFERENCE + 1e-5 * task.weights))
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
        if last["begin"] == "loose":  # the original, at a size that it is not made for
            return Verification(trials, engine, tolerance)
        if last["begin"] in ("fixed", "alone"):
            dims, kind = last.get("dims", ""), last.get("kind", "normal")
            where = "where the original ran" if last["begin"] == "fixed" else "at a size that was set free"
            trial = Trial(dims, kind, "different", math.inf, "", f"{engine} {death} {where}")
            return Verification((*trials, trial), engine, tolerance)
        if last["trial"] < 0:
            if engine != "onnxruntime":
                return Verification(trials, "", tolerance, f"{engine} {death} when it loaded the original")
            engine, why = "onnx.reference", f"onnxruntime {death} when it loaded the original"
            continue
        task = replace(task, skip=(*task.skip, last["trial"]))
    return Verification((), "", tolerance, f"{engine} crashed again and again")


def _trial(fields: Mapping[str, Any]) -> Trial:
    return Trial(**{**fields, "sizes": tuple((symbol, size) for symbol, size in fields["sizes"])})


_TOO_SLOW = "took too long"


class _Worker:
    """The other process. It imports what it needs, and waits for the path of a task."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        command = [sys.executable, "-c", _CODE, json.dumps(sys.path), str(self.parent)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=_FEW_THREADS | os.environ,
        )

    def begin(self, path: str) -> _Reader:
        """Hand over a task."""
        assert self.process.stdin is not None
        reader = _Reader(self.process)
        with suppress(BrokenPipeError), self.process.stdin as words:  # it has ended: its exit code says how
            words.write(path.encode("utf-8", "surrogateescape"))
        return reader

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()


class _Ahead(threading.local):
    """The process that this thread started before it had a task: a process ends with the thread that started it."""

    worker: _Worker | None = None


_ahead = _Ahead()


@contextmanager
def worker_ahead() -> Iterator[Callable[[], None]]:
    """Gives a function that starts the other process before its task is known, once: it imports NumPy and the runtime
    meanwhile. A process that got no task by the end is ended.
    """
    started: list[_Worker] = []

    def start() -> None:
        if not started:
            _ahead.worker = _Worker()
            started.append(_ahead.worker)

    try:
        yield start
    finally:
        if _ahead.worker is not None and _ahead.worker in started:
            _ahead.worker.end()
            _ahead.worker = None


def _worker() -> _Worker:
    found, _ahead.worker = _ahead.worker, None
    if found is not None and found.parent == os.getpid():  # in a fork it is the parent's
        if found.process.poll() is None:
            return found
        found.end()
    return _Worker()


class _Reader(threading.Thread):
    """Reads the output of the other process as it arrives."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._says_something = threading.Event()
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        """Read until the process closes its output; a trial that it begins means that the original was loaded."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.decode("utf-8", "replace"))
            if len(self.lines) > 1:
                self._says_something.set()
        self._says_something.set()
        self._process.stdout.close()

    def ends_in_time(self, seconds: float) -> bool:
        """Wait for the end of the process; False after the deadline, or if the original is not loaded in time."""
        started = time.monotonic()
        if not self._says_something.wait(min(seconds, LOADING) + GRACE):
            return False
        deadline = started + seconds + GRACE
        self.join(max(0.0, deadline - time.monotonic()))  # `Popen.wait` with a time looks only every 50 ms
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


def _messages(task: Task, path: str) -> tuple[list[dict[str, Any]], str]:
    """The output of the other process, and how it died (empty if it did not)."""
    Path(path).write_text(json.dumps(asdict(task)), encoding="utf-8")
    worker = _worker()
    process, death = worker.process, ""
    try:
        reader = worker.begin(path)
        try:
            if not reader.ends_in_time(task.seconds):
                death = _TOO_SLOW
        finally:
            process.kill()
            reader.join()
            process.wait()
        if not death and Budget.of(task.weights).overrun(process.returncode):
            death = _TOO_SLOW
        if process.returncode and not death:
            death = "crashed"
            worker.errors.seek(0)
            text = worker.errors.read().decode("utf-8", "replace").strip()
            if process.returncode > 0 and text:
                death += f" ({printable(text.splitlines()[-1])[:200]})"
    finally:
        worker.end()
    messages = []
    for line in reader.lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library that prints, or a line that was cut by the end of the process
        if isinstance(message, dict):
            messages.append(message)
    return messages, death
