"""The steps of a deployment: check, fix, convert, compare, samples."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from onnxlint.accuracy.loss import loss_for
from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Array, Artifact, Backend, Decision, Target, backend_for
from onnxlint.conversion.child import call_in_child
from onnxlint.conversion.manifest import read_manifest
from onnxlint.conversion.session import Failure, convert, find_targets
from onnxlint.deployment.journal import OpenStep
from onnxlint.deployment.options import Options
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.options import FixOptions
from onnxlint.graph.view import GraphView
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, Recipe, tensors
from onnxlint.lint.finding import Finding
from onnxlint.lint.targets import names as target_names
from onnxlint.model.skeleton import external_files, open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import counted, printable, size

SAMPLES = "samples"
"""Name of the folder of samples."""

_Classes = Sequence[str] | Callable[[int], Sequence[str]]

CLASSES = "classes.txt"
"""Name of the list of classes."""

_SAMPLE_SECONDS = 300


def targets_of(to: Sequence[str]) -> list[tuple[Backend, Target]]:
    """Backends and targets by name; none where none is named."""
    return find_targets(to) if to else []


def by_backend(to: Sequence[str]) -> list[list[Target]]:
    """The targets of each backend: what several of them need is made once."""
    groups: dict[str, list[Target]] = {}
    for backend, target in targets_of(to):
        groups.setdefault(backend.name, []).append(target)
    return list(groups.values())


# Check


def check_model(path: str, to: Sequence[str], options: Options) -> tuple[Finding, ...]:
    """The findings in a model, with the rules for the backends of the targets.

    Raises:
        OnnxlintError: It cannot be checked.
    """
    from onnxlint.lint.session import Check

    own = {getattr(backend, "lint_target", backend.name) for backend, _ in targets_of(to)}
    lint = sorted(own & set(target_names()))
    run = Check([path], options.configs(targets=tuple(lint) or None)).run()
    for result in run.results:
        if result.error is not None:
            raise OnnxlintError(result.error.message)
    return tuple(finding for result in run.results for finding in result.findings)


def finding_line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.code} {printable(finding.location.place)}: {finding.message}"


def summary_of(findings: Sequence[Finding]) -> str:
    """`3 findings: SHP001 ×2, OUT002`."""
    codes = Counter(finding.code for finding in findings)
    shown = ", ".join(f"{code} ×{count}" if count > 1 else code for code, count in codes.items())
    return f"{counted(len(findings), 'finding')}: {shown}" if findings else "no findings"


# Fix


@dataclass(frozen=True)
class Fixes:
    """Which fixes are applied beside the safe ones."""

    multiple_of: int | None
    assumptions: tuple[str, ...]
    concat_heads: bool
    drop_output_activations: bool


def fix_model(path: str, fixed: str, fixes: Fixes, options: Options, step: OpenStep) -> None:
    """Fix a model and write it; heads that do not fit together stay separate."""
    from onnxlint.fixes.heads import HeadsError
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.rule import Request
    from onnxlint.report.fix import render_fix

    def report_step(what: str) -> None:
        step.progress(f"fix: {what}")

    request = Request(
        concat_heads=() if fixes.concat_heads else None, drop_output_activations=fixes.drop_output_activations
    )
    wanted = FixOptions(request, fixes.assumptions, fixes.multiple_of)
    configs = options.configs()
    try:
        done = fix_path(path, configs, wanted, report_step)
    except HeadsError as error:
        step.lines += (f"heads stay separate outputs: {error}",)
        wanted = replace(wanted, request=replace(request, concat_heads=None))
        done = fix_path(path, configs, wanted, report_step)
    write(done, fixed)
    step.files += (fixed, *external_files(open_model(fixed)))
    step.lines += tuple(line for line in render_fix(done.report, fixed, "deploy").splitlines()[1:] if line.strip())


# Convert


def convert_model(
    fixed: str, folder: str, names: Sequence[str], recipe: Recipe, options: Options, step: OpenStep
) -> tuple[Failure, ...]:
    """Make the files of some targets; returns those that failed."""
    inputs = ImageOptions(options.images, recipe, options.shapes)
    task = loss_for(fixed, options.comparing.task, options.comparing.detection) if options.images is not None else None
    how = replace(options.converting, task=task)
    made = convert(fixed, names, inputs, how, out_dir=folder, progress=step.journal.progress)
    for failure in made.failures:
        step.fail(f"{failure.target}: {failure.message}")
    for artifact in made.artifacts:
        step.files += artifact.files
        shown = ", ".join(f"{os.path.basename(file)} ({size(os.path.getsize(file))})" for file in artifact.files)
        step.lines += (f"{artifact.target}: {printable(shown)}", *(f"  {note}" for note in artifact.notes))
    return made.failures


def read_artifacts(folder: str, fixed: str, names: Sequence[str]) -> tuple[Artifact, ...]:
    """Entries of the manifest in the folder for targets.

    Raises:
        OnnxlintError: It does not describe them.
    """
    if not names:
        return ()
    path = os.path.splitext(fixed)[0] + ".onnxlint.json"
    entries = read_manifest(path)["targets"]
    try:
        return tuple(
            Artifact(
                name,
                tuple(os.path.join(folder, os.path.basename(file["path"])) for file in entries[name]["files"]),
                tuple(Decision(**decision) for decision in entries[name]["decisions"]),
                tuple(map(printable, entries[name]["notes"])),
                dict(entries[name]["details"]),
            )
            for name in names
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OnnxlintError(
            f"{printable(path)}: is damaged ({type(error).__name__}: {printable(str(error))}); "
            "run deploy without --resume to make it again"
        ) from None


# Compare


def compare_artifacts(
    path: str, candidates: Sequence[str], recipe: Recipe, options: Options, step: OpenStep
) -> AccuracyReport:
    """Compare the fixed model and all artifacts with the exported model; writes report.json and report.html."""
    from onnxlint.accuracy.compare import compare
    from onnxlint.report.compare import render

    inputs = ImageOptions(options.images, recipe, options.shapes)
    comparing = options.evaluated()
    if comparing != options.comparing:
        step.lines += (f"task {options.comparing.task}: not evaluated, because no images were given",)
    report = _named(compare(path, candidates, inputs, comparing, step.journal.progress))
    for format in ("json", "html"):
        step.write(f"report.{format}", render(format, report))
    return report


def _named(report: AccuracyReport) -> AccuracyReport:
    """The report with names that tell the exported model from the fixed one: their files have the same."""
    fixed, *others = report.candidates
    name = os.path.basename(fixed.path)
    return replace(
        report,
        reference=replace(report.reference, name=f"{name} (exported)"),
        candidates=(replace(fixed, name=f"{name} (fixed)"), *others),
        failures=tuple(failure.replace(printable(fixed.name), f"{name} (fixed)") for failure in report.failures),
    )


# Samples


def write_samples(artifacts: Sequence[Artifact], fixed: str, recipe: Recipe, options: Options, step: OpenStep) -> None:
    """Write the samples of all artifacts, and run the Python ones on the first image."""
    model = open_model(fixed)
    images = options.images
    classes = _class_names(options.comparing.labels, options.comparing.task)
    if listed := _class_list(options.comparing.labels, options.comparing.task):
        step.write(CLASSES, "".join(f"{name}\n" for name in listed))
    photo, x = _first_input(images, recipe, make_view(model), options.shapes)
    if images is None or images.arrays is not None:
        step.lines += (
            "the preprocessing of photos is not known: set MEAN, NORM and the order of pixels in the samples",
        )
    for artifact in artifacts:
        step.progress(f"samples: {artifact.target}")
        try:
            texts = call_in_child(artifact.files[0], _texts, artifact, fixed, recipe, options, x, classes)
        except OnnxlintError as error:
            step.lines += (f"{artifact.target}: no sample: {error}",)
            continue
        for name, text in texts.items():
            path = step.write(f"{SAMPLES}/{name}", text)
            if name.endswith(".py") and photo:
                _run_sample(step, path, photo)


def _texts(
    artifact: Artifact, fixed: str, recipe: Recipe, options: Options, x: Array, classes: _Classes
) -> dict[str, str]:
    """The samples of an artifact, which is run for them."""
    from onnxlint.deployment.samples import sample_texts

    return sample_texts(
        artifact.target,
        artifact.files,
        backend_for(artifact.files[0]).open(artifact.files[0], options.converting.threads),
        open_model(fixed).proto,
        recipe,
        x,
        task=options.comparing.task,
        detection=options.comparing.detection,
        classes=classes,
    )


def _first_input(
    images: ImageSet | None, recipe: Recipe, view: GraphView, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, Array]:
    """A photo and the input that it becomes; no photo where inputs are arrays."""
    if images is not None:
        name, x = next(iter(tensors(images, recipe, threads=1)))
        return (os.path.abspath(name) if images.paths else ""), x[None]
    name = view.main.data_inputs[0] if view.main.data_inputs else ""
    shape = [dim if isinstance(dim, int) else 1 for dim in view.main.shape(name) or ()]
    if len(shape) == 4 and recipe.size is not None:
        shape[2:] = recipe.size[::-1]
    return "", np.random.default_rng(0).random(shapes.get(name, tuple(shape)), np.float32)


def _class_names(labels: str | None, task: str | None) -> _Classes:
    """Names of the model's classes, where the labels tell; of a detector once the number of its classes is known."""
    if labels is None:
        return ()
    if task == "detection":
        from onnxlint.accuracy.tasks.detection import class_names

        return partial(class_names, labels)  # picklable, for the child
    if task == "classification":
        from onnxlint.accuracy.tasks.labels import read_classes

        return read_classes(labels).names
    return ()


def _class_list(labels: str | None, task: str | None) -> tuple[str, ...]:
    """The names that a list of classes or a COCO file gives, the background left out."""
    from onnxlint.accuracy.tasks.labels import BACKGROUND, read_boxes, read_class_list, read_classes

    if labels is None or task not in ("classification", "detection"):
        return ()
    if task == "classification":
        return read_classes(labels).names
    names = read_class_list(labels) or tuple(read_boxes(labels).categories.values())
    return tuple(name for name in names if name.strip("_").lower() not in BACKGROUND)


def _run_sample(step: OpenStep, script: str, photo: str) -> None:
    """Run a sample as its user would, from its own folder."""
    name = os.path.basename(script)
    try:
        done = subprocess.run(
            [sys.executable, name, photo],
            cwd=os.path.dirname(script),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_SAMPLE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        step.fail(f"{name}: did not finish within {_SAMPLE_SECONDS} s on {printable(photo)}")
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        step.fail(f"{name}: fails on {printable(photo)}: {printable(last)}")
        return
    for made in os.listdir(os.path.dirname(script)):  # the picture of a super-resolution network
        if made.endswith(".png"):
            step.files += (os.path.join(os.path.dirname(script), made),)
    first = (done.stdout.splitlines() or ["nothing printed"])[0]
    step.lines += (f"{name}: {printable(first.removeprefix(f'{photo}: '))} in {printable(os.path.basename(photo))}",)


def plain(value: Any) -> Any:
    """Mappings and sequences as JSON has them, for the keys of steps."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
