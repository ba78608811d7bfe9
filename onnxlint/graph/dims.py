"""Dimensions of values: known, symbolic or unknown."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from onnxlint.model.dim_names import is_placeholder
from onnxlint.model.messages import messages

if TYPE_CHECKING:
    import onnx

Dim = int | str | None
"""A dimension: known, symbolic (a name or an expression; equal texts are equal sizes), or unknown."""
Shape = tuple[Dim, ...]


def is_invented(dim: Dim) -> bool:
    """Whether a dim is unknown, or depends on a symbol that inference made up for an unknown one (`unk__3`, `4*?1`)."""
    return dim is None or (isinstance(dim, str) and (dim.startswith("unk__") or "?" in dim))


def type_of(value: onnx.ValueInfoProto) -> tuple[int, Shape | None]:
    """(element type, shape) that a ValueInfoProto claims; the shape is None if it has none.

    The element type is 0 for values that are not tensors.
    """
    kind: bytes = value.type.SerializeToString()
    return _read_type(kind) if len(kind) <= _OFTEN else _type_of(value.type)


_OFTEN = 128
"""Bytes of types that are remembered: a network has few different ones, and writing a type costs less than reading it."""


@lru_cache(maxsize=4096)
def _read_type(kind: bytes) -> tuple[int, Shape | None]:
    return _type_of(messages().TypeProto.FromString(kind))


def _type_of(kind: onnx.TypeProto) -> tuple[int, Shape | None]:
    tensor = kind.tensor_type  # of other types: an empty one
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, tuple([size if (size := dim.dim_value) > 0 else _unusual(dim) for dim in tensor.shape.dim])


def _unusual(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """A dimension that is no positive number: 0, a name, or unknown, for which exporters have written -1, too."""
    name = dim.dim_param
    if name:
        return None if is_placeholder(name) else name
    return 0 if dim.HasField("dim_value") and not dim.dim_value else None
