"""A comparison in a process of its own: a runtime that crashes on a model ends that process, and not the user's.

The parent sends one request and reads messages until the report comes. Messages are pickles, each with its length before
it, between these two processes only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from onnxlint.accuracy.in_process import compare_here
from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Progress, bytes_of
from onnxlint.conversion.worker import ended, receive, send, unexpected
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions
from onnxlint.lint.engines import make_cluster
from onnxlint.model.limits import Budget, die_with_parent, limit_memory, out_of_memory, set_budget
from onnxlint.text import printable

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from onnxlint.accuracy.worker import main; main()"


@dataclass(frozen=True)
class _Request:
    reference: str
    candidates: tuple[str, ...]
    inputs: ImageOptions
    options: CompareOptions
    bytes: int


@dataclass(frozen=True)
class _Progress:
    """Progress: what is being done, how many steps are done, of how many."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True)
class _Begun:
    """What is done next with a model: `loading`, `running`."""

    path: str
    backend: str
    what: str


@dataclass(frozen=True)
class _Failed:
    """The comparison cannot be made."""

    message: str


def in_child(
    reference: str, candidates: Sequence[str], inputs: ImageOptions, options: CompareOptions, progress: Progress
) -> AccuracyReport:
    """A comparison in a process of its own; see `onnxlint.accuracy.compare.compare`.

    Raises:
        OnnxlintError: It cannot be made, or a runtime crashed.
    """
    # -I: neither the working directory nor PYTHON… variables decide what is imported, but our own path alone.
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(os.getpid())]
    size = sum(bytes_of(path) for path in (reference, *candidates))
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        assert process.stdout is not None
        begun: _Begun | None = None
        try:
            send(process.stdin, _Request(reference, tuple(candidates), inputs, options, size))
            while True:
                message = receive(process.stdout)
                if isinstance(message, _Progress):
                    progress(message.what, message.done, message.total)
                elif isinstance(message, _Begun):
                    begun = message
                else:
                    break
        except (EOFError, BrokenPipeError):
            raise OnnxlintError(_last_words(process.wait(), errors, begun, size)) from None
        finally:
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()
    if isinstance(message, _Failed):
        raise OnnxlintError(message.message)
    assert isinstance(message, AccuracyReport)
    return message


def _last_words(code: int, errors: IO[bytes], begun: _Begun | None, size: int) -> str:
    """How the process ended, doing what, and the last line that it wrote."""
    how, said = ended(code, errors)
    if begun is None:
        return f"the process that compares the models ended ({how}){said}"
    what = Budget.of(size).overrun(code) or f"{begun.backend} crashed ({how}) while {begun.what} it{said}"
    return f"{printable(begun.path)}: {what}; compare the others without it"


def main() -> None:
    """Answer one request."""
    die_with_parent(int(sys.argv[2]))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native libraries print must not come between the messages
    request = receive(requests)
    begun: list[_Begun] = []

    def begin(path: str, backend: str, what: str) -> None:
        begun.append(_Begun(path, backend, what))
        send(answers, begun[-1])

    try:
        cluster = make_cluster(request.options.engine)  # before the limits: Ray maps memory that it shares
        limit_memory()
        set_budget(request.bytes)
        report = compare_here(
            request.reference,
            request.candidates,
            request.inputs,
            request.options,
            lambda *told: send(answers, _Progress(*told)),
            begin,
            cluster,
        )
    except OnnxlintError as error:
        send(answers, _Failed(str(error)))
    except MemoryError:
        send(answers, _Failed(f"{printable(request.reference)}: {out_of_memory()}; compare fewer or smaller inputs"))
    except Exception as error:  # noqa: BLE001 - a backend of somebody else raises anything
        path, what = (begun[-1].path, f"{begun[-1].what} it") if begun else (request.reference, "comparing")
        send(answers, _Failed(f"{printable(path)}: {what} fails: {unexpected(error)}"))
    else:
        send(answers, report)
    os._exit(0)  # what libraries do when they are unloaded is nobody's business here
