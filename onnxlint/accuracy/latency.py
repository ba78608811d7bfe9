"""Measure latency: all models run in turn, and only runs that other programs did not disturb count.

Disturbances add time, and by a factor that changes from second to second. So models are not timed one after the other but
in rounds, and of each run it is known how long its threads waited for a core (Linux: `/proc/self/task/*/schedstat`).

Threads of a runtime that has just run keep their cores busy for some time (OpenMP's spin for milliseconds), and would
disturb the next one: a model's turn begins when they are quiet.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from onnxlint.accuracy.results import Latency

WARM_UP = 2
MIN_RUNS = 5
MAX_RUNS = 50

BURST = 5
"""Runs of a model in a round, as far as they take `TURN` seconds."""

TURN = 0.01
"""Seconds after which a model's turn ends."""

PAUSE = 0.01
"""Seconds in which the threads of this process use no CPU when they are quiet: the kernel counts it every 1 to 10 ms."""

LONGEST_PAUSE = 0.5
"""Seconds after which a turn begins in any case."""

SECONDS = 1.0
"""Time for each model, warming up apart, after which no further round begins once all have `MIN_RUNS` undisturbed runs."""

PATIENCE = 3.0
"""Times `SECONDS` after which no further round begins in any case."""

WAITING = 0.03
"""Share of a run that a thread of it may have waited for a core."""

SPREAD = 0.5
"""Distance between the quartiles of undisturbed runs, as a share of their median, above which the machine counts as busy all
the same: runs that others slowed down without taking a core from them."""

LEAST = 0.05
"""Milliseconds of that distance that mean nothing: no clock is more exact."""

SPARE = 0.25
"""Where waiting is not known: cores by which other programs may overlap with ours before the machine counts as busy."""


@dataclass
class _Timed:
    """One model: what runs it, and its undisturbed and disturbed runs, in milliseconds."""

    run: Callable[[], object]
    clean: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return len(self.clean) + len(self.disturbed)


def measure(runs: Sequence[Callable[[], object]], threads: int) -> list[Latency]:
    """Time functions that run a model once each.

    Args:
        runs: The functions to time, in turn, a few times each.
        threads: How many each model uses; for the report.

    Returns:
        A latency for each. Where fewer than `MIN_RUNS` runs were undisturbed (two, of models that take seconds), or those
        differ by more than `SPREAD`, `busy` is set: the numbers are not to be compared.
    """
    timed = [_Timed(run) for run in runs]
    for one in timed:
        started = time.perf_counter()
        for _ in range(WARM_UP):
            one.run()
            if time.perf_counter() - started > SECONDS:
                break
    budget = SECONDS * len(timed)
    started = time.perf_counter()
    while any(one.runs < MAX_RUNS for one in timed):
        for one in timed:
            _settle()
            turn = time.perf_counter()
            for _ in range(BURST):
                _time(one, threads)
                if time.perf_counter() - turn > TURN:
                    break
        spent = time.perf_counter() - started
        enough = MIN_RUNS if spent < 2 * budget else 2
        if spent > PATIENCE * budget or (spent > budget and all(len(one.clean) >= enough for one in timed)):
            break
    return [_latency(one, threads) for one in timed]


def _settle() -> None:
    """Wait until the threads of this process are quiet."""
    started = time.perf_counter()
    while time.perf_counter() - started < LONGEST_PAUSE:
        used = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - used < PAUSE / 4:
            return


def _time(one: _Timed, threads: int) -> None:
    waited, others = _waited(), _cpu_of_others()
    at = time.perf_counter()
    one.run()
    seconds = time.perf_counter() - at
    is_clean = _is_undisturbed(waited, _waited(), others, _cpu_of_others(), seconds, threads)
    (one.clean if is_clean else one.disturbed).append(1000 * seconds)


def _latency(one: _Timed, threads: int) -> Latency:
    is_busy = len(one.clean) < min(MIN_RUNS, max(2, one.runs // 4))
    times = [*one.clean, *one.disturbed] if is_busy else one.clean
    median, spread = statistics.median(times), _quartile_distance(times)
    return Latency(median, spread, len(times), threads, is_busy or spread > max(SPREAD * median, LEAST))


def _quartile_distance(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return high - low


def _is_undisturbed(
    before: dict[str, int] | None,
    after: dict[str, int] | None,
    others_before: float | None,
    others_after: float | None,
    seconds: float,
    threads: int,
) -> bool:
    """Whether a run's threads had a core whenever they wanted one."""
    if before is not None and after is not None:
        longest = max((waited - before.get(task, 0) for task, waited in after.items()), default=0)
        return longest <= WAITING * seconds * 1e9
    cores = os.cpu_count() or 1
    if others_before is None or others_after is None:
        with suppress(OSError, AttributeError):  # Windows has no load average
            return os.getloadavg()[0] <= cores
        return True
    return (others_after - others_before) / seconds + min(threads, cores) <= cores + SPARE


def _waited() -> dict[str, int] | None:
    """Thread of this process → nanoseconds that it has waited for a core; None if the system does not tell."""
    found: dict[str, int] = {}
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        return None
    for task in tasks:
        with suppress(OSError, ValueError, IndexError):  # a thread that ended
            found[task] = int(Path(f"/proc/self/task/{task}/schedstat").read_text(encoding="ascii").split()[1])
    return found or None


def _cpu_of_others() -> float | None:
    """Seconds of CPU that all other programs have used since the machine started; None if Linux does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    ticks = float(os.sysconf("SC_CLK_TCK"))
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / ticks - (own.user + own.system)
