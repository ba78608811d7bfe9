"""Result of comparing two models' structures, as plain data. Names are not yet escaped."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.graph.location import Location
from onnxlint.lint.finding import CheckResult, Finding
from onnxlint.tabular import Tabular
from onnxlint.text import counted

if TYPE_CHECKING:
    from onnxlint.lint.neighbourhood import Neighbourhood


VERSION = 1
"""Of the JSON document."""


class Change(str, enum.Enum):
    """What became of a node, a weight or a value."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Detail:
    """One thing that differs, before and after.

    Attributes:
        what: `attribute mode`, `input 1`, `opset`, `inputs`, …
        before: As text; empty if it was not there.
        after: As text; empty if it is no longer there.
    """

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class NodeChange:
    """A node that came, went or differs.

    Attributes:
        change: Which of these.
        location: In the new model; in the old one for nodes that went.
        op: Its operator (the new one, where that changed).
        module: Its module path (`fpn.merge1`), from whichever model has one; empty if the exporters kept none.
        details: What differs; empty for nodes that came or went.
        before: The graph around it in the old model, where pictures were asked for.
        after: The same in the new one.
    """

    change: Change
    location: Location
    op: str
    module: str = ""
    details: tuple[Detail, ...] = ()
    before: Neighbourhood | None = None
    after: Neighbourhood | None = None

    @property
    def top(self) -> str:
        """The outermost module that it is in (`fpn`)."""
        return self.module.split(".", 1)[0]


@dataclass(frozen=True)
class WeightChange:
    """A weight that came, went, was renamed or holds other values.

    Attributes:
        change: Added, removed or changed; a weight that was only renamed is in `GraphDiff.renamed`.
        name: In the new model; in the old one for weights that went.
        details: Name, type and shape where they differ.
        elements: Number of elements (of the new one, where both are there).
        differing: Elements with other values; None if type or shape differ, or the data cannot be read.
        relative: Euclidean norm of the difference over that of the old values; None if it was not computed.
        largest: Largest absolute difference; None if it was not computed.
    """

    change: Change
    name: str
    details: tuple[Detail, ...] = ()
    elements: int = 0
    differing: int | None = None
    relative: float | None = None
    largest: float | None = None


@dataclass(frozen=True)
class Weights:
    """What became of the weights, over all graphs.

    Attributes:
        compared: Weights that both models have, with the same type and shape.
        changes: Those that came, went or differ, in the order of the new model.
        renamed: (old name, new name) of weights with the same values.
        relative: Norm of the difference of all that changed over the norm of their old values.
        unread: Weights whose data could not be read, and why; they are not among `compared`.
    """

    compared: int = 0
    changes: tuple[WeightChange, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    relative: float | None = None
    unread: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[WeightChange, ...]:
        """Those that hold other values."""
        return tuple(one for one in self.changes if one.change is Change.CHANGED)

    @property
    def retrained(self) -> bool:
        """Whether practically all weights hold other values: four of five, and more than three."""
        count = sum(one.differing is not None and one.differing > 0 for one in self.changes)
        return count > 3 and count >= 0.8 * self.compared


@dataclass(frozen=True)
class Findings:
    """Findings of the new model that the old one lacks, and the reverse.

    Attributes:
        new: Findings of the new model alone.
        fixed: Findings of the old model alone.
        remaining: Findings of the new model that the old one has too.
    """

    new: tuple[Finding, ...] = ()
    fixed: tuple[Finding, ...] = ()
    remaining: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """How large a model is.

    Attributes:
        nodes: Constants aside, subgraphs and functions included.
        parameters: Elements of its weights.
        bytes: Of the file and of the external data that it refers to.
    """

    nodes: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Verified:
    """What running both models on the same inputs said.

    Attributes:
        equal: Whether all outputs were equal bit by bit; None if nothing could be compared.
        words: The result in one line.
        worst: Largest absolute difference of an output; None if nothing was compared, infinite if shapes differ.
    """

    equal: bool | None
    words: str
    worst: float | None = None


@dataclass(frozen=True, repr=False)
class ModelDiff(Tabular):
    """All that differs between two models; its entries are differences of the interface, nodes and weights.

    Attributes:
        old: The first model as the user named it.
        new: The second one.
        header: What differs in inputs, outputs, operator sets, producer and metadata.
        sizes: Of the old and of the new model.
        opsets: Version of the standard operator set in the old and in the new model.
        operators: Operator → difference in number, if any.
        nodes: Changed nodes, in the order of the new model; those that went stand where they stood.
        weights: What became of the weights.
        findings: None if no check was asked for.
        checks: Results of the two checks that `findings` comes from.
        verified: None if it was not asked for.
        unaligned: Whether the graphs were too different, or too large, to be aligned node by node everywhere.
    """

    old: str
    new: str
    header: tuple[Detail, ...] = ()
    sizes: tuple[Sizes, Sizes] = (Sizes(0, 0, 0), Sizes(0, 0, 0))
    opsets: tuple[int, int] = (0, 0)
    operators: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[NodeChange, ...] = ()
    weights: Weights = Weights()
    findings: Findings | None = None
    checks: tuple[CheckResult, CheckResult] | None = None
    verified: Verified | None = None
    unaligned: bool = False

    @property
    def same(self) -> bool:
        """Whether the models have the same interface, nodes and weights; names of inner values and nodes do not count."""
        different = self.header or self.nodes or self.weights.changes or self.operators
        return not different and not (self.verified is not None and self.verified.equal is False)

    def entries(self) -> tuple[Detail | NodeChange | WeightChange, ...]:
        """What differs in the interface, then the nodes, then the weights."""
        return (*self.header, *self.nodes, *self.weights.changes)

    def rows(self) -> list[dict[str, Any]]:
        """For each difference: what it is about, how it changed, where, and the details."""
        return [_row(one) for one in self.entries()]

    def headline(self) -> str:
        """Both models, and how many nodes and weights differ."""
        nodes, weights = counted(len(self.nodes), "node"), counted(len(self.weights.changes), "weight")
        return f"{self.old!r} → {self.new!r}: {'same' if self.same else f'{nodes}, {weights}'}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, as `onnxlint diff --format json` writes them."""
        return _as_dict(self)


def _row(one: Detail | NodeChange | WeightChange) -> dict[str, Any]:
    if isinstance(one, Detail):
        return {
            "about": "interface", "change": Change.CHANGED.value, "name": one.what, "op": "", "module": "", "source": "",
            "details": f"{one.before} → {one.after}",
        }  # fmt: skip
    details = "; ".join(f"{detail.what}: {detail.before} → {detail.after}" for detail in one.details)
    if isinstance(one, WeightChange):
        if one.relative is not None:
            details = f"{details}; relative difference {one.relative:.2g}".removeprefix("; ")
        return {
            "about": "weight", "change": one.change.value, "name": one.name, "op": "", "module": "", "source": "",
            "details": details,
        }  # fmt: skip
    lines = one.location.source
    return {
        "about": "node",
        "change": one.change.value,
        "name": one.location.place,
        "op": one.op,
        "module": one.module,
        "source": f"{lines[-1].path}:{lines[-1].line}" if lines else "",
        "details": details,
    }


def _as_dict(diff: ModelDiff) -> dict[str, Any]:
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
