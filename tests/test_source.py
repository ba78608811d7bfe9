"""From a node to the line of Python or the module that made it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import helper

from onnxlint.model import open_model
from onnxlint.source import Sources
from onnxlint.view import GraphView
from tests.command import onnxlint, save

DATA = Path(__file__).parents[2] / "shared" / "data" / "retinaface"


def node(name: str = "", **properties: str) -> onnx.NodeProto:
    made = helper.make_node("Relu", ["x"], ["y"], name=name)
    for key, value in properties.items():
        made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return made


def trace(*frames: tuple[str, int, str]) -> str:
    return "\n".join(f'File "{path}", line {line}, in forward\n    {code}' for path, line, code in frames)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("")
    return tmp_path


def test_frames_inside_torch_are_dropped(repository: Path) -> None:
    text = trace(
        (f"{repository}/models/net.py", 89, "up3 = F.interpolate(x)"),
        ("/venv/lib/python3.11/site-packages/torch/nn/functional.py", 4000, "return torch._C"),
    )
    (line,) = Sources(repository).lines(node(stack_trace=text))
    assert (line.path, line.line, line.code) == ("models/net.py", 89, "up3 = F.interpolate(x)")


def test_a_path_of_another_machine_is_found_by_its_end(repository: Path) -> None:
    (line,) = Sources(repository).lines(node(stack_trace=trace(("/home/ann/work/face/models/net.py", 3, "y = f(x)"))))
    assert line.path == "models/net.py"


def test_a_path_cannot_leave_the_repository(repository: Path) -> None:
    (repository.parent / "secret.py").write_text("")
    (line,) = Sources(repository).lines(node(stack_trace=trace(("x/../../secret.py", 1, "?"))))
    assert line.path == "x/../../secret.py"  # as it is written, and not resolved to a file


def test_an_installed_package_is_named_from_its_root(repository: Path) -> None:
    text = trace(("/venv/lib/python3.11/site-packages/timm/models/vit.py", 7, "x = self.blocks(x)"))
    (line,) = Sources(repository).lines(node(stack_trace=text))
    assert line.path == "timm/models/vit.py"


def test_the_module_tells_where_a_repository_starts(tmp_path: Path) -> None:
    made = node(
        stack_trace=trace(("/gone/face/detector/net.py", 5, "x = f(x)")), class_hierarchy="['detector.net.FPN', 'aten']"
    )
    (line,) = Sources(tmp_path).lines(made)
    assert line.path == "detector/net.py"


@pytest.mark.parametrize(
    ("name", "properties", "scope"),
    [
        ("/fpn/Resize", {}, "fpn"),
        ("/body/stage1/stage1.0/stage1.0.0/Conv", {}, "body.stage1.0.0"),
        ("/Relu", {}, ""),
        ("Relu_12", {}, ""),
        ("n0", {"name_scopes": "['', 'fpn', 'fpn.up', 'interpolate']"}, "fpn.up"),
        ("n0", {"name_scopes": "__import__('os').system('true')"}, ""),
        ("n0", {"name_scopes": "[" * 5000}, ""),
    ],
)
def test_scopes(name: str, properties: dict[str, str], scope: str) -> None:
    assert Sources(".").scope(node(name, **properties)) == scope


def test_the_nearest_output_where_there_is_neither(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[N] x) => (float[N] near, float[N] far) {
        a = Relu (x)
        near = Neg (a)
        b = Relu (near)
        far = Neg (b)
    }"""
    import onnx.parser

    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    view = GraphView(open_model(tmp_path / "m.onnx"))
    first, second = view.nodes("Relu")
    assert view.at(first).near == "near"
    assert view.at(second).near == "far"


def test_a_finding_names_the_module(tmp_path: Path) -> None:
    out = onnxlint("check", save(tmp_path / "m.onnx"), "--select", "SHP001", "--isolated")
    assert "module fpn" in out.out


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_real_exports(tmp_path: Path) -> None:
    dynamo = onnxlint("check", DATA / "original_dynamo_dyn.onnx", "--select", "SHP001", "--isolated")
    assert (
        'models/net.py:89  up3 = F.interpolate(output3, size=[output2.size(2), output2.size(3)], mode="nearest")'
        in dynamo.out
    )
    scripted = onnxlint("check", DATA / "original_op11_dyn.onnx", "--select", "SHP001", "--isolated")
    assert "/fpn/Resize" in scripted.out
    assert os.fspath(tmp_path) not in scripted.out
