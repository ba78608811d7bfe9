"""Inputs become constants: `--bind factor=1,1,3,3`, `--bind factor=values.npy`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.shapes import require_input
from onnxlint.model.arrays import read_arrays
from onnxlint.text import counted, listed, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView

MAX_NUMBERS = 10_000
"""Numbers on the command line."""


def bind_inputs(view: GraphView, bindings: Sequence[tuple[str, str]]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Make inputs constants.

    Args:
        view: The model.
        bindings: (input, numbers separated by commas or an .npy file).

    Returns:
        (A new skeleton, the values by input).

    Raises:
        OnnxlintError: There is no such input, or a value does not fit it.
    """
    import onnx
    from onnx import numpy_helper

    values: dict[str, Any] = {}
    for name, text in bindings:
        require_input(view, "--bind", name)
        if name in values:
            raise OnnxlintError(f"--bind: input {printable(name)!r} is bound twice")
        values[name] = _reshaped(view, name, _read(view, name, text))
    _refuse_outputs(view, values)
    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    graph = model.graph
    if model.ir_version >= 4:  # before, every initializer is listed as an input
        kept = [type(value).FromString(value.SerializeToString()) for value in graph.input if value.name not in values]
        del graph.input[:]
        graph.input.extend(kept)
    else:
        for value in graph.input:
            if value.name in values:
                _declare(value, values[value.name].shape)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    _set_symbols(model, view, values)
    return model, values


def _refuse_outputs(view: GraphView, values: Mapping[str, Any]) -> None:
    for name in values:
        if name in view.main.outputs:
            raise OnnxlintError(f"--bind: {printable(name)!r} is an output of the model as well; fix OUT005 first")


def _read(view: GraphView, name: str, text: str) -> Any:
    """The value as it was given, in the input's element type.

    Raises:
        OnnxlintError: It cannot be read, or is of another type.
    """
    import numpy as np
    from onnx import helper

    shown = f"--bind {printable(name)}"
    dtype = helper.tensor_dtype_to_np_dtype(view.main.dtype(name)) if view.main.dtype(name) else np.dtype(np.float32)
    if text.endswith((".npy", ".npz")) or os.path.exists(text):
        arrays = read_arrays(text)
        array = next(iter(arrays.values())) if len(arrays) == 1 else arrays.get(name)
        if array is None:
            raise OnnxlintError(f"{shown}: {printable(text)} has no array {printable(name)!r}")
        if array.dtype != dtype:
            raise OnnxlintError(f"{shown}: {printable(text)} holds {array.dtype}, and the input takes {dtype}")
        return array
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_NUMBERS:
        raise OnnxlintError(f"{shown}: {counted(len(parts), 'number')}: write them to an .npy file")
    try:
        numbers = [_number(part, dtype) for part in parts]
        array = np.array(numbers).astype(dtype)
    except (ValueError, OverflowError):
        raise OnnxlintError(
            f"{shown}={printable(text[:60])}: neither numbers of type {dtype} separated by commas nor an .npy file"
        ) from None
    if dtype.kind in "iu" and [int(n) for n in array.reshape(-1)] != numbers:
        raise OnnxlintError(f"{shown}={printable(text[:60])}: a number does not fit {dtype}")
    return array


def _number(text: str, dtype: Any) -> float | int | bool:
    if dtype.kind == "b":
        if text.lower() not in ("0", "1", "true", "false"):
            raise ValueError(text)
        return text.lower() in ("1", "true")
    if len(text) > 40:
        raise ValueError(text)
    return int(text) if dtype.kind in "iu" else float(text)


def _reshaped(view: GraphView, name: str, array: Any) -> Any:
    """The value in the input's shape.

    Raises:
        OnnxlintError: It does not fit.
    """
    shape = view.main.shape(name)
    if shape is None or array.shape == shape:
        return array
    known = [dim if isinstance(dim, int) else None for dim in shape]
    fits = len(array.shape) == len(known) and all(d in (None, n) for d, n in zip(known, array.shape, strict=True))
    if fits:
        return array
    count = math.prod(dim for dim in known if dim is not None)
    free = known.count(None)
    if (
        len(array.shape) <= 1
        and (free <= 1)
        and (array.size == count if not free else count and array.size % count == 0)
    ):
        return array.reshape([-1 if dim is None else dim for dim in known])
    dims = ", ".join("?" if dim is None else str(dim) for dim in known)
    raise OnnxlintError(
        f"--bind {printable(name)}: the value has shape {list(array.shape)}, and the input takes [{dims}]"
    )


def _declare(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    tensor = value.type.tensor_type
    del tensor.shape.dim[:]
    for size in shape:
        tensor.shape.dim.add(dim_value=size)


def _set_symbols(model: onnx.ModelProto, view: GraphView, values: Mapping[str, Any]) -> None:
    """Symbols that a bound input shares with others get the number that they now have.

    Raises:
        OnnxlintError: Two values give one symbol different numbers.
    """
    numbers: dict[str, int] = {}
    for name, array in values.items():
        for dim, size in zip(view.main.shape(name) or (), array.shape, strict=False):
            if isinstance(dim, str) and numbers.setdefault(dim, size) != size:
                found = listed((str(numbers[dim]), str(size)))
                raise OnnxlintError(f"--bind: size {printable(dim)!r} would be both {found}")
    if not numbers:
        return
    for value in model.graph.input:
        for own in value.type.tensor_type.shape.dim:
            if own.dim_param in numbers:
                own.dim_value = numbers[own.dim_param]
