"""Findings as one HTML page that loads nothing: they filter, and each shows its place in the graph, drawn.

Where a fix was tried (`Plan(fixes=True)`), the same place is drawn as the fix leaves it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from onnxlint.lint.excerpt import FIXED_OF_A_RULE
from onnxlint.lint.finding import CheckResult, Finding, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.report import Report
from onnxlint.report._common import fix_terms, headline, shortened, shown, totals
from onnxlint.report.page import page, table, text
from onnxlint.text import counted, printable
from onnxlint.version import __version__

PICTURES = 500
"""Findings that are drawn; a page with more is slow in every browser."""

OPEN = 12
"""With more findings than this, all begin folded."""


def render(report: Report) -> str:
    """The whole page."""
    return page("onnxlint check", _body(report), ("check.css", "check.js"))


def _text(value: str) -> str:
    return text(shown(value))


def _body(report: Report) -> Iterator[str]:
    total = totals(report)
    yield "<h1>onnxlint check</h1>"
    yield f'<p class="soft">{_text(headline(report))}</p>'
    errors = [result.error.message for result in report.results if result.error is not None]
    if errors:
        items = "".join(f"<li>{_text(message)}</li>" for message in errors)
        yield f'<div class="panel alarm" role="alert"><strong class="bad">Not checked</strong><ul>{items}</ul></div>'
    if total.findings > 1 or (total.findings and report.statistics):
        yield "<h2>Rules</h2>"
        yield _rules(report)
    if total.findings and not report.statistics:
        yield _controls(total.severities)
        room = PICTURES
        for result in report.results:
            if result.findings:
                yield from _file(result, total.findings <= OPEN, room)
                room -= len(result.findings)
        if room < 0:
            yield f'<p class="soft">Only the first {PICTURES} are drawn.</p>'
        if any(finding.after is not None for result in report.results for finding in result.findings):
            yield (
                '<p class="soft">What a fix makes of its place is drawn for at most '
                f"{FIXED_OF_A_RULE} findings of a rule in a model, fewer in large ones.</p>"
            )
    yield f'<p class="soft">onnxlint {text(__version__)}</p>'


def _rules(report: Report) -> str:
    known: dict[tuple[str, str], list[Finding]] = {}
    for result in report.results:
        for finding in result.findings:
            known.setdefault((finding.code, finding.name), []).append(finding)
    rows: list[list[str]] = []
    values: list[list[float | None]] = []
    for (code, name), found in sorted(known.items(), key=lambda row: (-len(row[1]), row[0])):
        worst = max((finding.severity for finding in found), key=lambda severity: severity.rank)
        fixable = sum(finding.fix is not None for finding in found)
        rows.append([_badge(worst), _text(code), _text(name), str(len(found)), str(fixable or "")])
        values.append([worst.rank, None, None, len(found), fixable])
    header = ("severity", "rule", "name", "count", "fixable")
    return table(header, rows, values=values, words=(0, 1, 2), caption="Rules")


def _badge(severity: Severity) -> str:
    return f'<span class="badge {severity.value}">{severity.value}</span>'


def _controls(severities: Mapping[Severity, int]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" value="{severity.value}" checked> {severity.value} ({severities[severity]})</label>'
        for severity in Severity
        if severities[severity]
    )
    return (
        '<div id="controls"><label>Filter <input type="search" id="words"></label>'
        f'{boxes}<button type="button" id="fold">fold or open all</button><span id="shown" role="status"></span></div>'
    )


def _file(result: CheckResult, unfolded: bool, room: int) -> Iterator[str]:
    yield f'<section class="file"><h2>{_text(result.model)}</h2>'
    yield f'<p class="soft">{counted(len(result.findings), "finding")}</p>'
    for i, finding in enumerate(result.findings):
        yield _finding(finding, unfolded, drawn=i < room)
    yield "</section>"


def _finding(finding: Finding, unfolded: bool, drawn: bool) -> str:
    place = finding.location
    facts = [("rule", _text(finding.name)), ("place", f"<code>{_text(place.place)}</code>")]
    lines = "<br>".join(
        f"<code>{_text(f'{line.path}:{line.line}')}</code> <code>{_text(line.code)}</code>"
        for line in reversed(place.source)
    )
    facts += [
        (label, value)
        for label, given, value in (
            ("source", lines, lines),
            ("module", place.scope, f"<code>{_text(place.scope)}</code>"),
            ("near output", place.near, f"<code>{_text(place.near)}</code>"),
            ("help", finding.help, _text(finding.help)),
            ("fix", finding.fix, text(fix_terms(finding.fix)) if finding.fix else ""),
        )
        if given
    ]
    listed = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts)
    return (
        f'<details class="panel finding" data-severity="{finding.severity.value}"{" open" if unfolded else ""}>'
        f"<summary>{_badge(finding.severity)} <strong>{_text(finding.code)}</strong> {_text(finding.message)} "
        f'<code class="soft">{_text(place.place)}</code></summary>'
        f"<dl>{listed}</dl>{_pictures(finding) if drawn else ''}</details>"
    )


# Pictures


def _pictures(finding: Finding) -> str:
    before, after = finding.neighbourhood, finding.after
    if before is None:
        return ""
    if after is None:
        return f'<div class="graphs">{_figure(before, "")}</div>'
    if isinstance(after, str):
        return f'<div class="graphs">{_figure(before, "")}</div><p class="soft">After the fix: {_text(after)}.</p>'
    gone = "before; dashed: what the fix takes away or changes" if before.changed else "before"
    new = "after the fix; green: what it brings or has changed" if after.changed else "after the fix"
    return f'<div class="graphs">{_figure(before, gone, "gone")}{_figure(after, new, "new")}</div>'


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


def _figure(around: Neighbourhood, caption: str, change: str = "") -> str:
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
            f'<path d="{"".join(line)}"><title>{_text(label)}</title></path>'
            f'<path class="tip" d="M{across - 4:.0f},{down - 8:.0f}h8l-4,8z"/>'
        )
        labels.setdefault((source, label), []).append(((points[0][0] + points[1][0]) / 2, points[0][1] + 26))
    several = Counter(source for source, _ in labels)
    for (source, label), places in labels.items():
        # One value is named once, below what makes it, where no other name can be.
        x, y = places[0] if several[source] > 1 else (paths[_first(around, source)][0].x, places[0][1] - 8)
        parts.append(
            f'<text class="edge" x="{x:.0f}" y="{y:.0f}">{text(_cut(label, _COLUMNS))}<title>{_text(label)}</title></text>'
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
        f'viewBox="0 0 {wide:.0f} {high}" role="img" aria-label="{_text(said)}">'
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
        f'<g class="{classes}"><title>{_text(f"{box.title} {name}".strip())}</title>'
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
