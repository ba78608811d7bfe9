"""The nodes around a place in a graph, drawn as SVG: layers from top to bottom, edges that bend around boxes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.report._common import shown
from onnxlint.report.page import text
from onnxlint.text import printable, shortened

_WIDTH, _HEIGHT = 168, 40
"""Of a box, in pixels."""

_THIN, _BESIDE, _BELOW = 26, 14, 44
"""Room of an edge that passes a row of boxes, between boxes, and between rows."""

_MARGIN = 8
_COLUMNS = 23
"""Characters that fit into a box; of bold ones, three less."""


@dataclass
class _Spot:
    """A place in a row: of a box or, without one, of an edge that passes. `x` is its middle."""

    row: int
    box: int | None = None
    x: float = 0.0

    @property
    def wide(self) -> int:
        return _THIN if self.box is None else _WIDTH


def figure(around: Neighbourhood, caption: str, change: str = "") -> str:
    """A `<figure>` with the drawing.

    Args:
        around: What to draw.
        caption: HTML below it; empty for none.
        change: CSS class of the boxes that changed (`gone`, `came`).
    """
    rows, paths = _placed(around)
    wide = max(sum(spot.wide + _BESIDE for spot in row) for row in rows) - _BESIDE + 2 * _MARGIN
    high = len(rows) * (_HEIGHT + _BELOW) - _BELOW + 2 * _MARGIN
    parts = []
    labels: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for path, (source, _, label) in zip(paths, around.edges, strict=True):
        points = [(spot.x, _top(spot.row) + (0 if i else _HEIGHT)) for i, spot in enumerate(path)]
        line = [f"M{points[0][0]:.0f},{points[0][1]:.0f}"]
        for (x0, y0), (x1, y1) in pairwise(points):
            middle = (y0 + y1) / 2
            line.append(f"C{x0:.0f},{middle:.0f} {x1:.0f},{middle:.0f} {x1:.0f},{y1:.0f}")
            if (x1, y1) != points[-1]:
                line.append(f"V{y1 + _HEIGHT:.0f}")
        across, down = points[-1]
        # A marker would be shared, and gone as soon as the first picture is hidden.
        parts.append(
            f'<path d="{"".join(line)}"><title>{_safe(label)}</title></path>'
            f'<path class="tip" d="M{across - 4:.0f},{down - 8:.0f}h8l-4,8z"/>'
        )
        labels.setdefault((source, label), []).append(((points[0][0] + points[1][0]) / 2, points[0][1] + 26))
    several = Counter(source for source, _ in labels)
    for (source, label), places in labels.items():
        # One value is named once, below what makes it, where no other name can be.
        x, y = places[0] if several[source] > 1 else (paths[_first(around, source)][0].x, places[0][1] - 8)
        parts.append(
            f'<text class="edge" x="{x:.0f}" y="{y:.0f}">{text(_cut(label, _COLUMNS))}<title>{_safe(label)}</title></text>'
        )
    for row in rows:
        for spot in row:
            if spot.box is not None:
                classes = [around.boxes[spot.box].kind]
                classes += ["center"] * (spot.box == around.center) + [change] * (spot.box in around.changed)
                parts.append(_box(around.boxes[spot.box], spot, " ".join(classes)))
    said = "; ".join(
        f"{around.boxes[a].title} {around.boxes[a].name} → {around.boxes[b].title} {around.boxes[b].name}"
        for a, b, _ in around.edges
    )
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure><div class="scroll" tabindex="0"><svg width="{wide:.0f}" height="{high}" '
        f'viewBox="0 0 {wide:.0f} {high}" role="img" aria-label="{_safe(said)}">'
        f"{''.join(parts)}</svg></div>{below}</figure>"
    )


def _first(around: Neighbourhood, source: int) -> int:
    """Index of the first edge that leaves a box."""
    return next(i for i, edge in enumerate(around.edges) if edge[0] == source)


def _top(row: int) -> int:
    return _MARGIN + row * (_HEIGHT + _BELOW)


def _box(box: Box, spot: _Spot, classes: str) -> str:
    x, y = spot.x - _WIDTH / 2, _top(spot.row)
    name = box.name if box.kind == "node" else box.kind
    lines = [(box.title, "ink", _COLUMNS - 3), *([(name, "name", _COLUMNS)] if name else [])]
    first = y + _HEIGHT / 2 + (4 if len(lines) == 1 else -3)
    words = "".join(
        f'<text class="{kind}" x="{spot.x:.0f}" y="{first + 15 * i:.0f}">{text(_cut(line, room))}</text>'
        for i, (line, kind, room) in enumerate(lines)
    )
    return (
        f'<g class="{classes}"><title>{_safe(f"{box.title} {name}".strip())}</title>'
        f'<rect x="{x:.0f}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{6 if box.kind == "node" else 19}"/>{words}</g>'
    )


def _cut(name: str, columns: int) -> str:
    """A name that fits into so many columns; East Asian characters take two."""
    name = printable(shortened(name, 4 * columns))
    while sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in name) > columns:
        name = shortened(name, len(name) - 1)
    return name


def _placed(around: Neighbourhood) -> tuple[list[list[_Spot]], list[list[_Spot]]]:
    """Rows of boxes, each below all that it reads, and the way of each edge through them.

    Returns:
        (rows of spots with their places, spots of each edge from its source to its target).
    """
    level = _levels(around)
    rows: list[list[_Spot]] = [[] for _ in range(max(level) + 1)]
    spots = [_Spot(level[i], i) for i in range(len(around.boxes))]
    for spot in spots:
        rows[spot.row].append(spot)
    paths = []
    for source, target, _ in around.edges:
        step = 1 if level[source] <= level[target] else -1  # of a loop, one edge leads up
        between = [_Spot(row) for row in range(level[source] + step, level[target], step)]
        for spot in between:
            rows[spot.row].append(spot)
        paths.append([spots[source], *between, spots[target]])
    neighbours: dict[int, list[_Spot]] = {}
    for path in paths:
        for a, b in pairwise(path):
            neighbours.setdefault(id(a), []).append(b)
            neighbours.setdefault(id(b), []).append(a)
    middle = max(sum(spot.wide + _BESIDE for spot in row) for row in rows) / 2 + _MARGIN - _BESIDE / 2
    for row in rows:
        _line_up(row, middle)
    for order in (rows, rows[::-1], rows):
        for row in order:
            means = {}
            for i, spot in enumerate(row):
                near = [other.x for other in neighbours.get(id(spot), ())]
                means[id(spot)] = (sum(near) / len(near) if near else spot.x, i)
            row.sort(key=lambda spot: means[id(spot)])
            _line_up(row, middle)
    return rows, paths


def _line_up(row: list[_Spot], middle: float) -> None:
    x = middle - (sum(spot.wide + _BESIDE for spot in row) - _BESIDE) / 2
    for spot in row:
        spot.x = x + spot.wide / 2
        x += spot.wide + _BESIDE


def _levels(around: Neighbourhood) -> list[int]:
    """The row of each box: below all that it reads; what reads nothing is right above its first reader."""
    boxes = range(len(around.boxes))
    level = [0 for _ in boxes]
    for _ in boxes:
        for source, target, _ in around.edges:
            level[target] = max(level[target], min(level[source] + 1, len(boxes) - 1))
    read = {target for _, target, _ in around.edges}
    for box in boxes:
        below = [level[target] for source, target, _ in around.edges if source == box]
        if box not in read and below:
            level[box] = max(min(below) - 1, 0)
    return level


def _safe(value: str) -> str:
    return text(shown(value))
