"""Small models of all kinds, each fixed in several ways, and run beside the original at many sizes, 0 and 1 among them.

tests/support/odd_models.txt holds them as text: sizes that are no names, sizes that are frozen, values that may be empty,
conditions, nodes without names, control flow, sequences, integer and quantized types, old operator sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import multiples_in
from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.results import FixReport
from onnxlint.lint.engine import Plan
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.expressions import parse_size
from onnxlint.symbolic.sizes import Size, substitute, symbols
from tests.support import zoo
from tests.support.fixing import DEFAULT
from tests.support.old_versions import have

ort = pytest.importorskip("onnxruntime")
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException  # noqa: E402

REFUSED = (Fail, InvalidArgument, RuntimeException)
TEXTS = dict(
    block.split("\n", 1)
    for block in (Path(__file__).parents[1] / "support" / "odd_models.txt").read_text("utf-8").split("--- ")[1:]
)
REQUESTS: dict[str, dict[str, Any]] = {
    "default": {},
    "empty": {"allow_empty": True},
    "multiples": {"multiples": 6},
    "opset 21": {"opset": 21},
    "opset 13": {"opset": 13},
}
DTYPES = {1: np.float32, 2: np.uint8, 7: np.int64, 9: np.bool_}


def free(proto: onnx.ModelProto) -> list[str]:
    """Symbols of a model's inputs."""
    found: dict[str, None] = {}
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and value.name not in constants:
                found |= dict.fromkeys(sorted(symbols(_symbol(value, axis))))
    return list(found)


def _symbol(value: onnx.ValueInfoProto, axis: int) -> Size:
    name = zoo.symbol(value, axis)
    parsed = parse_size(name)
    return parsed if isinstance(parsed, Size) else Size.symbol(name)


def feeds(proto: onnx.ModelProto, sizes: Mapping[str, int], kind: int) -> dict[str, Any]:
    """Inputs of these sizes; of the second kind with a negative zero, a NaN and an infinity."""
    generator, found = np.random.default_rng(kind), {}
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else cast(int, substitute(_symbol(value, axis), dict(sizes)))
            for axis, dim in enumerate(tensor.shape.dim)
        ]
        dtype = DTYPES[tensor.elem_type]
        if dtype is np.bool_:
            array = generator.integers(0, 2, shape).astype(dtype)
        elif dtype is np.float32:
            array = (3 * generator.standard_normal(shape)).astype(dtype)
            if kind and array.size > 2:
                array.reshape(-1)[[0, 1, -1]] = (-0.0, np.nan, np.inf)
        else:
            array = generator.integers(0 if dtype is np.uint8 else -5, 9, shape).astype(dtype)
        found[value.name] = np.asarray(array)
    return found


def trials(proto: onnx.ModelProto, report: FixReport) -> Iterator[dict[str, int]]:
    """Sizes that the fix holds for."""
    names, multiples = free(proto), multiples_in(report.conditions)
    # onnxruntime ends the process for a recurrent operator without steps, up to 1.30 for a TopK of nothing, and up to 1.24
    # for an Einsum of nothing.
    ending = ("GRU", "LSTM", "TopK", *(("Einsum",) if have("onnxruntime") < (1, 26) else ()))
    has_zero = not report.has_minimum and not any(node.op_type in ending for node in proto.graph.node)
    some = (1, 2, 3, 6) if len(names) < 3 else (1, 2, 6) if len(names) == 3 else (1, 3)
    for chosen in itertools.product((*(0,) * has_zero, *some), repeat=len(names)):
        sizes = dict(zip(names, chosen, strict=True))
        if all(sizes.get(name, 0) % number == 0 for name, number in multiples.items()):
            yield sizes


def assert_same(before: Any, after: Any, is_rounded: bool) -> None:
    if is_rounded:
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
        return
    np.testing.assert_array_equal(after, before)
    if before.dtype.kind == "f":
        numbers = ~np.isnan(before)
        assert np.array_equal(np.signbit(before[numbers]), np.signbit(after[numbers]))


@pytest.mark.parametrize("name", TEXTS)
def test_a_fixed_model_computes_the_same(name: str) -> None:
    proto = onnx.parser.parse_model(TEXTS[name])
    original = zoo.session(proto)
    compared = set()
    for request in REQUESTS.values():
        wanted, opset = dict(request), request.get("opset")
        if "multiples" in wanted:
            wanted["multiples"] = tuple((symbol, wanted["multiples"]) for symbol in free(proto) if symbol not in "Nn")
        try:
            fixed, report = fix_model(
                Model("m.onnx", proto, 0), Plan(DEFAULT, Options(min_opset=opset or 11)), Request(**wanted)
            )
        except OnnxlintError as error:
            if opset is None or "cannot be lowered to opset 13" not in str(error):  # an operator that has no older form
                raise
            continue
        assert not any("failed" in left.why or "settled" in left.why for left in report.left)
        key = fixed.graph.SerializeToString() + str((report.conditions, report.has_minimum)).encode()
        if fixed is proto or key in compared:
            continue
        compared.add(key)
        result = zoo.session(fixed)
        is_rounded = any(one.is_rounded for one in report.applied) or opset is not None
        for sizes in trials(proto, report):
            for kind in (0, 1):
                inputs = feeds(proto, sizes, kind)
                try:
                    wanted_outputs = original.run(None, inputs)
                except REFUSED:
                    continue
                for before, after in zip(wanted_outputs, result.run(None, inputs), strict=True):
                    assert_same(before, after, is_rounded)
