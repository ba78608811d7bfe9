"""Calls over worker processes of this machine: one that ends its process costs no other its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from onnxlint.lint.workers import context, prepare_worker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

Answer = TypeVar("Answer")

SECONDS_TO_END = 5.0
"""How long a worker may take to clean up before it is killed."""


class WorkerPool:
    """Computes in processes of this machine; see `onnxlint.lint.engines.Spread`.

    A pool of `concurrent.futures` breaks as a whole where one worker dies, and then nobody knows which of the others'
    calls were done: a model that was fixed in place must not be fixed again.

    Args:
        workers: How many processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def each(
        self, call: Callable[..., Answer], jobs: Iterable[tuple[Any, ...]], *common: Any
    ) -> Iterator[Answer | None]:
        """See `Spread`; a call that ended its process is not made again."""
        idle: list[_Worker] = []
        busy: dict[Connection[Any, Any], tuple[int, _Worker]] = {}
        done: dict[int, Answer | None] = {}
        told = 0
        try:
            for number, job in enumerate(jobs):
                if len(busy) == self._workers:
                    _collect(busy, idle, done)
                worker = idle.pop() if idle else _start(call, common)
                busy[worker.connection] = number, worker
                worker.connection.send(job)
                while told in done:
                    yield done.pop(told)
                    told += 1
            while busy:
                _collect(busy, idle, done)
                while told in done:
                    yield done.pop(told)
                    told += 1
        finally:
            # Ctrl-C, or a caller that wants no more: do not wait for calls that are half done.
            for _, worker in busy.values():
                worker.process.terminate()
            for worker in idle:
                worker.connection.send(None)
            for worker in (*idle, *(worker for _, worker in busy.values())):
                worker.process.join(SECONDS_TO_END)
                worker.process.kill()
                worker.connection.close()


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection[Any, Any]


def _start(call: Callable[..., Any], common: tuple[Any, ...]) -> _Worker:
    from onnxlint.model.scratch import undisturbed

    start = context()
    here, there = start.Pipe()
    # Each context has a Process of its own; typeshed's base class has none.
    process: BaseProcess = start.Process(target=_serve, args=(there, call, common))  # type: ignore[attr-defined]
    with undisturbed():  # half of a worker ends in a traceback
        process.start()
    there.close()
    return _Worker(process, here)


def _collect(
    busy: dict[Connection[Any, Any], tuple[int, _Worker]], idle: list[_Worker], done: dict[int, Answer | None]
) -> None:
    """Wait until a call is done, or its process has ended."""
    from multiprocessing.connection import wait

    # Later workers inherit the other ends of earlier pipes: that a process has ended is told by its own handle.
    handles = [worker.process.sentinel for _, worker in busy.values()]
    ready = set(wait([*busy, *handles]))
    for connection in [*busy]:
        number, worker = busy[connection]
        if not ready & {connection, worker.process.sentinel}:
            continue
        del busy[connection]
        try:
            answer = connection.recv() if connection.poll() else None
        except EOFError:
            answer = None
        if answer is None:
            worker.process.join()
            connection.close()
            done[number] = None
            continue
        idle.append(worker)
        found, error = answer
        if error is not None:
            raise error
        done[number] = found


def _serve(connection: Connection[Any, Any], call: Callable[..., Any], common: tuple[Any, ...]) -> None:
    """The life of a worker."""
    from onnxlint.model.scratch import ending_by_exception

    prepare_worker()
    with ending_by_exception():
        while (job := connection.recv()) is not None:
            answer: tuple[Any, Exception | None]
            try:
                answer = call(*common, *job), None
            except Exception as error:  # noqa: BLE001 - handed to the parent
                answer = None, error
            connection.send(answer)
