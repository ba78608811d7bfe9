"""How long a model takes, and whether the machine was quiet enough for the number to mean something."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

from onnxlint.accuracy.results import Latency

WARM_UP = 2
MIN_RUNS = 5
MAX_RUNS = 50
SECONDS = 1.0
"""After so much time no further run begins, once there are `MIN_RUNS`; two, where a run alone takes longer."""

SPARE = 0.25
"""Cores by which others may overlap with ours before the machine counts as busy."""


def measure(run: Callable[[], object], threads: int) -> Latency:
    """Time a function that runs a model once."""
    started = time.perf_counter()
    for _ in range(WARM_UP):
        run()
        if time.perf_counter() - started > SECONDS:
            break
    before, others = time.perf_counter(), _cpu_of_others()
    times: list[float] = []
    while len(times) < MAX_RUNS:
        at = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - at))
        spent = time.perf_counter() - before
        if spent > SECONDS and (len(times) >= MIN_RUNS or (len(times) >= 2 and spent > 5 * SECONDS)):
            break
    wall = time.perf_counter() - before
    after = _cpu_of_others()
    used = None if others is None or after is None else (after - others) / wall
    return Latency(statistics.median(times), _quartile_distance(times), len(times), threads, _is_busy(used, threads))


def _quartile_distance(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return high - low


def _is_busy(others: float | None, threads: int) -> bool:
    """Whether the cores that other programs used, on average, cannot all have been spare ones."""
    cores = os.cpu_count() or 1
    if others is None:
        with suppress(OSError, AttributeError):  # Windows has no load average
            return os.getloadavg()[0] > cores
        return False
    return others + min(threads, cores) > cores + SPARE


def _cpu_of_others() -> float | None:
    """Seconds of CPU that all other programs have used since the machine started; None where Linux does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    ticks = float(os.sysconf("SC_CLK_TCK"))
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / ticks - (own.user + own.system)
