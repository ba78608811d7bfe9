"""Models of some hundred bytes that compute gigabytes, or for ever: refused in seconds, with little memory, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxlint.backends.ncnn.format import load, save
from onnxlint.cli.app import run
from tests.support.ncnn_nets import inputs, small

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has the limits")

HEAD = '<ir_version: 8, opset_import: ["": 17]> '

DOUBLING = HEAD + (
    "g (float[1,4] x) => (float[p,4] y) { "
    + " ".join(f"v{i + 1} = Concat<axis=0>(v{i}, v{i})" for i in range(32)).replace("v0", "x")
    + " y = Identity(v32) }"
)
LOOP = HEAD + (
    "g (float[1,4] x) => (float[p,q] y) <int64 m = {40}, bool c = {1}> { y = Loop(m, c, x) "
    "<body = b (int64 i, bool ci, float[u,v] a) => (bool co, float[w,z] o) "
    "{ co = Identity(ci) o = Concat<axis=0>(a, a) }> }"
)
PADDED = HEAD + (
    "g (float[1,1,4,4] x) => (float[a,b,c,d] y) <float[1,1,1,1] w = {1}> "
    "{ y = Conv<pads=[30000,30000,30000,30000]>(x, w) }"
)
CONSTANT = HEAD + (
    "g (float[1,4] x) => (float[p,q] y) <int64[2] k = {60000,60000}> "
    "{ z = ConstantOfShape(k) s = ReduceSum(x) y = Add(z, s) }"
)
ENDLESS = HEAD + (
    "g (float[1,4] x) => (float[1,4] y) <int64 m = {4611686018427387904}, bool c = {1}> { y = Loop(m, c, x) "
    "<body = b (int64 i, bool ci, float[1,4] a) => (bool co, float[1,4] o) { co = Identity(ci) o = Neg(a) }> }"
)
BOMBS = {"doubling": DOUBLING, "loop": LOOP, "padded": PADDED, "constant": CONSTANT}

SECONDS, MEGABYTES = 15.0, 1500
"""CPU time of a command with all its processes, and memory of the largest of them."""


def measured(words: list[str]) -> tuple[int, float, float, str, str]:
    """Exit code, seconds of CPU time, megabytes, standard output and standard error of a command and its processes."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'onnxlint', *sys.argv[1:]])\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "sys.stderr.write(f'\\n{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}')\n"
        "sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=300
    )
    err, used = done.stderr.rsplit("\n", 1)
    seconds, megabytes = map(float, used.split())
    return done.returncode, seconds, megabytes, done.stdout, err


def bomb(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.onnx"
    onnx.save(parser.parse_model(text), path)
    return str(path)


@pytest.mark.parametrize("target", ["onnx-fp16", pytest.param("ncnn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BOMBS)
def test_convert_refuses(tmp_path: Path, name: str, target: str) -> None:
    path = bomb(tmp_path, name, BOMBS[name])
    code, seconds, megabytes, _, err = measured(["convert", path, "--to", target, "-q"])
    assert code == 2
    assert err.startswith("error: ")
    assert path in err.splitlines()[0]
    assert "Traceback" not in err
    assert seconds < SECONDS
    assert megabytes < MEGABYTES
    assert os.listdir(tmp_path) == [f"{name}.onnx"]


@pytest.mark.parametrize(
    "words", [["compare", "--no-latency"], ["diff", "--verify"], pytest.param(["deploy"], marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ["doubling", pytest.param("loop", marks=pytest.mark.slow)])
def test_others_refuse(tmp_path: Path, name: str, words: list[str]) -> None:
    path = bomb(tmp_path, name, BOMBS[name])
    files = [path, "--to", "onnx-fp16", "--out-dir", str(tmp_path / "out")] if words == ["deploy"] else [path, path]
    code, seconds, megabytes, out, err = measured([words[0], *files, *words[1:]])
    assert "memory" in out + err
    assert "Traceback" not in err
    assert words[0] == "diff" or code == 2
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("words", [["convert", "--to", "onnx-fp16"], ["diff", "--verify"]])
def test_a_loop_without_end_is_stopped(tmp_path: Path, words: list[str]) -> None:
    path = bomb(tmp_path, "endless", ENDLESS)
    files = [path, path] if words[0] == "diff" else [path]
    _, seconds, megabytes, out, err = measured([words[0], *files, *words[1:]])
    assert "took too long" in out if words[0] == "diff" else "more CPU time than it may" in err
    assert seconds < 20
    assert megabytes < MEGABYTES


HOSTILE_LAYERS = {
    "stride 0": "Pooling pool 1 1 {0} hostile 0=0 1=2 2=0",
    "padding": "Padding pad 1 1 {0} hostile 0=30000 1=30000 2=30000 3=30000",
}


@pytest.mark.parametrize("layer", HOSTILE_LAYERS)
def test_ncnn_commands_survive_a_net_that_ncnn_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], layer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(small(), "net.param")
    np.savez("images.npz", np.stack(inputs()))
    assert run(["ncnn", "table", "net.param", "images.npz", "-q"]) == 0
    net = load("net.param")
    first, blob = net.layers[0], net.layers[0].tops[0]
    lines = Path("net.param").read_text().splitlines()
    counts = [int(word) + 1 for word in lines[1].split()]
    rest = [line.replace(f" {blob} ", " hostile ", 1) for line in lines[3:]]
    new = [lines[0], " ".join(map(str, counts)), lines[2], HOSTILE_LAYERS[layer].format(blob), *rest]
    assert first.type == "Input"
    Path("net.param").write_text("\n".join(new) + "\n")
    for words in (["table", "net.param", "images.npz", "new.table"], ["quantize", "net.param", "out.param"]):
        more = ["--images", "images.npz"] if words[0] == "quantize" else []
        assert run(["ncnn", *words, *more]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: net.param: ")
        assert err.count("\n") == 1
    assert not Path("new.table").exists()
