"""A command that is killed leaves no process behind, whatever its model makes that process do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.helper
import pytest

DEPTH = 40
"""Functions that each call the next one twice: inlined they are 2^40 nodes, and no runtime loads them in our time."""


def doubling(path: Path) -> Path:
    functions = []
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    for depth in range(DEPTH):
        last = depth == DEPTH - 1
        called, domain = ("Relu", "") if last else (f"f{depth + 1}", "own")
        nodes = [
            onnx.helper.make_node(called, ["x"], ["a"], domain=domain),
            onnx.helper.make_node(called, ["a"], ["y"], domain=domain),
        ]
        functions.append(onnx.helper.make_function("own", f"f{depth}", ["x"], ["y"], nodes, opsets))
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("f0", ["x"], ["y"], domain="own")], "g", [value[0]], [value[1]]
    )
    onnx.save_model(onnx.helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8), path)
    return path


def children(process: int) -> list[int]:
    """Processes that a process started, and theirs."""
    own = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [*own, *(later for one in own for later in children(one))]


def runs(process: int) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
@pytest.mark.parametrize("command", ["convert", "compare"])
def test_killed(tmp_path: Path, command: str) -> None:
    model = str(doubling(tmp_path / "deep.onnx"))
    words = ["--to", "onnx-fp16"] if command == "convert" else [model]
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxlint", command, model, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for(lambda: process.poll() is not None or children(process.pid), 60)
        time.sleep(2)
        workers = [] if process.poll() is not None else children(process.pid)
        assert workers, "it ended before it was killed"
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not any(runs(worker) for worker in workers), 10)
