"""A whole conversion: targets in the order in which they need each other, files moved into place together with the manifest
that records how they were made; shared by `onnxlint convert` and `onnxlint.convert`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from onnxlint.backends import Artifact, Backend, Job, NotConvertible, Progress, Target, find_target, silent, targets
from onnxlint.backends.options import ConvertOptions
from onnxlint.backends.overflow import NOTE
from onnxlint.backends.task import TaskLoss
from onnxlint.conversion.goal import Goal, Held, candidates, distance, goal_of
from onnxlint.conversion.manifest import (
    ENDING,
    differences,
    manifest_text,
    read_manifest,
    recipe_from,
    same_images,
    same_model,
)
from onnxlint.conversion.preflight import missing_packages, obstacles, require_images, require_targets
from onnxlint.conversion.worker import Request, Worker
from onnxlint.errors import OnnxlintError
from onnxlint.images.noted import completed
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, Recipe, find_images
from onnxlint.images.sizes import recipe_for
from onnxlint.lint.finding import Applicability
from onnxlint.model.protect import refuse_inputs, refuse_model_output
from onnxlint.model.scratch import undisturbed, work_folder
from onnxlint.model.skeleton import Model, external_files, open_model
from onnxlint.tabular import Tabular
from onnxlint.text import printable

ALL = "all"
"""In place of the names of all targets."""


@dataclass(frozen=True)
class Failure:
    """A target that could not be made.

    Attributes:
        target: Its name.
        message: Why, in one line.
        findings: What `onnxlint check` says about the model that explains it, a line each.
        advice: The command that applies fixes; empty if there are none.
    """

    target: str
    message: str
    findings: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True, repr=False)
class Conversion(Tabular):
    """Result of a conversion; iteration yields artifacts, then failures.

    Attributes:
        model: The ONNX model.
        artifacts: The converted models, in the requested order.
        failures: The failed targets.
        manifest: Path of the manifest; empty if no target was made.
        notes: What the user should know, a line each.
    """

    model: str
    artifacts: tuple[Artifact, ...]
    failures: tuple[Failure, ...]
    manifest: str
    notes: tuple[str, ...] = ()

    def entries(self) -> tuple[Artifact | Failure, ...]:
        """Artifacts, then failures."""
        return (*self.artifacts, *self.failures)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each target: its files, their size in bytes, and the error of one that failed."""
        return target_rows(self.artifacts, self.failures)

    def headline(self) -> str:
        """The model and its artifacts."""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{self.model}: {', '.join(one.target for one in self.artifacts) or 'nothing made'}{failed}"


def target_rows(artifacts: Sequence[Artifact], failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """A row for each target that was made, then for each that failed."""
    return [
        {
            "target": one.target,
            "files": ", ".join(one.files),
            "bytes": sum(os.path.getsize(file) for file in one.files if os.path.exists(file)),
            "error": "",
        }
        for one in artifacts
    ] + [{"target": one.target, "files": "", "bytes": None, "error": one.message} for one in failures]


def convert(
    path: str | os.PathLike[str],
    to: Sequence[str],
    inputs: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    options: ConvertOptions = ConvertOptions(),  # noqa: B008 - frozen
    *,
    out_dir: str | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Convert a model to some targets, and write their files and a manifest.

    Args:
        path: The ONNX model.
        to: Names of targets, or `all`.
        inputs: Calibration inputs; the size is the model's own if it is fixed and the recipe has none. Where nothing says
            how pixels become values, the model's metadata does, if `onnxlint export` noted it.
        options: How targets are made.
        out_dir: Output folder; None for the model's folder.
        progress: Called with the current action.

    Raises:
        OnnxlintError: A target, the model, the images or the recipe is wrong. A target that cannot be made is not an error
            here but a `Failure`.
    """
    wanted = find_targets(to)
    model = _open(os.fspath(path))
    images, recipe, shapes = inputs.images, inputs.recipe, inputs.shapes
    images = images if images is None or isinstance(images, ImageSet) else find_images(images)
    calibrates = any(target.calibrates for _, target in wanted)
    if calibrates and images is not None:
        recipe = completed(recipe or Recipe(), inputs, model)
    recipe = recipe_for(model, recipe or Recipe(), shapes, reads_images=calibrates and images is not None)
    require_images(wanted, model.path, images, recipe)
    job = Job(
        recipe,
        images,
        dict(shapes),
        options.method,
        options.mixed,
        options.budget,
        options.threads,
        options.tools,
        options.keep,
        options.weight_bits,
        options.task,
        options.engine,
    )
    job, goal = goal_of(model.path, job, options)
    failures: dict[str, OnnxlintError] = {}
    if any(name.lower() == ALL for name in to):
        failures = {one.target: OnnxlintError(one.message) for one in obstacles(wanted, model.path, job)}
    if len(failures) in (0, len(wanted)):
        require_targets(wanted, model.path, job)
    folder = out_dir if out_dir is not None else os.path.dirname(model.path) or "."
    _refuse_losses(model, wanted, folder)
    with _work_folder(folder, make=out_dir is not None) as scratch, Worker() as worker:
        done = _Work(model, job, folder, scratch, worker, progress, failures, goal).all(wanted)
    return replace(done, notes=_left_out(to, wanted))


def find_targets(names: Sequence[str]) -> list[tuple[Backend, Target]]:
    """The targets that names, aliases or `all` (of which the packages are installed) stand for, each once.

    Raises:
        OnnxlintError: There is no such target, or none is named.
    """
    found: dict[str, tuple[Backend, Target]] = {}
    for name in names:
        for backend, target in _all() if name.lower() == ALL else (find_target(name),):
            found.setdefault(target.name, (backend, target))
    if not found:
        raise OnnxlintError(f"--to: no target given; choose from {', '.join(t.name for _, t in targets())}, {ALL}")
    return list(found.values())


def _all() -> list[tuple[Backend, Target]]:
    """All targets whose packages are installed; where that is none, all there are."""
    every = list(targets())
    plain = Job(Recipe())
    return [one for one in every if not missing_packages(*one, plain)] or every


def _left_out(to: Sequence[str], wanted: Sequence[tuple[Backend, Target]]) -> tuple[str, ...]:
    """What `all` leaves out, a line each."""
    if all(name.lower() != ALL for name in to):
        return ()
    others = [one for one in targets() if one[1] not in {target for _, target in wanted}]
    return tuple(f"'all' leaves out {missing_packages(*one, Job(Recipe()))}" for one in others)


def _open(path: str) -> Model:
    if path == "-":
        raise OnnxlintError("convert names its files after the model: give it a file, not stdin")
    model = open_model(path)
    external_files(model)  # a runtime judges them in another way, and says it in other words
    return model


def _refuse_losses(model: Model, wanted: Sequence[tuple[Backend, Target]], folder: str) -> None:
    """Raise OnnxlintError if a result would replace the model, or weights that a model refers to."""
    stem = os.path.splitext(os.path.basename(model.path))[0]
    for _, target in wanted:
        for ending in target.files:
            place = os.path.join(folder, stem + ending)
            refuse_inputs(place, [model.path], "choose another --out-dir")
            refuse_model_output(place, model)


@contextmanager
def _work_folder(folder: str, make: bool) -> Iterator[str]:
    """A temporary folder in `folder`, from which files can be moved into place in one step. It goes whatever happens,
    SIGTERM included."""
    if make:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise OnnxlintError(
                f"{printable(folder)}: cannot be written to: {error.strerror or error}; choose another --out-dir"
            ) from None
    with work_folder(folder) as scratch:
        yield scratch


class _Work:
    """One conversion under way."""

    def __init__(
        self,
        model: Model,
        job: Job,
        folder: str,
        scratch: str,
        worker: Worker,
        progress: Progress,
        failures: Mapping[str, OnnxlintError],
        goal: Goal | None = None,
    ) -> None:
        self.goal = goal
        self.jobs: dict[str, Job] = {}
        self.model = model
        self.job = job
        self.folder = folder
        self.scratch = scratch
        self.worker = worker
        self.progress = progress
        self.stem = os.path.splitext(os.path.basename(model.path))[0]
        self._made: dict[str, Artifact | OnnxlintError] = dict(failures)

    def all(self, wanted: Sequence[tuple[Backend, Target]]) -> Conversion:
        artifacts: list[Artifact] = []
        failures: list[Failure] = []
        for backend, target in wanted:
            made = self._make(backend, target)
            if isinstance(made, Artifact):
                artifacts.append(made)
            else:
                failures.append(self._failure(target, made))
        manifest = ""
        if artifacts:
            self.progress("writing the manifest", 0, None)
            manifest = os.path.join(self.folder, self.stem + ENDING)
            artifacts = self._move(artifacts, manifest)
        return Conversion(self.model.path, tuple(artifacts), tuple(failures), manifest)

    def _make(self, backend: Backend, target: Target) -> Artifact | OnnxlintError:
        """Make a target in the scratch folder, and what it needs before it; each once."""
        if target.name in self._made:
            return self._made[target.name]
        source = self.model.path
        try:
            if target.needs:
                needed = self._make(*find_target(target.needs))
                if not isinstance(needed, Artifact):
                    raise needed
                source = needed.files[0]
            self.progress(target.name, 0, None)
            made: Artifact | OnnxlintError
            if self.goal is not None and target.calibrates:
                made = self._cheapest(backend, target, source, self.goal)
            else:
                made = self._once(backend, target, source, self.job, target.name)
        except OnnxlintError as error:
            made = self._in_final_folder(error, target)
        except OSError as error:
            made = OnnxlintError(f"{printable(self.folder)}: cannot be written to: {error.strerror or error}")
        self._made[target.name] = made
        return made

    def _once(
        self, backend: Backend, target: Target, source: str, job: Job, name: str, held: Held | None = None
    ) -> Artifact:
        """Make a target in a folder of this name, and measure it on images that are held out."""
        place = os.path.join(self.scratch, name)
        os.mkdir(place)
        files = tuple(os.path.join(place, self.stem + ending) for ending in target.files)
        self.jobs[target.name] = job
        return self.worker.make(Request(backend.name, target, source, files, job, held), self.progress)

    def _cheapest(self, backend: Backend, target: Target, source: str, goal: Goal) -> Artifact:
        """The first of some files, the cheapest first, that keeps what is asked for.

        Raises:
            OnnxlintError: None does.
        """
        tried: list[tuple[float, str]] = []
        for i, job in enumerate(candidates(self.job)):
            how = f"mixed with a budget of {100 * job.budget:g} %" if job.mixed else "all int8"
            made = self._once(backend, target, source, job, f"{target.name}-{i}" if i else target.name, goal.held)
            values = made.details["held_out"]
            far = distance(goal.bounds, values)
            reached = ", ".join(f"{bound.metric} {values[bound.metric]:.4g}" for bound in goal.bounds)
            if far == 0:
                facts = {
                    "asked": [bound.text for bound in goal.bounds],
                    "images": len(goal.held.images),
                    **values,
                }
                note = f"{how}: {reached} on {len(goal.held.images)} images that are held out"
                return replace(made, details={**made.details, "held_out": facts}, notes=(*made.notes, note))
            size = sum(os.path.getsize(file) for file in backend.files(made.files[0]))
            tried.append((far, f"{how}, has {reached} ({size:,} bytes)"))
        asked = " and ".join(bound.text for bound in goal.bounds)
        hurt = f"; {NOTE}" if NOTE in made.notes else ""
        raise OnnxlintError(
            f"{printable(source)}: no file keeps {asked} on the {len(goal.held.images)} images that are held out; the "
            f"best, {min(tried, key=lambda one: one[0])[1]}; give a larger --budget or more images, or take fp16{hurt}"
        )

    def _in_final_folder(self, error: OnnxlintError, target: Target) -> OnnxlintError:
        """The error, with the names that files would have had in place of those in the scratch folder."""
        place = printable(os.path.join(self.scratch, target.name))
        text = (
            str(error)
            .replace(place + os.sep, printable(os.path.join(self.folder, "")))
            .replace(place, printable(self.folder))
        )
        return NotConvertible(text, error.lint_target) if isinstance(error, NotConvertible) else OnnxlintError(text)

    def _move(self, artifacts: Sequence[Artifact], manifest: str) -> list[Artifact]:
        """Move all files and the manifest into place: all of them, or none.

        Raises:
            OnnxlintError: They cannot be moved; the earlier files are restored.
        """
        # Not every target writes all of its files.
        written = [replace(one, files=tuple(file for file in one.files if os.path.exists(file))) for one in artifacts]
        drafts = [os.path.join(self.scratch, name) for name in ("unfinished", "manifest")]
        try:
            for draft in drafts:
                finished = draft == drafts[-1]
                with open(draft, "w", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(manifest_text(manifest, self.model, self.jobs, written, self.folder, finished=finished))
            moves = [(file, os.path.join(self.folder, os.path.basename(file))) for one in written for file in one.files]
            _move_together([(drafts[0], manifest), *moves, (drafts[1], manifest)], os.path.join(self.scratch, "before"))
        except OSError as error:
            raise OnnxlintError(
                f"{printable(self.folder)}: cannot be written to: {error.strerror or error}; nothing was changed in it"
            ) from None
        return [
            replace(one, files=tuple(os.path.join(self.folder, os.path.basename(file)) for file in one.files))
            for one in written
        ]

    def _failure(self, target: Target, error: OnnxlintError) -> Failure:
        if not isinstance(error, NotConvertible):
            return Failure(target.name, str(error))
        findings, fixable = explain(self.model.path, error.lint_target)
        name = printable(os.path.join(os.path.dirname(self.model.path), f"{self.stem}_fixed.onnx"))
        advice = f"onnxlint fix {printable(self.model.path)} -o {name}{fixable}" if fixable is not None else ""
        return Failure(target.name, str(error), findings, advice)


def _move_together(moves: Sequence[tuple[str, str]], before: str) -> None:
    """Move files into place; if one cannot be moved, restore the earlier files.

    Args:
        moves: (from, to).
        before: Folder to create on the same disk, for the earlier files.
    """
    with undisturbed():
        _move_all(moves, before)


def _move_all(moves: Sequence[tuple[str, str]], before: str) -> None:
    os.mkdir(before)
    done: list[tuple[str, str]] = []  # (where it is now, where it was kept; empty: nothing was there)
    try:
        for i, (file, place) in enumerate(moves):
            kept = os.path.join(before, str(i)) if os.path.lexists(place) else ""
            if kept:
                _keep(place, kept)
            os.replace(file, place)
            done.append((place, kept))
    except BaseException:
        for place, kept in reversed(done):
            if kept:
                os.replace(kept, place)
            else:
                os.unlink(place)
        raise


def _keep(place: str, kept: str) -> None:
    """Give a file a second name; where the file system has no links, copy it."""
    try:
        os.link(place, kept, follow_symlinks=False)
    except OSError:
        shutil.copy2(place, kept, follow_symlinks=False)


def explain(path: str, target: str) -> tuple[tuple[str, ...], str | None]:
    """What `onnxlint check --target` finds in a model, a line for each finding; and the options with which `onnxlint fix`
    can do something about it, None if it cannot."""
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.session import Check

    run = Check([path], Configs(Settings(targets=(target,) if target else None))).run()
    findings = [finding for result in run.results for finding in result.findings if finding.severity.rank >= 1]
    lines = tuple(f"{finding.code} {printable(finding.location.place)}: {finding.message}" for finding in findings)
    fixes = {finding.fix.applicability for finding in findings if finding.fix is not None}
    if Applicability.ASSUMES in fixes:
        return lines, " --multiple-of 32"
    return lines, "" if Applicability.SAFE in fixes else None


def repeat(
    path: str,
    *,
    threads: int = 2,
    tools: str | None = None,
    out_dir: str | None = None,
    task: Callable[[str, Mapping[str, Any]], TaskLoss] | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Repeat the conversion of a manifest, from the same model and images.

    Args:
        path: The manifest.
        threads: How many to use.
        tools: Folder with the real tools of ncnn.
        out_dir: Output folder; None for that of the manifest.
        task: Makes the task that a model was judged by of its path and what the manifest records.
        progress: Called with the current action.

    Raises:
        OnnxlintError: The manifest cannot be read, or the model or an image is not what it was.
    """
    document = read_manifest(path)
    folder = os.path.dirname(path) or "."
    model = _open(os.path.join(folder, document["model"]["path"]))
    if not same_model(document, model, folder):
        raise OnnxlintError(f"{printable(model.path)}: is not the model that {printable(path)} was made from")
    jobs: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, entry in document["targets"].items():
        jobs.setdefault(json.dumps(entry["job"], sort_keys=True), (entry["job"], []))[1].append(name)
    done = [
        convert(
            model.path,
            names,
            ImageOptions(
                _recorded_images(document, job.get("images"), path),
                _recorded_recipe(job["recipe"], path),
                {name: tuple(shape) for name, shape in job["shapes"].items()},
            ),
            ConvertOptions(
                job["method"],
                job["mixed"],
                job["budget"],
                tuple(job["keep"]),
                threads=threads,
                tools=tools,
                weight_bits=job.get("weight_bits", 8),
                task=task(model.path, job["task"]) if task is not None and job.get("task") else None,
            ),
            out_dir=out_dir if out_dir is not None else folder,
            progress=progress,
        )
        for job, names in jobs.values()
    ]
    artifacts = tuple(artifact for one in done for artifact in one.artifacts)
    notes = differences(document, artifacts)
    failures = tuple(failure for one in done for failure in one.failures)
    return Conversion(model.path, artifacts, failures, next((one.manifest for one in done if one.manifest), ""), notes)


def _recorded_images(document: Mapping[str, Any], digest: Any, path: str) -> ImageSet | None:
    if digest is None:
        return None
    entry = document["images"].get(digest) if isinstance(digest, str) else None
    if entry is None:
        raise OnnxlintError(
            f"{printable(path)}: is a damaged manifest: its images are missing; convert the model again"
        )
    return same_images(entry, os.path.dirname(path) or ".")


def _recorded_recipe(entry: Mapping[str, Any], path: str) -> Recipe:
    """The recipe of a manifest; without mean and norm, it means raw pixels."""
    recipe = recipe_from(entry, path)
    return recipe if recipe.defines_values else replace(recipe, mean=(0.0,) * recipe.channels)
