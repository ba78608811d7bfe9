"""SEC001 and SEC002 on real files."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnxlint.errors import OnnxlintError
from onnxlint.lint.engine import Plan, check_file
from onnxlint.lint.finding import Finding
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import open_model

RANGE = {"location": "w.bin", "length": "16"}


def weights(name: str, **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def save(path: Path, *tensors: onnx.TensorProto) -> str:
    """A model that adds all tensors to its input."""
    nodes = []
    value = "x"
    for tensor in tensors:
        nodes.append(helper.make_node("Add", [value, tensor.name], [f"y_{tensor.name}"]))
        value = f"y_{tensor.name}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [4])],
        list(tensors),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def findings(path: str) -> list[Finding]:
    rules = tuple(load_registry().find(code) for code in ("SEC001", "SEC002", "SPC001"))
    result = check_file(path, Plan(rules))
    assert result.error is None
    return list(result.findings)


def test_complete_data_gives_nothing(tmp_path: Path) -> None:
    tied = weights("tied", location="w.bin", offset="0", length="16")
    path = save(
        tmp_path / "m.onnx",
        weights("w", **RANGE),
        tied,
        weights("v", location="w.bin", offset="16"),
        weights("u", **RANGE),
    )
    (tmp_path / "w.bin").write_bytes(bytes(32))

    assert findings(path) == []


def test_one_finding_for_a_missing_file_of_many_tensors(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        *(weights(f"w{i}", location="w.bin", offset=str(16 * i), length="16") for i in range(300)),
    )

    (found,) = findings(path)

    assert found.code == "SEC002"
    assert found.message == "external data file 'w.bin' is missing (300 tensors, 'w0' first)"
    assert ("count", "300") in found.evidence


def test_a_file_cut_short_names_the_tensor_that_reaches_furthest(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        *(weights(f"w{i}", location="w.bin", offset=str(16 * i), length="16") for i in (0, 2, 1)),
    )
    (tmp_path / "w.bin").write_bytes(bytes(20))

    (found,) = findings(path)

    assert found.message == "external data file 'w.bin' has 20 bytes, but 48 are needed (2 tensors, 'w2' first)"
    assert found.location.value == "w2"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "w.bin", "length": "12"}, "its external data is 12 bytes, but its dims and type take 16"),
        ({"location": "w.bin", "offset": "eight"}, "its offset or length is not a number"),
        ({"location": "w.bin", "length": "-16"}, "its offset or length is negative"),
        ({"location": "."}, "is not a regular file"),
        ({}, "its external data names no file"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, entries: dict[str, str], says: str) -> None:
    path = save(tmp_path / "m.onnx", weights("w", **entries))
    (tmp_path / "w.bin").write_bytes(bytes(64))

    (found,) = findings(path)

    assert found.code == "SEC002"
    assert says in found.message


def test_overlap(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        weights("a", location="w.bin", length="16"),
        weights("b", location="w.bin", offset="8", length="16"),
    )
    (tmp_path / "w.bin").write_bytes(bytes(64))

    (found,) = findings(path)

    assert found.message == "tensors 'a' and 'b' share 8 bytes of 'w.bin', and neither holds the other"


def test_a_link_out_of_the_folder_is_neither_reported_as_readable_nor_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    path = save(tmp_path / "model" / "m.onnx", weights("w", **RANGE))
    os.symlink("../secret", tmp_path / "model" / "w.bin")

    (found,) = findings(path)

    assert (found.code, found.severity.value) == ("SEC001", "error")
    assert found.message == "tensor 'w': its external data location 'w.bin' is a link that leaves the model's folder"
    model = open_model(path)
    with pytest.raises(OnnxlintError, match="leaves the model's folder"):
        model.array(model.proto.graph.initializer[0])


def test_a_linked_folder_leads_out_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    path = save(tmp_path / "model" / "m.onnx", weights("w", location="up/secret"))
    os.symlink("..", tmp_path / "model" / "up")

    (found,) = findings(path)

    assert found.code == "SEC001"


def test_links_inside_the_folder_and_hard_links_are_told_as_information(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(bytes(16))
    os.symlink("real.bin", tmp_path / "soft.bin")
    os.link(tmp_path / "real.bin", tmp_path / "hard.bin")
    path = save(tmp_path / "m.onnx", weights("s", location="soft.bin"), weights("h", location="hard.bin"))

    soft, hard = findings(path)

    assert {soft.severity.value, hard.severity.value} == {"info"}
    assert "'soft.bin' is a symbolic link: onnx 1.21 and later refuse to load it" in soft.message
    assert "'hard.bin' has 2 hard links" in hard.message


def test_the_hugging_face_cache_is_readable(tmp_path: Path) -> None:
    save(tmp_path / "blobs" / "aaa", weights("w", location="m.onnx_data"))
    (tmp_path / "blobs" / "bbb").write_bytes(bytes(16))
    folder = tmp_path / "snapshots" / "1"
    folder.mkdir(parents=True)
    os.symlink("../../blobs/aaa", folder / "m.onnx")
    os.symlink("../../blobs/bbb", folder / "m.onnx_data")

    found = findings(str(folder / "m.onnx"))

    assert [finding.severity.value for finding in found] == ["info"]
    model = open_model(folder / "m.onnx")
    assert model.array(model.proto.graph.initializer[0]).tolist() == [0, 0, 0, 0]


def test_data_of_a_constant_node(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["c"], name="const")
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=weights("", **RANGE))
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])])
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    )

    (found,) = findings(str(path))

    assert found.message == "external data file 'w.bin' is missing (tensor 'c')"
    assert found.location.node == "const"
