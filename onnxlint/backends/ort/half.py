"""float16, with float32 inputs and outputs, and float32 wherever float16 was measured not to hold the numbers.

onnxruntime's own converter (`onnxruntime.transformers.float16`) takes a list of nodes to leave alone, but casts what passes
from one of them to the next to float16 and back, so that a value beyond 65504 still becomes infinite between two
nodes that were spared because of it; it also turns constants below 6e-8 into 6e-8, and leaves nodes unsorted. Here every
value has one type: float16 if the node that makes it computes so, and casts stand only between nodes that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.session import OrtSession, read_by, size_nodes
from onnxlint.errors import OnnxlintError, printable

LARGEST = 65504.0
"""Of float16."""

HEADROOM = 2.0
"""Other inputs may make larger values than those that were measured, by this factor."""

LOST = 0.01
"""Part of a tensor's norm that rounding to float16 may take; where numbers are in its range it takes 0.0003."""

FLUSHED = 2.0**-25
"""What is smaller becomes 0 in float16."""

SAMPLE = 50_000
"""Numbers of a tensor, evenly taken, that are rounded to measure what that loses; peaks are those of all."""

CHUNK = 200
"""Inner tensors that are computed at once."""

SPARED = frozenset(
    """Bernoulli CastLike DequantizeLinear DynamicQuantizeLinear EyeLike Multinomial QLinearConv QLinearMatMul QuantizeLinear
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike SequenceEmpty""".split()
)
"""Operators whose types hang on more than their inputs, or that are quantized already."""

DIVISORS = {"Div": 1, "Reciprocal": 0, "Sqrt": 0, "Log": 0, "Pow": 0}
"""Operators, and their inputs where a number that becomes 0 makes infinity or NaN."""


@dataclass
class Measured:
    """What a tensor held, over all inputs.

    Attributes:
        peak: Largest finite magnitude.
        energy: Sum of squares.
        lost: Sum of squared differences to the float16 numbers.
        flushed: Whether some number other than 0 became 0.
        moved: Whether some number has another integer part.
    """

    peak: float = 0.0
    energy: float = 0.0
    lost: float = 0.0
    flushed: bool = False
    moved: bool = False

    def add(self, value: Array) -> None:
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
        """Why float16 cannot hold it; empty where it can."""
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

    def spare(self, index: int, why: str) -> None:
        self.spared.setdefault(index, why)


def with_initializers(model: onnx.ModelProto) -> None:
    """Turn floating-point Constant nodes into initializers, in place; these are no inputs any more in old files."""
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
    wanted = list(names)
    found = {name: Measured() for name in wanted}
    for done, feeds in enumerate(inputs, 1):
        for start in range(0, len(wanted), CHUNK):
            some = wanted[start : start + CHUNK]
            for name, value in zip(some, session.run(feeds, some), strict=True):
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
        OnnxlintError: A name in `keep` is no node's.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    nodes = list(model.graph.node)
    wanted = set(keep)
    unknown = wanted - {node.name for node in nodes}
    if unknown:
        raise OnnxlintError(
            f"{printable(name)}: has no node {printable(sorted(unknown)[0])!r}; check what is to be kept"
        )
    constants = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            constants[tensor.name] = Measured()
            constants[tensor.name].add(numpy_helper.to_array(tensor))
    bad = {key: why for key, one in measured.items() if (why := one.trouble(LARGEST / HEADROOM))}
    bad_constants = {key: why for key, one in constants.items() if (why := one.trouble(LARGEST))}
    domains = {entry.domain: entry.version for entry in model.opset_import}
    version = domains.get("", domains.get("ai.onnx", 0))
    sizes = size_nodes(model)
    made = Plan()
    for i, node in enumerate(nodes):
        if i in sizes:
            made.spare(i, "computes sizes")
        if node.name in wanted and node.name:
            made.spare(i, "asked for")
        elif any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            made.spare(i, "has a graph inside")
        elif node.op_type in DEFAULT_OP_BLOCK_LIST:
            made.spare(i, "onnxruntime has no such operator for float16")
        elif node.op_type in SPARED or half_slots(node.op_type, version, node.domain) is None:
            made.spare(i, "an operator that float16 is not defined for")
        for key in (*node.input, *node.output):
            if key in bad:
                made.spare(i, f"{printable(key)} {bad[key]}")
            elif key in bad_constants:
                made.spare(i, f"the constant {printable(key)} {bad_constants[key]}")
            elif not kinds.get(key, "tensor(").startswith("tensor("):
                made.spare(i, "works on sequences")
        at = DIVISORS.get(node.op_type)
        if at is not None and len(node.input) > at:
            one = measured.get(node.input[at]) or constants.get(node.input[at])
            if one is not None and one.flushed:
                made.spare(
                    i, f"{printable(node.input[at])} has numbers that float16 turns into 0, where that is dangerous"
                )
                for j, other in enumerate(nodes):
                    if node.input[at] in other.output:
                        made.spare(j, f"its result is {printable(node.input[at])}, which must not become 0")
        if node.op_type == "Cast" and node.input[0] in measured and measured[node.input[0]].moved:
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            if to not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16):
                made.spare(i, f"{printable(node.input[0])} becomes another integer in float16")
                for j, other in enumerate(nodes):
                    if node.input[0] in other.output:
                        made.spare(j, f"its result {printable(node.input[0])} becomes another integer in float16")
    return made


@lru_cache(maxsize=1000)
def half_slots(op: str, version: int, domain: str) -> tuple[tuple[bool, ...], tuple[bool, ...], bool, bool] | None:
    """Which inputs and outputs of an operator may be float16, and whether the last of them repeats; None where none may."""
    try:
        schema = defs.get_schema(op, version, "" if domain == "ai.onnx" else domain)
    except defs.SchemaError:
        return None
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}

    def can(formal: Any) -> bool:
        return "tensor(float16)" in allowed.get(formal.type_str, {formal.type_str})

    variadic = defs.OpSchema.FormalParameterOption.Variadic
    inputs, outputs = [can(one) for one in schema.inputs], [can(one) for one in schema.outputs]
    if not any(inputs) and not any(outputs):
        return None
    repeats = [bool(formals) and formals[-1].option == variadic for formals in (schema.inputs, schema.outputs)]
    return tuple(inputs), tuple(outputs), repeats[0], repeats[1]


def _slot(flags: tuple[bool, ...], repeats: bool, i: int) -> bool:
    return flags[i] if i < len(flags) else repeats and flags[-1]


def converted(model: onnx.ModelProto, kinds: Mapping[str, str], spared: Iterable[int]) -> onnx.ModelProto:
    """The model in float16 but for the spared nodes, inputs and outputs.

    Args:
        model: After `with_initializers`; it is not changed.
        kinds: onnxruntime's type of every value of the main graph.
        spared: Nodes that stay in float32, by index.
    """
    keep = set(spared)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph = new.graph
    domains = {entry.domain: entry.version for entry in model.opset_import}
    version = domains.get("", domains.get("ai.onnx", 0))
    listed = {value.name for value in graph.input}
    constants = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in listed
    }
    floats = {name for name, kind in kinds.items() if kind == "tensor(float)"}
    floats |= {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    outside = {value.name for value in graph.output}
    for node in graph.node:
        outside |= read_by(node) - set(node.input)  # by subgraphs, which stay as they are
    taken = floats | kinds.keys() | {tensor.name for tensor in graph.initializer} | listed
    half: dict[str, str] = {}  # value → its name in float16
    single: dict[str, str] = {name: name for name in floats}  # value → its name in float32
    halved: dict[str, onnx.TensorProto] = {}
    used: set[str] = set(outside)
    nodes: list[onnx.NodeProto] = []

    def fresh(base: str) -> str:
        name = base
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def cast(source: str, target: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [target], name=fresh(f"{target}_cast"), to=to))

    def as_half(name: str) -> str:
        if name in constants:
            if name not in halved:
                with np.errstate(over="ignore"):
                    values = numpy_helper.to_array(constants[name]).astype(np.float16)
                halved[name] = numpy_helper.from_array(values, fresh(f"{name}_fp16"))
            return halved[name].name
        if name not in half:
            half[name] = fresh(f"{name}_fp16")
            cast(name, half[name], TensorProto.FLOAT16)
        return half[name]

    def as_single(name: str) -> str:
        if name not in single:
            single[name] = fresh(f"{name}_fp32")
            cast(half[name], single[name], TensorProto.FLOAT)
        return single[name]

    for i, old in enumerate(model.graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(old)
        slots = None if i in keep else half_slots(node.op_type, version, node.domain)
        for j, name in enumerate(old.input):
            if name in constants or name in floats:
                wants_half = slots is not None and _slot(slots[0], slots[2], j)
                node.input[j] = as_half(name) if wants_half else name if name in constants else as_single(name)
                if name in constants and not wants_half:
                    used.add(name)
        late: list[tuple[str, str]] = []
        if slots is not None:
            for j, name in enumerate(old.output):
                if name in floats and _slot(slots[1], slots[3], j):
                    del single[name]
                    half[name] = fresh(f"{name}_fp16") if name in outside else name
                    node.output[j] = half[name]
                    if name in outside:
                        late.append((half[name], name))
            _retype(node, {name for name in old.output if name in half})
        nodes.append(node)
        for source, name in late:
            cast(source, name, TensorProto.FLOAT)
            single[name] = name
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in halved or tensor.name in used]
    names = {name: tensor.name for name, tensor in halved.items()}
    for name, tensor in halved.items():
        if name not in used:
            tensor.name = name
    back = {names[name]: name for name in halved if name not in used}
    for node in graph.node:
        for j, name in enumerate(node.input):
            node.input[j] = back.get(name, name)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(halved.values())
    del graph.value_info[:]
    return new


def _retype(node: onnx.NodeProto, halves: set[str]) -> None:
    """Attributes that say float32 say float16."""
    if not halves:
        return
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))
