"""Values of small constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.model.wire import LARGE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx


def small_array(tensor: onnx.TensorProto) -> npt.NDArray[np.generic] | None:
    """Value of a tensor whose data is in the skeleton; None for larger ones and for broken ones."""
    from onnx import numpy_helper

    if tensor.data_location == 1 or tensor.ByteSize() > 2 * LARGE:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None  # dims that do not fit the data: SPC001 reports it


def constant_node_value(node: onnx.NodeProto) -> npt.NDArray[np.generic] | None:
    """Value of a Constant node; None if it is large, sparse or a string."""
    import numpy as np

    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return small_array(attribute.t)
        if attribute.name == "value_int":
            return np.array(attribute.i, dtype=np.int64)
        if attribute.name == "value_float":
            return np.array(attribute.f, dtype=np.float32)
        if attribute.name == "value_ints":
            return np.array(attribute.ints, dtype=np.int64)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, dtype=np.float32)
    return None
