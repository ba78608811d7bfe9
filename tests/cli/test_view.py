"""`onnxlint view`, typed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx.parser
import pytest

from fixtures import pitfalls
from onnxlint.cli.view_part import around, find_node, part_of
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
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


@pytest.mark.skipif(sys.platform == "win32", reason="ctrl-c cannot be sent to one process there")
def test_serves_the_neighbourhood_of_a_node(detector: Path) -> None:
    pytest.importorskip("netron", reason="extra 'view' is not installed")
    words = [sys.executable, "-m", "onnxlint", "view", str(detector), "--at", "/fpn/Resize", "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " nodes around /fpn/Resize: http://localhost:" in line
            address = line.split(": ")[1].split()[0]
            with urllib.request.urlopen(f"{address}/data/{detector.name}", timeout=10) as answer:
                served = onnx.load_model_from_string(answer.read())
            assert "/fpn/Resize" in [node.name for node in served.graph.node]
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=10) == ("", "")
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


# --at


def part(path: str | Path, place: str, steps: int = 4) -> onnx.ModelProto:
    view = make_view(open_model(str(path)))
    return onnx.load_model_from_string(part_of(view, around(find_node(view, place), steps)))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pitfalls.build(tmp_path_factory.mktemp("view"))[0]


def test_the_neighbourhood_is_a_valid_model_with_the_types_of_its_edges(detector: Path) -> None:
    small = part(detector, "/fpn/Resize", 2)
    onnx.checker.check_model(small, full_check=True)
    names = [node.name for node in small.graph.node]
    assert "/fpn/Resize" in names
    assert len(names) < 15
    assert {"/fpn/Add", "/fpn/Concat_1"} <= set(names)
    shapes = {value.name: value for value in small.graph.input}
    assert all(value.type.tensor_type.elem_type for value in shapes.values())
    whole = part(detector, "/fpn/Resize", 50)
    assert len(whole.graph.node) == len(onnx.load(detector).graph.node)


@pytest.mark.parametrize("place", ["/fpn/Resize", "Resize #22", "/fpn/Resize_output_0"])
def test_places_are_named_as_findings_name_them(detector: Path, place: str) -> None:
    view = make_view(open_model(str(detector)))
    index = next(node.index for node in view.nodes() if node.name == "/fpn/Resize")
    assert find_node(view, place.replace("#22", f"#{index}")).name == "/fpn/Resize"


def test_large_weights_become_inputs_and_are_not_read(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.zeros((1024, 1024), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "mul")
    values = [onnx.helper.make_tensor_value_info(n, 1, [1, 1024]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    small = part(tmp_path / "m.onnx", "mul")
    assert [value.name for value in small.graph.input] == ["x", "w"]
    assert not small.graph.initializer


def test_values_that_a_nested_graph_reads_are_inputs(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2] x, bool c) => (float[2] y) {
        k = Neg (x)
        y = If (c) <
            then_branch = t () => (float[2] a) { a = Abs (k) },
            else_branch = e () => (float[2] b) { b = Exp (k) }
        >
    }
    """
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    small = part(path, "If #1", 0)
    assert [value.name for value in small.graph.input] == ["c", "k"]
    onnx.checker.check_model(small)
    inner = part(path, "Abs #0")
    assert [node.op_type for node in inner.graph.node] == ["Abs"]


def test_a_place_that_is_none_is_one_line(detector: Path, tmp_path: Path) -> None:
    done = onnxlint("view", str(detector), "--at", "/fpn/Resizee")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("has no such node; did you mean '/fpn/Resize'?\n")
    (tmp_path / "net.param").write_text("7767517")
    assert "leave it out" in onnxlint("view", str(tmp_path / "net.param"), "--at", "x").err
