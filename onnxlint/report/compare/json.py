"""A comparison as one JSON document; docs/schema/compare.json describes it.

JSON has no infinity: a number that is infinite or undefined is null. Where that is an SNR, `exact` beside it tells nothing
that differs (true) from nothing that agrees (false).
"""

from __future__ import annotations

import math
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from onnxlint.accuracy.plain import VERSION, document
from onnxlint.accuracy.results import AccuracyReport
from onnxlint.report._common import dumps
from onnxlint.text import printable

_WORDS = {str: "a text", int: "a whole number", bool: "true or false"}


def render(report: AccuracyReport) -> str:
    """The report as JSON. Pictures are left out."""
    return dumps(document(report))


def parse(value: Any) -> AccuracyReport:
    """The report that JSON values as `document` makes them stand for; texts are escaped, pictures are missing.

    Raises:
        ValueError: The document is not a comparison; the message names the field.
    """
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise ValueError(f"it is not a comparison of version {VERSION}")
    report: AccuracyReport = _read(AccuracyReport, value, "report")
    for output in (output for model in (report.reference, *report.candidates) for output in model.outputs):
        bins, edges = len(output.histogram), len(output.edges)
        if bins and (edges != bins + 1 or not all(-_LARGEST < edge < _LARGEST for edge in output.edges)):
            raise ValueError(f"report.outputs: edges of {output.name} are not those of {bins} bins")
    return report


_LARGEST = 300
"""What the logarithm of an edge is below: ten to its power is a number."""


def _read(kind: Any, value: Any, where: str) -> Any:
    """JSON values → data of a type: dataclasses, tuples, `dict[str, …]`, optional values, texts and numbers."""
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ValueError(f"{where} has {len(value)} items, not {len(inner)}")
        return tuple(_read(one, item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(inner, value, strict=True)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not a table")
        return {printable(key): _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if arguments:  # `X | None`
        inner_kind = next(one for one in arguments if one is not type(None))
        return None if value is None else _read(inner_kind, value, where)
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where} is not a number")
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where} is not {_WORDS.get(kind, kind.__name__)}")
    return printable(value) if kind is str else value


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a table")
    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in value:
            found[field.name] = _read(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where}.{field.name} is missing")
    if value.get("exact") is True and "snr_db" in found:
        found["snr_db"] = math.inf
    return kind(**found)
