"""Results of a comparison, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxlint.tabular import html_table
from onnxlint.text import counted, db, listed, printable


@dataclass(frozen=True)
class OutputAccuracy:
    """One output (or head of a joined output) of a candidate against the reference's, over all inputs together.

    Attributes:
        name: Of the reference's output, or of the head.
        candidate: The candidate's output, with the slice of it where it is a part: `output[..., 0:4]`.
        shape: Of the last array compared.
        elements: How many numbers were compared.
        snr_db: 10·log10(Σ r² / Σ (r − c)²); infinite if all are equal.
        cosine: Mean over the inputs of the cosine of the flattened arrays.
        max_abs: Largest |r − c|.
        mean_abs: Mean |r − c|.
        relative: Σ |r − c| / Σ |r|.
        nan_share: Share of NaN among the candidate's numbers.
        inf_share: Share of infinities.
        histogram: Counts of |r − c| in the bins of `edges` (log10; the first also holds exact zeros).
        edges: log10 of the bins' edges, one more than bins.
    """

    name: str
    candidate: str
    shape: tuple[int, ...]
    elements: int
    snr_db: float
    cosine: float
    max_abs: float
    mean_abs: float
    relative: float
    nan_share: float = 0.0
    inf_share: float = 0.0
    histogram: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one input.

    Attributes:
        median_ms, spread_ms: Median, and distance between the quartiles, of the runs that no other program disturbed.
        runs: How many these are.
        threads: That the model may use.
        busy: Whether too few runs were undisturbed: the numbers are those of all runs, and do not compare with others.
    """

    median_ms: float
    spread_ms: float
    runs: int
    threads: int
    busy: bool = False


@dataclass(frozen=True)
class LayerAccuracy:
    """One tensor along the network.

    Attributes:
        reference: The reference's value.
        candidate: The candidate's.
        type: The candidate's operator that makes it.
        snr_db: As in `OutputAccuracy`.
        share: Part of the whole loss (0…1) that this layer alone causes; None if it was not measured.
        source: The line of PyTorch or the module scope, where the reference knows it.
    """

    reference: str
    candidate: str
    type: str
    snr_db: float
    share: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Suggestion:
    """A change that was tried: what to do, as an option or in words; what it gained, in dB, and cost, in bytes."""

    text: str
    option: str
    gain_db: float
    bytes: int | None = None


@dataclass(frozen=True)
class Detection:
    """A detection: corners in pixels of the network's input (x1, y1, x2, y2), class, score, landmarks (x, y pairs)."""

    box: tuple[float, float, float, float]
    score: float
    label: int = 0
    landmarks: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskResult:
    """The metrics of a task for one model.

    Attributes:
        task: `detection`, …
        metrics: Name → value, in the order to be shown: `found`, `missed`, `ap`, …; counts are ints; None if it is
            not defined.
        truth: What it was judged by: `the reference's own detections` or the labels' file.
        notes: What the user should know.
    """

    task: str
    metrics: dict[str, float | None]
    truth: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageAccuracy:
    """How one image fared: for the worst images side by side.

    Attributes:
        name: The image's path.
        snr_db: Mean over the outputs.
        reference: What the reference found in it (detection only).
        candidate: What the candidate found.
        labels: For other tasks, both answers as text: (reference, candidate).
        pixels: The network's input as RGB pixels in a PNG or JPEG, for showing it.
    """

    name: str
    snr_db: float
    reference: tuple[Detection, ...] = ()
    candidate: tuple[Detection, ...] = ()
    labels: tuple[str, str] = ("", "")
    pixels: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, repr=False)
class CandidateReport:
    """One candidate against the reference.

    Attributes:
        name: Name shown in reports: the file's or the target's.
        path: Its first file.
        backend: What ran it.
        bytes: Size of all its files.
        parameters: Number of weights; None if unknown.
        snr_db: Mean over the outputs that are not exact; infinite if all are. `worst_snr_db` is that of the worst.
        outputs: Each output.
        unmatched: Outputs of one side that have no partner, with why, a line each.
        latency: How long it takes.
        task: The task's metrics.
        layers: Along the network, in order of computation (`--layers`).
        suggestions: What would help (`--suggest`).
        worst: The worst images, the worst first.
        notes: What the user should know.
        failures: Conditions of `--fail-if` that it meets, in words.
    """

    name: str
    path: str
    backend: str
    bytes: int
    parameters: int | None
    snr_db: float
    outputs: tuple[OutputAccuracy, ...]
    unmatched: tuple[str, ...] = ()
    latency: Latency | None = None
    task: TaskResult | None = None
    layers: tuple[LayerAccuracy, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    worst: tuple[ImageAccuracy, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def worst_output(self) -> OutputAccuracy | None:
        """The output with the lowest SNR; None if nothing was compared."""
        return min(self.outputs, key=lambda one: -math.inf if math.isnan(one.snr_db) else one.snr_db, default=None)

    @property
    def worst_snr_db(self) -> float:
        """SNR of the worst output: a mean over outputs can hide that one of them is wrong. NaN if it is not a number."""
        return self.snr_db if self.worst_output is None else self.worst_output.snr_db

    def __repr__(self) -> str:
        return f"<CandidateReport {printable(self.name)!r}: {self._snr_text()}>"

    def _snr_text(self) -> str:
        if len(self.outputs) < 2:
            return db(self.snr_db)
        return f"{db(self.snr_db)} in the mean, {db(self.worst_snr_db)} in the worst output"

    def row(self) -> dict[str, Any]:
        """The candidate's numbers as one flat row: column → value, None if there is none.

        SNRs are in dB (infinite: equal), sizes in bytes, times in milliseconds; the metrics of the task follow.
        """
        latency = None if self.latency is None or self.latency.busy else self.latency.median_ms
        worst = self.worst_output
        return {
            "model": self.name,
            "path": self.path,
            "backend": self.backend,
            "snr_db": self.snr_db,
            "worst_snr_db": self.worst_snr_db,
            "worst_output": None if worst is None else worst.name,
            "cosine": min((one.cosine for one in self.outputs), default=None),
            "max_abs": max((one.max_abs for one in self.outputs), default=None),
            "latency_ms": latency,
            "bytes": self.bytes,
            "parameters": self.parameters,
            **({} if self.task is None else self.task.metrics),
        }


@dataclass(frozen=True)
class Recommendation:
    """The best candidate for a wish, and the number that makes it the best."""

    wish: str
    name: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """The verdict of a comparison: one sentence, and the best candidate for each purpose."""

    sentence: str
    recommendations: tuple[Recommendation, ...] = ()


@dataclass(frozen=True, repr=False)
class AccuracyReport:
    """A reference and its candidates on the same inputs. `len()` and iteration are over the candidates.

    Attributes:
        reference: The reference itself: its size, latency and task metrics; compared with itself it is exact.
        candidates: The others, in the order given.
        inputs: How many inputs were compared.
        source: Where they came from.
        recipe: How images became inputs, in the words of the command line.
        failures: Conditions of `--fail-if` that candidates meet, in words; empty if all is well.
        versions: Name → version of the runtimes used.
        notes: Images that could not be read, and the like.
        verdict: What it all comes to.
    """

    reference: CandidateReport
    candidates: tuple[CandidateReport, ...]
    inputs: int
    source: str
    recipe: str
    failures: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[CandidateReport]:
        return iter(self.candidates)

    def __repr__(self) -> str:
        said = listed([f"{printable(one.name)} {one._snr_text()}" for one in self.candidates], limit=3)
        return f"<AccuracyReport of {printable(self.reference.name)!r} on {counted(self.inputs, 'input')}: {said}>"

    def rows(self) -> list[dict[str, Any]]:
        """A flat row for each model, the reference first, as `pandas.DataFrame` takes them; see `CandidateReport.row`."""
        return [one.row() for one in (self.reference, *self.candidates)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dictionaries, as `onnxlint compare --format json` writes them; pictures are left out."""
        from onnxlint.accuracy.plain import document

        return document(self)

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = self.rows()
        columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("path", "backend")))
        columns = [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]
        caption = f"Compared on {counted(self.inputs, 'input')}" if self.verdict is None else self.verdict.sentence
        return html_table(printable(caption), columns, rows)


ROUNDING_DB = 100.0
"""What 32-bit floats lose by adding in another order is above this."""

FALL_DB = 6.0
"""By how much the SNR has to be below the lowest before for it to have fallen: half the amplitude's accuracy is lost."""


def first_fall(layers: Sequence[LayerAccuracy]) -> tuple[LayerAccuracy, float] | None:
    """The first layer at which the SNR falls by `FALL_DB`, and the lowest SNR before it.

    Where it never falls that far at once, the first layer that is below `ROUNDING_DB`; infinity is what was before. None
    if there is none.
    """
    lowest = math.inf
    for layer in layers:
        if math.isfinite(lowest) and layer.snr_db <= min(lowest, ROUNDING_DB) - FALL_DB:
            return layer, lowest
        lowest = min(lowest, layer.snr_db)
    return next(((layer, math.inf) for layer in layers if layer.snr_db < ROUNDING_DB), None)
