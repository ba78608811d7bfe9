"""Backends: the targets of conversion, and how their files are run.

A backend is an object behind the entry point `onnxlint.backends` that implements `Backend`. It makes
artifacts for its targets, and opens the files that it can run; it never looks for findings and never prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxlint.entry_points import entry_points
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.backends.task import TaskLoss
    from onnxlint.images.recipe import ImageSet, Recipe

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int | None], None]
"""Called with the current action, the number of steps done, and their total (None: unknown)."""


def silent(_what: str, _done: int, _total: int | None) -> None:
    """A Progress that shows nothing."""


class NotConvertible(OnnxlintError):  # noqa: N818 - the model's fault, not the machine's
    """The model does not convert: what `onnxlint check --target` finds in it may explain why.

    Attributes:
        lint_target: The target that the check is run for, as `check --target` names it; empty: none in particular.
    """

    def __init__(self, message: str, lint_target: str = "") -> None:
        super().__init__(message)
        self.lint_target = lint_target


@dataclass(frozen=True)
class Target:
    """A target of conversion.

    Attributes:
        name: Its canonical name: `ncnn-int8`.
        about: Description, in one line.
        files: Endings of the files that it writes, put behind the model's stem; the first is the one to open.
        aliases: Other names that are accepted.
        needs: The target that it is made from; empty: the ONNX model itself.
        calibrates: Whether it needs images.
    """

    name: str
    about: str
    files: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    needs: str = ""
    calibrates: bool = False


@dataclass(frozen=True)
class Decision:
    """What became of one layer or node.

    Attributes:
        layer: Its name in the artifact (an ncnn layer) or in the model (an ONNX node).
        type: Its operator.
        state: `int8`, `fp16`, `fp32`.
        why: Why, in a few words.
        gain_db: Gain of keeping the layer in floating point, in dB, if it was measured.
        bytes: What that cost.
    """

    layer: str
    type: str
    state: str
    why: str
    gain_db: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """How artifacts are to be made. Everything that changes their bytes is here, and goes into the manifest.

    Attributes:
        recipe: How images become the input.
        images: What to calibrate with.
        shape: Input → its whole shape, for inputs with free sizes; `{"": (3, 640, 640)}` holds for any image input.
        method: How activations are calibrated: a name that the target knows; `auto` is known to all.
        mixed: Whether layers that int8 hurts may stay in floating point.
        budget: Allowed growth of the weights by `mixed`, as a fraction of the pure int8 size.
        threads: How many to use. Does not change the result.
        tools: Folder with the real tools of a backend (`--ncnn-tools`), to be used in place of our own.
        keep: Layers or nodes that stay in floating point.
        weight_bits: Of int8 weights in ONNX models: 7 keeps the 16-bit sums of x86 processors without VNNI from
            overflowing.
        task: What outputs are used for; None: nothing is known.
        engine: Where activations are measured: `local`, or `ray` as for `onnxlint check`. Does not change the result.
    """

    recipe: Recipe
    images: ImageSet | None = None
    shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    method: str = "auto"
    mixed: bool = False
    budget: float = 0.08
    threads: int = 2
    tools: str | None = None
    keep: tuple[str, ...] = ()
    weight_bits: int = 8
    task: TaskLoss | None = None
    engine: str = "local"


@dataclass(frozen=True, repr=False)
class Artifact:
    """An artifact: a converted model.

    Attributes:
        target: The target's name.
        files: Paths of the files, in the order of the target's `files`.
        decisions: What became of each layer, where the target decides that.
        notes: What the user should know, a line each.
        details: Further facts for the manifest: JSON values by name.
    """

    target: str
    files: tuple[str, ...]
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Artifact {self.target}: {', '.join(map(printable, self.files))}>"


@dataclass(frozen=True)
class Port:
    """An input or output of a runnable artifact: None stands for a free size, an empty shape for an unknown one."""

    name: str
    shape: tuple[int | None, ...] = ()
    dtype: str = "float32"


class Session(Protocol):
    """A loaded artifact. Arrays always have a batch axis, even if the backend has none.

    It may have `notes` (lines): what users should know of how it is run.
    """

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives, in order."""

    def tensors(self) -> tuple[tuple[str, str], ...]:
        """(value, operator that makes it) of everything inside that `run` can be asked for, in order of computation."""

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """The outputs, or the named values, for one set of inputs (N, C, H, W); given values of inner tensors replace
        what would be computed, where the backend can do that.

        Raises:
            OnnxlintError: It cannot be run on them.
        """


class Backend(Protocol):
    """The interface of an entry point of `onnxlint.backends`.

    It may have a `lint_target`: the target that models are checked for (`check --target`), where that is not its name.
    """

    name: str
    targets: tuple[Target, ...]

    def available(self, target: Target, job: Job) -> str:
        """What is missing on this machine to make a target, with the way to get it, in one line; empty: nothing.

        Said before any work is done. A backend without this method is taken for available.
        """

    def missing_to_run(self) -> str:
        """What is missing on this machine to run the files that it opens, as `available` says it; empty: nothing.

        A backend without this method is asked to `open` at once.
        """

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """Find reasons why a target cannot be made, in well under a second: nothing is loaded or run.

        A backend without this method is asked to `make` at once.

        Args:
            target: One of `targets`.
            source: The ONNX model, even where the target `needs` another one.
            job: How.

        Raises:
            OnnxlintError: A shape, an option or images are missing or wrong.
        """

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's files.

        Args:
            target: One of `targets`.
            source: The ONNX model, or the first file of the target it `needs`.
            files: Where to write, in the order of the target's `files`. They are in a folder of their own: the caller
                moves them when all is well.
            job: How.
            progress: Called with the current action, the number of steps done, and their total.

        Raises:
            NotConvertible: The model cannot be converted.
            OnnxlintError: It cannot be made for another reason.
        """

    def opens(self, path: str) -> bool:
        """Whether this is a file that the backend can run, from its name."""

    def open(self, path: str, threads: int = 2) -> Session:
        """Load it.

        Raises:
            OnnxlintError: It cannot be loaded.
        """

    def files(self, path: str) -> tuple[str, ...]:
        """All files of the artifact that has `path` as its first: their sizes add up to its size."""

    def parameters(self, path: str) -> int | None:
        """How many weights it has."""


@lru_cache(maxsize=1)
def backends() -> tuple[Backend, ...]:
    """All that are installed, our own first.

    Raises:
        OnnxlintError: One cannot be loaded.
    """
    found: list[Backend] = []
    for point in sorted(entry_points("onnxlint.backends")):
        try:
            found.append(point.load())
        except Exception as error:
            raise OnnxlintError(
                f"backend {printable(point.name)!r} ({printable(point.value)}) cannot be loaded: "
                f"{printable(str(error)) or type(error).__name__}"
            ) from error
    return tuple(sorted(found, key=lambda backend: OUR_ORDER.get(backend.name, len(OUR_ORDER))))


OUR_ORDER = {"onnxruntime": 0, "ncnn": 1, "openvino": 2, "tensorrt": 3, "mnn": 4}


def targets() -> Iterator[tuple[Backend, Target]]:
    """Everything that can be made, in order."""
    for backend in backends():
        for target in backend.targets:
            yield backend, target


def find_target(name: str) -> tuple[Backend, Target]:
    """The target with this name or alias; `_` and `-` are the same.

    Raises:
        OnnxlintError: There is none.
    """
    wanted = name.lower().replace("_", "-")
    known: list[str] = []
    for backend, target in targets():
        names = [target.name, *target.aliases]
        if wanted in (one.replace("_", "-") for one in names):
            return backend, target
        known += names
    hint = did_you_mean(wanted, known, choices(target.name for _, target in targets()))
    raise OnnxlintError(f"no such target: {printable(name)!r}{hint}")


def backend_for(path: str) -> Backend:
    """The backend that runs a file.

    Raises:
        OnnxlintError: None does.
    """
    for backend in backends():
        if backend.opens(path):
            return backend
    raise OnnxlintError(
        f"{printable(path)}: no backend runs such a file; give a .onnx model, an ncnn .param, an OpenVINO .xml or an .mnn"
    )


def not_installed(packages: Iterable[str], extra: str) -> str:
    """The first of some modules that is not installed, and the extra that brings it; empty: all are. Imports nothing."""
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            return f"{package} is not installed; install it with `pip install 'onnxlint[{extra}]'`"
    return ""


def bytes_of(path: str) -> int:
    """Bytes of all files of a model; of those that there are."""
    try:
        files = backend_for(path).files(path)
    except OnnxlintError:  # whoever opens it says what is wrong
        files = (path,)
    return sum(os.path.getsize(file) for file in files if os.path.isfile(file))


def with_batch(array: Array) -> Array:
    """(C, H, W) → (1, C, H, W)."""
    return np.asarray(array)[None]


__all__ = [
    "Array",
    "Artifact",
    "Backend",
    "Decision",
    "Job",
    "NotConvertible",
    "Port",
    "Progress",
    "Session",
    "Target",
    "backend_for",
    "backends",
    "bytes_of",
    "find_target",
    "not_installed",
    "silent",
    "targets",
    "with_batch",
]
