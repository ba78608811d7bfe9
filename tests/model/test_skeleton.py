"""Opening: the skeleton of whatever kind of model, weights left where they are and read only when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model.external import tensor_bytes
from onnxlint.model.save import to_bytes
from onnxlint.model.skeleton import Model, inline_span, is_external, locate_external, open_model, walk_tensors
from onnxlint.model.wire import LARGE
from tests.support.command import CLEAN, onnxlint
from tests.support.fuzzing import in_child

COUNT = LARGE // 4
"""Floats that are just large enough to be left in the file."""


def tensor(name: str, first: float, count: int = COUNT) -> TensorProto:
    return numpy_helper.from_array(np.arange(first, first + count, dtype=np.float32), name)


def everywhere(count: int = COUNT) -> onnx.ModelProto:
    """A tensor in each place that can hold one; the nth starts with n."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["ic"], value=tensor("in a body's Constant", 1, count))],
        "inner",
        [],
        [helper.make_tensor_value_info("ic", 1, [count])],
        [tensor("in a body", 2, count)],
    )
    sparse = helper.make_sparse_tensor(
        tensor("sparse values", 3, count), numpy_helper.from_array(np.arange(count, dtype=np.int64), "places"), [count]
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor("in a Constant", 4, count)),
        helper.make_node("If", ["flag"], ["i"], then_branch=inner, else_branch=inner),
        helper.make_node("Listing", [], ["l"], domain="own", ts=[tensor("in a list", 5, count)]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("flag", 9, [])], [], [tensor("initializer", 6, count)]
    )
    graph.sparse_initializer.append(sparse)
    constant = helper.make_node("Constant", [], ["r"], value=tensor("in a function", 7, count))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", [], ["r"], [constant], opsets[:1])
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    training = model.training_info.add()
    training.algorithm.initializer.append(tensor("in training", 8, count))
    return model


def write(folder: Path, proto: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_stay_in_the_file_wherever_they_are(tmp_path: Path) -> None:
    proto = everywhere()
    model = open_model(write(tmp_path, proto))
    assert model.proto.ByteSize() < 6000 < 40_000 < model.size
    tensors = [t for t in walk_tensors(model.proto) if "places" not in t.name]
    assert len(tensors) == 10, "eight, the body's two of them in both branches"
    for held in tensors:
        assert inline_span(held) is not None, held.name
        assert not is_external(held)
        values = model.array(held)
        assert values.shape == (COUNT,)
        assert 1 <= values[0] <= 8
        assert not values.flags.writeable
    assert onnx.ModelProto.FromString(to_bytes(model, model.proto)) == proto


def test_small_tensors_stay_in_the_skeleton(tmp_path: Path) -> None:
    proto = everywhere(COUNT // 2 - 1)
    model = open_model(write(tmp_path, proto))
    assert model.proto == proto


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, np.linspace(0, 1, 2000, dtype=np.float32)),
        (TensorProto.DOUBLE, np.linspace(0, 1, 2000)),
        (TensorProto.INT64, np.arange(-1000, 1000)),
        (TensorProto.UINT64, np.arange(2000, dtype=np.uint64)),
        (TensorProto.INT32, np.arange(-1000, 1000, dtype=np.int32)),
        (TensorProto.INT8, (np.arange(5000) % 100).astype(np.int8)),
        (TensorProto.BOOL, np.arange(5000) % 3 == 0),
        (TensorProto.FLOAT16, np.linspace(0, 1, 3000).astype(np.float16)),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_field_that_holds_data(tmp_path: Path, kind: int, values: np.ndarray, raw: bool) -> None:
    plain = helper.make_tensor("w", kind, values.shape, values.tolist())
    held = numpy_helper.from_array(values, "w") if raw else plain
    proto = helper.make_model(helper.make_graph([], "g", [], [], [held]), ir_version=8)
    model = open_model(write(tmp_path, proto))
    skeleton = model.proto.graph.initializer[0]
    read = model.array(skeleton)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)
    assert onnx.ModelProto.FromString(to_bytes(model, model.proto)) == proto


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.FLOAT8E4M3FN])
def test_types_that_numpy_lacks(tmp_path: Path, kind: int) -> None:
    held = helper.make_tensor("w", kind, [10_000], [i % 7 for i in range(10_000)])
    proto = helper.make_model(helper.make_graph([], "g", [], [], [held]), ir_version=10)
    model = open_model(write(tmp_path, proto))
    read = model.array(model.proto.graph.initializer[0])
    assert read.astype(np.float32).tolist() == [i % 7 for i in range(10_000)]
    if held.raw_data:
        assert tensor_bytes(held) == len(held.raw_data)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = everywhere()
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0, convert_attribute=True)
    model = open_model(path)
    held = model.proto.graph.initializer[0]
    assert is_external(held)
    found = locate_external(model, held)
    assert (found.kind, os.path.basename(found.path), found.length) == ("", "w.bin", LARGE)
    assert model.array(held)[0] == 6
    (tmp_path / "w.bin").unlink()
    assert open_model(path).proto == model.proto, "opening reads no weights"
    with pytest.raises(OnnxlintError, match=r"'initializer': external data file 'w.bin' is missing"):
        model.array(held)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("w.bin", ""),
        ("./sub/../w.bin", ""),
        ("inside", ""),
        ("", "missing"),
        ("nope.bin", "missing"),
        ("/etc/passwd", "escapes"),
        ("C:\\w.bin", "escapes"),
        ("../w.bin", "escapes"),
        ("sub/../../w.bin", "escapes"),
        ("..\\w.bin", "escapes"),
        ("outside", "escapes"),
        ("w\0.bin", "escapes"),
        ("sub", "irregular"),
        ("short.bin", "short"),
    ],
)
def test_where_external_data_may_lie(tmp_path: Path, location: str, kind: str) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    for place in (home / "w.bin", tmp_path / "w.bin"):
        place.write_bytes(bytes(LARGE))
    (home / "short.bin").write_bytes(bytes(10))
    (home / "inside").symlink_to("w.bin")
    (home / "outside").symlink_to("../w.bin")
    held = TensorProto(name="w", data_type=1, dims=[COUNT], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value=location)
    model = Model(str(home / "m.onnx"), onnx.ModelProto(), 0, str(home))
    found = locate_external(model, held)
    assert found.kind == kind
    assert "\n" not in found.problem
    assert "\0" not in found.problem


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [("offset", "-1", "numbers"), ("length", "many", "numbers"), ("length", "8", "mismatch"), ("offset", "1", "short")],
)
def test_offsets_that_lie(tmp_path: Path, key: str, value: str, kind: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(LARGE))
    held = TensorProto(name="w", data_type=1, dims=[COUNT], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value="w.bin")
    held.external_data.add(key=key, value=value)
    model = Model(str(tmp_path / "m.onnx"), onnx.ModelProto(), 0, str(tmp_path))
    assert locate_external(model, held).kind == kind
    with pytest.raises(OnnxlintError, match="tensor 'w'"):
        model.array(held)


def test_a_file_cannot_pretend_that_its_data_was_left_somewhere(tmp_path: Path) -> None:
    """The mark is another one in each process: a file that holds one of ours gets nothing out of it."""
    program = "from onnxlint.model.wire import MARK; print(MARK)"
    marks = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(marks) == 2
    assert all(mark.startswith("onnxlint.") for mark in marks)


# Other ways in


def test_textual_models_in_three_syntaxes(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(CLEAN)
    for suffix, kind in ((".onnxtxt", None), (".textproto", "textproto"), (".json", "json")):
        path = tmp_path / f"m{suffix}"
        if kind is None:
            path.write_text(CLEAN)
        else:
            onnx.save(proto, path, format=kind)
        assert open_model(path).proto == proto, suffix
    (tmp_path / "text.onnx").write_text(CLEAN)
    assert open_model(tmp_path / "text.onnx").proto == proto, "text is known by its looks too"


def test_a_mistake_in_a_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.onnxtxt"
    path.write_text(CLEAN.replace("Relu (image)", "Relu (image"))
    with pytest.raises(OnnxlintError) as caught:
        open_model(path)
    assert str(caught.value).startswith(f"{path}: not a textual ONNX model: ")
    assert "\n" not in str(caught.value)


def test_standard_input_and_pipes(tmp_path: Path) -> None:
    data = everywhere().SerializeToString()
    assert onnxlint("check", "-", "--select", "SEC", stdin=data).code == 0
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())",
                           str(pipe)], stdin=subprocess.PIPE) as writer:  # fmt: skip
        assert writer.stdin is not None
        writer.stdin.write(data)
        writer.stdin.close()
        model = open_model(pipe)
    assert to_bytes(model, model.proto) == data


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    data = onnx.parser.parse_model(CLEAN).SerializeToString().replace(b"features", b"f\xffatures")
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert open_model(path).proto.graph.output[0].name == "f\\xffatures"


def test_opening_costs_no_memory_for_weights(tmp_path: Path) -> None:
    """Half a gigabyte of weights, in a file with holes: opened, checked and saved in a few megabytes."""
    from onnxlint.model.wire import key_bytes

    megabytes = 512
    size = megabytes << 20
    header = TensorProto(dims=[size // 4], data_type=1, name="w").SerializeToString() + key_bytes(9, size)
    graph = key_bytes(5, len(header) + size) + header
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x08" + key_bytes(7, len(graph) + size) + graph)
        file.truncate(file.tell() + size)

    def run() -> tuple[int, int, float]:
        model = open_model(path)
        held = model.proto.graph.initializer[0]
        return model.size, model.proto.ByteSize(), float(model.array(held)[-1])

    child = in_child(run, memory=size + (64 << 20))  # the map counts as address space
    assert child.problem == ""
    assert child.value[0] == path.stat().st_size > size
    assert child.value[1] < 500
    assert child.peak < 40 << 20
