"""Random graphs compute the same when they are fixed, and fixing them again changes nothing."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxlint.model.skeleton import Model
from tests.support.fixing import fix, image, parse
from tests.support.zoo import session

ort = pytest.importorskip("onnxruntime")
NETWORKS = 12 if os.environ.get("HYPOTHESIS_PROFILE", "same") == "same" else 400


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
    before = session(model.proto).run(None, feed)
    after = session(fixed).run(None, feed)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)


@st.composite
def reshape_graphs(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """A chain of Reshapes, Transposes and Slices on [N, C, H, W], with targets computed from shapes."""
    channels = draw(st.sampled_from([1, 2, 4, 6, 8]))
    lines: list[str] = []
    value = "x"
    dims: list[Any] = ["N", channels, "H", "W"]
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
    (before,) = session(proto).run(None, feed)
    (after,) = session(fixed).run(None, feed)
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
    (before,) = session(proto).run(None, feed)
    (after,) = session(fixed).run(None, feed)
    assert np.array_equal(before, after)
    again, second = fix(Model("again.onnx", fixed, 0))
    assert again is fixed
    assert not second.applied
