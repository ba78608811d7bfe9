"""ONNX models become IRs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection
from typing import Any

from onnxlint.backends import NotConvertible
from onnxlint.backends.openvino.graph import constant_operators
from onnxlint.backends.openvino.runtime import first_line, runtime
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import budget, lacks_memory, loading
from onnxlint.text import printable

LINT_TARGET = "openvino"
"""What `check --target` calls it."""


_LONGER = re.compile(r"(.+)_\d+")


def converted(source: str) -> Any:
    """An ONNX model as an `openvino.Model`, with the names of its values.

    Raises:
        NotConvertible: OpenVINO cannot convert it.
    """
    ov = runtime()
    try:
        with loading():
            return ov.convert_model(source)
    except Exception as error:  # the classes that OpenVINO raises share none
        most = budget()
        if most is not None and lacks_memory(error):
            raise OnnxlintError(f"{printable(source)}: {most.memory_overrun()}") from error
        raise NotConvertible(
            f"{printable(source)}: OpenVINO cannot convert it: {first_line(error)}", LINT_TARGET
        ) from error


def names_of(source: str) -> frozenset[str]:
    """All names of nodes and values in an ONNX model."""
    from onnxlint.model.skeleton import open_model

    graph = open_model(source).proto.graph
    found = {node.name for node in graph.node} | {name for node in graph.node for name in node.output}
    return frozenset(found | {value.name for value in graph.input} | {one.name for one in graph.initializer})


def _name_again(model: Any, known: Collection[str]) -> None:
    """Replace names that OpenVINO has numbered: its counter runs on from one model to the next, so that the same model
    would not have the same bytes.

    Args:
        model: It is changed.
        known: Names of the ONNX model, which stay; also as the beginning of a longer name (`conv/WithoutBiases`).
    """
    counts: dict[str, int] = {}
    constants = constant_operators(model)
    for op in model.get_ordered_ops():
        kind, name = str(op.get_type_name()), str(op.get_friendly_name())
        if kind in ("Parameter", "Result") or any(output.get_names() for output in op.outputs()):
            is_stable = name != op.get_name()
        else:
            is_stable = op.get_name() not in constants and name != op.get_name() and _is_known(name, known)
        longer = _LONGER.fullmatch(name)
        if is_stable and name not in known and longer is not None and longer[1] in known:
            op.set_friendly_name(longer[1])  # it equalled a numbered name
        elif not is_stable:
            counts[kind] = counts.get(kind, 0) + 1
            op.set_friendly_name(f"{kind}#{counts[kind]}")


def _is_known(name: str, known: Collection[str]) -> bool:
    return name in known or any(name[: match.start()] in known for match in re.finditer(r"[/.]", name))


def save(model: Any, files: tuple[str, ...], known: Collection[str], *, half: bool, source: str) -> None:
    """Write `.xml` and `.bin`: the same bytes for the same model.

    Args:
        model: The model; its names are changed.
        files: The `.xml`, and the `.bin` beside it.
        known: Names of the ONNX model.
        half: Whether weights are stored in float16.
        source: The ONNX model, for errors.

    Raises:
        OnnxlintError: They cannot be written.
    """
    ov = runtime()
    try:
        _name_again(model, known)
        if half:  # here, and not by save_model, because what is added for that has to be named, too
            importlib.import_module("openvino._offline_transformations").compress_model_transformation(model)
            _name_again(model, known)
        ov.save_model(model, files[0], compress_to_fp16=False)
    except Exception as error:  # as above
        raise OnnxlintError(f"{printable(source)}: OpenVINO cannot write the IR: {first_line(error)}") from error
