"""The comparison as one HTML page that loads nothing: both graphs drawn around what changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxlint.difference.result import ModelDiff, NodeChange
from onnxlint.lint.finding import Finding
from onnxlint.report._common import shown
from onnxlint.report.diff.lines import SIGNS, module_line, modules, node_line, summary, weight_lines
from onnxlint.report.drawing import figure
from onnxlint.report.page import page, table, text
from onnxlint.text import counted

OPEN = 4
"""Modules that begin unfolded."""

SHOWN = 200
"""Nodes of a module that are listed at most."""


def render(diff: ModelDiff) -> str:
    """The whole page."""
    return page(f"onnxlint diff: {diff.old} → {diff.new}", _body(diff), ("check.css", "diff.css"))


def _safe(value: str) -> str:
    return text(shown(value))


def _body(diff: ModelDiff) -> Iterator[str]:
    yield f"<h1>{_safe(diff.old)} → {_safe(diff.new)}</h1>"
    yield f'<p class="soft">{_safe(_verdict(diff))}</p>'
    rows = [[_safe(label), _safe(words)] for label, words in summary(diff)]
    if rows:
        yield table(["", "old → new"], rows, words=(0, 1), caption="Summary")
    errors = [result.error.message for result in diff.checks or () if result.error]
    if errors:
        items = "".join(f"<li>{_safe(message)}</li>" for message in errors)
        yield f'<div class="panel alarm" role="alert"><strong class="bad">Not checked</strong><ul>{items}</ul></div>'
    if diff.findings is not None:
        yield from _findings("New findings", diff.findings.new, is_open=True)
        yield from _findings("Fixed findings", diff.findings.fixed, is_open=False)
    groups = modules(diff)
    if groups:
        yield "<h2>Graph</h2>"
        for i, (module, changes) in enumerate(groups.items()):
            yield _module(module, changes, i < OPEN)
    weights = list(weight_lines(diff.weights))
    if weights:
        yield "<h2>Weights</h2>"
        yield _lines(weights)


def _verdict(diff: ModelDiff) -> str:
    if diff.same:
        return "Same inputs, outputs, nodes and weights."
    nodes = counted(len(diff.nodes), "node differs", "nodes differ")
    changed = len(diff.weights.changes)
    weights = (
        "all weights were retrained" if diff.weights.retrained else counted(changed, "weight differs", "weights differ")
    )
    found = "" if diff.findings is None else f"; {counted(len(diff.findings.new), 'new finding')}"
    return f"{nodes}; {weights}{found}."


def _findings(title: str, findings: Sequence[Finding], is_open: bool) -> Iterator[str]:
    if findings:
        items = "".join(map(_finding, findings[:SHOWN]))
        yield (
            f'<details class="panel"{" open" if is_open else ""}><summary>{title}: {len(findings)}</summary>'
            f"<ul>{items}</ul></details>"
        )


def _finding(finding: Finding) -> str:
    place = f'<code class="soft">{_safe(finding.location.place)}</code>'
    lines = finding.location.source
    source = f"<br><code>{_safe(str(lines[-1]))}</code>" if lines else ""
    return f"<li><strong>{_safe(finding.code)}</strong> {_safe(finding.message)} {place}{source}</li>"


def _module(module: str, changes: Sequence[NodeChange], is_open: bool) -> str:
    lines = [f"{SIGNS[one.change]} {node_line(one)}" for one in changes[:SHOWN]]
    if len(changes) > SHOWN:
        lines.append(f"… and {len(changes) - SHOWN} more")
    pictures = "".join(_pictures(one) for one in changes)
    return (
        f'<details class="panel finding"{" open" if is_open else ""}>'
        f"<summary>{_safe(module_line(module, list(changes)))}</summary>{_lines(lines)}{pictures}</details>"
    )


def _lines(lines: Sequence[str]) -> str:
    classes = {"+": "came", "-": "went", "~": "other"}
    items = "".join(f'<li class="{classes.get(line[:1], "other")}">{_safe(line)}</li>' for line in lines)
    return f'<ul class="changes">{items}</ul>'


def _pictures(change: NodeChange) -> str:
    drawn = [
        figure(around, f"{label}: {_safe(change.location.place)}", css)
        for around, label, css in ((change.before, "old", "gone"), (change.after, "new", "new"))
        if around is not None
    ]
    return f'<div class="graphs">{"".join(drawn)}</div>' if drawn else ""
