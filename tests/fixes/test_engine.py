"""Fixes: what goes, what stays and why."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from fixtures import pitfalls
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import read_heads
from onnxlint.model.save import save
from onnxlint.model.skeleton import Model, open_model
from tests.fixes.test_odd_models import TEXTS
from tests.support.fixing import fix, image, nameless, parse
from tests.support.zoo import session

ort = pytest.importorskip("onnxruntime")


def test_fixing_twice_changes_nothing(tmp_path: Path) -> None:
    pitfalls.build(tmp_path)
    model = open_model(tmp_path / "pitfalls.onnx")
    wanted = {"multiples": (("height", 32), ("width", 32)), "concat_heads": (), "drop_output_activations": True}
    once, first = fix(model, unsafe=True, **wanted)
    assert first.changed
    save(model, once, str(tmp_path / "once.onnx"))
    wanted["concat_heads"] = None
    _, second = fix(open_model(tmp_path / "once.onnx"), unsafe=True, **wanted)
    assert not second.applied
    assert not second.changed


def test_a_clean_model_keeps_every_byte(tmp_path: Path) -> None:
    from onnxlint.cli import app as cli

    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,3,H,W] image) => (float[N,3,H,W] features) { features = Relu (image) }"""
    path = tmp_path / "clean.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    before = path.read_bytes()
    assert cli.run(["fix", str(path), "-o", str(tmp_path / "out.onnx"), "--quiet"]) == 0
    assert (tmp_path / "out.onnx").read_bytes() == before


def test_killed_at_any_moment_the_file_is_the_old_one_or_the_new(tmp_path: Path) -> None:
    pitfalls.build(tmp_path)
    source = (tmp_path / "pitfalls.onnx").read_bytes()
    path = tmp_path / "place" / "m.onnx"
    path.parent.mkdir()
    command = [sys.executable, "-m", "onnxlint", "fix", str(path), "--in-place", "--no-verify", "--exit-zero", "-q"]
    path.write_bytes(source)
    started = time.monotonic()
    subprocess.run(command, check=True)
    took = time.monotonic() - started
    result = path.read_bytes()
    assert result != source
    seen = set()
    for share in (0.2, 0.5, 0.8, 0.9, 0.95, 1.0, 1.1):
        path.write_bytes(source)
        process = subprocess.Popen(command)
        time.sleep(share * took)
        process.kill()
        process.wait()
        seen.add(path.read_bytes())
        open_model(path)
    assert seen <= {source, result}


def test_heads_are_recorded(tmp_path: Path) -> None:
    pitfalls.build(tmp_path)
    fixed, report = fix(
        open_model(tmp_path / "pitfalls.onnx"), concat_heads=("landm", "bbox", "class"), drop_output_activations=True
    )
    (heads,) = read_heads(fixed)
    assert (heads.output, heads.axis) == ("output", 2)
    assert [(h.start, h.stop, h.activation) for h in heads.heads] == [(0, 10, ""), (10, 14, ""), (14, 16, "Softmax")]
    assert report.asked[0].startswith("joined into 'output'")


@pytest.mark.parametrize(
    ("names", "says"),
    [(("nose",), r"fits no output; the model has a \[N, 4\] and b \[N, 4\]"), (("a", "a"), "named twice")],
)
def test_wrong_heads_are_an_error(names: tuple[str, ...], says: str) -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4] x) => (float[N,4] a, float[N,4] b) { a = Relu (x) b = Neg (x) }"""
    )
    with pytest.raises(OnnxlintError, match=says):
        fix(model, concat_heads=names)


def test_asking_for_heads_where_there_are_none_is_an_error() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"""
    )
    with pytest.raises(OnnxlintError, match="found no heads"):
        fix(model, concat_heads=())


@pytest.mark.parametrize(("opset", "ops"), [(13, ["Shape", "Slice", "Concat"]), (17, ["Shape", "Concat"])])
def test_a_chain_that_has_to_stay_gets_shorter_and_says_so(opset: int, ops: list[str]) -> None:
    """[N*8, H*W] → [N, 8, H, W] where H and W come out of arithmetic on the input's size."""
    model = parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        g (float[N,8,H,W] x) => (float[] y) <int64 i2 = {{2}}, int64 i3 = {{3}}, int64[1] axes = {{0}}, int64 two = {{2}},
            int64[2] lead = {{-1, 8}}, float[8,8,2,2] weight = {{{", ".join(["1"] * 256)}}}> {{
            pooled = Conv <strides = [2, 2]> (x, weight)
            s = Shape (x)
            h = Gather (s, i2) w = Gather (s, i3)
            hh = Div (h, two) ww = Div (w, two)
            uh = Unsqueeze (hh, axes) uw = Unsqueeze (ww, axes)
            t = Concat <axis = 0> (lead, uh, uw)
            flat = Flatten <axis = 2> (pooled)
            z = Reshape (flat, t)
            y = Relu (z) }}"""
    )
    model.proto.graph.output[0].type.tensor_type.ClearField("shape")
    fixed, report = fix(model)
    assert Counter(node.op_type for node in fixed.graph.node) == Counter(["Conv", "Flatten", "Reshape", "Relu", *ops])
    assert not report.applied
    assert [applied.finding.code for applied in report.shortened] == ["SHP002"]
    assert [left.why for left in report.left if left.finding.code == "SHP002"] == [
        "it has more than one free size: the chain stays, in the shortest form found"
    ]
    feed = {"x": image(2, 8, 7, 9)}
    (before,) = session(model.proto).run(None, feed)
    (after,) = session(fixed).run(None, feed)
    assert np.array_equal(before, after)


def test_what_a_patch_makes_possible_needs_no_second_run() -> None:
    """A Resize by computed factors keeps opset 10; once they are constant, the opset can be raised."""
    model = parse("""
    <ir_version: 8, opset_import: ["": 10]>
    g (float[N,2,H,W] x) => (float[N,2,H,W] y)
    <int64[1] c2 = {2}, int64[1] c4 = {4}, float[2] ones = {1, 1}> {
        small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        s = Shape (x)
        q = Slice (s, c2, c4)
        wanted = Cast <to = 1> (q)
        r = Shape (small)
        n = Slice (r, c2, c4)
        there = Cast <to = 1> (n)
        factor = Div (wanted, there)
        factors = Concat <axis = 0> (ones, factor)
        y = Resize <mode = "nearest"> (small, factors)
    }
    """)
    wanted = {"multiples": (("H", 2), ("W", 2)), "select": ("SHP", "OPS")}
    fixed, report = fix(model, **wanted)
    assert {"OPS001", "SHP001"} <= {applied.finding.code for applied in report.applied}
    assert not report.left
    assert fixed.opset_import[0].version == 11
    feed = {"x": image(2, 2, 6, 8)}
    (before,) = session(model.proto).run(None, feed)
    (after,) = session(fixed).run(None, feed)
    assert np.array_equal(before, after)
    again, second = fix(Model("again.onnx", fixed, 0), **wanted)
    assert again is fixed
    assert not second.applied


def test_findings_about_nodes_without_names_are_told_apart_though_positions_move() -> None:
    _, report = fix(nameless(5))
    assert len(report.applied) == 5
    assert not report.shortened
    assert len({applied.key for applied in report.applied}) == 5


def test_a_node_with_too_few_inputs_is_no_crash_of_a_patch() -> None:
    model = parse("""
    <ir_version: 8, opset_import: ["": 10]>
    g (float[1,2,4,4] x) => (float[1,2,8,8] y) { y = Upsample (x) }
    """)
    _, report = fix(model)
    whys = [left.why for left in report.left if left.finding.code == "OPS002"]
    assert whys == ["Upsample needs 2 inputs, and has 1: repair the model first"]


def test_values_that_several_nodes_make_are_left_with_a_reason() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N] x) => (float[N] z, float[2] y) <float[2] w = {-1, 2}> {
        z = Relu (x)
        y = Neg (w)
        y = Neg (w)
    }
    """
    _, report = fix(parse(text))
    whys = {left.why for left in report.left if left.finding.code == "GRF004"}
    assert whys == {"'y' is made by several nodes: repair the model first"}
    assert not any("please report it" in left.why for left in report.left)


def test_shp001_gives_no_scale_to_a_resize_that_crops() -> None:
    """A scale is one of what is cut out by the specification, and one of the whole map in onnxruntime."""
    fixed, report = fix(parse(TEXTS["resize_crop"]), multiples=(("H", 4), ("W", 4)))
    assert [left.finding.code for left in report.left if left.finding.code == "SHP001"] == ["SHP001"]
    assert [len(node.input) for node in fixed.graph.node if node.op_type == "Resize"] == [4]
