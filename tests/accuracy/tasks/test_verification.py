"""The task verification: thresholds and rates worked out by hand, LFW's pairs."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint.accuracy.tasks import Task, make_task
from onnxlint.accuracy.tasks.labels import Pair, read_pairs
from onnxlint.accuracy.tasks.verification import best_threshold, cosine_of, pair_metrics
from onnxlint.errors import OnnxlintError
from onnxlint.images import recipe as rec

pytest.importorskip("sklearn")
Image = importlib.import_module("PIL.Image")


def make(labels: Path | None = None, images: rec.ImageSet | None = None) -> Task:
    return make_task("verification", recipe=rec.Recipe(), images=images, labels=str(labels) if labels else None)


def test_without_pairs_embeddings_are_compared() -> None:
    task = make()
    for image, one, other in (("a", [1, 0], [2, 0]), ("b", [1, 0], [1, 1])):
        reference, candidate = (task.read({"e": np.array([v], np.float32)}, (4, 4)) for v in (one, other))
        task.judge("reference", image, reference, reference)
        task.judge("candidate", image, reference, candidate)
    results = task.results()
    assert results["reference"].metrics == {"mean_cosine": 1, "min_cosine": 1}
    assert results["candidate"].metrics["mean_cosine"] == pytest.approx((1 + 0.5**0.5) / 2)
    assert results["candidate"].metrics["min_cosine"] == pytest.approx(0.5**0.5)
    with pytest.raises(OnnxlintError, match="embeddings have 2 numbers, this model's 3"):
        task.read({"e": np.zeros((1, 3))}, (4, 4))


def test_metrics_by_hand() -> None:
    cosines = np.array([0.9, 0.8, 0.4, 0.6, 0.2, 0.1])
    same = np.array([True, True, True, False, False, False])
    metrics, threshold = pair_metrics(cosines, same, np.array([0, 0, 1, 1, 0, 1]))
    # From 0.7 on: 5 of 6 right; as many from 0.3 on, but the higher threshold is taken.
    assert threshold == pytest.approx(0.7)
    # Fold 1 (0.4 same, 0.6 and 0.1 not) is told best from just above 0.6 on, by which all of fold 0 is right;
    # fold 0 (0.9 and 0.8 same, 0.2 not) from 0.5 on, by which only the 0.1 of fold 1 is right.
    assert metrics["accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics["accuracy_std"] == pytest.approx(1 / 3)
    assert metrics["auc"] == pytest.approx(8 / 9)
    assert metrics["tar@far=0.01"] is None


def test_true_accepts_at_a_rate_of_false_ones() -> None:
    rng = np.random.default_rng(0)
    others = rng.permutation(1000) / 1000  # 1 % of them, ten, are from 0.99 on
    cosines = np.concatenate([others, [0.9895, 0.9885, 0.5, 0.9995]])
    same = np.arange(1004) >= 1000
    metrics, _ = pair_metrics(cosines, same, np.arange(1004) % 10)
    assert metrics["tar@far=0.01"] == 0.5
    assert metrics["tar@far=0.001"] == 0.25


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_is_better_than_the_best(pairs: list[tuple[int, bool]]) -> None:
    cosines, same = np.array([c / 8 for c, _ in pairs]), np.array([s for _, s in pairs])
    rates = [((cosines >= t / 16) == same).mean() for t in range(-1, 19)]
    assert ((cosines >= best_threshold(cosines, same)) == same).mean() == max(rates)


def test_lfw_pairs_and_the_shift_of_the_threshold(tmp_path: Path) -> None:
    names = ["Ann_0001", "Ann_0002", "Bob_0001", "Bob_0003"]
    for name in names:
        (tmp_path / name[:3]).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name[:3] / f"{name}.jpg")
    (tmp_path / "pairs.txt").write_text("2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t3\nAnn\t2\tBob\t3\nCid\t1\t2\n")
    images = rec.find_images(tmp_path)
    task = make(tmp_path / "pairs.txt", images)
    angles = {"Ann_0001": 0, "Ann_0002": 10, "Bob_0001": 80, "Bob_0003": 90}
    for path in images.paths:
        for model, factor in (("reference", 1.0), ("candidate", 0.5)):
            angle = np.radians(angles[Path(path).stem])
            reference = task.read({"e": np.array([[np.cos(angle), np.sin(angle)]])}, (4, 4))
            answer = task.read({"e": np.array([[np.cos(factor * angle), np.sin(factor * angle)]])}, (4, 4))
            task.judge(model, path, reference, answer)
    results = task.results()
    own, got = results["reference"].metrics, results["candidate"].metrics
    assert own["accuracy"] == got["accuracy"] == own["auc"] == 1

    def cos(degrees: float) -> float:
        return float(np.cos(np.radians(degrees)))

    assert own["threshold"] == pytest.approx((cos(10) + cos(80)) / 2)
    assert own["threshold"] is not None
    assert got["threshold_shift"] == pytest.approx((cos(5) + cos(40)) / 2 - own["threshold"])
    # With the reference's threshold, 0.58, all pairs of the candidate are the same person.
    assert got["accuracy_kept"] == 0.5
    assert results["candidate"].notes == ("1 of 5 pairs lack an image",)


def test_pairs_are_read_as_lfw_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("2 1\nA_B 1 22\nA_B 3 C 1\nD 1 2\nD 2 E 10\n")
    assert read_pairs(str(path)) == [
        Pair("A_B_0001", "A_B_0022", True, 0),
        Pair("A_B_0003", "C_0001", False, 0),
        Pair("D_0001", "D_0002", True, 1),
        Pair("D_0002", "E_0010", False, 1),
    ]
    path.write_text("1\n" + "A 1 2\n" * 11)
    assert [pair.fold for pair in read_pairs(str(path))] == [*range(10), 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should be LFW's pairs.txt"),
        ("A 1 2\n", "should be LFW's pairs.txt"),
        ("10 300\n", "holds no pairs"),
        ("1 1\nA 1\n", "line 2 should be 'name n m'"),
        ("1 1\nA 1 B C\n", "line 2 should be"),
        ("1 1\nZ 1 2\n", "none of its labels is for an image"),
    ],
)
def test_bad_pairs_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "A_0001.png")
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(OnnxlintError) as caught:
        make(tmp_path / "pairs.txt", rec.find_images(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_of_one_kind_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1 1\nA 1 2\nA 1 B 1\n")
    task = make(tmp_path / "pairs.txt")
    answer = task.read({"e": np.ones((1, 4))}, (4, 4))
    for image in ("A_0001.jpg", "A_0002.jpg"):
        task.judge("reference", image, answer, answer)
    with pytest.raises(
        OnnxlintError, match=r"must form pairs of one person and pairs of two persons.*1 of 2 pairs are complete"
    ):
        task.results()


def test_cosines_of_ruined_embeddings() -> None:
    assert cosine_of(np.zeros(3), np.ones(3)) == 0
    assert cosine_of(np.full(3, np.nan), np.ones(3)) == 0
    assert cosine_of(np.full(3, np.inf), np.ones(3)) == 0
