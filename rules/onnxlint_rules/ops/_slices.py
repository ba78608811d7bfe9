"""ScatterND nodes that write a block of slices which is known before the model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from onnxlint import Node, Unfixable
from onnxlint.rulekit import exact_sizes
from onnxlint_rules._graph import fixed_tensor
from onnxlint_rules._tensors import read_inline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_graphsurgeon as gs

    from onnxlint import Surgeon

_MAX_INDICES = 2**20
"""Numbers in the indices that are looked at at most."""


class Block(NamedTuple):
    """Where the updates of a ScatterND go: one range of each leading axis.

    Attributes:
        starts, stops: Of each axis that the indices speak of.
        sizes: Sizes of these axes of the data.
        target: Shape that the updates have to take, as a Reshape target; None if they have it.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    sizes: tuple[int, ...]
    target: tuple[int, ...] | None


def block_of(node: Node) -> Block | None:
    """The block that a ScatterND writes; None if its indices are unknown, or are no block in order."""
    import numpy as np

    if node.attribute("reduction", "none") != "none":
        return None
    indices, data, updates = _indices(node), node.shape(0), node.shape(2)
    if indices is None or data is None or updates is None or not indices.size:
        return None
    count = indices.shape[-1]
    sizes = [size for size in data[:count] if isinstance(size, int) and size > 0]
    if not 0 < count <= len(data) or len(sizes) != count:
        return None
    rows = indices.reshape(-1, count)
    rows = np.where(rows < 0, rows + np.array(sizes), rows)
    starts, stops = rows.min(axis=0), rows.max(axis=0) + 1
    if starts.min() < 0 or (stops > np.array(sizes)).any() or len(rows) != int(np.prod(stops - starts)):
        return None
    grid = np.stack(np.meshgrid(*map(np.arange, starts, stops), indexing="ij"), axis=-1).reshape(-1, count)
    if not np.array_equal(rows, grid):
        return None
    lengths = tuple(int(n) for n in stops - starts)
    target = _target(lengths, data[count:], updates)
    if target == ():
        return None
    return Block(tuple(map(int, starts)), tuple(map(int, stops)), tuple(sizes), target)


def _target(lengths: tuple[int, ...], rest: tuple[object, ...], updates: tuple[object, ...]) -> tuple[int, ...] | None:
    """A Reshape target for the updates; None if none is needed, empty if none is constant."""
    if updates == (*lengths, *rest):
        return None
    numbers = [*lengths, *(size if isinstance(size, int) else -1 for size in rest)]
    return tuple(numbers) if numbers.count(-1) <= 1 and 0 not in numbers else ()


def _indices(node: Node) -> npt.NDArray[np.int64] | None:
    """Values of the indices, as constants or as far as they follow from constants and sizes."""
    import numpy as np

    view, name = node.graph.view, node.input(1)
    tensor = fixed_tensor(node.graph, name) if name else None
    if tensor is not None:
        array = read_inline(view, tensor, 8 * _MAX_INDICES)
        return array.astype(np.int64) if array is not None and array.ndim and array.dtype.kind in "iu" else None
    value = exact_sizes(view).val(node, 1)
    if value is None or not value.dims or not all(isinstance(number, int) for number in value.numbers):
        return None
    return np.array(value.numbers, np.int64).reshape(value.dims)


def put_block(surgeon: Surgeon, node: Node) -> None:
    """Replace a ScatterND by Slice and Concat."""
    import numpy as np

    block = block_of(node)
    if block is None:
        raise Unfixable("its indices are not a block of slices")
    held = surgeon.node(node)
    base = node.name or node.output()
    data, updates = held.inputs[0], held.inputs[2]
    if block.target is not None:
        target = surgeon.constant(f"{base}_target", np.array(block.target, np.int64), node.graph)
        updates = surgeon.add("Reshape", [updates, target], node, f"{base}_Reshape")
    result = _put(surgeon, node, data, updates, block, 0)
    surgeon.replace_value(held.outputs[0], result, node)


def _put(surgeon: Surgeon, node: Node, data: gs.Tensor, updates: gs.Tensor, block: Block, axis: int) -> gs.Tensor:
    """The data with the updates in place, from an axis on."""
    while axis < len(block.sizes) and (block.starts[axis], block.stops[axis]) == (0, block.sizes[axis]):
        axis += 1
    if axis == len(block.sizes):
        return updates
    start, stop, size = block.starts[axis], block.stops[axis], block.sizes[axis]
    more = any((block.starts[i], block.stops[i]) != (0, block.sizes[i]) for i in range(axis + 1, len(block.sizes)))
    inner = _slice(surgeon, node, data, axis, start, stop) if more else data
    parts = [_put(surgeon, node, inner, updates, block, axis + 1)]
    if start > 0:
        parts.insert(0, _slice(surgeon, node, data, axis, 0, start))
    if stop < size:
        parts.append(_slice(surgeon, node, data, axis, stop, size))
    return surgeon.add("Concat", parts, node, f"{node.name or node.output()}_Concat", axis=axis)


def _slice(surgeon: Surgeon, node: Node, data: gs.Tensor, axis: int, start: int, stop: int) -> gs.Tensor:
    import numpy as np

    base = f"{node.name or node.output()}_Slice"
    bounds = [
        surgeon.constant(f"{base}_{what}", np.array([number], np.int64), node.graph)
        for what, number in (("start", start), ("stop", stop), ("axis", axis))
    ]
    return surgeon.add("Slice", [data, *bounds], node, base)
