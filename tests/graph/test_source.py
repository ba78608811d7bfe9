"""From a node to the line of PyTorch that made it."""

from __future__ import annotations

import time
from pathlib import Path

import onnx
import pytest

from onnxlint.graph.source import Sources
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import open_model
from tests.support.zoo import RETINAFACE

TRACE = """File "/usr/lib/python3.11/runpy.py", line 88, in _run_code
  exec(code, run_globals)
File "{root}/export.py", line 12, in main
  torch.onnx.export(net, (x,))
File "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1775, in _call_impl
  return forward_call(*args, **kwargs)
File "{root}/models/net.py", line 89, in forward
  up3 = F.interpolate(output3, size=[output2.size(2), output2.size(3)], mode="nearest")
File "/venv/lib/python3.11/site-packages/torch/nn/functional.py", line 4700, in interpolate
  return torch._C._nn.upsample_nearest2d(input, output_size, scale_factors)
"""


def node(name: str = "node", **properties: str) -> onnx.NodeProto:
    made = onnx.NodeProto(op_type="Resize", name=name)
    for key, value in properties.items():
        made.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return made


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "models/net.py").touch()
    (root / "export.py").touch()
    return root


def places(sources: Sources, made: onnx.NodeProto) -> list[str]:
    return [f"{line.path}:{line.line}" for line in sources.lines(made)]


def test_frames_of_a_stack_trace_torch_left_out(repository: Path) -> None:
    lines = Sources(repository).lines(node(stack_trace=TRACE.format(root=repository)))
    assert [(line.path, line.line, line.function) for line in lines[1:]] == [
        ("export.py", 12, "main"),
        ("models/net.py", 89, "forward"),
    ]
    assert lines[-1].code.startswith("up3 = F.interpolate(output3, size=")


def test_paths_of_another_machine_are_found_by_their_ends(repository: Path) -> None:
    made = node(stack_trace=TRACE.format(root="/home/somebody/work/retina"))
    assert places(Sources(repository), made)[-1] == "models/net.py:89"
    made = node(stack_trace=TRACE.format(root="C:\\work\\retina").replace("/models/net.py", "\\models\\net.py"))
    assert places(Sources(repository), made)[-1] == "models/net.py:89"


def test_paths_that_are_nowhere_are_shortened_by_the_class_or_left(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    sources = Sources(tmp_path)
    trace = TRACE.format(root="/home/somebody/retina")
    assert places(sources, node(stack_trace=trace))[-1] == "/home/somebody/retina/models/net.py:89"
    classes = "['__main__.Wrapper', 'models.net.FPN', 'torch.nn.modules.conv.Conv2d']"
    assert places(sources, node(stack_trace=trace, class_hierarchy=classes))[-1] == "models/net.py:89"
    installed = 'File "/v/lib/python3.11/site-packages/timm/models/vit.py", line 3, in forward\n  x = y\n'
    assert places(sources, node(stack_trace=installed)) == ["timm/models/vit.py:3"]


def test_a_trace_does_not_lead_out_of_the_repository(repository: Path) -> None:
    (repository.parent / "secret.py").touch()
    made = node(stack_trace='File "models/../../secret.py", line 1, in f\n  x = 1\n')
    assert places(Sources(repository), made) == ["models/../../secret.py:1"]


@pytest.mark.parametrize(
    "trace", ["", "no trace at all", 'File "', 'File "a.py", line x', "\0" * 50, 'File "\n", line 1']
)
def test_traces_that_are_none(trace: str) -> None:
    assert Sources("/").lines(node(stack_trace=trace)) == ()


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("/fpn/Resize", "fpn"),
        ("/fpn/output3/output3.2/LeakyRelu", "fpn.output3.2"),
        ("/body/stage1/stage1.0/stage1.0.0/Conv", "body.stage1.0.0"),
        ("/Resize", ""),
        ("Resize_12", ""),
        ("", ""),
        ("//", ""),
    ],
)
def test_modules_by_the_names_that_torchscript_gives(name: str, scope: str) -> None:
    assert Sources("/").scope(node(name)) == scope


@pytest.mark.parametrize(
    ("scopes", "scope"),
    [
        ("['', 'fpn', 'interpolate']", "fpn"),
        ("['', 'body', 'body.stage1', 'conv2d_3']", "body.stage1"),
        ("['', '_empty_nn_module_stack_from_metadata_hook', 'x']", ""),
        ("['only']", ""),
        ("not a list", ""),
        ("{'a': 1}", ""),
        ("[1, 2, 3]", ""),
        ("[" * 5000, ""),
        ("", ""),
    ],
)
def test_modules_by_the_scopes_that_dynamo_leaves(scopes: str, scope: str) -> None:
    assert Sources("/").scope(node(name_scopes=scopes)) == scope


def test_real_exports_name_the_lines_and_the_modules() -> None:
    """Both Resize of RetinaFace are made in the feature pyramid."""
    places = {}
    for name in ("original_dynamo_dyn", "original_op17_dyn", "original_op11_dyn"):
        path = RETINAFACE / f"{name}.onnx"
        if not path.exists():
            pytest.skip(f"{path} is not there")
        held = GraphView(open_model(path))
        places[name] = [held.at(resize) for resize in held.nodes("Resize")]
    for place in places["original_dynamo_dyn"]:
        assert place.source
        assert "F.interpolate(" in place.source[-1].code
        assert not any("torch/" in line.path for line in place.source)
    assert [place.scope for place in places["original_op17_dyn"]] == ["fpn", "fpn"]
    for place in places["original_op11_dyn"]:
        assert place.scope or place.near, "at least the nearest output"


@pytest.mark.parametrize("path", ["/".join(["a"] * 2000), "/" * 200_000 + "x.py", "/".join(["a"] * 200_000), "\0.py"])
def test_paths_that_are_none_cost_nothing(path: str) -> None:
    start = time.process_time()
    trace = f'File "{path}", line 3, in forward\n    x + 1\n'
    sources = Sources("/")
    for k in range(20):
        sources.lines(node(stack_trace=trace.replace("line 3", f"line {k + 3}")))
    assert time.process_time() - start < 1
