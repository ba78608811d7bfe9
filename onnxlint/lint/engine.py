"""Rules over one model, and models over workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.graph.location import Location
from onnxlint.lint.custom import failure, is_built_in, no_exit
from onnxlint.lint.finding import CheckResult, FileError, Finding, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Rule
from onnxlint.model.metadata import IGNORE_KEY
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView
    from onnxlint.model.skeleton import Model


@dataclass(frozen=True)
class Plan:
    """What to do with each model: rules and how they are to be applied.

    Attributes:
        rules: The selected rules; no other one runs.
        options: Passed to every rule.
        severities: Overrides, by rule code.
        rule_paths: Files and folders that rules were loaded from, beside the installed ones.
        neighbourhoods: Whether findings get what is around them in the graph, for reports that draw it.
        fixes: Whether they also get what their fix makes of that.
        ignorable: Severities of findings that the model's own metadata may keep silent.
    """

    rules: tuple[type[Rule], ...]
    options: Options = field(default_factory=Options)
    severities: tuple[tuple[str, Severity], ...] = ()
    rule_paths: tuple[str, ...] = ()
    neighbourhoods: bool = False
    fixes: bool = False
    ignorable: tuple[Severity, ...] = (Severity.WARNING, Severity.INFO)

    def __reduce__(self) -> tuple[object, ...]:
        # Classes of local rule files cannot be imported by name in a worker: send codes, and load them there.
        codes = tuple(rule.code for rule in self.rules)
        return _rebuild_plan, (
            codes,
            self.options,
            self.severities,
            self.rule_paths,
            self.neighbourhoods,
            self.fixes,
            self.ignorable,
        )


def _rebuild_plan(
    codes: tuple[str, ...],
    options: Options,
    severities: tuple[tuple[str, Severity], ...],
    rule_paths: tuple[str, ...],
    neighbourhoods: bool,
    fixes: bool,
    ignorable: tuple[Severity, ...],
) -> Plan:
    registry = load_registry(rule_paths)
    rules = tuple(registry.rules[code] for code in codes)
    return Plan(rules, options, severities, rule_paths, neighbourhoods, fixes, ignorable)


class Checked(NamedTuple):
    """What rules say about a model.

    Attributes:
        findings: In a stable order.
        suppressed: Codes of the findings that the model's own metadata keeps silent, one for each.
        failures: What went wrong in rules; one line each.
    """

    findings: list[Finding]
    suppressed: tuple[str, ...]
    failures: list[str]


def check_view(view: GraphView, plan: Plan) -> Checked:
    """Run the plan's rules over one model."""
    findings: list[Finding] = []
    failures: list[str] = []
    severities = dict(plan.severities)
    for rule in plan.rules:
        try:
            with nullcontext() if is_built_in(rule) else no_exit():
                found = list(rule().check(view, plan.options))
        except OnnxlintError as error:
            failures.append(f"{rule.code} could not be checked: {error}")
            continue
        except MemoryError:
            failures.append(f"{rule.code} needs more memory than there is")
            continue
        except Exception as error:  # noqa: BLE001 - one rule must not take the others down
            failures.append(failure(rule, error))
            continue
        if rule.code in severities:
            found = [replace(finding, severity=severities[rule.code]) for finding in found]
        findings += found
    if view.stopped:
        failures.append(f"{view.stopped}; shapes are unknown, and rules about them found nothing")
    findings = _without_promises(view, _without_covered(findings))
    kept, suppressed = _without_ignored(view, findings, plan.ignorable)
    ordered = _fingerprinted(_ordered(view, kept))
    if plan.neighbourhoods:
        from onnxlint.lint.excerpt import with_neighbourhoods

        ordered = with_neighbourhoods(view, ordered, {rule.code: rule for rule in plan.rules} if plan.fixes else None)
    return Checked(ordered, suppressed, failures)


def check_model(model: Model, plan: Plan) -> CheckResult:
    """Run the plan's rules over an opened model."""

    started = time.perf_counter()
    try:
        findings, suppressed, failures = check_view(make_view(model), plan)
    except (OnnxlintError, MemoryError, RecursionError) as error:
        return CheckResult(model.path, error=FileError(model.path, _error_text(error, model.path)))
    return CheckResult(
        model.path,
        tuple(findings),
        FileError(model.path, f"{printable(model.path)}: {'; '.join(failures)}") if failures else None,
        len(suppressed),
        tuple(sorted(set(suppressed))),
        time.perf_counter() - started,
    )


def check_file(path: str, plan: Plan) -> CheckResult:
    """Open a model and run the plan's rules over it; a file that cannot be opened is a result too."""
    from onnxlint.model.skeleton import open_model

    started = time.perf_counter()
    try:
        model = open_model(path)
    except (OnnxlintError, MemoryError, RecursionError) as error:
        return CheckResult(path, error=FileError(path, _error_text(error, path)))
    return replace(check_model(model, plan), seconds=time.perf_counter() - started)


def _error_text(error: BaseException, path: str) -> str:
    """One line about what ended a check; it names the file."""
    if isinstance(error, MemoryError):
        return f"{printable(path)}: checking it needs more memory than is available; check fewer models at once (-j 1)"
    if isinstance(error, RecursionError):
        return f"{printable(path)}: nested too deeply to be checked"
    said = str(error)
    return said if said.startswith(printable(path)) else f"{printable(path)}: {said}"


def check_files(jobs: Sequence[tuple[str, Plan]], workers: int = 1) -> Iterator[CheckResult]:
    """Check models, in worker processes where that pays, and yield results in the order of `jobs`.

    Args:
        jobs: (path, plan) pairs.
        workers: Processes at most; 0 means one for each core.
    """
    workers = min(workers or usable_cores(), len(jobs))
    if workers <= 1 or any(path == "-" for path, _ in jobs):
        yield from (check_file(path, plan) for path, plan in jobs)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children

    others = set(active_children())
    pool = ProcessPoolExecutor(workers, initializer=_ignore_interrupts)
    try:
        pending: list[Future[CheckResult] | None] = []
        for path, plan in jobs:
            try:
                pending.append(pool.submit(check_file, path, plan))
            except BrokenProcessPool:  # a worker has died already
                pending.append(None)
        for (path, plan), future in zip(jobs, pending, strict=True):
            try:
                result = future.result() if future is not None else _check_alone(path, plan)
            except BrokenProcessPool:
                # A model that kills its worker breaks the pool for all the others: give each a process of its own.
                result = _check_alone(path, plan)
            yield result
    except BaseException:
        # Ctrl-C, or a caller that wants no more: do not wait for models that are half checked.
        pool.shutdown(wait=False, cancel_futures=True)
        workers_left = set(active_children()) - others
        for process in workers_left:
            process.terminate()
        for process in workers_left:
            process.join(timeout=1)
        raise
    pool.shutdown()


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the workers too, which would each print a traceback: the parent alone answers it.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's may raise, which the pool would hand on as a result


def usable_cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_alone(path: str, plan: Plan) -> CheckResult:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with ProcessPoolExecutor(1, initializer=_ignore_interrupts) as pool:
        try:
            return pool.submit(check_file, path, plan).result()
        except BrokenProcessPool:
            message = f"{printable(path)}: checking it killed the worker process; please report this model"
            return CheckResult(path, error=FileError(path, message))


ALWAYS_REPORTED = ("SEC", "SPC")
"""Prefixes of rules about files, not about execution: they also report nodes that never run."""


def _without_covered(findings: list[Finding]) -> list[Finding]:
    """Leave out findings at places where nothing ever runs, as another finding says."""
    nodes = {place for finding in findings for place in finding.covers if place[1] is not None}
    graphs = {path for finding in findings for path, index in finding.covers if index is None}
    if not nodes and not graphs:
        return findings

    def is_covered(finding: Finding) -> bool:
        place = finding.location
        if finding.code.startswith(ALWAYS_REPORTED):
            return False
        if (place.graph, place.index) in nodes and not finding.covers:
            return True
        return place.graph in graphs

    return [finding for finding in findings if not is_covered(finding)]


def _without_promises(view: GraphView, findings: list[Finding]) -> list[Finding]:
    """Findings of a model that no input can run have no fix: `onnxlint fix` refuses such a model."""
    from onnxlint.symbolic.demands import impossible_demands

    if not any(finding.fix for finding in findings) or next(impossible_demands(view), None) is None:
        return findings
    return [replace(finding, fix=None) for finding in findings]


NEVER_IGNORABLE = "SEC"
"""Prefix of rules that a model cannot silence: who made the model is not who has to trust it."""


def _without_ignored(
    view: GraphView, findings: list[Finding], ignorable: tuple[Severity, ...]
) -> tuple[list[Finding], tuple[str, ...]]:
    """Leave out what `onnxlint.ignore` in the model's or a node's metadata silences.

    Returns:
        (remaining text, codes removed from it).
    """
    everywhere = _ignore_list(view.proto.metadata_props)
    by_place: dict[tuple[str, int], frozenset[str]] = {}
    if findings:
        for graph in view.graphs:
            indices = {f.location.index for f in findings if f.location.graph == graph.path}
            for index in indices:
                if index is not None and index < len(graph.nodes):  # two graphs may have one path
                    by_place[(graph.path, index)] = _ignore_list(graph.nodes[index].proto.metadata_props)
    kept = []
    silenced = []
    for finding in findings:
        place = finding.location
        here = by_place.get((place.graph, place.index), frozenset()) if place.index is not None else frozenset()
        may = finding.severity in ignorable and not finding.code.startswith(NEVER_IGNORABLE)
        if may and any(_matches(selector, finding) for selector in everywhere | here):
            silenced.append(finding.code)
        else:
            kept.append(finding)
    return kept, tuple(silenced)


def _ignore_list(properties: Iterable[object]) -> frozenset[str]:
    for entry in properties:
        if getattr(entry, "key", "") == IGNORE_KEY:
            return frozenset(part for part in getattr(entry, "value", "").replace(",", " ").split() if part)
    return frozenset()


def _matches(selector: str, finding: Finding) -> bool:
    return selector in ("ALL", finding.name) or finding.code.startswith(selector.upper())


def _ordered(view: GraphView, findings: list[Finding]) -> list[Finding]:
    graphs = {graph.path: i for i, graph in enumerate(view.graphs)}

    def key(numbered: tuple[int, Finding]) -> tuple[int, int, str, int]:
        i, finding = numbered
        place = finding.location
        return graphs.get(place.graph, 0), -1 if place.index is None else place.index, finding.code, i

    return [finding for _, finding in sorted(enumerate(findings), key=key)]


def _fingerprinted(findings: list[Finding]) -> list[Finding]:
    """Give each finding an identity that survives re-export: no node numbers, no generated names."""
    seen: Counter[str] = Counter()
    out = []
    for finding in findings:
        key = "|".join(
            (finding.code, _stable_graph(finding.location), finding.location.scope, finding.location.op_type)
        )
        seen[key] += 1
        out.append(replace(finding, fingerprint=f"{key}|{seen[key]}"))
    return out


def _stable_graph(place: Location) -> str:
    """Graph path without node names: `graph/If_3.then_branch` → `graph/then_branch`."""
    if place.graph.startswith("function:"):
        return place.graph
    return "/".join(part.rsplit(".", 1)[-1] for part in place.graph.split("/"))
