"""The comparison as GitHub-flavored Markdown: a table at a glance, then details that fold."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.difference.result import ModelDiff, NodeChange
from onnxlint.report.diff.lines import finding_lines, module_line, modules, node_lines, summary, weight_lines
from onnxlint.report.markup import change_item, code, folded, picture, prose, rows_table
from onnxlint.text import counted

MOST = 65_000
"""Characters at most: a comment of GitHub holds 65,536."""

SHOWN = 50
"""Nodes of a module that are listed at most."""

_RESERVED = 200


def render(diff: ModelDiff) -> str:
    """The comparison as Markdown of at most `MOST` characters: pictures go first, then whole sections."""
    text = "".join(sections(diff))
    if len(text) <= MOST:
        return text
    out, room = [], MOST - _RESERVED
    for section in sections(diff, pictures=False):
        if len(section) > room:
            out.append("… the rest was left out for length.\n")
            break
        out.append(section)
        room -= len(section)
    return "".join(out)


def sections(diff: ModelDiff, pictures: bool = True) -> Iterator[str]:
    """Pieces of the report, the most important first."""
    yield f"### {code(diff.old)} → {code(diff.new)}\n\n"
    yield rows_table(summary(diff))
    if diff.same:
        yield "✅ same inputs, outputs, nodes and weights\n\n"
    if diff.findings is not None:
        for title, findings in (("new", diff.findings.new), ("fixed", diff.findings.fixed)):
            if findings:
                lines = "".join(f"- {prose(words)} — {code(places)}\n" for words, places in finding_lines(findings))
                yield folded(counted(len(findings), f"{title} finding"), lines)
    for module, changes in modules(diff).items():
        found = list(node_lines(changes))
        lines = "".join(f"- {change_item(line)}\n" for line in found[:SHOWN])
        drawn = "".join(_pictures(changes)) if pictures else ""
        yield folded(module_line(module, changes), lines + _more(len(found)) + drawn)
    weights = "".join(f"- {change_item(line)}\n" for line in weight_lines(diff.weights))
    if weights:
        yield folded("weights", weights)


def _pictures(changes: list[NodeChange]) -> Iterator[str]:
    """The first changed node of a module, before and after."""
    for change in changes:
        if change.before is not None or change.after is not None:
            for label, around in (("before", change.before), ("after", change.after)):
                if around is not None:
                    yield f"\n{label}:\n{picture(around)}"
            return


def _more(number: int) -> str:
    return f"- … and {number - SHOWN} more\n" if number > SHOWN else ""
