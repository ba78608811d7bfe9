"""Run models on the same inputs, and sum up the results.

Inputs are streamed, and only sums are kept. Models are loaded together as long as they are small; large ones are compared
one after the other, and the reference is run again for each.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxlint.accuracy.conditions import Condition, parse_conditions
from onnxlint.accuracy.inputs import Feeds, Inputs, renamed_feeds
from onnxlint.accuracy.latency import measure
from onnxlint.accuracy.match import End, Matched, match, split_like
from onnxlint.accuracy.metrics import Meter, mean_db
from onnxlint.accuracy.participants import Participant, ends_of_source, read_ends
from onnxlint.accuracy.pictures import picture
from onnxlint.accuracy.results import CandidateReport, ImageAccuracy
from onnxlint.accuracy.spread import Models
from onnxlint.accuracy.spread import outputs as outputs_elsewhere
from onnxlint.backends import Array, Progress, Session
from onnxlint.errors import OnnxlintError
from onnxlint.lint.engines import Spread
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.accuracy.tasks import Answer, Task

TOGETHER = 600_000_000
"""Bytes of model files, the reference's included, that are loaded at once; in memory they take two to four times that."""

Begin = Callable[[str, str, str], None]
"""Called with a model's path, its backend and the current action (`loading`, `running`)."""

WORST = 4
"""Images that are kept for showing."""

FEW = 4
"""Inputs that layers are compared on, and suggestions tried."""


@dataclass(frozen=True)
class _Image:
    """One of the worst images, with the data to show it."""

    name: str
    snr_db: float
    feeds: Feeds
    reference: Answer | None
    candidate: Answer | None


class Comparison:
    """A reference and candidates on the same inputs.

    Args:
        models: The reference, and the candidates.
        inputs: Inputs of the models.
        judge: What their outputs are for; None: nothing is known.
        conditions: What makes a comparison fail; those on the task's metrics are checked after the first input.
        threads: How many each model uses.
        progress: Called with the current action.
        begin: Called with the model (path, backend) and the next action before native code runs.
        spread: Runs the models on the inputs elsewhere; None: here.
    """

    def __init__(
        self,
        models: Sequence[Participant],
        inputs: Inputs,
        judge: Task | None,
        conditions: Sequence[Condition],
        threads: int,
        progress: Progress,
        begin: Begin,
        spread: Spread | None = None,
    ) -> None:
        self.reference, *self.candidates = models
        self.spread = spread
        self.inputs = inputs
        self.judge = judge
        self.conditions = conditions
        self.threads = threads
        self.progress = progress
        self.begin = begin
        self.worst: dict[str, list[tuple[float, int, _Image]]] = {}
        self.count = 0

    def run(self, time: bool) -> None:
        """Run all models on all inputs, and time them."""
        for i, group in enumerate(self._groups()):
            self._pass(group, is_first=i == 0)
            if time:
                self._time((self.reference, *group) if i == 0 else group)
            for model in group:
                model.close()

    def _groups(self) -> Iterator[list[Participant]]:
        """Candidates that are loaded together."""
        group: list[Participant] = []
        for model in self.candidates:
            if group and sum(one.bytes for one in (self.reference, *group, model)) > TOGETHER:
                yield group
                group = []
            group.append(model)
        yield group

    def _pass(self, group: Sequence[Participant], is_first: bool) -> None:
        session = self._opened(self.reference)
        if not self.reference.ends:
            self.reference.ends = read_ends(self.reference, session)
        count = 0
        what = ", ".join(printable(model.name) for model in group)
        for name, feeds, ran in self._runs(group):
            self.progress(f"comparing {what}", count, len(self.inputs))
            outputs = _named(session, next(ran))
            answer = self._read_reference(name, feeds, outputs, is_first)
            for model in group:
                theirs = next(ran)
                self._take(model, name, feeds, outputs, theirs, answer, count)
            if count == 0 and self.judge is not None:
                texts = [one.text for one in self.conditions]
                parse_conditions(texts, next(iter(self.judge.results().values())).metrics)
            count += 1
        self.progress("comparing", count, count)
        self.count = count

    def _runs(self, group: Sequence[Participant]) -> Iterator[tuple[str, Feeds, Iterator[Sequence[Array]]]]:
        """Each input, and what the reference and the group's models make of it, in this order."""
        models = (self.reference, *group)
        if self.spread is not None:
            size = sum(model.bytes for model in (self.reference, *self.candidates))
            elsewhere = Models(os.getcwd(), tuple(model.path for model in models), self.threads, size)
            yield from outputs_elsewhere(self.spread, elsewhere, self._checked_inputs())
            return
        for name, feeds in self._checked_inputs():
            yield name, feeds, (self._ran(model, feeds) for model in models)

    def _checked_inputs(self) -> Iterator[tuple[str, Feeds]]:
        for name, feeds in self.inputs:
            self._check_conditions(name, feeds)
            yield name, feeds

    def _opened(self, model: Participant) -> Session:
        if model.session is None:
            self.begin(model.path, model.backend.name, "loading")
        return model.open(self.threads)

    def _ran(self, model: Participant, feeds: Mapping[str, Array]) -> Sequence[Array]:
        session = self._opened(model)
        own = feeds if model is self.reference else renamed_feeds(feeds, session, model.path)
        self.begin(model.path, model.backend.name, "running")
        return session.run(own)

    def _check_conditions(self, name: str, feeds: Mapping[str, Array]) -> None:
        """Raise if an input has a size that one of the models was not fixed for."""
        for model in (self.reference, *self.candidates):
            problem = model.broken_condition(feeds)
            if problem:
                raise OnnxlintError(f"{printable(name)}: {problem} in {printable(model.path)}")

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
        self,
        model: Participant,
        name: str,
        feeds: Feeds,
        outputs: Mapping[str, Array],
        arrays: Sequence[Array],
        answer: Answer | None,
        count: int,
    ) -> None:
        """The outputs of one candidate on one input."""
        session = self._opened(model)
        theirs = _named(session, arrays)
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
        worst = self.worst.setdefault(model.name, [])
        if len(worst) < WORST:
            heapq.heappush(worst, entry)
        else:
            heapq.heappushpop(worst, entry)

    def _match(
        self, model: Participant, session: Session, outputs: Mapping[str, Array], theirs: Mapping[str, Array]
    ) -> Matched:
        ends = read_ends(model, session)
        if all(end.axis is None and end.dropped is None for end in ends) and not model.is_onnx:
            patterns = [ends_of_source(model.path, ends), self.reference.ends, *(one.ends for one in self.candidates)]
            for pattern in patterns:
                ends = split_like(ends, pattern) if all(end.axis is None for end in ends) else ends
        model.ends = ends
        matched = match(self.reference.ends, ends, outputs, theirs)
        if not matched.pairs:
            why = "; ".join(matched.unmatched)
            raise OnnxlintError(f"{printable(model.path)}: none of its outputs matches one of the reference's: {why}")
        return matched

    def _time(self, models: Sequence[Participant]) -> None:
        self.progress(f"timing {', '.join(printable(model.name) for model in models)}", 0, None)
        _, feeds = next(iter(self.inputs.few(1)))
        runs = []
        for model in models:
            session = model.open(self.threads)
            runs.append(partial(session.run, renamed_feeds(feeds, session, model.path)))
        for model, latency in zip(models, measure(runs, self.threads), strict=True):
            model.latency = latency

    # Reporting

    def report(self, model: Participant) -> CandidateReport:
        """The measurements of a model."""
        places = {end.name: end.place for end in model.ends}
        if model.matched is not None:
            places = {pair.reference.name: pair.candidate.place for pair in model.matched.pairs}
        outputs = tuple(meter.result(name, places[name]) for name, meter in model.meters.items())
        results = {} if self.judge is None else self.judge.results()
        worst = sorted(self.worst.get(model.name, ()), key=lambda entry: (-entry[0], -entry[1]))
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

    def explained(self, model: Participant, report: CandidateReport, layers: bool, suggest: bool) -> CandidateReport:
        """The report with its layers and suggestions."""
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


def _own_notes(model: Participant) -> Iterator[str]:
    yield from model.notes
    if model.matched is not None:
        yield from model.matched.notes
    for name, meter in model.meters.items():
        one = meter.result(name, name)
        if one.nan_share or one.inf_share:
            yield f"{printable(name)}: gives NaN or infinity"
