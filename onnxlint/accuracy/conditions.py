"""`--fail-if 'snr<20'`: what makes a comparison fail."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxlint import text as numbers
from onnxlint.accuracy.results import CandidateReport, OutputAccuracy
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([\w@.-]+?)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(db|ms|%|[kmg]?b)?\s*", re.I)
_UNITS = {"": 1.0, "db": 1.0, "ms": 1.0, "%": 0.01, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}


_Value = Callable[[CandidateReport], "float | None"]


def _over(value: Callable[[OutputAccuracy], float], worst: Callable[[Iterable[float]], float]) -> _Value:
    return lambda report: worst(value(one) for one in report.outputs)


METRICS: dict[str, tuple[_Value, Callable[[float | None], str]]] = {
    "snr": (lambda report: report.worst_snr_db, numbers.db),
    "min-snr": (lambda report: report.worst_snr_db, numbers.db),
    "mean-snr": (lambda report: report.snr_db, numbers.db),
    "cosine": (_over(lambda one: one.cosine, min), numbers.cosine),
    "max-abs": (_over(lambda one: one.max_abs, max), numbers.magnitude),
    "mean-abs": (_over(lambda one: one.mean_abs, max), numbers.magnitude),
    "relative": (_over(lambda one: one.relative, max), numbers.magnitude),
    "nan": (_over(lambda one: one.nan_share, max), numbers.share),
    "inf": (_over(lambda one: one.inf_share, max), numbers.share),
    "latency": (lambda report: report.row()["latency_ms"], numbers.milliseconds),
    "size": (lambda report: report.bytes, lambda x: numbers.size(None if x is None else int(x))),
    "parameters": (lambda report: report.parameters, lambda x: numbers.quantity(None if x is None else int(x))),
}
"""Metric → (its value, how it is written). Of several outputs the worst counts; `mean-snr` is the mean over them."""


@dataclass(frozen=True)
class Condition:
    """A metric, an operator and a bound; `text` as the user wrote it."""

    text: str
    metric: str
    operator: str
    bound: float

    def failure(self, report: CandidateReport) -> str:
        """How a candidate meets the condition, in words; empty if it does not."""
        known = METRICS.get(self.metric)
        if known is not None:
            value, written = known[0](report), known[1]
            shown = written(value)
        else:
            metrics = {} if report.task is None else {_folded(key): one for key, one in report.task.metrics.items()}
            value = metrics.get(self.metric)
            shown = numbers.metric(self.metric, value)
        if value is None or math.isnan(value):
            why = "was not measured" if self.metric == "latency" else "is not defined"
            return f"{printable(report.name)}: {self.text} cannot be evaluated: {self.metric} {why}"
        if not _OPERATORS[self.operator](value, self.bound):
            return ""
        return f"{printable(report.name)}: {self.text}: {self.metric} is {shown}"


def parse_conditions(texts: Sequence[str], known: Iterable[str] | None = ()) -> tuple[Condition, ...]:
    """Read conditions.

    Args:
        texts: `snr<20`, `found < 90%`.
        known: Names of the task's metrics; None if these are not known yet, so that any name may be one.

    Raises:
        OnnxlintError: One is not of that form, or names a metric that does not exist.
    """
    found = []
    for text in texts:
        parts = _CONDITION.fullmatch(text)
        if parts is None:
            raise OnnxlintError(f"--fail-if {printable(text)!r}: write it as METRIC<NUMBER, such as 'snr<20'")
        name, sign, bound, unit = parts.groups()
        name = _folded(name)
        if name not in METRICS and known is not None:
            names = [*METRICS, *map(_folded, known)]
            if name not in names:
                others = (
                    choices(names) if known else f"{choices(names)}; those of tasks (found, top1, psnr, …) need --task"
                )
                hint = did_you_mean(name, names, others)
                raise OnnxlintError(f"--fail-if {printable(text)!r}: no such metric: {printable(name)!r}{hint}")
        try:
            number = float(bound) * _UNITS[(unit or "").lower()]
        except ValueError:
            raise OnnxlintError(f"--fail-if {printable(text)!r}: {bound} is not a number") from None
        found.append(Condition(printable(text.strip()), name, sign, number))
    return tuple(found)


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
