"""Symbolic sizes and shape values are what a run finds: on small models for each operator, and on whole networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from fixtures import pitfalls
from onnxlint.symbolic.engine import Symbolic
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.values import Quotient
from tests.support import zoo

SIZES = st.one_of(st.integers(1, 12), st.sampled_from([13, 16, 17, 23, 24, 31, 32, 37, 49, 64, 97]))

VECTORS = "".join(f", int64[1] v{n} = {{{n}}}, int64 i{n} = {{{n}}}, float f{n} = {{{n}}}" for n in range(8))
CONSTANTS = (
    "int64[1] first = {-9223372036854775807}, int64[1] last = {9223372036854775807}, int64[1] m1 = {-1}, "
    "int64[1] m2 = {-2}, int64[1] m3 = {-3}, int64[1] m9 = {-9}, int64[1] v10 = {10}, int64[0] none = {}" + VECTORS
)
"""What every small model may use: vN is [N], iN and fN are scalars."""

REFUSED = (Fail, InvalidArgument, RuntimeException)
"""What onnxruntime raises where a model cannot run at these sizes."""

IMAGE = "float[N,3,H,W] x"


@dataclass(frozen=True)
class Small:
    """A model for one operator or idiom. Its output is the last value; every other is compared too."""

    inputs: str
    body: str
    constants: str = ""
    opset: int = 17
    least: int = 1
    """Of each symbol: a Reshape to floor(H/2) means something else where that is 0, and onnxruntime finds a window where a
    padded input is smaller than the kernel."""

    fed: dict[str, list[float]] = field(default_factory=dict)

    def proto(self) -> onnx.ModelProto:
        last = self.body.strip().splitlines()[-1].split("=")[0].split(",")[0].strip()
        known = ", ".join(part for part in (CONSTANTS, self.constants) if part)
        return zoo.parse(
            f'<ir_version: 8, opset_import: ["": {self.opset}]>\n'
            f"m ({self.inputs}) => ({last if last[0].isalpha() else 'y'}) <{known}> {{\n{self.body}\n}}"
        )


def weight(name: str, *shape: int) -> str:
    zeros = ",".join(["0"] * math.prod(shape))
    return f"float[{','.join(map(str, shape))}] {name} = {{{zeros}}}"


def conv(attributes: str) -> Small:
    return Small(IMAGE, f"y = Conv<{attributes}>(x, w)", weight("w", 4, 3, 3, 3), least=5)


def pool(attributes: str, op: str = "MaxPool") -> Small:
    return Small(IMAGE, f"y = {op}<{attributes}>(x)", least=3)


SMALL = {
    "conv": conv("pads=[1,1,1,1], strides=[2,3], dilations=[1,2]"),
    "conv, asymmetric padding": conv("pads=[0,1,2,0], strides=[2,2]"),
    "conv, SAME_UPPER": conv('auto_pad="SAME_UPPER", strides=[2,3]'),
    "conv, SAME_LOWER": conv('auto_pad="SAME_LOWER", strides=[2,2]'),
    "conv, VALID": conv('auto_pad="VALID", strides=[2,2]'),
    "conv on conv on conv": Small(
        IMAGE,
        "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)\nb = Conv<strides=[2,2]>(a, w)\n"
        "y = Conv<pads=[1,1,1,1], strides=[3,2]>(b, w)",
        weight("w", 3, 3, 3, 3),
        least=6,
    ),
    "conv transpose": Small(
        IMAGE,
        "y = ConvTranspose<strides=[2,3], pads=[1,0,1,0], output_padding=[1,2], dilations=[1,2]>(x, w)",
        weight("w", 3, 2, 3, 3),
    ),
    "conv transpose, groups": Small(IMAGE, "y = ConvTranspose<strides=[2,2], group=3>(x, w)", weight("w", 3, 2, 2, 2)),
    "conv transpose, SAME": Small(
        IMAGE, 'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)', weight("w", 3, 2, 3, 3)
    ),
    "max pool": pool("kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]"),
    "max pool, ceil mode": pool("kernel_shape=[3,3], strides=[2,2], ceil_mode=1"),
    "max pool, ceil mode, padded": pool("kernel_shape=[2,3], strides=[2,3], pads=[1,1,1,1], ceil_mode=1"),
    "max pool, ceil mode, stride beyond kernel": pool("kernel_shape=[1,2], strides=[3,5], ceil_mode=1"),
    "average pool": pool("kernel_shape=[3,3], strides=[2,1], pads=[1,1,1,1]", "AveragePool"),
    "average pool, ceil mode": pool("kernel_shape=[2,2], strides=[2,2], ceil_mode=1", "AveragePool"),
    "average pool, SAME": pool('kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"', "AveragePool"),
    "global pool": Small(IMAGE, "y = GlobalAveragePool(x)"),
    # Layout
    "concat": Small(IMAGE + ", float[N,3,H,V] z", "y = Concat<axis=3>(x, z, x)"),
    "concat, negative axis": Small(IMAGE, "y = Concat<axis=-2>(x, x, x)"),
    "split in equal parts": Small("float[N,4,H] x", "y, z = Split<axis=1>(x)"),
    "split by opset 18": Small("float[N,H] x", "y, z, u = Split<axis=1, num_outputs=3>(x)", opset=18),
    "split, constant": Small("float[N,6] x", "y, z, u = Split<axis=-1>(x, parts)", "int64[3] parts = {1,2,3}"),
    "split by opset 11": Small("float[N,6] x", "y, z = Split<axis=-1, split=[2,4]>(x)", opset=11),
    "split, computed": Small(
        "float[N,A] a, float[N,B] b",
        "c = Concat<axis=1>(a, b)\nsa = Shape<start=1>(a)\nsb = Shape<start=1>(b)\n"
        "parts = Concat<axis=0>(sa, sb)\ny, z = Split<axis=1>(c, parts)",
    ),
    "split, fed": Small("float[N,5] a, int64[2] parts", "y, z = Split<axis=1>(a, parts)", fed={"parts": [1, 4]}),
    "transpose": Small(IMAGE, "z = Transpose<perm=[0,2,3,1]>(x)\ny = Transpose(z)"),
    "flatten": Small(IMAGE, "z = Flatten<axis=-1>(x)\nu = Flatten<axis=0>(x)\nv = Flatten<axis=4>(x)\ny = Flatten(x)"),
    "squeeze": Small("float[N,1,H,1] x", "y = Squeeze(x, axes)", "int64[2] axes = {1,-1}"),
    "squeeze all": Small("float[N,1,H,1] x", "y = Squeeze(x)"),
    "unsqueeze": Small("float[N,H] x", "y = Unsqueeze(x, axes)", "int64[3] axes = {0,-1,2}"),
    "squeeze by opset 11": Small("float[N,1,H] x", "z = Squeeze<axes=[1]>(x)\ny = Unsqueeze<axes=[0,3]>(z)", opset=11),
    "depth to space": Small("float[N,8,H,W] x", "z = DepthToSpace<blocksize=2>(x)\ny = SpaceToDepth<blocksize=2>(z)"),
    "pixel unshuffle": Small(IMAGE, "y = SpaceToDepth<blocksize=2>(x)"),
    # Reshape
    "reshape, copies": Small(IMAGE, "y = Reshape(x, t)", "int64[3] t = {0,0,-1}"),
    "reshape, all in one": Small(IMAGE, "y = Reshape(x, m1)"),
    "reshape, spilling": Small(IMAGE, "y = Reshape(x, t)", "int64[2] t = {-1,3}"),
    "reshape, copy of another axis": Small("float[N,4,H] x", "y = Reshape(x, t)", "int64[4] t = {0,2,2,-1}"),
    "reshape, no zero": Small("float[N,4] x", "y = Reshape<allowzero=1>(x, t)", "int64[2] t = {2,-1}"),
    "reshape, computed": Small(IMAGE, "s = Shape<start=0, end=2>(x)\nt = Concat<axis=0>(s, m1)\ny = Reshape(x, t)"),
    "reshape, computed from two": Small(
        IMAGE,
        "s = Shape(x)\nn = Gather(s, v0)\nh = Gather(s, v2)\nw = Gather(s, v3)\nhw = Mul(h, w)\n"
        "t = Concat<axis=0>(n, hw, m1)\ny = Reshape(x, t)",
    ),
    "reshape to a fraction": Small(
        "float[N,12,H] x",
        "s = Shape(x)\nn = Gather(s, v0)\nh = Gather(s, v2)\nk = Div(h, v2)\n"
        "t = Concat<axis=0>(n, m1, k)\ny = Reshape(x, t)",
        least=2,
    ),
    "reshape, fed": Small("float[N,4] x, int64[2] t", "y = Reshape(x, t)", fed={"t": [-1, 2]}),
    "reshape at opset 1": Small("float[N,4] x", "y = Reshape<shape=[-1,2]>(x)", opset=1),
    # Gather, Slice
    "gather": Small("float[N,7,4] x, int64[K,L] i", "y = Gather<axis=1>(x, i)"),
    "gather one": Small("float[N,5,4] x", "y = Gather<axis=1>(x, i4)"),
    "gather elements": Small("float[N,7] x, int64[N,K] i", "y = GatherElements<axis=1>(x, i)"),
    "slice": Small("float[N,H] x", "z = Slice(x, v1, m1, v1)\nu = Slice(x, v1, m1, v1, v3)\ny = Slice(x, m1, v3, v1)"),
    "slice to the end": Small("float[N,H] x", "z = Slice(x, v0, last, m1, v2)\ny = Slice(z, v0, last, m1, v2)"),
    "slice a short axis": Small("float[N,H] x", "z = Slice(x, v2, v7, v1)\ny = Slice(x, v0, v7, v1)"),
    "slice from the back": Small("float[N,H] x", "y = Slice(x, m3, last, v1)"),
    "slice backwards": Small("float[N,H] x", "y = Slice(x, m1, first, v1, m1)"),
    "slice backwards by two": Small("float[N,7] x", "y = Slice(x, m2, first, v1, m2)"),
    "slice backwards from before the start": Small("float[N,4] x", "y = Slice(x, m9, first, v1, m1)"),
    "slice backwards to an index": Small("float[N,7] x", "z = Slice(x, m1, v2, v1, m1)\ny = Slice(x, v5, m3, v1, m1)"),
    "slice at opset 9": Small("float[N,H] x", "y = Slice<axes=[1], starts=[1], ends=[-1]>(x)", opset=9),
    "slice by half": Small(
        "float[N,H] x", "s = Shape<start=1>(x)\nh = Div(s, v2)\na = Slice(x, v0, h, v1)\ny = Slice(x, h, s, v1)"
    ),
    "slice from a negative size": Small(
        "float[N,H] x, float[A] a", "s = Shape(a)\nm = Neg(s)\nz = Slice(x, m, last, v1)\ny = Slice(x, v0, m, v1)"
    ),
    "slice by minus half": Small(
        "float[N,H] x",
        "s = Shape<start=1>(x)\nh = Div(s, v2)\nm = Neg(h)\nz = Slice(x, v0, m, v1)\ny = Slice(x, m, last, v1)",
    ),
    "slice from a size that may be negative": Small(
        "float[N,H] x", "s = Shape<start=1>(x)\nm = Sub(s, v10)\nz = Slice(x, v0, m, v1)\ny = Slice(x, m, s, v1)"
    ),
    "slice a table to the length": Small(
        "int64[N,L] x",
        "s = Shape<start=1>(x)\ne = Slice(table, v0, s, v0)\nk = Shape(e)\n"
        "f = Cast<to=1>(x)\nu = Unsqueeze(f, m1)\ny = Add(u, e)",
        weight("table", 8, 2),
    ),
    # Broadcasting
    "add": Small(IMAGE + ", float[H,1] b", "z = Mul(x, b)\ny = Add(z, x)"),
    "add what may be one": Small("float[N,H] x, float[M,H] b", "y = Add(x, b)"),
    "add a number of channels": Small("float[N,C] x", "y = Add(x, b)", "float[4] b = {1,2,3,4}"),
    "where": Small("float[N,1] x, float[1,H] b", "c = Less(x, b)\ny = Where(c, x, b)"),
    "expand": Small("float[N,1,H] x, float[A] a", "s = Shape(a)\nt = Concat<axis=0>(v1, s, v1)\ny = Expand(x, t)"),
    "expand to what it is": Small("float[N,H] x", "s = Shape(x)\ny = Expand(x, s)"),
    "expand as fed": Small("float[N,1] x, int64[2] s", "y = Expand(x, s)", fed={"s": [1, 3]}),
    "tile": Small("float[N,H] x", "y = Tile(x, r)", "int64[2] r = {2,3}"),
    "tile, computed": Small("float[N,H] x", "s = Shape(x)\ny = Tile(x, s)"),
    "matmul": Small("float[N,1,H,4] x, float[M,4,K] b", "y = MatMul(x, b)"),
    "matmul, vectors": Small(
        "float[N,4] x, float[4] b, float[N] a", "y = MatMul(x, b)\nz = MatMul(a, x)\nu = MatMul(b, b)"
    ),
    "gemm": Small("float[4,N] x, float[K,4] b", "y = Gemm<transA=1, transB=1>(x, b)"),
    "einsum": Small("float[N,H,4] x, float[N,W,4] b", 'y = Einsum<equation="nhd, nwd -> nhw">(x, b)'),
    "einsum over ones": Small("float[N,H] x, float[1,H] b", 'y = Einsum<equation="nh,nh->nh">(x, b)'),
    "einsum without a right side": Small("float[N,H] x, float[H,M] b", 'y = Einsum<equation="nh,hm">(x, b)'),
    # Reductions
    "reduce": Small("float[N,3,H] x", "z = ReduceMean<axes=[-1], keepdims=0>(x)\ny = ReduceMax<axes=[1]>(x)"),
    "reduce all": Small("float[N,3,H] x", "z = ReduceMean<keepdims=0>(x)\ny = ReduceMax(x)"),
    "reduce by an input": Small(
        "float[N,3,H] x",
        "z = ReduceSum<keepdims=0>(x, m2)\nu = ReduceSum(x, none)\n"
        "v = ReduceSum<noop_with_empty_axes=1>(x, none)\ny = ReduceSum(x, m2)",
    ),
    "reduce as fed": Small("float[N,3,H] x, int64[1] a", "y = ReduceSum(x, a)\nz = ReduceSum<keepdims=0>(x, a)"),
    "arg max": Small("float[N,3,H] x", "z = ArgMax<axis=-1, keepdims=0>(x)\ny = ArgMin(x)"),
    "top k": Small("float[N,9] x", "y, i = TopK(x, v2)"),
    "top k, computed": Small("float[N,H] x", "s = Shape<start=1>(x)\nm = Min(s, v3)\ny, i = TopK(x, m)"),
    # Others
    "lstm": Small(
        "float[T,N,2] x",
        'y, h, c = LSTM<hidden_size=3, direction="bidirectional">(x, w, r)',
        f"{weight('w', 2, 12, 2)}, {weight('r', 2, 12, 3)}",
    ),
    "gru": Small(
        "float[T,N,2] x", "y, h = GRU<hidden_size=3>(x, w, r)", f"{weight('w', 1, 9, 2)}, {weight('r', 1, 9, 3)}"
    ),
    "pad": Small("float[N,H] x", "y = Pad(x, p)", "int64[4] p = {0,1,2,-1}"),
    "pad, axes": Small("float[N,H] x", "y = Pad(x, p, , m1)", "int64[2] p = {1,2}", 18),
    "pad at opset 10": Small("float[N,H] x", "y = Pad<pads=[0,1,2,3]>(x)", opset=10),
    "pad to a multiple": Small(
        "float[N,H] x",
        "s = Shape<start=1>(x)\nr = Mod(s, v7)\nd = Sub(v7, r)\nm = Mod(d, v7)\n"
        "p = Concat<axis=0>(v0, v0, v0, m)\ny = Pad(x, p)",
    ),
    "one hot": Small("int64[N,H] x", "z = OneHot<axis=1>(x, i5, v)\ny = OneHot(x, i5, v)", "float[2] v = {0,1}"),
    "grid sample": Small("float[N,3,H,W] x, float[N,A,B,2] g", "y = GridSample(x, g)"),
    "constant of shape": Small("float[N,H] x", "s = Shape(x)\ny = ConstantOfShape(s)"),
    "range": Small(
        "float[N,H] x",
        "s = Shape(x)\nh = Gather(s, i1)\nr = Range(i0, h, i1)\nu = Range(i1, h, i2)\nv = Range(i7, h, i1)\n"
        "m = Neg(h)\nw = Range(i0, m, minus)\ny = Range(i0, h, i2)",
        "int64 minus = {-1}",
    ),
    "range of floats": Small(
        "float[N,H] x",
        "s = Shape(x)\nh = Gather(s, i1)\nf = Cast<to=1>(h)\nr = Range(f0, f, f1)\nu = Range(half, f, f1)\n"
        "v = Range(f1, f3, half)\ny = Range(f1, f3, f1)",
        "float half = {0.5}",
    ),
    "dropout": Small("float[N,H] x", "y, m = Dropout(x)", opset=11),
    "layer norm": Small("float[N,H,4] x", "y = LayerNormalization(x, s)", "float[4] s = {1,1,1,1}"),
    "non zero": Small(
        "float[N,H] x",
        "n = NonZero(x)\ns = Shape<start=1>(n)\nu = Gather(n, i0)\nk = Shape(u)\ne = Equal(s, v0)\n"
        "g = Greater(s, v0)\nt = Equal(s, k)\ny = Add(u, u)",
    ),
    # Resize
    "resize by sizes": Small(
        IMAGE + ", float[N,1,A,B] o",
        "a = Shape<start=0, end=2>(x)\nb = Shape<start=2>(o)\ns = Concat<axis=0>(a, b)\n"
        'y = Resize<mode="nearest">(x, , , s)',
    ),
    "resize by scales": Small(IMAGE, 'y = Resize<mode="nearest">(x, , s)', "float[4] s = {1,1,2,2}"),
    "resize by half": Small(IMAGE, 'y = Resize<mode="nearest">(x, , s)', "float[4] s = {1,1,0.5,1.5}"),
    "resize by 0.7": Small(IMAGE, 'y = Resize<mode="nearest">(x, , s)', "float[4] s = {1,1,0.7,0.6}"),
    "resize a fixed size by 0.7": Small(
        "float[N,1,10,20] x", 'y = Resize<mode="nearest">(x, , s)', "float[4] s = {1,1,0.7,0.7}"
    ),
    "resize by axes": Small(IMAGE, 'y = Resize<mode="nearest", axes=[3,-2]>(x, , s)', "float[2] s = {3,2}", 18),
    "resize, keeping the aspect ratio": Small(
        IMAGE,
        'y = Resize<mode="nearest", axes=[2,3], keep_aspect_ratio_policy="not_larger">(x, , , s)',
        "int64[2] s = {7,8}",
        18,
    ),
    "resize as fed": Small(IMAGE + ", float[4] s", 'y = Resize<mode="nearest">(x, , s)', fed={"s": [2, 1, 2, 0.7]}),
    "resize at opset 10": Small(IMAGE, 'y = Resize<mode="nearest">(x, s)', "float[4] s = {1,1,2,3}", 10),
    "upsample at opset 9": Small(IMAGE, 'y = Upsample<mode="nearest">(x, s)', "float[4] s = {1,1,2,3}", 9),
    "upsample at opset 7": Small(IMAGE, 'y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(x)', opset=7),
    "resize by a quotient": Small(
        IMAGE + ", float[N,1,A,B] o",
        "b = Shape<start=2>(o)\nc = Shape<start=2>(x)\nf = Cast<to=1>(b)\ng = Cast<to=1>(c)\nq = Div(f, g)\n"
        's = Concat<axis=0>(one, q)\ny = Resize<mode="nearest">(x, , s)',
        "float[2] one = {1,1}",
    ),
    "resize by three sevenths": Small(
        IMAGE,
        "c = Shape<start=2>(x)\ng = Cast<to=1>(c)\na = Mul(g, f3)\nb = Mul(g, f7)\nq = Div(a, b)\n"
        's = Concat<axis=0>(one, q)\ny = Resize<mode="nearest">(x, , s)',
        "float[2] one = {1,1}",
    ),
    # Numbers
    "arithmetic": Small(
        "float[N,H] x",
        "s = Shape(x)\nn, h = Split<axis=0>(s)\na = Add(h, v3)\nb = Mul(a, n)\nc = Sub(b, h)\nd = Div(h, v3)\n"
        "e = Div(a, v2)\nf = Mod(h, v3)\ng = Neg(h)\ni = Div(g, v3)\nj = Mod(g, v3)\nk = Div(v3, m2)\n"
        "l = Mod(m2, v3)\no = Sub(h, v3)\np = Div(o, v2)\nq = Mod(o, v2)\nu = Mod<fmod=1>(o, v2)\n"
        "v = Max(h, v3)\nw = Min(h, n)\nz = Mod<fmod=1>(m2, v3)\ny = Add(c, d)",
    ),
    "numbers of whole shapes": Small(
        "float[N,H] x",
        "s = Shape(x)\na = Add(s, v3)\nb = Mul(s, a)\nc = Sub(b, s)\nd = Div(b, s)\ne = Div(c, v2)\nf = Mod(c, v7)\n"
        "g = Neg(s)\nh = Max(s, v1)\ni = Min(s, v0)\nj = Equal(s, v0)\nk = Less(s, v1)\nl = Where(k, a, b)\ny = Abs(g)",
    ),
    "comparisons": Small(
        "float[N,H] x",
        "s = Shape(x)\nn = Gather(s, v0)\nh = Gather(s, v1)\na = Greater(h, v0)\nb = Less(h, v1)\n"
        "c = GreaterOrEqual(h, v1)\nd = LessOrEqual(h, v3)\ne = Equal(h, v3)\nf = Equal(h, h)\ng = Equal(n, v0)\n"
        "i = Not(g)\nj = And(a, i)\nk = Or(b, e)\nl = Where(a, h, n)\nm = Where(e, h, n)\no = Cast<to=7>(a)\n"
        "p = Cast<to=9>(h)\ny = Where(k, h, h)",
    ),
    "floats": Small(
        "float[N,H] x",
        "t = Shape<start=1>(x)\nh = Cast<to=1>(t)\na = Mul(h, half)\nb = Floor(a)\nc = Ceil(a)\nd = Div(h, f3)\n"
        "e = Floor(d)\nf = Ceil(d)\ng = Cast<to=7>(d)\np = Round(h)\nq = Neg(a)\nr = Cast<to=7>(q)\nu = Floor(q)\n"
        "v = Div(f3, h)\nw = Cast<to=7>(v)\ny = Add(b, e)",
        "float half = {0.5}",
    ),
    "floats that round": Small(
        "float[N,H] x",
        "t = Shape<start=1>(x)\nh = Cast<to=1>(t)\ni = Mul(h, s7)\nj = Floor(i)\nk = Cast<to=7>(i)\nl = Div(h, s49)\n"
        "m = Mul(l, s49)\nn = Floor(m)\no = Cast<to=7>(m)\nv = Div(f3, h)\nw = Mul(v, h)\nz = Floor(w)\n"
        "a = Div(h, h)\nb = Div(f1, s49)\nc = Mul(b, h)\nd = Mul(c, s49)\ny = Cast<to=7>(d)",
        "float s7 = {0.7}, float s49 = {49}",
    ),
    "half floats": Small(
        "float[N,H] x, float[M] big",
        "s = Shape(big)\na = Mul(s, v97)\nb = Mul(a, v97)\nc = Cast<to=10>(b)\ny = Cast<to=7>(c)",
        "int64[1] v97 = {97}",
    ),
    "not numbers": Small(
        "float[N,H] x",
        "inf = Constant<value_float = -1e38>()\ny = Add(x, inf)",
        "float big = {-1e38}",
    ),
    "picked numbers": Small(
        "float[N,3,H,W] x",
        "s = Shape(x)\na = Gather(s, pick)\nb = Gather(a, i0)\nc = Slice(s, v1, m1)\nd = Slice(s, m1, m9, v0, m1)\n"
        "e = Slice(s, m9, v3)\nf = Concat<axis=0>(a, c)\ng = Unsqueeze(b, v0)\nk = Squeeze(g, v0)\nl = Reshape(g, none)\n"
        "n = Shape<start=-2>(x)\np = Shape<start=1, end=-1>(x)\nq = Size(x)\nr = ReduceProd<keepdims=0>(a)\n"
        "t = ReduceProd(a)\nu = ReduceProd(b)\nv = ReduceProd<noop_with_empty_axes=1>(a)\ny = Identity(f)",
        "int64[2] pick = {3,-2}",
        18,
    ),
    "filled numbers": Small(
        "float[N,H] x",
        "a = ConstantOfShape<value = int64[1] {7}>(v3)\nb = ConstantOfShape(v3)\n"
        "c = ConstantOfShape<value = bool[1] {1}>(v3)\n"
        "s = Shape(x)\nh = Gather(s, i1)\nd = Expand(h, v3)\ne = Range(i0, i4, i1)\nf = Range(i4, i0, i1)\ny = Mul(a, d)",
    ),
    "broadcast numbers": Small(
        "float[N,H] x",
        "s = Shape(x)\na = Add(s, v1)\nb = Mul(s, i5)\nd = Add(v1, i5)\ne = Add(i5, i5)\ny = Mul(s, c)",
        "int64[2,1] c = {3,4}",
    ),
    # Subgraphs
    "if, known": Small(
        "float[N,H] x",
        "s = Shape<start=1>(x)\nc = GreaterOrEqual(s, v1)\n"
        "y = If (c) <then_branch = t () => (p) { p = Relu(x) }, else_branch = e () => (q) { q = Transpose(x) }>",
    ),
    "if, unknown": Small(
        "float[N,H] x, bool c",
        "v = If (c) <then_branch = t () => (p) { p = Relu(x) }, else_branch = e () => (q) { q = Transpose(x) }>\n"
        "z = If (c) <then_branch = t2 () => (r) { r = Relu(x) }, else_branch = e2 () => (w) { w = Neg(x) }>\n"
        "k = Shape(z)\nl = Shape(v)\ny = Abs(v)",
    ),
    "if, with a batch that the body declares": Small(
        "float[N,H] x, bool c",
        "v = If (c) <then_branch = t () => (float[H,N] p) { p = Relu(x) },"
        "else_branch = e () => (float[H,N] q) { q = Abs(x) }>\n"
        "y = Shape(v)",
    ),
    "loop that grows what it carries": Small(
        "float[N,H] x",
        "y, z = Loop (i3, yes, x) <body = b (int64 i, bool d, float[N,H] a) => (bool e, float[N,H] g, float[N,H] k) {\n"
        "e = Identity(d)\ng = Concat<axis=0>(a, a)\nk = Concat<axis=1>(x, x)\n}>\n"
        "s = Shape(y)\nu = Shape(z)\nv = Add(y, y)",
        "bool yes = {1}",
    ),
    "loop that grows a fixed size": Small(
        "float[2,H] x",
        "y = Loop (i3, yes, x) <body = b (int64 i, bool d, float[2,H] a) => (bool e, float[2,H] g) {\n"
        "e = Identity(d)\ng = Concat<axis=0>(a, a)\n}>\ns = Shape(y)\nv = Add(y, y)",
        "bool yes = {1}",
    ),
    "scan whose body names its sizes like the model": Small(
        "float[T,N,H] x",
        "y = Scan (x) <num_scan_inputs = 1, body = b (float[T,N] a) => (float[N,T] g) { g = Transpose(a) }>\ns = Shape(y)",
    ),
    "sizes called ?": Small("float[?,?] x, float[?] b", "y = Relu(x)\ns = Shape(x)\nt = Shape(b)"),
}


@cache
def loaded(name: str) -> tuple[onnx.ModelProto, Any, Symbolic]:
    """A model, a session that shows all its values, and its symbolic inference."""
    proto = SMALL[name].proto()
    return proto, zoo.session(zoo.exposed(proto)), exact_sizes(zoo.view(proto))


def symbols_of(proto: onnx.ModelProto) -> list[str]:
    found = {
        zoo.symbol(value, i)
        for value in proto.graph.input
        for i, dim in enumerate(value.type.tensor_type.shape.dim)
        if not dim.HasField("dim_value")
    }
    return sorted(found)


def compare(
    proto: onnx.ModelProto,
    runner: Any,
    symbolic: Symbolic,
    dims: dict[str, int],
    fed: dict[str, list[float]] | None = None,
) -> zoo.Comparison | None:
    """The comparison at one set of sizes; None where onnxruntime refuses them."""
    feeds = zoo.feeds_for(proto, dims, seed=sum(dims.values()))
    feeds.update((name, np.array(values, feeds[name].dtype)) for name, values in (fed or {}).items())
    names = [output.name for output in runner.get_outputs()]
    try:
        values = runner.run(names, feeds)
    except REFUSED:
        return None
    real = {name: value for name, value in zip(names, values, strict=True) if hasattr(value, "shape")}
    return zoo.Comparison(symbolic, zoo.bindings(proto, feeds)).compare(real)


@pytest.mark.parametrize("name", SMALL)
def test_sizes_and_numbers_are_those_of_a_run(name: str) -> None:
    proto, runner, symbolic = loaded(name)
    ran = 0

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(dict.fromkeys(symbols_of(proto), SIZES)))
    def check(dims: dict[str, int]) -> None:
        nonlocal ran
        if any(size < SMALL[name].least for size in dims.values()):
            return
        comparison = compare(proto, runner, symbolic, dims, SMALL[name].fed)
        if comparison is not None:
            ran += 1
            assert not comparison.problems, "\n".join(comparison.problems)

    check()
    assert ran, "onnxruntime refused every size"


def test_elementwise_along_an_axis_at_opset_6() -> None:
    # onnxruntime cannot run it.
    body = Small(IMAGE, "y = Add<broadcast=1, axis=1>(x, b)", "float[3] b = {1,2,3}", 6)
    view = zoo.view(body.proto())
    assert str(exact_sizes(view).shape(view.main, "y")) == "(N, 3, H, W)"


def test_what_is_not_a_number_is_unknown() -> None:
    model = zoo.parse("m (float[N] x) => (y) { y = Add(x, big) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([np.inf, np.nan, 0.5, 2], np.float32), "big"))
    view = zoo.view(model)
    value = exact_sizes(view).value(view.main, "big")
    assert value is not None
    assert value.numbers == (None, None, Quotient(1, 2), 2)


@pytest.mark.parametrize("dim", ["?", "?1"])
def test_sizes_without_a_name_are_not_equal(dim: str) -> None:
    model = zoo.parse("m (float[A,B] x) => (y) { y = Relu(x) }")
    for size in model.graph.input[0].type.tensor_type.shape.dim:
        size.dim_param = dim
    view = zoo.view(model)
    sizes = exact_sizes(view).shape(view.main, "y")
    assert sizes is not None
    assert sizes[0] != sizes[1]


DYNAMIC = {"batch": st.integers(1, 3), "height": st.integers(1, 160), "width": st.integers(1, 160)}


def check_network(proto: onnx.ModelProto, dims: st.SearchStrategy[dict[str, int]], examples: int) -> None:
    """Compare a network at many sizes, a few of which it has to run at."""
    runner, symbolic = zoo.session(zoo.exposed(proto)), exact_sizes(zoo.view(proto))
    exact = []

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(dims)
    def check(dims: dict[str, int]) -> None:
        comparison = compare(proto, runner, symbolic, dims)
        if comparison is not None:
            assert not comparison.problems, "\n".join(comparison.problems)
            exact.append((comparison.exact, comparison.unknown))

    check()
    assert exact
    assert all(known > 10 * unknown for known, unknown in exact)


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("form", ["original", "safe", "fixed"])
def test_pitfalls(form: Any, opset: int) -> None:
    by_32 = st.sampled_from([32, 64, 96, 160])
    sizes = {"batch": st.just(1), "height": by_32, "width": by_32}
    check_network(pitfalls.make_model(form, opset), st.fixed_dictionaries(sizes), 5)


@pytest.mark.parametrize("opset", [9, 11])
def test_pitfalls_at_any_size(opset: int) -> None:
    check_network(pitfalls.make_model("original", opset), st.fixed_dictionaries({**DYNAMIC, "batch": st.just(1)}), 25)


def retinaface(name: str) -> onnx.ModelProto:
    path = zoo.RETINAFACE / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return onnx.load(path)


def test_retinaface_at_any_size() -> None:
    check_network(retinaface("original_op11_dyn.onnx"), st.fixed_dictionaries(DYNAMIC), 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["original_op9_dyn.onnx", "original_op17_dyn.onnx", "original_dynamo_dyn.onnx"])
def test_every_retinaface_at_any_size(name: str) -> None:
    check_network(retinaface(name), st.fixed_dictionaries(DYNAMIC), 60)
