"""Names of dimensions: which of them name a size, and which only say that it is unknown."""

from __future__ import annotations

import math
import re
from functools import lru_cache

_PLACEHOLDER = re.compile(
    r"""[?*_\-.]+\w*              # ?3, *, _
    | unk_.*                     # tf2onnx, onnx and onnxruntime: unk__12
    | (?:p2o\.)?DynamicDimension # Paddle2ONNX
    | FreeDimension              # CNTK
    | n\W*a                      # N/A, n.a.
    | (?:none|nonetype|null|nil|nan|inf|void|empty|missing|unset|unk|unkn|unknown|undef|undefined|undetermined|unspecified
        |any|arbitrary|auto|dyn|dynamic|var|variable|free|flexible|placeholder|tbd|todo)
      (?:_?(?:dim|dims|dimension|shape|size|axis|axes))?
    """,
    re.IGNORECASE | re.VERBOSE,
)

_NUMBERED = re.compile(r"[\s_.:#-]*\d*$")
_OPERATOR = re.compile(r"[+*/%()]|\s-\s")
_WORD = re.compile(r"[^\W\d][\w.]*")
_QUOTIENT = re.compile(r"/\s*[^\W\d]|/\s*\(")
_NOTHING = re.compile(r"(?<![\w.])0+\s*\*(?!\*)|(?<!\*)\*\s*0+(?![\w.])")
_AROUND = "<>[](){}\"'`|"

MAX_NAME = 1000
"""Longer names are not looked at: they are taken for names of sizes as they stand."""


@lru_cache(maxsize=1024)
def is_placeholder(name: str) -> bool:
    """Whether the name of a dimension only says that its size is unknown.

    Exporters write `-1`, `None`, `?`, `N/A`, `unk__12` or nothing for every size that they do not know: two axes that bear
    such a name need not have one size. The same goes for expressions of such names (`None + 1`), and for what looks like an
    expression and is none (`a/b`, `h + 0*w`). Names of the form that our own inference makes (`min(h,512)`, `x[2]`) are
    none either: they would be taken for its own.
    """
    text = name.strip()
    if not text or text.startswith("min(") or text.endswith("]") or "?" in text:
        return True
    if len(text) > MAX_NAME:
        return False
    text = text.strip(_AROUND) if text[0] in _AROUND else text
    words = _WORD.findall(text)
    if not words or _is_unknown(text.strip()):
        return True
    if not _OPERATOR.search(text):
        return False
    return any(map(_is_unknown, words)) or bool(_QUOTIENT.search(text) or _NOTHING.search(text))


def _is_unknown(word: str) -> bool:
    return bool(_PLACEHOLDER.fullmatch(word) or _PLACEHOLDER.fullmatch(_NUMBERED.sub("", word, count=1)))


def axis_symbol(name: str, value: str, axis: int) -> str:
    """The symbol of an input's axis: the name in the file, or `value[axis]` where that names no size.

    Args:
        name: `dim_param` in the file; empty if the size has no name.
        value: Name of the input.
        axis: The axis, from 0.
    """
    return f"{value}[{axis}]" if is_placeholder(name) else name


def as_multiple(name: str) -> tuple[str, int]:
    """(symbol, factor) where a dimension's name is a number times a symbol (`8*h`, `h * 8`); else the name itself and 1."""
    if len(name) <= MAX_NAME and "*" in name:
        parts = [part.strip() for part in name.split("*")]
        numbers = [int(part) for part in parts if _FACTOR.fullmatch(part)]
        words = [part for part in parts if _WORD.fullmatch(part)]
        if len(words) == 1 and len(numbers) == len(parts) - 1 and 0 < (factor := math.prod(numbers)) < _MAX_FACTOR:
            return words[0], factor
    return name, 1


def words_in(name: str) -> list[str]:
    """Symbols that the name of a dimension may hold: `h` and `w` in `(h + 1)//2*w`."""
    return _WORD.findall(name[:MAX_NAME])


_FACTOR = re.compile(r"[0-9]{1,9}")
_MAX_FACTOR = 2**31
"""Of a size: none is larger."""
