"""The program: it runs a command, and reports its errors.

Exit codes: 0 nothing that fails, 1 findings, 2 an error (a wrong command line included), 130 interrupted.

Nothing heavy is imported here: an interrupt during start-up meets `main`, and ends without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

INTERRUPTED = 130
TERMINATED = 143


def run(words: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    Args:
        words: Arguments after the program's name.
    """
    from onnxlint.cli import console
    from onnxlint.cli.commands import COMMANDS, ERROR
    from onnxlint.cli.errors import UsageError
    from onnxlint.errors import OnnxlintError
    from onnxlint.model.scratch import was_terminated
    from onnxlint.text import printable

    try:
        from onnxlint.cli.parsing import run_command

        return run_command(COMMANDS, list(words))
    except (OnnxlintError, UsageError) as error:
        console.errors([printable(str(error))])
    except KeyboardInterrupt:
        return _interrupted()
    except MemoryError:
        console.errors(["out of memory; check fewer models at once (-j 1)"])
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        console.errors([printable(str(stop.code))])
    except Exception as error:  # noqa: BLE001 - Python's own exit code would be 1, which means findings
        if not was_terminated():
            import traceback

            traceback.print_exc()
            said = f"{type(error).__name__}: this is a bug in onnxlint, please report it with the lines above"
            console.errors([said])
    return TERMINATED if was_terminated() else ERROR


def _interrupted() -> int:
    import signal

    # Another ctrl-c while this is written would end in a traceback.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if sys.stderr is not None:
        sys.stderr.write("error: interrupted\n")
    return INTERRUPTED


def main() -> NoReturn:
    """The program: run the command line of this process and end it."""
    import os

    try:
        code = _run_all()
    except KeyboardInterrupt:
        code = _interrupted()
    # Freeing every object one by one takes another 15 %. Nothing is open any more but the streams.
    os._exit(code)


def _run_all() -> int:
    import gc

    # Nearly all that imports and models allocate lives until the end: looking for garbage in it takes 5 % of the time.
    gc.set_threshold(100_000, 10, 10)
    from onnxlint.cli import console
    from onnxlint.model.scratch import ending_by_exception

    console.use_safe_streams()
    with ending_by_exception():
        code = run(sys.argv[1:])
    console.flush()
    return code
