"""Several models on the same inputs: how far the outputs of each are from the reference's, and what that gains.

Inputs are streamed, and only sums are kept. Models are loaded together as long as they are small; large ones are compared
one after the other, and the reference is run again for each.
"""

from __future__ import annotations

import heapq
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.accuracy.activations import ACTIVATIONS, Activation
from onnxlint.accuracy.conditions import Condition, parse_conditions
from onnxlint.accuracy.inputs import Feeds, Inputs, fed, make_inputs
from onnxlint.accuracy.latency import measure
from onnxlint.accuracy.match import End, Matched, ends_of, match, split_like
from onnxlint.accuracy.metrics import Meter, mean_db
from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.results import AccuracyReport, CandidateReport, ImageAccuracy, Latency
from onnxlint.backends import Array, Backend, Progress, Session, backend_for, silent
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, Recipe
from onnxlint.text import printable, quantity
from onnxlint.version import __version__

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks import Answer, Task

TOGETHER = 600_000_000
"""Bytes of model files, the reference's included, that are loaded at once; in memory they take two to four times that."""

WORST = 4
"""Images that are kept for showing."""

FEW = 4
"""Inputs that layers are compared on, and suggestions tried."""


def compare(
    reference: str | os.PathLike[str],
    candidates: Sequence[str | os.PathLike[str]],
    inputs: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    options: CompareOptions = CompareOptions(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> AccuracyReport:
    """Compare models with a reference.

    Args:
        reference: The reference model.
        candidates: The others: ONNX files, ncnn .param files, whatever a backend opens.
        inputs: What the models are run on; without images: seeded random inputs, which say little. The size is the
            models' own where it is fixed and the recipe has none.
        options: What is measured, and which results fail.
        progress: Called with what is being done.

    Raises:
        OnnxlintError: A file cannot be read or run, no output of a candidate has a partner, or a condition is wrong.
    """
    conditions = parse_conditions(options.fail_if, None if options.task else ())
    if not candidates:
        raise OnnxlintError("compare what? Give a reference and at least one candidate")
    models = _models(os.fspath(reference), [os.fspath(path) for path in candidates])
    images, recipe, shapes, threads = inputs.images, inputs.recipe, inputs.shapes, options.threads
    with_images = images is not None
    are_arrays = not isinstance(images, ImageSet) and os.fspath(images or "").lower().endswith((".npz", ".npy"))
    recipe = _sized(models, recipe or Recipe(), shapes, with_images and not are_arrays)
    first = models[0]
    fed = make_inputs(first.path, first.open(threads), images, recipe, shapes, threads)
    judge = _judge(options.task, options.labels, options.detection, recipe, fed)
    comparison = _Comparison(models, fed, judge, conditions, threads, progress)
    comparison.run(options.time)
    reports = [comparison.report(model) for model in models]
    if options.layers or options.suggest:
        reports[1:] = [
            comparison.explained(model, report, options.layers, options.suggest)
            for model, report in zip(models[1:], reports[1:], strict=True)
        ]
    failures = tuple(text for report in reports[1:] for one in conditions if (text := one.failure(report)))
    return AccuracyReport(
        reference=reports[0],
        candidates=tuple(reports[1:]),
        inputs=comparison.count,
        source=fed.source,
        recipe=describe(recipe) if with_images else "",
        failures=failures,
        versions=_versions(models),
        notes=tuple(_notes(fed, with_images, reports)),
    )


def describe(recipe: Recipe) -> str:
    """A recipe in the words of the command line."""
    words = []
    if recipe.size is not None:
        words.append(f"--shape {recipe.size[0]},{recipe.size[1]},{recipe.channels}")
    for name, values in (("mean", recipe.mean), ("norm", recipe.norm)):
        if values:
            words.append(f"--{name} {','.join(f'{value:.6g}' for value in values)}")
    return " ".join([*words, f"--pixel {recipe.pixel}", f"--resize {recipe.resize}"])


# Models


@dataclass
class _Model:
    """A file that takes part."""

    path: str
    name: str
    backend: Backend
    bytes: int
    session: Session | None = None
    ends: tuple[End, ...] = ()
    matched: Matched | None = None
    meters: dict[str, Meter] = field(default_factory=dict)
    latency: Latency | None = None
    worst: list[tuple[float, int, _Image]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def open(self, threads: int) -> Session:
        if self.session is None:
            self.session = self.backend.open(self.path, threads)
        return self.session

    def close(self) -> None:
        self.session = None


@dataclass(frozen=True)
class _Image:
    """One of the worst images, with what is needed to show it."""

    name: str
    snr_db: float
    feeds: Feeds
    reference: Answer | None
    candidate: Answer | None


def _models(reference: str, candidates: Sequence[str]) -> list[_Model]:
    paths = [reference, *candidates]
    for path in paths:
        if not os.path.exists(path):
            raise OnnxlintError(f"{printable(path)}: no such file")
    names = _short_names(paths)
    found = []
    for path, name in zip(paths, names, strict=True):
        backend = backend_for(path)
        files = backend.files(path)
        try:
            size = sum(os.path.getsize(file) for file in files)
        except OSError as error:
            missing = printable(str(error.filename))
            raise OnnxlintError(
                f"{printable(path)}: {missing} belongs to it and cannot be read: {error.strerror}"
            ) from None
        found.append(_Model(path, name, backend, size))
    return found


def _short_names(paths: Sequence[str]) -> list[str]:
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


def _sized(models: Sequence[_Model], recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], reads: bool) -> Recipe:
    """The recipe with the size that is fixed in a model.

    Raises:
        OnnxlintError: A model and the recipe do not fit.
    """
    from onnxlint.images.sizes import recipe_for
    from onnxlint.model.skeleton import open_model

    for model in models:
        if model.path.lower().endswith(".onnx"):
            recipe = recipe_for(open_model(model.path), recipe, shapes if model is models[0] else {}, reads)
    return recipe


def _ends(model: _Model, session: Session) -> tuple[End, ...]:
    names = [port.name for port in session.outputs]
    if model.path.lower().endswith(".onnx"):
        from onnxlint.model.skeleton import open_model

        return ends_of(open_model(model.path).proto, names)
    makers = dict(session.tensors())
    return tuple(
        End(name, name, activation=Activation(makers[name]) if makers.get(name) in ACTIVATIONS else None)
        for name in names
    )


def _beside(path: str, ends: Sequence[End]) -> tuple[End, ...]:
    """What the ONNX model that a file was made from says about its outputs: `net.onnx` beside `net_int8.param`."""
    from onnxlint.model.skeleton import open_model

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


def _judge(
    task: str | None, labels: str | None, detection: Mapping[str, Any] | None, recipe: Recipe, inputs: Inputs
) -> Task | None:
    if task is None:
        if labels is not None:
            raise OnnxlintError("--labels says what is right, but not for what: give --task too")
        return None
    from onnxlint.accuracy.tasks import make_task

    if inputs.images is None:
        raise OnnxlintError("--task judges by images: give --images")
    return make_task(task, recipe=recipe, images=inputs.images, labels=labels, detection=detection)


# Running


class _Comparison:
    """All models, and the sums over what was run so far."""

    def __init__(
        self,
        models: Sequence[_Model],
        inputs: Inputs,
        judge: Task | None,
        conditions: Sequence[Condition],
        threads: int,
        progress: Progress,
    ) -> None:
        self.reference, *self.candidates = models
        self.inputs = inputs
        self.judge = judge
        self.conditions = conditions
        self.threads = threads
        self.progress = progress
        self.count = 0

    def run(self, time: bool) -> None:
        """Run all models on all inputs."""
        for i, group in enumerate(self._groups()):
            self._pass(group, is_first=i == 0)
            for model in (self.reference, *group) if i == 0 else group:
                if time:
                    model.latency = self._time(model)
            for model in group:
                model.close()

    def _groups(self) -> Iterator[list[_Model]]:
        """Candidates that are loaded together."""
        group: list[_Model] = []
        for model in self.candidates:
            if group and sum(one.bytes for one in (self.reference, *group, model)) > TOGETHER:
                yield group
                group = []
            group.append(model)
        yield group

    def _pass(self, group: Sequence[_Model], is_first: bool) -> None:
        session = self.reference.open(self.threads)
        if not self.reference.ends:
            self.reference.ends = _ends(self.reference, session)
        count = 0
        for name, feeds in self.inputs:
            what = ", ".join(printable(model.name) for model in group)
            self.progress(f"comparing {what}", count, len(self.inputs))
            outputs = _named(session, session.run(feeds))
            answer = self._read_reference(name, feeds, outputs, is_first)
            for model in group:
                self._take(model, name, feeds, outputs, answer, count)
            if count == 0 and self.judge is not None:
                texts = [one.text for one in self.conditions]
                parse_conditions(texts, next(iter(self.judge.results().values())).metrics)
            count += 1
        self.progress("comparing", count, count)
        self.count = count

    def _read_reference(self, name: str, feeds: Feeds, outputs: Mapping[str, Array], is_first: bool) -> Answer | None:
        mine = {end.name: _finished(end, end.of(outputs)) for end in self.reference.ends}
        if is_first:
            for end in self.reference.ends:
                array = end.of(outputs)
                if array.dtype.kind in "fiub":
                    self.reference.meters.setdefault(end.name, Meter()).add(array, array)
        if self.judge is None:
            return None
        answer = self.judge.read(mine, _size(feeds))
        if is_first:
            self.judge.judge(self.reference.name, name, answer, answer)
        return answer

    def _take(
        self, model: _Model, name: str, feeds: Feeds, outputs: Mapping[str, Array], answer: Answer | None, count: int
    ) -> None:
        """One candidate on one input."""
        session = model.open(self.threads)
        theirs = _named(session, session.run(fed(feeds, session, model.path)))
        if model.matched is None:
            model.matched = self._match(model, session, outputs, theirs)
        said: dict[str, Array] = {}
        values = []
        for pair in model.matched.pairs:
            r, c = pair.arrays(outputs, theirs)
            values.append(model.meters.setdefault(pair.reference.name, Meter()).add(r, c))
            said[pair.reference.name] = c if pair.on_candidate is not None else _finished(pair.candidate, c)
        judged: Answer | None = None
        if self.judge is not None and answer is not None:
            if len(said) < len(self.reference.ends):
                said = {end.name: _finished(end, end.of(theirs)) for end in model.ends}
            judged = self.judge.read(said, _size(feeds))
            self.judge.judge(model.name, name, answer, judged)
        snr = mean_db(values)
        entry = (-snr, -count, _Image(name, snr, feeds, answer, judged))
        if len(model.worst) < WORST:
            heapq.heappush(model.worst, entry)
        else:
            heapq.heappushpop(model.worst, entry)

    def _match(
        self, model: _Model, session: Session, outputs: Mapping[str, Array], theirs: Mapping[str, Array]
    ) -> Matched:
        ends = _ends(model, session)
        if all(end.axis is None and end.dropped is None for end in ends) and not model.path.lower().endswith(".onnx"):
            patterns = [_beside(model.path, ends), self.reference.ends, *(one.ends for one in self.candidates)]
            for pattern in patterns:
                ends = split_like(ends, pattern) if all(end.axis is None for end in ends) else ends
        model.ends = ends
        matched = match(self.reference.ends, ends, outputs, theirs)
        if not matched.pairs:
            raise OnnxlintError(
                f"{printable(model.path)}: no output of it stands for one of the reference's: {'; '.join(matched.unmatched)}"
            )
        return matched

    def _time(self, model: _Model) -> Latency:
        self.progress(f"timing {printable(model.name)}", 0, None)
        session = model.open(self.threads)
        _, feeds = next(iter(self.inputs.few(1)))
        mine = fed(feeds, session, model.path)
        return measure(lambda: session.run(mine), self.threads)

    # Reporting

    def report(self, model: _Model) -> CandidateReport:
        """What was measured of a model."""
        places = {end.name: end.place for end in model.ends}
        if model.matched is not None:
            places = {pair.reference.name: pair.candidate.place for pair in model.matched.pairs}
        outputs = tuple(meter.result(name, places[name]) for name, meter in model.meters.items())
        results = {} if self.judge is None else self.judge.results()
        worst = sorted(model.worst, key=lambda entry: (-entry[0], -entry[1]))
        return CandidateReport(
            name=model.name,
            path=model.path,
            backend=model.backend.name,
            bytes=model.bytes,
            parameters=model.backend.parameters(model.path),
            snr_db=mean_db(one.snr_db for one in outputs),
            outputs=outputs,
            unmatched=() if model.matched is None else model.matched.unmatched,
            latency=model.latency,
            task=results.get(model.name),
            worst=tuple(self._shown(image) for _, _, image in worst),
            notes=tuple(_own_notes(model)),
        )

    def _shown(self, image: _Image) -> ImageAccuracy:
        pixels = b"" if self.inputs.port is None else picture(image.feeds[self.inputs.port.name][0], self.inputs.recipe)
        r, c = image.reference, image.candidate
        return ImageAccuracy(
            name=image.name,
            snr_db=image.snr_db,
            reference=() if r is None else r.detections,
            candidate=() if c is None else c.detections,
            labels=("" if r is None else r.words, "" if c is None else c.words),
            pixels=pixels,
        )

    def explained(self, model: _Model, report: CandidateReport, layers: bool, suggest: bool) -> CandidateReport:
        """The report with what is inside, and what would help."""
        from onnxlint.accuracy.explain import explain

        assert model.matched is not None
        found = explain(
            reference=(self.reference.path, self.reference.open(self.threads)),
            candidate=(model.path, model.open(self.threads)),
            pairs=model.matched.pairs,
            inputs=self.inputs.few(FEW),
            suggest=suggest,
            progress=self.progress,
        )
        model.close()
        return replace(
            report,
            layers=found.layers if layers else (),
            suggestions=found.suggestions,
            notes=(*report.notes, *found.notes),
        )


def _named(session: Session, arrays: Sequence[Array]) -> dict[str, Array]:
    return {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}


def _finished(end: End, array: Array) -> Array:
    """With what post-processing has to apply."""
    if end.dropped is None:
        return array
    return end.dropped.along(array).apply(array).astype(np.float32)


def _size(feeds: Feeds) -> tuple[int, int]:
    array = next(iter(feeds.values()))
    return int(array.shape[-1]), int(array.shape[-2])


def _own_notes(model: _Model) -> Iterator[str]:
    if model.matched is not None:
        yield from model.matched.notes
    for name, meter in model.meters.items():
        one = meter.result(name, name)
        if one.nan_share or one.inf_share:
            yield f"{printable(name)}: gives NaN or infinity"
    if model.latency is not None and model.latency.busy:
        yield "other programs kept the machine busy while this was timed: do not rely on its latency"


def picture(x: Array, recipe: Recipe) -> bytes:
    """A network's input (C, H, W) as a JPEG, the recipe's normalization taken back; empty where it is no picture, or
    Pillow is not installed."""
    if x.ndim != 3 or x.shape[0] != recipe.channels or min(x.shape[1:]) < 1:
        return b""
    try:
        from PIL import Image
    except ImportError:
        return b""
    norm = np.asarray(recipe.norm or (1.0,) * recipe.channels)[:, None, None]
    mean = np.asarray(recipe.mean or (0.0,) * recipe.channels)[:, None, None]
    pixels = np.clip(np.rint(np.nan_to_num(x / norm + mean)), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if recipe.pixel == "GRAY":
        pixels = pixels[..., 0]
    elif recipe.pixel == "BGR":
        pixels = pixels[..., ::-1]
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _notes(inputs: Inputs, with_images: bool, reports: Sequence[CandidateReport]) -> Iterator[str]:
    if not with_images:
        yield "the inputs are random numbers, which say little about real ones: give --images"
    for bad in inputs.unreadable[:5]:
        yield f"{printable(bad.path)}: left out: {printable(bad.why)}"
    if len(inputs.unreadable) > 5:
        yield f"{quantity(len(inputs.unreadable) - 5)} more images were left out because they cannot be read"
    for one in reports[0].outputs:
        if one.nan_share or one.inf_share:
            yield f"the reference itself gives NaN or infinity at {printable(one.name)}"


def _versions(models: Sequence[_Model]) -> dict[str, str]:
    found = {"onnxlint": __version__}
    for package in dict.fromkeys(("numpy", *(model.backend.name for model in models))):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime-gpu and its like
            continue
    return found


__all__ = ["compare", "describe", "picture"]
