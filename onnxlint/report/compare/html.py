"""A comparison as one HTML page that loads nothing: tables that sort and filter, charts, the worst images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence

from onnxlint import text as numbers
from onnxlint.accuracy.results import (
    AccuracyReport,
    CandidateReport,
    Detection,
    ImageAccuracy,
    OutputAccuracy,
    first_fall,
)
from onnxlint.report.compare import tables as compare_tables
from onnxlint.report.compare.tables import Table
from onnxlint.report.page import page, table, text
from onnxlint.version import __version__

FULL_BAR = 60.0
"""dB that fill a bar: what float16 reaches on a well-behaved network."""

CEILING = 120.0
"""dB from which charts no longer tell apart: the rounding of float32."""


def render(report: AccuracyReport) -> str:
    """The whole page."""
    return page(f"onnxlint compare: {report.reference.name}", _body(report))


def _body(report: AccuracyReport) -> Iterator[str]:
    yield f"<h1>{text(report.reference.name)} and what was made of it</h1>"
    yield f'<p class="soft">{text(compare_tables.headline(report))}</p>'
    if truths := compare_tables.truths(report):
        yield f'<p class="soft">{text(truths)}</p>'
    if report.failures:
        items = "".join(f"<li>{text(failure)}</li>" for failure in report.failures)
        yield f'<div class="panel alarm" role="alert"><strong class="bad">Failed</strong><ul>{items}</ul></div>'
    yield "<h2>Summary</h2>"
    yield _summary(report)
    yield '<div class="charts">'
    if len(report.candidates) > 1:
        yield _pareto(report)
    with_layers = [one for one in report.candidates if len(one.layers) > 1]
    if with_layers:
        yield _along(report, with_layers)
    yield "</div>"
    for number, one in enumerate(report.candidates):
        yield from _candidate(one, number)
    yield "<h2>How it was measured</h2>"
    yield _notes((*report.notes, *(f"{report.reference.name}: {note}" for note in report.reference.notes)))
    versions = ", ".join(f"{text(name)} {text(number)}" for name, number in report.versions.items())
    yield f'<p class="soft">onnxlint {text(__version__)}{f"; {versions}" if versions else ""}</p>'


def _summary(report: AccuracyReport) -> str:
    shown = compare_tables.summary(report)
    models = (report.reference, *report.candidates)
    rows: list[list[str]] = []
    values: list[list[float | None]] = []
    for one, cells in zip(models, shown.rows, strict=True):
        row = [text(cell) for cell in cells]
        known: list[float | None] = [None] * len(cells)
        for i, name in enumerate(shown.header):
            if name == "SNR" and one is not report.reference:
                row[i] += _bar(one.snr_db)
                known[i] = one.snr_db
            elif name == "size":
                known[i] = one.bytes
            elif name == "parameters":
                known[i] = one.parameters
            elif name == "latency" and one.latency is not None:
                known[i] = one.latency.median_ms
            elif name in ("cosine", "max error") and one.outputs:
                known[i] = (
                    min(output.cosine for output in one.outputs)
                    if name == "cosine"
                    else max(output.max_abs for output in one.outputs)
                )
            elif one.task is not None and name in one.task.metrics:
                known[i] = one.task.metrics[name]
        rows.append(row)
        values.append(known)
    return table(shown.header, rows, values=values, words=shown.words, caption="All models")


def _bar(snr: float) -> str:
    filled = 0.0 if math.isnan(snr) else 100 * min(max(snr, 0.0), FULL_BAR) / FULL_BAR
    return f'<span class="bar"><i style="width:{filled:.0f}%"></i></span>'


def _candidate(one: CandidateReport, number: int) -> Iterator[str]:
    yield f"<h2>{text(one.name)}</h2>"
    yield f'<p class="soft">{text(one.path)}, run by {text(one.backend)}: <strong>{numbers.db(one.snr_db)}</strong></p>'
    yield _notes((*one.unmatched, *one.notes))
    if one.suggestions:
        items = "".join(f"<li>{text(line)}</li>" for line in compare_tables.suggestions(one))
        yield f'<div class="panel"><strong>What would help</strong><ul>{items}</ul></div>'
    yield "<h3>Outputs</h3>"
    yield _outputs(one)
    charts = [_histogram(output, number) for output in one.outputs if any(output.histogram)]
    if charts:
        yield f'<h3>Errors</h3><div class="charts">{"".join(charts)}</div>'
    if one.layers:
        yield "<h3>Layers</h3>"
        yield f'<p class="soft">{text(compare_tables.fall(one.layers))}</p>'
        yield _layers(one)
    if one.worst:
        yield "<h3>Worst images</h3>"
        for image in one.worst:
            yield from _image(image)


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="soft">{"".join(f"<li>{text(note)}</li>" for note in notes)}</ul>' if notes else ""


def _outputs(one: CandidateReport) -> str:
    shown: Table = compare_tables.outputs(one)
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


# Charts

_WIDTH, _HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 40


def _chart(label: str, parts: Sequence[str], caption: str) -> str:
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(label)}">{"".join(parts)}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _axes(xs: Sequence[tuple[float, str]], ys: Sequence[tuple[float, str]], x_name: str, y_name: str) -> list[str]:
    """Grid lines with labels, at places in pixels."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="var(--soft)"/>']
    for y, label in ys:
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(label)}</text>')
    for x, label in xs:
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text(label)}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{text(x_name)}</text>')
    parts.append(f'<text x="4" y="{_TOP - 2}">{text(y_name)}</text>')
    return parts


def _scale(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Smallest and largest of an axis that shows the values with some room."""
    least, most = min(values), max(values)
    room = 0.08 * (most - least) or 0.5 * abs(most) or 1.0
    return max(low, least - room), min(high, most + room)


def _snr(value: float) -> float:
    return 0.0 if math.isnan(value) else min(max(value, 0.0), CEILING)


def _ticks(least: float, most: float, count: int = 5) -> list[float]:
    step = 10 ** math.floor(math.log10(max(most - least, 1e-12) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (most - least) / (step * factor) <= count)
    first = math.ceil(least / step)
    return [step * i for i in range(first, math.floor(most / step) + 1)]


def _pareto(report: AccuracyReport) -> str:
    """Size against accuracy, with the line of those that nothing else beats in both."""
    sizes = [float(one.bytes) for one in report.candidates]
    snrs = [_snr(one.snr_db) for one in report.candidates]
    x0, x1 = _scale(sizes, 0.0, math.inf)
    y0, y1 = _scale(snrs, 0.0, CEILING * 1.05)

    def at(size: float, snr: float) -> tuple[float, float]:
        x = _LEFT + (size - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (snr - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    xs = [(at(tick, y0)[0], numbers.size(round(tick))) for tick in _ticks(x0, x1, 4)]
    ys = [(at(x0, tick)[1], f"{tick:g}") for tick in _ticks(y0, y1)]
    parts = _axes(xs, ys, "size", "SNR in dB")
    best = -1.0
    frontier = []
    for size, snr in sorted(zip(sizes, snrs, strict=True), key=lambda point: (point[0], -point[1])):
        if snr > best:
            best = snr
            frontier.append(at(size, snr))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in frontier)
    parts.append(f'<polyline points="{path}" fill="none" stroke="var(--soft)" stroke-dasharray="4 4"/>')
    for number, (one, size, snr) in enumerate(zip(report.candidates, sizes, snrs, strict=True)):
        x, y = at(size, snr)
        title = f"{text(one.name)}: {numbers.db(one.snr_db)}, {numbers.size(one.bytes)}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="var(--c{number % 8})"><title>{title}</title></circle>'
        )
        parts.append(f'<text class="ink" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{number + 1}</text>')
    caption = "Size against accuracy; the dashed line joins those that no other beats in both."
    return _chart(caption, parts, caption + _legend(report.candidates))


def _legend(candidates: Sequence[CandidateReport]) -> str:
    items = "".join(
        f'<li><i style="background:var(--c{number % 8})"></i>{number + 1}: {text(one.name)}</li>'
        for number, one in enumerate(candidates)
    )
    return f'<ul class="legend">{items}</ul>'


def _along(report: AccuracyReport, candidates: Sequence[CandidateReport]) -> str:
    """SNR along the network."""
    y1 = max(_snr(layer.snr_db) for one in candidates for layer in one.layers) * 1.05 or 1.0

    def at(i: int, count: int, snr: float) -> tuple[float, float]:
        x = _LEFT + i / max(count - 1, 1) * (_WIDTH - _LEFT - _RIGHT)
        return x, _HEIGHT - _BOTTOM - snr / y1 * (_HEIGHT - _TOP - _BOTTOM)

    parts = _axes(
        [(_LEFT, "first"), (_WIDTH - _RIGHT - 12, "last")],
        [(at(0, 2, tick)[1], f"{tick:g}") for tick in _ticks(0.0, y1)],
        "layer",
        "SNR in dB",
    )
    for number, one in enumerate(report.candidates):
        if not any(one is other for other in candidates):
            continue
        points = [at(i, len(one.layers), _snr(layer.snr_db)) for i, layer in enumerate(one.layers)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        color = f"var(--c{number % 8})"
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        found = first_fall(one.layers)
        for (x, y), layer in zip(points, one.layers, strict=True):
            falls = found is not None and found[0] is layer
            title = f"{text(one.name)}, {text(layer.type)} {text(layer.candidate)}: {numbers.db(layer.snr_db)}"
            dot = f'r="5" fill="var(--bad)" stroke="{color}"' if falls else f'r="3" fill="{color}"'
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {dot}><title>{title}</title></circle>')
    caption = "SNR along the network; where it first falls is red."
    return _chart(caption, parts, caption + _legend(report.candidates))


def _histogram(output: OutputAccuracy, number: int) -> str:
    """How many errors have which size."""
    most = max(output.histogram)
    bottom, high = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM
    width = (_WIDTH - _LEFT - _RIGHT) / len(output.histogram)
    parts = []
    for i, count in enumerate(output.histogram):
        if count:
            tall = max(1.5, count / most * high)
            title = f"10^{output.edges[i]:.1f} to 10^{output.edges[i + 1]:.1f}: {count:,}"
            parts.append(
                f'<rect x="{_LEFT + i * width + 0.5:.1f}" y="{bottom - tall:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{tall:.1f}" fill="var(--c{number % 8})"><title>{text(title)}</title></rect>'
            )
    step = max(1, round(len(output.edges) / 6))
    xs = [
        (_LEFT + i * width, f"1e{round(edge)}")
        for i, edge in enumerate(output.edges)
        if i % step == 0 and edge == round(edge)
    ]
    axes = _axes(xs, [(bottom - high, numbers.quantity(most))], "absolute error", "")
    caption = f"{text(output.name)}: {numbers.db(output.snr_db)}, largest error {numbers.magnitude(output.max_abs)}"
    return _chart(f"Errors of {output.name}", axes + parts, caption)


# Images


def _image(image: ImageAccuracy) -> Iterator[str]:
    found = f"{len(image.reference)} found by the reference, {len(image.candidate)} by the candidate"
    said = f"{text(image.labels[0])} → {text(image.labels[1])}" if any(image.labels) else text(found)
    yield f'<p><span class="mono">{text(image.name)}</span>: {numbers.db(image.snr_db)} <span class="soft">{said}</span></p>'
    picture = _picture(image.pixels)
    if picture is None:
        return
    source, size = picture
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(value == "both").lower()}">{label}</button>'
        for value, label in (("both", "side by side"), ("reference", "reference"), ("candidate", "candidate"))
    )
    yield f'<div class="pick">{buttons}</div><div class="pair" data-show="both">'
    for title, detections, color in (
        ("reference", image.reference, "#00e5ff"),
        ("candidate", image.candidate, "#ffd400"),
    ):
        yield (
            f'<figure class="{title}"><div class="stack"><img alt="{text(image.name)}" src="{source}">'
            f"{_boxes(detections, size, color)}</div><figcaption>{title}</figcaption></figure>"
        )
    yield "</div>"


def _boxes(detections: Sequence[Detection], size: tuple[int, int], color: str) -> str:
    line = max(size) / 320
    parts = []
    for one in detections:
        x1, y1, x2, y2 = one.box
        parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}" fill="none" '
            f'stroke="{color}" stroke-width="{line:.2f}"><title>class {one.label}, score {one.score:.3f}</title></rect>'
        )
        points = zip(one.landmarks[::2], one.landmarks[1::2], strict=False)
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{line:.2f}" fill="{color}"/>' for x, y in points]
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none">{"".join(parts)}</svg>'


def _picture(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """A PNG or JPEG as a data URI, and its (width, height); None where there is no picture."""
    if not data:
        return None
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        kind, size = str(image.format).lower(), image.size
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", size
