"""Native code on hostile files: results come back, crashes and excess do not reach this process."""

from __future__ import annotations

import os
import signal
import threading
import time

import onnx
import onnx.parser
import pytest

from onnxlint.model import native
from onnxlint.model.native import Crashed, Limits, OutOfLimits, in_child, infer_shapes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

MODEL = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (y) { a = Relu(x) y = Neg(a) }'


def data(text: str = MODEL) -> bytes:
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def many_calls(depth: int = 40) -> bytes:
    """Functions that each call the one below twice: 2**depth nodes to infer."""
    domain = '"": 17, "f": 1'
    functions = [
        f'<domain: "f", opset_import: [{domain}]> f{i} (x) => (y) {{ a = f.f{i - 1}(x) y = f.f{i - 1}(a) }}'
        for i in range(1, depth)
    ]
    first = f'<domain: "f", opset_import: [{domain}]> f0 (x) => (y) {{ y = Relu(x) }}'
    main = f"<ir_version: 8, opset_import: [{domain}]> g (float[2] x) => (float[2] y) {{ y = f.f{depth - 1}(x) }}"
    return data("\n".join([main, first, *functions]))


def test_shapes_come_back_from_one_child_for_all_models() -> None:
    inferred = onnx.ModelProto.FromString(infer_shapes(data()))
    assert "a" in {value.name for value in inferred.graph.value_info}
    first = native._server._child
    infer_shapes(data())
    assert native._server._child is first


def test_what_inference_refuses_is_its_own_message() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x, float[5,4] w) => (y) { y = MatMul(x, w) }'
    with pytest.raises(RuntimeError, match="Incompatible dimensions") as caught:
        infer_shapes(data(text))
    assert not isinstance(caught.value, Crashed)


def test_time_is_limited() -> None:
    started = time.monotonic()
    with pytest.raises(OutOfLimits, match="more than 2 s"):
        infer_shapes(many_calls())
    assert time.monotonic() - started < native._WAIT * (native.SECONDS + 1) + 1
    infer_shapes(data())  # another child has taken its place


def test_memory_is_limited() -> None:
    with pytest.raises(OutOfLimits, match=r"more than .* of memory"):
        in_child(lambda: bytes(native.MEMORY + (64 << 20)))


def test_a_child_that_dies_is_replaced() -> None:
    infer_shapes(data())
    child = native._server._child
    assert child is not None
    os.kill(child.process, signal.SIGKILL)
    while os.waitid(os.P_PID, child.process, os.WEXITED | os.WNOWAIT) is None:
        pass
    infer_shapes(data())
    assert native._server._child is not child


def test_crashes_are_errors() -> None:
    def crash() -> bytes:
        os.kill(os.getpid(), signal.SIGSEGV)
        return b""

    def leave() -> bytes:
        os._exit(0)

    with pytest.raises(Crashed, match="crashed"):
        in_child(crash)
    with pytest.raises(Crashed, match="ended without an answer"):
        in_child(leave)


def test_a_call_that_waits_is_ended() -> None:
    def wait() -> bytes:
        time.sleep(1000)
        return b""

    with pytest.raises(OutOfLimits):
        in_child(wait, Limits(seconds=-0.9))


def test_forks_and_threads_have_children_of_their_own() -> None:
    infer_shapes(data())
    mine = native._server._child
    pid = os.fork()
    if pid == 0:
        fine = native._server._child is None and b"Relu" in infer_shapes(data())
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert native._server._child is mine
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(infer_shapes(data()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 8


def test_nobody_waits_for_the_child(tmp_path: object) -> None:
    """It holds no end of a pipe that another process reads to its end."""
    receive, send = os.pipe()
    native._server._stop()
    infer_shapes(data())
    os.close(send)
    assert os.read(receive, 1) == b""
    os.close(receive)
