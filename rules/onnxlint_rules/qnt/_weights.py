"""Shared by the QNT rules: finding weights, and statistics of them, read in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint import Graph, GraphView, Node, OnnxlintError
from onnxlint_rules._graph import FLOATS, WEIGHT_OPERANDS, fixed_tensor, integer, integers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    Floats = npt.NDArray[np.floating[Any]]

CHUNK = 1 << 20
"""Elements that are looked at together: few enough for the caches, many enough for NumPy."""


@dataclass(frozen=True)
class Weight:
    """A constant that a convolution, matrix product or recurrent layer multiplies with.

    Attributes:
        node: The first node that reads it.
        operand: Which of its inputs it is.
        tensor: The tensor, read through any Identity and Transpose.
        axis: Axis of `tensor` that holds the output channels; None if these are not along one axis.
        groups: Groups of a ConvTranspose, whose weights hold the output channels of one group along `axis`.
    """

    node: Node
    operand: int
    tensor: onnx.TensorProto
    axis: int | None
    groups: int = 1


@dataclass(frozen=True)
class Figures:
    """Figures about the numbers of one tensor.

    Attributes:
        count: Elements.
        nan: How many are no number.
        inf: How many are infinite.
        largest: Largest finite magnitude.
        energy: Sum of the squares of the finite ones.
    """

    count: int
    nan: int
    inf: int
    largest: float
    energy: float


def weights(view: GraphView) -> list[Weight]:
    """Floating-point weights of a model, each tensor once, in the order of the file."""
    key = "onnxlint_rules.weights"
    known: list[Weight] | None = view.memo.get(key)
    if known is None:
        known = []
        seen: set[int] = set()
        for node in view.nodes(*WEIGHT_OPERANDS):
            for operand in WEIGHT_OPERANDS[node.op]:
                found = _behind(node.graph, node.input(operand))
                if found is None:
                    continue
                tensor, turned = found
                if tensor.data_type in FLOATS and id(tensor) not in seen and len(tensor.dims) >= 2:
                    seen.add(id(tensor))
                    axis = _channel_axis(node, operand, len(tensor.dims), turned)
                    groups = max(1, integer(node, "group", 1)) if node.op == "ConvTranspose" else 1
                    known.append(Weight(node, operand, tensor, axis, groups))
        view.memo[key] = known
    return known


def _behind(graph: Graph, name: str) -> tuple[onnx.TensorProto, bool] | None:
    """(tensor, whether its last two axes are swapped) of a constant operand."""
    tensor = fixed_tensor(graph, name)
    if tensor is not None:
        return tensor, False
    node = graph.producer(name) if name else None
    if node is None or node.op != "Transpose":
        return None
    tensor = fixed_tensor(node.graph, node.input(0))
    if tensor is None:
        return None
    rank = len(tensor.dims)
    perm = integers(node, "perm") or list(range(rank))[::-1]
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    return (tensor, True) if rank >= 2 and perm == swapped else None


def _channel_axis(node: Node, operand: int, rank: int, turned: bool) -> int | None:
    if node.op in ("Conv", "DeformConv"):
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op not in ("Gemm", "MatMul"):
        return None
    last = operand == 1
    if node.op == "Gemm" and integer(node, "transB" if operand else "transA", 0):
        last = not last
    return rank - 1 if last != turned else rank - 2


def pieces(view: GraphView, tensor: onnx.TensorProto) -> Iterator[Floats]:
    """A tensor's numbers, flat, `CHUNK` at a time; float64 as it is, all else as float32.

    Raises:
        OnnxlintError: The data is missing, or is not what its dims and type say.
    """
    import numpy as np

    flat = view.array(tensor).reshape(-1)
    kind = np.float64 if flat.dtype == np.float64 else np.float32
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK].astype(kind, copy=False)


def figures(view: GraphView, tensor: onnx.TensorProto) -> Figures | None:
    """Figures about a floating-point tensor, made once; None if its data cannot be read (SEC002 and SPC001 say so)."""
    known: dict[int, Figures | None] = view.memo.setdefault("onnxlint_rules.figures", {})
    if id(tensor) not in known:
        try:
            known[id(tensor)] = _figures(view, tensor)
        except OnnxlintError:
            known[id(tensor)] = None
    return known[id(tensor)]


def _figures(view: GraphView, tensor: onnx.TensorProto) -> Figures:
    import numpy as np

    count = nan = inf = 0
    largest = energy = 0.0
    with np.errstate(all="ignore"):
        for piece in pieces(view, tensor):
            count += piece.size
            squares = float(np.dot(piece, piece))
            if not np.isfinite(squares):
                # Something is infinite, no number, or its square overflows: look closer.
                finite = np.isfinite(piece)
                not_numbers = int(np.isnan(piece).sum())
                nan += not_numbers
                inf += int(piece.size - finite.sum()) - not_numbers
                piece = piece[finite].astype(np.float64)
                squares = float(np.dot(piece, piece))
            if piece.size:
                largest = max(largest, float(piece.max()), -float(piece.min()))
            energy += squares
    return Figures(count, nan, inf, largest, energy)


def small_constants(view: GraphView) -> Iterator[tuple[Node, int, float]]:
    """(reader, operand, value) of every floating-point constant of one element."""
    for graph in view.graphs:
        names = [name for name, t in graph.initializers.items() if t.data_type in FLOATS and _is_single(t)]
        names += [node.output() for node in graph.nodes if node.op == "Constant"]
        for name in names:
            value = graph.numbers(name) if graph.consumers(name) else None
            if value is None or len(value.values) != 1 or value.kind != "f":
                continue
            for reader in graph.consumers(name):
                yield from ((reader, i, float(value.single)) for i, n in enumerate(reader.inputs) if n == name)


def _is_single(tensor: onnx.TensorProto) -> bool:
    return all(size == 1 for size in tensor.dims)


@dataclass(frozen=True)
class Block:
    """Weights of consecutive output channels.

    Attributes:
        first: Index of the first channel.
        values: Array (outer, channels, inner) over the file's bytes.
    """

    first: int
    values: npt.NDArray[Any]

    @property
    def channels(self) -> slice:
        """The channels that these are, to index a list of all with."""
        return slice(self.first, self.first + self.values.shape[1])

    def pieces(self) -> Iterator[npt.NDArray[np.float32]]:
        """All values along the first axis, as float32, in pieces of about `CHUNK` elements."""
        import numpy as np

        outer, channels, inner = self.values.shape
        rows = max(1, CHUNK // max(1, channels * inner))
        for start in range(0, outer, rows):
            yield self.values[start : start + rows].astype(np.float32, copy=False)


def channel_blocks(view: GraphView, weight: Weight) -> Iterator[Block]:
    """A weight, sorted by output channels: blocks that together hold each element once.

    Raises:
        OnnxlintError: The data is missing, or is not what its dims and type say.
    """
    axis = weight.axis
    if axis is None or weight.node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return
    array = view.array(weight.tensor)
    if not array.size:
        return
    dims = array.shape
    if axis == 0:
        flat = array.reshape(1, dims[0], -1)
        rows = max(1, CHUNK // flat.shape[2])
        for start in range(0, dims[0], rows):
            yield Block(start, flat[:, start : start + rows])
        return
    inputs = dims[0] // weight.groups if dims[0] % weight.groups == 0 else dims[0]
    for group in range(dims[0] // inputs if weight.groups > 1 else 1):
        part = array[group * inputs : (group + 1) * inputs] if weight.groups > 1 else array
        outer = 1
        for size in part.shape[:axis]:
            outer *= size
        yield Block(group * dims[axis], part.reshape(outer, dims[axis], -1))
