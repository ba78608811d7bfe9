"""The task classification: counts worked out by hand, labels in every layout."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from onnxlint.accuracy.tasks import Answer, Task, make_task
from onnxlint.accuracy.tasks.classification import first_five
from onnxlint.errors import OnnxlintError
from onnxlint.images import recipe as rec

Image = importlib.import_module("PIL.Image")


def pictures(folder: Path, *names: str) -> rec.ImageSet:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return rec.find_images(folder)


def make(images: rec.ImageSet | None = None, labels: Path | None = None) -> Task:
    return make_task("classification", recipe=rec.Recipe(), images=images, labels=str(labels) if labels else None)


def says(task: Task, best: int, *, classes: int = 3) -> Answer:
    """An answer whose classes follow each other: best, best + 1, …"""
    scores = np.roll(np.arange(classes, 0, -1, dtype=np.float32), best)
    return task.read({"logits": scores[None, :, None, None]}, (4, 4))


def test_without_labels_the_reference_is_the_truth() -> None:
    task = make()
    for image, before, now in (("a", 0, 0), ("b", 1, 2), ("c", 1, 2), ("d", 9, 3)):
        reference, candidate = says(task, before, classes=10), says(task, now, classes=10)
        task.judge("reference", image, reference, reference)
        task.judge("candidate", image, reference, candidate)
    results = task.results()
    assert results["reference"].metrics == {"agreement": 1, "top5_agreement": 1}
    # 2 to 6 have 1 not among them; 3 to 7 not 9.
    assert results["candidate"].metrics == {"agreement": 0.25, "top5_agreement": 0.25}
    assert results["candidate"].notes == ("class 1 became class 2: 2 images", "class 9 became class 3: 1 image")


def test_words_are_class_and_probability() -> None:
    task = make()
    assert task.read({"o": np.log(np.array([[0.2, 0.7, 0.1]], np.float32))}, (4, 4)).words == "class 1 0.70"
    assert task.read({"o": np.array([[0.2, 0.1, 0.7]], np.float32)}, (4, 4)).words == "class 2 0.70"
    assert task.read({"o": np.full((1, 3), np.nan)}, (4, 4)).words == "class 0 0.33"


def test_folders_are_classes(tmp_path: Path) -> None:
    images = pictures(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "emu/x/1.png")
    task = make(images, tmp_path)
    before = {"cat/1.png": 0, "cat/2.png": 1, "dog/1.png": 1, "emu/x/1.png": 0}
    now = {"cat/1.png": 1, "cat/2.png": 0, "dog/1.png": 1, "emu/x/1.png": 0}
    for name in before:
        reference, candidate = says(task, before[name]), says(task, now[name])
        task.judge("reference", str(tmp_path / name), reference, reference)
        task.judge("candidate", str(tmp_path / name), reference, candidate)
    own, got = task.results()["reference"].metrics, task.results()["candidate"].metrics
    assert own == {
        "top1": 0.5,
        "top5": None,
        "broken": 0,
        "repaired": 0,
        "agreement": 1,
        "top5_agreement": None,
    }
    assert (got["top1"], got["broken"], got["repaired"], got["agreement"]) == (0.5, 1, 1, 0.5)
    assert set(task.results()["candidate"].notes) == {"cat became dog: 1 image", "dog became cat: 1 image"}
    assert says(task, 2).words.startswith("emu 0.")


@pytest.mark.parametrize("beside", [True, False])
def test_classes_txt_gives_the_order(tmp_path: Path, beside: bool) -> None:
    images = pictures(tmp_path / "i", "cat/1.png", "n01440764/1.png")
    where = (tmp_path / "i" if beside else tmp_path) / "classes.txt"
    where.write_text("dog\nn01440764 tench, Tinca tinca\nemu\ncat\nowl\nfox\n")
    task = make(images, where.parent if beside else where)
    for name in ("cat/1.png", "n01440764/1.png"):
        answer = says(task, 3, classes=6)
        task.judge("reference", str(tmp_path / "i" / name), answer, answer)
    metrics = task.results()["reference"].metrics
    # 3, 4, 5, 0, 1: the tench is the fifth.
    assert (metrics["top1"], metrics["top5"]) == (0.5, 1)


@pytest.mark.parametrize("between", [" ", ",", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_lists_of_path_and_class(tmp_path: Path, between: str, header: bool) -> None:
    images = pictures(tmp_path / "i", "a/1.png", "b/1.png", "b/two words.png", "c.png")
    lines = [["a/1.png", "2"], ["b/1.png", "0"], ["b/two words.png", "1"]]
    text = (f"path{between}label\n" if header else "") + "\n".join(between.join(line) for line in lines)
    (tmp_path / "val.txt").write_text(text)
    task = make(images, tmp_path / "val.txt")
    for path in images.paths:
        answer = says(task, 2)
        task.judge("reference", path, answer, answer)
    result = task.results()["reference"]
    assert result.metrics["top1"] == pytest.approx(1 / 3)
    assert "1 of 4 images have no label" in result.notes[0]


def test_names_in_lists_need_classes_txt(tmp_path: Path) -> None:
    images = pictures(tmp_path / "i", "1.png")
    (tmp_path / "val.csv").write_text("1.png,dog\n")
    with pytest.raises(OnnxlintError, match=r"'1\.png dog'; for names of classes put .*classes\.txt beside it"):
        make(images, tmp_path / "val.csv")
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    task = make(images, tmp_path / "val.csv")
    task.judge("reference", images.paths[0], says(task, 1), says(task, 1))
    assert task.results()["reference"].metrics["top1"] == 1


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    images = pictures(tmp_path / "i", "cat/1.png", "dog/1.png")
    with pytest.raises(OnnxlintError, match=r"2 folders, but the model has 3 classes; put a classes\.txt there"):
        says(make(images, tmp_path / "i"), 0)
    (tmp_path / "val.txt").write_text("1.png 3\ncat/1.png 9\n")
    with pytest.raises(OnnxlintError, match="has a class 9, but the model's 3 classes end at 2"):
        says(make(images, tmp_path / "val.txt"), 0)
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(OnnxlintError, match="names class 'cat' twice"):
        make(images, tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("owl\nemu\n")
    with pytest.raises(
        OnnxlintError, match=r"none of its labels is for an image in .*: it names 'owl', the images are"
    ):
        make(images, tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_bytes(b"\x00cat")
    with pytest.raises(OnnxlintError, match="is not a labels file: it holds binary data"):
        make(images, tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(OnnxlintError, match="holds no labels"):
        make(images, tmp_path / "classes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OnnxlintError, match="should hold a folder of images for each class"):
        make(images, tmp_path / "empty")


def test_models_that_do_not_classify() -> None:
    task = make()
    with pytest.raises(OnnxlintError, match=r"no output is a vector: mask \(1×2×4×4\)"):
        task.read({"mask": np.zeros((1, 2, 4, 4))}, (4, 4))
    with pytest.raises(OnnxlintError, match=r"several outputs could be it: a \(1×3\), b \(1×3\)"):
        task.read({"a": np.zeros((1, 3)), "b": np.zeros((1, 3))}, (4, 4))
    task.read({"a": np.zeros((1, 3)), "logits": np.zeros((1, 5))}, (4, 4))
    with pytest.raises(OnnxlintError, match="the reference has 5 classes, this model 3"):
        task.read({"a": np.zeros((1, 3))}, (4, 4))


def test_first_five_of_equal_ones() -> None:
    assert first_five(np.array([1.0, 3, 3, 0, 3, -np.inf])) == [1, 2, 4, 0, 3]


def test_a_list_of_names_goes_with_a_flat_folder(tmp_path: Path) -> None:
    images = pictures(tmp_path / "photos", "1.png", "2.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\nemu\n", encoding="utf-8")
    task = make(images, tmp_path / "classes.txt")
    assert task.truth == "the reference's classes"
    reference, candidate = says(task, 0), says(task, 1)
    assert reference.words.startswith("cat ")
    task.judge("candidate", images.paths[0], reference, candidate)
    result = task.results()["candidate"]
    assert result.metrics["agreement"] == 0
    assert "top1" not in result.metrics
    assert "names the classes, and no image is in a folder of one" in result.notes[0]
    assert result.notes[1] == "cat became dog: 1 image"
