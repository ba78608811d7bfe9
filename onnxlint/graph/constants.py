"""Values of small constants: as NumPy arrays, and as plain numbers where NumPy need not be imported."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlint.model.onnx_types import ElementType
from onnxlint.model.wire import LARGE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx


class Numbers(NamedTuple):
    """A small tensor of numbers.

    Attributes:
        values: Flat.
        dims: Its shape; () for a scalar.
        kind: `f`, `i`, `u` or `b`: floating-point, signed, unsigned, truth values.
        bits: Size of an element.
    """

    values: tuple[Any, ...]
    dims: tuple[int, ...]
    kind: str
    bits: int

    @property
    def single(self) -> Any:
        """The number where there is only one; else None."""
        return self.values[0] if len(self.values) == 1 else None


_TYPES: dict[int, tuple[str, int, str, str, str]] = {
    ElementType.FLOAT: ("f", 32, "f", "f", "float_data"),
    ElementType.UINT8: ("u", 8, "B", "B", "int32_data"),
    ElementType.INT8: ("i", 8, "b", "b", "int32_data"),
    ElementType.UINT16: ("u", 16, "H", "H", "int32_data"),
    ElementType.INT16: ("i", 16, "h", "h", "int32_data"),
    ElementType.INT32: ("i", 32, "i", "i", "int32_data"),
    ElementType.INT64: ("i", 64, "q", "q", "int64_data"),
    ElementType.BOOL: ("b", 8, "?", "?", "int32_data"),
    ElementType.FLOAT16: ("f", 16, "e", "H", "int32_data"),  # the field holds its bits
    ElementType.DOUBLE: ("f", 64, "d", "d", "double_data"),
    ElementType.UINT32: ("u", 32, "I", "I", "uint64_data"),
    ElementType.UINT64: ("u", 64, "Q", "Q", "uint64_data"),
}
"""Element type → kind, bits, codes of `struct` for an element and for an item of a field, the field beside raw_data."""


def small_array(tensor: onnx.TensorProto) -> npt.NDArray[np.generic] | None:
    """Value of a tensor whose data is in the skeleton; None for larger ones and for broken ones."""
    from onnx import numpy_helper

    if not _is_small(tensor):
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None  # dims that do not fit the data: SPC001 reports it


def _is_small(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != 1 and tensor.ByteSize() <= 2 * LARGE


def small_numbers(tensor: onnx.TensorProto) -> Numbers | None:
    """Value of a tensor as `small_array` reads it; None where that is None, and for types that are no numbers."""
    if not _is_small(tensor):
        return None
    known = _TYPES.get(tensor.data_type)
    if known is None:
        return _plain(small_array(tensor))
    kind, bits, code, item, field = known
    dims = tuple(tensor.dims)
    count = math.prod(dims)
    if not tensor.HasField("segment") and min(dims, default=0) >= 0 and count <= 2 * LARGE:
        data = tensor.raw_data
        if not tensor.HasField("raw_data") and len(values := getattr(tensor, field)) == count:
            with suppress(struct.error):  # numbers beyond their type
                data = struct.pack(f"<{count}{item}", *values)
        if len(data) * 8 == count * bits:
            return Numbers(struct.unpack(f"<{count}{code}", data), dims, kind, bits)
    return _plain(small_array(tensor))


def _plain(array: npt.NDArray[np.generic] | None) -> Numbers | None:
    if array is None or array.dtype.kind not in "fiub":
        return None
    return Numbers(tuple(array.reshape(-1).tolist()), array.shape, array.dtype.kind, array.dtype.itemsize * 8)


# Values of a graph


def constant_holder(graph: Any, name: str) -> onnx.TensorProto | onnx.NodeProto | None:
    """What holds a constant: an initializer or a Constant node, perhaps behind Identities.

    None where the value is no constant, and for initializers that a caller may override (IR version 4 and up, listed as
    inputs).

    Args:
        graph: The `Graph`.
        name: The value.
    """
    here = graph
    while here is not None and not here.owns(name):
        here = here.parent
    if here is None:
        return None
    if name in here.initializers:
        overridable = name in here.inputs and here.view.model.proto.ir_version >= 4
        tensor: onnx.TensorProto = here.initializers[name]
        return None if overridable else tensor
    node = here.producer(name)
    # Follows Identity without recursion: a chain of a million of them must not overflow the stack.
    seen = 0
    while node is not None and node.op == "Identity" and node.inputs and seen < 64:
        if node.inputs[0] in here.initializers:
            return constant_holder(here, node.inputs[0])
        node, seen = here.producer(node.inputs[0]), seen + 1
    made: onnx.NodeProto | None = node.proto if node is not None and node.op == "Constant" else None
    return made


def array_of(holder: onnx.TensorProto | onnx.NodeProto | None) -> npt.NDArray[np.generic] | None:
    """The value in an initializer or a Constant node; None if it is large, sparse or a string."""
    held = _held(holder)
    if held is None:
        return None
    if not isinstance(held, Numbers):
        return small_array(held)
    import numpy as np

    return np.array(held.values, f"{held.kind}{held.bits // 8}").reshape(held.dims)


def numbers_of(holder: onnx.TensorProto | onnx.NodeProto | None) -> Numbers | None:
    """The numbers of what `array_of` reads."""
    held = _held(holder)
    return held if held is None or isinstance(held, Numbers) else small_numbers(held)


def _held(holder: Any) -> onnx.TensorProto | Numbers | None:
    """The tensor of an initializer or of a Constant node, or what such a node's attribute says in numbers."""
    if holder is None or not hasattr(holder, "attribute"):
        tensor: onnx.TensorProto | None = holder
        return tensor
    for attribute in holder.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            inner: onnx.TensorProto = attribute.t
            return inner
        if attribute.name == "value_int":
            return Numbers((attribute.i,), (), "i", 64)
        if attribute.name == "value_float":
            return Numbers((attribute.f,), (), "f", 32)
        if attribute.name == "value_ints":
            return Numbers(tuple(attribute.ints), (len(attribute.ints),), "i", 64)
        if attribute.name == "value_floats":
            return Numbers(tuple(attribute.floats), (len(attribute.floats),), "f", 32)
    return None
