"""A comparison as one HTML page that loads nothing: the verdict, tables that sort and filter, charts, the worst images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from onnxlint import text as numbers
from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.accuracy.verdict import verdict, worst_snr
from onnxlint.report import charts
from onnxlint.report.compare import tables
from onnxlint.report.compare.images import worst_image
from onnxlint.report.page import page, table, text
from onnxlint.version import __version__

FULL_BAR = 60.0
"""dB that fill a bar: what float16 reaches on a well-behaved network."""


def render(report: AccuracyReport) -> str:
    """The whole page."""
    body = list(_body(report, "" if charts.available() else charts.MISSING))
    scripts: tuple[str, ...] = ()
    if any("data-spec=" in part for part in body):
        try:
            scripts = (charts.bundle(),)
        except RuntimeError as error:
            body = list(_body(report, f"No charts: vl-convert-python fails here: {error}"))
    title = f"onnxlint compare: {report.reference.name}"
    return page(title, body, ("charts.css", "charts.js") if scripts else (), scripts)


def _body(report: AccuracyReport, no_charts: str) -> Iterator[str]:
    """Pieces of the page; `no_charts` is why there are no charts, empty where there are."""
    yield f"<h1>{text(report.reference.name)} compared with {numbers.counted(len(report.candidates), 'candidate')}</h1>"
    yield _verdict(report)
    yield f'<p class="soft">{text(tables.headline(report))}</p>'
    if truths := tables.truths(report):
        yield f'<p class="soft">{text(truths)}</p>'
    if report.failures:
        items = "".join(f"<li>{text(failure)}</li>" for failure in report.failures)
        yield f'<div class="panel alarm" role="alert"><strong class="bad">Failed</strong><ul>{items}</ul></div>'
    yield "<h2>All models</h2>"
    yield _summary(report)
    if no_charts:
        yield f'<p class="soft">{text(no_charts)}</p>'
    else:
        from onnxlint.report.compare.charts import overview

        yield f'<div class="charts">{"".join(overview(report))}</div>'
    for number, one in enumerate(report.candidates):
        yield from _candidate(one, number, has_charts=not no_charts)
    yield "<h2>How it was measured</h2>"
    yield _notes(tables.notes(report))
    versions = ", ".join(
        f"{text(name)} {text(number)}" for name, number in report.versions.items() if name != "onnxlint"
    )
    yield f'<p class="soft">onnxlint {text(__version__)}{f"; {versions}" if versions else ""}</p>'
    yield "<h3>What the columns mean</h3>"
    terms = "".join(f"<div><dt>{text(name)}</dt><dd>{text(said)}</dd></div>" for name, said in tables.legend(report))
    yield f'<dl class="soft">{terms}</dl>'


def _verdict(report: AccuracyReport) -> str:
    found = verdict(report)
    sentence = f"<p><strong>{text(found.sentence)}</strong></p>"
    if not found.recommendations:
        return f'<div class="panel">{sentence}</div>'
    items = "".join(
        f"<div><dt>{text(item.wish)}</dt><dd><strong>{text(item.name)}</strong> ({text(item.why)})</dd></div>"
        for item in found.recommendations
    )
    return f'<div class="panel">{sentence}<dl class="wide">{items}</dl></div>'


def _summary(report: AccuracyReport) -> str:
    shown = tables.summary(report)
    models = (report.reference, *report.candidates)
    rows: list[list[str]] = []
    values: list[list[float | None]] = []
    for one, cells in zip(models, shown.rows, strict=True):
        known = [_value(report, one, name) for name in shown.header]
        row = [text(cell) for cell in cells]
        for i, name in enumerate(shown.header):
            snr = known[i]
            if name in (tables.ONLY, tables.MEAN, tables.WORST) and snr is not None:
                row[i] += _bar(snr)
        rows.append(row)
        values.append(known)
    return table(shown.header, rows, values=values, words=shown.words, caption="All models")


def _value(report: AccuracyReport, one: CandidateReport, name: str) -> float | None:
    """Sort key of a cell of the summary."""
    if name == "size":
        return one.bytes
    if name == "parameters":
        return one.parameters
    if name == "latency":
        return None if one.latency is None or one.latency.busy else one.latency.median_ms
    if one.task is not None and name in one.task.metrics:
        return one.task.metrics[name]
    if one is report.reference:
        return None
    if name in (tables.ONLY, tables.MEAN):
        return one.snr_db
    if name == tables.WORST:
        return worst_snr(one)
    if name == "cosine":
        return min((output.cosine for output in one.outputs), default=None)
    return max((output.max_abs for output in one.outputs), default=None) if name == "max error" else None


def _bar(snr: float) -> str:
    filled = 0.0 if math.isnan(snr) else 100 * min(max(snr, 0.0), FULL_BAR) / FULL_BAR
    return f'<span class="bar"><i style="width:{filled:.0f}%"></i></span>'


def _candidate(one: CandidateReport, number: int, has_charts: bool) -> Iterator[str]:
    snr = numbers.db(one.snr_db)
    if len(one.outputs) > 1:
        snr = f"mean SNR {snr}, worst output {numbers.db(worst_snr(one))}"
    yield f"<h2>{text(one.name)}</h2>"
    yield f'<p class="soft">{text(one.path)}, run by {text(one.backend)}: <strong>{snr}</strong></p>'
    yield _notes((*one.unmatched, *one.notes, *(one.task.notes if one.task else ())))
    if one.suggestions:
        items = "".join(f"<li>{text(line)}</li>" for line in tables.suggestions(one))
        yield f'<div class="panel"><strong>What would help</strong><ul>{items}</ul></div>'
    yield "<h3>Outputs</h3>"
    yield _outputs(one)
    with_errors = [output for output in one.outputs if any(output.histogram) and output.snr_db != math.inf]
    if with_errors and has_charts:
        from onnxlint.report.compare.charts import histogram

        drawn = "".join(histogram(output, number) for output in with_errors)
        yield f'<h3>Errors</h3><div class="charts">{drawn}</div>'
    if one.layers:
        yield "<h3>Layers</h3>"
        yield f'<p class="soft">{text(tables.fall(one.layers))}</p>'
        yield _layers(one)
    if one.worst:
        yield f"<h3>Worst {'images' if any(image.pixels for image in one.worst) else 'inputs'}</h3>"
        for image in one.worst:
            yield from worst_image(image, is_detection=one.task is not None and one.task.task == "detection")


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="soft">{"".join(f"<li>{text(note)}</li>" for note in notes)}</ul>' if notes else ""


def _outputs(one: CandidateReport) -> str:
    shown = tables.outputs(one)
    by_name = {
        "SNR": lambda output: output.snr_db,
        "cosine": lambda output: output.cosine,
        "max error": lambda output: output.max_abs,
        "mean error": lambda output: output.mean_abs,
        "relative": lambda output: output.relative,
        "NaN": lambda output: output.nan_share,
        "infinite": lambda output: output.inf_share,
    }
    values: list[list[float | None]] = [
        [by_name[name](output) if name in by_name else None for name in shown.header] for output in one.outputs
    ]
    rows = [
        [
            text(cell) + (_bar(output.snr_db) if name == "SNR" else "")
            for name, cell in zip(shown.header, row, strict=True)
        ]
        for output, row in zip(one.outputs, shown.rows, strict=True)
    ]
    return table(shown.header, rows, values=values, words=shown.words, caption=f"Outputs of {one.name}")


def _layers(one: CandidateReport) -> str:
    rows = [
        [
            str(i + 1),
            f'<span class="mono">{text(layer.candidate)}</span>',
            text(layer.type),
            f'<span class="mono">{text(layer.reference)}</span>',
            numbers.db(layer.snr_db),
            numbers.share(layer.share),
            f'<span class="mono">{text(layer.source)}</span>',
        ]
        for i, layer in enumerate(one.layers)
    ]
    values: list[list[float | None]] = [
        [i + 1, None, None, None, layer.snr_db, -1.0 if layer.share is None else layer.share, None]
        for i, layer in enumerate(one.layers)
    ]
    header = ("#", "layer", "operator", "reference's", "SNR", "share of the loss", "source")
    return table(
        header, rows, values=values, words=(1, 2, 3, 6), caption=f"Layers of {one.name}", filtered="Filter the layers"
    )
