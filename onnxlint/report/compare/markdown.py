"""A comparison as GitHub's Markdown, for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.accuracy.verdict import verdict
from onnxlint.report.compare import tables
from onnxlint.text import printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@$!-])")


def render(report: AccuracyReport) -> str:
    """The report as Markdown; whatever came out of files is escaped."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: AccuracyReport) -> Iterator[str]:
    yield "### onnxlint compare"
    yield ""
    said = verdict(report)
    yield f"**{_escaped(said.sentence)}**"
    yield ""
    for item in said.recommendations:
        yield f"- for {_escaped(item.wish)}: {_escaped(printable(item.name))} ({_escaped(item.why)})"
    if said.recommendations:
        yield ""
    yield _escaped(tables.headline(report))
    if report.reference.task is not None:
        yield ""
        yield _escaped(tables.truths(report))
    yield ""
    yield from _table(tables.summary(report))
    for failure in report.failures:
        yield ""
        yield f"**Failed:** {_escaped(failure)}"
    for one in report.candidates:
        yield from _candidate(one)
    if notes := tables.notes(report):
        yield ""
        yield from (f"- {_escaped(note)}" for note in notes)
    if legend := tables.legend(report):
        yield ""
        yield "<details><summary>What the columns mean</summary>"
        yield ""
        yield from (f"- **{_escaped(name)}**: {_escaped(meaning)}" for name, meaning in legend)
        yield ""
        yield "</details>"


def _candidate(one: CandidateReport) -> Iterator[str]:
    yield ""
    yield f"<details><summary>{_html(printable(one.name))}</summary>"
    yield ""
    yield from _table(tables.outputs(one))
    if one.layers:
        yield ""
        fall = tables.fall(one.layers)
        yield _escaped(fall[0].upper() + fall[1:])
        layers = tables.layers(one)
        if layers.rows:
            yield ""
            yield from _table(layers)
    lines = [
        *(f"not compared: {line}" for line in one.unmatched),
        *(f"try: {line}" for line in tables.suggestions(one)),
        *one.notes,
        *(one.task.notes if one.task else ()),
    ]
    if lines:
        yield ""
        yield from (f"- {_escaped(line)}" for line in lines)
    yield ""
    yield "</details>"


def _table(table: tables.Table) -> Iterator[str]:
    for row in (table.header, *table.rows) if table.rows else ():
        yield f"| {' | '.join(map(_escaped, row))} |"
        if row is table.header:
            yield f"| {' | '.join(':--' if i in table.words else '--:' for i in range(len(row)))} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _html(text: str) -> str:
    from html import escape

    return escape(text)
