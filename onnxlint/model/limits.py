"""Limits of a process of ours: memory beyond which allocations fail, and the process that it must not outlive."""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl's number for the signal that a process gets when the thread that started it ends."""

AVAILABLE = 0.8
"""Share of the memory that the machine has available which one process may take."""


def limit_memory(most: int | None = None) -> None:
    """Limit what this process allocates from now on, where the system can do that (Linux).

    Args:
        most: Bytes beside what it has; None: as much as the machine has available, but for a reserve.
    """
    try:
        import resource
    except ImportError:
        return  # Windows
    taken, available = _address_space(), _available()
    if not taken:
        return
    more = [size for size in (most, None if available is None else int(AVAILABLE * available)) if size is not None]
    if not more:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + min(more)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


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


def _available() -> int | None:
    """Bytes of memory that can be had without taking any from others; None if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return None
