"""Latency: models in turn, and only runs that had a core whenever they wanted one."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from onnxlint.accuracy import latency
from onnxlint.accuracy.latency import measure


def spin(milliseconds: float) -> Callable[[], None]:
    """A run that takes so much CPU."""

    def run() -> None:
        until = time.thread_time() + milliseconds / 1000
        while time.thread_time() < until:
            pass

    return run


def waits(*values: int | None) -> Callable[[], dict[str, int] | None]:
    """What the system says of waiting, in turn; then always the last."""
    told: Iterator[int | None] = iter(values)
    last: list[int | None] = [0]

    def say() -> dict[str, int] | None:
        last[0] = next(told, last[0])
        return None if last[0] is None else {"1": last[0]}

    return say


def test_models_are_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SPREAD", 1000)  # this machine may be busy
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    monkeypatch.setattr(latency, "_waited", waits(0))
    called: list[str] = []
    first, second = measure([lambda: called.append("a"), lambda: called.append("b")], 1)
    timed = called[2 * latency.WARM_UP :]
    turns = [(name, len(list(group))) for name, group in itertools.groupby(timed)]
    assert [name for name, _ in turns] == ["a", "b"] * (len(turns) // 2)
    assert max(count for _, count in turns) <= latency.BURST
    assert first.runs == timed.count("a") >= latency.MIN_RUNS
    assert second.runs == timed.count("b") >= latency.MIN_RUNS
    assert not first.busy


def test_a_turn_begins_when_the_threads_of_the_last_one_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP's threads spin when a run has ended."""
    monkeypatch.setattr(latency, "SPREAD", 1000)  # this machine may be busy
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    data = bytes(1 << 22)
    spinning: list[threading.Thread] = []
    met: list[bool] = []

    def spins() -> None:
        spinning.append(threading.Thread(target=lambda: [hashlib.sha256(data) for _ in range(5)]))
        spinning[-1].start()

    measure([spins, lambda: met.append(any(one.is_alive() for one in spinning))], 1)
    assert len(met) > latency.WARM_UP
    assert sum(met) < len(met) / 2


def test_runs_that_waited_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SPREAD", 1000)  # this machine may be busy
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    steps = [0, 10**9, 10**9, 10**9] * 3  # every other run of the first six waited a second
    total = 0
    told: list[int] = []
    for step in steps:
        total += step if step == 10**9 and len(told) % 4 == 1 else 0
        told.append(total)
    monkeypatch.setattr(latency, "_waited", waits(*told))
    (one,) = measure([spin(2)], 1)
    assert not one.busy
    assert 1.5 < one.median_ms < 50


def test_a_machine_that_is_busy_throughout_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    ever = iter(range(0, 10**15, 10**12))
    monkeypatch.setattr(latency, "_waited", lambda: {"1": next(ever)})
    (one,) = measure([spin(1)], 1)
    assert one.busy
    assert one.runs >= 2


def test_runs_that_differ_too_much_give_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.2)
    monkeypatch.setattr(latency, "_waited", waits(0))
    pauses = itertools.cycle([0.002, 0.05])
    (one,) = measure([lambda: time.sleep(next(pauses))], 1)
    assert one.busy


def test_where_the_system_does_not_tell_others_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SPREAD", 1000)  # this machine may be busy
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    monkeypatch.setattr(latency, "_waited", lambda: None)
    used = iter(float(100 * i) for i in range(10**6))
    monkeypatch.setattr(latency, "_cpu_of_others", lambda: next(used))
    (one,) = measure([spin(1)], 1)
    assert one.busy
    monkeypatch.setattr(latency, "_cpu_of_others", lambda: 5.0)
    (one,) = measure([spin(1)], 1)
    assert not one.busy


@pytest.mark.slow
@pytest.mark.skipif(latency._waited() is None, reason="the system does not tell how long threads wait")
def test_another_program_makes_it_slower_or_unmeasured() -> None:
    """Six programs that spin: a number that is shown is still that of an idle machine."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        time.sleep(0.5)
        (one,) = measure([spin(20)], 1)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert one.busy or one.median_ms < 26
