"""Conversions that cannot be finished: nothing is left behind, nothing that was there is lost, and the others are made."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from fixtures import pictures, pitfalls
from onnxlint.api import convert
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from tests.support.command import onnxlint

pytest.importorskip("onnxruntime")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

CRASH = """<ir_version: 8, opset_import: ["": 17]> g (float[b,t,16] x) => (float[t,b,48] y) <float[16,48] w> {
    a = Transpose<perm=[1,0,2]>(x) y = MatMul(a, w) }"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interruptions")
    pitfalls.build(folder / "built")
    os.rename(folder / "built" / "pitfalls_fixed.onnx", folder / "m.onnx")
    pictures.build(folder / "images", 4, 96, 64)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_a_crash_of_onnxruntime_costs_one_node(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(CRASH)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.helper.make_tensor("w", 1, (16, 48), [0.01 * (i % 7) for i in range(768)]))
    onnx.save(model, tmp_path / "m.onnx")
    done = convert(tmp_path / "m.onnx", ["onnx-fp16", "onnx-int8-dynamic"], out_dir=str(tmp_path / "out"))
    assert not done.failures
    states = {one.type: one.state for one in done.artifacts[0].decisions}
    assert "fp16" in states.values()
    assert not any(path.name.startswith(".onnxlint-") for path in (tmp_path / "out").iterdir())


def test_a_crash_while_making_is_one_line_and_the_others_are_made(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child that makes targets imports a backend that kills its process in the middle of one of them.
    plugin = tmp_path / "plugin"
    info = plugin / "crasher-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crasher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[onnxlint.backends]\ncrasher = crasher:BACKEND\n")
    (plugin / "crasher.py").write_text(
        "import os, signal\n"
        "from onnxlint.backends import Target\n"
        "class Crasher:\n"
        "    name = 'crasher'\n"
        "    targets = (Target('crash', 'dies', ('.dead',)), Target('fail', 'fails', ('.dead',)))\n"
        "    def make(self, target, source, files, job, progress):\n"
        "        if target.name == 'fail': raise ValueError('oh')\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    def opens(self, path):\n"
        "        return False\n"
        "BACKEND = Crasher()\n"
    )
    from onnxlint.backends import backends

    monkeypatch.syspath_prepend(str(plugin))
    backends.cache_clear()
    try:
        done = convert(place / "m.onnx", ["crash", "fail", "onnx-int8-dynamic"], out_dir=str(tmp_path / "out"))
    finally:
        monkeypatch.undo()
        backends.cache_clear()
    assert [one.target for one in done.artifacts] == ["onnx-int8-dynamic"]
    assert "crasher crashed (SIGSEGV) while making crash" in done.failures[0].message
    said = "crasher fails while making fail: ValueError: oh (crasher.py, line 7); this is a bug, please report it"
    assert said in done.failures[1].message


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_file_that_cannot_be_written_leaves_what_was_there(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(place / "m.onnx", ["ncnn"], recipe=Recipe((96, 64)), out_dir=str(out))
    before = digests(out)
    limit = os.path.getsize(out / "m.bin") // 2
    words = ["convert", str(place / "m.onnx"), "--to", "ncnn", "--shape", "96,64,3", "--out-dir", str(out)]
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    done = subprocess.run(
        [sys.executable, "-m", "onnxlint", *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most)),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert ".onnxlint-" not in done.stderr
    assert digests(out) == before
    assert not [path for path in out.iterdir() if path.is_dir()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_folder(place: Path, tmp_path: Path, number: signal.Signals) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    words = [
        "convert",
        str(place / "m.onnx"),
        "--to",
        "ncnn-int8",
        "--images",
        str(place / "images"),
        "--mean",
        "0,0,0",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxlint", *words, "--shape", "640,640,3", "--method", "eq", "--out-dir", str(out)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (out.exists() and any(out.glob(".onnxlint-*/*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    assert process.poll() is None, "it ended before it could be interrupted"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (128 + number, -number), errors
    assert b"Traceback" not in errors
    assert not list(out.iterdir())
    assert not list(temporary.iterdir())


def test_what_cannot_work_is_said_before_any_work(place: Path, tmp_path: Path) -> None:
    pitfalls.build(tmp_path / "built")
    bad = tmp_path / "built" / "pitfalls.onnx"
    started = time.monotonic()
    for words, message in (
        (["--to", "ncnn,ncnn-fp16"], "has free sizes"),
        (["--to", "onnx-int8-static", "--images", str(place / "images")], "preprocessing of pixels (0–255) unknown"),
        (
            ["--to", "onnx-int8-static", "--images", str(place / "images"), "--mean", "0", "--method", "aciq"],
            "knows auto",
        ),
    ):
        out = onnxlint("convert", str(bad), *words, "--out-dir", str(tmp_path / "out"))
        assert out.code == 2
        assert out.err.count("\n") == 1
        assert message in out.err
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - started < 10


def test_the_answer_to_the_question_works(place: Path, tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"recipe=.*0,0,0.* feeds raw pixels"):
        convert(place / "m.onnx", ["ncnn-int8"], images=place / "images", out_dir=str(tmp_path))
    out = onnxlint(
        *("convert", str(place / "m.onnx"), "--to", "ncnn-int8", "--images", str(place / "images"), "--mean", "0,0,0"),
        *("--shape", "96,64,3", "--out-dir", str(tmp_path)),
    )
    assert out.code == 0, out.err
