"""A second process that swaps links while external data is read: no byte of another folder ever gets into a result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model import external
from onnxlint.model.save import save
from onnxlint.model.skeleton import open_model, walk_tensors

COUNT = 4096
SECRET = b"SECRET!!" * (COUNT // 2)

SWAPS = """
import os, sys
inside, outside, place = sys.argv[1:]
print("ready", flush=True)
while True:
    for target in (inside, outside):
        os.symlink(target, place + ".new")
        os.replace(place + ".new", place)
"""


def with_data(folder: Path, location: str) -> Path:
    """A model whose weights lie at `location`; the file is not written."""
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[{COUNT}] x) => (float[{COUNT}] y) {{ y = Add(x, w) }}'
    proto = onnx.parser.parse_model(text)
    tensor = proto.graph.initializer.add(name="w", data_type=1, dims=[COUNT], data_location=1)
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Model folder with two files of weights that may be read, and a secret outside."""
    folder = tmp_path / "model"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "w.bin").write_bytes(np.full(COUNT, ord(name), np.float32).tobytes())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/w.bin").write_bytes(SECRET)
    return folder


@pytest.mark.parametrize("which", ["the file", "its folder"])
@pytest.mark.parametrize("times", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_links_that_are_swapped_meanwhile(place: Path, which: str, times: int) -> None:
    outside = place.parent / "outside"
    if which == "the file":
        model, swapped = with_data(place, "w.bin"), place / "w.bin"
        targets = ("a/w.bin", str(outside / "w.bin"))
    else:
        model, swapped = with_data(place, "data/w.bin"), place / "data"
        targets = ("a", str(outside))
    os.symlink(targets[0], swapped)
    command = [sys.executable, "-c", SWAPS, *targets, str(swapped)]
    read = refused = 0
    reasons: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            for _ in range(times):
                opened = open_model(model)
                try:
                    values = opened.array(next(walk_tensors(opened.proto)))
                    save(opened, opened.proto, str(place.parent / "out.onnx"), inline=True)
                except OnnxlintError as error:
                    reasons.add(str(error)[-60:])
                    refused += "is a link that leaves" in str(error) or "changed while it was opened" in str(error)
                    continue
                read += 1
                assert set(np.unique(values)) == {ord("a")}
                assert b"SECRET" not in (place.parent / "out.onnx").read_bytes()
        finally:
            swapper.kill()
    assert read  # both happened, or the test shows nothing
    assert refused == times - read, reasons


def test_a_link_between_locating_and_opening(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment itself, without luck: the swap is made right after the file was located."""
    model = open_model(with_data(place, "a/w.bin"))
    located = external.locate
    for swap in ("file", "folder", "inode", "fifo", "short"):

        def locate_then_swap(*words: object, swap: str = swap) -> external.External:
            found = located(*words)  # type: ignore[arg-type]
            assert not found.problem
            file = place / "a/w.bin"
            if swap == "folder":
                os.rename(place / "a", place / "a.old")
                os.symlink(place.parent / "outside", place / "a")
            elif swap == "short":
                os.truncate(file, 8)
            else:
                os.rename(file, place / "a/kept")
                if swap == "file":
                    os.symlink(place.parent / "outside/w.bin", file)
                elif swap == "fifo":
                    os.mkfifo(file)
                else:
                    file.write_bytes(SECRET)
            return found

        monkeypatch.setattr("onnxlint.model.skeleton.locate", locate_then_swap)
        with pytest.raises(OnnxlintError, match="changed while it was opened"):
            model.array(next(walk_tensors(model.proto)))
        monkeypatch.undo()
        if swap == "folder":
            os.unlink(place / "a")
            os.rename(place / "a.old", place / "a")
        elif swap == "short":
            (place / "a/w.bin").write_bytes(np.full(COUNT, ord("a"), np.float32).tobytes())
        else:
            os.replace(place / "a/kept", place / "a/w.bin")
        assert model.array(next(walk_tensors(model.proto)))[0] == ord("a")


def test_a_model_folder_that_is_replaced(place: Path) -> None:
    """The folder that the model was opened in is the one that its data comes from."""
    model = open_model(with_data(place, "w.bin"))
    (place / "w.bin").write_bytes(b"\0" * 4 * COUNT)
    os.rename(place, place.parent / "moved")
    os.symlink(place.parent / "outside", place)
    with pytest.raises(OnnxlintError, match=r"link that leaves|changed while it was opened"):
        model.array(next(walk_tensors(model.proto)))


def test_a_model_that_became_a_link_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the file that was opened says which other folder is its home."""
    path = with_data(place, "w.bin")
    os.symlink(place.parent / "outside/w.bin", place / "w.bin")
    real = os.path.realpath
    monkeypatch.setattr(
        "onnxlint.model.external.os.path.realpath",
        lambda name: str(place.parent / "outside/m.onnx") if str(name) == str(path) else real(name),
    )
    (place.parent / "outside/m.onnx").write_bytes(b"another")
    model = open_model(path)
    with pytest.raises(OnnxlintError, match="link that leaves"):
        model.array(next(walk_tensors(model.proto)))


def test_downloads_of_the_hugging_face_cache_are_read(tmp_path: Path) -> None:
    """Model and data are links into one folder of blobs."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots/1").mkdir(parents=True)
    model = with_data(tmp_path / "blobs", "w.bin")
    os.rename(model, tmp_path / "blobs/aaaa")
    (tmp_path / "blobs/bbbb").write_bytes(np.full(COUNT, 7, np.float32).tobytes())
    (tmp_path / "snapshots/1/m.onnx").symlink_to("../../blobs/aaaa")
    (tmp_path / "snapshots/1/w.bin").symlink_to("../../blobs/bbbb")
    opened = open_model(tmp_path / "snapshots/1/m.onnx")
    assert opened.array(next(walk_tensors(opened.proto)))[0] == 7


def test_no_descriptor_is_left_open(place: Path) -> None:
    model = with_data(place, "a/w.bin")
    opened = open_model(model)
    tensor = next(walk_tensors(opened.proto))
    opened.array(tensor)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        opened.array(tensor)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


# Killed at any moment

KILLS = int(os.environ.get("ONNXLINT_KILLS", "50"))
"""Of each command, by each signal."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("fix", "m.onnx", "--in-place", "--no-verify", "-q"),
        ("fix", "m.onnx", "--in-place", "--no-verify", "-q", "--external-data", "w.data"),
        ("fix", "m.onnx", "-o", "new.onnx", "--external-data", "new.data", "-q"),
        ("convert", "m.onnx", "--to", "onnx-fp16", "--out-dir", "out"),
        ("deploy", "m.onnx", "--to", "onnx-fp16", "--out-dir", "out"),
        ("deploy", "m.onnx", "--to", "onnx-fp16", "--out-dir", "out", "--resume"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_random_moments(tmp_path: Path, words: tuple[str, ...], number: int) -> None:
    """`KILLS` times: every model that is there loads with its weights, and the next run succeeds."""
    import random

    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N,64] x) => (float[N,64] y) { a = Identity(x) y = MatMul(a, w) }
    """
    proto = onnx.parser.parse_model(text)
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    moments = random.Random(0)
    command = [sys.executable, "-m", "onnxlint", *words, "--isolated"]
    started = time.monotonic()
    whole = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert whole.returncode in (0, 1), whole.stderr
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(moments.uniform(0, seconds))
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert b"Traceback" not in said
        for path in tmp_path.rglob("*.onnx"):
            found = onnx.load(path)  # with its weights
            assert numpy_helper.to_array(found.graph.initializer[0]).shape == (64, 64)
        for path in tmp_path.rglob("*.json"):
            json.loads(path.read_text())
        if number == signal.SIGTERM:
            assert process.returncode in (0, 1, 128 + number, -number), (
                said
            )  # -number: before there is anything to clean
            assert not [path for path in tmp_path.rglob(".onnxlint-*") if path.suffix not in (".data", ".note")]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert again.returncode in (0, 1), again.stderr
    assert not [path for path in tmp_path.rglob(".onnxlint-*") if path.suffix not in (".data", ".note")]
