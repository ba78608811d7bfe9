"""What the command line writes: reports on stdout or to a file, everything about the work itself on stderr."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from onnxlint.errors import OnnxlintError
from onnxlint.text import bounded

PATIENCE = 1.0
"""Seconds of work after which progress is shown."""


def use_safe_streams() -> None:
    """Let stdout and stderr escape what their encoding lacks, in place of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


_results: TextIO | None = None
"""Where results go while libraries print to stdout, too."""


@contextmanager
def own_stdout() -> Iterator[None]:
    """Keep stdout for results: what a library prints there meanwhile goes to stderr."""
    global _results
    _results = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None


def write(text: str) -> None:
    """Write to stdout. A reader that went away (`| head`) is not an error.

    Raises:
        OnnxlintError: It cannot be written, as on a full disk.
    """
    stream = _results or sys.stdout
    if stream is None:  # closed by whoever started us
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except OSError as error:
        raise OnnxlintError(f"standard output cannot be written: {error.strerror or error}") from None


def flush() -> None:
    """Flush the output before the process ends."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            if stream is not None:
                stream.flush()


def errors(messages: Iterable[str]) -> None:
    """Say on stderr why something could not be done."""
    for message in messages:
        _say(f"error: {bounded(message)}")


def notes(messages: Iterable[str]) -> None:
    """Say on stderr what the user should know beside the findings."""
    for message in messages:
        _say(f"note: {bounded(message)}")


def _say(line: str) -> None:
    # One write for the line and its end: two processes that share a terminal do not mix them.
    with suppress(OSError):  # there is nobody left to tell
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def has_color(no_color: bool = False) -> bool:
    """Whether stdout takes colors: a terminal, and neither NO_COLOR nor the user objects."""
    if no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _is_terminal(_results or sys.stdout)


def width() -> int | None:
    """Columns of the terminal on stdout; None for files and pipes, which are not wrapped."""
    if not _is_terminal(_results or sys.stdout):
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr once the work takes longer than `PATIENCE`; nothing if stderr is not a terminal.

    Yields:
        A function that takes (done, in all).
    """
    if quiet or not _is_terminal(sys.stderr):
        yield lambda done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status(what)
    started = time.monotonic()
    # A single model can take long too, and reports nothing meanwhile: a timer starts the display.
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()

    def update(done: int, total: int) -> None:
        if total > 1 and time.monotonic() - started > PATIENCE:
            status.update(f"{what} ({done} of {total})")

    try:
        yield update
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def status(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done, once it takes longer than `PATIENCE`; nothing if stderr is not a terminal.

    Yields:
        A function that takes the next thing to say.
    """
    if quiet or not _is_terminal(sys.stderr):
        yield lambda text: None
        return
    from rich.console import Console

    shown = Console(stderr=True).status("")
    timer = threading.Timer(PATIENCE, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield shown.update
    finally:
        timer.cancel()
        shown.stop()


@contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show on stderr what is being done, its progress and the time left; nothing if stderr is no
    terminal.

    Yields:
        A function that takes what is being done, how many steps of it are done, and of how many (None: unknown).
    """
    if quiet or not _is_terminal(sys.stderr):
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("")
        current = ""

        def update(what: str, done: int, total: int | None) -> None:
            nonlocal current
            if what != current:
                current = what
                shown.reset(task, description=what, total=total)
            shown.update(task, completed=done, total=total)

        yield update
