"""Reports of `onnxlint diff`: what they say, and that hostile names stay text in each of them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import parser

import onnxlint as package
from onnxlint.difference.compare import compare_views
from onnxlint.difference.result import ModelDiff
from onnxlint.errors import OnnxlintError
from onnxlint.model.skeleton import Model
from onnxlint.report.diff import FORMATS, render
from onnxlint.symbolic.view import make_view

OLD = '<ir_version: 9, opset_import: ["" : 17]> g (float[1, 8] x) => (float[1, 8] y) { [a] t = Relu (x)\n [b] y = Neg (t) }'
NEW = (
    '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8] x) => (float[N, 8] y) '
    "{ [a] t = LeakyRelu<alpha = 0.1> (x)\n [b] s = Neg (t)\n [c] y = Exp (s) }"
)
EVIL = "](javascript:alert(1))<img src=x onerror=alert(1)>@everyone #1 %%{init}%%\n::error::x\x1b[31m\u202e"


def compare(old: onnx.ModelProto, new: onnx.ModelProto, name: str = "new.onnx") -> ModelDiff:
    views = [make_view(Model(path, proto, proto.ByteSize())) for path, proto in (("old.onnx", old), (name, new))]
    return compare_views(views[0], views[1], pictures=True)


def test_text_says_what_changed() -> None:
    models = parser.parse_model(OLD), parser.parse_model(NEW)
    old, new = (model.ByteSize() for model in models)
    text = render("text", compare(*models))
    assert text.splitlines() == [
        "old.onnx → new.onnx",
        "  input          x float32[1, 8] → x float32[N, 8]",
        "  output         y float32[1, 8] → y float32[N, 8]",
        "  opset ai.onnx  17 → 18",
        "  operators      +1 Exp, +1 LeakyRelu, -1 Relu",
        "  nodes          2 → 3",
        f"  size           {old} bytes → {new} bytes (+{new - old} bytes)",
        "",
        "outside of modules: 1 node changed, 1 added",
        "  ~ LeakyRelu a: operator Relu → LeakyRelu; attribute alpha added: 0.1",
        "  + Exp c",
    ]


def test_the_same_is_said_so() -> None:
    model = parser.parse_model(OLD)
    assert render("text", compare(model, model)).splitlines()[1:] == ["  same inputs, outputs, nodes and weights"]


def test_json_is_complete() -> None:
    document = json.loads(render("json", compare(parser.parse_model(OLD), parser.parse_model(NEW))))
    assert document["onnxlint-diff"] == 1
    assert document["same"] is False
    assert [(node["change"], node["op"]) for node in document["nodes"]] == [("changed", "LeakyRelu"), ("added", "Exp")]
    assert document["operators"] == {"Exp": 1, "LeakyRelu": 1, "Relu": -1}


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_names_stay_text(format: str) -> None:
    old, new = parser.parse_model(OLD), parser.parse_model(NEW)
    for model in (old, new):
        model.producer_name = EVIL
        for node in model.graph.node:
            node.name = f"/{EVIL}/{node.op_type}"
        model.graph.input[0].name = EVIL
        model.graph.node[0].input[0] = EVIL
    new.metadata_props.add(key=EVIL, value=EVIL)
    text = render(format, compare(old, new, EVIL))
    assert "\x1b" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    if format != "json":
        assert "\u202e" not in text
    if format == "html":
        assert "<img" not in text
    if format == "markdown":
        markdown_it = pytest.importorskip("markdown_it")
        page = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        assert "<img" not in page
        assert "<a " not in page


def test_json_is_what_the_schema_says(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schema" / "diff.json").read_text(encoding="utf-8"))
    paths = [tmp_path / "old.onnx", tmp_path / "new.onnx"]
    for path, text in zip(paths, (OLD, NEW), strict=True):
        path.write_bytes(parser.parse_model(text).SerializeToString())
    for verify in (False, True):
        for old, new in ((paths[0], paths[1]), (paths[0], paths[0])):
            document = json.loads(render("json", package.diff(old, new, verify=verify, isolated=True)))
            jsonschema.Draft202012Validator(schema).validate(document)


def test_an_unknown_format() -> None:
    with pytest.raises(OnnxlintError, match="did you mean 'html'"):
        render("htm", compare(parser.parse_model(OLD), parser.parse_model(OLD)))
