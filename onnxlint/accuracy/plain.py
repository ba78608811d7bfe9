"""Results of a comparison as JSON values; docs/schema/compare.json describes them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

VERSION = 1
"""Of the document's form; it changes when a program that reads the document could break."""


def document(report: Any) -> dict[str, Any]:
    """An `AccuracyReport` as JSON values.

    JSON has no infinity: a number that is infinite or undefined is None. Where that is an SNR, `exact` beside it tells
    nothing that differs (true) from nothing that agrees (false).
    """
    return {"version": VERSION, **_plain(report)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        found: dict[str, Any] = {}
        for field in fields(value):
            if field.name == "pixels":
                continue
            found[field.name] = _plain(getattr(value, field.name))
            if field.name == "snr_db":
                found["exact"] = getattr(value, field.name) == math.inf
                if hasattr(value, "worst_snr_db"):
                    found["worst_snr_db"] = _plain(value.worst_snr_db)
        return found
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
