"""Targets are made in a process of their own: a runtime or a quantizer that crashes takes one target along, not the others.

The parent sends a request for each target and reads messages until its answer comes; the child is started with the first
request and again after a crash. Messages are pickles, each with its length before it, between these two processes only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, Any

from onnxlint.backends import Artifact, Job, NotConvertible, Progress, Target, backends, bytes_of
from onnxlint.conversion.goal import Held, measured
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget, die_with_parent, limit_memory, out_of_memory, set_budget
from onnxlint.text import printable

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from onnxlint.conversion.worker import main; main()"
_LENGTH = struct.Struct("<Q")
_REMOVALS = 20


class Crashed(OnnxlintError):  # noqa: N818 - what happened to the child
    """The process that made a target ended without an answer, or took too long."""


@dataclass(frozen=True)
class Request:
    """The job: see `Backend.make`. With `held`, the result is measured on images, and its details have `held_out`."""

    backend: str
    target: Target
    source: str
    files: tuple[str, ...]
    job: Job
    held: Held | None = None


@dataclass(frozen=True)
class Told:
    """Progress: what is being done, how many steps are done, of how many."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True)
class _Failed:
    """The target cannot be made."""

    message: str
    convertible: bool = True
    lint_target: str = ""


class Worker:
    """The process that makes targets; a context manager that ends it, and removes what it left in temporary folders."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._folder = ""

    def __enter__(self) -> Worker:
        self._folder = tempfile.mkdtemp(prefix="onnxlint-")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._process is not None:
            self._process.kill()  # nobody waits for what it is doing
        self._end()
        for _attempt in range(_REMOVALS):  # what has just been killed may still have been writing
            shutil.rmtree(self._folder, ignore_errors=True)
            if not os.path.exists(self._folder):
                break
            time.sleep(0.05)

    def make(self, request: Request, progress: Progress) -> Artifact:
        """Make one target.

        Raises:
            NotConvertible: See `Backend.make`.
            OnnxlintError: See `Backend.make`.
            Crashed: The process ended without an answer.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send(process.stdin, request)
            while True:
                message = receive(process.stdout)
                if not isinstance(message, Told):
                    break
                progress(message.what, message.done, message.total)
        except (EOFError, BrokenPipeError):
            raise Crashed(self._last_words(request)) from None
        if isinstance(message, Artifact):
            return message
        assert isinstance(message, _Failed)
        if not message.convertible:
            raise NotConvertible(message.message, message.lint_target)
        raise OnnxlintError(message.message)

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the process
        # -I: neither the working directory nor PYTHON… variables decide what is imported, but our own path alone.
        command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TMPDIR": self._folder},
            start_new_session=True,  # so that what it started can be ended with it
        )
        return self._process

    def _end(self) -> int:
        """End the process; its exit code, negative for the signal that killed it."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                stream.close()
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # in the middle of something that nobody waits for any more
            process.kill()
            code = process.wait()
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # there is none left
                os.killpg(process.pid, signal.SIGKILL)
        if self._errors is not None:
            self._errors.close()
        return code

    def _last_words(self, request: Request) -> str:
        """How the process ended, and the last line that it wrote."""
        assert self._errors is not None
        errors = os.dup(self._errors.fileno())
        code = self._end()
        with os.fdopen(errors, "rb") as file:
            how, said = ended(code, file)
        overrun = Budget.of(bytes_of(request.source)).overrun(code)
        what = f"was stopped, as {overrun}," if overrun else f"crashed ({how})"
        said = "" if overrun else said
        return f"{printable(request.source)}: {request.backend} {what} while making {request.target.name}{said}"


def ended(code: int, errors: IO[bytes]) -> tuple[str, str]:
    """How a process ended, as `SIGSEGV` or `exit code 1`, and the last line that it wrote, as the end of a message.

    Args:
        code: Its exit code; negative for the signal that killed it.
        errors: What it wrote.
    """
    how = f"exit code {code}"
    if code < 0:
        known = {one.value: one.name for one in signal.Signals}
        how = known.get(-code, f"signal {-code}")
    errors.seek(0)
    lines = errors.read(1 << 20).decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return how, f"; the last line that it wrote: {printable(last)[:200]}" if last else ""


def unexpected(error: Exception) -> str:
    """An exception that no part of onnxlint foresaw, as the end of one line: what it is, and where it was raised."""
    text = printable(" ".join(str(error).split()))[:200]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{said} ({os.path.basename(where.filename)}, line {where.lineno}); this is a bug, please report it"


def main() -> None:
    """Answer requests until there are no more."""
    die_with_parent(int(sys.argv[2]))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native libraries print must not come between the messages
    limit_memory()
    while True:
        try:
            request = receive(requests)
        except EOFError:
            break
        send(answers, _answer(request, lambda *told: send(answers, Told(*told))))
    answers.flush()
    os._exit(0)  # what libraries do when they are unloaded is nobody's business here


def _answer(request: Request, progress: Callable[[str, int, int | None], None]) -> Artifact | _Failed:
    try:
        set_budget(bytes_of(request.source))
        backend = next(one for one in backends() if one.name == request.backend)
        made = backend.make(request.target, request.source, request.files, request.job, progress)
        if request.held is None:
            return made
        progress("measuring on the images that are held out", 0, None)
        values = measured(backend, made, request.held, request.job)
        return replace(made, details={**made.details, "held_out": values})
    except NotConvertible as error:
        return _Failed(str(error), False, error.lint_target)
    except OnnxlintError as error:
        return _Failed(str(error))
    except MemoryError:
        return _Failed(
            f"{printable(request.source)}: {out_of_memory()} while making {request.target.name}; use smaller inputs"
        )
    except OSError as error:
        return _Failed(
            f"{printable(os.path.dirname(request.files[0]))}: cannot be written to: {error.strerror or error}"
        )
    except Exception as error:  # noqa: BLE001 - a backend of somebody else raises anything, and the other targets go on
        return _Failed(
            f"{printable(request.source)}: {request.backend} fails while making {request.target.name}: {unexpected(error)}"
        )


def send(stream: IO[bytes], message: object) -> None:
    """Write a message, with its length before it."""
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError at the end."""
    length = _exactly(stream, _LENGTH.size)
    return pickle.loads(_exactly(stream, _LENGTH.unpack(length)[0]))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
