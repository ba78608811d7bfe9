"""A whole comparison: both models opened, checked, aligned and, where asked for, run; what `onnxlint diff` does."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from onnxlint.difference.compare import compare_views
from onnxlint.difference.result import Findings, ModelDiff
from onnxlint.graph.view import GraphView
from onnxlint.lint.baseline import identity
from onnxlint.lint.configuration import Configs
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import CheckResult, FileError, Finding
from onnxlint.lint.session import Plans
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable


def diff_models(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    configs: Configs | None = None,
    verify: bool = False,
    pictures: bool = False,
) -> ModelDiff:
    """Compare two model files.

    Args:
        old, new: The models; `-` for standard input, once.
        configs: Configuration of the checks: that of the new model holds for both; None leaves findings out.
        verify: Whether both are run on the same inputs.
        pictures: Whether the graph around changed nodes is kept.

    Raises:
        OnnxlintError: A model cannot be read.
    """
    before, after = make_view(open_model(old)), make_view(open_model(new))
    diff = compare_views(before, after, pictures)
    if configs is not None:
        plan = Plans(configs, neighbourhoods=pictures).of(os.fspath(new))
        checks = _check(before, plan), _check(after, plan)
        diff = replace(diff, findings=compare_findings(checks[0].findings, checks[1].findings), checks=checks)
    if verify:
        from onnxlint.difference.verify import run_both

        diff = replace(diff, verified=run_both(before, after))
    return diff


def _check(view: GraphView, plan: Plan) -> CheckResult:
    path = view.model.path
    findings, suppressed, failures = check_view(view, plan)
    error = FileError(path, f"{printable(path)}: {'; '.join(failures)}") if failures else None
    return CheckResult(path, tuple(findings), error, len(suppressed), tuple(sorted(set(suppressed))))


def compare_findings(old: Sequence[Finding], new: Sequence[Finding]) -> Findings:
    """Sort findings into new, fixed and remaining, by properties that survive a re-export (as the baseline does)."""
    left = Counter(map(identity, old))
    came, stayed = [], []
    for finding in new:
        key = identity(finding)
        if left[key] > 0:
            left[key] -= 1
            stayed.append(finding)
        else:
            came.append(finding)
    fixed = []
    for finding in reversed(old):
        key = identity(finding)
        if left[key] > 0:
            left[key] -= 1
            fixed.append(finding)
    return Findings(tuple(came), tuple(reversed(fixed)), tuple(stayed))
