"""Our names of ONNX's numbers are ONNX's own."""

from __future__ import annotations

import onnx

from onnxlint.model.onnx_types import AttributeKind, ElementType


def test_element_types_are_those_of_onnx() -> None:
    ours = {entry.name: entry.value for entry in ElementType}
    theirs = dict(onnx.TensorProto.DataType.items())
    assert theirs.items() <= ours.items(), "this release of onnx has a type that ElementType lacks"


def test_attribute_kinds_are_those_of_onnx() -> None:
    assert {entry.name: entry.value for entry in AttributeKind} == dict(onnx.AttributeProto.AttributeType.items())
