"""Patches to a fixed point, with verification and rollback.

A fix is a transaction: patches go in round by round, and at the end the Verifier runs both models. What broke it is found
by bisection over the patches, taken back and reported; the others stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.edits import apply_edits, edits_of, join
from onnxlint.fixes.heads import HeadsError
from onnxlint.graph.view import GraphView
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import Applicability, Finding, Fix
from onnxlint.lint.rule import Request, Rule, Unfixable
from onnxlint.model.assumptions import note_assumptions
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.verification.compare import Verification

MAX_ROUNDS = 10

Key = tuple[str, str, str]
"""What a finding is about, in words that patches elsewhere do not change: code, graph, value."""


@dataclass(frozen=True)
class Applied:
    """A finding that a patch did away with.

    Attributes:
        finding: As it was before.
        round: In which round, from 1.
        is_rounded: Whether the patch computes something anew, such as folded weights, so that results may differ in
            the last digits.
    """

    finding: Finding
    round: int
    is_rounded: bool = False

    @property
    def proof(self) -> str:
        """How far the patch can be trusted, in words."""
        fix = self.finding.fix
        if fix is None or fix.applicability is Applicability.SAFE:
            return "proved up to rounding" if self.is_rounded else "proved"
        if fix.applicability is Applicability.ASSUMES:
            return f"proved if {fix.condition}"
        return "asked for"


@dataclass(frozen=True)
class Left:
    """A finding that stays, and why."""

    finding: Finding
    why: str


@dataclass(frozen=True)
class FixReport:
    """What a fix did.

    Attributes:
        model: The model as the user named it.
        asked: Changes that the user named in so many words, such as outputs to join; one line each.
        applied: Findings that patches did away with, in order.
        shortened: Findings that a patch made less of, and that stay: a shape chain that has to be computed.
        left: Findings of the result.
        rolled_back: Patches that were taken back, and why.
        conditions: What the result assumes about its inputs.
        nodes: Nodes before and after, Constants not counted.
        verification: The comparison of both models; None where it was not asked for.
        changed: Whether the result differs from the original at all.
        seconds: Wall time, verification included.
    """

    model: str
    asked: tuple[str, ...]
    applied: tuple[Applied, ...]
    shortened: tuple[Applied, ...]
    left: tuple[Left, ...]
    rolled_back: tuple[Left, ...]
    conditions: tuple[str, ...]
    nodes: tuple[int, int]
    verification: Verification | None
    changed: bool
    seconds: float


@dataclass
class _Run:
    """One run to the fixed point.

    Attributes:
        proto: The result.
        reference: The original with only those changes that were asked for (joined heads, dropped activations): what the
            result has to equal.
    """

    proto: onnx.ModelProto
    reference: onnx.ModelProto
    asked: list[str] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    failed: dict[Key, Left] = field(default_factory=dict)
    left: list[Finding] = field(default_factory=list)


def fix_model(
    model: Model,
    plan: Plan,
    request: Request,
    verify: Callable[[onnx.ModelProto, onnx.ModelProto, bool, Sequence[str]], Verification] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[onnx.ModelProto, FixReport]:
    """Fix all that the plan's rules find and the request allows.

    Args:
        model: The opened model.
        plan: The rules.
        request: What is wanted beside what is safe.
        verify: Compares (reference, result, whether they have to be bit-equal, conditions); None leaves it out.
        progress: Told what is being done.

    Returns:
        The fixed skeleton (the original object where nothing changed), and the report.

    Raises:
        OnnxlintError: The model cannot be read, or a rule failed on it.
    """
    started = time.perf_counter()
    banned: dict[Key, str] = {}
    rules = {rule.code: rule for rule in plan.rules}
    original = model.proto
    edited = apply_edits(model, edits_of(request))
    model = replace(model, proto=edited.proto)
    while True:
        progress("fixing")
        run = _to_fixed_point(model, plan, request, rules, banned, limit=None)
        verification = None
        if verify is None or run.proto is run.reference:
            break
        progress("verifying")
        verification = verify(run.reference, run.proto, *_terms(run, rules))
        if verification.equal or not run.applied:
            break
        guilty = _bisect(model, plan, request, rules, banned, run, verify, progress)
        banned[_key(guilty.finding)] = f"with it the outputs differ: {verification.summary()}"
    if request.concat_heads == () and not any(_flag(applied) == "--concat-heads" for applied in run.applied):
        raise HeadsError(
            f"{printable(model.path)}: --concat-heads: no heads were found that fit together; "
            f"name them: --concat-heads {','.join(printable(o.name) for o in model.proto.graph.output)}"
        )
    conditions = _conditions(run.applied)
    proto = _with_metadata(run.proto, conditions) if conditions else run.proto
    # A finding about several nodes can take several rounds: it is still one.
    patched = {_key(applied.finding): applied for applied in reversed(run.applied)}
    left = {_key(finding) for finding in run.left}
    in_order = list(patched.items())[::-1]
    return proto, FixReport(
        model=model.path,
        asked=(*edited.done, *run.asked),
        applied=tuple(applied for key, applied in in_order if key not in left),
        shortened=tuple(applied for key, applied in in_order if key in left),
        left=tuple(Left(f, _why_left(f, run.failed.get(_key(f)), banned.get(_key(f)), request)) for f in run.left),
        rolled_back=tuple(Left(f, banned[_key(f)]) for f in run.left if _key(f) in banned),
        conditions=tuple(conditions),
        nodes=(_count(original), _count(proto)),
        verification=verification,
        changed=proto is not original,
        seconds=time.perf_counter() - started,
    )


def _to_fixed_point(
    model: Model,
    plan: Plan,
    request: Request,
    rules: dict[str, type[Rule]],
    banned: dict[Key, str],
    limit: int | None,
) -> _Run:
    """Rounds of patches until nothing is left to fix; at most `limit` safe patches."""
    run = _Run(model.proto, model.proto)
    view: GraphView | None = None
    # First what was asked for: it makes the reference that everything else is measured against.
    for stage in ("asked", "proved"):
        for number in range(1, MAX_ROUNDS + 1):
            if view is None or view.proto is not run.proto:
                view = make_view(replace(model, proto=run.proto), multiples=request.multiples)
                run.left = _findings(view, plan)
            todo = [
                finding
                for finding in run.left
                if finding.fix is not None
                and _key(finding) not in banned
                and _key(finding) not in run.failed
                and (
                    allowed(finding.fix, request)
                    and (finding.fix.applicability is Applicability.UNSAFE) == (stage == "asked")
                )
            ]
            if limit is not None and stage == "proved":
                todo = todo[: limit - sum(not _is_unsafe(a) for a in run.applied)]
            if not todo:
                break
            proto = _round(view, todo, rules, request, run, number)
            if proto is run.proto:
                break
            run.proto = proto
        if stage == "asked":
            if request.concat_heads:
                edited = join(make_view(replace(model, proto=run.proto)), request)
                run.proto = edited.proto
                run.asked += edited.done
            run.reference = run.proto
    return run


def _is_unsafe(applied: Applied) -> bool:
    fix = applied.finding.fix
    return fix is not None and fix.applicability is Applicability.UNSAFE


def _flag(applied: Applied) -> str | None:
    return applied.finding.fix.flag if applied.finding.fix is not None else None


def _findings(view: GraphView, plan: Plan) -> list[Finding]:
    findings, _, failures = check_view(view, plan)
    if failures:
        raise OnnxlintError(f"{printable(view.model.path)}: {'; '.join(failures)}")
    return findings


def _round(
    view: GraphView, todo: list[Finding], rules: dict[str, type[Rule]], request: Request, run: _Run, number: int
) -> onnx.ModelProto:
    """One round: a rewrite of the whole model, or all patches that do not touch the same nodes."""
    for finding in todo:
        rewritten = _guarded(finding, run, lambda f=finding: rules[f.code]().rewrite(f, view, request))  # type: ignore[misc]
        if rewritten is not None:
            run.applied.append(Applied(finding, number, rules[finding.code].arithmetic))
            return rewritten
    from onnxlint.surgery.surgeon import AlreadyPatched, Surgeon

    while True:
        surgeon = Surgeon(view)
        applied: list[Applied] = []
        for finding in todo:
            if _key(finding) in run.failed:
                continue
            surgeon.begin()
            try:
                rules[finding.code]().patch(finding, view, surgeon, request)
            except AlreadyPatched:
                continue
            except Unfixable as why:
                run.failed[_key(finding)] = Left(finding, str(why))
                continue
            except OnnxlintError as error:
                run.failed[_key(finding)] = Left(finding, str(error))
                break
            except Exception as error:  # noqa: BLE001 - the graph is thrown away, and the failure reported
                run.failed[_key(finding)] = Left(finding, _failure(error))
                break
            surgeon.end()
            applied.append(Applied(finding, number, rules[finding.code].arithmetic))
        else:
            run.applied += applied
            return surgeon.close()
        # A patch failed half way: begin again without it.


def _guarded(finding: Finding, run: _Run, call: Callable[[], onnx.ModelProto | None]) -> onnx.ModelProto | None:
    try:
        return call()
    except (Unfixable, OnnxlintError) as why:
        run.failed[_key(finding)] = Left(finding, str(why))
    except Exception as error:  # noqa: BLE001 - the model is as it was, and the failure reported
        run.failed[_key(finding)] = Left(finding, _failure(error))
    return None


def _failure(error: Exception) -> str:
    return f"its patch failed with {type(error).__name__}: {printable(str(error))[:200]}; please report it"


def allowed(fix: Fix, request: Request) -> bool:
    """Whether the request covers a fix."""
    if fix.applicability is Applicability.SAFE:
        return True
    if fix.applicability is Applicability.ASSUMES:
        return all(_holds(clause, dict(request.multiples)) for clause in (fix.condition or "").split(" and "))
    if fix.flag == "--concat-heads":
        return request.concat_heads == ()  # outputs that are named are joined whatever the rule says
    if fix.flag == "--drop-output-activations":
        return request.drop_output_activations
    if fix.flag == "--clamp-fp16":
        return request.clamp_fp16
    if (fix.flag or "").startswith(("--rename", "--dynamic")):
        return False  # done before all patches, or not at all: there is nothing to decide by a finding
    return request.unsafe


_CLAUSE = re.compile(r"(.+) % (\d+) == 0")


def _holds(clause: str, multiples: dict[str, int]) -> bool:
    match = _CLAUSE.fullmatch(clause)
    return match is not None and multiples.get(match[1], 1) % int(match[2]) == 0


def _terms(run: _Run, rules: dict[str, type[Rule]]) -> tuple[bool, list[str]]:
    exact = not any(rules[applied.finding.code].arithmetic for applied in run.applied)
    return exact, _conditions(run.applied)


def _conditions(applied: Sequence[Applied]) -> list[str]:
    """The strictest clause for each symbol."""
    strictest: dict[str, int] = {}
    others: dict[str, None] = {}
    for one in applied:
        fix = one.finding.fix
        if fix is None or fix.applicability is not Applicability.ASSUMES:
            continue
        for clause in (fix.condition or "").split(" and "):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                others[clause] = None
            else:
                strictest[match[1]] = max(strictest.get(match[1], 1), int(match[2]))
    return [*(f"{symbol} % {m} == 0" for symbol, m in strictest.items()), *others]


def _bisect(
    model: Model,
    plan: Plan,
    request: Request,
    rules: dict[str, type[Rule]],
    banned: dict[Key, str],
    run: _Run,
    verify: Callable[[onnx.ModelProto, onnx.ModelProto, bool, Sequence[str]], Verification],
    progress: Callable[[str], None],
) -> Applied:
    """The patch without which, and all after it, both models agree."""
    patches = [applied for applied in run.applied if not _is_unsafe(applied)]
    good, bad = 0, len(patches)
    while bad - good > 1:
        middle = (good + bad) // 2
        progress(f"the outputs differ: looking for the patch ({bad - good} left)")
        trial = _to_fixed_point(model, plan, request, rules, banned, limit=middle)
        if verify(trial.reference, trial.proto, *_terms(trial, rules)).equal:
            good = middle
        else:
            bad = middle
    return patches[bad - 1]


def _key(finding: Finding) -> Key:
    place = finding.location
    return finding.code, place.graph, place.value or place.node or f"{place.op_type} #{place.index}"


def _why_left(finding: Finding, failed: Left | None, banned: str | None, request: Request) -> str:
    if banned is not None:
        return banned
    if failed is not None:
        return failed.why
    fix = finding.fix
    if fix is None:
        return dict(finding.evidence).get("not fixed", "") or finding.help
    if fix.applicability is Applicability.ASSUMES:
        return f"exact if {fix.condition}: allow it with --assume '{(fix.condition or '').replace(' and ', ',')}'"
    if fix.applicability is Applicability.UNSAFE:
        return f"changes results or the interface: ask for it with {fix.flag or '--unsafe'}"
    return "not settled within the rounds allowed" if allowed(fix, request) else ""


def _with_metadata(proto: onnx.ModelProto, conditions: Sequence[str]) -> onnx.ModelProto:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    note_assumptions(model, conditions)
    return model


def _count(proto: onnx.ModelProto) -> int:
    return sum(node.op_type != "Constant" for node in proto.graph.node)
