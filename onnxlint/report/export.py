"""Result of an export, as text; the findings follow as `check` prints them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from onnxlint.exporting.results import ExportReport, SourceDiff
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


def render_diffs(report: ExportReport) -> str:
    """Better lines for the network's source, as diffs; empty if there are none."""
    lines: list[str] = []
    for one in report.diffs:
        condition = f", exact if {printable(one.condition)}" if one.condition else ""
        state = {"proposed": "", "applied": ": applied"}.get(one.state, f": put back: {printable(one.why)}")
        lines.append(f"\n{', '.join(one.codes)} at {printable(one.path)}:{one.line}{condition}{state}")
        lines += map(printable, one.text.splitlines())
    waiting = [one for one in report.diffs if one.state == "proposed"]
    if waiting:
        lines.append(f"\n{_way(waiting)}")
    applied = [one for one in report.diffs if one.state == "applied"]
    if applied:
        lines.append(f"\n{counted(len(applied), 'change')} applied: the findings are gone; {applied[0].why}")
    return disarmed("".join(f"{line}\n" for line in lines))


def _way(waiting: list[SourceDiff]) -> str:
    """The options that apply what is proposed."""
    numbers = [int(number) for one in waiting for number in re.findall(r"% ([0-9]{1,9}) == 0", one.condition)]
    words = ["--fix-source"]
    if numbers:
        words.append(f"--multiple-of {math.lcm(*numbers)}")
    if any("OUT001" in one.codes for one in waiting):
        words.append("--concat-heads")
    return f"{' '.join(words)} writes {counted(len(waiting), 'change')}, exports again and compares"
