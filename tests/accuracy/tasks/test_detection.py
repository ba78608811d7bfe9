"""The task detection: what is found, missed and extra, average precision, labels in both formats, the real network."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from onnxlint.accuracy.results import Detection
from onnxlint.accuracy.tasks import Answer, Task, TaskResult, make_task
from onnxlint.accuracy.tasks.detection import average_precision, class_names, pair_up, to_original
from onnxlint.accuracy.tasks.labels import Boxes
from onnxlint.errors import OnnxlintError
from onnxlint.images import recipe as rec

pytest.importorskip("pycocotools")
DATA = Path(__file__).parents[4] / "shared" / "data"
ZOO = Path(__file__).parents[4] / "zoo" / "real"
OWN_SIZE = rec.Recipe()
Image = importlib.import_module("PIL.Image")
DONE = {"boxes": "o[0:4]", "scores": "o[4:]", "background": "none", "nms": 1}
"""A model whose boxes are decoded: rows of x1, y1, x2, y2 and a score for each of its classes."""


def found(task: Task, *rows: list[float], size: tuple[int, int] = (100, 100)) -> Answer:
    return task.read({"o": np.asarray([rows], np.float32)}, size)


def judge(task: Task, image: str, **answers: Answer) -> dict[str, TaskResult]:
    reference = next(iter(answers.values()))
    for model, answer in answers.items():
        task.judge(model, image, reference, answer)
    return task.results()


def test_found_missed_and_extra_by_hand() -> None:
    task = make_task("detection", recipe=rec.Recipe(), detection=DONE)
    reference = found(
        task, [0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.8, 0], [20, 20, 30, 30, 0, 0.7], [1, 1, 9, 9, 0.1, 0]
    )
    candidate = found(task, [0, 0, 10, 8, 0.7, 0], [50, 50, 60, 60, 0, 0.8], [20, 20, 30, 30, 0, 0.6])
    results = judge(task, "x.png", reference=reference, candidate=candidate)
    assert reference.words == "2 × class 0, 1 × class 1"
    assert reference.detections[0] == Detection((0, 0, 10, 10), cast(float, pytest.approx(0.9)), 0)
    own = results["reference"].metrics
    assert own == {"found": 3, "missed": 0, "extra": 0, "mean_iou": 1, "score_shift": 0, "ap50": 1, "ap": 1}
    got = results["candidate"].metrics
    assert (got["found"], got["missed"], got["extra"]) == (2, 1, 1)
    assert all(isinstance(got[name], int) for name in ("found", "missed", "extra"))
    assert got["mean_iou"] == pytest.approx((0.8 + 1) / 2)
    assert got["score_shift"] == pytest.approx((-0.2 - 0.1) / 2)
    # Class 0 has 2 of which 1 is found at once: precision 1 at recalls 0 … 0.5, that is 51 of 101. Class 1 has its one
    # behind a wrong one: precision 1/2 everywhere.
    assert got["ap50"] == pytest.approx((51 / 101 + 0.5) / 2)
    # With IoU 0.8 the first is right at thresholds 0.5 … 0.8, 7 of 10.
    assert got["ap"] == pytest.approx((0.7 * 51 / 101 + 0.5) / 2)
    assert results["candidate"].truth == "the reference's detections"


def test_average_precision_by_hand() -> None:
    corners = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    truth = {
        0: Boxes(corners, np.zeros(2, np.int64), np.zeros(2, bool)),
        1: Boxes(corners[:0], np.zeros(0), np.zeros(0, bool)),
    }
    hits = np.array([[0, 0, 10, 10, 0.9, 0], [60, 60, 70, 70, 0.8, 0], [20, 20, 40, 40, 0.7, 0.0]])
    ap50, ap = average_precision(truth, {0: hits})
    assert (ap50, ap) == pytest.approx(((51 + 50 * 2 / 3) / 101,) * 2)
    ignored = {0: replace(truth[0], ignored=np.array([False, True]))}
    assert average_precision(ignored, {0: hits})[0] == pytest.approx(1)
    assert average_precision(truth, {}) == (0, 0)
    assert average_precision({1: truth[1]}, {}) == (None, None)


def test_pairing_takes_the_best_free_one() -> None:
    truth = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    boxes = np.array([[0.0, 0, 10, 9.4], [0, 0, 10, 10], [0, 0, 10, 10]])
    pairs = pair_up(boxes, np.zeros(3), truth, np.zeros(2))
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 0)]


def test_nothing_found_anywhere() -> None:
    task = make_task("detection", recipe=rec.Recipe(), detection=DONE)
    empty = found(task, [0, 0, 1, 1, 0, 0])
    result = judge(task, "x.png", reference=empty, candidate=empty)["candidate"]
    assert result.metrics["found"] == 0
    assert result.metrics["ap"] is None
    assert result.metrics["mean_iou"] is None
    assert empty.words == "nothing"


def test_results_can_be_asked_for_at_any_time() -> None:
    task = make_task("detection", recipe=rec.Recipe(), detection=DONE)
    face, nothing = found(task, [0, 0, 10, 10, 0.9]), found(task, [0, 0, 10, 10, 0])
    assert judge(task, "1.png", reference=face, candidate=face)["candidate"].metrics["ap"] == 1
    again = judge(task, "2.png", reference=face, candidate=nothing)["candidate"].metrics
    assert again["ap"] == pytest.approx(51 / 101)
    assert task.results()["candidate"].metrics == again


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center-crop"])
@pytest.mark.parametrize("width", [90, 200, 333])
def test_boxes_go_back_to_where_they_were(tmp_path: Path, resize: Any, width: int) -> None:
    pixels = np.zeros((200, width, 3), np.uint8)
    box = (width // 2 - 20, 80, width // 2 + 10, 110)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    path = str(tmp_path / "x.png")
    Image.fromarray(pixels).save(path)
    recipe = rec.Recipe((160, 128), resize=resize)
    x = rec.preprocess(pixels, recipe)[0] > 127
    ys, xs = np.nonzero(x)
    seen = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], float)
    assert to_original(seen, path, recipe)[0] == pytest.approx(box, abs=2)


def labelled(tmp_path: Path, text: str, recipe: rec.Recipe = OWN_SIZE, **table: Any) -> Task:
    for name in ("1.png", "2.png"):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
    (tmp_path / "labels.txt").write_text(text)
    images = rec.find_images(tmp_path)
    return make_task(
        "detection", recipe=recipe, images=images, labels=str(tmp_path / "labels.txt"), detection={**DONE, **table}
    )


def test_wider_face(tmp_path: Path) -> None:
    boxes = "20 10 40 20 0 0 0 0 0 0\n0 0 20 10 0 0 0 1 0 0\n100 50 20 20 0 0 0 0 0 0\n"
    text = f"a/1.png\n3\n{boxes}a/3.png\n0\n0 0 0 0 0 0 0 0 0 0\n"
    task = labelled(tmp_path, text, rec.Recipe((100, 100)))
    reference = found(task, [10, 10, 30, 30, 0.9], [0, 0, 10, 10, 0.8], [50, 50, 60, 70, 0.6])
    candidate = found(task, [10, 10, 30, 30, 0.8], [0, 0, 10, 10, 0.8], [90, 90, 95, 95, 0.7])
    judge(task, str(tmp_path / "1.png"), reference=reference, candidate=candidate)
    results = judge(task, str(tmp_path / "2.png"), reference=reference, candidate=candidate)
    own, got = results["reference"].metrics, results["candidate"].metrics
    assert (own["found"], own["missed"], own["extra"], own["ap50"]) == (2, 0, 0, 1)
    assert (got["found"], got["missed"], got["extra"]) == (1, 1, 1)
    assert got["score_shift"] == pytest.approx(-0.05)
    assert got["ap50"] == pytest.approx(51 / 101)
    assert results["candidate"].truth == str(tmp_path / "labels.txt")
    assert any("1 of 2 images have no label" in note for note in results["candidate"].notes)


def coco(**changes: Any) -> str:
    data = {
        "images": [{"id": 7, "file_name": "1.png"}, {"id": 9, "file_name": "2.png"}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10]},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        ],
    }
    return json.dumps({**data, **changes})


@pytest.mark.parametrize(
    ("table", "scores"),
    [
        ({}, [0, 0.9]),  # as many classes as categories: in the order of their ids
        ({"background": 0}, [0, 0, 0, 0.9]),  # the background and classes up to the highest id: ids
        ({"names": ["dog", "cat"]}, [0.9, 0]),
    ],
)
def test_coco_categories(tmp_path: Path, table: dict[str, Any], scores: list[float]) -> None:
    task = labelled(tmp_path, coco(), **table)
    answer = found(task, [0, 0, 10, 10, *scores])
    assert answer.words == "1 × dog"
    judge(task, str(tmp_path / "1.png"), reference=answer)
    metrics = judge(task, str(tmp_path / "2.png"), reference=answer)["reference"].metrics
    assert (metrics["found"], metrics["missed"]) == (1, 0)


def test_classes_that_do_not_fit_the_categories(tmp_path: Path) -> None:
    with pytest.raises(
        OnnxlintError, match=r"has 2 categories, and the model 3 classes; list the model's classes in order"
    ):
        found(labelled(tmp_path, coco()), [0, 0, 10, 10, 0, 0, 0.9])
    with pytest.raises(OnnxlintError, match=r"labels faces, and the model has 3 classes"):
        found(labelled(tmp_path, "1.png\n0\n"), [0, 0, 10, 10, 0, 0, 0.9])


@pytest.mark.parametrize(
    "text", ["cat\ndog\n", "cat\r\n\r\n dog ", "BACKGROUND\ncat\ndog\n", "cat,dog", "cat\ndog\n__background__"]
)
def test_a_list_of_classes_names_what_is_found(tmp_path: Path, text: str) -> None:
    task = labelled(tmp_path, text)
    answer = found(task, [0, 0, 10, 10, 0, 0.9], [20, 20, 30, 30, 0.8, 0])
    assert answer.words == "1 × dog, 1 × cat"
    results = judge(task, "x.png", reference=answer)["reference"]
    assert (results.truth, results.metrics["found"]) == ("the reference's detections", 2)
    assert class_names(str(tmp_path / "labels.txt"), 2) == ("cat", "dog")


def test_a_list_of_classes_has_to_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"labels\.txt: names 2 classes, and the model has 3"):
        found(labelled(tmp_path, "cat\ndog\n"), [0, 0, 10, 10, 0, 0, 0.9])
    with pytest.raises(OnnxlintError, match=r"labels\.txt: names class 'cat' twice"):
        labelled(tmp_path, "cat\ndog\ncat\n")


@pytest.mark.parametrize(
    ("text", "names"),
    [(coco(), ("cat", "dog")), ("1.png\n1\n1 1 5 5\n", ())],
)
def test_names_of_classes_in_other_labels(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / "labels.txt").write_text(text)
    assert class_names(str(tmp_path / "labels.txt"), 2) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no labels"),
        ("1.png 4\n", "is not WIDER FACE's format"),
        ("1.png\n1\n1 2 3\n", "should be x y w h"),
        ("1.png\n2\n1 2 3 4\n", "should have 2 boxes and has 1"),
        ("{", "is not a COCO file"),
        ("[1]", "is not a COCO file with images, annotations and categories"),
        ("{}", "annotations and categories (it lacks 'images')"),
        (coco(annotations=[{"image_id": 8, "category_id": 3, "bbox": [0, 0, 1, 1]}]), "is not a COCO file"),
        (coco(annotations=[{"image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]}]), "has no category"),
        ("z/5.png\n0\n", "none of its labels is for an image"),
    ],
)
def test_bad_labels_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        labelled(tmp_path, text)
    assert message in str(caught.value)
    assert str(tmp_path / "labels.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"nowhere\.txt: no such labels"):
        make_task("detection", recipe=rec.Recipe(), labels=str(tmp_path / "nowhere.txt"))
    (tmp_path / "labels.txt").write_text("1.png\n0\n")
    arrays = rec.ImageSet("x.npz", arrays=np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(OnnxlintError, match=r"labels name image files, but x\.npz holds arrays"):
        make_task("detection", recipe=rec.Recipe(), images=arrays, labels=str(tmp_path / "labels.txt"))


def test_misspelt_task() -> None:
    with pytest.raises(OnnxlintError, match="no such task: 'detecton'; did you mean 'detection'"):
        make_task("detecton", recipe=rec.Recipe())


@pytest.mark.parametrize(
    ("task", "module"),
    [
        ("detection", "pycocotools.cocoeval"),
        ("super-resolution", "skimage.metrics"),
        ("verification", "sklearn.metrics"),
    ],
)
def test_missing_libraries_are_missed_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "pairs.txt").write_text("1 1\nA 1 2\n")
    labels = str(tmp_path / "pairs.txt") if task == "verification" else None
    with pytest.raises(OnnxlintError, match=r"cannot be imported .*pip install 'onnxlint\[tasks\]'"):
        make_task(task, recipe=rec.Recipe(), labels=labels)


# ---------------------------------------------------------------- the real network


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_retinaface_as_exported_and_as_fixed_by_hand_find_the_same_faces(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    recipe = rec.PRESETS["retinaface"]
    images = rec.find_images(DATA / "photos" / "crowd.jpg")
    task = make_task("detection", recipe=recipe, images=images)
    ((name, x),) = rec.tensors(images, recipe)
    answers = {}
    for model in ("original_op11_dyn", "hand_fixed_released"):
        session = ort.InferenceSession(str(DATA / "retinaface" / f"{model}.onnx"), providers=["CPUExecutionProvider"])
        values = session.run(None, {session.get_inputs()[0].name: x[None]})
        answers[model] = task.read(dict(zip([o.name for o in session.get_outputs()], values, strict=True)), (640, 640))
    original, fixed = answers.values()
    assert len(original.detections) == len(fixed.detections) > 20
    for one, other in zip(original.detections, fixed.detections, strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-3)
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.landmarks == pytest.approx(other.landmarks, abs=1e-3)
        x1, y1, x2, y2 = one.box
        assert all(x1 < x < x2 and y1 < y < y2 for x, y in np.reshape(one.landmarks, (5, 2)))
    result = judge(task, name, **answers)["hand_fixed_released"].metrics
    assert (result["missed"], result["extra"], result["ap"]) == (0, 0, 1)
    assert result["mean_iou"] == pytest.approx(1, abs=1e-5)
    # The faces are in the upright part of the letterbox, and the boxes of the file are those of the input.
    boxes = np.array([one.box for one in fixed.detections])
    assert to_original(boxes, name, recipe)[0] == pytest.approx(boxes[0] * 1024 / 640, abs=1e-6)


@pytest.mark.skipif(not (ZOO / "ddddocr_det_yolox.onnx").is_file(), reason="needs ../zoo")
def test_yolox_finds_letters_where_they_were_drawn() -> None:
    ort = pytest.importorskip("onnxruntime")
    draw_module, fonts = importlib.import_module("PIL.ImageDraw"), importlib.import_module("PIL.ImageFont")
    canvas = Image.new("RGB", (416, 416), "white")
    draw, font = draw_module.Draw(canvas), fonts.load_default(60)
    places = {"A": (60, 60), "R": (250, 100), "8": (150, 280)}
    drawn = []
    for letter, place in places.items():
        draw.text(place, letter, fill="black", font=font)
        drawn.append(draw.textbbox(place, letter, font=font))
    session = ort.InferenceSession(str(ZOO / "ddddocr_det_yolox.onnx"), providers=["CPUExecutionProvider"])
    x = rec.preprocess(np.asarray(canvas), rec.Recipe())
    task = make_task("detection", recipe=rec.Recipe(), detection={"preset": "yolox"})
    answer = task.read({"output": session.run(None, {session.get_inputs()[0].name: x[None]})[0]}, (416, 416))
    boxes = np.array([one.box for one in answer.detections])
    found = pair_up(boxes, np.zeros(len(boxes)), np.array(drawn, float), np.zeros(3))
    assert len(found) == len(boxes) == 3
