"""Patches in rounds, until nothing is left to fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import holds
from onnxlint.fixes.edits import join
from onnxlint.fixes.results import Applied, Key
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import Applicability, Consent, Finding, Fix
from onnxlint.lint.rule import Request, Rule, Unfixable
from onnxlint.symbolic.inference import inferred_sizes
from onnxlint.symbolic.view import make_view
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import Graph, GraphView
    from onnxlint.model.skeleton import Model

MAX_ROUNDS = 10


@dataclass(frozen=True)
class Job:
    """The job.

    Attributes:
        model: The model with the edits that were asked for.
        plan: The rules.
        request: What is wanted beside what is safe.
        view: The view of that model.
        banned: Rolled-back patches with reasons; grows while fixing.
        prepare: Called before anything is patched.
    """

    model: Model
    plan: Plan
    request: Request
    view: GraphView
    banned: dict[Key, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None

    @property
    def rules(self) -> Mapping[str, type[Rule]]:
        """The plan's rules by code."""
        return {rule.code: rule for rule in self.plan.rules}


@dataclass
class Run:
    """One run to the fixed point.

    Attributes:
        proto: The result.
        reference: The model with only those changes that were asked for (joined heads, dropped activations).
        asked: Descriptions of the requested changes.
        applied: Patches, in order.
        failed: Patches that could not be applied to the graph as it was, and why.
        crashed: Patches that raised an unexpected exception: they are not tried again.
        left: Findings of the result, by key.
        has_minimum: Whether a patch may rest on sizes of at least 1.
        is_simplified: Whether onnxsim, which may round anew, went over it.
        conditions: What joined heads assume about sizes of inputs.
        unproven: What joined heads need, which running the models has to show.
        view: The view that `left` is of.
    """

    proto: onnx.ModelProto
    reference: onnx.ModelProto
    asked: list[str] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    failed: dict[Key, str] = field(default_factory=dict)
    crashed: set[Key] = field(default_factory=set)
    left: list[tuple[Key, Finding]] = field(default_factory=list)
    has_minimum: bool = False
    is_simplified: bool = False
    conditions: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    view: GraphView | None = None

    def fail(self, key: Key, error: Exception) -> None:
        """Note that a patch could not be applied."""
        if isinstance(error, Unfixable | OnnxlintError):
            self.failed[key] = str(error)
        else:
            what = f"{type(error).__name__}: {printable(str(error))[:200]}"
            self.failed[key] = f"its patch failed with {what}; please report it"
            self.crashed.add(key)


def run_rounds(job: Job, limit: int | None = None) -> Run:
    """Patch until nothing is left to fix.

    Args:
        job: The job.
        limit: Most patches, besides the requested ones; None: all.

    Raises:
        OnnxlintError: A rule failed on the model, or an edit that was asked for is impossible.
    """
    run = Run(job.model.proto, job.model.proto)
    # First what was asked for: it makes the reference that everything else is measured against.
    _stage(job, run, is_asked=True, limit=None)
    if job.request.concat_heads:
        multiples, allow_empty = job.request.multiples, job.request.allow_empty
        edited = join(make_view(replace(job.model, proto=run.proto), None, multiples, allow_empty), job.request)
        run.proto = edited.proto
        run.asked += edited.done
        run.conditions += edited.conditions
        run.unproven += edited.unproven
    run.reference = run.proto
    _stage(job, run, is_asked=False, limit=limit)
    return run


def resume_rounds(job: Job, run: Run, simplified: onnx.ModelProto) -> None:
    """Continue with onnxsim's version of a run's result."""
    run.is_simplified = simplified is not run.proto
    run.proto = simplified
    _stage(job, run, is_asked=False, limit=None)


def _stage(job: Job, run: Run, *, is_asked: bool, limit: int | None) -> None:
    """Rounds of either the patches that were asked for, or all others."""
    for number in range(1, MAX_ROUNDS + 1):
        view = _looked_over(job, run)
        todo = [
            (key, finding)
            for key, finding in run.left
            if key not in job.banned and key not in run.failed and _is_wanted(finding.fix, job.request, is_asked)
        ]
        if limit is not None:
            todo = todo[: limit - sum(not applied.is_unsafe for applied in run.applied)]
        if not todo:
            return
        job.prepare()
        proto = _round(job, run, view, todo, number)
        if proto is run.proto:
            return
        run.proto = proto
    _looked_over(job, run)


def _looked_over(job: Job, run: Run) -> GraphView:
    """The view of a run's result; its findings are in `left`."""
    view = run.view
    if view is None or view.proto is not run.proto:
        is_first = run.proto is job.view.proto
        model, request = replace(job.model, proto=run.proto), job.request
        view = job.view if is_first else make_view(model, None, request.multiples, request.allow_empty)
        run.view = view
        run.left = keyed(view, _findings(view, job.plan))
        # The graph is another one: what could not be patched in the last one perhaps can be now.
        run.failed = {key: why for key, why in run.failed.items() if key in run.crashed}
    return view


def _is_wanted(fix: Fix | None, request: Request, is_asked: bool) -> bool:
    if fix is None or (fix.applicability is Applicability.UNSAFE) != is_asked:
        return False
    return is_allowed(fix, request)


def keyed(view: GraphView, findings: list[Finding]) -> list[tuple[Key, Finding]]:
    """Findings with what they are about: a value, a node by its name where only it has that, else by its first output.

    Positions of nodes change when others go, so that they tell nothing.
    """
    graphs = {graph.path: graph for graph in view.graphs}
    names: dict[str, Counter[str]] = {}
    found = []
    for finding in findings:
        place = finding.location
        graph = graphs.get(place.graph)
        if graph is not None and place.graph not in names:
            names[place.graph] = Counter(node.name for node in graph.nodes)
        what = place.value or _node_key(finding, graph, names.get(place.graph, Counter()))
        found.append(((finding.code, place.graph, what), finding))
    return found


def _node_key(finding: Finding, graph: Graph | None, names: Counter[str]) -> str:
    place = finding.location
    if place.node and names[place.node] <= 1:
        return f"node {place.node}"
    if graph is not None and place.index is not None and place.index < len(graph.nodes):
        output = next((name for name in graph.nodes[place.index].outputs if name), "")
        if output:
            return f"output {output}"
    return "" if place.index is None else f"{place.op_type} #{place.index}"


def _findings(view: GraphView, plan: Plan) -> list[Finding]:
    findings, _, failures = check_view(view, plan)
    if failures:
        raise OnnxlintError(f"{printable(view.model.path)}: {'; '.join(failures)}")
    return findings


def _round(job: Job, run: Run, view: GraphView, todo: list[tuple[Key, Finding]], number: int) -> onnx.ModelProto:
    """One round: a rewrite of the whole model, or all patches that do not touch the same nodes."""
    rules = job.rules
    for key, finding in todo:
        rewritten = _guarded(key, run, lambda f=finding: rules[f.code]().rewrite(f, view, job.request))  # type: ignore[misc]
        if rewritten is not None:
            run.applied.append(Applied(finding, number, rules[finding.code].arithmetic, key))
            return rewritten
    from onnxlint.surgery.surgeon import AlreadyPatched, Surgeon

    while True:
        surgeon = Surgeon(view)
        applied: list[Applied] = []
        for key, finding in todo:
            if key in run.failed:
                continue
            problem = _malformed(view, finding)
            if problem:
                run.fail(key, Unfixable(problem))
                continue
            surgeon.begin()
            try:
                rules[finding.code]().patch(finding, view, surgeon, job.request)
            except AlreadyPatched:
                continue
            except Unfixable as why:
                run.fail(key, why)
                continue
            except Exception as error:  # noqa: BLE001 - the graph is thrown away, and the failure reported
                run.fail(key, error)
                break
            surgeon.end()
            applied.append(Applied(finding, number, rules[finding.code].arithmetic, key))
        else:
            run.applied += applied
            run.has_minimum |= _rests_on_elements(view, applied)
            run.conditions += surgeon.conditions
            run.unproven += surgeon.unproven
            return surgeon.close()
        # A patch failed half way: begin again without it.


_OF_SIZES = ("GRF003", "GRF004", "OPS005", "SHP")
"""Rules whose patches follow from numbers that symbolic inference finds."""


def _rests_on_elements(view: GraphView, applied: Sequence[Applied]) -> bool:
    """Whether a number was told because sizes of inputs are at least 1, and patches may be based on it."""
    is_used = any(one.finding.code.startswith(_OF_SIZES) for one in applied)
    return is_used and any(known.rests_on_elements for known in inferred_sizes(view))


def _malformed(view: GraphView, finding: Finding) -> str:
    """Why the node of a finding is not a valid one of its operator, so that no patch can rely on what it has; or nothing."""
    from onnx import defs

    place = finding.location
    graph = next((graph for graph in view.graphs if graph.path == place.graph), None)
    if place.index is None or graph is None or place.index >= len(graph.nodes):
        return ""
    node = graph.nodes[place.index]
    twice = next((name for name in node.outputs if name in _made_twice(graph)), None)
    if twice is not None:
        return f"{printable(twice)!r} is made by several nodes: repair the model first"
    try:
        schema = defs.get_schema(node.proto.op_type, view.opset, node.proto.domain)
    except defs.SchemaError:
        return ""
    count = len(node.inputs)
    while count and not node.inputs[count - 1]:
        count -= 1
    if count < schema.min_input:
        return (
            f"{printable(node.op)} needs {counted(schema.min_input, 'input')}, and has {count}: repair the model first"
        )
    return ""


def _made_twice(graph: Graph) -> frozenset[str]:
    """Values that several nodes of a graph make, which graphsurgeon takes for one."""
    memo = graph.view.memo
    key = f"onnxlint.fixes.made_twice {graph.path}"
    if key not in memo:
        counts = Counter(name for node in graph.nodes for name in node.outputs if name)
        memo[key] = frozenset(name for name, count in counts.items() if count > 1)
    known: frozenset[str] = memo[key]
    return known


def _guarded(key: Key, run: Run, call: Callable[[], onnx.ModelProto | None]) -> onnx.ModelProto | None:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the model is as it was, and the failure reported
        run.fail(key, error)
    return None


def is_allowed(fix: Fix, request: Request) -> bool:
    """Whether the request covers a fix."""
    if fix.applicability is Applicability.SAFE:
        return True
    if fix.applicability is Applicability.ASSUMES:
        return all(holds(clause, dict(request.multiples)) for clause in (fix.condition or "").split(" and "))
    consent = fix.consent
    if consent is Consent.CONCAT_HEADS:
        return request.concat_heads == ()  # outputs that are named are joined whatever the rule says
    if consent is Consent.DROP_OUTPUT_ACTIVATIONS:
        return request.drop_output_activations
    if consent is Consent.CLAMP_FP16:
        return request.clamp_fp16
    if consent in (Consent.RENAME, Consent.DYNAMIC):
        return False  # done before all patches, or not at all: there is nothing to decide by a finding
    return request.unsafe
