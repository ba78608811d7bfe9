"""Limits of a process of ours: memory beyond which allocations fail, CPU time for what native code does with a model, and
the process that it must not outlive."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from onnxlint.text import size as shown_size

_PR_SET_PDEATHSIG = 1
"""prctl's number for the signal that a process gets when the thread that started it ends."""

AVAILABLE = 0.8
"""Share of the memory that the machine has available which one process may take."""

FOR_THREAD = 80 << 20
"""Bytes of address space of a thread: its stack, and an arena of the allocator."""


FOR_INPUTS = 512
"""Bytes that a run may take for each byte of its inputs: all values inside of a network for images are some hundred times
as large as its input."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Budget(NamedTuple):
    """What a runtime may take for a model, by the bytes of the model's files.

    Attributes:
        loading: Seconds of CPU time, of all threads, for loading it or preparing its graph.
        running: Seconds of CPU time for one run of it on inputs of a few bytes.
        memory: Bytes for loading it, or for running it on such inputs, beside what the process has.
        size: Bytes of its files.
    """

    loading: float
    running: float
    memory: int
    size: int = 0

    @classmethod
    def of(cls, size: int) -> Budget:
        """The budget of a model of so many bytes."""
        threads = FOR_THREAD * (os.cpu_count() or 1)
        # Of a chain of small nodes, onnxruntime compares many with many: 9 s for 20,000 of them in half a megabyte.
        loading = 5 + min(25.0, 2e-5 * size) + 1e-6 * size
        return cls(loading, 10 + 1e-5 * size, (1 << 30) + 10 * size + threads, size)

    def run_on(self, inputs: int) -> tuple[float, int]:
        """Seconds of CPU time and bytes for one run on inputs of so many bytes: the work of a convolution grows with both,
        its weights and its input."""
        return self.running + 1e-7 * inputs + 1e-10 * self.size * inputs, self.memory + FOR_INPUTS * inputs

    def overrun(self, code: int) -> str:
        """What a process took too much of, by its exit code; empty where it ended otherwise."""
        if code == -_LOADING:
            return f"it takes more than {self.loading:.0f} s of CPU time to load"
        if code == -_RUNNING:
            return f"one run of it takes more CPU time than it may ({self.running:.0f} s, and more for large inputs)"
        return ""

    def memory_overrun(self, inputs: int | None = None) -> str:
        """What a runtime that has no memory left took too much of, loading a model or running it on so many bytes."""
        if inputs is None:
            return f"it takes more than {shown_size(self.memory)} of memory to load"
        return f"one run of it takes more than {shown_size(self.run_on(inputs)[1])} of memory"


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of a runtime says that there was no memory left."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _NO_MEMORY)


_had: int | None = None
"""Bytes that the machine had available when this process was limited by them; None if it was not."""


def out_of_memory() -> str:
    """What to say where this process has no memory left, without the way out."""
    if _had is None:
        return "out of memory"
    return f"out of memory ({shown_size(int(AVAILABLE * _had))}, {100 * AVAILABLE:.0f} % of what the machine had available)"


def memory_overrun(inputs: int) -> str:
    """What a run on inputs of so many bytes took too much of, in a process with or without a budget."""
    return f"{out_of_memory()}; use smaller inputs" if _budget is None else _budget.memory_overrun(inputs)


_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Could not allocate")
"""What native code says where there is no memory left."""

_LOADING, _RUNNING = getattr(signal, "SIGVTALRM", 0), getattr(signal, "SIGPROF", 0)
"""Signals that end a process which takes too long: of the timers of CPU time, each has its own."""

_lock = threading.Lock()
_budget: Budget | None = None
_runs: list[tuple[float, int]] = []
"""What each of the runs under way may take: seconds of CPU time, and bytes."""


def set_budget(size: int) -> None:
    """From now on, end this process where `loading` or `running` take too much for a model of so many bytes.

    For a process that does nothing else: it is killed by a signal, as native code cannot be interrupted otherwise.
    """
    global _budget
    _budget = Budget.of(size) if hasattr(signal, "setitimer") else None


def budget() -> Budget | None:
    """The budget of this process; None if it has none."""
    return _budget


@contextmanager
def loading() -> Iterator[None]:
    """Limit CPU time and memory while a runtime loads a model or prepares its graph, where there is a budget."""
    if _budget is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_VIRTUAL, _budget.loading)
    limit_memory(_budget.memory)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def running(inputs: int = 0) -> Iterator[None]:
    """Limit CPU time and memory of one run of a model, where there is a budget; several threads may run models at once.

    Args:
        inputs: Bytes of the inputs of the run.
    """
    if _budget is None:
        yield
        return
    import resource

    allowed = _budget.run_on(inputs)
    with _lock:
        if not _runs:
            _before.append(resource.getrlimit(resource.RLIMIT_AS))
        _runs.append(allowed)
        signal.setitimer(signal.ITIMER_PROF, sum(seconds for seconds, _ in _runs))
        limit_memory(sum(most for _, most in _runs))
    try:
        yield
    finally:
        with _lock:
            _runs.remove(allowed)
            if not _runs:
                signal.setitimer(signal.ITIMER_PROF, 0)
                resource.setrlimit(resource.RLIMIT_AS, _before.pop())


_before: list[tuple[int, int]] = []
"""The limit of memory before the first of the runs under way."""


def limit_memory(most: int | None = None) -> None:
    """Limit what this process allocates from now on, where the system can do that (Linux).

    Args:
        most: Bytes beside what it has; None: as much as the machine has available, but for a reserve.
    """
    try:
        import resource
    except ImportError:
        return  # Windows
    global _had
    taken, available = _address_space(), available_memory()
    if not taken:
        return
    if most is None:
        _had = available
    more = [size for size in (most, None if available is None else int(AVAILABLE * available)) if size is not None]
    if not more:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + min(more)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def limit_other(process: int, most: int) -> None:
    """Limit the address space of a process that was just started, where the system can do that (Linux).

    Args:
        process: Its number.
        most: Bytes.
    """
    if sys.platform != "linux":
        return
    import resource

    soft, hard = resource.prlimit(process, resource.RLIMIT_AS)
    others = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.prlimit(process, resource.RLIMIT_AS, (min([most, *others]), hard))


KEPT = 64 << 20
"""Bytes that `keep_freed_memory` keeps at most at the end of the heap."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Have C's allocator keep what is freed, where it can do that (glibc), in this process and in later forks of it.

    For processes of ours that open one model after another: else nearly all memory of each goes back to the system and is
    fetched again, page by page, for the next.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, KEPT >> 4)  # setting the one would end glibc's own adjustment of the other


def die_with_parent(parent: int) -> None:
    """End this process when the one that started it ends, even if it is killed, where the system can do that (Linux).

    Without it, a process that computes goes on for as long as its model takes, and nobody knows of it.

    Args:
        parent: Process id of the one that started it, which may have ended before this call.
    """
    if sys.platform != "linux":
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return  # a sandbox does not allow it
    if os.getppid() != parent:
        os._exit(1)


def _address_space() -> int:
    """Bytes of address space that this process has; 0 if the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available_memory() -> int | None:
    """Bytes of memory that can be had without taking any from others; None if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return None
