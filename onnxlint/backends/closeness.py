"""How close a converted model comes to the one that it was made from: both run on the same inputs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from onnxlint.backends import Array, Port, Session
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

WRONG_DB = 10.0
"""SNR below which an output of a float model is not inexact but wrong."""

EXACT_DB = 300.0
"""SNR of what is equal."""

ENOUGH = 60.0
"""dB beyond which a part of the outputs is as good as exact on an image: probabilities that are 0 or 1 would decide alone
otherwise."""

LEAST = 1e-7
"""Probabilities below it, and as close to 1, are as good as certain."""


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
    return ratios(reference.outputs, pairs, name)


def ratios(
    outputs: Sequence[Port],
    pairs: Iterable[tuple[Sequence[Array], Sequence[Array]]],
    name: str,
    probabilities: Collection[str] = (),
) -> dict[str, float]:
    """SNR of each floating-point output over all pairs of outputs, in dB.

    Args:
        outputs: Of the reference.
        pairs: For each input: what the reference gives, and what the converted model does.
        name: Of the converted model, for errors.
        probabilities: Outputs that are compared by their odds as well (the logarithm of p / (1 − p)): of probabilities that
            are nearly all 0 or 1, the few others would decide alone.

    Raises:
        OnnxlintError: An output has another shape, or is no longer finite.
    """
    sums: dict[str, tuple[float, float]] = {}
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
                signal, noise = sums.get(key, (0.0, 0.0))
                sums[key] = signal + float(x @ x), noise + float((x - y) @ (x - y))
    return {key: _db(signal, noise) for key, (signal, noise) in sums.items()}


def _odds(p: Array) -> Array:
    p = np.clip(p, LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))


def is_closer(found: Sequence[float], than: Sequence[float]) -> bool:
    """Whether one model is closer than another by more than chance: by more than the standard error of the mean difference.

    Args:
        found, than: SNR of either on the same inputs, in dB.
    """
    gains = [a - b for a, b in zip(found, than, strict=True)]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return statistics.mean(gains) > error


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


def _db(signal: float, noise: float) -> float:
    if noise <= signal * 10 ** (-EXACT_DB / 10):
        return EXACT_DB
    return 10 * math.log10(signal / noise) if signal else -EXACT_DB


def worst(found: Mapping[str, float]) -> str:
    """The SNR of the worst output, in words: `122 dB SNR`, `bit-equal`."""
    least = min(found.values(), default=EXACT_DB)
    return "equal" if least >= EXACT_DB else f"{least:.0f} dB SNR" if least >= 60 else f"{least:.1f} dB SNR"
