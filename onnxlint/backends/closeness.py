"""How close a converted model comes to the one that it was made from: both run on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Array, Port, Session
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

Doubles = npt.NDArray[np.float64]

WRONG_DB = 10.0
"""SNR below which an output of a float model is not inexact but wrong."""

EXACT_DB = 300.0
"""SNR of what is equal."""

ENOUGH = 60.0
"""dB beyond which an output is as good as exact, and counts no more: probabilities that are 0 or 1 would decide alone
otherwise."""

LEAST = 1e-7
"""Probabilities below it, and as close to 1, are as good as certain."""


@dataclass(frozen=True)
class Powers:
    """What a model's outputs differ by from another's.

    Attributes:
        signal: Σ reference² of each output on each input, (inputs, outputs).
        noise: Σ (reference − output)², the same.
    """

    signal: Doubles
    noise: Doubles

    @property
    def decibels(self) -> Doubles:
        """SNR of each output over all inputs together, dB, ±`EXACT_DB` at most: −`EXACT_DB` where it is not finite."""
        return _decibels(self.signal.sum(axis=0), self.noise.sum(axis=0))

    @property
    def score(self) -> float:
        """The mean of the outputs, dB; one that has more than `ENOUGH` counts so much."""
        return float(np.minimum(self.decibels, ENOUGH).mean())

    def first(self, count: int) -> Powers:
        """On the first inputs alone."""
        return Powers(self.signal[:count], self.noise[:count])

    def is_closer(self, than: Powers, by: float = 0.0) -> bool:
        """Whether the score is better by so many dB, and more than chance beyond: the standard error of the difference, as
        leaving out one input after the other tells (the jackknife).

        The SNR on single inputs does not tell: where outputs are few numbers, it is large where an error is 0 by chance.

        Args:
            than: Of another model on the same inputs.
            by: dB.
        """
        count = len(self.signal)
        without = self._without_each() - than._without_each() if count > 1 else np.zeros(1)
        error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
        return self.score - than.score > error + by

    def _without_each(self) -> Doubles:
        """The score without each of the inputs."""
        with np.errstate(invalid="ignore"):  # what is not finite without one input is not without the others
            signal, noise = (np.maximum(one.sum(axis=0) - one, 0) for one in (self.signal, self.noise))
        return np.asarray(np.minimum(_decibels(signal, noise), ENOUGH).mean(axis=1))


def closeness(reference: Session, made: Session, inputs: Iterable[Mapping[str, Array]], name: str) -> dict[str, float]:
    """SNR of each floating-point output over all inputs, in dB; outputs are matched by order.

    Args:
        reference: The ONNX model in onnxruntime.
        made: The converted model; its inputs are in the same order.
        inputs: For the reference.
        name: Of the converted model, for errors.

    Raises:
        OnnxlintError: It does not run, or an output has another shape, or is no longer finite.
    """
    theirs = dict(zip((port.name for port in reference.inputs), (port.name for port in made.inputs), strict=True))
    pairs = ((reference.run(feeds), made.run({theirs[key]: value for key, value in feeds.items()})) for feeds in inputs)
    names, found = powers(reference.outputs, pairs, name)
    return dict(zip(names, found.decibels.tolist(), strict=True))


def powers(
    outputs: Sequence[Port],
    pairs: Iterable[tuple[Sequence[Array], Sequence[Array]]],
    name: str,
    probabilities: Collection[str] = (),
) -> tuple[list[str], Powers]:
    """The floating-point outputs, and what they differ by.

    Args:
        outputs: Of the reference.
        pairs: For each input: what the reference gives, and what the converted model does.
        name: Of the converted model, for errors.
        probabilities: Outputs that are compared by their odds as well (the logarithm of p / (1 − p)): of probabilities that
            are nearly all 0 or 1, the few others would decide alone.

    Raises:
        OnnxlintError: An output has another shape, or is no longer finite.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for reference, made in pairs:
        for port, a, b in zip(outputs, reference, made, strict=True):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
                continue
            if a.shape != b.shape:
                raise OnnxlintError(
                    f"{printable(name)}: its output {printable(port.name)!r} is {list(b.shape)}, and {list(a.shape)} in "
                    "onnxruntime"
                )
            if np.isfinite(a).all() and not np.isfinite(b).all():
                raise OnnxlintError(
                    f"{printable(name)}: its output {printable(port.name)!r} is not finite, and it is in onnxruntime"
                )
            finite = np.isfinite(a) & np.isfinite(b)
            x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
            both = {port.name: (x, y)}
            if port.name in probabilities:
                both[f"odds of {port.name}"] = _odds(x), _odds(y)
            for key, (x, y) in both.items():
                found.setdefault(key, []).append((float(x @ x), float((x - y) @ (x - y))))
    count = max(map(len, found.values()), default=0)
    signal, noise = np.array(list(found.values())).reshape(len(found), count, 2).transpose(2, 1, 0)
    return list(found), Powers(signal, noise)


def _odds(p: Array) -> Array:
    p = np.clip(p, LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))


def require_close(found: Mapping[str, float], name: str, runtime: str) -> None:
    """Raise if a float model computes something else than the model that it was made from.

    Args:
        found: SNR of its outputs.
        name: Of the converted model.
        runtime: That runs it.

    Raises:
        OnnxlintError: It does.
    """
    for output, ratio in found.items():
        if ratio < WRONG_DB:
            raise OnnxlintError(
                f"{printable(name)}: {runtime} computes something else: its output {printable(output)!r} has "
                f"{ratio:.1f} dB SNR against onnxruntime; not every operator of the model works there"
            )


def _decibels(signal: Doubles, noise: Doubles) -> Doubles:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = 10 * np.log10(signal / noise)
    found = np.where(np.isfinite(noise), np.where(noise > 0, found, EXACT_DB), -EXACT_DB)
    return np.asarray(np.clip(found, -EXACT_DB, EXACT_DB))


def worst(found: Mapping[str, float]) -> str:
    """The SNR of the worst output, in words: `122 dB SNR`, `bit-equal`."""
    least = min(found.values(), default=EXACT_DB)
    return "equal" if least >= EXACT_DB else f"{least:.0f} dB SNR" if least >= 60 else f"{least:.1f} dB SNR"
