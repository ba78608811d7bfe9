"""Metadata of a fixed model about its outputs: joined heads and dropped activations."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY, metadata
from onnxlint.text import bounded, counted, printable

if TYPE_CHECKING:
    import onnx


ACTIVATIONS = ("LogSoftmax", "Sigmoid", "Softmax")
"""Operators that may be dropped at an output."""

MAX_TEXT = 1 << 20
"""Characters of the record."""

MAX_PARTS = 4096
"""Joined outputs, and heads of each."""

MAX_INDEX = 2**31
MAX_AXIS = 63
_CPP = frozenset(
    """alignas alignof auto bool case catch char const constexpr decltype default delete do double enum explicit export
    extern float friend goto inline int long mutable namespace new noexcept nullptr operator private protected public
    register requires short signed sizeof static struct switch template this throw typedef typeid typename union unsigned
    using virtual void volatile""".split()
)
"""Keywords of C++ that are none of Python's."""

MAX_NAME = 60
"""Characters of a variable's name."""


class HeadsError(OnnxlintError):
    """Outputs cannot be concatenated as asked: those that are named, or none that the model has."""


@dataclass(frozen=True)
class Head:
    """One part of a joined output.

    Attributes:
        name: The output that it was.
        start, stop: Its slice of the joined axis.
        activation: A dropped operator that post-processing has to apply; empty if none.
    """

    name: str
    start: int
    stop: int
    activation: str = ""


@dataclass(frozen=True)
class Joined:
    """An output that heads were joined into.

    Attributes:
        output: Its name.
        axis: The axis that they were joined along, non-negative.
        heads: Its parts, in order.
    """

    output: str
    axis: int
    heads: tuple[Head, ...]


def read_heads(proto: onnx.ModelProto) -> list[Joined]:
    """The joined outputs recorded in a fixed model's metadata.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    properties = metadata(proto)
    text = properties.get(HEADS_KEY)
    if text is None:
        return []
    dropped = read_dropped(properties)
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        return [_joined(entry, dropped) for entry in _list(json.loads(text))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = printable(str(error))[:100] or type(error).__name__
        raise OnnxlintError(
            f"the model's metadata {HEADS_KEY} is damaged ({reason}); join the heads of the original again"
        ) from None


def read_dropped(properties: Mapping[str, str]) -> dict[str, tuple[str, int | None]]:
    """The dropped activations recorded in a fixed model's metadata: output or head → (operator, axis if recorded).

    Args:
        properties: Key → value of the metadata.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    text = properties.get(DROPPED_KEY)
    if text is None:
        return {}
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("not an object")
        found: dict[str, tuple[str, int | None]] = {}
        for name, entry in record.items():
            op, axis = (entry.get("op"), entry.get("axis")) if isinstance(entry, dict) else (None, None)
            if op not in ACTIVATIONS:
                raise ValueError(f"no activation for {printable(name)!r}")
            if axis is not None and (type(axis) is not int or not -MAX_AXIS <= axis <= MAX_AXIS):
                raise ValueError(f"no axis for {printable(name)!r}")
            found[name] = (str(op), axis)
    except (ValueError, RecursionError) as error:
        raise OnnxlintError(
            f"the model's metadata {DROPPED_KEY} is damaged ({bounded(str(error))}); fix the original again"
        ) from None
    return found


def _joined(entry: Any, dropped: Mapping[str, tuple[str, int | None]]) -> Joined:
    """One entry of the record, which is untrusted.

    Raises:
        KeyError, ValueError: It is not as `to_json` writes it.
    """
    if not isinstance(entry, dict):
        raise ValueError("an entry is not an object")
    heads: list[Head] = []
    for part in _list(entry["heads"]):
        name, start, stop = _text(part["name"]), _number(part["start"]), _number(part["stop"])
        if start != (heads[-1].stop if heads else 0) or stop <= start:
            raise ValueError(f"slices {start} to {stop} do not follow one another")
        heads.append(Head(name, start, stop, dropped.get(name, ("", None))[0]))
    if not heads:
        raise ValueError("an output without heads")
    axis = _number(entry["axis"])
    if axis > MAX_AXIS:
        raise ValueError(f"axis {axis}")
    return Joined(_text(entry["output"]), axis, tuple(heads))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise ValueError("a list is missing or too long")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name is missing")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_INDEX:
        raise ValueError("a number is missing or out of range")
    return value


def to_json(joined: Sequence[Joined]) -> str:
    """The value of `HEADS_KEY`."""
    return json.dumps(
        [
            {
                "output": one.output,
                "axis": one.axis,
                "heads": [{"name": h.name, "start": h.start, "stop": h.stop} for h in one.heads],
            }
            for one in joined
        ]
    )


def describe_heads(joined: Joined, rank: int) -> str:
    """The slices of a joined output, and NumPy and C++ that take it apart. Names in them are literals or identifiers."""
    lines = [f"{printable(joined.output)}: {counted(len(joined.heads), 'head')} along axis {joined.axis}"]
    for head in joined.heads:
        after = f"  (apply {head.activation})" if head.activation else ""
        lines.append(f"  {head.start:>5} to {head.stop - 1:<5} {printable(head.name)}{after}")
    names = _identifiers([head.name for head in joined.heads])
    cuts = ", ".join(str(head.stop) for head in joined.heads[:-1])
    lines += [
        "",
        "NumPy:",
        f"  output = session.run([{joined.output!a}], feeds)[0]",
        f"  {', '.join(names)}{',' * (len(names) == 1)} = np.split(output, [{cuts}], axis={joined.axis})",
    ]
    if joined.axis == rank - 1:
        total = joined.heads[-1].stop
        lines += ["", "C++ (row-major floats, one candidate after another):"]
        lines.append(f"  const float* candidate = output + i * {total};")
        lines += [
            f"  const float* {name} = candidate + {head.start};  // {counted(head.stop - head.start, 'value')}"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    else:
        lines += ["", f"C++ (row-major floats; `inner` values for each index of axis {joined.axis}):"]
        lines += [
            f"  const float* {name} = output + {head.start} * inner;  // {head.stop - head.start:,} × inner values"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names of variables, in Python and C++, each once."""
    found: list[str] = []
    for name in names:
        text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:MAX_NAME]
        base = (
            text if text and not text[0].isdigit() and not (keyword.iskeyword(text) or text in _CPP) else f"head_{text}"
        )
        unique, i = base, 1
        while unique in found or unique in ("output", "candidate", "session", "feeds", "np", "inner"):
            i += 1
            unique = f"{base}_{i}"
        found.append(unique)
    return found
