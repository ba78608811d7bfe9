"""Sizes on which models are verified: each symbol its own, 0 and 1, what the graph is fixed to, what was set free."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxlint.model.dim_names import axis_symbol
from onnxlint.model.skeleton import Model
from onnxlint.verification.compare import Verification, verify_models
from onnxlint.verification.inputs import Contract, Input
from onnxlint.verification.sizes import MAX_ELEMENTS, candidates, size_of, variations, volume

pytest.importorskip("onnxruntime")


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')


def check(original: str | onnx.ModelProto, fixed: str | onnx.ModelProto, **options: Any) -> Verification:
    first, second = (parse(model) if isinstance(model, str) else model for model in (original, fixed))
    return verify_models(Model("m.onnx", first, 0), first, second, **options)


def sizes_of(verification: Verification) -> list[dict[str, int]]:
    return [
        {symbol: int(size) for symbol, size in (part.split("=") for part in shape.split(", "))}
        for shape in verification.shapes
    ]


def named(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The model with names for all axes of its first input."""
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, names, strict=True):
        dim.dim_param = name
    return model


@pytest.mark.parametrize("name", ["-1", "None", "?", "unk__1", "unknown", "?width", "dynamic", "none"])
def test_names_that_mean_unknown_are_no_symbol(name: str) -> None:
    swapped = "g (float[a,b,c] x) => (float[a,q,r] y) <int64[3] t = {0, 0, -1}> { y = Reshape(x, t) }"
    kept = "g (float[a,b,c] x) => (float[a,q,r] y) { y = Identity(x) }"
    turned = """g (float[a,b,c] x) => (float[a,q,r] y) <int64[1] i = {0}, int64[1] j = {1}, int64[1] k = {2}> {
        s = Shape(x)
        a0 = Gather(s, i)
        b0 = Gather(s, j)
        c0 = Gather(s, k)
        t = Concat<axis = 0>(a0, c0, b0)
        y = Reshape(x, t)
    }"""
    models = [named(parse(text), "n", name, name) for text in (turned, kept, swapped)]
    assert not check(models[0], models[1]).equal
    assert check(models[1], models[2]).verified
    assert {"x[1]", "x[2]"} <= sizes_of(check(models[1], models[2]))[0].keys()


def test_a_true_symbol_has_one_size() -> None:
    assert axis_symbol("H", "x", 2) == "H"
    assert axis_symbol("N1", "x", 0) == "N1"
    assert axis_symbol("", "x", 0) == "x[0]"


def test_an_axis_named_n_is_no_batch_because_of_its_name() -> None:
    reflect = """g (float[b,c,n] x) => (float[b,c,m] y) <int64[6] pads = {0, 0, 5, 0, 0, 5}> {
        y = Pad<mode = "reflect">(x, pads)
    }"""
    result = check(reflect, reflect)
    assert result.verified
    assert len(result.shapes) >= 4


def test_a_batch_of_none_and_of_one_is_tried() -> None:
    text = "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"
    assert {0, 1, 2, 3} <= {sizes["N"] for sizes in sizes_of(check(text, text))}


COPIED = """g (float[b,4,h,w] x) => (float[b,4,n] y) <int64[3] t = {0, 4, -1}> { y = Reshape(x, t) }"""
COMPUTED = """g (float[b,4,h,w] x) => (float[b,4,n] y)
<int64[1] i = {0}, int64[1] j = {2}, int64[1] k = {3}, int64[1] c = {4}> {
    s = Shape(x)
    b0 = Gather(s, i)
    h0 = Gather(s, j)
    w0 = Gather(s, k)
    m = Mul(h0, w0)
    t = Concat<axis = 0>(b0, c, m)
    y = Reshape(x, t)
}"""


def test_an_empty_batch_counts_only_where_that_is_asked_for() -> None:
    result = check(COMPUTED, COPIED)
    assert result.verified
    assert all(sizes["b"] > 0 for sizes in sizes_of(result))
    assert "; not for an empty batch (b=0" in result.summary()
    strict = check(COMPUTED, COPIED, allow_empty=True)
    assert not strict.equal
    assert strict.summary().startswith("different at b=0")


def test_two_batches_do_not_always_have_one_size() -> None:
    text = "g (float[M,8] x, float[K,8] z) => (float[M,8] y, float[K,8] v) { y = Relu(x)\n v = Relu(z) }"
    assert any(sizes["M"] != sizes["K"] for sizes in sizes_of(check(text, text)))


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("g (float[b,t,16] x) => (float[b,6,2,8] y) <int64[4] s = {-1, 6, 2, 8}> { y = Reshape(x, s) }", {"t": 6}),
        (
            "g (float[1,1,h,w] x) => (float[1,1,72,60] y) <int64[4] s = {1, 1, 72, 60}> { y = Reshape(x, s) }",
            {"h": 72, "w": 60},
        ),
        (
            "g (float[1,1,h,w] x) => (float[1,1,3,3,24,20] y) <int64[4] r = {1, 9, 1, 1}, int64[6] s = {1, 1, 3, 3, 24, 20}>"
            "{ nine = Tile(x, r)\n y = Reshape(nine, s) }",
            {"h": 24, "w": 20},
        ),
    ],
)
def test_sizes_that_the_graph_is_fixed_to_are_tried(text: str, sizes: dict[str, int]) -> None:
    result = check(text, text)
    assert result.verified, result.summary()
    assert sizes.items() <= sizes_of(result)[0].items()


def test_a_size_that_inference_finds_is_tried() -> None:
    model = parse(
        "g (float[1,1,h,w] x) => (float[1,1,p,q] y) <float[1,1,3,3] k = {1, 1, 1, 1, 1, 1, 1, 1, 1}> "
        "{ c = Conv(x, k)\n y = Add(c, grid) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 59, 43), np.float32), "grid"))
    result = check(model, model)
    assert result.verified
    assert result.shapes == ("h=61, w=45",)


def test_what_onnxruntime_said_is_repeated() -> None:
    text = "g (float[1,1,h,w] x) => (float[1,1,w] y) <int64 row = {100000}> { y = Gather <axis = 2> (x, row) }"
    result = check(text, text)
    assert not result.verified
    assert "runs on none of the inputs that were tried (at h=64, w=96: " in result.skipped
    assert "Gather" in result.skipped


def test_a_dimension_that_is_an_expression_has_a_small_size() -> None:
    contract = Contract((Input("x", "float32", ("b", 3, "32*h", "32*w")),))
    base = next(candidates(contract, 4))
    assert (size_of("32*h", base), size_of("32*w", base)) == (64, 96)
    assert all(volume(contract, sizes, 4) <= MAX_ELEMENTS for sizes in variations(contract, base, 4))


@given(
    st.lists(
        st.lists(
            st.sampled_from(["b", "n", "h", "w", "t", "16*k", "p + q", 1, 3, 64, 5000]), min_size=1, max_size=5
        ).map(tuple),
        min_size=1,
        max_size=3,
    )
)
@example([("b", "p + q", "b", "b")])
def test_inputs_stay_small_and_other_shapes_keep_symbols_apart(shapes: list[tuple[Any, ...]]) -> None:
    contract = Contract(tuple(Input(f"x{i}", "float32", dims) for i, dims in enumerate(shapes)))
    tried = list(candidates(contract, 4))
    assert tried
    if len(tried) > 1:
        assert all(volume(contract, sizes, 4) <= MAX_ELEMENTS for sizes in tried)
    base = tried[0]
    others = list(variations(contract, base, 4))
    limit = max(MAX_ELEMENTS, volume(contract, base, 4))
    assert all(volume(contract, sizes, 4) <= limit and sizes != base for sizes in others)
    if base and limit == MAX_ELEMENTS and volume(contract, base, 4) < MAX_ELEMENTS // 8**4:
        assert any(len(set(sizes.values())) == len(sizes) for sizes in others)


# Sizes that were set free

STATIC = "g (float[1,3,32,48] x) => (float[1,q] y) <int64[2] t = {1, 4608}> { a = Relu(x)\n y = Reshape(a, t) }"
FREE = "g (float[N,3,32,48] x) => (float[N,q] y) <int64[2] t = {0, 4608}> { a = Relu(x)\n y = Reshape(a, t) }"


def test_a_batch_that_was_set_free_is_compared_sample_by_sample() -> None:
    result = check(STATIC, FREE)
    assert result.verified
    assert {"N=2", "N=3"} <= set(result.shapes)
    whitened = "m = ReduceMean<axes = [0], keepdims = 1>(x)\n d = Sub(x, m)\n e = Add(d, m)\n a = Relu(d)"
    alone, mixed = (text.replace("a = Relu(x)", whitened) for text in (STATIC, FREE))
    wrong = check(alone, mixed)
    assert not wrong.equal
    assert "at N=2" in wrong.summary()


def test_a_size_that_was_set_free_in_word_only_is_a_difference() -> None:
    result = check(STATIC, STATIC.replace("float[1,3", "float[N,3").replace("float[1,q]", "float[1,q]"))
    assert not result.equal
    assert "different at N=2" in result.summary()
    assert "it does not run at a size that was set free" in result.summary()


def test_sizes_of_images_that_were_set_free() -> None:
    static = "g (float[1,3,32,48] x) => (float[1,3,h,w] y) { y = Relu(x) }"
    free = "g (float[1,3,H,W] x) => (float[1,3,h,w] y) { y = Relu(x) }"
    result = check(static, free)
    assert result.verified
    assert {"H=64, W=96", "H=48, W=72"} <= set(result.shapes)
    baked = "g (float[1,3,32,48] x) => (float[1,3,h,w] y) <int64[4] t = {1, 3, 48, 32}> { y = Reshape(x, t) }"
    turned = """g (float[1,3,H,W] x) => (float[1,3,w,h] y) <int64[4] order = {0, 1, 3, 2}> {
        s = Shape(x)
        t = Gather(s, order)
        y = Reshape(x, t)
    }"""
    alone = check(baked, turned)
    assert alone.verified
    assert alone.shapes == ("",)
    assert "; runs at H=64, W=96; H=48, W=72, where the original does not" in alone.summary()
    cut = baked.replace("{1, 3, 48, 32}", "{1, 3, 32, -1}")
    turned = """g (float[1,3,H,W] x) => (float[1,3,w,h] y) { s = Shape(x) y = Reshape(x, s) }"""
    other = check(cut, turned)
    assert other.verified
    assert (
        "; runs at H=64, W=96; H=48, W=72, where the original with numbers of its own size computes" in other.summary()
    )


def test_values_are_seeded() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
    assert check(text, text) == check(text, text)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_model_that_wants_all_memory_does_not_get_it() -> None:
    import resource

    bomb = """g (float[N] x) => (float[M] y) <int64[1] many = {3000000000}, float[1] zero = {0}> {
        big = Expand(zero, many)
        sum = ReduceSum<keepdims = 1>(big)
        y = Add(x, sum)
    }"""
    result = check(bomb, bomb)
    assert not result.verified
    assert "runs on none of the inputs that were tried" in result.skipped
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4_000_000  # of the 12 GB that it asks for


@pytest.mark.parametrize(
    ("inputs", "before", "after"),
    [
        ("float[5,t,1] x", "y = Squeeze(x)", "y = Squeeze(x, axes)"),  # t = 1
        ("float[b,4,1] x", "y = Squeeze(x)", "y = Squeeze(x, axes)"),  # b = 1
        (
            "float[b,3,h,w] x",
            "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",  # odd h or w
            "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)",
        ),
        ("float[b,8] x", "y = ReduceMean<axes = [0], keepdims = 1>(x)", "y = Identity(x)"),  # b > 1
        ("float[b,8] x", "y = Clip(x, low, high)", "y = Identity(x)"),  # large numbers
        ("float[b,8] x, float[m,8] z", "y = Add(x, z)", "y = Add(z, x)\nu = Identity(y)"),  # never: equal
        ("float[b,h,w] x", "y = Transpose<perm = [0, 2, 1]>(x)", "s = Shape(x)\ny = Reshape(x, s)"),  # h, w > 1
        ("float[b,p,8] x, float[b,q,8] z", "y = Concat<axis = 1>(x, z)", "y = Concat<axis = 1>(z, x)"),
    ],
)
def test_what_differs_at_some_sizes_or_values_only_is_caught(inputs: str, before: str, after: str) -> None:
    constants = "<int64[1] axes = {2}, float low = {-50}, float high = {50}>"
    models = [parse(f"g ({inputs}) => (float[n] y) {constants} {{ {body} }}") for body in (before, after)]
    for model in models:
        model.graph.output[0].type.tensor_type.ClearField("shape")
    assert check(models[0], models[0]).verified
    assert check(models[0], models[1]).equal is ("u = Identity" in after)
