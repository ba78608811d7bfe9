"""Which exporter's file is taken: one that computes what the network computes, and of two the one with fewer findings."""

from __future__ import annotations

from dataclasses import dataclass

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import EXPORTERS, ExportOptions
from onnxlint.exporting.results import Exported
from onnxlint.exporting.worker import Attempt, Made
from onnxlint.lint.finding import CheckResult, Severity
from onnxlint.model.skeleton import Model
from onnxlint.text import counted
from onnxlint.verification.results import Verification


@dataclass(frozen=True)
class Candidate:
    """An exporter's file that could be taken.

    Attributes:
        attempt: How it was made.
        model: The file, opened.
        check: Its findings.
    """

    attempt: Attempt
    model: Model
    check: CheckResult


@dataclass(frozen=True)
class Result:
    """One export: what was made, and the file that is taken.

    Attributes:
        made: Everything that was made.
        chosen: The file.
        why: Why it is this exporter's.
        attempts: What became of each exporter.
    """

    made: Made
    chosen: Candidate
    why: str
    attempts: tuple[Exported, ...]


def choose(
    made: Made, candidates: list[Candidate], options: ExportOptions
) -> tuple[Candidate, str, tuple[Exported, ...]]:
    """The file to take, why, and what became of each attempt.

    Raises:
        OnnxlintError: There is none that computes what the network computes.
    """
    rejected = {one.exporter: f"it cannot export the network: {one.refused}" for one in made.attempts if one.refused}
    good = []
    for one in candidates:
        verification = verification_of(made, one.attempt, options)
        if verification is not None and not verification.verified:
            rejected[one.attempt.exporter] = f"its outputs are {verification.summary()}"
        elif one.check.error is not None and not one.check.findings:
            rejected[one.attempt.exporter] = f"its model cannot be checked: {one.check.error.message}"
        else:
            good.append(one)
    if not good:
        reasons = "; ".join(f"{exporter}: {why}" for exporter, why in rejected.items())
        raise OnnxlintError(f"nothing was written: {reasons}")
    best = min(good, key=lambda one: (_is_ignoring(one, good), _rank(one.check), EXPORTERS.index(one.attempt.exporter)))
    for one in good:
        if one is not best:
            rejected[one.attempt.exporter] = _why_not(one, best)
    found = {one.attempt.exporter: one for one in candidates}
    attempts = tuple(
        Exported(
            one.exporter,
            one.opset,
            len(found[one.exporter].model.proto.graph.node) if one.exporter in found else 0,
            len(found[one.exporter].check.findings) if one.exporter in found else 0,
            rejected.get(one.exporter, ""),
            one.exporter in [each.attempt.exporter for each in good],
        )
        for one in made.attempts
    )
    if len(made.attempts) == 1:
        return best, "", attempts
    others = [one for one in good if one is not best]
    why = "" if not others else _why_not(best, others[0], better=True)
    return best, why, attempts


def _is_ignoring(one: Candidate, good: list[Candidate]) -> bool:
    """Whether a file lacks what the author of a `symbolic` meant, and another one has it."""
    return bool(one.attempt.ignored) and any(other.attempt.symbolics for other in good)


def _rank(check: CheckResult) -> tuple[int, int]:
    """How bad findings are: errors first, then their number."""
    errors = sum(finding.severity is Severity.ERROR for finding in check.findings)
    return errors, len(check.findings)


def _why_not(one: Candidate, best: Candidate, better: bool = False) -> str:
    if better:
        one, best = best, one
    if one.attempt.ignored and best.attempt.symbolics:
        return one.attempt.ignored if not better else f"{one.attempt.ignored}, and TorchScript does"
    mine, other = _rank(one.check), _rank(best.check)
    if mine == other:
        return "as many findings; dynamo is PyTorch's own choice" if better else "as many findings"
    what = "error" if mine[0] != other[0] else "finding"
    a, b = (mine[0], other[0]) if mine[0] != other[0] else (mine[1], other[1])
    return f"{counted(b, what)} in place of {a}" if better else f"{counted(a, what)} in place of {b}"


def verification_of(made: Made, attempt: Attempt, options: ExportOptions) -> Verification | None:
    """The network and an exporter's file on the same inputs; None if that was not asked for."""
    if not options.verify:
        return None
    return Verification(attempt.trials, "onnxruntime", made.tolerance)
