"""One call in a process of its own: results and errors come back, and a crash is one line."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from onnxlint.conversion.child import call_in_child
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import loading


def answer(number: int, *, times: int) -> tuple[int, int]:
    return number * times, os.getpid()


def refuse() -> None:
    raise OnnxlintError("m.onnx: does not run; choose another size")


def crash() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def take_all() -> None:
    with loading():
        bytearray(1 << 50)


def fail() -> None:
    raise TypeError("an integer is required\nsomewhere")


def stop() -> None:
    os.kill(os.getpid(), signal.SIGVTALRM)


def test_a_result(tmp_path: Path) -> None:
    found, process = call_in_child(str(tmp_path / "m.onnx"), answer, 3, times=4)
    assert found == 12
    assert process != os.getpid()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (refuse, r"^m.onnx: does not run; choose another size$"),
        (crash, r"m.onnx: the runtime crashed on it \(SIGSEGV\)"),
        (fail, r"m.onnx: TypeError: an integer is required somewhere \(test_child.py, line \d+\); this is a bug"),
        (
            take_all,
            r"m.onnx: out of memory \(\d\S* [MG]?B, 80 % of what the machine had available\); use smaller inputs$",
        ),
        (stop, r"m.onnx: it takes more than 5 s of CPU time to load$"),
    ],
)
def test_errors(tmp_path: Path, function: object, said: str) -> None:
    if function is take_all and sys.platform != "linux":
        pytest.skip("Linux alone limits address space")
    with pytest.raises(OnnxlintError, match=said) as caught:
        call_in_child(str(tmp_path / "m.onnx"), function)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
