"""Result of an export, as text; the findings follow as `check` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.exporting.results import ExportReport
from onnxlint.report._common import disarmed
from onnxlint.text import counted, listed, printable, size


def render_export(report: ExportReport) -> str:
    """What was loaded, what each exporter made, which file was taken, and how it compares with the network."""
    names = f"{listed(map(printable, report.inputs), 8)} → {listed(map(printable, report.outputs), 8)}"
    lines = [f"{printable(report.network)}: {names}"]
    if report.weights is not None:
        notes = "".join(f"; {note}" for note in report.weights.notes)
        lines.append(
            f"  weights     {printable(report.weights.file)}: {counted(report.weights.keys, 'key')} loaded{notes}"
        )
    lines += _attempts(report)
    if report.verification is None:
        lines.append("  verified    not: --no-verify")
    else:
        lines.append(f"  verified    {report.verification.summary()}")
    lines += [f"  note        {note}" for note in report.notes]
    if report.output is not None:
        lines.append(f"Wrote {printable(report.output)} ({size(report.size)}, opset {report.opset})")
    return disarmed("\n".join(lines) + "\n")


def _attempts(report: ExportReport) -> Iterator[str]:
    for one in report.attempts:
        taken = one.exporter == report.exporter
        if one.opset and (taken or one.usable):
            why = f"; taken: {report.why}" if taken and report.why else ""
            made = f"{counted(one.nodes, 'node')}, {counted(one.findings, 'finding')}"
            yield f"  {one.exporter:<11} opset {one.opset}, {made}{printable(why)}"
        else:
            yield f"  {one.exporter:<11} not taken: {printable(one.why_not)}"
