"""Dimensions of values: known, symbolic or unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.model.dim_names import is_placeholder

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
    kind = value.type
    if not kind.HasField("tensor_type"):
        return 0, None
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        size = dim.dim_value
        if size or dim.HasField("dim_value"):
            dims.append(size if size >= 0 else None)  # exporters have written -1 for "unknown"
        else:
            dims.append(None if is_placeholder(dim.dim_param) else dim.dim_param)
    return tensor.elem_type, tuple(dims)
