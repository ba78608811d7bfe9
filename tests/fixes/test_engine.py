"""Fixes: what goes, what stays and why, and that no output changes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import pitfalls
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.heads import read_heads
from onnxlint.fixes.results import FixReport
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Request
from onnxlint.model.save import save, to_bytes
from onnxlint.model.skeleton import Model, open_model

ort = pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "retinaface"
NETWORKS = 12 if os.environ.get("HYPOTHESIS_PROFILE", "same") == "same" else 400
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
DEFAULT = tuple(rule for rule in load_registry() if rule.default and not rule.targets and not rule.needs_weights)


def fix(model: Model, **wanted: Any) -> tuple[onnx.ModelProto, FixReport]:
    select = wanted.pop("select", ())
    rules = tuple(rule for rule in DEFAULT if not select or rule.code.startswith(select))
    return fix_model(model, Plan(rules), Request(**wanted))


def parse(text: str) -> Model:
    return Model("example.onnx", onnx.parser.parse_model(text), 0)


def session(source: str | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(source, options)


def free_sizes(model: Model) -> tuple[tuple[str, int], ...]:
    """The height and width of a model's image, as multiples of 32."""
    dims = model.proto.graph.input[0].type.tensor_type.shape.dim
    return tuple((dim.dim_param, 32) for dim in dims[2:] if dim.dim_param)


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (np.random.default_rng(0).standard_normal(shape) * 50).astype(np.float32)


def joined(outputs: list[Any]) -> Any:
    return np.concatenate(outputs, axis=-1)


# RetinaFace, as people export it


ORIGINALS = sorted(DATA.glob("original_*.onnx"))


@needs_data
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_retinaface_becomes_clean_and_stays_bit_equal(path: Path) -> None:
    model = open_model(path)
    multiples = free_sizes(model)
    fixed, report = fix(model, multiples=multiples, concat_heads=(), drop_output_activations=True)

    ops = Counter(node.op_type for node in fixed.graph.node)
    assert sum(ops.values()) - ops["Constant"] <= 126
    assert not {"Shape", "Gather", "Upsample", "Softmax"} & ops.keys()
    assert not any(node.op_type == "Resize" and len(node.input) > 3 and node.input[3] for node in fixed.graph.node)
    assert [output.name for output in fixed.graph.output] == ["output"]
    assert not any(left.finding.code.startswith("SHP") for left in report.left)

    # The reference: the original, its logits taken before the Softmax.
    reference = onnx.load(path)
    softmax = next(node for node in reference.graph.node if node.op_type == "Softmax")
    names = [output.name for output in reference.graph.output]
    names[names.index(softmax.output[0])] = softmax.input[0]
    reference.graph.output.append(onnx.helper.make_tensor_value_info(softmax.input[0], 1, None))
    before, after = session(reference.SerializeToString()), session(to_bytes(model, fixed))
    shapes = [(1, 640, 640)] if not multiples else [(1, 640, 640), (3, 320, 320), (1, 352, 608), (3, 352, 608)]
    for batch, height, width in shapes:
        feed = {"input0": image(batch, 3, height, width)}
        assert np.array_equal(joined(before.run(names, feed)), after.run(None, feed)[0]), (batch, height, width)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_retinaface_at_1280(path: Path) -> None:
    model = open_model(path)
    multiples = free_sizes(model)
    if not multiples:
        pytest.skip("a static export")
    fixed, _ = fix(model, multiples=multiples)
    before, after = session(str(path)), session(to_bytes(model, fixed))
    feed = {"input0": image(1, 3, 1280, 1280)}
    for a, b in zip(before.run(None, feed), after.run(None, feed), strict=True):
        assert np.array_equal(a, b)


@needs_data
def test_retinaface_matches_the_hand_fixed_model() -> None:
    model = open_model(DATA / "original_op11_st.onnx")
    fixed, _ = fix(model, concat_heads=(), drop_output_activations=True)
    feed = {"input0": image(1, 3, 640, 640)}
    ours = session(to_bytes(model, fixed)).run(None, feed)[0]
    theirs = session(str(DATA / "hand_fixed_released.onnx")).run(None, feed)[0]
    np.testing.assert_allclose(ours, theirs, atol=5e-5, rtol=0)


@needs_data
@pytest.mark.parametrize("name", ["op9_dyn", "op11_dyn", "op17_dyn", "dynamo_dyn"])
def test_without_an_assumption_the_resizes_stay_and_say_why(name: str) -> None:
    model = open_model(DATA / f"original_{name}.onnx")
    fixed, report = fix(model, select="SHP")
    assert [applied.finding.code for applied in report.applied] == ["SHP002"] * 9
    assert all(applied.proof == "proved" for applied in report.applied)
    assert [left.finding.code for left in report.left] == ["SHP001"] * 2
    assert any("% 32 == 0" in left.why and "--assume" in left.why for left in report.left)
    before, after = session(str(DATA / f"original_{name}.onnx")), session(to_bytes(model, fixed))
    for shape in ((1, 3, 128, 160), (2, 3, 97, 131)):  # odd and prime, too
        feed = {"input0": image(*shape)}
        try:
            wanted = before.run(None, feed)
        except ort.capi.onnxruntime_pybind11_state.RuntimeException:
            assert name == "op9_dyn"  # Upsample rounds its scale down: the original fails there, too
            continue
        for a, b in zip(wanted, after.run(None, feed), strict=True):
            assert np.array_equal(a, b)


@needs_data
def test_the_condition_is_found_and_explained() -> None:
    _, report = fix(open_model(DATA / "original_op11_dyn.onnx"), select="SHP001")
    evidence = [dict(left.finding.evidence) for left in report.left]
    assert evidence[0]["exact when"] == "ceil(h/16) % 2 == 0 and ceil(w/16) % 2 == 0"
    assert evidence[1]["exact when"] == "ceil(h/8) % 2 == 0 and ceil(w/8) % 2 == 0"
    assert report.left[0].finding.fix is not None
    assert report.left[0].finding.fix.condition == "h % 32 == 0 and w % 32 == 0"


@needs_data
def test_traces_and_metadata_survive() -> None:
    model = open_model(DATA / "original_dynamo_dyn.onnx")
    fixed, _ = fix(model, multiples=free_sizes(model))
    before = {node.name: node for node in model.proto.graph.node}
    for node in fixed.graph.node:
        assert list(node.metadata_props) == list(before[node.name].metadata_props)
    assert list(fixed.graph.metadata_props) == list(model.proto.graph.metadata_props)
    assert {e.key: e.value for e in fixed.metadata_props}["onnxlint.assumes"].count("% 32 == 0") == 2


# Rules of the fixer


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


def test_a_patch_that_breaks_the_model_is_found_and_taken_back() -> None:
    """One of eight patches is made wrong; the other seven stay."""
    from dataclasses import dataclass

    from onnxlint_rules.shp.shp002_shape_chain import ShapeChain

    class Wrong(ShapeChain):
        def patch(self, finding: Any, view: Any, surgeon: Any, request: Any) -> None:
            super().patch(finding, view, surgeon, request)
            if finding.location.node == "r5":
                node = surgeon.graph.nodes[finding.location.index]
                node.inputs[1] = surgeon.constant("wrong", np.array([0, 2, -1], np.int64))

    nodes = "\n".join(
        f"""s{i} = Shape (x) b{i} = Gather <axis = 0> (s{i}, zero) l{i} = Unsqueeze (b{i}, axes)
        t{i} = Concat <axis = 0> (l{i}, minus, four) [r{i}] y{i} = Reshape (x, t{i})"""
        for i in range(8)
    )
    outputs = ", ".join(f"float[N,P,4] y{i}" for i in range(8))
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,H,W,8] x) => ({outputs})
        <int64 zero = {{0}}, int64[1] axes = {{0}}, int64[1] minus = {{-1}}, int64[1] four = {{4}}> {{ {nodes} }}"""
    model = parse(text)

    @dataclass(frozen=True)
    class Answer:
        equal: bool

        def summary(self) -> str:
            return "measured"

    def compare(reference: onnx.ModelProto, result: onnx.ModelProto, exact: bool, conditions: Any, *_: Any) -> Any:
        feed = {"x": image(2, 3, 4, 8)}
        before = session(reference.SerializeToString()).run(None, feed)
        after = session(result.SerializeToString()).run(None, feed)
        return Answer(all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)))

    fixed, report = fix_model(model, Plan((Wrong,)), Request(), compare)
    assert len(report.applied) == 7
    assert [left.finding.location.node for left in report.rolled_back] == ["r5"]
    assert sum(node.op_type == "Shape" for node in fixed.graph.node) == 1


@pytest.mark.parametrize(("opset", "ops"), [(13, ["Shape", "Slice", "Concat"]), (17, ["Shape", "Concat"])])
def test_a_chain_that_has_to_stay_gets_shorter_and_says_so(opset: int, ops: list[str]) -> None:
    """[N*8, H*W] → [N, 8, H, W] where H and W come out of arithmetic on the input's size."""
    model = parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        g (float[N,8,H,W] x) => (float[] y) <int64 i2 = {{2}}, int64 i3 = {{3}}, int64[1] axes = {{0}}, int64 two = {{2}},
            int64[2] lead = {{-1, 8}}> {{
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
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
    assert Counter(node.op_type for node in fixed.graph.node) == Counter(
        ["MaxPool", "Flatten", "Reshape", "Relu", *ops]
    )
    assert not report.applied
    assert [applied.finding.code for applied in report.shortened] == ["SHP002"]
    assert [left.why for left in report.left if left.finding.code == "SHP002"] == [
        "it has more than one free size: the chain stays, in the shortest form found"
    ]
    feed = {"x": image(2, 8, 7, 9)}
    (before,) = session(model.proto.SerializeToString()).run(None, feed)
    (after,) = session(fixed.SerializeToString()).run(None, feed)
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
    (before,) = session(model.proto.SerializeToString()).run(None, feed)
    (after,) = session(fixed.SerializeToString()).run(None, feed)
    assert np.array_equal(before, after)
    again, second = fix(Model("again.onnx", fixed, 0), **wanted)
    assert again is fixed
    assert not second.applied


NAMELESS = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,H,W,8] x) => ({outputs})
    <int64 zero = {{0}}, int64[1] axes = {{0}}, int64[1] minus = {{-1}}, int64[1] four = {{4}}> {{ {nodes} }}"""


def nameless(count: int) -> Model:
    """Chains of nodes without names, each to a Reshape."""
    nodes, outputs = [], []
    for i in range(count):
        nodes.append(f"s{i} = Shape (x) b{i} = Gather <axis = 0> (s{i}, zero) l{i} = Unsqueeze (b{i}, axes)")
        nodes.append(f"t{i} = Concat <axis = 0> (l{i}, minus, four) y{i} = Reshape (x, t{i})")
        outputs.append(f"float[N,P,4] y{i}")
    return parse(NAMELESS.format(outputs=", ".join(outputs), nodes="\n".join(nodes)))


def test_findings_about_nodes_without_names_are_told_apart_though_positions_move() -> None:
    _, report = fix(nameless(5))
    assert len(report.applied) == 5
    assert not report.shortened
    assert len({applied.key for applied in report.applied}) == 5


@pytest.mark.parametrize("wrong", range(5))
def test_a_rollback_hits_the_patch_of_a_node_without_a_name(wrong: int) -> None:
    from onnxlint_rules.shp.shp002_shape_chain import ShapeChain

    class Wrong(ShapeChain):
        def patch(self, finding: Any, view: Any, surgeon: Any, request: Any) -> None:
            node = surgeon.graph.nodes[finding.location.index]
            super().patch(finding, view, surgeon, request)
            if node.outputs[0].name == f"y{wrong}":
                node.inputs[1] = surgeon.constant("wrong", np.array([0, 2, -1], np.int64))

    model = nameless(5)

    def compare(reference: onnx.ModelProto, result: onnx.ModelProto, *_: Any) -> Any:
        from onnxlint.verification.results import Trial, Verification

        feed = {"x": image(2, 3, 4, 8)}
        before = session(reference.SerializeToString()).run(None, feed)
        after = session(result.SerializeToString()).run(None, feed)
        equal = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        return Verification((Trial("", "normal", "equal" if equal else "different"),), "onnxruntime")

    fixed, report = fix_model(model, Plan((Wrong,)), Request(), compare)
    assert len(report.applied) == 4
    (left,) = report.rolled_back
    assert left.finding.location.index is not None
    assert fixed.graph.node[left.finding.location.index].output[0] == f"y{wrong}"


@settings(max_examples=NETWORKS, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([2, 3, 5, 6, 7, 10, 12]), min_size=1, max_size=4),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_multiples_that_are_no_powers_of_two(strides: list[int], assumed: int, factor: int) -> None:
    """Nodes without names shrink H by a stride and are enlarged again to the size that they had."""
    lines, outputs = [], []
    for i, stride in enumerate(strides):
        lines.append(f"p{i} = MaxPool <kernel_shape = [1, 1], strides = [{stride}, 1]> (x)")
        lines.append(f"s{i} = Shape (x) q{i} = Slice (s{i}, c2, c4) r{i} = Shape (p{i}) n{i} = Slice (r{i}, c0, c2)")
        lines.append(f"t{i} = Concat <axis = 0> (n{i}, q{i})")
        lines.append(
            f'y{i} = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> '
            f"(p{i}, , , t{i})"
        )
        outputs.append(f"float[N,2,H,W] y{i}")
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[N,2,H,W] x) => ({", ".join(outputs)})
    <int64[1] c0 = {{0}}, int64[1] c2 = {{2}}, int64[1] c4 = {{4}}> {{ {chr(10).join(lines)} }}"""
    model = parse(text)
    fixed, report = fix(model, multiples=(("H", assumed),))
    fits = sum(assumed % stride == 0 for stride in strides)
    resizes = [applied for applied in report.applied if applied.finding.code == "SHP001"]
    assert len(resizes) == fits
    assert not report.shortened
    assert sum(left.finding.code == "SHP001" for left in report.left) == len(strides) - fits
    used = [stride for stride in strides if assumed % stride == 0]
    needed = math.lcm(*used)
    for condition in report.conditions:
        number = int(condition.removeprefix("H % ").removesuffix(" == 0"))
        assert number % needed == 0  # the assumption, or a weaker condition that is enough
        assert assumed % number == 0
    assert bool(report.conditions) == bool(used)
    feed = {"x": image(2, 2, assumed * factor, 3)}
    before = session(model.proto.SerializeToString()).run(None, feed)
    after = session(fixed.SerializeToString()).run(None, feed)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)


def test_a_node_with_too_few_inputs_is_no_crash_of_a_patch() -> None:
    model = parse("""
    <ir_version: 8, opset_import: ["": 10]>
    g (float[1,2,4,4] x) => (float[1,2,8,8] y) { y = Upsample (x) }
    """)
    _, report = fix(model)
    whys = [left.why for left in report.left if left.finding.code == "OPS002"]
    assert whys == ["Upsample needs 2 inputs, and has 1: repair the model first"]
    assert not any("please report it" in left.why for left in report.left)


# Random graphs


@st.composite
def reshape_graphs(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """A chain of Reshapes, Transposes and Slices on [N, C, H, W], with targets computed from shapes."""
    channels = draw(st.sampled_from([1, 2, 4, 6, 8]))
    lines: list[str] = []
    value, dims = "x", ["N", channels, "H", "W"]
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flatten", "merge", "split", "transpose", "copy", "expand", "resize"]))
        new = f"v{i}"
        shape, pick = f"s{i}", []
        lines.append(f"{shape} = Shape ({value})")

        def size(axis: int, i: int = i, shape: str = shape) -> str:
            name = f"d{i}_{axis}"
            lines.append(f"{name} = Slice ({shape}, c{axis}, c{axis + 1}, c0)")
            return name

        if kind == "transpose":
            perm = draw(st.permutations(range(len(dims))))
            lines.append(f"{new} = Transpose <perm = {list(perm)}> ({value})")
            dims = [dims[p] for p in perm]
        elif kind == "resize" and len(dims) == 4:
            pick = [size(axis) for axis in range(4)]
            lines.append(f"z{i} = Concat <axis = 0> ({pick[0]}, {pick[1]}, {pick[2]}, {pick[3]})")
            lines.append(
                f'{new} = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
                f'nearest_mode = "floor"> ({value}, , , z{i})'
            )
        elif kind == "expand":
            lines.append(f"e{i} = Expand (one, {shape})")
            lines.append(f"{new} = Add ({value}, e{i})")
        elif kind == "split" and any(isinstance(d, int) and d % 2 == 0 for d in dims) and len(dims) < 6:
            axis = next(k for k, d in enumerate(dims) if isinstance(d, int) and d % 2 == 0)
            half = int(dims[axis]) // 2
            pick = [size(k) for k in range(len(dims))]
            lines.append(f"h{i} = Constant <value_ints = [2, {half}]> ()")
            pick[axis] = f"h{i}"
            lines.append(f"t{i} = Concat <axis = 0> ({', '.join(pick)})")
            lines.append(f"{new} = Reshape ({value}, t{i})")
            dims = [*dims[:axis], 2, half, *dims[axis + 1 :]]
        elif kind == "merge" and len(dims) > 2:
            axis = draw(st.integers(0, len(dims) - 2))
            pick = [size(k) for k in range(len(dims))]
            lines.append(f"m{i} = Mul ({pick[axis]}, {pick[axis + 1]})")
            names = [*pick[:axis], f"m{i}", *pick[axis + 2 :]]
            lines.append(f"t{i} = Concat <axis = 0> ({', '.join(names)})")
            lines.append(f"{new} = Reshape ({value}, t{i})")
            dims = [*dims[:axis], f"({dims[axis]}*{dims[axis + 1]})", *dims[axis + 2 :]]
        elif kind == "flatten":
            lines.append(f"t{i} = Concat <axis = 0> ({size(0)}, minus)")
            lines.append(f"{new} = Reshape ({value}, t{i})")
            dims = [dims[0], "?"]
        else:
            lines.append(f"{new} = Reshape ({value}, {shape})")
        value = new
    constants = ", ".join(f"int64[1] c{k} = {{{k}}}" for k in range(8))
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[N,{channels},H,W] x) => (float[] y) <{constants}, int64[1] minus = {{-1}}, float one = {{1}}> {{
    {chr(10).join(lines)}
    y = Relu ({value}) }}"""
    sizes = {name: draw(st.sampled_from([1, 2, 3, 5, 8])) for name in ("N", "H", "W")}
    return text, {**sizes, "C": channels}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reshape_graphs())
def test_random_graphs_compute_the_same(drawn: tuple[str, dict[str, int]]) -> None:
    text, sizes = drawn
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = Model("random.onnx", proto, 0)
    fixed, report = fix(model)
    assert not any("patch failed" in left.why for left in report.left)
    feed = {"x": image(sizes["N"], sizes["C"], sizes["H"], sizes["W"])}
    (before,) = session(proto.SerializeToString()).run(None, feed)
    (after,) = session(fixed.SerializeToString()).run(None, feed)
    assert before.shape == after.shape
    assert np.array_equal(before, after)
    again, second = fix(Model("again.onnx", fixed, 0))
    assert again is fixed or not second.applied


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """Conv, Relu, Transpose, Reshape with a computed target, Pad and Resize by computed sizes, on a [N, C, H, W] image."""
    opset = draw(st.sampled_from([11, 13, 17]))
    lines: list[str] = []
    value, channels, weights = "x", 4, {}

    def number(name: str, source: str, axis: int) -> str:
        """One size, as [n]: by Slice, or by Gather and Unsqueeze."""
        lines.append(f"{name}_s = Shape ({source})")
        if draw(st.booleans()):
            lines.append(f"{name} = Slice ({name}_s, c{axis}, c{axis + 1})")
        else:
            lines.append(f"{name}_g = Gather <axis = 0> ({name}_s, i{axis})")
            new = f"Unsqueeze <axes = [0]> ({name}_g)" if opset < 13 else f"Unsqueeze ({name}_g, c0)"
            lines.append(f"{name} = {new}")
        return name

    kinds = ["conv", "relu", "twice", "tokens", "restored", "resize", "pad"]
    for i, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))):
        new = f"v{i}"
        if kind == "conv":
            stride, out = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4]))
            weights[f"w{i}"] = (out, channels)
            lines.append(f"{new} = Conv <pads = [1, 1, 1, 1], strides = [{stride}, {stride}]> ({value}, w{i})")
            channels = out
        elif kind == "relu":
            lines.append(f"{new} = Relu ({value})")
        elif kind == "twice":
            lines.append(f"{new}_t = Transpose <perm = [0, 2, 3, 1]> ({value})")
            lines.append(f"{new} = Transpose <perm = [0, 3, 1, 2]> ({new}_t)")
        elif kind == "tokens":  # to [N, H*W, C] and back, as a transformer does
            sizes = [number(f"{new}_{axis}", value, axis) for axis in range(4)]
            lines.append(f"{new}_a = Concat <axis = 0> ({sizes[0]}, {sizes[1]}, minus)")
            lines.append(f"{new}_b = Reshape ({value}, {new}_a)")
            lines.append(f"{new}_c = Transpose <perm = [0, 2, 1]> ({new}_b)")
            lines.append(f"{new}_d = Transpose <perm = [0, 2, 1]> ({new}_c)")
            lines.append(f"{new}_e = Concat <axis = 0> ({', '.join(sizes)})")
            lines.append(f"{new} = Reshape ({new}_d, {new}_e)")
        elif kind == "restored":  # H and W come out of arithmetic that says nothing new
            sizes = [number(f"{new}_{axis}", value, axis) for axis in range(4)]
            for axis in (2, 3):
                lines.append(f"{new}_m{axis} = Mul ({sizes[axis]}, c2)")
                lines.append(f"{new}_h{axis} = Div ({new}_m{axis}, c2)")
            lines.append(f"{new}_a = Concat <axis = 0> ({sizes[0]}, c{channels}, {new}_h2, {new}_h3)")
            lines.append(f"{new}_f = Flatten <axis = 2> ({value})")
            lines.append(f"{new} = Reshape ({new}_f, {new}_a)")
        elif kind == "resize":
            sizes = [number(f"{new}_{axis}", value, axis) for axis in range(4)]
            factor = draw(st.sampled_from(["c1", "c2"]))
            lines += [f"{new}_m{axis} = Mul ({sizes[axis]}, {factor})" for axis in (2, 3)]
            lines.append(f"{new}_a = Concat <axis = 0> ({sizes[0]}, {sizes[1]}, {new}_m2, {new}_m3)")
            lines.append(
                f'{new} = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
                f'nearest_mode = "floor"> ({value}, none, nothing, {new}_a)'
            )
        else:  # F.pad of a TorchScript export: the pairs turned round by a Slice and a Transpose
            lines.append(f"{new}_z = ConstantOfShape <value = int64[1] {{0}}> (c4)")
            lines.append(f"{new}_a = Concat <axis = 0> (pads, {new}_z)")
            lines.append(f"{new}_b = Reshape ({new}_a, pairs)")
            lines.append(f"{new}_c = Slice ({new}_b, minus, far, c0, minus)")
            lines.append(f"{new}_d = Transpose <perm = [1, 0]> ({new}_c)")
            lines.append(f"{new}_e = Reshape ({new}_d, minus)")
            lines.append(f"{new} = Pad ({value}, {new}_e)")
        value = new
    values = np.random.default_rng(draw(st.integers(0, 99)))
    parts = [f"int64[1] c{k} = {{{k}}}, int64 i{k} = {{{k}}}" for k in range(6)]
    parts += ["int64[1] minus = {-1}, int64[4] pads = {1, 2, 0, 1}, int64[2] pairs = {-1, 2}", "float[0] none = {}"]
    parts += ["int64[1] far = {-9223372036854775807}", "float[0] nothing = {}"]
    for name, (out, into) in weights.items():
        numbers = ", ".join(f"{x:.3f}" for x in values.standard_normal(out * into * 9))
        parts.append(f"float[{out},{into},3,3] {name} = {{{numbers}}}")
    text = f"""<ir_version: 8, opset_import: ["": {opset}]>
    g (float[N,4,H,W] x) => (float[] y) <{", ".join(parts)}> {{
    {chr(10).join(lines)}
    y = Neg ({value}) }}"""
    return text, {name: draw(st.integers(1, 9)) for name in ("N", "H", "W")}


@settings(max_examples=NETWORKS, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks_compute_the_same(drawn: tuple[str, dict[str, int]]) -> None:
    text, sizes = drawn
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    fixed, report = fix(Model("random.onnx", proto, 0))
    assert not any("failed" in left.why or "settled" in left.why for left in report.left)
    feed = {"x": image(sizes["N"], 4, sizes["H"], sizes["W"])}
    (before,) = session(proto.SerializeToString()).run(None, feed)
    (after,) = session(fixed.SerializeToString()).run(None, feed)
    assert np.array_equal(before, after)
    again, second = fix(Model("again.onnx", fixed, 0))
    assert again is fixed
    assert not second.applied


@needs_data
@pytest.mark.parametrize(
    "names", [("bbox", "cls", "ldm"), ("ldm", "class", "box"), ("landmarks", "scores", "4"), ("10", "2", "4")]
)
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_heads_are_known_by_role(path: Path, names: tuple[str, ...]) -> None:
    widths = {"bbox": 4, "box": 4, "cls": 2, "class": 2, "scores": 2, "ldm": 10, "landmarks": 10}
    fixed, _ = fix(open_model(path), concat_heads=names, select="OUT002")
    (joined,) = read_heads(fixed)
    assert [head.stop - head.start for head in joined.heads] == [widths.get(name) or int(name) for name in names]
