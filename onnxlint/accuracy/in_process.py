"""A comparison in this process: the candidates by the inputs that they take, each group run, one report made of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.accuracy.comparison import Begin, Comparison
from onnxlint.accuracy.conditions import Condition, parse_conditions
from onnxlint.accuracy.inputs import Inputs, make_inputs
from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.participants import Participant, find_participants, versions_of
from onnxlint.accuracy.preflight import are_arrays
from onnxlint.accuracy.recipes import describe, groups_of
from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.accuracy.verdict import verdict
from onnxlint.backends import Progress, silent
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import Recipe
from onnxlint.lint.engines import Spread
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks import Task


def _nothing(_path: str, _backend: str, _what: str) -> None:
    """A `Begin` that tells nobody."""


def compare_here(
    reference: str,
    candidates: Sequence[str],
    inputs: ImageOptions,
    options: CompareOptions,
    progress: Progress = silent,
    begin: Begin = _nothing,
    spread: Spread | None = None,
) -> AccuracyReport:
    """As `onnxlint.accuracy.compare.compare`, in this process, after `require_usable`.

    Args:
        reference, candidates, inputs, options, progress: As for `compare`.
        begin: Called before each load and run of a model.
        spread: Runs the models on the inputs elsewhere; None: here.

    Raises:
        OnnxlintError: As for `compare`.
    """
    models = find_participants(reference, candidates)
    images = inputs.images
    reads_images = images is not None and not are_arrays(images)
    reports: dict[str, CandidateReport] = {}
    first: tuple[CandidateReport, Comparison, Recipe] | None = None
    groups = groups_of(models, inputs.recipe, inputs.shapes, reads_images, inputs.noted)
    for group in groups:
        comparison = _comparison([models[0], *group.candidates], group.recipe, inputs, options, progress, begin, spread)
        comparison.run(options.time)
        if first is None:
            first = comparison.report(models[0]), comparison, group.recipe
        for model in group.candidates:
            report = comparison.report(model)
            if options.layers or options.suggest:
                report = comparison.explained(model, report, options.layers, options.suggest)
            reports[model.name] = report if len(groups) == 1 else _at_size(report, group.recipe)
        models[0].meters.clear()
    assert first is not None
    judged, comparison, recipe = first
    conditions = parse_conditions(options.fail_if, None)
    ordered = tuple(_judged(reports[model.name], conditions) for model in models[1:])
    whole = AccuracyReport(
        reference=judged,
        candidates=ordered,
        inputs=comparison.count,
        source=comparison.inputs.source,
        recipe=describe(recipe) if images is not None else "",
        failures=tuple(text for report in ordered for text in report.failures),
        versions=versions_of(models),
        notes=tuple(_notes(comparison.inputs, images is not None, judged)),
    )
    return replace(whole, verdict=verdict(whole))


def _judged(report: CandidateReport, conditions: Iterable[Condition]) -> CandidateReport:
    return replace(report, failures=tuple(text for one in conditions if (text := one.failure(report))))


def _at_size(report: CandidateReport, recipe: Recipe) -> CandidateReport:
    if recipe.size is None:
        return report
    note = f"compared at {recipe.size[0]}×{recipe.size[1]}; the reference was run at that size too"
    return replace(report, notes=(*report.notes, note))


def _comparison(
    models: Sequence[Participant],
    recipe: Recipe,
    inputs: ImageOptions,
    options: CompareOptions,
    progress: Progress,
    begin: Begin,
    spread: Spread | None,
) -> Comparison:
    """A comparison that is ready to run.

    Raises:
        OnnxlintError: The inputs or the labels cannot be read, or do not fit.
    """
    reference = models[0]
    conditions = parse_conditions(options.fail_if, None if options.task else ())
    if reference.session is None:
        begin(reference.path, reference.backend.name, "loading")
    session = reference.open(options.threads)
    begin(reference.path, reference.backend.name, "running")
    sets = make_inputs(reference.path, session, inputs.images, recipe, inputs.shapes, options.threads)
    judge = _judge(options.task, options.labels, options.detection, recipe, sets)
    return Comparison(models, sets, judge, conditions, options.threads, progress, begin, spread)


def _judge(
    task: str | None, labels: str | None, detection: Mapping[str, Any] | None, recipe: Recipe, inputs: Inputs
) -> Task | None:
    if task is None:
        return None
    from onnxlint.accuracy.tasks import make_task

    return make_task(task, recipe=recipe, images=inputs.images, labels=labels, detection=detection)


def _notes(inputs: Inputs, with_images: bool, reference: CandidateReport) -> Iterator[str]:
    if not with_images:
        yield "the inputs are random numbers, which are not representative: give --images"
    for bad in inputs.unreadable[:5]:
        yield f"{printable(bad.path)}: skipped: {printable(bad.why)}"
    if len(inputs.unreadable) > 5:
        yield f"{counted(len(inputs.unreadable) - 5, 'more image')} skipped because they cannot be read"
    for one in reference.outputs:
        if one.nan_share or one.inf_share:
            yield f"the reference itself gives NaN or infinity at {printable(one.name)}"
