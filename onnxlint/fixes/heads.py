"""What a fixed model's metadata says about its outputs: heads that were joined, activations that were dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY, metadata
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx


class HeadsError(OnnxlintError):
    """Outputs cannot be concatenated as asked: those that are named, or none that the model has."""


@dataclass(frozen=True)
class Head:
    """One part of a joined output.

    Attributes:
        name: The output that it was.
        start, stop: Its slice of the joined axis.
        activation: An operator that was dropped and that post-processing has to apply; empty where there is none.
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
    """What a fixed model's metadata says about its joined outputs.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    properties = metadata(proto)
    try:
        dropped = json.loads(properties.get(DROPPED_KEY, "{}"))
        return [
            Joined(
                str(entry["output"]),
                int(entry["axis"]),
                tuple(
                    Head(str(h["name"]), int(h["start"]), int(h["stop"]), dropped.get(h["name"], {}).get("op", ""))
                    for h in entry["heads"]
                ),
            )
            for entry in json.loads(properties.get(HEADS_KEY, "[]"))
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OnnxlintError(
            f"the model's metadata {HEADS_KEY!r} is damaged ({error}); fix the original again"
        ) from None


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
    """What is where in a joined output, and how to take it apart in NumPy and in C++."""
    lines = [f"{printable(joined.output)}: {len(joined.heads)} heads along axis {joined.axis}"]
    for head in joined.heads:
        after = f"  (apply {head.activation})" if head.activation else ""
        lines.append(f"  {head.start:>5} to {head.stop - 1:<5} {printable(head.name)}{after}")
    names = [_identifier(head.name) for head in joined.heads]
    cuts = ", ".join(str(head.stop) for head in joined.heads[:-1])
    lines += [
        "",
        "NumPy:",
        f'  output = session.run(["{printable(joined.output)}"], feeds)[0]',
        f"  {', '.join(names)} = np.split(output, [{cuts}], axis={joined.axis})",
    ]
    total = joined.heads[-1].stop
    if joined.axis == rank - 1:
        lines += ["", "C++ (row-major floats, one candidate after another):"]
        lines.append(f"  const float* candidate = output + i * {total};")
        lines += [
            f"  const float* {name} = candidate + {head.start};  // {head.stop - head.start} values"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    else:
        lines += ["", f"C++ (row-major floats; `inner` values for each index of axis {joined.axis}):"]
        lines += [
            f"  const float* {name} = output + {head.start} * inner;  // {head.stop - head.start} × inner values"
            for name, head in zip(names, joined.heads, strict=True)
        ]
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return text if text and not text[0].isdigit() else f"head_{text}"
