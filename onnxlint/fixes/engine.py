"""Patches to a fixed point, with verification and rollback.

A fix is a transaction: edits that were asked for, then patches round by round, then both models are run. What broke the
result is found by bisection over the patches, taken back and reported; the others stay. An edit that was asked for and
breaks the model is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import strictest
from onnxlint.fixes.demands import refuse_impossible
from onnxlint.fixes.edits import Edited, apply_edits, edits_of
from onnxlint.fixes.empty import needs_elements
from onnxlint.fixes.heads import HeadsError
from onnxlint.fixes.interface import interface_of
from onnxlint.fixes.results import Applied, FixReport, Key, Left, Simplified
from onnxlint.fixes.rounds import Job, Run, is_allowed, resume_rounds, run_rounds
from onnxlint.fixes.static_sizes import at_batch
from onnxlint.fixes.trace import Untraceable
from onnxlint.lint.engine import Plan
from onnxlint.lint.finding import Applicability, Consent, Finding, Fix
from onnxlint.lint.rule import Request
from onnxlint.model.assumptions import note_assumptions
from onnxlint.model.metadata import MIN_SIZE_KEY, metadata
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.text import listed, printable
from onnxlint.verification.interface import UNCHANGED, Interface

if TYPE_CHECKING:
    import onnx

    from onnxlint.verification.results import Verification


class Compare(Protocol):
    """Runs a reference and a result on the same inputs."""

    def __call__(
        self,
        reference: onnx.ModelProto,
        result: onnx.ModelProto,
        exact: bool,
        conditions: Sequence[str],
        interface: Interface = UNCHANGED,
    ) -> Verification:
        """Compare two skeletons.

        Args:
            reference: The model that the result has to equal.
            result: The other one.
            exact: Whether outputs have to be bit-equal.
            conditions: Assumptions about sizes of inputs.
            interface: How the result's inputs and outputs differ from the reference's.
        """


def fix_model(
    model: Model,
    plan: Plan,
    request: Request,
    verify: Compare | None = None,
    progress: Callable[[str], None] = lambda text: None,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[onnx.ModelProto, FixReport]:
    """Fix all that the plan's rules find and the request allows.

    Args:
        model: The opened model.
        plan: The rules.
        request: What is wanted beside what is safe.
        verify: Compares both models; None leaves that out.
        progress: Called with the current action.
        prepare: Called as soon as the model is sure to change, or likely to: it may make ready what `verify` needs.

    Returns:
        The fixed skeleton (the original object where nothing changed), and the report.

    Raises:
        OnnxlintError: The model cannot be read, a rule failed on it, or something that was asked for is impossible.
    """
    started = time.perf_counter()
    view = make_view(model, None, request.multiples, request.allow_empty)
    refuse_impossible(view)
    edited = apply_edits(model, edits_of(request))
    if edited.proto is not model.proto:
        view = make_view(replace(model, proto=edited.proto), None, request.multiples, request.allow_empty)
    if request.drop_output_activations:
        plan = replace(plan, options=replace(plan.options, all_activations=True))
    job = Job(view.model, plan, request, view, prepare=prepare)
    if edited.proto is not model.proto:
        prepare()
    progress("fixing")
    run = run_rounds(job)
    _require_heads(job, run)
    simplified = None
    if request.simplify:
        simplified = _simplify(job, run, progress)
    verification = None
    not_compared: tuple[str, ...] = ()
    if verify is not None:
        check = _Check(model, edited, verify)
        run, simplified, verification = _verified(job, run, simplified, check, progress)
        not_compared = check.not_compared(run) if verification is not None else ()
    if run.unproven and (verification is None or not verification.verified):
        why = "--no-verify" if verify is None else verification.summary() if verification is not None else ""
        raise HeadsError(
            f"{printable(model.path)}: --concat-heads: whether {run.unproven[0]} cannot be told from the graph, and was not "
            f"seen ({why}): the model has to be run"
        )
    conditions = _conditions(edited, run)
    has_minimum = run.has_minimum or (run.proto is not model.proto and _has_minimum(model, job.model, run))
    proto = _with_metadata(run.proto, conditions, has_minimum) if conditions or has_minimum else run.proto
    report = _report(model, edited, job, run, proto)
    return proto, replace(
        report,
        verification=verification,
        not_compared=not_compared,
        simplified=simplified,
        has_minimum=has_minimum,
        seconds=time.perf_counter() - started,
    )


def _require_heads(job: Job, run: Run) -> None:
    """Heads that were asked for are joined.

    Raises:
        HeadsError: No rule found any.
    """
    if job.request.concat_heads != ():
        return
    if Consent.CONCAT_HEADS not in {one.finding.fix.consent for one in run.applied if one.finding.fix is not None}:
        names = ",".join(printable(output.name) for output in job.model.proto.graph.output)
        raise HeadsError(
            f"{printable(job.model.path)}: --concat-heads: found no heads that can be joined; name them in their order: "
            f"--heads {names}"
        )


# Verification


@dataclass(frozen=True)
class _Check:
    """Data of a comparison besides the run.

    Attributes:
        model: The original.
        edited: The edited model.
        compare: Runs both.
    """

    model: Model
    edited: Edited
    compare: Compare

    def of(self, run: Run) -> Verification:
        """Compare a run's result with the original or, if outputs were changed on purpose, with the requested model."""
        is_rewritten = run.is_simplified or not self.edited.exact
        exact = not is_rewritten and not any(one.is_rounded for one in run.applied if not one.is_unsafe)
        conditions = _conditions(self.edited, run)
        interface = self._interface(run)
        if interface is None and run.proto is run.reference:
            from onnxlint.verification.results import Verification

            return Verification(skipped="all that changed was changed on purpose")
        if interface is None:
            return self.compare(run.reference, run.proto, exact, conditions)
        batches = {fix.batch for fix in _unsafe(run) if fix.batch}
        original = at_batch(self.model, batches.pop()) if batches else self.model.proto
        return self.compare(original, run.proto, exact, conditions, interface)

    def _interface(self, run: Run) -> Interface | None:
        if _on_purpose(run):
            return None
        try:
            return interface_of(make_view(self.model), run.reference, self.edited)
        except Untraceable:
            return None

    def not_compared(self, run: Run) -> tuple[str, ...]:
        """What the comparison leaves out."""
        if self._interface(run) is not None:
            return ()
        flags = dict.fromkeys(_on_purpose(run))
        if not flags:
            return ("the activations that were dropped",)
        return (f"what {listed(flags)} changed on purpose",)


def _on_purpose(run: Run) -> list[str]:
    """Options whose patches changed the numbers of outputs on purpose, so that nothing can equal the original."""
    comparable = (None, Consent.CONCAT_HEADS, Consent.DROP_OUTPUT_ACTIVATIONS)
    fixes = _unsafe(run)
    kept = {0} if len({fix.batch for fix in fixes if fix.batch}) > 1 else {fix.batch for fix in fixes} - {0}
    return [
        fix.consent.value
        for fix in fixes
        if fix.consent is not None and fix.consent not in comparable and fix.batch not in kept
    ]


def _unsafe(run: Run) -> list[Fix]:
    return [one.finding.fix for one in run.applied if one.is_unsafe and one.finding.fix is not None]


def _verified(
    job: Job, run: Run, simplified: Simplified | None, check: _Check, progress: Callable[[str], None]
) -> tuple[Run, Simplified | None, Verification | None]:
    """A run whose result equals the original: patches that break it are rolled back.

    Raises:
        OnnxlintError: A requested change breaks the model.
    """
    while True:
        if run.proto is check.model.proto:
            return run, simplified, None
        progress("verifying")
        verification = check.of(run)
        is_simplified = run.is_simplified and simplified is not None and not simplified.refused
        if verification.equal and (not is_simplified or verification.verified):
            return run, simplified, verification
        if is_simplified:
            # Without it first: all else is proved.
            why = "it cannot be verified" if verification.equal else "with it the outputs differ"
            simplified = Simplified(refused=f"{why}: {verification.summary()}")
            run = run_rounds(job)
            continue
        of_batches = [one for one in run.applied if one.finding.fix is not None and one.finding.fix.batch]
        if of_batches and not check.of(run_rounds(job, limit=0)).equal:
            why = f"with it samples of a batch do not get what they get alone: {verification.summary()}"
            job.banned.update((one.key, why) for one in of_batches)
            run = run_rounds(job)
            continue
        guilty = _bisect(job, run, check, verification, progress)
        job.banned[guilty.key] = f"with it the outputs differ: {verification.summary()}"
        run = run_rounds(job)


def _bisect(job: Job, run: Run, check: _Check, verification: Verification, progress: Callable[[str], None]) -> Applied:
    """The patch without which, and all after it, both models agree.

    Raises:
        OnnxlintError: They do not agree without any patch.
    """
    patches = [applied for applied in run.applied if not applied.is_unsafe]
    asked = run_rounds(job, limit=0)
    if not patches or (asked.proto is not check.model.proto and not check.of(asked).equal):
        what = "; ".join((*check.edited.done, *run.asked)) or "what was asked for"
        raise OnnxlintError(
            f"{printable(job.model.path)}: {what}: the result differs from the original "
            f"({verification.summary()}); nothing was written"
        )
    good, bad = 0, len(patches)
    while bad - good > 1:
        middle = (good + bad) // 2
        progress(f"the outputs differ: looking for the patch ({bad - good} left)")
        if check.of(run_rounds(job, limit=middle)).equal:
            good = middle
        else:
            bad = middle
    return patches[bad - 1]


def _simplify(job: Job, run: Run, progress: Callable[[str], None]) -> Simplified:
    """Let onnxsim go over a run's result, and the rules over onnxsim's."""
    from onnxlint.fixes.simplify import simplify

    progress("simplifying")
    outcome = simplify(job.model, run.proto)
    if outcome.proto is None:
        return Simplified(refused=outcome.refused)
    resume_rounds(job, run, outcome.proto)
    return Simplified(outcome.removed)


# The report


def _report(model: Model, edited: Edited, job: Job, run: Run, proto: onnx.ModelProto) -> FixReport:
    # A finding about several nodes can take several rounds: it is still one.
    patched: dict[Key, Applied] = {}
    for applied in run.applied:
        earlier = patched.get(applied.key)
        patched[applied.key] = applied if earlier is None else _together(earlier, applied)
    left = {key for key, _ in run.left}
    return FixReport(
        model=model.path,
        asked=(*edited.done, *run.asked),
        applied=tuple(applied for key, applied in patched.items() if key not in left),
        shortened=tuple(applied for key, applied in patched.items() if key in left),
        left=tuple(
            Left(finding, _why_left(finding, job.banned.get(key) or run.failed.get(key, ""), job))
            for key, finding in run.left
        ),
        rolled_back=tuple(Left(finding, job.banned[key]) for key, finding in run.left if key in job.banned),
        conditions=tuple(_conditions(edited, run)),
        nodes=(_count(model.proto), _count(proto)),
        verification=None,
        changed=proto is not model.proto,
        seconds=0.0,
    )


def _together(one: Applied, other: Applied) -> Applied:
    """Two patches of one finding, round by round, as one: it holds under the conditions of both."""
    if one.is_unsafe or other.is_unsafe:
        return one if one.is_unsafe else other
    fixes = [applied.finding.fix for applied in (one, other) if applied.finding.fix is not None]
    conditions = strictest(clause for fix in fixes for clause in _clauses(fix))
    is_rounded = one.is_rounded or other.is_rounded
    if not conditions:
        return replace(one, is_rounded=is_rounded)
    fix = replace(fixes[-1], applicability=Applicability.ASSUMES, condition=" and ".join(conditions))
    return replace(one, finding=replace(one.finding, fix=fix), is_rounded=is_rounded)


def _conditions(edited: Edited, run: Run) -> list[str]:
    """The strictest condition for each symbol, of edits and patches."""
    fixes = [applied.finding.fix for applied in run.applied]
    return strictest(
        (*edited.conditions, *run.conditions, *(clause for fix in fixes if fix is not None for clause in _clauses(fix)))
    )


def _clauses(fix: Fix) -> list[str]:
    if fix.applicability is not Applicability.ASSUMES:
        return []
    return (fix.condition or "").split(" and ")


def _why_left(finding: Finding, failed: str, job: Job) -> str:
    if failed:
        return failed.removeprefix(f"{printable(job.model.path)}: ")
    fix = finding.fix
    if fix is None:
        return dict(finding.evidence).get("not fixed", "") or finding.help
    if fix.applicability is Applicability.ASSUMES:
        clauses = ",".join(strictest(_clauses(fix)))
        return f"exact if {fix.condition}: allow it with --assume '{clauses}'"
    if fix.applicability is Applicability.UNSAFE:
        return f"changes outputs or the interface; enable with {fix.flag or '--unsafe'}"
    return "not settled within the rounds allowed" if is_allowed(fix, job.request) else ""


def _has_minimum(model: Model, edited: Model, run: Run) -> bool:
    """Whether sizes are taken for at least 1; patches were made of what edits let them know."""
    result = make_view(replace(model, proto=run.proto), allow_empty=True)
    known = [model] if edited.proto is model.proto or edited.proto is run.proto else [model, edited]
    return any(needs_elements(result, make_view(one, allow_empty=True)) for one in known)


def _with_metadata(proto: onnx.ModelProto, conditions: Sequence[str], has_minimum: bool) -> onnx.ModelProto:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    if conditions:
        note_assumptions(model, conditions)
    if has_minimum and MIN_SIZE_KEY not in metadata(model):
        model.metadata_props.add(key=MIN_SIZE_KEY, value="1")
    return model


def _count(proto: onnx.ModelProto) -> int:
    return sum(node.op_type != "Constant" for node in proto.graph.node)
