"""One function call in a process of its own: what it runs may crash, hang or take all memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from onnxlint.backends import Progress, bytes_of, silent
from onnxlint.conversion.worker import Told, ended, receive, send, unexpected
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget, die_with_parent, limit_memory, out_of_memory, set_budget
from onnxlint.text import printable

P = ParamSpec("P")
R = TypeVar("R")

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from onnxlint.conversion.child import main; main()"


def call_in_child(path: str, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """The result of a function that runs a model, called in a process with limits on memory and time.

    Args:
        path: The model, for limits and messages.
        function: A function of a module; like its arguments and its result it has to be picklable.
        arguments, options: What it is called with.

    Raises:
        OnnxlintError: The function raised it, or the process ended without an answer.
    """
    result: R = _called(path, bytes_of(path), silent, (False, function, arguments, options))
    return result


def call_with_progress(
    path: str,
    size: int,
    progress: Progress,
    function: Callable[Concatenate[Progress, P], R],
    *arguments: P.args,
    **options: P.kwargs,
) -> R:
    """As `call_in_child`, for a function whose first argument is told about progress.

    Args:
        path: The model, for messages.
        size: Bytes of its files, for limits.
        progress: Called here with what the function tells.
        function, arguments, options: As there.

    Raises:
        OnnxlintError: The function raised it, or the process ended without an answer.
    """
    result: R = _called(path, size, progress, (True, function, arguments, options))
    return result


def _called(path: str, size: int, progress: Progress, call: tuple[Any, ...]) -> Any:
    # -I: neither the working directory nor PYTHON… variables decide what is imported, but our own path alone.
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(os.getpid())]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send(process.stdin, (path, size, *call))
            while isinstance(message := receive(process.stdout), Told):
                progress(message.what, message.done, message.total)
        except (EOFError, BrokenPipeError):
            code = process.wait()
            how, said = ended(code, errors)
            why = Budget.of(size).overrun(code) or f"the runtime crashed on it ({how}){said}"
            raise OnnxlintError(f"{printable(path)}: {why}") from None
        finally:
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()
    is_result, answer = message
    if is_result:
        return answer
    raise OnnxlintError(answer)


def main() -> None:
    """Make one call."""
    die_with_parent(int(sys.argv[2]))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native libraries print must not come between the messages
    path, size, tells, function, arguments, options = receive(requests)
    limit_memory()
    set_budget(size)
    if tells:
        arguments = (lambda *told: send(answers, Told(*told)), *arguments)
    try:
        send(answers, (True, function(*arguments, **options)))
    except OnnxlintError as error:
        send(answers, (False, str(error)))
    except MemoryError:
        send(answers, (False, f"{printable(path)}: {out_of_memory()}; use smaller inputs"))
    except Exception as error:  # noqa: BLE001 - the parent has one line for it
        send(answers, (False, f"{printable(path)}: {unexpected(error)}"))
    os._exit(0)  # what libraries do when they are unloaded is nobody's business here
