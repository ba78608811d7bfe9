"""Results of a verification, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from onnxlint.text import counted, printable


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of two outputs that counts as equal.

    `|a - b| <= atol * max(1, m) + rtol * max(|a|, |b|)` holds for each number.

    m is the largest number of the output. With both at 0, numbers have to be equal (NaN equals NaN). Where
    rounding is allowed, one in a thousand integers of an output may differ: ArgMax over numbers that are almost equal.
    """

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"rtol {self.rtol:g}, atol {self.atol:g}" if self.rtol or self.atol else "bit-equal"


EXACT = Tolerance(0.0, 0.0)
"""For patches that move data and do not compute."""

ARITHMETIC = Tolerance(1e-4, 1e-5)
"""For patches that change float32 arithmetic: folded batch normalization, constants computed in advance."""

HALF = Tolerance(1e-2, 1e-3)
"""The same for models with float16 tensors (10 bits of mantissa: one rounding is 5e-4)."""

BRAIN = Tolerance(5e-2, 5e-3)
"""The same for models with bfloat16 tensors (7 bits of mantissa: one rounding is 4e-3)."""

OTHERWISE = "the original computes something else at this size"
"""Why a result could not be compared at a size that was set free, where the original runs."""

Kind = Literal["normal", "zeros", "large", "user"]
Outcome = Literal["equal", "close", "different", "original failed", "excluded", "ran"]


@dataclass(frozen=True)
class Trial:
    """Both models on one set of inputs.

    Attributes:
        dims: Sizes of the free dimensions (`N=3, H=96, W=160`); empty for static models; for `user` the file's name.
        kind: What the inputs were.
        outcome: `equal`, `close` within the tolerance, `different`. The others say nothing about the fix:
            `original failed`; `excluded`: different for a batch of 0, which is not claimed to be equal; `ran`: the
            fixed model alone, at a size that was set free.
        worst: Largest absolute difference; infinite if outputs cannot be compared (shapes, a failed run).
        output: The output that differs most; empty if none does.
        why: The failure, if it is more than different values.
        sizes: Those of `dims`: symbol, size.
        zero_signs: Whether zeros of outputs that are equal have different signs.
    """

    dims: str
    kind: Kind
    outcome: Outcome
    worst: float = 0.0
    output: str = ""
    why: str = ""
    zero_signs: bool = False
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Verification:
    """What running both models showed.

    Attributes:
        trials: In the order in which they ran.
        engine: `onnxruntime`, or `onnx.reference` where that cannot run the original; empty if nothing ran.
        tolerance: The required tolerance.
        skipped: Why nothing is known; empty if something is.
    """

    trials: tuple[Trial, ...] = ()
    engine: Literal["onnxruntime", "onnx.reference", ""] = ""
    tolerance: Tolerance = EXACT
    skipped: str = ""

    @property
    def equal(self) -> bool:
        """Whether no trial found a difference. Where nothing ran, none was found: see `verified`."""
        return not any(trial.outcome == "different" for trial in self.trials)

    @property
    def verified(self) -> bool:
        """Whether both models ran and were equal, within the tolerance."""
        return self.equal and not self.skipped and bool(self._ran)

    @property
    def worst(self) -> float:
        """The largest difference of all trials."""
        return max((trial.worst for trial in self._ran), default=0.0)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes on which both models were compared."""
        return tuple(dict.fromkeys(trial.dims for trial in self._ran))

    @property
    def _ran(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.outcome in ("equal", "close", "different")]

    def summary(self) -> str:
        """One line for users, after the word "verified"."""
        if not self.equal:
            trial = next(trial for trial in self.trials if trial.outcome == "different")
            place = f" at {printable(trial.dims)}" if trial.dims else ""
            output = f" in output {printable(trial.output)!r}" if trial.output else ""
            amount = f" by up to {trial.worst:.2g}" if math.isfinite(trial.worst) else ""
            why = f": {printable(trial.why)}" if trial.why else ""
            return f"different{place} ({trial.kind} inputs){output}{amount}{why}"
        if self.skipped:
            return f"not: {printable(self.skipped)}"
        if not self._ran:
            return "not: nothing was run"
        is_close = any(trial.outcome == "close" for trial in self._ran)
        same = "equal but for the sign of zeros" if any(trial.zero_signs for trial in self._ran) else "bit-equal"
        within = "up to rounding" if self.tolerance == EXACT else f"within {self.tolerance}"
        how = f"equal {within} (worst difference {self.worst:.2g})" if is_close else same
        names = [printable(dims) for dims in self.shapes if dims]
        shown = "; ".join(names[:6]) + ("; …" if len(names) > 6 else "")
        text = f"{how} in {self.engine} on {counted(len(self._ran), 'input')}{f' ({shown})' if shown else ''}"
        excluded = next((trial for trial in self.trials if trial.outcome == "excluded"), None)
        if excluded is not None:
            text += f"; not for an empty batch ({printable(excluded.dims)})"
        for why, original in (("", "does not"), (OTHERWISE, "with numbers of its own size computes something else")):
            alone = [printable(one.dims) for one in self.trials if one.outcome == "ran" and one.why == why]
            if alone:
                text += (
                    f"; runs at {'; '.join(alone)}, where the original {original}, so that nothing could be compared"
                )
        return text
