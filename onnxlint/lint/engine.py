"""Rules over one model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.graph.location import Location
from onnxlint.lint.custom import failure, is_built_in, no_exit
from onnxlint.lint.finding import Applicability, CheckResult, FileError, Finding, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Rule
from onnxlint.model.metadata import IGNORE_KEY
from onnxlint.model.skeleton import is_external, open_model, walk_tensors
from onnxlint.store.ranges import RemoteBytes
from onnxlint.store.urls import without_secrets
from onnxlint.symbolic.free_sizes import free_sizes, option_for
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
        cached: Whether results are kept, so that it matters which may be.
    """

    rules: tuple[type[Rule], ...]
    options: Options = field(default_factory=Options)
    severities: tuple[tuple[str, Severity], ...] = ()
    rule_paths: tuple[str, ...] = ()
    neighbourhoods: bool = False
    fixes: bool = False
    ignorable: tuple[Severity, ...] = (Severity.WARNING, Severity.INFO)
    cached: bool = False

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
            self.cached,
        )


def _rebuild_plan(
    codes: tuple[str, ...],
    options: Options,
    severities: tuple[tuple[str, Severity], ...],
    rule_paths: tuple[str, ...],
    neighbourhoods: bool,
    fixes: bool,
    ignorable: tuple[Severity, ...],
    cached: bool,
) -> Plan:
    registry = load_registry(rule_paths)
    rules = tuple(registry.rules[code] for code in codes)
    return Plan(rules, options, severities, rule_paths, neighbourhoods, fixes, ignorable, cached)


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
            if is_built_in(rule):
                found = list(rule().check(view, plan.options))
            else:
                with no_exit():
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
    findings = _with_options(view, _without_promises(view, _without_covered(findings)))
    kept, suppressed = _without_ignored(view, findings, plan.ignorable)
    ordered = _fingerprinted(_ordered(view, kept))
    if plan.neighbourhoods:
        from onnxlint.lint.excerpt import with_neighbourhoods

        ordered = with_neighbourhoods(view, ordered, {rule.code: rule for rule in plan.rules} if plan.fixes else None)
    return Checked(ordered, suppressed, failures)


def check_model(model: Model, plan: Plan) -> CheckResult:
    """Run the plan's rules over an opened model."""

    started = time.perf_counter()
    view: GraphView | None = None
    try:
        view = make_view(model)
        findings, suppressed, failures = check_view(view, plan)
    except (OnnxlintError, MemoryError, RecursionError) as error:
        return CheckResult(model.path, error=FileError(model.path, _error_text(error, model.path)))
    finally:
        if view is not None:
            _release(view)
    cacheable = plan.cached and not any(map(is_external, walk_tensors(model.proto)))
    return CheckResult(
        model.path,
        tuple(findings),
        FileError(model.path, f"{printable(model.path)}: {'; '.join(failures)}") if failures else None,
        len(suppressed),
        tuple(sorted(set(suppressed))),
        time.perf_counter() - started,
        (model.note,) if model.note else (),
        cacheable,
        model.buffer.identity if cacheable and isinstance(model.buffer, RemoteBytes) else "",
    )


def _release(view: GraphView) -> None:
    """Free a view that nobody reads any more at once: its nodes and graphs refer to each other in circles."""
    for graph in view.graphs:
        graph.__dict__.clear()
    view.__dict__.clear()


def check_file(path: str, plan: Plan) -> CheckResult:
    """Open a model and run the plan's rules over it; a file that cannot be opened is a result too."""
    started = time.perf_counter()
    try:
        model = open_model(path, remote=True)
    except (OnnxlintError, MemoryError, RecursionError) as error:
        name = without_secrets(path)
        return CheckResult(name, error=FileError(name, _error_text(error, name)))
    return replace(check_model(model, plan), seconds=time.perf_counter() - started)


def _error_text(error: BaseException, path: str) -> str:
    """One line about what ended a check; it names the file."""
    if isinstance(error, MemoryError):
        return f"{printable(path)}: checking it needs more memory than is available; check fewer models at once (-j 1)"
    if isinstance(error, RecursionError):
        return f"{printable(path)}: nested too deeply to be checked"
    said = str(error)
    return said if said.startswith(printable(path)) else f"{printable(path)}: {said}"


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


def _with_options(view: GraphView, findings: list[Finding]) -> list[Finding]:
    """Findings whose fixes are exact under a condition have the option that allows it."""
    if not any(finding.fix is not None and finding.fix.condition for finding in findings):
        return findings
    sizes = free_sizes(view)
    return [
        replace(finding, fix=replace(fix, flag=option_for(sizes, fix.condition)))
        if (fix := finding.fix) is not None and fix.condition and fix.applicability is Applicability.ASSUMES
        else finding
        for finding in findings
    ]


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
