"""Names of dimensions: which of them name a size, and which only say that it is unknown."""

from __future__ import annotations

import re
from functools import lru_cache

_PLACEHOLDER = re.compile(
    r"""-?\d+                     # a number as a name: -1, 0
    | [?*_\-.]+\w*               # ?, *, _, and ?3
    | unk_.*                     # tf2onnx, onnx and onnxruntime: unk__12
    | (?:p2o\.)?DynamicDimension # Paddle2ONNX
    | FreeDimension              # CNTK
    | (?:none|null|nil|nan|unk|unkn|unknown|undef|undefined|unspecified|any|auto|dyn|dynamic|variable|free)
      (?:_?(?:dim|dims|dimension|shape|size|axis|axes))?
    """,
    re.IGNORECASE | re.VERBOSE,
)

_NUMBERED = re.compile(r"[\s_.:#-]*\d*$")

MAX_NAME = 1000
"""Longer names are not looked at: they are taken for names of sizes as they stand."""


@lru_cache(maxsize=1024)
def is_placeholder(name: str) -> bool:
    """Whether the name of a dimension only says that its size is unknown.

    Exporters write `-1`, `None`, `?`, `unk__12` or nothing for every size that they do not know: two axes that bear such a
    name need not have one size. Names of the form that our own inference makes (`min(h,512)`, `x[2]`) are none either: they
    would be taken for its own.
    """
    text = name.strip()
    if not text or text.startswith("min(") or text.endswith("]"):
        return True
    if len(text) > MAX_NAME:
        return False
    return bool(_PLACEHOLDER.fullmatch(text) or _PLACEHOLDER.fullmatch(_NUMBERED.sub("", text, count=1)))


def axis_symbol(name: str, value: str, axis: int) -> str:
    """The symbol of an input's axis: the name in the file, or `value[axis]` where that names no size.

    Args:
        name: `dim_param` in the file; empty if the size has no name.
        value: Name of the input.
        axis: The axis, from 0.
    """
    return f"{value}[{axis}]" if is_placeholder(name) else name
