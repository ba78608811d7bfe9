"""Lines shared by all formats of this report: the summary's rows, a node in one line, the weights in a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxlint.difference.result import Change, Detail, ModelDiff, NodeChange, WeightChange, Weights
from onnxlint.lint.finding import Finding
from onnxlint.text import counted, magnitude, shortened, size

SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~"}

ROUNDING = 1e-6
"""Weights whose relative difference is below this differ by rounding only: folded differently, not retrained."""

SHOWN_END = 72
"""Characters of an input, output or metadata value that the summary shows at most: sizes can be long expressions."""

FEW = 4
"""Nodes that came or went in one module that are named one by one at most."""

SHOWN_WEIGHTS = 20
"""Changed weights that are listed one by one at most."""


def summary(diff: ModelDiff) -> Iterator[tuple[str, str]]:
    """(label, text) of each row above the details."""
    old, new = diff.sizes
    for detail in diff.header:
        yield detail.what, arrow(replace(detail, before=_short(detail.before), after=_short(detail.after)))
    if diff.operators:
        yield "operators", ", ".join(f"{count:+d} {op}" for op, count in _by_amount(diff))
    if old.nodes != new.nodes:
        yield "nodes", f"{old.nodes:,} → {new.nodes:,}"
    if old.parameters != new.parameters:
        yield "parameters", f"{old.parameters:,} → {new.parameters:,}"
    if old.bytes != new.bytes:
        sign = "+" if new.bytes > old.bytes else "−"
        yield "size", f"{size(old.bytes)} → {size(new.bytes)} ({sign}{size(abs(new.bytes - old.bytes))})"
    if diff.findings is not None and (diff.findings.new or diff.findings.fixed or diff.findings.remaining):
        found = diff.findings
        yield "findings", f"{len(found.new)} new, {len(found.fixed)} fixed, {len(found.remaining)} remaining"
    if diff.verified is not None:
        yield "outputs", diff.verified.words


def _short(text: str) -> str:
    return shortened(text, SHOWN_END)


def _by_amount(diff: ModelDiff) -> list[tuple[str, int]]:
    return sorted(diff.operators.items(), key=lambda item: (-abs(item[1]), item[0]))


def arrow(detail: Detail) -> str:
    """`11 → 17`, `added: x`, `removed: x`."""
    if not detail.before:
        return f"added: {detail.after}"
    if not detail.after:
        return f"removed: {detail.before}"
    return f"{detail.before} → {detail.after}"


def node_line(change: NodeChange) -> str:
    """`Resize /fpn/Resize: attribute mode nearest → linear`."""
    name = change.location.node or change.location.place
    graph = "" if change.location.graph == "graph" else f" in {change.location.graph}"
    details = "; ".join(f"{detail.what} {arrow(detail)}" for detail in change.details)
    return f"{change.op} {name}{graph}".rstrip() + (f": {details}" if details else "")


def modules(diff: ModelDiff) -> dict[str, list[NodeChange]]:
    """Changes by the top of their module path, in the order of the model; '' for those without one."""
    groups: dict[str, list[NodeChange]] = {}
    for change in diff.nodes:
        groups.setdefault(change.top, []).append(change)
    return groups


def node_lines(changes: Sequence[NodeChange], everything: bool = False) -> Iterator[str]:
    """The changed nodes of a module, one a line; where many came or went, these by operator."""
    many = {kind: sum(one.change is kind for one in changes) > FEW for kind in (Change.ADDED, Change.REMOVED)}
    for change in changes:
        if everything or not many.get(change.change, False):
            yield f"{SIGNS[change.change]} {node_line(change)}"
    for kind, is_many in many.items():
        if is_many and not everything:
            counts = Counter(change.op for change in changes if change.change is kind)
            ops = ", ".join(f"{number} {op}" for op, number in counts.most_common())
            yield f"{SIGNS[kind]} {counted(counts.total(), 'node')}: {ops}"


def finding_lines(findings: Sequence[Finding], everything: bool = False) -> Iterator[tuple[str, str]]:
    """(finding, place) of each; several of one rule become one with their number."""
    rules: dict[str, list[Finding]] = {}
    for finding in findings:
        rules.setdefault(finding.code, []).append(finding)
    for code, group in rules.items():
        for some in [[one] for one in group] if everything else [group]:
            amount = f"{len(some)} × " if len(some) > 1 else ""
            places = [one.location.place for one in some]
            source = some[0].location.source
            line = f"  {source[-1]}" if source else ""
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            first = some[0]
            yield f"{amount}{first.severity.value} {code} {first.message}", f"{', '.join(places[:3])}{more}{line}"


def module_line(module: str, changes: list[NodeChange]) -> str:
    """`/fpn: 2 nodes changed, 1 added`."""
    counts = {kind: sum(change.change is kind for change in changes) for kind in Change}
    parts = [
        f"{counted(counts[kind], 'node') if first else counts[kind]} {kind.value}"
        for first, kind in _firsts([k for k in (Change.CHANGED, Change.ADDED, Change.REMOVED) if counts[k]])
    ]
    return f"{f'/{module}' if module else 'outside of modules'}: {', '.join(parts)}"


def _firsts(kinds: list[Change]) -> Iterator[tuple[bool, Change]]:
    for i, kind in enumerate(kinds):
        yield i == 0, kind


def weight_lines(weights: Weights) -> Iterator[str]:
    """The weights: one line where practically all were trained anew, else one for each that differs."""
    changes: tuple[WeightChange, ...] = weights.changes
    other = [one for one in changes if one.change is Change.CHANGED and one.differing]
    amount = "all" if len(other) == weights.compared else f"{len(other):,} of {weights.compared:,}"
    norm = "" if weights.relative is None else f" (relative norm of the difference {magnitude(weights.relative)})"
    if other and weights.relative is not None and weights.relative < ROUNDING:
        yield f"~ {amount} weights differ by rounding{norm}"
        changes = tuple(one for one in changes if one not in other)
    elif weights.retrained:
        yield f"~ {amount} weights have other values: retrained{norm}"
        changes = tuple(one for one in changes if one not in other)
    for one in changes[:SHOWN_WEIGHTS]:
        yield f"{SIGNS[one.change]} {weight_line(one)}"
    if len(changes) > SHOWN_WEIGHTS:
        yield f"… and {counted(len(changes) - SHOWN_WEIGHTS, 'more weight', 'more weights')}"
    if weights.renamed:
        yield f"~ {counted(len(weights.renamed), 'weight')} renamed, values the same"
    yield from (f"! not compared: {problem}" for problem in weights.unread[:SHOWN_WEIGHTS])


def weight_line(change: WeightChange) -> str:
    """`fc.weight: 512 of 1,024 elements, relative norm 0.12, largest 0.5`."""
    parts = [f"{detail.what} {arrow(detail)}" for detail in change.details if change.change is Change.CHANGED]
    parts += [detail.before or detail.after for detail in change.details if change.change is not Change.CHANGED]
    if change.differing:
        parts.append(f"{change.differing:,} of {counted(change.elements, 'element')} differ")
        if change.relative is not None:
            parts.append(f"relative norm {magnitude(change.relative)}")
        if change.largest is not None:
            parts.append(f"largest {magnitude(change.largest)}")
    return f"{change.name}: {', '.join(parts)}"
