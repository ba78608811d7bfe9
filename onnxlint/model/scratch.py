"""Temporary files and folders beside results: removed when the work ends, or by the next run if it was killed.

They lie in the folder of the result, so that a finished file is moved in place in one step. Their names say which process
made them: files of a dead process are no longer needed.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PREFIX = ".onnxlint-"
"""What the names of all temporary files and folders begin with."""

_LEFT = re.compile(r"\.onnxlint-([0-9a-f]{8})-([0-9]{1,10})-[A-Za-z0-9_]+(\.data)?")


def prefix() -> str:
    """What the names of this process's temporary files begin with."""
    return f"{PREFIX}{_host()}-{os.getpid()}-"


@cache
def _host() -> str:
    """This machine, in eight letters: process numbers of another one, on a shared disk, mean nothing here."""
    import platform
    import zlib

    return f"{zlib.crc32(platform.node().encode()):08x}"


@contextmanager
def work_folder(folder: str) -> Iterator[str]:
    """A temporary folder in `folder`, which goes whatever happens, SIGTERM included.

    Raises:
        OnnxlintError: It cannot be made.
    """
    import secrets
    import shutil

    clear_left(folder)
    made = os.path.join(folder, f"{prefix()}{secrets.token_hex(8)}")
    try:
        try:
            os.mkdir(made, 0o700)
        except OSError as error:
            raise OnnxlintError(
                f"{printable(folder)}: cannot be written to: {error.strerror or error}; choose another folder"
            ) from None
        with ending_by_exception():
            yield made
    finally:
        with undisturbed():
            shutil.rmtree(made, ignore_errors=True)


def clear_left(folder: str, is_needed: Callable[[str], bool] = lambda path: True) -> None:
    """Remove what processes that were killed left in a folder.

    Args:
        folder: Where results are going to be written.
        is_needed: Whether a model refers to a file of weights: a process that is killed between two moves leaves a model
            with such a file.
    """
    import shutil

    try:
        names = [name for name in os.listdir(folder or ".") if name.startswith(PREFIX)]
    except OSError:
        return  # whoever writes there says why it cannot
    for name in names:
        match = _LEFT.fullmatch(name)
        if match is None or match[1] != _host() or _is_alive(int(match[2])):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError):  # another process clears the same
            status = os.lstat(path)
            if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            elif not match[3] or not is_needed(path):
                os.unlink(path)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user
    return True


_signals: list[int] = []


def was_terminated() -> bool:
    """Whether SIGTERM has come: Python wraps what is raised in some places (`__set_name__`) into another exception."""
    return bool(_signals)


class Terminated(SystemExit):
    """SIGTERM: the process ends, through all `finally` clauses."""


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Let SIGTERM end the process through all `finally` clauses, with the exit code that a shell expects; no exception of
    SIGTERM or SIGINT is raised within an import, as the initialization of native modules aborts on one.

    Where somebody handles a signal already, or outside the main thread, nothing changes.
    """

    def stop(number: int, _frame: object) -> NoReturn:
        _signals.append(number)
        raise Terminated(128 + number)

    handlers: dict[int, tuple[Any, Callable[[int, FrameType | None], object]]] = {
        signal.SIGTERM: (signal.SIG_DFL, stop),
        signal.SIGINT: (signal.default_int_handler, signal.default_int_handler),
    }
    in_main = threading.current_thread() is threading.main_thread()
    ours = {number: pair for number, pair in handlers.items() if in_main and signal.getsignal(number) is pair[0]}
    for number, (_, handler) in ours.items():
        signal.signal(number, _when_it_may(handler))
    hook = sys.unraisablehook
    if ours:
        sys.unraisablehook = _raised_in_vain(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, (before, _) in ours.items():
            signal.signal(number, before)


_undisturbed: list[bool] = []


@contextmanager
def undisturbed() -> Iterator[None]:
    """A short piece of work that no exception of SIGTERM or SIGINT interrupts: it comes afterwards."""
    _undisturbed.append(True)
    try:
        yield
    finally:
        _undisturbed.pop()


def _when_it_may(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
    """The handler of a signal; within an import and where it must not disturb, the signal is sent again later.

    In a fork of this process that has not set its own handlers yet, SIGTERM ends it at once, and SIGINT is the parent's to
    answer: an exception there would be printed as a worker's failure.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        since = _waiting.setdefault(number, time.monotonic())
        may_wait = hasattr(signal, "setitimer") and time.monotonic() - since < _PATIENCE
        if may_wait and (_undisturbed or _is_importing(frame)):
            _send_later(number)
        else:
            del _waiting[number]
            handler(number, frame)

    return handle


_waiting: dict[int, float] = {}
"""Signal → when it came, of those that wait."""

_PAUSE, _PATIENCE = 0.02, 5.0
"""Seconds until a signal is sent again, and after which it ends whatever is under way."""


def _send_later(number: int) -> None:
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, _PAUSE)


def _raised_in_vain(hook: Callable[[UnraisableHookArgs], object]) -> Callable[[UnraisableHookArgs], None]:
    """A hook for exceptions that Python drops, in `__del__` or in what runs after a fork: a signal's comes again."""

    def dropped(what: UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, (Terminated, KeyboardInterrupt)) and hasattr(signal, "setitimer"):
            _send_later(signal.SIGTERM if isinstance(what.exc_value, Terminated) else signal.SIGINT)
        else:
            hook(what)

    return dropped


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
