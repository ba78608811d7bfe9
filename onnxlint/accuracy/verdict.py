"""The verdict of a comparison: one sentence, and the best artifact for each purpose.

Every statement repeats numbers that were measured on the inputs of this comparison, and says nothing beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnxlint import text as numbers
from onnxlint.accuracy.results import AccuracyReport, CandidateReport, Recommendation, Verdict
from onnxlint.text import counted, printable

GOOD_SNR = 30.0
"""dB of the worst output from which, without a task, a candidate counts as close to the reference."""

GOOD_SHARE = 0.99
"""Share of images or pairs on which a candidate has to agree with the reference to count as close to it."""


def worst_snr(one: CandidateReport) -> float:
    """SNR in dB of the output that is furthest from the reference's; NaN if one is not a number."""
    return one.worst_snr_db


def verdict(report: AccuracyReport) -> Verdict:
    """The verdict of a comparison."""
    candidates = sorted(report.candidates, key=lambda one: _rank(report, one), reverse=True)
    close = [one for one in candidates if _is_close(report, one)]
    parts = []
    if close:
        smallest = min(close, key=lambda one: one.bytes)
        parts.append(f"{printable(smallest.name)} {_snr_text(report, smallest)}{_size(report, smallest)}")
    lossy = [one for one in candidates if not _is_close(report, one)]
    if lossy:
        parts.append(f"{printable(lossy[-1].name)} {_snr_text(report, lossy[-1])}")
    if not close:
        parts.insert(0, f"no candidate is close to {printable(report.reference.name)} ({_criterion(report)})")
    sentence = "; ".join(parts)
    return Verdict(f"{sentence[0].upper() if not close else sentence[0]}{sentence[1:]}.", _recommended(report, close))


def _recommended(report: AccuracyReport, close: Sequence[CandidateReport]) -> tuple[Recommendation, ...]:
    if len(report.candidates) < 2:
        return ()
    candidates = report.candidates
    best = max(candidates, key=lambda one: (*_rank(report, one), -one.bytes))
    out = [Recommendation("the best accuracy", best.name, _snr_text(report, best))]
    if close:
        small = min(close, key=lambda one: one.bytes)
        out.append(
            Recommendation(f"the smallest files with {_criterion(report)}", small.name, numbers.size(small.bytes))
        )
    measured = [(one.latency.median_ms, one) for one in close if one.latency is not None and not one.latency.busy]
    if len(measured) > 1:
        milliseconds, fast = min(measured, key=lambda pair: pair[0])
        why = f"{numbers.milliseconds(milliseconds)} on this machine"
        out.append(Recommendation(f"the lowest latency with {_criterion(report)}", fast.name, why))
    return tuple(out)


def _metric(one: CandidateReport, name: str) -> float | None:
    value = None if one.task is None else one.task.metrics.get(name)
    return None if value is None or math.isnan(value) else value


def judged(report: AccuracyReport) -> str:
    """The metric that candidates are judged by; empty: SNR."""
    for name in ("found", "top1", "agreement", "accuracy_kept", "mean_cosine", "psnr"):
        if all(_metric(one, name) is not None for one in report.candidates):
            return name
    return ""


def _rank(report: AccuracyReport, one: CandidateReport) -> tuple[float, float]:
    """Higher is better."""
    worst = worst_snr(one)
    snr = -math.inf if math.isnan(worst) else worst
    name = judged(report)
    if not name:
        return snr, 0.0
    value = _metric(one, name) or 0.0
    return (value - (_metric(one, "extra") or 0.0) if name == "found" else value), snr


def _criterion(report: AccuracyReport) -> str:
    return {
        "found": (
            "no object missed and none extra"
            if not _metric(report.reference, "missed") and not _metric(report.reference, "extra")
            else "no more objects missed or extra than the reference has"
        ),
        "top1": f"at least {GOOD_SHARE:.0%} of the reference's top1",
        "agreement": f"the reference's class on at least {GOOD_SHARE:.0%} of the images",
        "accuracy_kept": f"at least {GOOD_SHARE:.0%} of the reference's accuracy_kept",
        "mean_cosine": f"a mean cosine of at least {GOOD_SHARE}",
        "psnr": f"a psnr of at least {GOOD_SHARE:.0%} of the reference's",
    }.get(judged(report), f"at least {GOOD_SNR:.0f} dB in the worst output")


def _is_close(report: AccuracyReport, one: CandidateReport) -> bool:
    name = judged(report)
    if not name:
        return worst_snr(one) >= GOOD_SNR
    value = _metric(one, name) or 0.0
    if name == "found":
        # Without labels the reference's own detections are the truth, and it misses none.
        return (_metric(one, "missed") or 0.0) <= (_metric(report.reference, "missed") or 0.0) and (
            _metric(one, "extra") or 0.0
        ) <= (_metric(report.reference, "extra") or 0.0)
    if name in ("agreement", "mean_cosine"):
        return value >= GOOD_SHARE
    reference = _metric(report.reference, name)
    if name == "psnr" and (reference is None or math.isinf(reference)):  # compared with the reference's own pictures
        return worst_snr(one) >= GOOD_SNR
    return reference is not None and value >= GOOD_SHARE * reference


def _snr_text(report: AccuracyReport, one: CandidateReport) -> str:
    """A candidate's verdict, as the rest of a sentence."""
    name = judged(report)
    say: dict[str, Callable[[float], str]] = {
        "found": lambda value: _detections(one, value),
        "top1": lambda value: f"classifies {numbers.share(value)} of the images as labelled",
        "agreement": lambda value: f"gives the reference's class on {numbers.share(value)} of the images",
        "accuracy_kept": lambda value: f"judges {numbers.share(value)} of the pairs correctly",
        "mean_cosine": lambda value: f"has a mean cosine of {numbers.cosine(value)} with the reference",
        "psnr": lambda value: (
            f"has a psnr of {numbers.metric('psnr', value)} dB" if math.isfinite(value) else "makes the same pictures"
        ),
    }
    value = _metric(one, name) if name else None
    if name and value is not None:
        return say[name](value)
    worst = worst_snr(one)
    if worst == math.inf:
        return "gives the reference's outputs exactly"
    where = "in its worst output" if len(one.outputs) > 1 else "SNR"
    return f"has {numbers.db(worst)} {where}" if math.isfinite(worst) else "has an output that does not agree at all"


def _detections(one: CandidateReport, found: float) -> str:
    missed, extra = _metric(one, "missed") or 0.0, _metric(one, "extra") or 0.0
    words = f"finds {round(found):,} of {counted(round(found + missed), 'object')}"
    return f"{words} and {round(extra):,} extra" if extra else words


def _size(report: AccuracyReport, one: CandidateReport) -> str:
    if not report.reference.bytes:
        return ""
    return f" at {100 * one.bytes / report.reference.bytes:.0f} % of the reference's size"
