"""A comparison for people: one table, then what is behind its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.report.compare import tables
from onnxlint.text import printable

_Paint = Callable[[str, str], str]


def render(report: AccuracyReport, color: bool = False) -> str:
    """The report as text; for terminals with ANSI colors."""
    return "".join(f"{line}\n".replace(" \n", "\n") for line in _lines(report, _painter() if color else _plain))


def _lines(report: AccuracyReport, paint: _Paint) -> Iterator[str]:
    yield tables.headline(report)
    if report.reference.task is not None:
        yield tables.truths(report)
    yield ""
    yield from _table(tables.summary(report), paint)
    for one in report.candidates:
        yield ""
        yield from _candidate(one, paint)
    notes = [*report.notes, *(f"{printable(report.reference.name)}: {note}" for note in report.reference.notes)]
    if notes:
        yield ""
        yield from (f"note: {note}" for note in notes)
    if report.failures:
        yield ""
        yield from (f"{paint('bold red', 'failed')}: {failure}" for failure in report.failures)


def _candidate(one: CandidateReport, paint: _Paint) -> Iterator[str]:
    yield paint("bold", printable(one.name))
    indent = partial(map, "  {}".format)
    yield from indent(_table(tables.outputs(one), paint))
    yield from (f"  {paint('yellow', 'not compared')}: {line}" for line in one.unmatched)
    if one.layers:
        yield ""
        yield f"  {tables.fall(one.layers)}"
        table = tables.layers(one)
        if table.rows:
            if len(table.rows) < len(one.layers):
                yield f"  {len(table.rows)} of {len(one.layers)} layers, those that cause most of the loss:"
            yield from indent(_table(table, paint))
    for line in tables.suggestions(one):
        yield f"  {paint('green', 'try')}: {line}"
    notes = (*one.notes, *(one.task.notes if one.task else ()))
    yield from (f"  note: {note}" for note in notes)


def _table(table: tables.Table, paint: _Paint) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    for row in (table.header, *table.rows):
        cells = [
            cell.ljust(width) if i in table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        yield paint("dim", line) if row is table.header else line


def _plain(style: str, text: str) -> str:
    return text


def _painter() -> _Paint:
    from rich.color import ColorSystem
    from rich.style import Style

    return lambda style, text: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)
