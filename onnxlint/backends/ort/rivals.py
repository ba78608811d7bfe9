"""The plain methods of static int8, which what was fitted has to be better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxlint.backends import Array
from onnxlint.backends.closeness import Powers
from onnxlint.backends.ort.calibrate import Histogram, Ranges, clipped
from onnxlint.backends.ort.judge import Judge
from onnxlint.backends.ort.plan import HOPELESS, METHODS, Plan, histograms_of, ranges_alone
from onnxlint.backends.ort.qdq import quantize

OUT_OF_REACH = 6.0
"""Where plain min-max ranges are so many dB behind on the first images, the plain methods that narrow them are not tried:
they differ from it by less, and the fitted model had their ranges to choose from."""


@dataclass(frozen=True)
class Rivals:
    """The plain methods on the model as it is.

    Attributes:
        model: The float model.
        inputs: For histograms of its values.
        limits: Ranges of its values.
        judge: Of the outputs, on inputs that nothing is fitted to.
        judged: What these are.
        plan: How.
    """

    model: onnx.ModelProto
    inputs: Sequence[Mapping[str, Array]]
    limits: Ranges
    judge: Judge
    judged: str
    plan: Plan

    @cached_property
    def _seen(self) -> Mapping[str, Histogram]:
        return histograms_of(self.model, self.inputs, self.plan, self.limits)

    def best(
        self, fitted: tuple[onnx.ModelProto, tuple[str, ...]], keep: frozenset[str], trials: dict[str, float]
    ) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """What was fitted, or what a plain method makes where that is closer by more than chance, with a note."""
        best, notes = fitted
        few, all_ = f"first {self.judge.first} {self.judged}", self.judged
        trials[f"auto, {few}"] = first = self.judge.score(best, self.judge.first)
        most: Powers | None = None
        for method in ("minmax", *(one for one in METHODS if one != "minmax")):
            seen = ranges_alone(self.model, self.plan, self.limits) if method == "minmax" else self._seen
            ranges = {key: clipped(method, one) for key, one in seen.items()}
            made = quantize(self.model, ranges, keep, levels=self.plan.levels)
            trials[f"{method}, {few}"] = score = self.judge.score(made, self.judge.first)
            if method == "minmax" and score < first - OUT_OF_REACH:
                break
            if score < first - HOPELESS:
                continue
            if most is None:
                most = self.judge.powers(best)
                trials[f"auto, {all_}"] = most.score
            found = self.judge.powers(made)
            trials[f"{method}, {all_}"] = found.score
            if found.is_closer(most):
                auto = trials[f"auto, {all_}"]
                best, most = made, found
                notes = (f"{method} was taken: {found.score:.1f} dB on {self.judged}, where auto has {auto:.1f}",)
        return best, notes
