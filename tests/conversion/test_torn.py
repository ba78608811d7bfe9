"""Processes that are killed between two moves: a graph is never taken with the weights of another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxlint.api import compare, convert
from onnxlint.backends.ncnn.format import load, save
from onnxlint.conversion.manifest import read_manifest
from onnxlint.errors import OnnxlintError
from tests.support.ncnn_nets import small

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

KILLED = """
import os, signal, sys
moves = 0
real = os.replace
def replace(source, place):
    global moves
    moves += 1
    if moves > {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, place)
os.replace = replace
{code}
"""


def killed(code: str, after: int, folder: Path) -> bool:
    """Run code in a process that is killed when it moves a file after so many; whether it was."""
    code = KILLED.format(after=after, code=code)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=False, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def model(folder: Path, seed: int) -> Path:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv(x, w) }'
    made = onnx.parser.parse_model(text)
    weights = np.random.default_rng(seed).standard_normal((4, 3, 1, 1)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(made, folder / "m.onnx")
    return folder / "m.onnx"


CONVERT = "from onnxlint.api import convert\nassert not convert('m.onnx', ['ncnn']).failures"


def test_a_conversion_that_is_killed_between_moves_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("pnnx")
    convert(model(tmp_path, 0), ["ncnn"])
    earlier = (tmp_path / "m.param").read_bytes(), (tmp_path / "m.bin").read_bytes()
    model(tmp_path, 1)
    assert killed(CONVERT, 2, tmp_path)  # its manifest and its first file are in place
    now = (tmp_path / "m.param").read_bytes(), (tmp_path / "m.bin").read_bytes()
    assert now[1] == earlier[1]
    assert read_manifest(str(tmp_path / "m.onnxlint.json"))["unfinished"] == ["ncnn"]
    with pytest.raises(
        OnnxlintError, match=r"m\.param: the conversion that wrote it was interrupted .* convert the model"
    ):
        compare(tmp_path / "m.onnx", [tmp_path / "m.param"])
    convert(tmp_path / "m.onnx", ["onnx-fp16"])  # says nothing of the other target's files
    with pytest.raises(OnnxlintError, match="interrupted"):
        compare(tmp_path / "m.onnx", [tmp_path / "m.param"])
    convert(tmp_path / "m.onnx", ["ncnn"])
    assert "unfinished" not in read_manifest(str(tmp_path / "m.onnxlint.json"))
    assert compare(tmp_path / "m.onnx", [tmp_path / "m.param"], time=False).candidates[0].snr_db > 60


@pytest.mark.parametrize("after", range(3))
def test_the_graph_of_a_net_never_lies_beside_weights_of_another(tmp_path: Path, after: int) -> None:
    save(small(), tmp_path / "net.param")
    other = load(tmp_path / "net.param")
    save(other, tmp_path / "other.param")
    weights = np.frombuffer((tmp_path / "net.bin").read_bytes(), np.uint8)
    (tmp_path / "net.bin").write_bytes(bytes(len(weights)))  # an earlier net, with the same graph
    code = "from onnxlint.backends.ncnn.format import load, save\nsave(load('other.param'), 'net.param')"
    was_killed = killed(code, after, tmp_path)
    assert was_killed == (after < 2)
    if (tmp_path / "net.param").exists():
        assert (tmp_path / "net.bin").read_bytes() == (tmp_path / "other.bin").read_bytes()


def test_a_full_disk_leaves_the_earlier_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(small(), tmp_path / "net.param")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = os.fdopen

    def full(handle: int, *words: Any) -> object:
        file = real(handle, *words)
        if os.path.getsize(tmp_path / "net.bin") and len(list(tmp_path.iterdir())) == 4:
            os.close(handle)  # the second of the new files cannot be written
        return file

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OnnxlintError, match="cannot be written"):
        save(small(), tmp_path / "net.param")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
