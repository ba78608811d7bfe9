"""The manifest of a conversion (`NAME.onnxlint.json`): from what, with which options and versions each file was made."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from onnxlint.backends import Artifact, Job, find_target
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Pixel, Recipe, Resize, find_images, is_number
from onnxlint.model.reading import read_regular
from onnxlint.model.skeleton import Model, external_files
from onnxlint.text import printable
from onnxlint.version import __version__

ENDING = ".onnxlint.json"

LARGEST = 1 << 26
"""Bytes of a manifest."""

_FORMAT = 1
_MADE_WITH = ("numpy", "onnx", "onnxruntime", "ncnn", "pnnx", "openvino", "nncf", "mnn", "pillow")
_MANIFESTS = 100
"""Manifests in one folder that are searched for an artifact."""

_FILE = {"path": str, "bytes": int, "sha256": str}
_ANY = "*"
"""Any key, in `_SCHEMA`."""

_SCHEMA: dict[str, Any] = {
    "model": {"path": str, "sha256": str},
    "versions": {_ANY: str},
    "targets": {
        _ANY: {
            "job": {
                "recipe": {_ANY: object},
                "shapes": {_ANY: [int]},
                "method": str,
                "mixed": bool,
                "budget": float,
                "keep": [str],
                "weight_bits?": int,
            },
            "files": [_FILE],
            "decisions": [{"layer": str, "type": str, "state": str, "why": str}],
            "notes": [str],
            "details": {_ANY: object},
        }
    },
    "images": {_ANY: {"source": str, "files": [{"path": str, "sha256": str}]}},
    "unfinished?": [str],
}
"""What readers rely on: dictionaries and lists of the types that their values have; `?` ends a key that may be missing."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def manifest_text(
    path: str,
    model: Model,
    jobs: Mapping[str, Job],
    artifacts: Sequence[Artifact],
    folder: str,
    *,
    finished: bool = True,
) -> str:
    """The contents of the manifest at `path` after a conversion; entries of other targets of the same model stay.

    Args:
        path: Destination; paths in the manifest are relative to its folder.
        model: The ONNX model.
        jobs: Target → how it was made.
        artifacts: With the paths that their files have now.
        folder: Where these files will be.
        finished: Whether all files are in place. Before they are moved there, a manifest says that they may be mixed with
            earlier ones: the process may be killed between two moves.
    """
    home = os.path.dirname(path) or "."
    subject = _model_entry(model, home)
    before = _previous(path, subject)
    images = {target: _images_entry(job.images, home) for target, job in jobs.items()}
    entries: dict[str, Any] = {
        artifact.target: {
            "job": _job_entry(jobs[artifact.target], images[artifact.target], artifact),
            "files": [
                {**_file_entry(file, home), "path": _relative(os.path.join(folder, os.path.basename(file)), home)}
                for file in artifact.files
            ],
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
        "versions": versions(),
        "targets": {**before.get("targets", {}), **entries},
        "images": {**before.get("images", {}), **{one["sha256"]: one for one in images.values() if one is not None}},
    }
    unfinished = _unfinished(before) - entries.keys() if finished else _unfinished(before) | entries.keys()
    if unfinished:
        document["unfinished"] = sorted(unfinished)
    used = {entry["job"].get("images") for entry in document["targets"].values()}
    document["images"] = {key: entry for key, entry in document["images"].items() if key in used}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(path: str) -> dict[str, Any]:
    """Read a manifest, and check that it has all that this version relies on.

    Raises:
        OnnxlintError: It cannot be read, is not a manifest, or a field is missing or of another type.
    """
    shown = printable(path)
    try:
        data = read_regular(path, LARGEST)
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be read: {error.strerror or error}") from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise OnnxlintError(f"{shown}: is not a manifest of onnxlint; 'onnxlint convert' writes one") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT or "targets" not in document:
        raise OnnxlintError(f"{shown}: is not a manifest that this version of onnxlint can read; convert again")
    problem = _problem(document, _SCHEMA, "")
    if problem:
        raise OnnxlintError(f"{shown}: is a damaged manifest: {problem}; convert the model again")
    return document


def _unfinished(document: Mapping[str, Any]) -> set[str]:
    """Targets whose files were being moved into place when the process was killed."""
    return set(document.get("unfinished", ()))


def _problem(value: Any, schema: Any, where: str) -> str:
    """What in a value is not as the schema has it; empty if all is."""
    if isinstance(schema, list):
        if not isinstance(value, list):
            return f"{where} is not a list"
        return next((p for i, one in enumerate(value) if (p := _problem(one, schema[0], f"{where}[{i}]"))), "")
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return f"{where} is not an object"
        for key, inner in schema.items():
            if key.endswith("?") and (key := key.removesuffix("?")) not in value:
                continue
            if key != _ANY and key not in value:
                return f"{where}.{key} is missing".removeprefix(".")
            for name, one in value.items() if key == _ANY else ((key, value[key]),):
                if problem := _problem(one, inner, f"{where}.{printable(name)[:80]}".removeprefix(".")):
                    return problem
        return ""
    fits = isinstance(value, (int, float) if schema is float else schema)
    if schema is not object and (not fits or (isinstance(value, bool) and schema is not bool)):
        return f"{where} is not {_WORDS[schema]}"
    is_impossible = isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value)
    return f"{where} is not a finite number" if is_impossible else ""


def recipe_from(entry: Mapping[str, Any], path: str) -> Recipe:
    """The recipe that a manifest holds.

    Raises:
        OnnxlintError: It is none.
    """
    broken = OnnxlintError(f"{printable(path)}: is a damaged manifest: its recipe is invalid; convert the model again")
    values: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in entry.items()}
    try:
        recipe = Recipe(**values)
    except TypeError:
        raise broken from None
    pairs = [recipe.multiples, *([] if recipe.size is None else [recipe.size])]
    numbers = (recipe.mean, recipe.norm)
    if (
        recipe.pixel not in typing.get_args(Pixel)
        or recipe.resize not in typing.get_args(Resize)
        or any(
            not isinstance(pair, tuple) or len(pair) != 2 or not all(_is_size(one) for one in pair) for pair in pairs
        )
        or not isinstance(recipe.suggested, bool)
        or any(not isinstance(one, tuple) or len(one) not in (0, recipe.channels) for one in numbers)
        or not all(is_number(x) for one in numbers for x in one)
    ):
        raise broken
    return recipe


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def recipe_of(file: str) -> Recipe | None:
    """The recipe that an artifact was made with, from a manifest in its folder; None if none names the file.

    Raises:
        OnnxlintError: The manifest that names it holds no recipe, or says that its files may not belong together.
    """
    found = _made(file)
    if found is None:
        return None
    path, document, target = found
    require_finished(file)
    return recipe_from(document["targets"][target]["job"]["recipe"], path)


def require_finished(file: str) -> None:
    """Raise OnnxlintError if the conversion that wrote a file was killed while it moved its files into place."""
    found = _made(file)
    if found is not None and found[2] in _unfinished(found[1]):
        raise OnnxlintError(
            f"{printable(file)}: the conversion that wrote it was interrupted ({printable(found[0])} says so), and "
            "its files may not belong together; convert the model again"
        )


def _made(file: str) -> tuple[str, dict[str, Any], str] | None:
    """The manifest that names a file: its path, its contents, and the target of the file."""
    folder = os.path.dirname(file) or "."
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), f"*{ENDING}")))[:_MANIFESTS]
    for path in paths:
        try:
            document = read_manifest(path)
        except OnnxlintError:  # somebody else's file: it says nothing of this artifact
            continue
        for target, entry in document["targets"].items():
            if any(
                os.path.join(folder, one["path"]) == os.path.join(folder, os.path.basename(file))
                for one in entry["files"]
            ):
                return path, document, target
    return None


def differences(document: Mapping[str, Any], artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """For each file of artifacts, whether it has the bytes that a manifest recorded."""
    now = versions()
    changed = [
        f"{printable(name)} {printable(was)} then, {now.get(name, 'none')} now"
        for name, was in document["versions"].items()
        if now.get(name) != was
    ]
    notes = []
    for artifact in artifacts:
        recorded = {
            os.path.basename(one["path"]): one["sha256"] for one in document["targets"][artifact.target]["files"]
        }
        for file in artifact.files:
            name = os.path.basename(file)
            if recorded.get(name) == _digest(file):
                notes.append(f"{printable(name)}: the same bytes as recorded")
            else:
                why = f" ({', '.join(changed)})" if changed else ""
                notes.append(f"{printable(name)}: other bytes than recorded{why}")
    return tuple(notes)


def same_model(document: Mapping[str, Any], model: Model, folder: str) -> bool:
    """Whether a model has the bytes that a manifest recorded."""
    return bool(_model_entry(model, folder)["sha256"] == document["model"]["sha256"])


def same_images(entry: Mapping[str, Any], folder: str) -> ImageSet:
    """The images that a manifest names.

    Raises:
        OnnxlintError: One of them has changed.
    """
    paths = tuple(os.path.join(folder, file["path"]) for file in entry["files"])
    for file, path in zip(entry["files"], paths, strict=True):
        if file["sha256"] and (not os.path.isfile(path) or _digest(path) != file["sha256"]):
            raise OnnxlintError(f"{printable(path)}: is not the image that the manifest names")
    if len(paths) == 1 and paths[0].endswith((".npz", ".npy")):
        return find_images(paths[0])
    return ImageSet(os.path.join(folder, entry["source"]), paths)


def versions() -> dict[str, str]:
    """onnxlint and the packages that it makes artifacts with → version, of those that are installed."""
    found = {"onnxlint": __version__}
    for name in _MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _previous(path: str, subject: Mapping[str, Any]) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    try:
        document = read_manifest(path)
    except OnnxlintError:  # not ours to keep: it is written anew
        return {}
    return document if document["model"]["sha256"] == subject["sha256"] else {}


def _model_entry(model: Model, folder: str) -> dict[str, Any]:
    entry = _file_entry(model.path, folder)
    external = external_files(model)
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
        "weight_bits": job.weight_bits,
        "keep": list(job.keep),
    }
    if job.task is not None and calibrates and (job.mixed or job.method == "auto"):
        entry["task"] = dict(job.task.record())
    if images is not None and (calibrates or artifact.target.endswith("fp16")):
        entry["images"] = images["sha256"]
    return entry


def _images_entry(images: ImageSet | None, folder: str) -> dict[str, Any] | None:
    if images is None:
        return None
    paths = images.paths or (images.source,)
    files = [_file_entry(path, folder) if os.path.exists(path) else {"path": path, "sha256": ""} for path in paths]
    digest = hashlib.sha256("".join(f"{file['sha256']}\n" for file in files).encode()).hexdigest()
    return {"source": _relative(images.source, folder), "sha256": digest, "files": files}


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
