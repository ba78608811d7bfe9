"""The tables of a comparison, as words: what text and Markdown show alike."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxlint import text as numbers
from onnxlint.accuracy.results import ROUNDING_DB, AccuracyReport, CandidateReport, LayerAccuracy, first_fall
from onnxlint.accuracy.verdict import worst_snr
from onnxlint.report.compare.legend import explained, is_metric
from onnxlint.text import listed, printable

MAX_LAYERS = 12
"""Layers that are shown: those that cause most of the loss. JSON and HTML have all."""

ONLY, MEAN, WORST = "SNR", "SNR mean", "SNR worst"
"""Columns of the SNR: of the only output; over all outputs the mean, and the worst."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; columns that hold no number in any row are left out.

    Attributes:
        header: Names of the columns.
        rows: As many cells each.
        words: Columns that hold words, and so begin at the left.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})


def _compact(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str]) -> Table:
    kept = [i for i in range(len(header)) if any(row[i] not in ("", numbers.UNKNOWN) for row in rows)]
    return Table(
        tuple(header[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        frozenset(n for n, i in enumerate(kept) if header[i] in words),
    )


def summary(report: AccuracyReport) -> Table:
    """A row for each model, the reference first."""
    models = (report.reference, *report.candidates)
    metrics = list(dict.fromkeys(name for one in models if one.task for name in one.task.metrics))
    detail = ("cosine", "max error") if not metrics else ()  # with a task, they are in the tables of outputs
    several = any(len(one.outputs) > 1 for one in report.candidates)
    snrs = (MEAN, WORST) if several else (ONLY,)
    header = ("model", *snrs, *detail, *metrics, "latency", "size", "parameters")
    rows = []
    for one in models:
        values = [
            numbers.UNKNOWN if one.task is None else numbers.metric(name, one.task.metrics.get(name))
            for name in metrics
        ]
        measured: tuple[str, ...] = ("reference", *[""] * (len(snrs) + len(detail) - 1))
        if one is not report.reference:
            measured = (
                numbers.db(one.snr_db),
                *([numbers.db(worst_snr(one))] if several else []),
            )
            if detail:
                measured += (
                    numbers.cosine(min((output.cosine for output in one.outputs), default=None)),
                    numbers.magnitude(max((output.max_abs for output in one.outputs), default=None)),
                )
        rows.append(
            (
                printable(one.name),
                *measured,
                *values,
                latency(one),
                numbers.size(one.bytes),
                numbers.quantity(one.parameters),
            )
        )
    return _compact(header, rows, ("model",))


def latency(one: CandidateReport) -> str:
    """`14.2 ms ± 0.3 ms`; nothing if the machine was busy, because that number does not compare with the others."""
    if one.latency is None or one.latency.busy:
        return numbers.UNKNOWN
    median, spread = numbers.milliseconds(one.latency.median_ms), numbers.milliseconds(one.latency.spread_ms)
    return f"{median} ± {spread}"


def unmeasured(report: AccuracyReport) -> str:
    """Whose latency could not be measured, in one sentence; empty if all could, or none was asked for."""
    models = (report.reference, *report.candidates)
    busy = [printable(one.name) for one in models if one.latency is not None and one.latency.busy]
    if not busy:
        return ""
    return f"latency of {listed(busy, 3)} not measured: other programs used the machine; compare again when it is idle"


def notes(report: AccuracyReport) -> list[str]:
    """What the user should know about the comparison and the reference, a line each."""
    found = [*report.notes, *(f"{printable(report.reference.name)}: {note}" for note in report.reference.notes)]
    return [*found, unmeasured(report)] if unmeasured(report) else found


def legend(report: AccuracyReport) -> list[tuple[str, str]]:
    """Explanations of the report's columns, if they need one: (column, explanation)."""
    shown = [*summary(report).header]
    for one in report.candidates:
        shown += outputs(one).header
        shown += layers(one).header if one.layers else ()
    metrics = [name for name in shown if is_metric(name)]
    return explained([ONLY, *metrics, *shown] if ONLY in shown and MEAN not in shown else [MEAN, *metrics, *shown])


def outputs(one: CandidateReport) -> Table:
    """A row for each output of a candidate."""
    header = (
        "output",
        "compared with",
        "shape",
        "SNR",
        "cosine",
        "max error",
        "mean error",
        "relative",
        "NaN",
        "infinite",
    )
    rows = [
        (
            printable(output.name),
            printable(output.candidate),
            numbers.shape(output.shape),
            numbers.db(output.snr_db),
            numbers.cosine(output.cosine),
            numbers.magnitude(output.max_abs),
            numbers.magnitude(output.mean_abs),
            numbers.share(output.relative),
            numbers.share(output.nan_share) if output.nan_share else "",
            numbers.share(output.inf_share) if output.inf_share else "",
        )
        for output in one.outputs
    ]
    return _compact(header, rows, ("output", "compared with", "shape"))


def layers(one: CandidateReport) -> Table:
    """The layers that cause most of the loss, in order of computation; none if nothing but rounding differs."""
    is_lost = first_fall(one.layers) is not None
    inexact = [layer for layer in one.layers if is_lost and (layer.share or layer.snr_db != math.inf)]
    ranked = sorted(inexact, key=lambda layer: (-(layer.share or 0.0), layer.snr_db))
    best = {id(layer) for layer in ranked[:MAX_LAYERS]}
    chosen = [layer for layer in inexact if id(layer) in best]
    header = ("layer", "operator", "reference's", "SNR", "share of the loss", "source")
    rows = [
        (
            printable(layer.candidate),
            printable(layer.type),
            printable(layer.reference) if layer.reference != layer.candidate else "",
            numbers.db(layer.snr_db),
            numbers.share(layer.share),
            printable(layer.source),
        )
        for layer in chosen
    ]
    return _compact(header, rows, ("layer", "operator", "reference's", "source"))


def fall(layers: Sequence[LayerAccuracy]) -> str:
    """Where the SNR first falls, in words."""
    found = first_fall(layers)
    if found is None:
        return (
            f"none of {numbers.quantity(len(layers))} layers loses more than rounding does ({numbers.db(ROUNDING_DB)})"
        )
    layer, before = found
    source = f" ({printable(layer.source)})" if layer.source else ""
    place = f"{printable(layer.type)} {printable(layer.candidate)}{source}"
    if math.isinf(before):
        return f"nowhere does the SNR fall suddenly; at the first layer, {place}, it is {numbers.db(layer.snr_db)}"
    return f"the SNR first falls at {place}: from {numbers.db(before)} to {numbers.db(layer.snr_db)}"


def suggestions(one: CandidateReport) -> Iterator[str]:
    """`keep convdwrelu_0 in fp16: +4.96 dB for 28 bytes (--keep convdwrelu_0)`."""
    for suggestion in one.suggestions:
        cost = "" if suggestion.bytes is None else f" for {numbers.size(suggestion.bytes)}"
        option = f" ({printable(suggestion.option)})" if suggestion.option else ""
        yield f"{printable(suggestion.text)}: {numbers.gain(suggestion.gain_db)}{cost}{option}"


def headline(report: AccuracyReport) -> str:
    """The models and inputs of the comparison."""
    source = report.source
    if os.path.isabs(source) and not os.path.relpath(source).startswith(".."):
        source = os.path.relpath(source)
    inputs = numbers.counted(report.inputs, "input")
    recipe = f" ({report.recipe})" if report.recipe else ""
    return f"{inputs} from {printable(source)}{recipe}"


def truths(report: AccuracyReport) -> str:
    """What the task's metrics were judged by; empty without a task."""
    task = report.reference.task
    return "" if task is None else f"{task.task}, judged by {printable(task.truth)}"


def without(table: Table, column: str) -> Table:
    """A table without one of its columns; the same where it has none of that name."""
    kept = [i for i, name in enumerate(table.header) if name != column]
    return Table(
        tuple(table.header[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
        frozenset(n for n, i in enumerate(kept) if i in table.words),
    )


def fold(table: Table, width: int, measure: Callable[[str], int] = len) -> list[Table]:
    """A table as several that are at most so wide, each beginning with the first column; one if it fits or is empty."""
    if not table.rows:
        return [table]
    widths = [max(map(measure, column)) for column in zip(table.header, *table.rows, strict=True)]
    groups: list[list[int]] = []
    room = 0
    for column in range(1, len(widths)):
        if not groups or widths[column] + 2 > room:
            groups.append([])
            room = width - widths[0]
        groups[-1].append(column)
        room -= widths[column] + 2
    return [
        Table(
            tuple(table.header[i] for i in (0, *group)),
            tuple(tuple(row[i] for i in (0, *group)) for row in table.rows),
            frozenset(n for n, i in enumerate((0, *group)) if i in table.words),
        )
        for group in groups or [[]]
    ]
