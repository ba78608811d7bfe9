"""The meaning of the columns of a comparison, for those that a report shows."""

from __future__ import annotations

from collections.abc import Iterable

COLUMNS = {
    "SNR": "signal-to-noise ratio 10·log10(Σ r² / Σ (r − c)²) of the outputs; higher is better, 'exact' is equal",
    "SNR mean": "mean of the outputs' signal-to-noise ratios, those that are exact left out; higher is better",
    "SNR worst": "signal-to-noise ratio of the output that is furthest from the reference's",
    "cosine": "mean cosine of an output and the reference's (1: same direction); the lowest of the outputs",
    "max error": "largest absolute difference of an element",
    "mean error": "mean absolute difference",
    "relative": "sum of absolute differences divided by the sum of the reference's absolute values",
    "share of the loss": "part of the whole loss that this layer causes when it alone is replaced",
}
"""Column → explanation."""

METRICS = {
    "found": "objects of the ground truth that were detected (same class, IoU from 0.5)",
    "missed": "objects of the ground truth that were not detected",
    "extra": "detections that match no object of the ground truth",
    "mean_iou": "mean overlap (intersection over union) of detections with the objects that they match",
    "score_shift": "mean score less the reference's, over the objects that both detect",
    "ap50": "average precision at IoU 0.5 (COCO)",
    "ap": "average precision, mean over IoU 0.5 to 0.95 (COCO)",
    "top1": "share of images whose best class is the labelled one",
    "top5": "share of images whose five best classes include the labelled one",
    "broken": "images that only the reference classifies correctly",
    "repaired": "images that only this model classifies correctly",
    "agreement": "share of images whose best class is the reference's",
    "top5_agreement": "share of images whose five best classes include the reference's best",
    "accuracy": "share of pairs that are judged correctly, at the best threshold of the other folds",
    "accuracy_std": "standard deviation of the accuracy over the folds",
    "accuracy_kept": "share of pairs that are judged correctly at the reference's threshold",
    "auc": "area under the ROC curve of the pairs",
    "threshold": "cosine from which two images count as the same person, where most pairs are judged correctly",
    "threshold_shift": "best threshold less the reference's",
    "mean_cosine": "mean cosine of an embedding and the reference's",
    "min_cosine": "lowest cosine of an embedding and the reference's",
    "psnr": "peak signal-to-noise ratio of pictures, in dB; higher is better",
    "ssim": "structural similarity of pictures (1: equal)",
}
"""Metric of a task → explanation."""

_RATE = "tar@far="
"""Beginning of a metric that has a rate in its name."""


def explained(columns: Iterable[str]) -> list[tuple[str, str]]:
    """Explanations of the columns that need one, each once: (column, explanation)."""
    known = {**COLUMNS, **METRICS}
    found = []
    for name in dict.fromkeys(columns):
        if name.startswith(_RATE):
            found.append(
                (name, f"share of same-person pairs accepted when {name.removeprefix(_RATE)} of the others are")
            )
        elif name in known:
            found.append((name, known[name]))
    return found


def is_metric(column: str) -> bool:
    """Whether a column is a metric of a task."""
    return column in METRICS or column.startswith(_RATE)
