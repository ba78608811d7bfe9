"""Verification: what is equal is found equal, what is not is caught, and what cannot be known is said."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import helper, numpy_helper

from fixtures import pitfalls
from onnxlint.errors import OnnxlintError
from onnxlint.model.skeleton import Model, open_model
from onnxlint.verification import process
from onnxlint.verification import worker as trials
from onnxlint.verification.compare import ARITHMETIC, EXACT, HALF, Tolerance, Trial, Verification, verify, verify_models
from onnxlint.verification.differences import compare
from onnxlint.verification.inputs import Contract, Input, fill
from onnxlint.verification.sizes import names_in, roles, size_of
from onnxlint.verification.trials import Task

pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "retinaface"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")

HEAD = '<ir_version: 8, opset_import: ["": 17]>\n'


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.lstrip().startswith("<") else HEAD + text)


def check(original: str | onnx.ModelProto, fixed: str | onnx.ModelProto, **options: Any) -> Verification:
    first, second = (parse(model) if isinstance(model, str) else model for model in (original, fixed))
    return verify_models(Model("m.onnx", first, 0), first, second, **options)


def ran(verification: Verification) -> list[Trial]:
    return [trial for trial in verification.trials if trial.outcome != "original failed"]


IMAGE = "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"


# What is equal


def test_a_dynamic_model_is_run_on_several_shapes() -> None:
    result = check(IMAGE, IMAGE)
    assert result.verified
    assert result.equal
    assert result.engine == "onnxruntime"
    sizes = [dict(part.split("=") for part in dims.split(", ")) for dims in result.shapes]
    assert len(sizes) >= 4
    assert {"1", "3"} <= {size["N"] for size in sizes}
    heights = [int(size["H"]) for size in sizes]
    assert 2 * heights[0] in heights
    assert any(height % 2 for height in heights)
    assert any(size["H"] != size["W"] for size in sizes)
    assert {trial.kind for trial in result.trials} == {"normal", "zeros", "large"}
    assert result.summary().startswith("bit-equal in onnxruntime on ")


def test_sizes_keep_the_condition() -> None:
    result = check(IMAGE, IMAGE, multiples={"H": 32, "W": 16})
    assert result.verified
    for dims in result.shapes:
        sizes = dict(part.split("=") for part in dims.split(", "))
        assert int(sizes["H"]) % 32 == 0
        assert int(sizes["W"]) % 16 == 0
    assert any(int(dims.split("H=")[1].split(",")[0]) // 32 % 2 for dims in result.shapes)  # odd multiples, too


def test_a_static_model_has_one_shape() -> None:
    text = "g (float[1,3] x) => (float[1,3] y) { y = Relu(x) }"
    result = check(text, text)
    assert result.shapes == ("",)
    assert len(result.trials) == 3


def test_a_symbol_has_one_size_wherever_it_stands() -> None:
    text = "g (float[N,K] a, float[K,M] b) => (float[N,M] y) { y = MatMul(a, b) }"
    result = check(text, text)
    assert result.verified
    assert all(trial.outcome == "equal" for trial in result.trials)


def test_sums_of_symbols_are_computed() -> None:
    text = """g (float[B,past] a, float[B,seq] b, float[B,"past + seq"] c) => (float[B,"past + seq"] y) {
        ab = Concat<axis = 1>(a, b)
        y = Add(ab, c)
    }""".replace('"past + seq"', "total")
    model = parse(text)
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + seq"
    result = check(model, model)
    assert result.verified
    assert all(trial.outcome == "equal" for trial in result.trials)


def test_declared_shapes_are_not_believed() -> None:
    model = parse("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    assert check(model, model).verified


def test_sizes_are_looked_for_until_the_original_runs() -> None:
    text = """g (float[N,3,H,W] x) => (float[N,k] y) <int64[2] t = {0, 150528}> { y = Reshape(x, t) }"""
    result = check(text, text)
    assert "H=224, W=224" in result.summary()
    assert any(trial.outcome == "original failed" for trial in result.trials)
    assert result.verified


def test_channels_come_from_the_weights() -> None:
    model = parse(
        "g (float[N,C,H,W] x) => (float[N,2,h,w] y) <float[2,5,1,1] k = {1,2,3,4,5,6,7,8,9,10}> { y = Conv(x, k) }"
    )
    assert "C=5" in check(model, model).summary()


@pytest.mark.parametrize("body", ["y = Gemm(x, w)", "y = MatMul(x, w)", "y = Relu(x)"])
def test_an_input_of_unknown_rank(body: str) -> None:
    model = parse(f"g (float[N,3] x) => (float[N,3] y) <float[3,3] w = {{1,2,3,4,5,6,7,8,9}}> {{ {body} }}")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert check(model, model).verified


def test_indices_stay_in_range_and_masks_are_masks() -> None:
    rows = ", ".join("0.5" for _ in range(10))
    text = f"""g (int64[B,S] input_ids, int64[B,S] attention_mask) => (float[B,S,2] y) <float[5,2] table = {{{rows}}}> {{
        rows = Gather(table, input_ids)
        one = Constant<value: tensor = int64[1] {{1}}>()
        shape = Shape(attention_mask)
        last = Concat<axis = 0>(shape, one)
        mask = Reshape(attention_mask, last)
        float_mask = Cast<to = 1>(mask)
        y = Mul(rows, float_mask)
    }}"""
    result = check(text, text)
    assert result.verified
    assert all(trial.outcome == "equal" for trial in result.trials)


def test_a_factor_is_a_number_that_makes_sense() -> None:
    text = (
        """g (float[1,3,H,W] x, float[4] scales) => (float[a,b,c,d] y) { y = Resize<mode = "linear">(x, , scales) }"""
    )
    result = check(text, text)
    assert result.verified


def test_not_a_number_equals_itself() -> None:
    text = """g (float[N] x) => (float[N] y, float[N] z) {
        zero = Sub(x, x)
        y = Div(zero, zero)
        z = Identity(x)
    }"""
    assert check(text, text).verified


def test_outputs_that_say_nothing_do_not_count() -> None:
    nothing = "g (float[N] x) => (float[N] y) { zero = Sub(x, x)\n y = Div(zero, zero) }"
    result = check(nothing, nothing)
    assert result.equal
    assert not result.verified
    assert "outputs of the original for the inputs that were tried tell nothing" in result.skipped
    assert "all its outputs are NaN" in result.skipped


def test_outputs_that_are_always_empty_are_said_to_be_that() -> None:
    empty = "g (float[N] x) => (int64[A,B] y) <float high = {1e30}> { big = Greater (x, high)\n y = NonZero (big) }"
    result = check(empty, empty)
    assert not result.verified
    assert "tell nothing (at N=" in result.skipped
    assert "all its outputs are empty" in result.skipped


# What is not


def _mutated(model: onnx.ModelProto, index: int, amount: float) -> tuple[onnx.ModelProto, str]:
    """One number of one convolution's weights changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [node.input[1] for node in copy.graph.node if node.op_type == "Conv"]
    name = names[index % len(names)]
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[index % values.size] += amount
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy, name


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(index=st.integers(0, 10_000), amount=st.sampled_from([0.25, -1.0, 1e-2]))
def test_one_changed_weight_is_caught(index: int, amount: float) -> None:
    model = pitfalls.make_model("safe")
    changed, name = _mutated(model, index, amount)
    result = check(model, changed)
    assert not result.equal, name
    assert result.summary().startswith("different at ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("y = LeakyRelu<alpha = 0.1>(x)", "y = LeakyRelu<alpha = 0.11>(x)"),
        ("y = Transpose<perm = [0, 1, 3, 2]>(x)", "y = Transpose<perm = [0, 1, 2, 3]>(x)"),
        ("y = Softmax<axis = 1>(x)", "y = Softmax<axis = 2>(x)"),
        ("y = MaxPool<kernel_shape = [3, 3]>(x)", "y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)"),
        ("y = AveragePool<kernel_shape = [2, 2]>(x)", "y = MaxPool<kernel_shape = [2, 2]>(x)"),
        ("y = Elu(x)", "y = Selu(x)"),
        ("y = Relu(x)", "y = Identity(x)"),
        ("y = Floor(x)", "y = Round(x)"),
        ("y = ReduceMean<axes = [2], keepdims = 1>(x)", "y = ReduceMean<axes = [3], keepdims = 1>(x)"),
        ("y = Cast<to = 6>(x)", "y = Cast<to = 7>(x)"),
        ("y = LpNormalization<axis = 1, p = 1>(x)", "y = LpNormalization<axis = 1, p = 2>(x)"),
        ("y = DepthToSpace<blocksize = 1>(x)", "y = Neg(x)"),
        ("y = Identity(x)", "y = NoSuchOperator(x)"),
    ],
)
def test_one_changed_attribute_or_operator_is_caught(before: str, after: str) -> None:
    text = "g (float[N,3,H,W] x) => (float[a,b,c,d] y) {{ {} }}"
    models = [parse(text.format(body)) for body in (before, after)]
    for model in models:
        model.graph.output[0].type.tensor_type.ClearField("shape")
        if "Cast" in before:
            model.graph.output[0].type.tensor_type.elem_type = 6 if model is models[0] else 7
    assert check(models[0], models[0]).verified
    assert not check(models[0], models[1]).equal


def test_what_holds_only_for_even_sizes_is_caught_unless_that_is_the_condition() -> None:
    halved = """g (float[N,3,H,W] x) => (float[N,3,h,w] y) <float[4] half = {1, 1, 0.5, 0.5}, float[4] two = {1, 1, 2, 2}> {
        small = Resize(x, , half)
        y = Resize(small, , two)
    }"""
    sized = """g (float[N,3,H,W] x) => (float[N,3,h,w] y) <float[4] half = {1, 1, 0.5, 0.5}> {
        small = Resize(x, , half)
        shape = Shape(x)
        y = Resize(small, , , shape)
    }"""
    result = check(halved, sized)
    assert not result.equal
    assert "shape" in result.summary()
    assert check(halved, sized, multiples={"H": 2, "W": 2}).verified


def test_a_batch_that_became_fixed_is_caught() -> None:
    free = "g (float[N,4] x) => (float[N,2,2] y) <int64[3] t = {0, 2, 2}> { y = Reshape(x, t) }"
    fixed = "g (float[N,4] x) => (float[N,2,2] y) <int64[3] t = {1, 2, 2}> { y = Reshape(x, t) }"
    result = check(free, fixed)
    assert not result.equal
    assert "at N=3" in result.summary()
    assert "no longer runs" in result.summary()


def test_an_axis_that_spills_into_the_batch_is_caught() -> None:
    good = "g (float[N,4,H,W] x) => (float[N,P,4] y) <int64[3] t = {0, -1, 4}> { y = Reshape(x, t) }"
    spilt = "g (float[N,4,H,W] x) => (float[N,P,4] y) <int64[3] t = {-1, 6144, 4}> { y = Reshape(x, t) }"
    assert not check(good, spilt).equal


def test_a_missing_output_is_caught() -> None:
    two = "g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x)\n z = Neg(x) }"
    one = "g (float[N] x) => (float[N] y) { y = Relu(x) }"
    assert "1 outputs in place of 2" in check(two, one).summary()


def test_rounding_is_close_where_it_is_allowed() -> None:
    long = "g (float[N,3] x) => (float[N,3] y) <float k = {0.1}> { a = Mul(x, k)\n y = Div(a, k) }"
    short = "g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }"
    assert not check(long, short).equal
    result = check(long, short, exact=False)
    assert result.verified
    assert 0 < result.worst < 1e-3
    assert result.tolerance == ARITHMETIC
    assert result.summary().startswith("equal within rtol 0.0001, atol 1e-05 (worst difference ")
    wrong = "g (float[N,3] x) => (float[N,3] y) <float k = {1.01}> { y = Mul(x, k) }"
    assert not check(long, wrong, exact=False).equal


def test_models_in_16_bits_have_a_wider_tolerance() -> None:
    text = "g (float16[N,3] x) => (float16[N,3] y) <float16 k = {2}> { y = Mul(x, k) }"
    assert check(text, text, exact=False).tolerance == HALF


# What cannot be known


def test_sequences_are_not_verified() -> None:
    text = "g (seq(float[N]) x) => (float[M] y) { y = ConcatFromSequence<axis = 0>(x) }"
    result = check(text, text)
    assert result.equal
    assert not result.verified
    assert result.summary() == "not: its input 'x' is a sequence, not a tensor"


def test_random_outputs_are_not_verified() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { r = RandomNormalLike(x)\n y = Add(x, r) }"
    result = check(text, text)
    assert result.summary() == "not: its outputs are random: two runs of the original differ"


def test_what_onnxruntime_lacks_runs_in_the_reference() -> None:
    text = '<ir_version: 4, opset_import: ["": 9]> g (double[N,3] x) => (double[N,3] y) { y = Clip<min = 0.0>(x) }'
    result = check(text, text)
    assert result.engine == "onnx.reference"
    assert result.verified
    assert not check(text, text.replace("0.0", "0.5")).equal


def test_what_nothing_runs_is_not_verified() -> None:
    text = '<ir_version: 8, opset_import: ["": 17, "mine": 1]> g (float[N] x) => (float[N] y) { y = mine.Op(x) }'
    result = check(text, text)
    assert not result.verified
    assert "onnxruntime cannot load the original" in result.skipped
    assert "onnx.reference" in result.skipped


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else real(name, *rest)
    )
    with pytest.raises(OnnxlintError, match=r"pip install 'onnxlint\[fix\]'"):
        check(IMAGE, IMAGE)


def _dying(body: str) -> str:
    """Code of the other process, with sessions that do something else when they are called for the n-th time."""
    return (
        "import sys, json, os, time; sys.path[:] = json.loads(sys.argv[1])\n"
        "from onnxlint.verification import engines, worker as trials\n"
        "calls = []\n"
        "real = engines.OrtSession.__call__\n"
        "def call(self, feeds):\n"
        "    calls.append(self)\n"
        f"    {body}\n"
        "    return real(self, feeds)\n"
        "engines.OrtSession.__call__ = call\n"
        "trials.main(int(sys.argv[2]))\n"
    )


def test_a_crash_of_the_original_costs_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "if len(feeds['x']) == 3 and len({id(c) for c in calls}) == 1: os.abort()"
    monkeypatch.setattr(process, "_CODE", _dying(body))
    result = check(IMAGE, IMAGE)
    assert result.verified
    assert not any("N=3" in dims for dims in result.shapes)


def test_a_crash_of_the_fixed_model_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_CODE", _dying("if len({id(c) for c in calls}) == 2: os.abort()"))
    result = check(IMAGE, IMAGE)
    assert not result.equal
    assert "crashed where the original ran" in result.summary()


def test_a_run_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_CODE", _dying("time.sleep(60)"))
    monkeypatch.setattr(process, "GRACE", 1.0)
    result = check(IMAGE, IMAGE, seconds=1.0)
    assert not result.verified
    assert result.summary() == "not: onnxruntime took too long"


def test_another_input_cannot_be_compared() -> None:
    other = "g (float[N,3,H,W] z) => (float[N,3,H,W] y) { y = Relu(z) }"
    assert check(IMAGE, other).summary() == "not: the fixed model has another input, 'z'"


def test_a_size_that_became_a_number_is_kept() -> None:
    static = "g (float[1,3,40,48] x) => (float[1,3,40,48] y) { y = Relu(x) }"
    result = check(IMAGE, static)
    assert result.verified
    assert result.shapes == ("",)
    freed = check(static, IMAGE)
    assert freed.verified
    assert freed.shapes[0] == ""


# The user's inputs


def test_inputs_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.full((2, 3, 5, 7), -1.0, np.float32))
    clipped = IMAGE.replace("Relu(x)", "Elu<alpha = 0.0>(x)")
    result = check(IMAGE, IMAGE, inputs=str(path))
    assert result.trials[0].kind == "user"
    assert result.trials[0].dims == "mine.npz"
    assert result.verified
    assert check(IMAGE, clipped, inputs=str(path)).equal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"no", "is not a complete .npy or .npz file"),
        ({"z": np.zeros(3)}, "has no array for input 'x' (it has z)"),
        ({"x": np.zeros((1, 4, 5, 7), np.float32)}, "the original does not run on them"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "mine.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(OnnxlintError) as error:
        check(IMAGE, IMAGE, inputs=str(path))
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


# Files


def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 64])],
        [helper.make_tensor_value_info("y", 1, ["N", 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = open_model(path)
    assert model.proto.graph.initializer[0].data_location == 1  # only the skeleton is in memory
    assert verify_models(model, model.proto, model.proto).verified
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    copy.graph.node[0].op_type = "Gemm"
    assert verify_models(model, model.proto, copy).verified


def test_external_data(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 2000])],
        [helper.make_tensor_value_info("y", 1, ["N", 2000])],
        [numpy_helper.from_array(np.arange(2000, dtype=np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inline, outside = tmp_path / "inline.onnx", tmp_path / "outside" / "m.onnx"
    outside.parent.mkdir()
    onnx.save(proto, inline)
    onnx.save(proto, outside, save_as_external_data=True, location="m.data", size_threshold=0)
    assert verify(inline, outside).verified
    assert verify(outside, inline).verified
    with open(outside.parent / "m.data", "r+b") as file:
        file.seek(4 * 1000)
        file.write(np.float32(7).tobytes())
    result = verify(inline, outside)
    assert not result.equal
    (outside.parent / "m.data").unlink()
    assert "missing" in verify(inline, outside).summary()


@needs_data
@pytest.mark.parametrize("name", ["original_op9_dyn", "original_dynamo_dyn"])
def test_retinaface_equals_itself(name: str) -> None:
    path = DATA / f"{name}.onnx"
    result = verify(path, path)
    assert result.verified
    assert len(result.shapes) >= 4


# Parts


@given(npst.arrays(np.float32, npst.array_shapes(max_side=4), elements=st.floats(width=32)))
def test_everything_equals_itself(array: Any) -> None:
    assert compare(array, array.copy(), 0, 0).outcome == "equal"
    assert compare([array, None], [array.copy(), None], 0, 0).outcome == "equal"


@given(
    npst.arrays(np.float32, (5,), elements=st.floats(-1000, 1000, width=32)),
    st.integers(0, 4),
    st.floats(0.01, 100),
)
def test_a_difference_beyond_the_tolerance_is_seen(array: Any, place: int, amount: float) -> None:
    other = array.copy()
    other[place] += np.float32(amount + 0.001 * abs(array).max())
    assert compare(array, other, 0, 0).outcome == "different"
    assert compare(array, other, ARITHMETIC.rtol, ARITHMETIC.atol).outcome == "different"
    near = array * np.float32(1 + 2e-7)
    assert compare(array, near, ARITHMETIC.rtol, ARITHMETIC.atol).outcome in ("equal", "close")


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        (np.zeros(2, np.float32), np.zeros(3, np.float32), "different"),
        (np.zeros(2, np.float32), np.zeros(2, np.float64), "different"),
        (np.float32(0.0), np.float32(-0.0), "equal"),
        (np.array([math.inf]), np.array([math.inf]), "equal"),
        (np.array([math.inf]), np.array([1e30]), "different"),
        (np.array([math.nan]), np.array([0.0]), "different"),
        (np.array(["a"], object), np.array(["a"], object), "equal"),
        (np.array(["a"], object), np.array(["b"], object), "different"),
        ([np.zeros(1)], [np.zeros(1), np.zeros(1)], "different"),
        (None, np.zeros(1), "different"),
        (np.arange(10_000), np.where(np.arange(10_000) < 5, 1, np.arange(10_000)), "close"),
        (np.arange(100), np.where(np.arange(100) < 5, 7, np.arange(100)), "different"),
        (np.array([True]), np.array([False]), "different"),
    ],
)
def test_comparing(a: Any, b: Any, outcome: str) -> None:
    assert compare(a, b, 1e-4, 1e-5).outcome == outcome


@pytest.mark.parametrize(
    ("dim", "names", "size"),
    [
        ("N", ("N",), 2),
        ("past + 1", ("past",), 6),
        ("2*past", ("past",), 10),
        ("past//2 - N", ("past", "N"), 0),
        ("N / 0", ("N",), 0),
        ("unk__5", ("unk__5",), 9),
        ("floor(N/2)", ("N",), 1),
        ("floor((past - 1)/2) + 1", ("past",), 3),
        ("ceil(past/N)", ("past", "N"), 3),
        ("Max(1, past - 7)", ("past",), 1),
        ("past % 3", ("past",), 2),
        ("max(past)", ("max(past)",), 7),
        ("floor", ("floor",), 5),
        ("N**99", ("N**99",), 6),
        ("__import__('os') + 1", ("__import__('os') + 1",), 4),
        ("N" * 300, ("N" * 300,), 8),
    ],
)
def test_sizes_that_are_expressions(dim: str, names: tuple[str, ...], size: int) -> None:
    sizes = {
        "N": 2,
        "past": 5,
        "unk__5": 9,
        "max(past)": 7,
        "floor": 5,
        "N**99": 6,
        "__import__('os') + 1": 4,
        "N" * 300: 8,
    }
    assert set(names_in(dim)) == set(names)
    assert size_of(dim, sizes) == size


def test_roles_of_symbols() -> None:
    inputs = (
        Input("image", "float32", ("N", 3, "H", "W")),
        Input("nhwc", "float32", ("N", "h", "w", 3)),
        Input("ids", "int64", ("N", "S")),
        Input("state", "float32", (2, "M", 128)),
    )
    assert roles(inputs, 4) == {
        "N": "batch", "H": "height", "W": "width", "h": "height", "w": "width", "S": "length", "M": "batch",
    }  # fmt: skip


@given(
    st.sampled_from(["float32", "float16", "int64", "uint8", "int8", "bool", "str"]),
    st.sampled_from(["", "index", "mask", "size"]),
    st.sampled_from(["normal", "zeros", "large"]),
    st.integers(0, 3),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
)
def test_values_have_the_shape_the_type_and_the_range(
    dtype: str, role: str, kind: str, way: int, shape: tuple[int, ...]
) -> None:
    one = Input("x", dtype, tuple(shape), role, high=7)
    values = fill(one, shape, kind, way, np.random.default_rng(0))
    assert isinstance(values, np.ndarray)
    assert values.shape == shape
    assert values.dtype == (np.dtype(object) if dtype == "str" else np.dtype(dtype))
    if role == "index" and values.dtype.kind in "iu" and values.size:
        assert 0 <= values.min() <= values.max() < 7


def test_what_is_begun_is_said_before() -> None:
    task = Task("no such file", "no such file", ("", ""), Contract((Input("x", "float32", ("N", 3, "H", "W")),)))
    messages = trials.compare_models(task)
    assert next(messages) == {"begin": "original", "trial": -1}
    with pytest.raises(FileNotFoundError):
        next(messages)


def test_tolerances_in_words() -> None:
    assert str(EXACT) == "bit-equal"
    assert str(Tolerance(1e-2, 0)) == "rtol 0.01, atol 0"
    assert Verification(skipped="no\x1b[31m").summary() == "not: no\\x1b[31m"
    assert Verification().summary() == "not: nothing was run"
