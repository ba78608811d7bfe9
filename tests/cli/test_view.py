"""`onnxlint view`, typed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from unittest import mock

import onnx.parser
import pytest

from tests.support.command import CLEAN, onnxlint


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model's path."""
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(CLEAN).SerializeToString())
    return str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="ctrl-c cannot be sent to one process there")
def test_serves_the_model_until_ctrl_c(model: str) -> None:
    pytest.importorskip("netron", reason="extra 'view' is not installed")
    words = [sys.executable, "-m", "onnxlint", "view", model, "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"{model}: http://localhost:")
            address = line.split()[1]
            with urllib.request.urlopen(f"{address}/data/net.onnx", timeout=10) as answer:
                assert answer.read() == Path(model).read_bytes()
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=10) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


def test_a_missing_package_names_the_extra(model: str) -> None:
    with mock.patch.dict(sys.modules, {"netron": None}):
        done = onnxlint("view", model)
    assert done.code == 2
    assert "pip install 'onnxlint[view]'" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(("name", "content"), [("none.onnx", None), ("text.onnx", b"hello"), ("net.param", b"")])
def test_a_wrong_file_is_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = onnxlint("view", str(path))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {path}: ")
    assert done.err.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(model: str) -> None:
    pytest.importorskip("netron", reason="extra 'view' is not installed")
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = onnxlint("view", model, "--port", str(port))
    assert done.code == 2
    assert done.err.startswith(f"error: --port {port}: cannot be used")
