"""Raising operator sets: the same numbers afterwards, nothing else changed, and a clear refusal of all else."""

from __future__ import annotations

import glob
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import defs, helper, numpy_helper

from fixtures import pitfalls
from fixtures.old_operators import MODELS, OldModel
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset import NEWEST, OLDEST, Conversion, convert, raise_opset
from onnxlint.fixes.opset_changes import CHANGES, SAME, STEPS
from onnxlint.model.save import save
from onnxlint.model.skeleton import Model, open_model
from onnxlint.symbolic.view import make_view
from onnxlint.verification.compare import verify_models
from onnxlint.verification.differences import compare
from tests.support import zoo
from tests.support.old_versions import newest_opset

ort = pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "retinaface"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")

RUNS_UP_TO = min(23, newest_opset())
"""The newest operator set that is run here; onnxruntime lacks operators of later ones."""


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def raise_to(model: onnx.ModelProto | str, version: int) -> Conversion:
    proto = parse(model) if isinstance(model, str) else model
    return raise_opset(make_view(Model("m.onnx", proto, 0)), version)


def run(proto: onnx.ModelProto | bytes, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return list(session.run(None, {name: value for name, value in feeds.items() if name in names}))


def assert_same(before: list[Any], after: list[Any], exact: bool = True) -> None:
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        difference = compare(a, b, *((0.0, 0.0) if exact else (1e-6, 1e-6)))
        assert difference.outcome in (("equal",) if exact else ("equal", "close")), difference


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


# The tables


def changes() -> Iterator[tuple[str, defs.OpSchema, defs.OpSchema]]:
    """Each operator's pairs of versions that follow one another."""
    by_name: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            by_name.setdefault(schema.name, []).append(schema)
    for name, schemas in by_name.items():
        schemas.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(schemas):
            if OLDEST < new.since_version <= NEWEST:
                yield name, old, new


def test_every_change_of_every_operator_is_known() -> None:
    known = {(name, new.since_version) for name, _, new in changes()}
    newest = min(NEWEST, defs.onnx_opset_version())
    told = {key for key in (*SAME, *STEPS) if key[1] <= newest}
    assert not set(SAME) & set(STEPS)
    assert known == told


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [change for change in changes() if (change[0], change[2].since_version) in SAME],
    ids=lambda part: str(getattr(part, "since_version", part)),
)
def test_what_is_said_to_be_the_same_takes_all_that_it_took(name: str, old: defs.OpSchema, new: defs.OpSchema) -> None:
    """Attributes keep their defaults, new ones are optional; inputs and outputs keep their places and their types."""
    assert not new.deprecated
    for key, attribute in old.attributes.items():
        now = new.attributes[key]
        assert now.type == attribute.type
        assert now.default_value == attribute.default_value
        assert not now.required or attribute.required
    assert not any(new.attributes[key].required for key in set(new.attributes) - set(old.attributes))
    optional = defs.OpSchema.FormalParameterOption.Optional
    for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        assert len(before) <= len(after)
        assert all(parameter.option == optional for parameter in list(after)[len(before) :])
        for a, b in zip(before, after, strict=False):
            assert b.option in (a.option, optional)
            assert set(a.types) <= set(b.types), a.name


def test_changes_are_in_order() -> None:
    assert all(list(versions) == sorted(set(versions)) for versions in CHANGES.values())
    assert CHANGES["Upsample"] == (9, 10)
    assert CHANGES["Resize"] == (11, 13, 18, 19)


# The numbers


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_an_old_operator_gives_the_same_numbers(model: OldModel) -> None:
    proto, feeds = model.proto(), model.feeds()
    before = run(proto, feeds)
    for version in (9, 10, 11, 13, 17, 18, 20, 21, RUNS_UP_TO):
        unrunnable = "RoiAlign" in model.body and version > 21
        if version <= model.opset or version > RUNS_UP_TO or unrunnable:
            continue
        conversion = raise_to(proto, version)
        assert_same(before, run(conversion.proto, feeds), conversion.exact)
        assert conversion.exact or (version >= 19 and "AveragePool" in model.body)
        assert conversion.exact or conversion.notes


@pytest.mark.parametrize("version", [9, 11, 13, 17, 19, 21, 23])
def test_what_comes_out_is_valid(version: int) -> None:
    for model in MODELS:
        if model.opset < version and not ("GroupNorm" in model.body and version < 21):  # 18's is deprecated
            proto = raise_to(model.proto(), version).proto
            onnx.checker.check_model(proto, full_check=True)
            assert proto.opset_import[0].version == version


@pytest.mark.parametrize("folder", ["light", "pytorch-converted", "pytorch-operator", "real", "simple"])
def test_models_that_onnx_ships(folder: str) -> None:
    base = Path(onnx.__file__).parent / "backend" / "test" / "data" / folder
    seen = 0
    for file in sorted(glob.glob(str(base / "*" / "model.onnx"))):
        proto = onnx.load(file)
        opset = max(entry.version for entry in proto.opset_import)
        if opset < OLDEST:
            with pytest.raises(OnnxlintError, match="too old"):
                raise_to(proto, 17)
            continue
        known = {tensor.name for tensor in proto.graph.initializer}
        feeds = {}
        for i, value in enumerate(value for value in proto.graph.input if value.name not in known):
            tensor = Path(file).parent / "test_data_set_0" / f"input_{i}.pb"
            if value.type.HasField("tensor_type") and tensor.exists():
                feeds[value.name] = numpy_helper.to_array(onnx.TensorProto.FromString(tensor.read_bytes()))
        conversion = raise_to(proto, 17)
        onnx.checker.check_model(conversion.proto)
        try:
            before = run(proto, feeds)
        except Exception:  # noqa: BLE001, S112 - what the runtime refuses says nothing; its exceptions have no common class
            continue
        assert_same(before, run(conversion.proto, feeds), conversion.exact)
        seen += 1
    assert seen or not base.exists() or folder not in ("simple",)


@pytest.mark.slow
def test_onnx_own_tests_of_every_operator() -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    compared = 0
    for case in cases:
        assert case.model is not None
        opset = max((entry.version for entry in case.model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        if not case.data_sets or not OLDEST <= opset < RUNS_UP_TO or "training" in case.name:
            continue
        feeds = dict(zip((value.name for value in case.model.graph.input), case.data_sets[0][0], strict=False))
        try:
            before = run(case.model, feeds)
            assert_same(before, run(case.model, feeds))
        except Exception:  # noqa: BLE001, S112 - as above; or its outputs are random
            continue
        if case.name == "test_scan_sum":
            continue  # of opset 8, with a batch axis: refused
        conversion = raise_to(case.model, RUNS_UP_TO)
        try:
            after = run(conversion.proto, feeds)
        except ort.capi.onnxruntime_pybind11_state.NotImplemented:
            continue  # the runtime lacks the newer version
        assert_same(before, after, conversion.exact)
        compared += 1
    assert compared > 500


@needs_data
@pytest.mark.parametrize("version", [11, 17])
def test_retinaface_of_opset_9_is_bit_equal_at_odd_sizes(version: int) -> None:
    model = open_model(DATA / "original_op9_dyn.onnx")
    before = open_model(DATA / "original_op9_dyn.onnx")
    after = raise_opset(make_view(model), version)
    assert after.exact
    assert not after.notes
    assert operators(model.proto).count("Upsample") == 2
    assert operators(after.proto).count("Resize") == 2
    assert verify_models(model, before.proto, after.proto).verified


@needs_data
@pytest.mark.parametrize("version", [11, 17])
def test_retinaface_of_opset_9_at_the_sizes_of_the_issue(version: int, tmp_path: Path) -> None:
    path = DATA / "original_op9_dyn.onnx"
    model = open_model(path)
    save(model, raise_opset(make_view(model), version).proto, str(tmp_path / "new.onnx"))
    after = (tmp_path / "new.onnx").read_bytes()
    name = model.proto.graph.input[0].name
    for batch, height, width in ((1, 184, 136), (3, 192, 136), (2, 100, 100), (1, 640, 640)):
        image = np.random.default_rng(height).uniform(-128, 128, (batch, 3, height, width)).astype(np.float32)
        assert_same(run(path.read_bytes(), {name: image}), run(after, {name: image}))


@settings(max_examples=40, deadline=None)
@given(
    scales=st.lists(st.floats(1, 4, width=32), min_size=2, max_size=2),
    mode=st.sampled_from(["nearest", "linear"]),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    opset=st.sampled_from([9, 10]),
    version=st.sampled_from([11, 13, 19]),
)
def test_enlarging(scales: list[float], mode: str, shape: tuple[int, ...], opset: int, version: int) -> None:
    op = "Upsample" if opset == 9 else "Resize"
    proto = parse(
        f'<ir_version: 8, opset_import: ["": {opset}]> g (float[N,C,H,W] x) => (float[a,b,c,d] y) '
        f'<float[4] s = {{1.0, 1.0, {scales[0]:.9g}, {scales[1]:.9g}}}> {{ y = {op}<mode = "{mode}">(x, s) }}'
    )
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_same(run(proto, {"x": x}), run(raise_to(proto, version).proto, {"x": x}))


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.125, 1, width=32), size=st.integers(10, 60), version=st.sampled_from([11, 13, 19]))
def test_reducing(scale: float, size: int, version: int) -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["": 10]> g (float[N,C,H,W] x) => (float[a,b,c,d] y) '
        f"<float[4] s = {{1.0, 1.0, {scale:.9g}, {scale:.9g}}}> {{ y = Resize(x, s) }}"
    )
    x = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    conversion = raise_to(proto, version)
    assert_same(run(proto, {"x": x}), run(conversion.proto, {"x": x}))


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    free=st.lists(st.booleans(), min_size=4, max_size=4),
    data=st.data(),
)
def test_softmax_over_all_axes_from_one_on(op: str, shape: list[int], free: list[bool], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    dims = ",".join(f"d{i}" if free[i] else str(size) for i, size in enumerate(shape))
    proto = parse(
        f'<ir_version: 8, opset_import: ["": 11]> g (float[{dims}] x) => (float[{dims}] y) {{ y = {op}<axis = {axis}>(x) }}'
    )
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    conversion = raise_to(proto, 13)
    assert_same(run(proto, {"x": x}), run(conversion.proto, {"x": x}))
    onnx.checker.check_model(conversion.proto, full_check=True)


# What stays


def test_nothing_else_changes() -> None:
    model = pitfalls.make_model(opset=9)
    model.metadata_props.add(key="labels", value="a,b")
    model.doc_string = "about"
    model.graph.doc_string = "about the graph"
    for node in model.graph.node:
        node.doc_string = f"made by {node.op_type}"
        node.metadata_props.add(key="scope", value=node.name)
    model.graph.value_info.append(helper.make_tensor_value_info(model.graph.node[3].output[0], 1, ["a", 8, "b", "c"]))
    before = model.SerializeToString()
    after = raise_to(model, 11).proto
    assert model.SerializeToString() == before  # the original is not touched
    changed = [
        (a.op_type, b.op_type)
        for a, b in zip(model.graph.node, after.graph.node, strict=True)
        if a.SerializeToString() != b.SerializeToString()
    ]
    assert changed
    assert set(changed) <= {("Upsample", "Resize"), ("Slice", "Slice")}
    for a, b in zip(model.graph.node, after.graph.node, strict=True):
        assert (a.name, a.doc_string, list(a.output)) == (b.name, b.doc_string, list(b.output))
        assert [entry.value for entry in a.metadata_props] == [entry.value for entry in b.metadata_props]
    old = [tensor.name for tensor in model.graph.initializer]
    assert [tensor.name for tensor in after.graph.initializer][: len(old)] == old
    for part in ("value_info", "output", "metadata_props"):
        owner = model if part == "metadata_props" else model.graph
        other = after if part == "metadata_props" else after.graph
        assert list(getattr(owner, part)) == list(getattr(other, part))
    assert (after.doc_string, after.graph.doc_string) == ("about", "about the graph")


def test_equal_constants_are_made_once() -> None:
    text = """<ir_version: 8, opset_import: ["": 11]> g (float[N] x, float[N] axes_0) => (float[a,b] y, float[a,b] z) {
        y = Unsqueeze<axes = [0]>(x)
        z = Unsqueeze<axes = [0]>(axes_0)
    }"""
    after = raise_to(text, 13).proto
    assert [tensor.name for tensor in after.graph.initializer] == ["axes_0_1"]
    assert [node.input[1] for node in after.graph.node] == ["axes_0_1", "axes_0_1"]


def test_constants_are_nodes_where_the_graph_keeps_them_so() -> None:
    text = """<ir_version: 8, opset_import: ["": 11]> g (float[N] x) => (float[a,b] y) {
        one = Constant<value: tensor = float {1.0}>()
        more = Add(x, one)
        y = Unsqueeze<axes = [0]>(more)
    }"""
    after = raise_to(text, 13).proto
    assert not after.graph.initializer
    assert operators(after) == ["Constant", "Constant", "Add", "Unsqueeze"]
    onnx.checker.check_model(after, full_check=True)


def test_weights_are_not_read(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((3, 4, 64, 64), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Upsample", ["x"], ["u"], scales=[1.0, 1.0, 2.0, 2.0]),
            helper.make_node("Conv", ["u", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 4, 32, 32])],
        [helper.make_tensor_value_info("y", 1, None)],
        [weight],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=4), path)
    model = open_model(path)
    after = convert(make_view(model), 13)
    assert after.graph.initializer[0].SerializeToString() == model.proto.graph.initializer[0].SerializeToString()
    assert verify_models(model, model.proto, after).verified


def test_unused_constants_go() -> None:
    text = """<ir_version: 8, opset_import: ["": 11]> g (float[1,1,4,4] x) => (float[1,1,7,9] y)
        <float[0] roi = {}, float[0] none = {}, int64[4] sizes = {1, 1, 7, 9}> {
        y = Resize<mode = "linear">(x, roi, none, sizes)
    }"""
    after = raise_to(text, 13).proto
    assert list(after.graph.node[0].input) == ["x", "roi", "", "sizes"]
    assert [tensor.name for tensor in after.graph.initializer] == ["roi", "sizes"]


def test_what_is_said_of_a_dropped_mask_goes() -> None:
    text = """<ir_version: 4, opset_import: ["": 9]> g (float[N] x) => (float[N] y) <float[N] mask> {
        y, mask = Dropout(x)
    }"""
    after = raise_to(text, 11).proto
    assert list(after.graph.node[0].output) == ["y"]
    assert not after.graph.value_info


@pytest.mark.parametrize(("ir", "version", "expected"), [(3, 8, 3), (3, 9, 4), (4, 11, 6), (8, 13, 8), (4, 21, 10)])
def test_the_ir_version_is_raised_where_it_must(ir: int, version: int, expected: int) -> None:
    text = f'<ir_version: {ir}, opset_import: ["": 7]> g (float[N] x) => (float[N] y) {{ y = Relu(x) }}'
    assert raise_to(text, version).proto.ir_version == expected


def test_initializers_stay_constants() -> None:
    text = """<ir_version: 3, opset_import: ["": 8]> g (float[N,2] x, float[2] w) => (float[N,2] y) <float[2] w = {1, 2}> {
        y = Mul(x, w)
    }"""
    proto = parse(text.replace("<float[2] w = {1, 2}>", ""))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 2], np.float32), "w"))
    conversion = raise_to(proto, 11)
    assert [value.name for value in conversion.proto.graph.input] == ["x"]
    assert "1 initializer is no longer listed as input" in conversion.notes[0]
    proto.ir_version = 4  # there it was meant
    assert [value.name for value in raise_to(proto, 11).proto.graph.input] == ["x", "w"]


def test_the_same_version_is_the_same_model() -> None:
    proto = pitfalls.make_model()
    assert convert(make_view(Model("m.onnx", proto, 0)), 11) is proto


def test_bodies_and_functions() -> None:
    text = """<ir_version: 8, opset_import: ["": 11, "mine": 1]>
    g (bool c, float[N,3] x) => (float[N,3] y) {
        z = mine.f(x)
        y = If(c) <
            then_branch = t () => (float[N,3] o) { w = Unsqueeze<axes = [0]>(z)
                o = Squeeze<axes = [0]>(w) },
            else_branch = e () => (float[N,3] p) { p = Identity(z) }
        >
    }
    <domain: "mine", opset_import: ["": 11]>
    f (a) => (b) {
        u = Unsqueeze<axes = [0]>(a)
        b = Squeeze<axes = [0]>(u)
    }"""
    proto = parse(text)
    after = raise_to(proto, 13).proto
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.functions[0].node] == ["Constant", "Unsqueeze", "Squeeze"]
    assert after.functions[0].opset_import[0].version == 13
    x = np.ones((2, 3), np.float32)
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": x}
        assert_same(run(proto, feeds), run(after, feeds))


def test_other_domains_stay() -> None:
    text = """<ir_version: 8, opset_import: ["": 11, "com.microsoft": 1]> g (float[N,3] x) => (float[a,N,3] y) {
        z = com.microsoft.Gelu(x)
        y = Unsqueeze<axes = [0]>(z)
    }"""
    proto = parse(text)
    after = raise_to(proto, 17).proto
    assert {entry.domain: entry.version for entry in after.opset_import} == {"": 17, "com.microsoft": 1}
    assert after.graph.node[0].SerializeToString() == proto.graph.node[0].SerializeToString()
    feeds = {"x": np.ones((2, 3), np.float32)}
    assert_same(run(proto, feeds), run(after, feeds))


# What is refused


IMAGE = "(float[N,C,H,W] x) => (float[a,b,c,d] y)"


@pytest.mark.parametrize(
    ("opset", "body", "version", "why"),
    [
        (6, "(float[N] x) => (float[N] y) { y = Relu(x) }", 11, "opset 6 is too old to be raised exactly"),
        (11, "(float[N] x) => (float[N] y) { y = Relu(x) }", 9, "it has opset 11, and can only be raised"),
        (11, "(float[N] x) => (float[N] y) { y = Relu(x) }", 99, "opset 99 is not supported"),
        (
            11,
            "(float[N] x) => (float[N] y) { y = ATen(x) }",
            13,
            "ATen 'y' cannot be raised to opset 13: opset 11 has no such",
        ),
        (11, f"{IMAGE} <float[4] s = {{1, 1, 2, 2}}> {{ y = Upsample(x, s) }}", 13, "opset 11 has no such operator"),
        (10, f"{IMAGE} <float[4] s = {{1.0, 1.0, 1.5, 0.6}}> {{ y = Resize(x, s) }}", 11, "no mode does that"),
        (10, "(float[N,C,H,W] x, float[4] s) => (float[a,b,c,d] y) { y = Resize(x, s) }", 11, "by computed factors"),
        (
            11,
            f'{IMAGE} <float[0] r = {{}}, float[4] s = {{1, 1, 2, 2}}> {{ y = Resize<mode = "linear", '
            'coordinate_transformation_mode = "tf_half_pixel_for_nn">(x, r, s) }',
            13,
            "tf_half_pixel_for_nn",
        ),
        (9, "(float[N] x) => (float[N] y, float[N] m) { y, m = Dropout(x) }", 11, "its mask is used"),
        (
            7,
            "(float[N,3,2] x, float[3,2] s) => (float[N,3,2] y) { y = BatchNormalization<spatial = 0>(x, s, s, s, s) }",
            9,
            "spatial = 0",
        ),
        (
            9,
            "(float[N,3] x, float[3] s) => (float[N,3] y, float[3] m) { y, m, v, p, q = BatchNormalization(x, s, s, s, s) }",
            14,
            "model.eval()",
        ),
        (
            10,
            f"{IMAGE} {{ y = MaxPool<kernel_shape = [2, 2], strides = [3, 3], ceil_mode = 1>(x) }}",
            22,
            "with ceil_mode",
        ),
        (
            18,
            f"{IMAGE} <float[2] s = {{1, 2}}> {{ y = GroupNormalization<num_groups = 2>(x, s, s) }}",
            21,
            "a scale for each channel",
        ),
        (9, "(int32[N] x) => (int32[N] y) { y = Erf(x) }", 13, "no longer defined for integers"),
        (11, "(float[N] x) => (float[N] y) { y = Squeeze<axes: ints = []>(x) }", 13, "list of axes is empty"),
        (19, "(float[N] x) => (float8e4m3fnuz[N] y) { y = Cast<to = 18>(x) }", 24, "infinity"),
        (9, "(seq(float[N]) s) => (float[N] y) { x = SequenceAt(s, s)\n y = Clip<min = 0.0>(x) }", 9, ""),
    ],
)
def test_refusals_name_the_node_in_one_line(opset: int, body: str, version: int, why: str) -> None:
    proto = parse(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}')
    if not why:
        assert raise_to(proto, version).proto is proto
        return
    with pytest.raises(OnnxlintError) as error:
        raise_to(proto, version)
    assert why in str(error.value)
    assert str(error.value).startswith("m.onnx: ")
    assert "\n" not in str(error.value)


def test_scan_of_opset_8_is_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("a", 1, [2])],
        [helper.make_tensor_value_info("b", 1, [2])],
    )
    node = helper.make_node("Scan", ["", "x"], ["y"], "loop", body=body, num_scan_inputs=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 2])],
        [helper.make_tensor_value_info("y", 1, [1, 3, 2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)
    with pytest.raises(OnnxlintError, match="Scan 'loop' cannot be raised to opset 9"):
        raise_to(proto, 9)


def test_attributes_of_functions_are_refused_where_they_would_become_inputs() -> None:
    text = """<ir_version: 8, opset_import: ["": 11, "mine": 1]>
    g (float[N] x) => (float[a,b] y) { y = mine.f<axes = [0]>(x) }
    <domain: "mine", opset_import: ["": 11]>
    f <axes> (a) => (b) { b = Unsqueeze<axes: ints = @axes>(a) }"""
    with pytest.raises(OnnxlintError, match=r"Unsqueeze 'b' in function:mine.f cannot be .* attribute of the function"):
        raise_to(text, 13)


def test_models_without_standard_operators() -> None:
    text = """<ir_version: 8, opset_import: ["mine": 1]> g (float[N] x) => (float[N] y) { y = mine.f(x) }"""
    with pytest.raises(OnnxlintError, match="has no standard operators"):
        raise_to(text, 13)


def test_control_characters_are_not_shown() -> None:
    proto = parse(
        '<ir_version: 8, opset_import: ["": 9]> g (float[N] x) => (float[N] y, float[N] m) { y, m = Dropout(x) }'
    )
    proto.graph.node[0].name = "a\x1b[31m"
    with pytest.raises(OnnxlintError) as error:
        raise_to(proto, 11)
    assert "\x1b" not in str(error.value)


def test_a_chain_of_many_nodes_takes_no_time() -> None:
    graph = onnx.GraphProto(name="g")
    graph.input.append(helper.make_tensor_value_info("v0", 1, ["N", 4]))
    count = 20_000
    graph.node.extend(
        helper.make_node("Unsqueeze" if i % 2 == 0 else "Squeeze", [f"v{i}"], [f"v{i + 1}"], axes=[0])
        for i in range(count)
    )
    graph.output.append(helper.make_tensor_value_info(f"v{count}", 1, ["N", 4]))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    started = os.times()
    after = raise_to(proto, 17).proto
    spent = os.times()
    assert len(after.graph.initializer) == 1
    assert spent.user + spent.system - started.user - started.system < 5


@pytest.mark.parametrize("scales", ["initializer", "input", "Constant"])
def test_empty_scales_beside_sizes_go_whatever_holds_them(scales: str) -> None:
    """From opset 18 on onnxruntime refuses a Resize that is given both, even empty ones."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 12]> g (float[N,1,4,4] x) => (float[N,1,6,6] y) { '
        's = Shape (x) b = Slice (s, a, e) t = Concat <axis = 0> (b, m) y = Resize <mode = "nearest"> (x, k, k, t) }'
    )
    empty = np.zeros(0, np.float32)
    for name, array in {"a": np.array([0]), "e": np.array([2]), "m": np.array([6, 6])}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    if scales == "Constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(empty)))
    else:
        model.graph.initializer.append(numpy_helper.from_array(empty, "k"))
    if scales == "input":
        model.graph.input.append(helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [0]))
    image = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)
    raised = raise_to(model, 18).proto
    inputs = next(node for node in raised.graph.node if node.op_type == "Resize").input
    assert not all(inputs[2:]) or len(inputs) == 3
    np.testing.assert_array_equal(
        zoo.session(raised).run(None, {"x": image})[0], zoo.session(model).run(None, {"x": image})[0]
    )
