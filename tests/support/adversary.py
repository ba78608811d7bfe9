"""Small models that a careless fix breaks: odd symbols, frozen sizes, empty tensors, control flow, quantization, old opsets.

adversary.json has one a line: `text` in ONNX's syntax (`model` where it is a whole file), `constants` (random floats of a
shape, or values), and `dims` for names of sizes that the syntax cannot write.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import helper, numpy_helper, shape_inference

from onnxlint.model.assumptions import assumptions
from onnxlint.model.dim_names import axis_symbol
from onnxlint.symbolic.expressions import parse_size
from onnxlint.symbolic.sizes import substitute, symbols

Array = npt.NDArray[Any]

RECORDS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

SIZES = (1, 2, 3, 4, 6, 12)
"""What free sizes become."""

MOST = 24
"""Runs of a pair of models: combinations of `SIZES`, drawn beside those of one size."""


def build(name: str) -> onnx.ModelProto:
    """One of the models; outputs have types and no shapes."""
    record = RECORDS[name]
    if "model" in record:
        return onnx.parser.parse_model(record["model"])
    header = f'<ir_version: {record.get("ir", 8)}, opset_import: ["": {record.get("opset", 17)}]>'
    model = onnx.parser.parse_model(f"{header} {record['text']}")
    for key, constant in record.get("constants", {}).items():
        generator = np.random.default_rng(zlib.crc32(f"{name} {key}".encode()))
        value = (
            generator.standard_normal(constant["random"]).astype(np.float32)
            if "random" in constant
            else np.array(constant["values"], constant["type"])
        )
        if key == "v" and "random" in constant:  # a variance
            value = np.abs(value)
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    for index, axis, text in record.get("dims", ()):
        dim = model.graph.input[index].type.tensor_type.shape.dim[axis]
        dim.Clear()
        dim.dim_param = text
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        if not output.type.HasField("tensor_type") or not output.type.tensor_type.elem_type:
            output.type.CopyFrom(known.type)
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return model


def data_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def all_feeds(model: onnx.ModelProto) -> Iterator[dict[str, Array]]:
    """Seeded inputs of different sizes: at most `MOST`."""
    inputs = data_inputs(model)
    names: dict[str, None] = {}
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                symbol = axis_symbol(dim.dim_param, value.name, axis)
                expression = parse_size(symbol)
                names.update(dict.fromkeys({symbol} if expression is None else symbols(expression)))
    combinations = list(itertools.product(SIZES, repeat=len(names)))
    drawn = [(size,) * len(names) for size in SIZES]
    drawn += random.Random(0).sample(combinations, min(MOST, len(combinations)))
    for seed, sizes in enumerate(dict.fromkeys(drawn)):
        bound = dict(zip(names, sizes, strict=True))
        yield {value.name: _feed(value, bound, seed) for value in inputs}


def _feed(value: onnx.ValueInfoProto, bound: Mapping[str, int], seed: int) -> Array:
    shape = []
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            shape.append(dim.dim_value)
            continue
        symbol = axis_symbol(dim.dim_param, value.name, axis)
        expression = parse_size(symbol)
        shape.append(bound[symbol] if expression is None else cast(int, substitute(expression, bound)))
    generator = np.random.default_rng((seed, zlib.crc32(value.name.encode())))
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if dtype.kind == "f":
        made = np.asarray(3 * generator.standard_normal(shape), dtype)
        if made.size and seed % 3 == 1:
            made.reshape(-1)[[0, -1]] = -0.0, np.inf
        return made
    return np.asarray(generator.integers(0, 2 if dtype.kind == "b" else 9, shape), dtype)


def is_assumed(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether the conditions in a fixed model's metadata hold for inputs."""
    return all(
        one.input not in feeds or feeds[one.input].shape[one.axis] % one.multiple == 0 for one in assumptions(model)
    )
