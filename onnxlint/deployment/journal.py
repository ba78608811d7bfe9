"""The record of a deployment, `deploy.json`: which step was done with which inputs, options, versions and files.

A step is skipped (`--resume`) where all of these are as recorded. The record lies in a folder that others may have
written to: what is read from it is checked, and escaped before it is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from onnxlint.backends import Progress
from onnxlint.deployment.results import State, Step, StepError
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet
from onnxlint.model.output import write_atomically
from onnxlint.model.skeleton import Model, external_files
from onnxlint.text import printable
from onnxlint.version import __version__

JOURNAL = "deploy.json"
"""Name of the record."""

LARGEST = 64 << 20
"""Bytes of a JSON file that are read; more is not ours."""

_FORMAT = 1
_PACKAGES = (
    "numpy",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "ncnn",
    "pnnx",
    "openvino",
    "nncf",
    "mnn",
    "pillow",
    "jinja2",
)


@dataclass(frozen=True)
class _Entry:
    """A step in the record.

    Attributes:
        key: Digest of all that the step depends on; empty if it is always done.
        state: Whether it was done.
        seconds: Wall time.
        files: What it wrote, relative to the folder → SHA-256.
        lines: Its results, for people.
    """

    key: str
    state: State
    seconds: float
    files: dict[str, str]
    lines: tuple[str, ...]


@dataclass
class OpenStep:
    """A step under way.

    Attributes:
        todo: Whether it has to be done.
        state: Whether it was done; `failed` once `fail` was called.
        files: Paths of the files written.
        lines: Its results, for people.
    """

    journal: Journal
    name: str
    key: str
    findings: tuple[str, ...]
    todo: bool = True
    state: State = "done"
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)

    def write(self, name: str, text: str) -> str:
        """Write a file of the folder; returns its path."""
        path = os.path.join(self.journal.folder, *name.split("/"))
        write_atomically(path, text)
        self.files += (path,)
        return path

    def fail(self, *lines: str) -> None:
        """Record why it failed."""
        self.state = "failed"
        self.lines += lines

    def progress(self, text: str) -> None:
        """Report what is being done."""
        self.journal.progress(text, 0, None)

    def __enter__(self) -> OpenStep:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.journal.close(self)
        elif isinstance(error, OnnxlintError) and not isinstance(error, StepError):
            raise StepError(f"{self.name}: {error}", self.findings) from None


class Journal:
    """The steps that were done before, and those of this run.

    Args:
        folder: Where everything is written.
        resume: Whether steps are skipped whose inputs are unchanged.
        progress: Called with the step under way.

    Raises:
        OnnxlintError: The record cannot be read, or is damaged.
    """

    def __init__(self, folder: str, resume: bool, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress
        self.steps: list[Step] = []
        self._path = os.path.join(folder, JOURNAL)
        self._before = _read(self._path) if resume else {}
        self._entries: dict[str, _Entry] = {}

    def step(self, name: str, key: Mapping[str, Any] | None = None, findings: tuple[str, ...] = ()) -> OpenStep:
        """Begin a step. Without a key it is always done."""
        digest = ""
        if key is not None:
            text = json.dumps([name, key, __version__, _versions()], sort_keys=True, default=list)
            digest = hashlib.sha256(text.encode()).hexdigest()
        self.progress(name, 0, None)
        entry = self._before.get(name)
        same = bool(digest) and entry is not None and entry.key == digest and self._is_whole(entry)
        return OpenStep(self, name, digest, findings, todo=not same)

    def _is_whole(self, entry: _Entry) -> bool:
        if not entry.files or entry.state != "done":
            return False
        try:
            return all(digest_of(os.path.join(self.folder, name)) == known for name, known in entry.files.items())
        except (OSError, ValueError):  # a name that no file can have
            return False

    def close(self, step: OpenStep) -> None:
        """Record a step: whatever interrupts a later one, this one need not be done again."""
        if step.todo:
            names = [os.path.relpath(file, self.folder).replace(os.sep, "/") for file in step.files]
            files = {name: digest_of(os.path.join(self.folder, name)) for name in names}
            seconds = round(time.monotonic() - step.started, 2)
            entry = _Entry(step.key, step.state, seconds, files, step.lines)
        else:
            entry = self._before[step.name]
        self._entries[step.name] = entry
        state: State = entry.state if step.todo else "unchanged"
        self.steps.append(Step(step.name, state, entry.seconds, tuple(entry.files), entry.lines))
        entries = {**self._before, **self._entries}
        steps = {name: {**vars(one), "lines": list(one.lines)} for name, one in entries.items()}
        document = {"format": _FORMAT, "versions": _versions(), "steps": steps}
        write_atomically(self._path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def files_of(self, kinds: tuple[str, ...]) -> list[str]:
        """What the steps of some kinds wrote."""
        return [name for step in self.steps if step.name.split()[0] in kinds for name in step.files]


def read_json(path: str) -> Any:
    """A JSON file of a deployment's folder.

    Raises:
        FileNotFoundError: It does not exist.
        OnnxlintError: It is not a regular file, too large, or not JSON.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a FIFO must not wait
        with open(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                raise ValueError("not a regular file of reasonable size")
            return json.loads(file.read(LARGEST + 1).decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None


def damaged(path: str, why: str) -> OnnxlintError:
    """The error for a file of the folder that `--resume` cannot use."""
    return OnnxlintError(
        f"{printable(path)}: cannot be used ({printable(why)}); run deploy without --resume to make it again"
    )


def _read(path: str) -> dict[str, _Entry]:
    """The recorded steps; none if the record is missing or of another format version."""
    try:
        document = read_json(path)
    except FileNotFoundError:
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("steps"), dict):
        raise damaged(path, "it has no table of steps")
    if document.get("format") != _FORMAT:
        return {}
    return {str(name): _entry(path, str(name), entry) for name, entry in document["steps"].items()}


def _entry(path: str, name: str, value: Any) -> _Entry:
    """A step of the record, checked; its lines are escaped."""

    def wrong(what: str) -> OnnxlintError:
        return damaged(path, f"step {name!r}: {what}")

    if not isinstance(value, dict):
        raise wrong("not a table")
    key, state, seconds, files, lines = (value.get(name) for name in ("key", "state", "seconds", "files", "lines"))
    if not isinstance(key, str) or state not in ("done", "failed"):
        raise wrong("key or state is wrong")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e9:
        raise wrong("seconds is not a time")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise wrong("lines is not a list of texts")
    if not isinstance(files, dict) or not all(_is_inside(name) and isinstance(v, str) for name, v in files.items()):
        raise wrong("files is not a table of files in the folder")
    return _Entry(key, cast(State, state), float(seconds), files, tuple(map(printable, lines)))


def _is_inside(name: str) -> bool:
    """Whether a name is that of a file in the folder, or in a folder of it."""
    path = name.replace("/", os.sep)
    return not os.path.isabs(path) and not os.path.splitdrive(path)[0] and not {"", ".", ".."} & set(path.split(os.sep))


def _versions() -> dict[str, str]:
    found = {"onnxlint": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# Digests of what steps depend on


def digest_of(path: str) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a regular file")
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _joined(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def model_digest(model: Model) -> str:
    """Of a model's file, and of the files that hold its weights."""
    return _joined([digest_of(file) for file in (model.path, *external_files(model))])


def images_digest(images: ImageSet | None) -> str:
    """Of the bytes of all images; empty if there are none."""
    if images is None:
        return ""
    return _joined([digest_of(path) if os.path.isfile(path) else path for path in images.paths or (images.source,)])


def labels_digest(labels: str | None) -> str:
    """Of a file; of a folder, the names and sizes of the files in it."""
    if labels is None or not os.path.exists(labels):
        return labels or ""
    if os.path.isfile(labels):
        return digest_of(labels)
    names = sorted(os.path.join(top, name) for top, _, files in os.walk(labels) for name in files)
    return _joined([f"{os.path.relpath(name, labels)} {os.path.getsize(name)}" for name in names])
