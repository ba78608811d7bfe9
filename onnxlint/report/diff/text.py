"""The comparison for people: what changed from the interface down to single weights."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.difference.result import ModelDiff
from onnxlint.lint.finding import Finding
from onnxlint.report._common import shown
from onnxlint.report.diff.lines import finding_lines, module_line, modules, node_lines, summary, weight_lines

SHOWN = 40
"""Lines of a module and of findings at most, unless everything is asked for."""


def render(diff: ModelDiff, everything: bool = False) -> str:
    """The comparison as text.

    Args:
        diff: The comparison.
        everything: Whether every node and finding gets a line of its own (`--verbose`).
    """
    return "".join(f"{line}\n" for line in _lines(diff, everything))


def _lines(diff: ModelDiff, everything: bool) -> Iterator[str]:
    yield f"{shown(diff.old)} → {shown(diff.new)}"
    rows = list(summary(diff))
    width = max((len(shown(label)) for label, _ in rows), default=0)
    yield from (f"  {shown(label):<{width}}  {shown(text)}" for label, text in rows)
    if diff.findings is not None:
        yield from _findings("new findings", "+", diff.findings.new, everything)
        yield from _findings("fixed findings", "-", diff.findings.fixed, everything)
    for module, changes in modules(diff).items():
        yield ""
        yield shown(module_line(module, changes))
        yield from _limited([shown(line) for line in node_lines(changes, everything)], everything)
    weights = list(weight_lines(diff.weights))
    if weights:
        yield ""
        yield "weights"
        yield from (f"  {shown(line)}" for line in weights)
    if diff.unaligned:
        yield ""
        yield "note: parts of the graphs differ too much to be aligned; their nodes are listed as removed and added"
    yield from (f"error: {result.error.message}" for result in diff.checks or () if result.error)
    if diff.same:
        yield f"  same inputs, outputs, nodes and weights{', apart from names' if diff.weights.renamed else ''}"


def _findings(title: str, sign: str, findings: tuple[Finding, ...], everything: bool) -> Iterator[str]:
    if findings:
        yield ""
        yield title
    for words, places in finding_lines(findings, everything):
        yield f"  {sign} {shown(words)}"
        yield f"      --> {shown(places)}"


def _limited(lines: list[str], everything: bool) -> Iterator[str]:
    kept = lines if everything else lines[:SHOWN]
    yield from (f"  {line}" for line in kept)
    if len(lines) > len(kept):
        yield f"  … and {len(lines) - len(kept)} more; --verbose lists all"
