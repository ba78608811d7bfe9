"""float16, with float32 inputs and outputs, and float32 wherever float16 was measured not to hold the numbers.

onnxruntime's own converter (`onnxruntime.transformers.float16`) takes a list of nodes to leave alone, but casts what passes
from one of them to the next to float16 and back, so that a value beyond 65504 still becomes infinite between two
nodes that were spared because of it; it also turns constants below 6e-8 into 6e-8, and leaves nodes unsorted. Here every
value has one type: float16 if the node that makes it computes so, and casts stand only between nodes that differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.half_graph import half_slots, opset_version
from onnxlint.backends.ort.session import OrtSession, size_nodes
from onnxlint.backends.ort.walk import Walk
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

LARGEST = 65504.0
"""Of float16."""

HEADROOM = 2.0
"""Safety factor: other inputs may give values larger than the measured ones."""

LOST = 0.01
"""Part of a tensor's norm that rounding to float16 may take; where numbers are in its range it takes 0.0003."""

FLUSHED = 2.0**-25
"""What is smaller becomes 0 in float16."""

SAMPLE = 50_000
"""Numbers of a tensor, evenly taken, that are rounded to measure what that loses; peaks are those of all."""

SPARED = frozenset(
    """Bernoulli CastLike DequantizeLinear DynamicQuantizeLinear EyeLike Multinomial QLinearConv QLinearMatMul QuantizeLinear
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike SequenceEmpty""".split()
)
"""Operators whose types hang on more than their inputs, or that are quantized already."""

LARGE_REDUCTION = 4096
"""Numbers that go into one sum, above which it stays in float32: devices that add up in float16 lose what is below 1/2048 of
the sum so far, and overflow at 65504 even where the mean is small."""

REDUCTIONS = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSum ReduceSumSquare GlobalAveragePool
    GlobalLpPool""".split()
)
"""Operators with one sum for each number of their output."""

NORMALIZATIONS = {"InstanceNormalization": 2, "GroupNormalization": 2, "LayerNormalization": -1, "RMSNormalization": -1}
"""Operators with a mean over all axes from one on; `axis`, where they have that attribute, says from which."""

DIVISORS = {"Div": 1, "Reciprocal": 0, "Sqrt": 0, "Log": 0, "Pow": 0}
"""Operators, and their inputs where a number that becomes 0 makes infinity or NaN."""


@dataclass
class Measured:
    """Statistics of a tensor over all inputs.

    Attributes:
        peak: Largest finite magnitude.
        energy: Sum of squares.
        lost: Sum of squared differences to the float16 numbers.
        flushed: Whether some number other than 0 became 0.
        moved: Whether some number has another integer part.
        shape: Of the largest one.
    """

    peak: float = 0.0
    energy: float = 0.0
    lost: float = 0.0
    flushed: bool = False
    moved: bool = False
    shape: tuple[int, ...] = ()

    def add(self, value: Array) -> None:
        """Take one more value into account."""
        if value.size > math.prod(self.shape) or not self.shape:
            self.shape = value.shape
        x = value.reshape(-1).astype(np.float32, copy=False)
        if not x.size:
            return
        size = np.abs(x)
        if not np.isfinite(size.max()):
            x = x[np.isfinite(x)]
            size = np.abs(x)
        self.peak = max(self.peak, float(size.max(initial=0)))
        self.flushed = self.flushed or bool(((size < FLUSHED) & (size > 0)).any())
        some = x[:: -(-x.size // SAMPLE)] if x.size > SAMPLE else x
        with np.errstate(over="ignore"):
            half = some.astype(np.float16).astype(np.float32)
        gap = np.where(np.isfinite(half), some - half, 0).astype(np.float64)
        self.energy += float(np.dot(some.astype(np.float64), some))
        self.lost += float(np.dot(gap, gap))
        self.moved = self.moved or bool((np.trunc(half) != np.trunc(some)).any())

    def trouble(self, limit: float) -> str:
        """Why float16 cannot hold it; empty if it can."""
        if self.peak > limit:
            return f"reaches {self.peak:.3g}, beyond float16's {LARGEST:.0f}"
        share = (self.lost / self.energy) ** 0.5 if self.energy else 0.0
        if share > LOST:
            return f"is so small (at most {self.peak:.3g}) that float16 loses {share:.0%} of it"
        return ""


@dataclass
class Plan:
    """Which nodes of the main graph stay in float32, by index, and why."""

    spared: dict[int, str] = field(default_factory=dict)

    def keep_float32(self, index: int, why: str) -> None:
        """Keep a node in float32; the first reason that is given stays."""
        self.spared.setdefault(index, why)


def with_initializers(model: onnx.ModelProto) -> None:
    """Turn floating-point Constant nodes into initializers, in place; these are no longer inputs in old files."""
    kept = []
    for node in model.graph.node:
        attribute = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if attribute is not None and attribute.name in ("value", "value_float", "value_floats"):
            if attribute.name == "value":
                tensor = attribute.t
            else:
                numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = numpy_helper.from_array(np.asarray(numbers, np.float32))
            new = model.graph.initializer.add()
            new.CopyFrom(tensor)
            new.name = node.output[0]
        else:
            kept.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    if model.ir_version < 4:
        names = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in names]
        copied = [type(value).FromString(value.SerializeToString()) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(copied)
        model.ir_version = 4


def measure(
    session: OrtSession, names: Iterable[str], inputs: Iterable[Mapping[str, Array]], progress: Progress = silent
) -> dict[str, Measured]:
    """What the named values hold over all inputs."""
    found = {name: Measured() for name in names}
    walk = Walk(session, found)
    for done, feeds in enumerate(inputs, 1):
        for name, value in walk.values(feeds):
            found[name].add(value)
        progress("values that float16 has to hold", done, None)
    return found


def plan(
    model: onnx.ModelProto, kinds: Mapping[str, str], measured: Mapping[str, Measured], keep: Iterable[str], name: str
) -> Plan:
    """Which nodes have to stay in float32.

    Args:
        model: After `with_initializers`.
        kinds: onnxruntime's type of every value of the main graph.
        measured: Of its float32 values.
        keep: Names of nodes that the user wants so.
        name: Of the model, for errors.

    Raises:
        OnnxlintError: A name in `keep` is not a node's.
    """
    nodes = list(model.graph.node)
    wanted = set(keep)
    unknown = wanted - {node.name for node in nodes}
    if unknown:
        raise OnnxlintError(f"{printable(name)}: has no node {printable(sorted(unknown)[0])!r}; check --keep")
    constants = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            constants[tensor.name] = Measured()
            constants[tensor.name].add(numpy_helper.to_array(tensor))
    bad = {key: why for key, one in measured.items() if (why := one.trouble(LARGEST / HEADROOM))}
    bad |= {
        key: f"(a constant) {why}" for key, one in constants.items() if key not in bad and (why := one.trouble(LARGEST))
    }
    sizes = size_nodes(model)
    version = opset_version(model)
    makers = {value: i for i, node in enumerate(nodes) for value in node.output}
    made = Plan()
    for i, node in enumerate(nodes):
        if i in sizes:
            made.keep_float32(i, "computes sizes")
        if node.name in wanted and node.name:
            made.keep_float32(i, "asked for")
        why = _why_not_by_type(node, version) or _why_not_by_values(node, kinds, bad) or _long_sum(node, measured)
        if why:
            made.keep_float32(i, why)
        _keep_divisor(made, i, node, measured, constants, makers)
        _keep_truncated(made, i, node, measured, makers)
    return made


def _why_not_by_type(node: onnx.NodeProto, version: int) -> str:
    """Why an operator cannot compute in float16; empty if it can."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return "has a graph inside"
    if node.op_type in DEFAULT_OP_BLOCK_LIST:
        return "onnxruntime has no such operator for float16"
    if node.op_type in SPARED or half_slots(node.op_type, version, node.domain) is None:
        return "an operator that float16 is not defined for"
    return ""


def _why_not_by_values(node: onnx.NodeProto, kinds: Mapping[str, str], bad: Mapping[str, str]) -> str:
    """Why float16 cannot hold what a node reads or makes; empty if it can."""
    for key in (*node.input, *node.output):
        if key in bad:
            return f"{printable(key)} {bad[key]}"
        if not kinds.get(key, "tensor(").startswith("tensor("):
            return "works on sequences"
    return ""


def _long_sum(node: onnx.NodeProto, measured: Mapping[str, Measured]) -> str:
    """Why its sums are too long for float16; empty if they are not."""
    source, result = (measured.get(names[0]) if names else None for names in (node.input, node.output))
    if source is None or result is None:
        return ""
    count = 0
    if node.op_type in REDUCTIONS:
        count = math.prod(source.shape) // max(1, math.prod(result.shape))
    elif node.op_type in NORMALIZATIONS:
        axis = next((one.i for one in node.attribute if one.name == "axis"), NORMALIZATIONS[node.op_type])
        count = math.prod(source.shape[axis:])
    return f"adds up {count:,} numbers, too many for sums in float16" if count > LARGE_REDUCTION else ""


def _keep_divisor(
    made: Plan,
    i: int,
    node: onnx.NodeProto,
    measured: Mapping[str, Measured],
    constants: Mapping[str, Measured],
    makers: Mapping[str, int],
) -> None:
    """Spare a node that divides by numbers that become 0 in float16, and the one that makes them."""
    at = DIVISORS.get(node.op_type)
    if at is None or len(node.input) <= at:
        return
    key = node.input[at]
    one = measured.get(key) or constants.get(key)
    if one is not None and one.flushed:
        made.keep_float32(i, f"{printable(key)} has numbers that float16 turns into 0, where that is dangerous")
        if key in makers:
            made.keep_float32(makers[key], f"its result is {printable(key)}, which must not become 0")


def _keep_truncated(
    made: Plan, i: int, node: onnx.NodeProto, measured: Mapping[str, Measured], makers: Mapping[str, int]
) -> None:
    """Spare a cast to integers that come out differently from float16, and the node that makes its input."""
    if node.op_type != "Cast" or node.input[0] not in measured or not measured[node.input[0]].moved:
        return
    key = node.input[0]
    to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
    if to not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16):
        made.keep_float32(i, f"{printable(key)} becomes another integer in float16")
        if key in makers:
            made.keep_float32(makers[key], f"its result {printable(key)} becomes another integer in float16")
