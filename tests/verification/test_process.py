"""The process that runs the models, started before it has a task."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from onnxlint.verification import process
from onnxlint.verification.compare import verify
from onnxlint.verification.process import worker_ahead
from tests.support.zoo import parse

MODEL = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "m.onnx"
    path.write_bytes(parse(MODEL).SerializeToString())
    return str(path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[process._Worker]:
    """All processes that are started, in order."""
    found: list[process._Worker] = []

    class Noted(process._Worker):
        def __init__(self) -> None:
            super().__init__()
            found.append(self)

    monkeypatch.setattr(process, "_Worker", Noted)
    return found


def test_a_process_that_was_started_ahead_gets_the_first_task_alone(model: str, started: list[process._Worker]) -> None:
    with worker_ahead() as start:
        start()
        start()
        assert len(started) == 1
        assert verify(model, model).verified
        assert len(started) == 1
        assert verify(model, model).verified
        start()  # it was started once
        assert len(started) == 2
    assert all(one.process.returncode == 0 for one in started)
    assert all(one.errors.closed for one in started)


def test_one_without_a_task_is_ended(started: list[process._Worker]) -> None:
    def fail() -> None:
        with worker_ahead() as start:
            start()
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    (one,) = started
    assert one.process.returncode is not None
    assert one.errors.closed
    with worker_ahead():
        pass
    assert len(started) == 1


def test_one_that_reads_no_task_ends_by_itself(started: list[process._Worker]) -> None:
    one = process._Worker()
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.process.wait(60) == 0
    one.end()


def test_one_that_died_before_its_task_is_replaced(model: str, started: list[process._Worker]) -> None:
    with worker_ahead() as start:
        start()
        started[0].process.kill()
        started[0].process.wait()
        assert verify(model, model).verified
    assert len(started) == 2
    assert all(one.errors.closed for one in started)


def test_another_thread_starts_its_own(model: str, started: list[process._Worker]) -> None:
    results: list[bool] = []
    with worker_ahead() as start:
        start()
        other = threading.Thread(target=lambda: results.append(verify(model, model).verified))
        other.start()
        other.join()
        assert results == [True]
        assert len(started) == 2
        assert started[0].process.poll() is None
