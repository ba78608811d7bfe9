"""Verification: whether two images show the same person, told by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.results import TaskResult
from onnxlint.accuracy.tasks.base import Answer
from onnxlint.accuracy.tasks.labels import Pair, match, read_pairs
from onnxlint.accuracy.tasks.optional import optional
from onnxlint.accuracy.tasks.vector import pick_vector
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined
    from onnxlint.images.recipe import ImageSet

Array = npt.NDArray[Any]

FAR = (0.01, 0.001)
"""False accept rates that the true accept rate is given at."""


@dataclass
class _Tally:
    """Cosines with the reference's embeddings, and the embeddings of images that are in pairs: stem → (D,)."""

    images: int = 0
    cosines: float = 0.0
    lowest: float = 1.0
    embeddings: dict[str, Array] = field(default_factory=dict)


class VerificationTask:
    """See `onnxlint.accuracy.tasks.Task`.

    Metrics: `mean_cosine` and `min_cosine` of embeddings with the reference's; with pairs, before them: `accuracy` (each
    fold at the threshold that is best for the others) and its `accuracy_std`, `auc`, `tar@far=0.01` and
    `tar@far=0.001` (None with too few pairs), the best `threshold` on all pairs, `threshold_shift` from the reference's,
    and `accuracy_kept`: at the reference's threshold, if the application keeps that.
    """

    name = "verification"

    def __init__(self, images: ImageSet | None, labels: str | None) -> None:
        self.truth = "the reference's embeddings"
        self._pairs: list[Pair] = []
        self._notes: tuple[str, ...] = ()
        self._stems: set[str] = set()
        if labels is not None:
            optional("sklearn.metrics")
            self._pairs = read_pairs(labels)
            stems = [stem for pair in self._pairs for stem in (pair.one, pair.other)]
            match(_Stems(dict.fromkeys(stems)), images, labels, stems[0])
            self._stems = set(stems)
            self.truth = labels
        self._length = 0
        self._tallies: dict[str, _Tally] = {}

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """The embedding of one image. Raises OnnxlintError if no output can be one."""
        _, values = pick_vector(outputs, "emb|feat|out", self.name)
        self._length = self._length or len(values)
        if len(values) != self._length:
            raise OnnxlintError(
                f"--task verification: the reference's embeddings have {self._length} numbers, this model's {len(values)}"
            )
        return Answer(f"embedding of {len(values)} numbers", values)

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Compare the candidate's embedding with the reference's, and keep it where a pair needs it."""
        tally = self._tallies.setdefault(model, _Tally())
        equal = np.array_equal(reference.values, candidate.values)
        cosine = 1.0 if equal else cosine_of(reference.values, candidate.values)
        tally.images += 1
        tally.cosines += cosine
        tally.lowest = min(tally.lowest, cosine)
        stem = PurePath(image).stem
        if stem in self._stems:
            tally.embeddings[stem] = candidate.values.astype(np.float32)

    def results(self) -> dict[str, TaskResult]:
        """Mean and lowest cosine to the reference's embeddings; over labelled pairs accuracy, AUC, threshold."""
        out: dict[str, TaskResult] = {}
        kept: float | None = None
        for model, tally in self._tallies.items():
            metrics: dict[str, float | None] = {}
            notes: tuple[str, ...] = ()
            if self._pairs:
                pairs = [pair for pair in self._pairs if {pair.one, pair.other} <= tally.embeddings.keys()]
                if len(pairs) < len(self._pairs):
                    notes = (f"{len(self._pairs) - len(pairs)} of {len(self._pairs)} pairs lack an image",)
                same = np.asarray([pair.same for pair in pairs], bool)
                if len(set(same)) < 2:
                    raise OnnxlintError(
                        f"{printable(self.truth)}: the images must form pairs of one person and pairs of two"
                        f" persons; {len(pairs)} of {len(self._pairs)} pairs are complete"
                    )
                cosines = np.asarray(
                    [cosine_of(tally.embeddings[pair.one], tally.embeddings[pair.other]) for pair in pairs]
                )
                metrics, threshold = pair_metrics(cosines, same, np.asarray([pair.fold for pair in pairs]))
                kept = threshold if kept is None else kept  # the reference is judged first
                metrics["threshold_shift"] = threshold - kept
                metrics["accuracy_kept"] = float(((cosines >= kept) == same).mean())
            metrics["mean_cosine"] = tally.cosines / tally.images
            metrics["min_cosine"] = tally.lowest
            out[model] = TaskResult(self.name, metrics, self.truth, notes)
        return out


class _Stems:
    def __init__(self, stems: Mapping[str, None]) -> None:
        self._stems = stems

    def get(self, path: str) -> object | None:
        stem = PurePath(path).stem
        return stem if stem in self._stems else None


def cosine_of(one: Array, other: Array) -> float:
    """Cosine of two vectors; 0 if one is zero or not finite."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    value = float(a @ b) / length if 0 < length < np.inf else 0.0
    return value if np.isfinite(value) else 0.0


def pair_metrics(cosines: Array, same: Array, folds: Array) -> tuple[dict[str, float | None], float]:
    """Metrics of pairs, and the best threshold.

    Args:
        cosines: (N,).
        same: (N,): whether the pair shows one person; both kinds occur.
        folds: (N,): fold of each pair.
    """
    metrics = optional("sklearn.metrics")
    rates: list[float] = []
    for fold in np.unique(folds):
        test = folds == fold
        train = ~test if (~test).any() else test
        threshold = best_threshold(cosines[train], same[train])
        rates.append(float(((cosines[test] >= threshold) == same[test]).mean()))
    false, true, _ = metrics.roc_curve(same, cosines, drop_intermediate=False)
    threshold = best_threshold(cosines, same)
    others = int((~same).sum())
    out: dict[str, float | None] = {
        "accuracy": float(np.mean(rates)),
        "accuracy_std": float(np.std(rates)),
        "auc": float(metrics.roc_auc_score(same, cosines)),
    }
    for rate in FAR:
        out[f"tar@far={rate:g}"] = float(true[false <= rate].max()) if others * rate >= 1 else None
    out["threshold"] = threshold
    return out, threshold


def best_threshold(cosines: Array, same: Array) -> float:
    """The threshold that most pairs are told rightly by (same: from it on), halfway to the next lower cosine."""
    order = np.argsort(-cosines, kind="stable")
    ranked, hits = cosines[order], same[order]
    # Right when the first k pairs are said to be the same: k may not part equal cosines.
    right = np.concatenate([[0], np.cumsum(hits)]) + np.concatenate([[0], np.cumsum(~hits)])[-1]
    right = right - np.concatenate([[0], np.cumsum(~hits)])
    inside = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])
    k = int(np.where(inside, right, -1).argmax())
    above = ranked[k - 1] if k else ranked[0] + 1e-6
    below = ranked[k] if k < len(ranked) else ranked[-1] - 1e-6
    return float((above + below) / 2)
