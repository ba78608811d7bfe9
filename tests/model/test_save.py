"""Saving: the same bytes, weights where they were asked to be, and never a file that is half written."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model.save import save
from onnxlint.model.skeleton import open_model, walk_tensors
from tests.support.fuzzing import in_child

FLOATS = 5000
"""A tensor of that many is large: opening leaves it in the file."""


def model_of(value: float, count: int = FLOATS, tensors: int = 3) -> onnx.ModelProto:
    """A chain of additions: weights in initializers, in a Constant and in the branch of an If."""
    weights = [numpy_helper.from_array(np.full(count, value + i, np.float32), f"w{i}") for i in range(tensors)]
    inner = numpy_helper.from_array(np.full(count, value + 100, np.float32), "inner")
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", 1, [count])],
        [inner],
    )
    nodes = [helper.make_node("Add", ["x" if i == 0 else f"y{i - 1}", f"w{i}"], [f"y{i}"]) for i in range(tensors)]
    constant = numpy_helper.from_array(np.full(count, value + 200, np.float32), "constant")
    nodes += [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Add", [f"y{tensors - 1}", "c"], ["z"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["z", "chosen"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [count]), helper.make_tensor_value_info("flag", 9, [])],
        [helper.make_tensor_value_info("out", 1, [count])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, proto: onnx.ModelProto, name: str = "m.onnx", data: str | None = None) -> Path:
    """A model file as onnx writes it, its weights in `data` where that is given."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    if data is None:
        path.write_bytes(proto.SerializeToString())
    else:
        onnx.save(proto, path, save_as_external_data=True, location=data, size_threshold=1024, convert_attribute=True)
    return path


def weights(path: Path) -> dict[str, bytes]:
    """Values of all tensors of a model file, as onnx itself reads them."""
    return {
        f"{i} {tensor.name}": numpy_helper.to_array(tensor).tobytes()
        for i, tensor in enumerate(walk_tensors(onnx.load(path)))
    }


def locations(path: Path) -> set[str]:
    proto = onnx.load(path, load_external_data=False)
    return {e.value for t in walk_tensors(proto) for e in t.external_data if e.key == "location"}


# Round trips


def test_an_unchanged_model_is_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    model = open_model(source)
    assert model.proto.ByteSize() < source.stat().st_size / 10
    assert save(model, model.proto, str(tmp_path / "copy.onnx")) == source.stat().st_size
    assert (tmp_path / "copy.onnx").read_bytes() == source.read_bytes()


def test_out_and_in_again(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    apart, back = tmp_path / "apart.onnx", tmp_path / "back.onnx"
    model = open_model(source)
    before = model.proto.SerializeToString()
    save(model, model.proto, str(apart), external_data="apart.bin")
    assert model.proto.SerializeToString() == before
    assert locations(apart) == {"apart.bin"}
    assert apart.stat().st_size < source.stat().st_size / 10
    onnx.checker.check_model(apart)
    assert weights(apart) == weights(source)
    model = open_model(apart)
    save(model, model.proto, str(back), inline=True)
    assert onnx.load(back) == onnx.load(source)
    assert not locations(back)


def test_data_of_another_folder_comes_along(tmp_path: Path) -> None:
    source = write(tmp_path / "a", model_of(1), data="m.weights")
    (tmp_path / "b").mkdir()
    model = open_model(source)
    save(model, model.proto, str(tmp_path / "b/n.onnx"))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["n.onnx", "n.onnx.data"]
    assert weights(tmp_path / "b/n.onnx") == weights(source)
    save(model, model.proto, str(tmp_path / "a/n.onnx"))
    assert locations(tmp_path / "a/n.onnx") == {"m.weights"}, "in the same folder, references stay"


def test_in_place_with_its_weights_moved_to_where_they_were(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1), data="m.weights")
    before = weights(source)
    model = open_model(source)
    save(model, model.proto, str(source), external_data="m.weights")
    assert weights(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.weights"]


@pytest.mark.parametrize("name", ["../data", "/tmp/data", "sub/data"])
def test_weights_go_beside_the_model_only(tmp_path: Path, name: str) -> None:
    model = open_model(write(tmp_path, model_of(1)))
    with pytest.raises(OnnxlintError, match="give a name without a folder"):
        save(model, model.proto, str(tmp_path / "n.onnx"), external_data=name)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("name", ["m.onnx", "n.onnx"])
def test_weights_do_not_take_the_place_of_a_model(tmp_path: Path, name: str) -> None:
    source = write(tmp_path, model_of(1))
    before = source.read_bytes()
    model = open_model(source)
    with pytest.raises(OnnxlintError, match="is a model itself"):
        save(model, model.proto, str(tmp_path / "n.onnx"), external_data=name)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


# Files that cannot be trusted


@pytest.mark.parametrize("how", ["inline", "external"])
@pytest.mark.parametrize("hostile", ["absolute", "parent", "link", "missing", "short", "folder"])
def test_hostile_external_data_is_not_followed(tmp_path: Path, hostile: str, how: str) -> None:
    source = write(tmp_path / "a", model_of(1), data="m.weights")
    secret = tmp_path / "secret"
    secret.write_bytes((tmp_path / "a/m.weights").read_bytes())
    proto = onnx.load(source, load_external_data=False)
    name = {"absolute": str(secret), "parent": "../secret", "link": "link", "missing": "nope"}.get(hostile, hostile)
    (tmp_path / "a/link").symlink_to(secret)
    (tmp_path / "a/short").write_bytes(b"\0" * 100)
    (tmp_path / "a/folder").mkdir()
    for tensor in walk_tensors(proto):
        for entry in tensor.external_data:
            entry.value = name if entry.key == "location" else entry.value
    source.write_bytes(proto.SerializeToString())
    model = open_model(source)
    target = tmp_path / "b.onnx"
    target.write_bytes(b"what was there before")
    with pytest.raises(OnnxlintError, match="external data") as caught:
        save(model, model.proto, str(target), inline=how == "inline")
    assert "\n" not in str(caught.value)
    assert target.read_bytes() == b"what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.onnx", "secret"]


def test_a_model_above_two_gigabytes_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1), data="m.weights")
    os.truncate(tmp_path / "m.weights", 3 << 30)  # sparse: it takes no room on the disk
    proto = onnx.load(source, load_external_data=False)
    tensor = proto.graph.initializer[0]
    tensor.dims[0] = (2 << 30) // 4
    for entry in tensor.external_data:
        entry.value = str(2 << 30) if entry.key == "length" else entry.value
    source.write_bytes(proto.SerializeToString())

    def inline() -> str:
        model = open_model(source)
        with pytest.raises(OnnxlintError) as caught:
            save(model, model.proto, str(tmp_path / "n.onnx"), inline=True)
        return str(caught.value)

    run = in_child(inline, memory=100 << 20)
    assert run.problem == ""
    assert "more than protobuf's 2 GiB" in run.value
    assert not (tmp_path / "n.onnx").exists()


# Places


def test_permissions_stay_and_new_files_get_the_usual_ones(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    model = open_model(source)
    target = tmp_path / "n.onnx"
    target.write_bytes(b"old")
    target.chmod(0o640)
    save(model, model.proto, str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    umask = os.umask(0o027)
    try:
        save(model, model.proto, str(tmp_path / "fresh.onnx"), external_data="fresh.data")
    finally:
        os.umask(umask)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("fresh.onnx", "fresh.data")} == {0o640}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    (tmp_path / "store").mkdir()
    (tmp_path / "store/blob").write_bytes(b"old")
    (tmp_path / "n.onnx").symlink_to("store/blob")
    model = open_model(source)
    save(model, model.proto, str(tmp_path / "n.onnx"))
    assert (tmp_path / "n.onnx").is_symlink()
    assert (tmp_path / "store/blob").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["blob"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        model = open_model(source)
        save(model, model.proto, str(pipe))
        assert reader.communicate()[0] == source.read_bytes()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OnnxlintError, match="use --inline"):
        save(model, model.proto, str(pipe), external_data="data")


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    model = open_model(write(tmp_path, model_of(1)))
    (tmp_path / "folder.onnx").mkdir()
    for place in ("folder.onnx", "no/such/folder.onnx"):
        with pytest.raises(OnnxlintError, match="cannot be written: ") as caught:
            save(model, model.proto, str(tmp_path / place))
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "m.onnx"]


def test_an_unwritable_folder(tmp_path: Path) -> None:
    source = write(tmp_path, model_of(1))
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "n.onnx").write_bytes(b"old")
    closed.chmod(0o555)

    def as_nobody() -> str:
        if os.getuid() == 0:
            os.setuid(65534)
        model = open_model(source)
        with pytest.raises(OnnxlintError) as caught:
            save(model, model.proto, str(closed / "n.onnx"))
        return str(caught.value)

    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", tmp_path.name)):
            folder.chmod(0o755)
    try:
        run = in_child(as_nobody)
    finally:
        closed.chmod(0o755)
    assert run.problem == ""
    assert "cannot be written: Permission denied" in run.value
    assert (closed / "n.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("data", [None, "n.data"])
def test_a_full_disk_leaves_the_old_model(tmp_path: Path, data: str | None) -> None:
    """A limit on the size of files: to the writer, the same error in the same place as a disk without room."""
    source = write(tmp_path, model_of(1))
    old = write(tmp_path, model_of(7), "n.onnx", data)
    before = weights(old)

    def on_a_full_disk() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        model = open_model(source)
        with pytest.raises(OnnxlintError) as caught:
            save(model, model.proto, str(old), external_data=data)
        return str(caught.value)

    names = sorted(path.name for path in tmp_path.iterdir())
    run = in_child(on_a_full_disk)
    assert run.problem == ""
    assert f"cannot be written: {os.strerror(errno.EFBIG)}" in run.value
    assert weights(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


# Killed at any moment


def _save_in_turn(folder: Path, data: str) -> None:
    """Save one model and the other to the same place, until somebody ends it."""
    models = [open_model(folder / name) for name in ("even.onnx", "odd.onnx")]
    while True:
        for model in models:
            save(model, model.proto, str(folder / "n.onnx"), external_data=data or None)


def _in_killed_child(call: Callable[[], None], seconds: float | None = None) -> None:
    """Make a call in a child that does not live to its end, or not for longer than `seconds`."""
    child = os.fork()
    if child == 0:
        try:
            call()
        finally:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("data", ["", "n.data"])
def test_killed_at_any_moment_it_leaves_the_old_model_or_the_new(tmp_path: Path, data: str) -> None:
    """Two models of the same layout take turns at one place: a mixture of both would load, and be wrong."""
    wanted = set()
    for i, name in enumerate(("even.onnx", "odd.onnx")):
        wanted.add(_digest(write(tmp_path, model_of(i, 50_000, 4), name)))
    delays = random.Random(0)
    seen = set()
    for _ in range(30):
        _in_killed_child(lambda: _save_in_turn(tmp_path, data), delays.uniform(0, 0.05))
        if (tmp_path / "n.onnx").exists():
            seen.add(_digest(tmp_path / "n.onnx"))
            assert seen <= wanted
    assert seen


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("data", [None, "n.data"])
def test_killed_between_any_two_moves(tmp_path: Path, data: str | None, step: int) -> None:
    source = write(tmp_path, model_of(1))
    target = write(tmp_path, model_of(2), "n.onnx", data)
    wanted = {_digest(source), _digest(target)}

    def save_until_step() -> None:
        replace = os.replace
        done: list[object] = []

        def replace_or_die(*names: Any) -> None:
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*names)
            done.append(names)

        os.replace = replace_or_die  # type: ignore[assignment]  # in a process of its own
        model = open_model(source)
        save(model, model.proto, str(target), external_data=data)
        os.kill(os.getpid(), signal.SIGKILL)  # it has fewer moves than that

    _in_killed_child(save_until_step)
    assert _digest(target) in wanted
    onnx.checker.check_model(target)


def _digest(path: Path) -> str:
    """What is in a model and its weights, wherever they lie."""
    return hashlib.sha256(b"".join(weights(path).values())).hexdigest()
