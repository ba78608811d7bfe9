"""The record of joined heads, which anybody can have written."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import Head, Joined, describe_heads, read_heads, to_json
from onnxlint.fixes.session import joined_heads
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
"""


def model(record: object, dropped: object = None) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    text = record if isinstance(record, str) else json.dumps(record)
    proto.metadata_props.add(key=HEADS_KEY, value=text)
    if dropped is not None:
        proto.metadata_props.add(key=DROPPED_KEY, value=json.dumps(dropped))
    return proto


def entry(**changes: Any) -> list[dict[str, Any]]:
    heads = [{"name": "a", "start": 0, "stop": 3}, {"name": "b", "start": 3, "stop": 4}]
    return [{"output": "y", "axis": 1, "heads": heads, **changes}]


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[" * 100_000,
        "5",
        [5],
        entry(heads=[]),
        entry(heads=5),
        entry(heads=[5]),
        entry(axis=1e999),
        entry(axis=-1),
        entry(axis=True),
        entry(axis=10**5000 // 10**4990),
        entry(output=5),
        entry(heads=[{"name": "a", "start": 0, "stop": 0}]),
        entry(heads=[{"name": "a", "start": 1, "stop": 2}]),
        entry(heads=[{"name": "a", "start": 0, "stop": 2}, {"name": "b", "start": 1, "stop": 2}]),
        entry(heads=[{"name": ["a"], "start": 0, "stop": 2}]),
        " " * (2 << 20),
    ],
    ids=str,
)
def test_damaged_records_are_one_line(record: object, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(record).SerializeToString())
    with pytest.raises(OnnxlintError) as caught:
        joined_heads(str(path))
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("dropped", [[], {"a": {"op": "\x1b[31mX\n::error::"}}, {"a": 5}, {"a": {"op": ["Softmax"]}}])
def test_activations_are_known_ones(dropped: object) -> None:
    with pytest.raises(OnnxlintError, match="damaged"):
        read_heads(model(entry(), dropped))


CODE = 'y"], feeds); __import__("os").system("id"); (["'
HOSTILE = (CODE, "\x1b[31m", "a\nb", "\u202eabc", "", "1", "class", "output", "float", "é")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_never_code(name: str) -> None:
    heads = (Head(name, 0, 2), Head(name, 2, 3, "Softmax"), Head("c", 3, 4))
    for axis in (1, 0):
        joined = Joined(name, axis, heads)
        (again,) = read_heads(model(to_json([joined])))
        assert (again.output, again.axis, [head.name for head in again.heads]) == (name, axis, [name, name, "c"])
        text = describe_heads(joined, 2)
        assert all(line.isprintable() for line in text.splitlines())
        assert len(text.splitlines()) == len(describe_heads(Joined("y", axis, heads), 2).splitlines())
        lines = text.splitlines()
        numpy = "\n".join(line.strip() for line in lines[lines.index("NumPy:") + 1 :][:2])
        tree = ast.parse(numpy)
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert sorted(ast.unparse(one) for one in called) == ["np.split", "session.run"]
        targets = tree.body[1].targets[0].elts  # type: ignore[attr-defined]
        assert len({target.id for target in targets}) == 3


def test_a_single_head_is_unpacked() -> None:
    text = describe_heads(Joined("y", 1, (Head("a", 0, 4),)), 2)
    assert "a, = np.split(output, [], axis=1)" in text
    assert text.startswith("y: 1 head along axis 1\n")
