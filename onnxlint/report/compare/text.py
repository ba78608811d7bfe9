"""A comparison for people: the verdict, one table, then what is behind its numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.accuracy.verdict import verdict
from onnxlint.report._common import disarmed
from onnxlint.report.compare import tables
from onnxlint.text import printable, shortened

_Paint = Callable[[str, str], str]

WIDTH = 80
"""Columns that tables keep to."""

_NAME = 36
"""Columns of a name in a table that would be too wide."""


def render(report: AccuracyReport, color: bool = False) -> str:
    """The report as text; for terminals with ANSI colors."""
    return disarmed("".join(f"{line.rstrip()}\n" for line in _lines(report, _painter() if color else _plain)))


def brief(report: AccuracyReport, color: bool = False) -> str:
    """Verdict, inputs, the table of all models, and missing measurements; the rest is in other reports."""
    lines = [*_head(report, _painter() if color else _plain)]
    if busy := tables.unmeasured(report):
        lines += ["", *_wrapped(f"note: {busy}", indent="  ")]
    return disarmed("".join(f"{line.rstrip()}\n" for line in lines))


def _head(report: AccuracyReport, paint: _Paint) -> Iterator[str]:
    yield from _wrapped(verdict(report).sentence)
    yield ""
    yield tables.headline(report)
    if report.reference.task is not None:
        yield tables.truths(report)
    yield ""
    shown = tables.summary(report)
    # HTML and JSON have the parameters; here they are left out where they would be a table of their own.
    yield from _table(shown if len(tables.fold(shown, WIDTH)) == 1 else tables.without(shown, "parameters"), paint)


def _lines(report: AccuracyReport, paint: _Paint) -> Iterator[str]:
    yield from _head(report, paint)
    for one in report.candidates:
        yield ""
        yield from _candidate(one, paint)
    if recommendations := verdict(report).recommendations:
        yield ""
        for item in recommendations:
            yield from _wrapped(f"for {item.wish}: {printable(item.name)} ({item.why})", indent="  ")
    if notes := tables.notes(report):
        yield ""
        yield from (f"note: {note}" for note in notes)
    if legend := tables.legend(report):
        yield ""
        for name, meaning in legend:
            yield from _wrapped(f"{name}: {meaning}", indent="  ")
    if report.failures:
        yield ""
        yield from (f"{paint('bold red', 'failed')}: {failure}" for failure in report.failures)


def _candidate(one: CandidateReport, paint: _Paint) -> Iterator[str]:
    yield paint("bold", printable(one.name))
    yield from _table(tables.outputs(one), paint, indent=2)
    yield from (f"  {paint('yellow', 'not compared')}: {line}" for line in one.unmatched)
    if one.layers:
        yield ""
        yield f"  {tables.fall(one.layers)}"
        table = tables.layers(one)
        if table.rows:
            if len(table.rows) < len(one.layers):
                yield f"  {len(table.rows)} of {len(one.layers)} layers, those that cause most of the loss:"
            yield from _table(table, paint, indent=2)
    for line in tables.suggestions(one):
        yield f"  {paint('green', 'try')}: {line}"
    notes = (*one.notes, *(one.task.notes if one.task else ()))
    yield from (f"  note: {note}" for note in notes)


def _table(table: tables.Table, paint: _Paint, indent: int = 0) -> Iterator[str]:
    """The table in as many parts as fit one below the other, with long words shortened; nothing without rows."""
    if not table.rows:
        return
    rows = [
        tuple(shortened(cell, _NAME) if i in table.words else cell for i, cell in enumerate(row)) for row in table.rows
    ]
    parts = tables.fold(tables.Table(table.header, tuple(rows), table.words), WIDTH - indent)
    for number, part in enumerate(parts):
        if number:
            yield ""
        widths = [max(map(len, column)) for column in zip(part.header, *part.rows, strict=True)]
        for row in (part.header, *part.rows):
            cells = [
                cell.ljust(width) if i in part.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            line = " " * indent + "  ".join(cells).rstrip()
            yield paint("dim", line) if row is part.header else line


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _plain(style: str, text: str) -> str:
    return text


def _painter() -> _Paint:
    from rich.color import ColorSystem
    from rich.style import Style

    return lambda style, text: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)
