"""Models over worker processes of this machine. A model that kills its worker costs the others nothing."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from onnxlint.lint.engine import Plan, check_file
from onnxlint.lint.finding import CheckResult, FileError
from onnxlint.model.limits import keep_freed_memory
from onnxlint.store.urls import shown, without_secrets

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext

Job = tuple[str, Plan] | CheckResult
"""A model and its plan, or the result of one that need not be checked."""

AHEAD = 16
"""Models for each worker that are under way at once: memory does not grow with the number of models."""


class Engine(Protocol):
    """Checks models somewhere."""

    def check(self, jobs: Iterable[Job]) -> Iterator[CheckResult]:
        """Results in the order of the jobs, which are taken as they are needed."""


class InProcess:
    """Checks models one after the other, here."""

    def check(self, jobs: Iterable[Job]) -> Iterator[CheckResult]:
        """See `Engine`."""
        for job in jobs:
            yield job if isinstance(job, CheckResult) else check_file(*job)


class Processes:
    """Checks models in processes of this machine.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def check(self, jobs: Iterable[Job]) -> Iterator[CheckResult]:
        """See `Engine`."""
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import active_children

        from onnxlint.model.scratch import undisturbed

        others = set(active_children())
        pool = ProcessPoolExecutor(self._workers, context(), prepare_worker)

        def submit(path: str, plan: Plan) -> Callable[[], CheckResult]:
            future: Future[CheckResult] | None
            try:
                with undisturbed():  # it may start a worker, and half of one ends in a traceback
                    future = pool.submit(check_file, path, plan)
            except BrokenProcessPool:  # a worker has died already
                future = None

            def result() -> CheckResult:
                try:
                    return future.result() if future is not None else _check_alone(path, plan)
                except BrokenProcessPool:
                    # A model that kills its worker breaks the pool for all the others: give each a process of its own.
                    return _check_alone(path, plan)

            return result

        try:
            yield from in_order(jobs, submit, self._workers * AHEAD)
        except BaseException:
            # Ctrl-C, or a caller that wants no more: do not wait for models that are half checked.
            pool.shutdown(wait=False, cancel_futures=True)
            workers_left = set(active_children()) - others
            for process in workers_left:
                process.terminate()
            for process in workers_left:
                process.join(timeout=1)
            raise
        pool.shutdown()


def in_order(
    jobs: Iterable[Job], submit: Callable[[str, Plan], Callable[[], CheckResult]], ahead: int
) -> Iterator[CheckResult]:
    """Results in the order of the jobs.

    Args:
        jobs: Taken as they are needed.
        submit: Starts the check of a model; gives what waits for its result.
        ahead: Jobs that may be under way at once.
    """
    pending: deque[CheckResult | Callable[[], CheckResult]] = deque()
    for job in jobs:
        pending.append(job if isinstance(job, CheckResult) else submit(*job))
        while pending and (len(pending) >= ahead or isinstance(pending[0], CheckResult)):
            yield _result(pending.popleft())
    while pending:
        yield _result(pending.popleft())


def _result(one: CheckResult | Callable[[], CheckResult]) -> CheckResult:
    return one if isinstance(one, CheckResult) else one()


def killed(path: str) -> CheckResult:
    """The result of a model whose check ended its process."""
    name = without_secrets(path)
    message = f"{shown(path)}: checking it killed the worker process; please report this model"
    return CheckResult(name, error=FileError(name, message))


def prepare_worker() -> None:
    """What a worker process does first: signals are the parent's to answer, and it does not outlive the parent."""
    import gc
    import signal

    _die_with_command()
    # Ctrl-C reaches the workers too, which would each print a traceback: the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's may raise, which the pool would hand on as a result
    keep_freed_memory()
    gc.freeze()  # what the parent had imported stays: looking through it would copy its pages


def context() -> BaseContext:
    """How workers are started: by fork on Linux, where they have what the command has imported and its environment.

    From Python 3.14 on, the default there is a server that imports everything again.
    """
    import multiprocessing

    return multiprocessing.get_context("fork" if sys.platform == "linux" and hasattr(os, "fork") else None)


def _die_with_command() -> None:
    """End this worker with the command, which may have ended before."""
    import multiprocessing

    from onnxlint.model.limits import die_with_parent

    command = multiprocessing.parent_process()
    if command is not None and command.pid is not None:
        die_with_parent(command.pid)


def _check_alone(path: str, plan: Plan) -> CheckResult:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with ProcessPoolExecutor(1, context(), prepare_worker) as pool:
        try:
            return pool.submit(check_file, path, plan).result()
        except BrokenProcessPool:
            return killed(path)
