"""The table `[detection]` of the configuration: how a model's outputs become boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from onnxlint.accuracy.tasks.decoder import PRESETS, Decoder
from onnxlint.accuracy.tasks.heads import ROLES
from onnxlint.accuracy.tasks.priors import Priors
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import is_number
from onnxlint.text import choices, did_you_mean, printable

_CHOICES = {
    "layout": ("rows", "columns"),
    "box": ("offsets", "distances", "xyxy", "xywh", "cxcywh"),
    "unit": ("pixels", "relative"),
    "activation": ("softmax", "sigmoid", "none"),
}
_PRIOR_KEYS = tuple(field.name.replace("_", "-") for field in fields(Priors))
KEYS = ("preset", *ROLES, *_CHOICES, "background", "threshold", "nms", "limit", "names", *_PRIOR_KEYS)


def read_table(table: Mapping[str, Any]) -> Decoder | None:
    """The decoder that `[detection]` describes; None for an empty table.

    Raises:
        OnnxlintError: A key is unknown, or a value is not what it should be.
    """
    if not table:
        return None
    for key in table:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS, choices(KEYS))
            raise OnnxlintError(f"[detection]: unknown key {printable(key)!r}{hint}")
    preset = table.get("preset", "")
    if preset and (not isinstance(preset, str) or preset not in PRESETS):
        raise OnnxlintError(f"[detection] preset: {printable(repr(preset))} is not one of {', '.join(PRESETS)}")
    decoder = PRESETS[preset] if preset else Decoder()
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key in (*ROLES, "names"):
            changes[key] = _strings(key, value)
        elif key in _CHOICES:
            if value not in _CHOICES[key]:
                raise OnnxlintError(
                    f"[detection] {key}: {printable(repr(value))} is not one of {', '.join(_CHOICES[key])}"
                )
            changes[key] = value
        elif key == "background":
            if value != "none" and not _is_whole(value):
                raise OnnxlintError('[detection] background: should be the number of a class, or "none"')
            changes[key] = None if value == "none" else value
        elif key in ("threshold", "nms"):
            if not is_number(value) or not 0 <= value <= 1:
                raise OnnxlintError(f"[detection] {key}: should be a number from 0 to 1")
            changes[key] = float(value)
        elif key == "limit":
            if not _is_whole(value) or value < 1:
                raise OnnxlintError("[detection] limit: should be a whole number from 1")
            changes[key] = value
    decoder = replace(decoder, priors=_priors(decoder.priors, table), **changes)
    if decoder.box not in ("offsets", "distances"):
        return replace(decoder, priors=None)
    if decoder.priors is None:
        raise OnnxlintError(f'[detection] box = "{decoder.box}" needs priors: min-sizes and steps, or a preset')
    if decoder.box == "distances" and not decoder.priors.steps:
        raise OnnxlintError('[detection] box = "distances" needs steps: pixels between cells, one for each level')
    return decoder


def _priors(known: Priors | None, table: Mapping[str, Any]) -> Priors | None:
    given = {key: table[key] for key in _PRIOR_KEYS if key in table}
    if not given:
        return known
    values: dict[str, Any] = {}
    read: Callable[[Any], Any]
    for key, value in given.items():
        where = key.replace("-", "_")
        if key in ("min-sizes", "aspect-ratios"):
            good = isinstance(value, list) and all(isinstance(row, list) and _positive(row) for row in value)
            what, read = "a list of lists of positive numbers, one a level", _table
        elif key == "clip":
            good, what, read = isinstance(value, bool), "true or false", bool
        elif key == "center":
            good, what, read = is_number(value), "a number, such as 0.5", float
        elif key == "features":
            good = isinstance(value, list) and all(_is_whole(n) and n > 0 for n in value)
            what, read = "a list of whole numbers, one a level", tuple
        else:
            good = isinstance(value, list) and _positive(value) and (key != "variances" or len(value) == 2)
            what, read = "a list of positive numbers", _row
        if not good:
            raise OnnxlintError(f"[detection] {key}: should be {what}")
        values[where] = read(value)
    priors = replace(known or Priors(()), **values)
    levels = len(priors.min_sizes)
    for name in ("steps", "max_sizes", "aspect_ratios", "features"):
        count = len(getattr(priors, name))
        if count not in (0, levels) or not levels:
            raise OnnxlintError(
                f"[detection] {name.replace('_', '-')}: {count} levels, but min-sizes has {levels}; give one for each"
            )
    if not priors.steps and not priors.features:
        raise OnnxlintError("[detection] min-sizes: needs steps (pixels between cells), one for each level")
    return priors


def _row(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _table(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(_row(row) for row in rows)


def _strings(key: str, value: Any) -> tuple[str, ...]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part for part in parts):
        raise OnnxlintError(f"[detection] {key}: should be a name, or a list of names")
    return tuple(parts)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(values: Sequence[Any]) -> bool:
    return all(is_number(value) and value > 0 for value in values)
