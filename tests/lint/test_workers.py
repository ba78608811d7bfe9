"""Worker processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.lint.pool import WorkerPool

MODELS, NODES = 60, 600


def square(offset: int, number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 17:
        raise OnnxlintError("seventeen")
    time.sleep(0.01 * (number % 3))
    return number * number + offset


def test_a_worker_that_dies_costs_no_other_result() -> None:
    jobs = [(number,) for number in range(10, 17)]
    assert list(WorkerPool(3).each(square, jobs, 1)) == [101, 122, 145, None, 197, 226, 257]


def test_what_a_call_raises_is_raised_here() -> None:
    with pytest.raises(OnnxlintError, match="seventeen"):
        list(WorkerPool(2).each(square, [(number,) for number in range(15, 30)], 0))


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken = []

    def jobs() -> Iterator[tuple[int]]:
        for number in range(100, 200):
            taken.append(number)
            yield (number,)

    found = WorkerPool(2).each(square, jobs(), 0)
    assert next(found) == 10_000
    assert len(taken) < 10
    found.close()  # type: ignore[attr-defined]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    nodes = " ".join(f"v{i} = {'Relu' if i % 2 else 'Identity'} (v{i - 1})" for i in range(1, NODES + 1))
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[N,4] v0) => (float[N,4] v{NODES}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text).SerializeToString()
    for number in range(MODELS):
        (folder / f"m{number:02}.onnx").write_bytes(model)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say that a parent is gone")
@pytest.mark.parametrize("words", [["check"], ["fix", "--out-dir", "out"]], ids=["check", "fix"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_no_worker_outlives_the_command(models: Path, words: list[str], number: signal.Signals) -> None:
    command = [sys.executable, "-m", "onnxlint", words[0], str(models), *words[1:], "-j", "2"]
    with subprocess.Popen(command, cwd=models.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as started:
        until = time.monotonic() + 60
        while len(running := descendants(started.pid)) < 2 and started.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert len(running) >= 2, "the command has started no workers"
        started.send_signal(number)
        started.wait(60)
        assert started.stderr is not None
        told = started.stderr.read() if number != signal.SIGKILL else b""
    assert b"Traceback" not in told
    until = time.monotonic() + 20
    while (left := [one for one in running if is_running(one)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    if number != signal.SIGKILL:
        assert not [path.name for path in models.parent.rglob(".onnxlint-*")]


LATE = """
import multiprocessing, os, signal, time
from onnxlint.lint.workers import context, prepare_worker

def worker():
    while multiprocessing.parent_process().is_alive():
        time.sleep(0.01)
    time.sleep(0.1)
    prepare_worker()
    print("alive", flush=True)

if __name__ == "__main__":
    context().Process(target=worker).start()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say that a parent is gone")
def test_a_worker_that_starts_after_the_command_was_killed_ends() -> None:
    ended = subprocess.run(  # until the last process that holds the pipe has ended
        [sys.executable, "-c", LATE], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")


def descendants(process: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
