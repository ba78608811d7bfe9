"""Memory that a process of ours may take: allocations beyond it fail, rather than take the whole machine."""

from __future__ import annotations

import os

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
