"""The images that int8 is calibrated on: some are held in memory, all are streamed, and some judge alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from onnxlint.backends import Array, Job, Progress, silent
from onnxlint.backends.ort import calibrate
from onnxlint.backends.ort.calibrate import Ends, Histogram, Ranges
from onnxlint.backends.ort.elsewhere import Feeds, make_computer
from onnxlint.backends.ort.feeds import Parts, from_images, parted
from onnxlint.backends.outputs import JUDGES, count_for
from onnxlint.lint.engines import Spread, make_cluster

if TYPE_CHECKING:
    import onnx

    from onnxlint.backends.ort.session import OrtSession
    from onnxlint.images.recipe import ImageSet, Unreadable

IMAGES = (12, 32)
"""Fewest and most calibration images that weights are rounded by, as far as there are so many: they are held in memory,
evenly taken from all."""

KEPT = 1 << 28
"""Bytes of inputs that are kept beside those that are held, so that images need not be read again."""


@dataclass(frozen=True)
class Calibration:
    """Inputs to calibrate with.

    Attributes:
        held: Some, in memory.
        unfitted: Others, in memory, that nothing is fitted to; none: there are too few images.
        rest: Gives all others.
        count: How many are streamed.
        name: Of the model, for errors.
        threads: For onnxruntime.
        cluster: Where values are computed; None: here.
    """

    held: Sequence[Mapping[str, Array]]
    unfitted: Sequence[Mapping[str, Array]]
    rest: Callable[[], Iterable[Feeds]]
    count: int
    name: str
    threads: int = 2
    cluster: Spread | None = None
    _kept: list[Feeds] = field(default_factory=list)

    @classmethod
    def of(
        cls, session: OrtSession, job: Job, unreadable: list[Unreadable] | None = None, *, judges: bool = True
    ) -> Calibration:
        """The images of a job; without `judges`, all are for the ranges.

        Raises:
            OnnxlintError: An image cannot be fed to the model.
        """
        parts = parts_of(session, job, judges=judges)

        def read(some: ImageSet, unreadable: list[Unreadable] | None = None) -> Iterable[Feeds]:
            return from_images(session.path, session.inputs, job, some, unreadable) if len(some) else ()

        held, unfitted = list(read(parts.held, unreadable)), list(read(parts.unfitted, []))
        count = len(held) + len(parts.rest)
        return cls(held, unfitted, lambda: read(parts.rest), count, session.path, job.threads, make_cluster(job.engine))

    def stream(self) -> Iterator[Feeds]:
        """All inputs but the unfitted. The rest is read once only where it has no more than `KEPT` bytes."""
        yield from self.held
        if self._kept:
            yield from self._kept
            return
        kept: list[Feeds] = []
        size = 0
        for feeds in self.rest():
            size += sum(value.nbytes for value in feeds.values())
            if size <= KEPT:
                kept.append(feeds)
            else:
                kept.clear()
            yield feeds
        if size <= KEPT:
            self._kept.extend(kept)

    def some(self, count: int) -> list[Mapping[str, Array]]:
        """Inputs but the unfitted, in memory: those that are held, and others, evenly from the rest, up to `count` and
        `KEPT` bytes."""
        found: list[Mapping[str, Array]] = list(self.held)
        rest = self.count - len(found)
        step = -(-rest // max(1, count - len(found)))
        size = sum(value.nbytes for feeds in found for value in feeds.values())
        for feeds in islice(self.rest(), 0, None, max(1, step)) if len(found) < count else ():
            size += sum(value.nbytes for value in feeds.values())
            if size > KEPT:
                break
            found.append(feeds)
        return found

    def ends(self, model: onnx.ModelProto, names: Sequence[str], progress: Progress = silent) -> list[Ends]:
        """Smallest and largest values of all streamed inputs; see `channel_extremes`."""
        compute = make_computer(model, names, self.name, self.threads, self.cluster)
        return calibrate.channel_extremes(self.stream(), compute, names, progress, self.cluster)

    def histograms(
        self, model: onnx.ModelProto, names: Sequence[str], ranges: Ranges | None = None, progress: Progress = silent
    ) -> dict[str, Histogram]:
        """Of named values, over all streamed inputs; where their ranges are not known, these are measured first."""
        compute = make_computer(model, names, self.name, self.threads, self.cluster)
        if ranges is None:
            ranges = calibrate.whole(calibrate.widest(self.ends(model, names, progress)))
        return calibrate.histograms(self.stream(), compute, names, ranges, progress, self.cluster)


def parts_of(session: OrtSession, job: Job, *, judges: bool = True) -> Parts:
    """Which images of a job are held, and which judge; without `judges`, none do."""
    assert job.images is not None
    size = job.recipe.size or session.inputs[0].shape[:1:-1]
    return parted(job.images, count_for(IMAGES, size), count_for(JUDGES, size) if judges else 0)
