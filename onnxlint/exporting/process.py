"""Starts the process that exports, and reads what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import EXPORTERS, Exporter, ExportOptions
from onnxlint.exporting.spec import Spec
from onnxlint.exporting.worker import Attempt, Made, made_from, write_task
from onnxlint.text import printable

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); "
    "from onnxlint.exporting.worker import main; main(sys.argv[1], sys.argv[2])"
)
_KEPT = 1 << 20
"""Bytes of what the process printed that are looked at."""


@dataclass(frozen=True)
class _Crash:
    """How the process ended without an answer, and which exporter was at work."""

    how: str
    exporter: str


def export_in_process(
    spec: Spec, options: ExportOptions, folder: str, progress: Callable[[str], None], verbose: bool = False
) -> Made:
    """Export in a fresh process; if an exporter crashes it, again with the other one.

    Args:
        spec: What to build.
        options: How.
        folder: Where the files go.
        progress: Called with what is being done.
        verbose: Whether what the user's code and torch print is shown on standard error.

    Raises:
        OnnxlintError: The network, its weights or its inputs are wrong, or the process crashed on its own.
    """
    answer = _run(spec, options, folder, progress, verbose)
    if isinstance(answer, Made):
        return answer
    others: tuple[Exporter, ...] = tuple(
        one for one in EXPORTERS if one in options.exporters and one != answer.exporter
    )
    if answer.exporter not in EXPORTERS or not others:
        what = f"exporting with {answer.exporter}" if answer.exporter else "building the network"
        raise OnnxlintError(f"{printable(spec.text)}: the process crashed while {what} ({answer.how})")
    again = _run(spec, replace(options, exporter=others[0]), folder, progress, verbose)
    if isinstance(again, _Crash):
        raise OnnxlintError(f"{printable(spec.text)}: the process crashed with both exporters ({again.how})")
    crashed: Any = answer.exporter
    attempts = (*again.attempts, Attempt(crashed, refused=f"it crashed ({answer.how})"))
    return replace(again, attempts=tuple(sorted(attempts, key=lambda one: EXPORTERS.index(one.exporter))))


def _run(
    spec: Spec, options: ExportOptions, folder: str, progress: Callable[[str], None], verbose: bool
) -> Made | _Crash:
    task = os.path.join(folder, "task.json")
    write_task(task, spec, options, folder)
    here = os.getcwd()
    path = [here, *(one for one in sys.path if one not in ("", here))]
    command = [sys.executable, "-c", _START, task, str(os.getpid()), json.dumps(path)]
    exporter = ""
    with tempfile.TemporaryFile(dir=folder) as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if verbose else errors
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue  # cut by the end of the process
                if "made" in message:
                    return made_from(message["made"])
                if "error" in message:
                    raise OnnxlintError(message["error"])
                exporter = message.get("exporter", exporter)
                progress(message.get("doing", ""))
        finally:
            process.stdout.close()
            process.kill()
            code = process.wait()
        errors.seek(0)
        said = errors.read(_KEPT).decode("utf-8", "replace")
    return _Crash(_how(code, said), exporter)


def _how(code: int, said: str) -> str:
    how = f"exit code {code}"
    if code < 0:
        how = next((one.name for one in signal.Signals if one.value == -code), f"signal {-code}")
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return f"{how}; the last line that it printed: {printable(last)[:200]}" if last else how
