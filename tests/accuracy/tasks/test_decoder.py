"""Decoders: priors and boxes against numbers worked out by hand, roles of outputs, [detection]."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint.accuracy.tasks.boxes import overlaps, suppress
from onnxlint.accuracy.tasks.decoder import PRESETS, Decoder, choose, decode
from onnxlint.accuracy.tasks.detection_table import KEYS, read_table
from onnxlint.accuracy.tasks.priors import Priors, prior_boxes
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import Head, Joined

RETINAFACE = PRESETS["retinaface"]


@pytest.mark.parametrize(
    ("preset", "size", "count"),
    [
        ("retinaface", 640, 16800),
        ("retinaface", 320, 4200),
        ("ssd300-voc", 300, 8732),
        ("ssd300-coco", 300, 8732),
        ("ssd300-mobilenet", 300, 3000),
        ("ssdlite320", 320, 3234),
        ("yolox", 416, 3549),
    ],
)
def test_networks_have_as_many_priors_as_published(preset: str, size: int, count: int) -> None:
    priors = PRESETS[preset].priors
    assert priors is not None
    assert prior_boxes(priors, size, size).shape == (count, 4)


def test_retinaface_priors() -> None:
    priors = prior_boxes(RETINAFACE.priors or Priors(()), 640, 320)
    assert priors[0] == pytest.approx([4 / 640, 4 / 320, 16 / 640, 16 / 320])
    assert priors[1] == pytest.approx([4 / 640, 4 / 320, 32 / 640, 32 / 320])
    assert priors[2] == pytest.approx([12 / 640, 4 / 320, 16 / 640, 16 / 320])
    assert priors[-1] == pytest.approx([624 / 640, 304 / 320, 512 / 640, 512 / 320])


def test_ssd_priors_of_a_cell() -> None:
    priors = prior_boxes(PRESETS["ssd300-voc"].priors or Priors(()), 300, 300)
    assert priors[0] * 300 == pytest.approx([4, 4, 30, 30])
    assert priors[1] * 300 == pytest.approx([4, 4, math.sqrt(30 * 60), math.sqrt(30 * 60)])
    assert priors[2] * 300 == pytest.approx([4, 4, 30 * math.sqrt(2), 30 / math.sqrt(2)])
    assert priors[3] * 300 == pytest.approx([4, 4, 30 / math.sqrt(2), 30 * math.sqrt(2)])
    level = priors[38 * 38 * 4 :]
    assert level[4] * 300 == pytest.approx([8, 8, 60 * math.sqrt(3), 60 / math.sqrt(3)])


def _outputs(where: int, *, logits: bool = False) -> dict[str, np.ndarray]:
    """One face at prior `where` of a 64 × 64 input; prior 0's score is just below the threshold."""
    count = 2 * (64 + 16 + 4)
    boxes, landmarks = np.zeros((count, 4), np.float32), np.zeros((count, 10), np.float32)
    scores = np.tile(np.array([0.99, 0.01], np.float32), (count, 1))
    scores[0] = 0.51, 0.49
    scores[where] = 0.1, 0.9
    boxes[where] = 1, -2, math.log(2) / 0.2, 0
    landmarks[where, :2] = 3, 4
    scores = np.log(scores) + 7 if logits else scores
    return {"bbox": boxes[None], "cls": scores[None], "ldm": landmarks[None]}


@pytest.mark.parametrize("logits", [False, True])
def test_retinaface_by_hand(logits: bool) -> None:
    # The level of 8 × 8 cells has 128 priors: 131 is the second of cell (1, 0) of the next.
    found = decode(_outputs(131, logits=logits), (64, 64), RETINAFACE)
    # Centre (24, 8), 128 × 128; moved by (0.1, -0.2) · 128, twice as wide.
    assert found.boxes[0] == pytest.approx([24 + 12.8 - 128, 8 - 25.6 - 64, 24 + 12.8 + 128, 8 - 25.6 + 64], abs=1e-4)
    assert found.landmarks[0, :2] == pytest.approx([24 + 0.3 * 128, 8 + 0.4 * 128], abs=1e-4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.49], abs=1e-6)
    assert found.labels.tolist() == [0, 0]


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], heads: tuple[Joined, ...] = ()) -> None:
    want = decode(one, (64, 64), choose(one, (64, 64)))
    got = decode(other, (64, 64), choose(other, (64, 64), heads), heads)
    assert got.boxes == pytest.approx(want.boxes)
    assert got.scores == pytest.approx(want.scores)
    assert got.landmarks == pytest.approx(want.landmarks)


def test_heads_are_known_by_width_where_names_say_nothing() -> None:
    _same(_outputs(100), {"576": _outputs(100)["cls"], "output0": _outputs(100)["ldm"], "x": _outputs(100)["bbox"]})


def test_joined_output_as_fix_writes_it() -> None:
    parts = _outputs(100, logits=True)
    _same(_outputs(100), {"output0": np.concatenate([parts["bbox"], parts["cls"], parts["ldm"]], axis=2)})


@pytest.mark.parametrize("name", ["joined", "out0"])
def test_joined_output_in_another_order_as_recorded(name: str) -> None:
    parts = _outputs(100, logits=True)
    heads = (Joined("joined", 2, (Head("cls", 0, 2, "Softmax"), Head("7", 2, 12), Head("8", 12, 16))),)
    _same(_outputs(100), {name: np.concatenate([parts["cls"], parts["ldm"], parts["bbox"]], axis=2)}, heads)


def test_joined_along_the_candidates() -> None:
    parts = _outputs(100)
    both = np.concatenate([parts["bbox"], parts["cls"]], axis=2).transpose(0, 2, 1)
    heads = (Joined("j", 1, (Head("bbox", 0, 4), Head("cls", 4, 6))),)
    decoder = replace(RETINAFACE, layout="columns")
    assert decode({"j": both}, (64, 64), decoder, heads).boxes == pytest.approx(
        decode(parts, (64, 64), RETINAFACE).boxes
    )


def test_softmax_that_was_dropped_is_applied_even_where_logits_look_like_probabilities() -> None:
    parts = _outputs(100)
    heads = (Joined("j", 2, (Head("bbox", 0, 4), Head("cls", 4, 6, "Softmax"))),)
    joined = np.concatenate([parts["bbox"], parts["cls"]], axis=2)
    found = decode({"j": joined}, (64, 64), RETINAFACE, heads)
    assert found.scores[0] == pytest.approx(1 / (1 + math.exp(0.1 - 0.9)))


def test_ruined_outputs_find_nothing_and_break_nothing() -> None:
    outputs = _outputs(100)
    outputs["cls"][0, 100] = np.nan
    outputs["bbox"][0, 0] = np.inf
    outputs["bbox"][0, 1] = np.nan
    outputs["cls"][0, 1] = 0.2, 0.8
    assert len(decode(outputs, (64, 64), RETINAFACE).scores) == 0
    outputs["cls"][:] = 0  # int8 that lost all
    assert len(decode(outputs, (64, 64), RETINAFACE).scores) == 0


def test_ssd_by_classes() -> None:
    scores = np.full((1, 8732, 21), -5, np.float32)
    scores[..., 0] = 5
    scores[0, 8731, 15] = 20
    outputs = {"loc": np.zeros((1, 8732, 4), np.float32), "conf": scores}
    decoder = choose(outputs, (300, 300))
    assert decoder.preset == "ssd300-voc"
    found = decode(outputs, (300, 300), decoder)
    assert found.labels[0] == 14
    assert found.classes == 20
    # The last prior: the tall one of √2 in the only cell of the last level.
    wide, tall = 264 / math.sqrt(2), min(300.0, 264 * math.sqrt(2))
    assert found.boxes[0] == pytest.approx([150 - wide / 2, 150 - tall / 2, 150 + wide / 2, 150 + tall / 2])
    assert choose({**outputs, "conf": np.zeros((1, 8732, 81))}, (300, 300)).preset == "ssd300-coco"
    with pytest.raises(OnnxlintError, match="ssd300-coco has that many, but not 7 classes"):
        choose({**outputs, "conf": np.zeros((1, 8732, 7))}, (300, 300))


def test_ssd_that_has_decoded_its_boxes() -> None:
    boxes = np.tile(np.array([0.1, 0.2, 0.5, 0.6], np.float32), (1, 3000, 1))
    scores = np.tile(np.array([0.9, 0.1], np.float32), (1, 3000, 1))
    scores[0, 7] = 0.2, 0.8
    outputs = {"scores": scores, "boxes": boxes}
    found = decode(outputs, (300, 300), choose(outputs, (300, 300)))
    assert found.boxes.tolist() == pytest.approx([pytest.approx([30, 60, 150, 180])])
    assert found.scores.tolist() == pytest.approx([0.8])


def test_yolov8() -> None:
    output = np.zeros((1, 4 + 3, 5), np.float32)
    output[0, :, 2] = 20, 30, 10, 8, 0.1, 0.2, 0.7
    decoder = read_table({"preset": "yolov8"})
    assert decoder is not None
    found = decode({"output0": output}, (64, 64), decoder)
    assert found.boxes[0] == pytest.approx([15, 26, 25, 34])
    assert found.labels.tolist()[0] == 2
    assert found.scores[0] == pytest.approx(0.7)


def test_yolov5_multiplies_objectness() -> None:
    output = np.zeros((1, 6, 5 + 2), np.float32)
    output[0, 3] = 20, 30, 10, 8, 0.5, 0.1, 0.8
    found = decode({"o": output}, (64, 64), PRESETS["yolov5"])
    assert found.scores[0] == pytest.approx(0.4)
    assert found.labels[0] == 1


def test_yolox_grid() -> None:
    output = np.zeros((1, 64 + 16 + 4, 6), np.float32)
    output[0, 64 + 5] = 0.25, 0.5, math.log(3), 0, 1, 0.9  # cell (1, 1) of step 16
    found = decode({"o": output}, (64, 64), PRESETS["yolox"])
    assert found.boxes[0] == pytest.approx([20 - 24, 24 - 8, 20 + 24, 24 + 8], abs=1e-5)


def test_distances_of_levels_in_outputs_of_their_own() -> None:
    decoder = read_table(
        {
            "box": "distances",
            "steps": [32, 64],
            "min-sizes": [[1], [1]],
            "boxes": ["b1", "b2"],
            "scores": ["s1", "s2"],
            "landmarks": ["k1", "k2"],
            "center": 0.0,
        }
    )
    assert decoder is not None
    outputs: dict[str, np.ndarray] = {
        "b1": np.zeros((1, 4, 4)),
        "b2": np.array([[[0.5, 0.25, 1, 0.125]]], np.float32),
        "s1": np.zeros((1, 4, 1)),
        "s2": np.array([[[0.9]]], np.float32),
        "k1": np.zeros((1, 4, 2)),
        "k2": np.array([[[0.5, 0.25]]], np.float32),
    }
    found = decode(outputs, (64, 64), decoder)
    assert found.boxes.tolist() == [[-32, -16, 64, 8]]
    assert found.landmarks.tolist() == [[32, 16]]


def test_boxes_labels_and_scores_of_a_model_that_does_it_all() -> None:
    decoder = read_table({"boxes": "dets[0:4]", "scores": "dets[..., 4:5]", "labels": "labels", "nms": 1})
    assert decoder is not None
    outputs = {"dets": np.array([[[1, 2, 3, 4, 0.9], [1, 2, 3, 4, 0.8]]], np.float32), "labels": np.array([[17, 3]])}
    found = decode(outputs, (8, 8), decoder)
    assert found.labels.tolist() == [17, 3]
    assert found.boxes.tolist() == [[1, 2, 3, 4]] * 2


def test_detr_has_its_background_last() -> None:
    outputs = {
        "logits": np.array([[[0, 9, 0], [0, 0, 9]]], np.float32),
        "pred_boxes": np.array([[[0.5, 0.5, 0.5, 0.25]] * 2], np.float32),
    }
    found = decode(outputs, (100, 40), PRESETS["detr"])
    assert found.labels[0] == 1
    assert found.boxes[0] == pytest.approx([25, 15, 75, 25])
    assert (found.scores > 0.5).sum() == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "retinanet"}, "preset: 'retinanet' is not one of retinaface, ssd300-voc"),
        ({"thresold": 0.3}, "unknown key 'thresold'; did you mean 'threshold'?"),
        ({"threshold": 3}, "threshold: should be a number from 0 to 1"),
        ({"box": "corners"}, "box: 'corners' is not one of offsets, distances"),
        ({"box": ["xyxy"]}, "box: ['xyxy'] is not one of"),
        ({"box": "offsets"}, 'box = "offsets" needs priors'),
        ({"box": "offsets", "min-sizes": [[16]]}, "needs steps"),
        ({"box": "offsets", "min-sizes": [16], "steps": [8]}, "min-sizes: should be a list of lists"),
        ({"box": "offsets", "min-sizes": [[16]], "steps": [8, 16]}, "steps: 2 levels, but min-sizes has 1"),
        ({"box": "offsets", "min-sizes": [[16]], "steps": [0]}, "steps: should be a list of positive numbers"),
        ({"box": "offsets", "min-sizes": [[16]], "steps": [10**400]}, "steps: should be a list of positive numbers"),
        ({"box": "distances", "min-sizes": [[1]], "features": [4]}, "needs steps"),
        ({"boxes": 4}, "boxes: should be a name, or a list of names"),
        ({"background": "face"}, "background: should be the number of a class"),
        ({"limit": 0}, "limit: should be a whole number from 1"),
        ({"preset": "retinaface", "variances": [0.1]}, "variances: should be"),
    ],
)
def test_wrong_tables(table: dict[str, object], message: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        read_table(table)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_override_presets() -> None:
    assert read_table({}) is None
    table = {"preset": "retinaface", "threshold": 0.02, "min-sizes": [[10, 20], [32, 64], [128, 256]]}
    decoder = read_table(table)
    assert decoder is not None
    assert decoder.threshold == 0.02
    assert decoder.nms == 0.4
    assert decoder.priors is not None
    assert decoder.priors.steps == (8, 16, 32)
    assert decoder.priors.min_sizes[0] == (10, 20)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"a": np.zeros((1, 168, 4)), "b": np.zeros((1, 168, 4))}, "neither RetinaFace's nor a known SSD's"),
        ({"a": np.zeros((1, 10, 4)), "b": np.zeros((1, 10, 2))}, "a (10×4), b (10×2) for an input of 64×64"),
        ({"a": np.zeros((2, 168, 4)), "b": np.zeros((2, 168, 2))}, "output a is 2×168×4"),
        ({"a\x1b[31m": np.zeros((1, 3, 8, 8))}, "output a\\x1b[31m is 1×3×8×8"),
        ({"a": np.zeros((1, 168, 3))}, "cannot tell which outputs are boxes"),
    ],
)
def test_outputs_that_are_no_detections(outputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        choose(outputs, (64, 64))
    assert message in str(caught.value)


def test_misspelt_output_and_wrong_size() -> None:
    decoder = replace(RETINAFACE, boxes=("bbx",))
    with pytest.raises(OnnxlintError, match=r"boxes: no output bbx; there are bbox \(168×4\)"):
        decode(_outputs(9), (64, 64), decoder)
    with pytest.raises(OnnxlintError, match="168 boxes, but retinaface has 42 priors for an input of 32×32"):
        decode(_outputs(9), (32, 32), RETINAFACE)
    # A candidate may have other names than those that the user gave for the reference.
    assert len(decode(_outputs(9), (64, 64), decoder, strict=False).scores)


def test_overlaps_by_hand() -> None:
    a = np.array([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    assert overlaps(a, np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 5, 5]])).tolist() == [
        pytest.approx([1 / 3, 1, 0]),
        [0, 0, 0],
    ]


@given(st.integers(0, 10_000), st.integers(1, 25), st.floats(0.05, 0.95))
def test_suppression_is_what_its_definition_says(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 10, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 8, (count, 2))], axis=1)
    scores, labels = rng.permutation(count) / count, rng.integers(0, 2, count)
    kept = suppress(boxes, scores, labels, threshold, 100)
    iou = overlaps(boxes, boxes)
    want: list[int] = []
    for i in sorted(range(count), key=lambda i: -scores[i]):
        if all(labels[i] != labels[j] or iou[i, j] <= threshold for j in want):
            want.append(i)
    assert kept.tolist() == want
    assert suppress(boxes, scores, labels, threshold, 2).tolist() == want[:2]


def test_presets_name_themselves() -> None:
    assert all(decoder.preset == name for name, decoder in PRESETS.items())
    assert Decoder().preset == ""


def test_landmarks_are_pairs() -> None:
    decoder = Decoder(boxes=("o[0:4]",), scores=("o[4:5]",), landmarks=("o[5:8]",))
    with pytest.raises(OnnxlintError, match=r"landmarks should be x, y pairs: o\[5:8\] \(2×3\)"):
        decode({"o": np.ones((1, 2, 8))}, (64, 64), decoder)


def test_the_guide_has_every_key_and_preset() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = guide[guide.index("## Detection") :].partition("\n## ")[0]
    assert [name for name in (*KEYS, *PRESETS) if name not in section] == []
