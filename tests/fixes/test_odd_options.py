"""The small models of test_odd_models with inputs that are bound, fixed or renamed, beside the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.model.skeleton import Model
from tests.fixes.test_odd_models import REFUSED, TEXTS, assert_same, feeds, free, trials
from tests.support import zoo
from tests.support.fixing import fix

SIZES = (2, 3, 1)


def chosen(proto: onnx.ModelProto, size: int) -> dict[str, int]:
    return {symbol: SIZES[(i + size) % len(SIZES)] for i, symbol in enumerate(free(proto))}


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    shape = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in shape]


def data_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in constants]


def requests(proto: onnx.ModelProto, folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, int], dict[str, Any]]]:
    """What is asked for, the sizes that it fixes, and the values that it binds."""
    for k in (0, 1):
        sizes = chosen(proto, k)
        shapes, fixed = [], {}
        for value in data_inputs(proto):
            names = [dim for dim in dims(value) if isinstance(dim, str)]
            if not names or any(name not in sizes for name in names):
                continue
            fixed.update({name: sizes[name] for name in names[k % 2 :]})
            shown = (
                "?" if isinstance(dim, str) and dim not in fixed else str(fixed.get(str(dim), dim))
                for dim in dims(value)
            )
            shapes.append(f"{value.name}={','.join(shown)}")
        if fixed and "0" not in str(shapes):
            yield {"static": tuple(shapes)}, fixed, {}
        for value in data_inputs(proto):
            if any(isinstance(dim, str) and dim not in sizes for dim in dims(value)):
                continue
            array = feeds(proto, sizes, k)[value.name]
            np.save(folder / "bound.npy", array)
            now = {dim: sizes[dim] for dim in dims(value) if isinstance(dim, str)}
            yield {"bind": ((value.name, str(folder / "bound.npy")),)}, now, {value.name: array}
    ends = [value.name for value in (*data_inputs(proto), *proto.graph.output)]
    turned = tuple((old, new) for old, new in zip(ends, [*ends[1:], ends[0]], strict=True) if old != new)
    if turned:
        yield {"rename": turned}, {}, {}


# onnxruntime takes the size of an Einsum of a constant with 1 row and of one with M for 1, and an If then fails.
NAMES = [name for name in TEXTS if name != "einsum_one"]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_asked_for_computes_the_same(name: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(TEXTS[name])
    original = zoo.session(proto)
    for wanted, fixed, bound in requests(proto, tmp_path):
        try:
            result, report = fix(Model("m.onnx", proto, 0), **wanted)
        except OnnxlintError:
            continue  # the model does not accept these sizes
        assert not any("failed" in left.why for left in report.left)
        names = dict(wanted.get("rename", ()))
        runner: Any = None
        is_rounded = any(one.is_rounded for one in report.applied)
        for sizes in trials(proto, report):
            inputs = feeds(proto, {**sizes, **fixed}, 1) | bound
            try:
                before = original.run(None, inputs)
            except REFUSED:
                continue
            runner = runner or zoo.session(result)
            after = runner.run(None, {names.get(key, key): x for key, x in inputs.items() if key not in bound})
            for a, b in zip(before, after, strict=True):
                assert_same(a, b, is_rounded)
