"""How far the channels of an ONNX model are equalized: what loses least on inputs that the ranges do not come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxlint.backends import Array
from onnxlint.backends.channels import rare, unscaled
from onnxlint.backends.ort.calibrate import Ends, whole, widest
from onnxlint.backends.ort.calibration import Calibration
from onnxlint.backends.ort.equalize import equalized, loosened, tightened
from onnxlint.backends.ort.judge import Judge, computer
from onnxlint.backends.ort.plan import HOPELESS, Plan, ranges_alone
from onnxlint.backends.ort.qdq import layers, nearly_rounded, quantize

STRENGTHS = {"equalized by half": 0.5, "equalized": 1.0}
"""How far channels are brought to the same range. By half where layers of few channels read them, whose weights would be too
far from each other otherwise."""

NEGATIVE = 0.3
"""Part of the range that channels may fill which are mostly negative. The range of a tensor is the sum of both sides, and
behind a leaky ReLU the negative one carries little: filling it as well would cost all other channels a bit. (RetinaFace on
photos that are not calibration images: 22.7 dB at 1, 24.5 at 0.5, 24.9 at 0.3; chosen by these.)"""

BASE_MARGIN = 0.3
"""dB by which a model has to be closer than what is less equalized, and by more than chance."""

ROUNDING_LEFT = 0.6
"""Of the error that weights have when they are rounded to the nearest: the part that is left when they are rounded against
the layers' outputs (about 4 dB less). Otherwise equalized models would be judged by noise that is taken off later."""

IMAGES = 4
"""Images, at least, that equalized models are compared on: half of those that judge."""

EXACT_IMAGES = 1
"""Images on which equalized models are checked to compute the same."""

NEARLY_EXACT = 60.0
"""dB that equalization has to keep: it only regroups float32 arithmetic."""


@dataclass(frozen=True)
class Evener:
    """Equalizes a model as far as some inputs show.

    Attributes:
        model: As `prepare` makes it.
        shapes: Of its values that are floating point or rounded, and of the products.
        plan: How.
        loose: The model with products that give channels factors of their own; see `loosened`.
        products: These → the values that are multiplied.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    plan: Plan
    loose: onnx.ModelProto
    products: Mapping[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto, feeds: Mapping[str, Array], plan: Plan, names: Sequence[str]) -> Evener:
        """By one set of inputs and the names of the rounded values."""
        every = list(dict.fromkeys([*names, *_floats(model)]))
        values = computer(model, every, plan.name, plan.threads)(feeds)
        shapes = {key: value.shape for key, value in zip(every, values, strict=True)}
        loose, products = loosened(model, shapes, layers(model, plan.keep))
        shapes |= {product: shapes[source] for product, source in products.items()}
        return cls(model, shapes, plan, loose, products)

    def named(self, every: Sequence[Ends]) -> list[Ends]:
        """With the products, which are as large as what is multiplied by 1."""
        return [{**one, **{product: one[source] for product, source in self.products.items()}} for one in every]

    def made(self, strength: float, every: Sequence[Ends]) -> tuple[onnx.ModelProto, Ends]:
        """The equalized model, and the ends of its rounded values; with strength 0 nothing but the products is equalized.

        Args:
            strength: See `equalized`.
            every: For each set of inputs, smallest and largest value of each channel of the rounded values.
        """
        every = self.named(every)
        ends = widest(every)
        peaks = {
            key: peak
            for key, peak in _peaks(every, ends).items()
            if strength or key in self.products
            if len(self.shapes[key]) >= 3 or (len(self.shapes[key]) == 2 and len(peak) > 1)
            if len(peak) == self.shapes[key][1]
        }
        if not peaks:
            return self.model, {key: one for key, one in ends.items() if key not in self.products}
        even, scales = equalized(self.loose, self.shapes, peaks, strength, self.products)
        even, dropped = tightened(even, self.products)
        scaled: Ends = {
            key: (low / scales[key], high / scales[key]) if key in peaks and key in scales else (low, high)
            for key, (low, high) in ends.items()
            if key not in dropped
        }
        return even, scaled


def best_strength(
    evener: Evener, judge: Judge, calibration: Calibration, trials: dict[str, float], every: Sequence[Ends]
) -> float:
    """How strongly to equalize: as it loses least, with the widest ranges and weights that are rounded about as well as they
    will be, on inputs that the ranges do not come from."""
    plan, (judge, every) = evener.plan, _apart(judge, calibration, every)
    tried: dict[str, onnx.ModelProto] = {}
    for label, strength in {"as it is": 0.0, **STRENGTHS}.items():
        even, ends = evener.made(strength, every)
        if strength and (even is evener.model or judge.snr(even, EXACT_IMAGES).mean() < NEARLY_EXACT):
            continue
        ranges = {key: (one.low, one.high) for key, one in ranges_alone(even, plan, whole(ends)).items()}
        soft = nearly_rounded(even, ROUNDING_LEFT, plan.keep, plan.levels)
        tried[label] = quantize(soft, ranges, plan.keep, weights_too=False)
    if len(tried) == 1:
        return 0.0
    first = {label: judge.score(one, judge.first) for label, one in tried.items()}
    best, most = 0.0, None
    for label, one in tried.items():
        trials[label] = first[label]
        if first[label] < max(first.values()) - HOPELESS:
            continue
        found = judge.powers(one, max(IMAGES, len(judge.inputs) // 2))
        trials[label] = found.score
        if most is None or (found.score >= most.score + BASE_MARGIN and found.is_closer(most)):
            best, most = STRENGTHS.get(label, 0.0), found
    return best


def _apart(judge: Judge, calibration: Calibration, every: Sequence[Ends]) -> tuple[Judge, Sequence[Ends]]:
    """A judge, and ranges that come from other inputs than its own: where none are spare, every other one judges."""
    if calibration.unfitted or len(calibration.held) < 2:
        return judge, every
    return judge.on(calibration.held[::2]), every[1::2]


def _peaks(every: Sequence[Ends], ends: Ends) -> dict[str, Array]:
    """Of each channel, what it is to be equalized by."""

    def largest(one: tuple[Array, Array]) -> Array:
        return np.asarray(np.maximum(one[1], -one[0] / np.float32(NEGATIVE)))

    peaks = {}
    for key, one in ends.items():
        peak = peaks[key] = largest(one)
        single = [largest(found[key]) for found in every if found[key][0].shape == peak.shape]
        if peak.size and single:
            peaks[key] = unscaled(peak, rare(peak, np.median(single, axis=0)))
    return peaks


def _floats(model: onnx.ModelProto) -> list[str]:
    """Inner floating-point values of the main graph, as far as their types are written."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]
