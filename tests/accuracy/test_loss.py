"""What candidates lose for a task."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnxlint.accuracy.loss import EXACT_DB, AnswerLoss
from onnxlint.accuracy.tasks.decoder import PRESETS
from onnxlint.accuracy.tasks.priors import prior_boxes
from onnxlint.errors import OnnxlintError

SIZE = (64, 64)
Array = npt.NDArray[Any]


def faces(*logits: float) -> dict[str, Array]:
    """RetinaFace's joined output with faces of these logits, far from each other."""
    priors = PRESETS["retinaface"].priors
    assert priors is not None
    boxes = prior_boxes(priors, *SIZE)
    rows = np.zeros((len(boxes), 16), np.float32)
    rows[:, 4] = 4.0
    small = np.flatnonzero(np.isclose(boxes[:, 2] * SIZE[0], 16))
    for i, logit in enumerate(logits):
        rows[small[i * 21], 4:6] = 0, logit
    return {"output0": rows[None]}


def test_detection_counts_objects() -> None:
    loss = AnswerLoss("detection")
    same = loss.measure([(faces(2, 3), faces(2, 3), SIZE)])
    assert same.is_none
    assert same.values == {"found": 1.0, "extra": 0.0, "score_shift": 0.0, "snr": EXACT_DB}
    worse = loss.measure([(faces(2, 3, 0.1, -1), faces(1.9, 3, -0.1, 1), SIZE), (faces(2), faces(2), SIZE)])
    assert worse.rank[:2] == (1.0, 1.0)
    assert worse.values["found"] == pytest.approx(3 / 4)
    assert worse.values["extra"] == pytest.approx(1 / 4)
    assert -0.02 < worse.values["score_shift"] < 0
    assert worse.rank > same.rank


def test_fewer_missed_objects_come_before_fewer_extra_ones() -> None:
    loss = AnswerLoss("detection")
    truth = faces(2, 3, -1, -1)
    extra, missed = (loss.measure([(truth, other, SIZE)]) for other in (faces(2, 3, 1, 1), faces(2, -1, -1, -1)))
    assert extra.rank < missed.rank


def test_retinaface_is_recognized_and_other_outputs_are_not_guessed() -> None:
    assert AnswerLoss().measure([(faces(2), faces(2), SIZE)]).values["found"] == 1
    other = {"y": np.ones((1, 10), np.float32)}
    loss = AnswerLoss().measure([(other, other, SIZE)])
    assert loss.rank == ()
    assert not loss.is_none
    with pytest.raises(OnnxlintError, match="--task detection"):
        AnswerLoss("detection").measure([(other, other, SIZE)])


def test_an_image_without_objects_has_no_share_of_them() -> None:
    loss = AnswerLoss("detection").measure([(faces(), faces(2), SIZE)])
    assert "found" not in loss.values
    assert loss.rank[:2] == (0.0, 1.0)


def test_classification_counts_classes() -> None:
    def scores(*values: float) -> dict[str, Array]:
        return {"logits": np.asarray([values], np.float32)}

    pairs = [(scores(1, 5, 2), scores(1, 4, 3), SIZE), (scores(4, 1, 0), scores(1, 2, 0), SIZE)]
    loss = AnswerLoss("classification").measure(pairs)
    assert loss.values["top1"] == 0.5
    assert loss.values["margin"] == pytest.approx((1 - 1) / (3 + 3))
    assert loss.rank[0] == 1
    assert AnswerLoss("classification").measure(pairs[:1]).is_none


def test_verification_takes_the_cosine() -> None:
    one, other = ({"emb": np.asarray([[1.0, x]], np.float32)} for x in (0.0, 1.0))
    loss = AnswerLoss("verification").measure([(one, one, SIZE), (one, other, SIZE)])
    assert loss.values["cosine"] == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert loss.values["min_cosine"] == pytest.approx(np.sqrt(0.5))
    assert AnswerLoss("verification").measure([(one, one, SIZE)]).is_none


def test_other_tasks_have_their_snr_alone() -> None:
    one, other = ({"picture": np.full((1, 3, 4, 4), x, np.float32)} for x in (1.0, 1.1))
    loss = AnswerLoss("super-resolution").measure([(one, other, SIZE)])
    assert loss.rank == ()
    assert loss.values["snr"] == pytest.approx(20, abs=0.01)


def test_it_is_recorded_and_pickled() -> None:
    loss = AnswerLoss("detection", {"preset": "retinaface"})
    assert loss.record() == {"task": "detection", "detection": {"preset": "retinaface"}}
    assert pickle.loads(pickle.dumps(loss)) == loss
    with pytest.raises(OnnxlintError, match="--task: no such task: 'detecton'"):
        AnswerLoss("detecton")
