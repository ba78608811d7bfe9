"""The whole way in one call: check, fix, convert, quantize, compare, and samples that run; what `onnxlint deploy` and
`onnxlint.deploy` share.

Everything goes into one folder. What was done, with which options and from which bytes, is in its `deploy.json`: with
`resume`, a step is left out whose inputs, options and files are as recorded there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Array, Artifact, Decision, Progress, Target, backend_for, silent
from onnxlint.conversion.session import Failure, convert, find_targets, fitted, read_manifest
from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import GraphView
from onnxlint.images.recipe import PRESETS, ImageSet, Recipe, find_images, tensors
from onnxlint.lint.configuration import Configs, Settings
from onnxlint.lint.files import write_atomically
from onnxlint.lint.finding import Finding
from onnxlint.lint.targets import names as target_names
from onnxlint.model.skeleton import Model, is_external, locate_external, open_model, walk_tensors
from onnxlint.text import counted, printable, size
from onnxlint.version import __version__

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks import Task

STATE = "deploy.json"
_FORMAT = 1
_PACKAGES = ("numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "ncnn", "pnnx", "pillow")
_SAMPLE_SECONDS = 300
_EXAMPLES = "samples"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: `check`, `fix`, `convert ncnn, ncnn-int8` (the targets of one backend), `compare`, `samples`.
        state: `done`; `unchanged`: left out, because all is as it was; `failed`.
        seconds: Wall time; of the run that did it, where it is unchanged.
        files: What it wrote, relative to the folder.
        lines: What came of it, for people.
    """

    name: str
    state: str
    seconds: float
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """What came out.

    Attributes:
        model: The model as it was exported.
        folder: Where everything is.
        fixed: The fixed model.
        recipe: How images become the input.
        steps: What was done, in order.
        artifacts: What was made, in the order in which it was asked for.
        failures: Targets that could not be made, and why.
        report: The comparison with the model as it was exported; None where nothing could be made. Read back from the
            record, without pictures, where it is unchanged.
    """

    model: str
    folder: str
    fixed: str
    recipe: Recipe
    steps: tuple[Step, ...]
    artifacts: tuple[Artifact, ...]
    failures: tuple[Failure, ...]
    report: AccuracyReport | None

    @property
    def ok(self) -> bool:
        """Whether every target was made and every step was done."""
        return not self.failures and all(step.state != "failed" for step in self.steps)


class Stopped(OnnxlintError):  # noqa: N818 - said of the deployment
    """A step cannot go on.

    Attributes:
        findings: What `onnxlint check` says about the model, a line each.
    """

    def __init__(self, message: str, findings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


def deploy(
    path: str | os.PathLike[str],
    to: Sequence[str],
    *,
    images: str | os.PathLike[str] | ImageSet | None = None,
    recipe: Recipe | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    task: str | None = None,
    labels: str | None = None,
    detection: Mapping[str, Any] | None = None,
    multiple_of: int | None = 32,
    concat_heads: bool = True,
    drop_output_activations: bool = True,
    method: str = "auto",
    mixed: bool = False,
    budget: float = 0.08,
    keep: Sequence[str] = (),
    layers: bool = False,
    suggest: bool = False,
    fail_if: Sequence[str] = (),
    threads: int = 2,
    tools: str | None = None,
    out_dir: str | None = None,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
    progress: Progress = silent,
) -> Deployment:
    """Take a model from its export to files that run on devices, and say what each of them lost.

        done = onnxlint.deploy("model.onnx", ["ncnn-int8"], images="images", recipe=make_recipe(preset="imagenet"))
        print(done.report.candidates[-1].snr_db)

    Args:
        path: The ONNX model; it is not touched.
        to: Targets, or `all`.
        images: What to calibrate with, and to compare on.
        recipe: How images become the input. For a RetinaFace (`task="detection"`) its own is known.
        shapes: Input → whole shape, for inputs with free sizes that are no images.
        task, labels, detection: What the outputs are judged by, as for `onnxlint.accuracy.compare.compare`.
        multiple_of: Height and width of images are multiples of this, as far as the recipe's size is; None: assume
            nothing.
        concat_heads: Whether detection heads are joined into one output.
        drop_output_activations: Whether a Softmax or Sigmoid at an output goes; the samples apply it.
        method, mixed, budget, keep, tools: As for `onnxlint.convert`.
        layers, suggest, fail_if: As for `compare`.
        threads: How many to use.
        out_dir: The folder; `NAME_deploy` beside the model where it is None.
        resume: Whether steps are left out that nothing has changed for.
        config, isolated: As for `onnxlint.check`.
        progress: Told how far it is.

    Raises:
        Stopped: A step cannot go on.
        OnnxlintError: An argument, the model or the images are wrong. What earlier steps wrote stays.
    """
    path = os.fspath(path)
    if path == "-":
        raise OnnxlintError("deploy names its files after the model: give it a file, not stdin")
    wanted = [target for _, target in find_targets(to)]
    model = open_model(path)
    folder = out_dir if out_dir is not None else f"{os.path.splitext(path)[0]}_deploy"
    fixed = os.path.join(folder, f"{os.path.splitext(os.path.basename(path))[0]}.onnx")
    if os.path.exists(fixed) and os.path.samefile(fixed, path):
        raise OnnxlintError(
            f"--out-dir {printable(folder)}: the fixed model would replace the original; choose another"
        )
    found = images if images is None or isinstance(images, ImageSet) else find_images(images)
    calibrated = [target.name for target in wanted if target.calibrates]
    if calibrated and found is None:
        raise OnnxlintError(f"{calibrated[0]} is calibrated with images: give --images a folder, a list or an .npz")
    judge = _judge(task, labels, detection or {}, recipe or Recipe(), found, fail_if)
    known = _known_recipe(model, recipe or Recipe(), found, task, detection or {}, threads)
    recipe = fitted(model, known, shapes or {}, reads_images=found is not None and found.arrays is None)
    progress("a first run", 0, None)
    _rehearse(model, recipe, found, shapes or {}, judge, threads)
    try:
        os.makedirs(os.path.join(folder, _EXAMPLES), exist_ok=True)
    except OSError as error:
        raise OnnxlintError(f"{printable(folder)}: cannot be written to: {error.strerror or error}") from None
    log = _Log(folder, resume, progress)
    pictures = _images_digest(found)
    where = None if config is None else os.fspath(config)
    configs = Configs(Settings(), where, isolated)

    findings: tuple[str, ...] = ()
    codes: frozenset[str] = frozenset()
    with log.step("check") as step:
        lint = sorted({backend.name for backend, _ in find_targets(to)} & set(target_names()))
        all_findings = _check(path, Configs(Settings(targets=tuple(lint) or None), where, isolated))
        findings = tuple(f"{f.code} {printable(f.location.place)}: {f.message}" for f in all_findings)
        codes = frozenset(finding.code for finding in all_findings)
        step.lines += _counted(all_findings)

    fix_key = {
        "model": _model_digest(model),
        "multiple of": _multiple(multiple_of, recipe),
        "concat heads": concat_heads and "OUT001" in codes,
        "drop activations": drop_output_activations and "OUT002" in codes,
        "configuration": repr(configs.of(path)),
    }
    with log.step("fix", fix_key, findings) as step:
        if step.todo:
            _fix(path, fixed, configs, fix_key, step)

    job = {"recipe": asdict(recipe), "shapes": _lists(shapes or {}), "images": pictures}
    failures: list[Failure] = []
    source = _model_digest(open_model(fixed))
    for targets in _by_backend(to):
        names = [target.name for target in targets]
        key: dict[str, Any] = {**job, "model": source, "tools": tools}
        if any(target.calibrates for target in targets):
            key |= {"method": method, "mixed": mixed, "budget": budget, "keep": list(keep)}
        with log.step(f"convert {', '.join(names)}", key) as step:
            if not step.todo:
                continue
            made = convert(
                fixed,
                names,
                images=found,
                recipe=recipe,
                shapes=shapes,
                method=method,
                mixed=mixed,
                budget=budget,
                keep=keep,
                threads=threads,
                tools=tools,
                out_dir=folder,
                progress=progress,
            )
            for failure in made.failures:
                failures.append(failure)
                step.fail(f"{failure.target}: {failure.message}")
            for artifact in made.artifacts:
                step.files += artifact.files
                shown = ", ".join(
                    f"{os.path.basename(file)} ({size(os.path.getsize(file))})" for file in artifact.files
                )
                step.lines += (f"{artifact.target}: {printable(shown)}", *(f"  {note}" for note in artifact.notes))
    failed = {failure.target for failure in failures}
    artifacts = _artifacts(folder, fixed, [target.name for target in wanted if target.name not in failed])
    if not artifacts:
        raise Stopped(
            f"{printable(path)}: nothing could be made: {failures[0].target}: {failures[0].message}",
            failures[0].findings or findings,
        )

    outputs = [fixed, *(artifact.files[0] for artifact in artifacts)]
    made_of = {name: _digest(os.path.join(folder, name)) for name in log.files_of(("fix", "convert"))}
    compare_key = {
        **job,
        "reference": fix_key["model"],
        "files": made_of,
        "task": task,
        "labels": _labels_digest(labels),
        "detection": detection or {},
        "asked": [layers, suggest, list(fail_if)],
    }
    report: AccuracyReport | None = None
    with log.step("compare", compare_key) as step:
        if step.todo:
            from onnxlint.accuracy.compare import compare
            from onnxlint.report.compare import render

            report = compare(
                path,
                outputs,
                images=found,
                recipe=recipe,
                shapes=shapes,
                task=task,
                labels=labels,
                detection=detection,
                layers=layers,
                suggest=suggest,
                fail_if=fail_if,
                threads=threads,
                progress=progress,
            )
            report = _named(report)
            for format in ("json", "html"):
                step.write(f"report.{format}", render(format, report))
        else:
            report = _read_report(os.path.join(folder, "report.json"))

    with log.step("samples", {**job, "files": made_of, "task": task, "detection": detection or {}}) as step:
        if step.todo:
            _samples(step, artifacts, fixed, recipe, found, shapes or {}, task, detection or {}, labels, threads)
    return Deployment(path, folder, fixed, recipe, tuple(log.steps), artifacts, tuple(failures), report)


def _by_backend(to: Sequence[str]) -> list[list[Target]]:
    """The targets of each backend: what several of them need is made once."""
    groups: dict[str, list[Target]] = {}
    for backend, target in find_targets(to):
        groups.setdefault(backend.name, []).append(target)
    return list(groups.values())


# The record


@dataclass
class _Open:
    """A step under way.

    Attributes:
        todo: Whether it has to be done at all.
        files: What it wrote.
    """

    log: _Log
    name: str
    key: str
    findings: tuple[str, ...]
    todo: bool = True
    state: str = "done"
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)

    def write(self, name: str, text: str) -> str:
        """Write a file of the folder; returns its path."""
        path = os.path.join(self.log.folder, *name.split("/"))
        write_atomically(path, text)
        self.files += (path,)
        return path

    def fail(self, *lines: str) -> None:
        """Take note that it could not be done."""
        self.state = "failed"
        self.lines += lines

    def __enter__(self) -> _Open:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.log.close(self)
        elif isinstance(error, OnnxlintError) and not isinstance(error, Stopped):
            raise Stopped(f"{self.name}: {error}", self.findings) from None


class _Log:
    """What was done before, and what is done now."""

    def __init__(self, folder: str, resume: bool, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress
        self.steps: list[Step] = []
        self._path = os.path.join(folder, STATE)
        self._before = _read_state(self._path) if resume else {}
        self._entries: dict[str, Any] = {}

    def step(self, name: str, key: Mapping[str, Any] | None = None, findings: tuple[str, ...] = ()) -> _Open:
        """Begin a step. Without a key it is always done."""
        digest = ""
        if key is not None:
            text = json.dumps([name, key, __version__, _versions()], sort_keys=True, default=list)
            digest = hashlib.sha256(text.encode()).hexdigest()
        self.progress(name, 0, None)
        entry = self._before.get(name)
        same = bool(digest) and isinstance(entry, dict) and entry.get("key") == digest and self._is_whole(entry)
        return _Open(self, name, digest, findings, todo=not same)

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        files = entry.get("files")
        if not isinstance(files, dict) or not files or entry.get("state") != "done":
            return False
        try:
            return all(_digest(os.path.join(self.folder, name)) == digest for name, digest in files.items())
        except OSError:
            return False

    def close(self, step: _Open) -> None:
        """Record it: whatever interrupts a later step, this one need not be done again."""
        if step.todo:
            names = [os.path.relpath(file, self.folder).replace(os.sep, "/") for file in step.files]
            entry: dict[str, Any] = {
                "key": step.key,
                "state": step.state,
                "seconds": round(time.monotonic() - step.started, 2),
                "files": {name: _digest(os.path.join(self.folder, name)) for name in names},
                "lines": list(step.lines),
            }
        else:
            entry = self._before[step.name]
        self._entries[step.name] = entry
        self.steps.append(
            Step(
                step.name,
                entry["state"] if step.todo else "unchanged",
                float(entry["seconds"]),
                tuple(entry["files"]),
                tuple(entry["lines"]),
            )
        )
        document = {"format": _FORMAT, "versions": _versions(), "steps": {**self._before, **self._entries}}
        write_atomically(self._path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def files_of(self, kinds: tuple[str, ...]) -> list[str]:
        """What the steps of some kinds wrote."""
        return [name for step in self.steps if step.name.split()[0] in kinds for name in step.files]


def _read_state(path: str) -> dict[str, Any]:
    """The steps that were recorded; none where there is no record, or it is of another format."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise OnnxlintError(
            f"{printable(path)}: cannot be read ({printable(str(error))}); leave --resume out to do everything again"
        ) from None
    steps = document.get("steps") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    return steps if isinstance(steps, dict) else {}


def _versions() -> dict[str, str]:
    found = {"onnxlint": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _joined(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _model_digest(model: Model) -> str:
    """Of the file, and of the files that hold its weights."""
    files = {locate_external(model, tensor).path for tensor in walk_tensors(model.proto) if is_external(tensor)}
    return _joined([_digest(file) for file in (model.path, *sorted(files - {model.path}))])


def _images_digest(images: ImageSet | None) -> str:
    if images is None:
        return ""
    return _joined([_digest(path) if os.path.isfile(path) else path for path in images.paths or (images.source,)])


def _labels_digest(labels: str | None) -> str:
    """Of a file; of a folder, the names and sizes of what is in it."""
    if labels is None or not os.path.exists(labels):
        return labels or ""
    if os.path.isfile(labels):
        return _digest(labels)
    names = sorted(os.path.join(top, name) for top, _, files in os.walk(labels) for name in files)
    return _joined([f"{os.path.relpath(name, labels)} {os.path.getsize(name)}" for name in names])


def _lists(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


# Before anything is made


def _judge(
    task: str | None,
    labels: str | None,
    detection: Mapping[str, Any],
    recipe: Recipe,
    images: ImageSet | None,
    fail_if: Sequence[str],
) -> Task | None:
    """The task. What is wrong with it or with a condition is said now, not after minutes of work.

    Raises:
        OnnxlintError: The comparison could not begin.
    """
    from onnxlint.accuracy.conditions import parse_conditions
    from onnxlint.accuracy.tasks import make_task

    parse_conditions(fail_if, None if task else ())
    if task is not None:
        if images is None:
            raise OnnxlintError("--task judges by images: give --images")
        return make_task(task, recipe=recipe, images=images, labels=labels, detection=detection)
    if labels is not None:
        raise OnnxlintError("--labels says what is right, but not for what: give --task too")
    return None


def _rehearse(
    model: Model,
    recipe: Recipe,
    images: ImageSet | None,
    shapes: Mapping[str, tuple[int, ...]],
    judge: Task | None,
    threads: int,
) -> None:
    """Run the model as it was exported on one input: what does not run, or is nothing for the task, need not be converted.

    Raises:
        OnnxlintError: It does not run on such inputs, or its outputs are not the task's.
    """
    from onnxlint.accuracy.inputs import fed, make_inputs

    session = backend_for(model.path).open(model.path, threads)
    _, feeds = next(iter(make_inputs(model.path, session, images, recipe, shapes, threads).few(1)))
    arrays = session.run(fed(feeds, session, model.path))
    if judge is not None:
        outputs = {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}
        shape = next(iter(feeds.values())).shape
        judge.read(outputs, (int(shape[-1]), int(shape[-2])), _heads(model))


def _known_recipe(
    model: Model,
    recipe: Recipe,
    images: ImageSet | None,
    task: str | None,
    detection: Mapping[str, Any],
    threads: int,
) -> Recipe:
    """The recipe, or RetinaFace's for a model with its outputs.

    Raises:
        OnnxlintError: Nobody says how images become the input.
    """
    if recipe.mean or recipe.norm or images is None or images.arrays is not None:
        return recipe
    if task == "detection" and replace(recipe, size=None) == Recipe() and not detection:
        known = replace(PRESETS["retinaface"], size=recipe.size or PRESETS["retinaface"].size)
        if _is_retinaface(model, replace(known, size=None) if recipe.size is None else known, threads):
            return known if recipe.size is not None else fitted(model, replace(known, size=None), {})
    raise OnnxlintError(
        f"{printable(model.path)}: how do images become its input? Give --preset {'|'.join(sorted(PRESETS))}, or --mean and "
        "--norm (--mean 0,0,0 for pixels as they are)"
    )


def _is_retinaface(model: Model, recipe: Recipe, threads: int) -> bool:
    """Whether a model takes images and gives as many boxes, classes and landmarks as RetinaFace has priors."""
    from onnxlint.accuracy.tasks.decoder import choose

    size = fitted(model, recipe, {}).size
    if size is None:
        return False
    session = backend_for(model.path).open(model.path, threads)
    if len(session.inputs) != 1:
        return False
    arrays = session.run({session.inputs[0].name: np.zeros((1, 3, size[1], size[0]), np.float32)})
    outputs = {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}
    try:
        return choose(outputs, size, _heads(model)).preset == "retinaface"
    except OnnxlintError:  # it is something else
        return False


def _heads(model: Model) -> Any:
    from onnxlint.fixes.heads import read_heads

    return read_heads(model.proto)


def _multiple(wanted: int | None, recipe: Recipe) -> int | None:
    """The largest part of the assumption that the recipe's size keeps."""
    if wanted is None or recipe.size is None:
        return wanted
    shared = math.gcd(wanted, *recipe.size)
    return shared if shared > 1 else None


def _check(path: str, configs: Configs) -> tuple[Finding, ...]:
    """What there is to find in a model.

    Raises:
        OnnxlintError: It cannot be checked.
    """
    from onnxlint.lint.session import check_paths

    run = check_paths([path], configs)
    for result in run.results:
        if result.error is not None:
            raise OnnxlintError(result.error.message)
    return tuple(finding for result in run.results for finding in result.findings)


def _counted(findings: Sequence[Finding]) -> tuple[str, ...]:
    codes: dict[str, int] = {}
    for finding in findings:
        codes[finding.code] = codes.get(finding.code, 0) + 1
    shown = ", ".join(f"{code} ×{count}" if count > 1 else code for code, count in codes.items())
    return (f"{counted(len(findings), 'finding')}: {shown}" if findings else "nothing found",)


def _fix(path: str, fixed: str, configs: Configs, key: Mapping[str, Any], step: _Open) -> None:
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.rule import Request
    from onnxlint.report.fix import render_fix

    def told(what: str) -> None:
        step.log.progress(f"fix: {what}", 0, None)

    request = Request(
        unsafe=False,
        concat_heads=() if key["concat heads"] else None,
        drop_output_activations=bool(key["drop activations"]),
    )
    try:
        done = fix_path(path, configs, request, multiple_of=key["multiple of"], progress=told)
    except OnnxlintError as error:
        if "--concat-heads" not in str(error):
            raise
        step.lines += (f"heads are left apart: {error}",)
        done = fix_path(
            path, configs, replace(request, concat_heads=None), multiple_of=key["multiple of"], progress=told
        )
    write(done, fixed)
    step.files += (fixed,)
    for tensor in walk_tensors(open_model(fixed).proto):
        if is_external(tensor):
            file = locate_external(open_model(fixed), tensor).path
            step.files += (file,) if file not in step.files and file != fixed else ()
    step.lines += tuple(line for line in render_fix(done.report, fixed).splitlines()[1:] if line.strip())


# After it


def _artifacts(folder: str, fixed: str, names: Sequence[str]) -> tuple[Artifact, ...]:
    """What the manifest says about targets."""
    if not names:
        return ()
    entries = read_manifest(os.path.splitext(fixed)[0] + ".onnxlint.json")["targets"]
    return tuple(
        Artifact(
            name,
            tuple(os.path.join(folder, *file["path"].split("/")) for file in entries[name]["files"]),
            tuple(Decision(**decision) for decision in entries[name]["decisions"]),
            tuple(entries[name]["notes"]),
            entries[name]["details"],
        )
        for name in names
    )


def _samples(
    step: _Open,
    artifacts: Sequence[Artifact],
    fixed: str,
    recipe: Recipe,
    images: ImageSet | None,
    shapes: Mapping[str, tuple[int, ...]],
    task: str | None,
    detection: Mapping[str, Any],
    labels: str | None,
    threads: int,
) -> None:
    """Write the samples, and run the Python ones on the first image."""
    from onnxlint.deployment.samples import sample_texts

    proto = open_model(fixed).proto
    classes = _class_names(labels) if task == "classification" else ()
    photo, x = _first(images, recipe, GraphView(open_model(fixed)), shapes)
    if images is None or images.arrays is not None:
        step.lines += ("nobody says how photos become the input: set MEAN, NORM and the pixels' order in the samples",)
    for artifact in artifacts:
        step.log.progress(f"samples: {artifact.target}", 0, None)
        try:
            session = backend_for(artifact.files[0]).open(artifact.files[0], threads)
            texts = sample_texts(
                artifact.target,
                artifact.files,
                session,
                proto,
                recipe,
                x,
                task=task,
                detection=detection,
                classes=classes,
            )
        except OnnxlintError as error:
            step.lines += (f"{artifact.target}: no sample: {error}",)
            continue
        for name, text in texts.items():
            path = step.write(f"{_EXAMPLES}/{name}", text)
            if name.endswith(".py") and photo:
                _try(step, path, photo)


def _first(
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


def _class_names(labels: str | None) -> tuple[str, ...]:
    if labels is None:
        return ()
    from onnxlint.accuracy.tasks.labels import read_classes

    return tuple(read_classes(labels).names)


def _try(step: _Open, script: str, photo: str) -> None:
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
        step.fail(f"{name}: took longer than {_SAMPLE_SECONDS} s on {printable(photo)}")
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


# The report


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


def _read_report(path: str) -> AccuracyReport:
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    report: AccuracyReport = _from_plain(AccuracyReport, document)
    return report


def _from_plain(kind: Any, value: Any) -> Any:
    """JSON values as `onnxlint.report.compare.json` writes them → the data."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        found: dict[str, Any] = {
            one.name: _from_plain(hints[one.name], value[one.name])
            for one in fields(typing.cast(Any, kind))
            if one.name in value
        }
        if value.get("exact"):
            found["snr_db"] = math.inf
        build = typing.cast(Callable[..., Any], kind)
        return build(**found)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_from_plain(one, item) for one, item in zip(inner, value, strict=True))
    if typing.get_origin(kind) is dict:
        return dict(value)
    if type(None) in arguments and value is not None:
        return _from_plain(next(one for one in arguments if one is not type(None)), value)
    return math.nan if kind is float and value is None else value


__all__ = ["Deployment", "Step", "Stopped", "deploy"]
