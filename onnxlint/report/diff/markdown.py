"""The comparison as GitHub-flavored Markdown: a table at a glance, then details that fold."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.difference.result import ModelDiff, NodeChange
from onnxlint.report.diff.lines import finding_lines, module_line, modules, node_lines, summary, weight_lines
from onnxlint.report.markup import code, html, picture, prose
from onnxlint.text import counted

MOST = 65_000
"""Characters at most: a comment of GitHub holds 65,536."""

SHOWN = 50
"""Nodes of a module that are listed at most."""

_SIGNS = {"+": "➕", "-": "➖", "~": "✏️"}
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
    rows = list(summary(diff))
    if rows:
        yield "| | |\n| --- | --- |\n" + "".join(f"| {prose(label)} | {prose(text)} |\n" for label, text in rows) + "\n"
    if diff.same:
        yield "✅ same inputs, outputs, nodes and weights\n\n"
    if diff.findings is not None:
        for title, findings in (("new", diff.findings.new), ("fixed", diff.findings.fixed)):
            if findings:
                lines = "".join(f"- {prose(words)} — {code(places)}\n" for words, places in finding_lines(findings))
                yield _folded(counted(len(findings), f"{title} finding"), lines)
    for module, changes in modules(diff).items():
        found = list(node_lines(changes))
        lines = "".join(f"- {_item(line)}\n" for line in found[:SHOWN])
        drawn = "".join(_pictures(changes)) if pictures else ""
        yield _folded(module_line(module, changes), lines + _more(len(found)) + drawn)
    weights = "".join(f"- {_item(line)}\n" for line in weight_lines(diff.weights))
    if weights:
        yield _folded("weights", weights)


def _pictures(changes: list[NodeChange]) -> Iterator[str]:
    """The first changed node of a module, before and after."""
    for change in changes:
        if change.before is not None or change.after is not None:
            for label, around in (("before", change.before), ("after", change.after)):
                if around is not None:
                    yield f"\n{label}:\n{picture(around)}"
            return


def _item(line: str) -> str:
    """A line of the text report as an item of a list: its sign would begin a list of its own."""
    return f"{_SIGNS.get(line[0], prose(line[0]))} {prose(line[2:])}"


def _folded(title: str, body: str) -> str:
    return f"<details>\n<summary>{html(title)}</summary>\n\n{body}\n</details>\n\n"


def _more(number: int) -> str:
    return f"- … and {number - SHOWN} more\n" if number > SHOWN else ""
