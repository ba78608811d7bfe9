"""A comparison as plain lists and dicts: what the JSON report holds; docs/schema/diff.json describes it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from onnxlint.diff.result import Detail, ModelDiff, NodeChange, WeightChange, Weights
from onnxlint.lint.finding import Finding

VERSION = 1


def as_dict(diff: ModelDiff) -> dict[str, Any]:
    """Everything but the pictures."""
    return {
        "onnxlint-diff": VERSION,
        "old": diff.old,
        "new": diff.new,
        "same": diff.same,
        "header": [_detail(one) for one in diff.header],
        "sizes": {"old": asdict(diff.sizes[0]), "new": asdict(diff.sizes[1])},
        "operators": dict(diff.operators),
        "nodes": [_node(one) for one in diff.nodes],
        "weights": _weights(diff.weights),
        "findings": None
        if diff.findings is None
        else {
            "new": [_finding(one) for one in diff.findings.new],
            "fixed": [_finding(one) for one in diff.findings.fixed],
            "remaining": [_finding(one) for one in diff.findings.remaining],
        },
        "errors": [result.error.message for result in diff.checks or () if result.error],
        "verified": None
        if diff.verified is None
        else {"equal": diff.verified.equal, "words": diff.verified.words, "worst": _number(diff.verified.worst)},
        "complete": not diff.unaligned,
    }


def _detail(detail: Detail) -> dict[str, str]:
    return {"what": detail.what, "before": detail.before, "after": detail.after}


def _node(change: NodeChange) -> dict[str, Any]:
    place = change.location
    return {
        "change": change.change.value,
        "op": change.op,
        "name": place.node,
        "graph": place.graph,
        "module": change.module,
        "source": [{"path": line.path, "line": line.line} for line in place.source],
        "details": [_detail(one) for one in change.details],
    }


def _weights(weights: Weights) -> dict[str, Any]:
    return {
        "compared": weights.compared,
        "retrained": weights.retrained,
        "relative": _number(weights.relative),
        "changes": [_weight(one) for one in weights.changes],
        "renamed": [list(pair) for pair in weights.renamed],
        "unread": list(weights.unread),
    }


def _weight(change: WeightChange) -> dict[str, Any]:
    return {
        "change": change.change.value,
        "name": change.name,
        "elements": change.elements,
        "differing": change.differing,
        "relative": _number(change.relative),
        "largest": _number(change.largest),
        "details": [_detail(one) for one in change.details],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    place = finding.location
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "place": place.place,
        "module": place.scope,
        "fingerprint": finding.fingerprint,
        "fixable": finding.fix is not None,
    }


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity and no NaN."""
    return value if value is None or math.isfinite(value) else str(value)
