"""The charts of a comparison: size against accuracy, accuracy along the network, sizes of errors."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnxlint import text as numbers
from onnxlint.accuracy.results import AccuracyReport, CandidateReport, OutputAccuracy, first_fall
from onnxlint.accuracy.verdict import judged, worst_snr
from onnxlint.report import charts
from onnxlint.text import printable

CEILING = 120.0
"""dB from which charts no longer tell apart: the rounding of float32."""


def overview(report: AccuracyReport) -> Iterator[str]:
    """The charts of the whole comparison."""
    if len(report.candidates) > 1:
        yield _size_and_accuracy(report)
    with_layers = [one for one in report.candidates if len(one.layers) > 1]
    if with_layers:
        yield _along(report, with_layers)


def _names(report: AccuracyReport) -> list[str]:
    """A name for each candidate that no other has."""
    names = [printable(one.name) for one in report.candidates]
    return [f"{i}: {name}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]


def _bounded(snr: float) -> float:
    return 0.0 if math.isnan(snr) else min(max(snr, 0.0), CEILING)


def _size_and_accuracy(report: AccuracyReport) -> str:
    """The metric of the task, or the SNR of the worst output, over the size of the files."""
    import altair

    metric = judged(report)
    if metric and len({_metric_of(one, metric) for one in report.candidates}) == 1 < len(report.candidates):
        metric = ""  # it tells no candidate from another
    what = metric or (
        "SNR of the worst output, dB" if any(len(one.outputs) > 1 for one in report.candidates) else "SNR, dB"
    )
    names = _names(report)
    unit, unit_name = (1e6, "MB") if max(one.bytes for one in report.candidates) >= 1e6 else (1e3, "KB")
    rows = []
    for name, one in zip(names, report.candidates, strict=True):
        value = _metric_of(one, metric) if one.task is not None and metric else worst_snr(one)
        rows.append(
            {
                "name": name,
                "size": one.bytes / unit,
                "accuracy": _bounded(math.nan if value is None else value) if not metric else value,
                "shown": numbers.metric(metric, value) if metric else numbers.db(worst_snr(one)),
                "bytes": numbers.size(one.bytes),
                "best": _is_best(report, one, metric),
            }
        )
    base = altair.Chart(altair.InlineData(values=rows)).encode(
        x=altair.X("size:Q", title=f"size of the files, {unit_name}", scale=altair.Scale(zero=False, padding=24)),
        y=altair.Y("accuracy:Q", title=what, scale=altair.Scale(zero=False, padding=16)),
    )
    points = base.mark_point(size=140, filled=True, opacity=1).encode(
        color=altair.Color("name:N", scale=charts.color(names)),
        shape=altair.Shape("name:N", scale=altair.Scale(domain=names)),
        tooltip=[
            altair.Tooltip("name:N", title="model"),
            altair.Tooltip("shown:N", title=metric or "SNR"),
            altair.Tooltip("bytes:N", title="size"),
        ],
    )
    line = base.transform_filter("datum.best").mark_line(strokeDash=[4, 4], color="var(--soft)")
    caption = f"Size against accuracy ({what})."
    if sum(bool(row["best"]) for row in rows) > 1:
        caption += " The dashed line joins those that no other beats in both."
    return charts.figure(line + points, "Size of the files against accuracy", caption)


def _metric_of(one: CandidateReport, metric: str) -> float | None:
    return None if one.task is None else one.task.metrics.get(metric)


def _is_best(report: AccuracyReport, one: CandidateReport, metric: str) -> bool:
    """Whether no other candidate is as small and more accurate, or smaller and as accurate."""

    def value(other: CandidateReport) -> float:
        found = other.task.metrics.get(metric) if metric and other.task is not None else worst_snr(other)
        return -math.inf if found is None or math.isnan(found) else found

    return not any(
        other.bytes <= one.bytes
        and value(other) >= value(one)
        and (other.bytes < one.bytes or value(other) > value(one))
        for other in report.candidates
    )


def _along(report: AccuracyReport, candidates: list[CandidateReport]) -> str:
    """SNR along the network."""
    import altair

    names = _names(report)
    rows = []
    for name, one in zip(names, report.candidates, strict=True):
        if not any(one is other for other in candidates):
            continue
        found = first_fall(one.layers)
        for i, layer in enumerate(one.layers):
            rows.append(
                {
                    "model": name,
                    "place": i / max(len(one.layers) - 1, 1),
                    "snr": _bounded(layer.snr_db),
                    "shown": numbers.db(layer.snr_db),
                    "layer": f"{printable(layer.type)} {printable(layer.candidate)}",
                    "source": printable(layer.source),
                    "falls": found is not None and found[0] is layer,
                }
            )
    base = altair.Chart(altair.InlineData(values=rows)).encode(
        x=altair.X(
            "place:Q",
            title="layers, from the first to the last",
            axis=altair.Axis(labels=False, ticks=False),
        ),
        y=altair.Y("snr:Q", title="SNR, dB"),
        color=altair.Color("model:N", scale=charts.color(names)),
        tooltip=[
            altair.Tooltip("model:N"),
            altair.Tooltip("layer:N"),
            altair.Tooltip("shown:N", title="SNR"),
            altair.Tooltip("source:N"),
        ],
    )
    line = base.mark_line(point=altair.OverlayMarkDef(size=30))
    falls = base.transform_filter("datum.falls").mark_point(size=160, filled=True, opacity=1, color="var(--bad)")
    caption = "SNR along the network; the larger point is where it first falls."
    return charts.figure(line + falls, "SNR along the network", caption)


def histogram(output: OutputAccuracy, number: int) -> str:
    """How many absolute errors of an output have which size.

    Args:
        output: It has a histogram.
        number: Of the candidate, for its colour.
    """
    import altair

    rows = [
        {
            "from": 10.0 ** output.edges[i],
            "to": 10.0 ** output.edges[i + 1],
            "count": count,
            "range": f"{numbers.magnitude(10.0 ** output.edges[i])} to {numbers.magnitude(10.0 ** output.edges[i + 1])}",
        }
        for i, count in enumerate(output.histogram)
        if count
    ]
    chart = (
        altair.Chart(altair.InlineData(values=rows))
        .mark_rect(color=charts.COLORS[number % len(charts.COLORS)])
        .encode(
            x=altair.X(
                "from:Q",
                title="absolute error",
                scale=altair.Scale(type="log"),
                axis=altair.Axis(format="~e", tickCount=6),
            ),
            x2="to:Q",
            y=altair.Y("count:Q", title="elements", axis=altair.Axis(format="~s")),
            y2=altair.datum(0),
            tooltip=[altair.Tooltip("range:N", title="error"), altair.Tooltip("count:Q", title="elements", format=",")],
        )
    )
    name = printable(output.name)
    caption = f"{name}: {numbers.db(output.snr_db)}, largest error {numbers.magnitude(output.max_abs)}"
    return charts.figure(chart, f"Errors of {name}", caption)
