"""The few nodes around a place in a graph, as plain data that reports draw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """One thing in a picture.

    Attributes:
        kind: `node`, or `input`, `output` or `constant` for values.
        title: Operator, or name of the value.
        name: Node name; empty for nameless nodes and for values.
    """

    kind: str
    title: str
    name: str = ""


@dataclass(frozen=True)
class Neighbourhood:
    """What is around a finding; names are not yet escaped.

    Attributes:
        boxes: In the order of the graph: inputs, nodes, outputs.
        edges: (from, to, label): indices into `boxes`; the label is the value's shape, or else its name.
        center: Index of the box that the finding is about; -1 where a fix did away with it.
        changed: Indices of the nodes that a fix takes away or changes (in the picture before it), or brings or has
            changed (in the picture after it).
    """

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int, str], ...]
    center: int
    changed: tuple[int, ...] = ()
