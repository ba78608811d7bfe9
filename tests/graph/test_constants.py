"""Plain numbers of constants, against onnx's own reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxlint.graph.constants import Numbers, array_of, numbers_of, small_array, small_numbers

KINDS = [
    *("FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE", "UINT32", "UINT64"),
    *("STRING", "BFLOAT16", "COMPLEX64", "INT4", "FLOAT8E5M2", "UNDEFINED"),
]
FIELDS = {"int32_data": 2**31, "int64_data": 2**63, "uint64_data": 0, "float_data": 1, "double_data": 1}


def expected(array: np.ndarray | None) -> Numbers | None:
    if array is None or array.dtype.kind not in "iufb":
        return None
    return Numbers(tuple(array.reshape(-1).tolist()), array.shape, array.dtype.kind, array.dtype.itemsize * 8)


def same(ours: Numbers | None, theirs: Numbers | None) -> bool:
    return repr(ours) == repr(theirs)  # NaN is itself


@st.composite
def tensors(draw: st.DrawFn) -> TensorProto:
    """Tensors of all types, some of whose data does not fit their dims or their type."""
    tensor = TensorProto(data_type=TensorProto.DataType.Value(draw(st.sampled_from(KINDS))))
    tensor.dims.extend(draw(st.lists(st.integers(-1, 4), max_size=3)))
    count = int(np.prod(tensor.dims)) if min(tensor.dims, default=0) >= 0 else draw(st.integers(0, 4))
    if draw(st.booleans()):
        size = draw(st.sampled_from([1, 2, 4, 8]))
        tensor.raw_data = draw(st.binary(min_size=count * size, max_size=count * size))
    else:
        field = draw(st.sampled_from(sorted(FIELDS)))
        limit = FIELDS[field]
        if limit == 1:
            numbers = st.floats(width=32) | st.integers(-3, 3)
        elif limit == 0:
            numbers = st.integers(0, 2**64 - 1) | st.integers(0, 3)
        else:
            numbers = st.integers(-limit, limit - 1) | st.integers(-3, 3)
        getattr(tensor, field).extend(draw(st.lists(numbers, min_size=count, max_size=count)))
    return tensor


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy casts numbers beyond a type, which onnx does, too
@given(tensors())
def test_any_tensor_reads_as_onnx_reads_it(tensor: TensorProto) -> None:
    assert same(small_numbers(tensor), expected(small_array(tensor)))


@pytest.mark.parametrize("kind", ["f4", "u1", "i1", "u2", "i2", "i4", "i8", "?", "f2", "f8", "u4", "u8"])
def test_each_type_both_ways(kind: str) -> None:
    array = np.array([[0, 1, 2], [3, 5, 100]]).astype(kind)
    raw = numpy_helper.from_array(array)
    field = helper.make_tensor("t", raw.data_type, array.shape, array.reshape(-1).tolist())
    for tensor in (raw, field):
        numbers = small_numbers(tensor)
        assert numbers == (tuple(array.reshape(-1).tolist()), (2, 3), array.dtype.kind, array.itemsize * 8)
        assert small_numbers(numpy_helper.from_array(array[:0])) == ((), (0, 3), array.dtype.kind, array.itemsize * 8)


@pytest.mark.parametrize(
    ("attributes", "values"),
    [
        ({"value_int": 3}, (3,)),
        ({"value_ints": [1, 2]}, (1, 2)),
        ({"value_float": 0.5}, (0.5,)),
        ({"value_floats": [0.5, 1.5]}, (0.5, 1.5)),
        ({"value": helper.make_tensor("t", TensorProto.INT64, [2], [7, 8])}, (7, 8)),
    ],
)
def test_constant_nodes(attributes: dict[str, Any], values: tuple[float, ...]) -> None:
    node = onnx.helper.make_node("Constant", [], ["y"], **attributes)
    numbers = numbers_of(node)
    assert numbers is not None
    assert numbers.values == values
    assert numbers == expected(array_of(node))


def test_what_is_no_number() -> None:
    assert numbers_of(None) is None
    assert numbers_of(onnx.helper.make_node("Constant", [], ["y"], value_string="a")) is None
    assert small_numbers(TensorProto(data_type=TensorProto.INT64, dims=[1], data_location=TensorProto.EXTERNAL)) is None
