"""A model rewritten in float16: every value has one type, and casts stand only between nodes that differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from onnxlint.backends.ort.session import read_by


def converted(model: onnx.ModelProto, kinds: Mapping[str, str], spared: Iterable[int]) -> onnx.ModelProto:
    """The model in float16 but for the spared nodes, inputs and outputs.

    Args:
        model: After `half.with_initializers`; it is not changed.
        kinds: onnxruntime's type of every value of the main graph.
        spared: Nodes that stay in float32, by index.
    """
    keep = set(spared)
    rewriter = _Rewriter(model, kinds)
    version = opset_version(model)
    for i, node in enumerate(model.graph.node):
        slots = None if i in keep else half_slots(node.op_type, version, node.domain)
        rewriter.add(node, slots)
    return rewriter.finished()


def opset_version(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set; 0 if the model imports none."""
    domains = {entry.domain: entry.version for entry in model.opset_import}
    return domains.get("", domains.get("ai.onnx", 0))


class _Rewriter:
    """The nodes of the float16 model, made one after the other.

    A value exists in float16, in float32, or in both: `_half` and `_single` say what it is called in either.
    """

    def __init__(self, model: onnx.ModelProto, kinds: Mapping[str, str]) -> None:
        self._model = model
        graph = model.graph
        inputs = {value.name for value in graph.input}
        self._constants = {
            tensor.name: tensor
            for tensor in graph.initializer
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in inputs
        }
        self._floats = {name for name, kind in kinds.items() if kind == "tensor(float)"}
        self._floats |= {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._outside = {value.name for value in graph.output}
        for node in graph.node:
            self._outside |= read_by(node) - set(node.input)  # by subgraphs, which stay as they are
        self._taken = self._floats | kinds.keys() | {tensor.name for tensor in graph.initializer} | inputs
        self._half: dict[str, str] = {}
        self._single: dict[str, str] = {name: name for name in self._floats}
        self._halved: dict[str, onnx.TensorProto] = {}
        self._in_single: set[str] = set(self._outside)
        self._nodes: list[onnx.NodeProto] = []

    def add(self, old: onnx.NodeProto, slots: Slots | None) -> None:
        """Add a node, with the casts that its inputs need; it stays in float32 without `slots`."""
        node = onnx.NodeProto()
        node.CopyFrom(old)
        for j, name in enumerate(old.input):
            if name in self._constants or name in self._floats:
                node.input[j] = self._input(name, slots is not None and slots.takes(j))
        late: list[tuple[str, str]] = []
        if slots is not None:
            for j, name in enumerate(old.output):
                if name not in self._floats or not slots.makes(j):
                    continue
                del self._single[name]
                self._half[name] = self._fresh(f"{name}_fp16") if name in self._outside else name
                node.output[j] = self._half[name]
                if name in self._outside:
                    late.append((self._half[name], name))
            _retype(node, {name for name in old.output if name in self._half})
        self._nodes.append(node)
        for source, name in late:
            self._cast(source, name, TensorProto.FLOAT)
            self._single[name] = name

    def finished(self) -> onnx.ModelProto:
        """The whole model: weights are stored in the precisions that are read."""
        new = onnx.ModelProto()
        new.CopyFrom(self._model)
        del new.graph.node[:]
        new.graph.node.extend(self._nodes)
        kept = [
            tensor
            for tensor in self._model.graph.initializer
            if tensor.name not in self._halved or tensor.name in self._in_single
        ]
        # A weight that is read in float16 alone keeps its name.
        names = {tensor.name: name for name, tensor in self._halved.items() if name not in self._in_single}
        for name in names.values():
            self._halved[name].name = name
        for node in new.graph.node:
            for j, name in enumerate(node.input):
                node.input[j] = names.get(name, name)
        del new.graph.initializer[:]
        new.graph.initializer.extend(kept)
        new.graph.initializer.extend(self._halved.values())
        del new.graph.value_info[:]
        return new

    def _input(self, name: str, wants_half: bool) -> str:
        """Name that a node reads in place of a value."""
        if name in self._constants:
            if wants_half:
                return self._constant_as_half(name)
            self._in_single.add(name)
            return name
        return self._as_half(name) if wants_half else self._as_single(name)

    def _constant_as_half(self, name: str) -> str:
        if name not in self._halved:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
            self._halved[name] = numpy_helper.from_array(values, self._fresh(f"{name}_fp16"))
        return self._halved[name].name

    def _as_half(self, name: str) -> str:
        if name not in self._half:
            self._half[name] = self._fresh(f"{name}_fp16")
            self._cast(name, self._half[name], TensorProto.FLOAT16)
        return self._half[name]

    def _as_single(self, name: str) -> str:
        if name not in self._single:
            self._single[name] = self._fresh(f"{name}_fp32")
            self._cast(self._half[name], self._single[name], TensorProto.FLOAT)
        return self._single[name]

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=self._fresh(f"{target}_cast"), to=to))

    def _fresh(self, base: str) -> str:
        name = base
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Slots:
    """Which inputs and outputs of an operator may be float16, and whether the last of them repeats."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    input_repeats: bool
    output_repeats: bool

    def takes(self, i: int) -> bool:
        """Whether input `i` may be float16."""
        return self.inputs[i] if i < len(self.inputs) else self.input_repeats and self.inputs[-1]

    def makes(self, i: int) -> bool:
        """Whether output `i` may be float16."""
        return self.outputs[i] if i < len(self.outputs) else self.output_repeats and self.outputs[-1]


@lru_cache(maxsize=1000)
def half_slots(op: str, version: int, domain: str) -> Slots | None:
    """Which inputs and outputs of an operator may be float16; None if none may."""
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
    return Slots(tuple(inputs), tuple(outputs), *repeats)


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
