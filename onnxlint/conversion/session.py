"""A whole conversion: targets in the order in which they need each other, files moved into place when they are whole, and
the manifest that says how they were made; what `onnxlint convert` and `onnxlint.convert` share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from onnxlint.backends import Artifact, Backend, Job, NotConvertible, Progress, Target, find_target, silent, targets
from onnxlint.backends.options import ConvertOptions
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, Recipe, find_images
from onnxlint.lint.files import write_atomically
from onnxlint.lint.finding import Applicability
from onnxlint.model.assumptions import assumptions
from onnxlint.model.skeleton import Model, is_external, locate_external, open_model, walk_tensors
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable
from onnxlint.version import __version__

ALL = "all"
"""In place of the names of all targets."""

ENDING = ".onnxlint.json"
_FORMAT = 1
_MADE_WITH = ("numpy", "onnx", "onnxruntime", "ncnn", "pnnx", "pillow")


@dataclass(frozen=True)
class Failure:
    """A target that could not be made.

    Attributes:
        target: Its name.
        message: Why, in one line.
        findings: What `onnxlint check` says about the model that explains it, a line each.
        advice: The command that fixes what can be fixed; empty where nothing can.
    """

    target: str
    message: str
    findings: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Conversion:
    """What came out of a conversion.

    Attributes:
        model: The ONNX model.
        artifacts: What was made, in the order in which it was asked for.
        failures: What could not be made.
        manifest: Path of the manifest; empty where nothing was made.
        notes: What the user should know, a line each.
    """

    model: str
    artifacts: tuple[Artifact, ...]
    failures: tuple[Failure, ...]
    manifest: str
    notes: tuple[str, ...] = ()


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
        inputs: What to calibrate with; the size is the model's own where it is fixed and the recipe has none.
        options: How targets are made.
        out_dir: Where to write; beside the model where it is None.
        progress: Called with what is being done.

    Raises:
        OnnxlintError: A target, the model, the images or the recipe is wrong. A target that cannot be made is no error
            here but a `Failure`.
    """
    wanted = find_targets(to)
    model = _open(os.fspath(path))
    images, recipe, shapes = inputs.images, inputs.recipe, inputs.shapes
    images = images if images is None or isinstance(images, ImageSet) else find_images(images)
    calibrated = [target.name for _, target in wanted if target.calibrates]
    if calibrated and images is None:
        raise OnnxlintError(f"{calibrated[0]} is calibrated with images: give --images a folder, a list or an .npz")
    job = Job(
        fitted(model, recipe or Recipe(), shapes, reads_images=bool(calibrated)),
        images,
        dict(shapes),
        options.method,
        options.mixed,
        options.budget,
        options.threads,
        options.tools,
        options.keep,
    )
    folder = out_dir if out_dir is not None else os.path.dirname(model.path) or "."
    with _workshop(folder, made=out_dir is not None) as scratch:
        return _Work(model, job, folder, scratch, progress).all(wanted)


def find_targets(names: Sequence[str]) -> list[tuple[Backend, Target]]:
    """The targets that names, aliases or `all` stand for, each once.

    Raises:
        OnnxlintError: There is no such target, or none is named.
    """
    found: dict[str, tuple[Backend, Target]] = {}
    for name in names:
        for backend, target in targets() if name.lower() == ALL else (find_target(name),):
            found.setdefault(target.name, (backend, target))
    if not found:
        raise OnnxlintError(f"--to: no target is named; there are {', '.join(t.name for _, t in targets())}, {ALL}")
    return list(found.values())


def fitted(model: Model, recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], reads_images: bool = True) -> Recipe:
    """The recipe with the model's own input size where it has none.

    Raises:
        OnnxlintError: The two do not fit.
    """

    main = make_view(model).main
    for name in shapes:
        if name not in main.data_inputs:
            known = ", ".join(map(printable, main.data_inputs))
            raise OnnxlintError(f"--input-shape {printable(name)}: no input has that name (there are: {known})")
    pictures = [name for name in main.data_inputs if len(main.shape(name) or ()) == 4]
    if len(pictures) != 1:
        return recipe
    name = pictures[0]
    _, channels, height, width = main.shape(name) or ()
    shown = f"{printable(model.path)}: input {printable(name)!r}"
    if isinstance(channels, int) and channels != recipe.channels:
        if isinstance(width, int) and width == recipe.channels:
            if reads_images:
                raise OnnxlintError(f"{shown} has its channels last; onnxlint feeds images as N×C×H×W: export it so")
            return recipe
        if reads_images:
            way = {1: "--pixel GRAY", 3: "--pixel BGR or RGB"}.get(channels, "an .npz of inputs as --images")
            if channels in (1, 3):
                raise OnnxlintError(
                    f"{shown} has {channels} channels, and --pixel {recipe.pixel} gives {recipe.channels}: use {way}"
                )
        return recipe
    _demand_assumed(model, shown, name, recipe)
    if isinstance(height, int) and isinstance(width, int):
        if recipe.size is None:
            return replace(recipe, size=(width, height))
        if recipe.size != (width, height):
            raise OnnxlintError(
                f"{shown} is fixed to width {width} and height {height}, not {recipe.size[0]} and {recipe.size[1]}: "
                f"use --shape {width},{height},{recipe.channels}, or set the sizes free with 'onnxlint fix --dynamic'"
            )
    return recipe


def _demand_assumed(model: Model, shown: str, name: str, recipe: Recipe) -> None:
    """Raise where the size breaks a condition that `onnxlint fix` wrote into the model."""
    if recipe.size is None:
        return
    sizes = {2: recipe.size[1], 3: recipe.size[0]}
    for one in assumptions(model.proto):
        if one.input == name and sizes.get(one.axis, 0) % one.multiple:
            raise OnnxlintError(
                f"{shown}: {sizes[one.axis]} breaks what the model was fixed for ({printable(one.clause)}): "
                f"choose a --shape of multiples of {one.multiple}"
            )


def _open(path: str) -> Model:
    if path == "-":
        raise OnnxlintError("convert names its files after the model: give it a file, not stdin")
    return open_model(path)


@contextmanager
def _workshop(folder: str, made: bool) -> Iterator[str]:
    """A temporary folder in `folder`, from which files can be moved into place in one step."""
    try:
        if made:
            os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".onnxlint-", dir=folder)
    except OSError as error:
        raise OnnxlintError(
            f"{printable(folder)}: cannot be written to: {error.strerror or error}; choose another --out-dir"
        ) from None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Work:
    """One conversion under way."""

    def __init__(self, model: Model, job: Job, folder: str, scratch: str, progress: Progress) -> None:
        self.model = model
        self.job = job
        self.folder = folder
        self.scratch = scratch
        self.progress = progress
        self.stem = os.path.splitext(os.path.basename(model.path))[0]
        self._made: dict[str, Artifact | OnnxlintError] = {}

    def all(self, wanted: Sequence[tuple[Backend, Target]]) -> Conversion:
        artifacts: list[Artifact] = []
        failures: list[Failure] = []
        for backend, target in wanted:
            made = self._make(backend, target)
            if isinstance(made, Artifact):
                artifacts.append(made)
            else:
                failures.append(self._failure(target, made))
        kept = tuple(self._move(artifact) for artifact in artifacts)
        path = ""
        if kept:
            path = os.path.join(self.folder, self.stem + ENDING)
            self.progress("writing the manifest", 0, None)
            write_manifest(path, self.model, self.job, kept)
        return Conversion(self.model.path, kept, tuple(failures), path)

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
            place = os.path.join(self.scratch, target.name)
            os.mkdir(place)
            files = tuple(os.path.join(place, self.stem + ending) for ending in target.files)
            self.progress(target.name, 0, None)
            made: Artifact | OnnxlintError = backend.make(target, source, files, self.job, self.progress)
        except OnnxlintError as error:
            made = error
        except OSError as error:
            made = OnnxlintError(f"{printable(self.folder)}: cannot be written to: {error.strerror or error}")
        self._made[target.name] = made
        return made

    def _move(self, artifact: Artifact) -> Artifact:
        places = tuple(os.path.join(self.folder, os.path.basename(file)) for file in artifact.files)
        try:
            for file, place in zip(artifact.files, places, strict=True):
                if os.path.exists(file):  # not every target writes all of its files
                    os.replace(file, place)
        except OSError as error:
            raise OnnxlintError(f"{printable(place)}: cannot be written: {error.strerror or error}") from None
        return replace(artifact, files=tuple(place for place in places if os.path.exists(place)))

    def _failure(self, target: Target, error: OnnxlintError) -> Failure:
        if not isinstance(error, NotConvertible):
            return Failure(target.name, str(error))
        findings, fixable = explain(self.model.path, error.lint_target)
        name = printable(os.path.join(os.path.dirname(self.model.path), f"{self.stem}_fixed.onnx"))
        advice = f"onnxlint fix {printable(self.model.path)} -o {name}{fixable}" if fixable is not None else ""
        return Failure(target.name, str(error), findings, advice)


def explain(path: str, target: str) -> tuple[tuple[str, ...], str | None]:
    """What `onnxlint check --target` finds in a model, a line for each finding; and the options with which `onnxlint fix`
    can do something about it, None where it cannot."""
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.session import check_paths

    run = check_paths([path], Configs(Settings(targets=(target,) if target else None)))
    findings = [finding for result in run.results for finding in result.findings if finding.severity.rank >= 1]
    lines = tuple(f"{finding.code} {printable(finding.location.place)}: {finding.message}" for finding in findings)
    fixes = {finding.fix.applicability for finding in findings if finding.fix is not None}
    if Applicability.ASSUMES in fixes:
        return lines, " --multiple-of 32"
    return lines, "" if Applicability.SAFE in fixes else None


# The manifest


def write_manifest(path: str, model: Model, job: Job, artifacts: Sequence[Artifact]) -> None:
    """Write how artifacts were made. What an older manifest says of other targets of the same model stays.

    Raises:
        OnnxlintError: It cannot be written.
    """
    folder = os.path.dirname(path) or "."
    subject = _model_entry(model, folder)
    before = _previous(path, subject)
    images = _images_entry(job.images, folder)
    entries: dict[str, Any] = {
        artifact.target: {
            "job": _job_entry(job, images, artifact),
            "files": [_file_entry(file, folder) for file in artifact.files],
            "decisions": [
                {key: value for key, value in asdict(decision).items() if value is not None}
                for decision in artifact.decisions
            ],
            "notes": list(artifact.notes),
            "details": dict(artifact.details),
        }
        for artifact in artifacts
    }
    document: dict[str, Any] = {
        "onnxlint": __version__,
        "format": _FORMAT,
        "model": subject,
        "versions": _versions(),
        "targets": {**before.get("targets", {}), **entries},
        "images": {**before.get("images", {}), **({} if images is None else {images["sha256"]: images})},
    }
    used = {entry["job"].get("images") for entry in document["targets"].values()}
    document["images"] = {digest: entry for digest, entry in document["images"].items() if digest in used}
    write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_manifest(path: str) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        OnnxlintError: It cannot be read, or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise OnnxlintError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise OnnxlintError(f"{printable(path)}: is no manifest of onnxlint; 'onnxlint convert' writes one") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT or "targets" not in document:
        raise OnnxlintError(f"{printable(path)}: is no manifest that this onnxlint can read; convert the model again")
    return document


def repeat(
    path: str, *, threads: int = 2, tools: str | None = None, out_dir: str | None = None, progress: Progress = silent
) -> Conversion:
    """Do again what a manifest says, from the same model and images.

    Raises:
        OnnxlintError: The manifest cannot be read, or the model or an image is not what it was.
    """
    document = read_manifest(path)
    folder = os.path.dirname(path) or "."
    try:
        model = _open(os.path.join(folder, document["model"]["path"]))
        if _model_entry(model, folder)["sha256"] != document["model"]["sha256"]:
            raise OnnxlintError(f"{printable(model.path)}: is not the model that {printable(path)} was made from")
        jobs: dict[str, tuple[dict[str, Any], list[str]]] = {}
        for name, entry in document["targets"].items():
            jobs.setdefault(json.dumps(entry["job"], sort_keys=True), (entry["job"], []))[1].append(name)
        done: list[Conversion] = []
        for job, names in jobs.values():
            images = None
            if "images" in job:
                images = _same_images(document["images"][job["images"]], folder)
            done.append(
                convert(
                    model.path,
                    names,
                    ImageOptions(
                        images,
                        _recipe(job["recipe"]),
                        {name: tuple(shape) for name, shape in job["shapes"].items()},
                    ),
                    ConvertOptions(
                        job["method"], job["mixed"], job["budget"], tuple(job["keep"]), threads=threads, tools=tools
                    ),
                    out_dir=out_dir if out_dir is not None else folder,
                    progress=progress,
                )
            )
    except (KeyError, TypeError, AttributeError):
        raise OnnxlintError(f"{printable(path)}: is a damaged manifest; convert the model again") from None
    artifacts = tuple(artifact for one in done for artifact in one.artifacts)
    notes = _differences(document, artifacts)
    failures = tuple(failure for one in done for failure in one.failures)
    return Conversion(model.path, artifacts, failures, next((one.manifest for one in done if one.manifest), ""), notes)


def _differences(document: Mapping[str, Any], artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    now = _versions()
    changed = [
        f"{name} {was} then, {now.get(name, 'none')} now"
        for name, was in document.get("versions", {}).items()
        if now.get(name) != was
    ]
    notes = []
    for artifact in artifacts:
        recorded = {entry["path"]: entry["sha256"] for entry in document["targets"][artifact.target]["files"]}
        for file in artifact.files:
            name = os.path.basename(file)
            if recorded.get(name) == _digest(file):
                notes.append(f"{printable(name)}: the same bytes as recorded")
            else:
                why = f" ({', '.join(changed)})" if changed else ""
                notes.append(f"{printable(name)}: other bytes than recorded{why}")
    return tuple(notes)


def _previous(path: str, subject: Mapping[str, Any]) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    try:
        document = read_manifest(path)
    except OnnxlintError:  # not ours to keep: it is written anew
        return {}
    return document if document["model"].get("sha256") == subject["sha256"] else {}


def _model_entry(model: Model, folder: str) -> dict[str, Any]:
    entry = _file_entry(model.path, folder)
    located = (locate_external(model, tensor) for tensor in walk_tensors(model.proto) if is_external(tensor))
    external = sorted({one.path for one in located} - {os.path.realpath(model.path), model.path})
    if external:
        entry["external"] = [_file_entry(file, folder) for file in external]
        joined = "".join([entry["sha256"], *(one["sha256"] for one in entry["external"])])
        entry["sha256"] = hashlib.sha256(joined.encode()).hexdigest()
    return entry


def _job_entry(job: Job, images: Mapping[str, Any] | None, artifact: Artifact) -> dict[str, Any]:
    calibrates = find_target(artifact.target)[1].calibrates
    entry: dict[str, Any] = {
        "recipe": asdict(job.recipe),
        "shapes": {name: list(shape) for name, shape in job.shape.items()},
        "method": job.method,
        "mixed": job.mixed,
        "budget": job.budget,
        "keep": list(job.keep),
    }
    if images is not None and (calibrates or artifact.target.endswith("fp16")):
        entry["images"] = images["sha256"]
    return entry


def _recipe(entry: Mapping[str, Any]) -> Recipe:
    lists: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Recipe(**lists)


def _images_entry(images: ImageSet | None, folder: str) -> dict[str, Any] | None:
    if images is None:
        return None
    paths = images.paths or (images.source,)
    files = [_file_entry(path, folder) if os.path.exists(path) else {"path": path, "sha256": ""} for path in paths]
    digest = hashlib.sha256("".join(f"{file['sha256']}\n" for file in files).encode()).hexdigest()
    return {"source": _relative(images.source, folder), "sha256": digest, "files": files}


def _same_images(entry: Mapping[str, Any], folder: str) -> ImageSet:
    """The images that a manifest names.

    Raises:
        OnnxlintError: One of them is not what it was.
    """
    for file in entry["files"]:
        path = os.path.join(folder, file["path"])
        if file["sha256"] and (not os.path.exists(path) or _digest(path) != file["sha256"]):
            raise OnnxlintError(f"{printable(path)}: is not the image that the manifest names")
    paths = tuple(os.path.join(folder, file["path"]) for file in entry["files"])
    if len(paths) == 1 and paths[0].endswith((".npz", ".npy")):
        return find_images(paths[0])
    return ImageSet(os.path.join(folder, entry["source"]), paths)


def _file_entry(path: str, folder: str) -> dict[str, Any]:
    return {"path": _relative(path, folder), "bytes": os.path.getsize(path), "sha256": _digest(path)}


def _relative(path: str, folder: str) -> str:
    """As it is written into a manifest: relative to the manifest's folder, so that both can be moved together."""
    return os.path.relpath(os.path.abspath(path), os.path.abspath(folder)).replace(os.sep, "/")


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"onnxlint": __version__}
    for name in _MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
