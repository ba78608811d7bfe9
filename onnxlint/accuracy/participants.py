"""The models that take part in a comparison: their files, sessions and outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

from onnxlint.accuracy.activations import ACTIVATIONS, Activation
from onnxlint.accuracy.match import End, Matched, ends_of
from onnxlint.accuracy.metrics import Meter
from onnxlint.accuracy.results import Latency
from onnxlint.backends import Array, Backend, Session, backend_for
from onnxlint.conversion.manifest import require_finished
from onnxlint.errors import OnnxlintError
from onnxlint.images.sizes import broken_condition
from onnxlint.model.assumptions import Assumption, assumptions
from onnxlint.model.reading import no_such_file
from onnxlint.model.skeleton import open_model
from onnxlint.store.urls import is_remote, must_be_local
from onnxlint.text import printable
from onnxlint.version import __version__


@dataclass
class Participant:
    """A file in the comparison, and the facts known about it so far.

    Attributes:
        path: Its first file.
        name: Name shown in reports.
        backend: What runs it.
        bytes: Size of all its files.
        session: The model, loaded.
        ends: Its outputs, joined ones taken apart.
        matched: Which of them stand for the reference's.
        meters: Output of the reference → sums so far.
        latency: How long it takes.
        notes: What the user should know.
    """

    path: str
    name: str
    backend: Backend
    bytes: int
    session: Session | None = None
    ends: tuple[End, ...] = ()
    matched: Matched | None = None
    meters: dict[str, Meter] = field(default_factory=dict)
    latency: Latency | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_onnx(self) -> bool:
        """Whether it is an ONNX file."""
        return self.path.lower().endswith(".onnx")

    def open(self, threads: int) -> Session:
        """The session, loaded at the first call."""
        if self.session is None:
            self.session = self.backend.open(self.path, threads)
            # A backend of somebody else may have no notes.
            notes = getattr(self.session, "notes", ())
            self.notes += [note for note in notes if note not in self.notes]
        return self.session

    @cached_property
    def conditions(self) -> list[Assumption]:
        """What `onnxlint fix` wrote into the model: the sizes that it is right for."""
        return list(assumptions(open_model(self.path).proto)) if self.is_onnx else []

    def broken_condition(self, feeds: Mapping[str, Array]) -> str:
        """The condition that the inputs break, in words; empty if they break none."""
        for name, array in feeds.items():
            mine = [one for one in self.conditions if one.input == name]
            if problem := broken_condition(mine, array.shape):
                return problem
        return ""

    def close(self) -> None:
        """Let the session go."""
        self.session = None


def find_participants(reference: str, candidates: Sequence[str]) -> list[Participant]:
    """The reference and the candidates.

    Raises:
        OnnxlintError: A file is missing, or no backend opens it.
    """
    paths = [reference, *candidates]
    for path in paths:
        if not os.path.exists(path):
            if is_remote(path):
                raise must_be_local(path)
            raise OnnxlintError(f"{printable(path)}: {no_such_file(path)}")
    names = short_names(paths)
    found = []
    for path, name in zip(paths, names, strict=True):
        backend = backend_for(path)
        require_finished(path)
        files = backend.files(path)
        try:
            size = sum(os.path.getsize(file) for file in files)
        except OSError as error:
            missing = printable(str(error.filename))
            raise OnnxlintError(
                f"{printable(path)}: {missing} belongs to it and cannot be read: {error.strerror}"
            ) from None
        found.append(Participant(path, name, backend, size))
    return found


def short_names(paths: Sequence[str]) -> list[str]:
    """Names that tell files apart: the last parts of their paths, and a number where a file takes part twice."""
    whole = [os.path.abspath(path).split(os.sep) for path in paths]
    names = []
    for i, parts in enumerate(whole):
        others = [other for other in whole if other != parts]
        count = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        name = "/".join(parts[-count:])
        again = whole[:i].count(parts)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def read_ends(model: Participant, session: Session) -> tuple[End, ...]:
    """The outputs of a model, as its graph or its metadata has them."""
    names = [port.name for port in session.outputs]
    if model.is_onnx:
        return ends_of(open_model(model.path).proto, names)
    makers = dict(session.tensors())
    return tuple(
        End(name, name, activation=Activation(makers[name]) if makers.get(name) in ACTIVATIONS else None)
        for name in names
    )


def ends_of_source(path: str, ends: Sequence[End]) -> tuple[End, ...]:
    """Metadata on outputs in the ONNX model that a file was made from: `net.onnx` beside `net_int8.param`."""
    stem = os.path.splitext(path)[0]
    while stem:
        source = f"{stem}.onnx"
        if source != path and os.path.isfile(source):
            proto = open_model(source).proto
            names = [value.name for value in proto.graph.output]
            if {end.output for end in ends} <= set(names):
                return ends_of(proto, names)
        stem = stem.rpartition("_")[0] if "_" in os.path.basename(stem) else ""
    return ()


def versions_of(models: Sequence[Participant]) -> dict[str, str]:
    """Package → version of the runtimes used."""
    found = {"onnxlint": __version__}
    for package in dict.fromkeys(("numpy", *(model.backend.name for model in models))):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime-gpu and its like
            continue
    return found
