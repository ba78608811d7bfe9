"""Opening a model without its weights: what is in the skeleton, what stays in the file, what is refused."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model import (
    LARGE,
    Model,
    inline_span,
    is_external,
    locate_external,
    open_model,
    tensor_bytes,
    walk_tensors,
)

BIG = np.arange(LARGE, dtype=np.float32)  # four times the bytes that stay in the skeleton
SMALL = np.arange(4, dtype=np.float32)


def constant(name: str, values: np.ndarray[Any, Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, f"{name}_value"))


def everywhere() -> onnx.ModelProto:
    """A model with a large tensor in each place that can hold one."""
    body = helper.make_graph(
        [constant("in_body", BIG), helper.make_node("Add", ["in_body", "body_weight"], ["out"])],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [LARGE])],
        [numpy_helper.from_array(BIG, "body_weight")],
    )
    function = helper.make_function(
        "team",
        "Shift",
        ["x"],
        ["y"],
        [constant("c", BIG), helper.make_node("Add", ["x", "c"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["condition"], ["branch"], then_branch=body, else_branch=body),
            helper.make_node("Shift", ["branch"], ["shifted"], domain="team"),
            helper.make_node("Add", ["shifted", "weight"], ["sum"]),
            helper.make_node("Add", ["sum", "small"], ["y"]),
        ],
        "main",
        [helper.make_tensor_value_info("condition", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [LARGE])],
        [numpy_helper.from_array(BIG, "weight"), numpy_helper.from_array(SMALL[:1], "small")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("team", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_large_tensors_stay_in_the_file_wherever_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", everywhere())
    model = open_model(path)
    tensors = list(walk_tensors(model.proto))
    large = [tensor for tensor in tensors if inline_span(tensor) is not None]
    assert len(large) == 6  # twice in each branch, once in the function, once as an initializer
    assert model.proto.ByteSize() < path.stat().st_size / 10
    for tensor in large:
        assert not tensor.raw_data
        assert not is_external(tensor)
        np.testing.assert_array_equal(model.array(tensor), BIG)
    (small,) = (tensor for tensor in tensors if tensor.name == "small")
    assert numpy_helper.to_array(small) == [0.0]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (TensorProto.FLOAT, "float_data"),
        (TensorProto.INT32, "int32_data"),
        (TensorProto.FLOAT16, "int32_data"),
        (TensorProto.INT64, "int64_data"),
        (TensorProto.DOUBLE, "double_data"),
        (TensorProto.UINT64, "uint64_data"),
    ],
)
def test_typed_data_is_left_in_the_file_too(tmp_path: Path, kind: int, field: str) -> None:
    tensor = helper.make_tensor("w", kind, [LARGE], list(range(LARGE)))
    expected = numpy_helper.to_array(tensor)
    graph = helper.make_graph([], "g", [], [], [tensor])
    model = open_model(write(tmp_path / "m.onnx", helper.make_model(graph)))
    (opened,) = model.proto.graph.initializer
    span = inline_span(opened)
    assert span is not None
    assert span.field == field
    np.testing.assert_array_equal(model.array(opened), expected)


def test_weights_are_read_only(tmp_path: Path) -> None:
    model = open_model(write(tmp_path / "m.onnx", everywhere()))
    values = model.array(model.proto.graph.initializer[0])
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1  # type: ignore[index]


def external(folder: Path, location: str = "w.bin", **entries: str) -> Model:
    tensor = numpy_helper.from_array(BIG, "w")
    (folder / "w.bin").write_bytes(b"head" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "4", "length": str(BIG.nbytes), **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return open_model(write(folder / "m.onnx", helper.make_model(helper.make_graph([], "g", [], [], [tensor]))))


def test_external_weights_are_read_on_request_only(tmp_path: Path) -> None:
    model = external(tmp_path)
    (tensor,) = model.proto.graph.initializer
    assert is_external(tensor)
    np.testing.assert_array_equal(model.array(tensor), BIG)
    (tmp_path / "w.bin").unlink()
    open_model(tmp_path / "m.onnx")
    with pytest.raises(OnnxlintError, match=r"external data file 'w.bin' is missing"):
        model.array(tensor)


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ({"location": "/etc/passwd"}, "escapes"),
        ({"location": "../w.bin"}, "escapes"),
        ({"location": "a/../../w.bin"}, "escapes"),
        ({"location": "..\\w.bin"}, "escapes"),
        ({"location": "C:\\w.bin"}, "escapes"),
        ({"location": "link"}, "escapes"),
        ({"location": "folder"}, "irregular"),
        ({"location": "gone.bin"}, "missing"),
        ({"location": ""}, "missing"),
        ({"offset": "-4"}, "numbers"),
        ({"offset": "four"}, "numbers"),
        ({"length": "8"}, "mismatch"),
        ({"offset": "5"}, "short"),
        ({"offset": "9" * 30}, "short"),
    ],
)
def test_external_data_that_must_not_be_read(tmp_path: Path, entries: dict[str, str], kind: str) -> None:
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", folder / "link")
    model = external(folder, **{"location": "w.bin", **entries})
    (tensor,) = model.proto.graph.initializer
    found = locate_external(model, tensor)
    assert found.kind == kind
    assert "\n" not in found.problem
    with pytest.raises(OnnxlintError):
        model.array(tensor)


def test_a_file_cannot_pass_its_own_references_off_as_ours(tmp_path: Path) -> None:
    model = external(tmp_path, **{"onnxlint.mark": "raw_data"})
    (tensor,) = model.proto.graph.initializer
    assert inline_span(tensor) is None


TEXT = '<ir_version: 8, opset_import: ["": 17]> net (float[N] x) => (float[N] y) { y = Relu (x) }'


@pytest.mark.parametrize("name", ["m.onnxtxt", "m.onnxtext", "m.onnx.txt"])
def test_textual_models(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXT)
    assert [node.op_type for node in open_model(tmp_path / name).proto.graph.node] == ["Relu"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = onnx.parser.parse_model(TEXT).SerializeToString()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    model = open_model("-")
    assert model.path == "-"
    assert model.proto.graph.node[0].op_type == "Relu"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x3a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes and 0 are left"),
        (b"\xff" * 64, "a number at byte 0 has more than 10 bytes"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(OnnxlintError, match=message) as caught:
        open_model(tmp_path / "m.onnx")
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_an_error_or_a_smaller_model(tmp_path: Path) -> None:
    data = onnx.parser.parse_model(TEXT).SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        problem = ""
        try:
            assert open_model(path).proto.SerializeToString() == data[:length]
        except OnnxlintError as error:
            problem = str(error)
        assert "\n" not in problem


def test_folders_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(OnnxlintError, match="is a folder"):
        open_model(tmp_path / "x.onnx")
    with pytest.raises(OnnxlintError, match="no such file"):
        open_model(tmp_path / "y.onnx")


def test_bytes_of_packed_types() -> None:
    def size(kind: int, *dims: int) -> int | None:
        return tensor_bytes(TensorProto(data_type=kind, dims=dims))

    assert size(TensorProto.FLOAT, 3, 5) == 60
    assert size(TensorProto.INT4, 3) == 2
    assert size(TensorProto.FLOAT16) == 2
    assert size(TensorProto.STRING, 3) is None
