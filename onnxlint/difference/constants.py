"""The constants of a graph, wherever it keeps them: initializers and Constant nodes are one thing here."""

from __future__ import annotations

import hashlib
import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.graph.constants import array_of
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.model.skeleton import inline_span

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

SMALL = 16
"""Integers of at most this many elements are operands (targets, axes): they are shown by value."""

SMALL_FLOATS = 6
"""The same for floating-point numbers (scales, limits), unless the operator takes weights there."""

WEIGHTED = frozenset(
    "Conv ConvTranspose ConvInteger QLinearConv Gemm BatchNormalization InstanceNormalization LayerNormalization "
    "GroupNormalization RMSNormalization PRelu LSTM GRU RNN".split()
)
"""Operators whose constant inputs are weights, however few elements they have."""

_FLOATS = frozenset((1, 10, 11, 14, 15, 16, 17, 18, 19, 20, 23))

_SAMPLE = 4096
"""Bytes at the start, in the middle and at the end of a weight that its signature is made of."""


@dataclass(frozen=True)
class Constant:
    """A constant that nodes read.

    Attributes:
        graph: The graph that defines it.
        name: Its name there.
        dtype: onnx.TensorProto.DataType.
        shape: Its dims.
        tensor: The data; None for a Constant node that holds a number, a list or text.
        node: The Constant node; None for initializers.
    """

    graph: Graph
    name: str
    dtype: int
    shape: tuple[int, ...]
    tensor: onnx.TensorProto | None
    node: Node | None = None

    @property
    def key(self) -> tuple[int, str]:
        """Identity within one view."""
        return id(self.graph), self.name

    @property
    def elements(self) -> int:
        """Number of elements; 0 if a dim is negative."""
        return math.prod(self.shape) if all(dim >= 0 for dim in self.shape) else 0

    @property
    def is_small(self) -> bool:
        """Whether it is shown by value, where no operator takes it for a weight."""
        return self.elements <= (SMALL_FLOATS if self.dtype in _FLOATS else SMALL)

    def array(self) -> npt.NDArray[np.generic]:
        """Its values, read-only; through the memory map where they lie in the file.

        Raises:
            OnnxlintError: The data is missing, short or does not fit.
        """
        if self.tensor is not None:
            return self.graph.view.model.array(self.tensor)
        value = array_of(self.node.proto) if self.node is not None else None
        if value is None:
            raise OnnxlintError(f"{self.graph.view.model.path}: the value of constant {self.name!r} cannot be read")
        return value

    def release(self) -> None:
        """Let go of the pages of the file that were read for `array`: they count as memory of this process."""
        span = inline_span(self.tensor) if self.tensor is not None else None
        buffer = self.graph.view.model.buffer
        if span is None or not isinstance(buffer, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = span.offset - span.offset % mmap.PAGESIZE
        buffer.madvise(mmap.MADV_DONTNEED, start, span.offset + span.length - start)

    def text(self) -> str:
        """Its values where it is small, else type and shape."""
        if self.is_small:
            try:
                return str(self.array().tolist())
            except OnnxlintError:
                return type_text(self.dtype, self.shape)
        return type_text(self.dtype, self.shape)

    def signature(self) -> str:
        """A hash of type, shape and samples of the data: equal for equal constants, and cheap for large ones."""
        digest = hashlib.blake2b(f"{self.dtype}{self.shape}".encode(), digest_size=12)
        try:
            data = raw_bytes(self.array())
        except OnnxlintError:
            return digest.hexdigest() + "?"
        for start in sorted({0, max(0, len(data) // 2 - _SAMPLE // 2), max(0, len(data) - _SAMPLE)}):
            digest.update(data[start : start + _SAMPLE])
        return digest.hexdigest()

    def digest(self) -> str:
        """A hash of type, shape and all of the data, in hexadecimal; `unreadable` where it cannot be read."""
        digest = hashlib.sha256(f"{self.dtype}{self.shape}".encode())
        try:
            data = raw_bytes(self.array())
        except OnnxlintError:
            return "unreadable"
        for start in range(0, len(data), 1 << 22):
            digest.update(data[start : start + (1 << 22)])
        return digest.hexdigest()


def raw_bytes(array: npt.NDArray[np.generic]) -> memoryview:
    """The bytes of an array; text and objects as their printed form."""
    import numpy as np

    if array.dtype.kind in "OSU":
        return memoryview(repr(array.tolist()).encode("utf-8", "backslashreplace"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def constant_of(graph: Graph, name: str) -> Constant | None:
    """The constant that a value is, here or in an outer graph; None for computed values and inputs."""
    owner = graph.owner(name) if name else None
    if owner is None:
        return None
    tensor = owner.initializers.get(name)
    if tensor is not None:
        return Constant(owner, name, tensor.data_type, tuple(tensor.dims), tensor)
    node = owner.producer(name)
    if node is None or node.op != "Constant" or node.graph is not owner:
        return None
    for attribute in node.proto.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return Constant(owner, name, attribute.t.data_type, tuple(attribute.t.dims), attribute.t, node)
    value = array_of(node.proto)
    if value is None:
        return None
    from onnx import helper

    return Constant(owner, name, helper.np_dtype_to_tensor_dtype(value.dtype), tuple(value.shape), None, node)


def is_operand(node: Node, constant: Constant) -> bool:
    """Whether a constant that a node reads is a parameter (an axis, a target, a factor), and not a weight."""
    return constant.is_small and node.op not in WEIGHTED


def constants_of(graph: Graph) -> list[Constant]:
    """All constants that a graph itself defines, in the order of the file."""
    names = [*graph.initializers, *(node.output() for node in graph.nodes if node.op == "Constant")]
    found = (constant_of(graph, name) for name in names if name)
    return [one for one in found if one is not None and one.graph is graph]


def all_constants(view: GraphView) -> list[Constant]:
    """All constants of a model, graph by graph."""
    return [one for graph in view.graphs for one in constants_of(graph)]


def type_text(dtype: int, shape: tuple[int, ...]) -> str:
    """`float32[64, 3, 3, 3]`."""
    import onnx

    try:
        name = onnx.TensorProto.DataType.Name(dtype).lower()
    except ValueError:
        name = f"type {dtype}"
    return f"{'float32' if name == 'float' else 'float64' if name == 'double' else name}[{', '.join(map(str, shape))}]"
