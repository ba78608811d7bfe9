"""The target tables: that they are what the rules take them for."""

from __future__ import annotations

from collections import Counter

import pytest
from onnx import defs

from onnxlint.errors import OnnxlintError
from onnxlint.lint.targets import Limit, Target, load, names

SCHEMAS: dict[str, list[defs.OpSchema]] = {}
for schema in defs.get_all_schemas_with_history():
    if schema.domain == "":
        SCHEMAS.setdefault(schema.name, []).append(schema)

BEFORE_ONNX = {
    "ATen",
    "Affine",
    "ConstantFill",
    "Crop",
    "DynamicSlice",
    "ImageScaler",
    "IsFinite",
    "ParametricSoftplus",
    "ScaledTanh",
}
"""Operators that some targets read though ONNX never had them, or only as experiments."""


@pytest.fixture(params=names())
def target(request: pytest.FixtureRequest) -> Target:
    return load(request.param)


def test_a_table_says_what_it_describes_and_where_it_is_from(target: Target) -> None:
    assert target.title
    assert target.version
    assert target.read
    assert target.missing
    assert any(source.startswith("https://") for source in target.sources)
    assert target.dynamic in ("yes", "partial", "no")
    assert (target.dynamic == "yes") == (not target.dynamic_note)
    assert target.int64 in ("yes", "clamps", "wraps")
    assert (target.int64 == "yes") == (not target.int64_note)


def test_operators_exist(target: Target) -> None:
    unknown = {op for op in target.ops if "::" not in op and op not in SCHEMAS} - BEFORE_ONNX

    assert not unknown
    assert {"Relu", "Conv", "Add"} <= target.ops.keys()


def test_limits_are_about_what_the_operator_has(target: Target) -> None:
    for op, entry in target.ops.items():
        for limit in entry.limits:
            conditions = [
                bool(limit.attribute),
                limit.values is not None,
                limit.constant is not None,
                limit.scalar is not None,
                limit.no_input is not None,
                limit.no_output is not None,
                bool(limit.ranks),
                bool(limit.types),
            ]
            assert sum(conditions) <= 1, (op, limit)
            assert limit.text
            limited = bool(limit.attribute) or limit.values is not None
            assert bool(limit.allowed) + bool(limit.counts) == limited, (op, limit)
            schemas = SCHEMAS.get(op)
            if schemas is None:
                continue
            if limit.attribute:
                assert any(limit.attribute in schema.attributes for schema in schemas), (op, limit)
            assert _last_input(limit) < max(schema.max_input for schema in schemas), (op, limit)
            assert (limit.no_output or 0) < max(schema.max_output for schema in schemas), (op, limit)


def _last_input(limit: Limit) -> int:
    used = (limit.values, limit.constant, limit.scalar, limit.no_input, limit.type_of if limit.types else None)
    return max(-1 if i is None else i for i in used)


def test_names_and_aliases_are_unique() -> None:
    counts = Counter([*names(), *(alias for name in names() for alias in load(name).aliases)])

    assert max(counts.values()) == 1


def test_aliases_and_case_do_not_matter() -> None:
    assert load("TRT") is load("tensorrt")
    assert load("pnnx").name == "ncnn"


def test_an_unknown_target_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(OnnxlintError, match=r"no target is called 'tensort'; did you mean 'tensorrt'\?"):
        load("tensort")
    with pytest.raises(OnnxlintError) as error:
        load("\x1b[2J")
    assert "\x1b" not in str(error.value)
