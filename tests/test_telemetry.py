"""Commands leave no trace of the telemetry of the packages that they use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxlint.telemetry import SWITCHES, turn_off_telemetry
from tests.support.command import save
from tests.support.conv_nets import IMAGES, conv_net

FOLDED = """
<ir_version: 8, opset_import: ["": 17]>
net (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> {
    c = Mul (a, b)
    y = Add (x, c)
}
"""


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    for name in SWITCHES.keys() - {"ORT_DISABLE_TELEMETRY"}:
        monkeypatch.delenv(name, raising=False)
    turn_off_telemetry()
    assert {name: os.environ[name] for name in SWITCHES} == {**SWITCHES, "ORT_DISABLE_TELEMETRY": "0"}


def test_commands_leave_nothing_in_the_home_and_temporary_folders(tmp_path: Path) -> None:
    """onnxruntime's telemetry writes ~/.cache/Microsoft and TMPDIR/.ses when a session is made."""
    home, scratch, work = (tmp_path / name for name in ("home", "tmp", "work"))
    for folder in (home, scratch, work):
        folder.mkdir()
    source = conv_net(work / "net.onnx")
    assert IMAGES.arrays is not None
    np.savez(work / "images.npz", IMAGES.arrays)
    known = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment = {**known, "HOME": str(home), "TMPDIR": str(scratch)}
    recipe = ["--images", "images.npz", "--mean", "0,0,0", "--norm", "1,1,1", "--pixel", "RGB"]
    for words in (
        ["fix", str(save(work / "folded.onnx", FOLDED)), "-o", "fixed.onnx"],
        ["convert", source, "--to", "onnx-fp16", "onnx-int8-static", "--method", "minmax", *recipe],
        ["compare", source, "net_fp16.onnx", "--no-latency", *recipe],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "onnxlint", *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        left = [path for folder in (home, scratch) for path in folder.rglob("*") if not path.is_dir()]
        assert not left, (words[0], left)


def test_onnxruntime_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Not even where a constant is folded whose size no memory holds: its log has escapes in it."""
    text = """<ir_version: 8, opset_import: ["": 17]> net (float[N] x) => (float[N] y, float[M] z)
        <int64 a = {0}, int64 b = {9223372036854775807}, int64 c = {1}> {
        r = Range (a, b, c) z = Cast <to = 1> (r) y = Relu (x) }"""
    path = save(tmp_path / "m.onnx", text)
    words = [sys.executable, "-m", "onnxlint", "fix", str(path), "-o", str(tmp_path / "f.onnx"), "--unsafe"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1)
    assert done.stderr == ""
