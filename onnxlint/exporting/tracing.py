"""Source lines of TorchScript exports: from the tracer's call stacks, in the form that dynamo keeps them in.

`torch.onnx.export(dynamo=False, verbose=True)` leaves in each node's `doc_string` where it was traced, as lines of
`path(line): function`, innermost first. They become `pkg.torch.onnx.stack_trace` in the node's metadata, outermost first,
without the frames of torch and of the program that exported, and the doc strings go.
"""

from __future__ import annotations

import itertools
import linecache
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

STACK_TRACE = "pkg.torch.onnx.stack_trace"

_FRAME = re.compile(r"^(.+)\((\d{1,9})\): (.+)$", re.MULTILINE)
_OURS = os.path.dirname(os.path.abspath(__file__))


def move_source_lines(proto: onnx.ModelProto) -> int:
    """Turn the tracer's doc strings into stack traces, in place; returns the number of nodes that have one."""
    count = 0
    for node in _nodes(proto.graph):
        trace = _trace(node.doc_string)
        node.ClearField("doc_string")
        if trace:
            node.metadata_props.add(key=STACK_TRACE, value=trace)
            count += 1
    return count


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g) if attribute.HasField("g") else ()
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _trace(text: str) -> str:
    """A call stack as dynamo writes it; empty if there is none of the user's frames."""
    frames: list[str] = []
    for path, number, function in _FRAME.findall(text):
        folder = os.path.dirname(path)
        if folder == _OURS or "/onnx/_internal/" in path.replace("\\", "/"):
            break  # from here on: who exported
        if _is_torch(path):
            continue
        code = linecache.getline(path, int(number)).strip()
        frames.append(f'File "{path}", line {number}, in {function}\n    {code}')
    return "\n".join(reversed(frames))


def _is_torch(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return any(
        folder in ("site-packages", "dist-packages") and following == "torch"
        for folder, following in itertools.pairwise(parts)
    )
