"""Whole comparisons, run in onnxruntime."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.accuracy import comparison as module
from onnxlint.accuracy.pictures import picture
from onnxlint.api import compare
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS, make_recipe, preprocess
from tests.support.accuracy_models import SIZE, detector, images, rough
from tests.support.recipes import RECIPE


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return detector(tmp_path / "reference.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    return images(tmp_path / "pictures.npy")


def test_a_model_against_itself_is_exact(reference: str, pictures: str) -> None:
    report = compare(reference, [reference], images=pictures, recipe=RECIPE, time=False)
    (one,) = report.candidates
    assert one.snr_db == math.inf
    assert all(output.snr_db == math.inf and output.max_abs == 0 and output.cosine == 1 for output in one.outputs)
    assert [output.name for output in one.outputs] == ["boxes", "scores"]
    assert (report.reference.name, one.name) == ("reference.onnx", "reference.onnx (2)")
    assert report.inputs == 5
    assert not report.notes


def test_what_a_change_costs_is_what_numpy_says(reference: str, pictures: str, tmp_path: Path) -> None:
    import onnxruntime

    changed = detector(tmp_path / "changed.onnx", changed=rough("w1"))
    report = compare(reference, [changed], images=pictures, recipe=RECIPE, time=False)
    x = np.stack([preprocess(image, RECIPE) for image in np.load(pictures)])
    r, c = (onnxruntime.InferenceSession(path).run(None, {"image": x}) for path in (reference, changed))
    (one,) = report.candidates
    for output, a, b in zip(one.outputs, r, c, strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        assert output.snr_db == pytest.approx(10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=1e-3)
        assert output.mean_abs == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
        assert output.elements == a.size
    assert one.snr_db == pytest.approx(np.mean([output.snr_db for output in one.outputs]))
    assert 5 < one.snr_db < 60
    assert len(one.worst) == 4
    assert [image.snr_db for image in one.worst] == sorted(image.snr_db for image in one.worst)


def test_several_candidates_and_large_models_in_turn(
    reference: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [detector(tmp_path / f"{n}.onnx", changed=rough("w0", n)) for n in (10, 40, 160)]
    together = compare(reference, others, images=pictures, recipe=RECIPE, time=False)
    assert [one.name for one in together.candidates] == ["10.onnx", "40.onnx", "160.onnx"]
    first, second, third = (one.snr_db for one in together.candidates)
    assert first < second < third
    monkeypatch.setattr(module, "TOGETHER", 1)
    assert compare(reference, others, images=pictures, recipe=RECIPE, time=False) == together


def test_logits_against_probabilities(reference: str, pictures: str, tmp_path: Path) -> None:
    logits = detector(tmp_path / "logits.onnx", softmax=False, outputs=("a", "b"), prefix="other_")
    report = compare(reference, [logits], images=pictures, recipe=RECIPE, time=False)
    (one,) = report.candidates
    assert one.snr_db > 120
    assert any("by their order: boxes = a, scores = b" in note for note in one.notes)
    assert any("ends in Softmax" in note for note in one.notes)


def test_different_heads_are_told_and_not_guessed(reference: str, tmp_path: Path, pictures: str) -> None:
    half = detector(tmp_path / "half.onnx", only=1)
    report = compare(reference, [half], images=pictures, recipe=RECIPE, time=False)
    assert report.candidates[0].unmatched == ("scores (1×256×2): the candidate has no output like it",)
    strange = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N,3,16,16] image) => (float[N,3,16,16] features) { features = Relu (image) }
        """
    )
    path = tmp_path / "strange.onnx"
    path.write_bytes(strange.SerializeToString())
    with pytest.raises(OnnxlintError, match=r"strange.onnx: none of its outputs matches one of the reference's: boxes"):
        compare(reference, [str(path)], images=pictures, recipe=RECIPE, time=False)


def test_a_candidate_that_gives_nan(reference: str, pictures: str, tmp_path: Path) -> None:
    bad = detector(tmp_path / "nan.onnx", changed={"boxes_w": np.full((4, 8, 1, 1), np.nan, np.float32)})
    report = compare(reference, [bad], images=pictures, recipe=RECIPE, time=False, fail_if=["nan>0", "snr<20"])
    (one,) = report.candidates
    assert one.outputs[0].nan_share == 1
    assert one.snr_db == -math.inf
    assert "boxes: gives NaN or infinity" in one.notes
    assert len(report.failures) == 2


def test_random_inputs_are_said_to_say_little(reference: str) -> None:
    one = compare(reference, [reference], time=False)
    assert "random numbers, which are not representative" in one.notes[0]
    assert one.source == "random numbers"
    assert one == compare(reference, [reference], time=False)


def test_inputs_of_several_kinds_come_from_an_npz(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        net (int64[1,L] ids, float[1,L] mask) => (float[1,L] y) {
            f = Cast <to = 1> (ids)
            y = Mul (f, mask)
        }
        """
    )
    path = tmp_path / "text.onnx"
    path.write_bytes(proto.SerializeToString())
    data = tmp_path / "data.npz"
    np.savez(data, ids=np.arange(12).reshape(3, 4), mask=np.ones((3, 4), np.float32))
    report = compare(path, [path], images=data, time=False)
    assert (report.inputs, report.candidates[0].outputs[0].elements) == (3, 12)
    np.savez(data, ids=np.arange(4)[None])
    with pytest.raises(OnnxlintError, match="has no array for input 'mask'"):
        compare(path, [path], images=data, time=False)
    with pytest.raises(OnnxlintError, match="its inputs are not one image"):
        compare(path, [path], images=tmp_path, time=False)


def test_images_that_cannot_be_read_are_named(reference: str, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(np.load(images(tmp_path / "i.npy", 2))):
        Image.fromarray(image).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    report = compare(reference, [reference], images=folder, recipe=RECIPE, time=False)
    assert report.inputs == 2
    assert len(report.notes) == 1
    assert "broken.png: skipped" in report.notes[0]


def test_latency_is_measured(reference: str, pictures: str) -> None:
    report = compare(reference, [reference], images=pictures, recipe=RECIPE, threads=1)
    for one in (report.reference, *report.candidates):
        assert one.latency is not None
        assert 0 < one.latency.median_ms < 1000
        assert one.latency.runs >= 5
        assert one.latency.threads == 1


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["snt<20"], "no such metric: 'snt'; did you mean 'snr'?"),
        (["snr"], "write it as METRIC<NUMBER"),
        (["snr<1.2.3"], "1.2.3 is not a number"),
        (["found<3"], "no such metric: 'found'"),
    ],
)
def test_a_condition_that_is_none(reference: str, conditions: list[str], message: str) -> None:
    with pytest.raises(OnnxlintError, match=message.replace("?", r"\?")):
        compare(reference, [reference], fail_if=conditions, time=False)


@pytest.mark.parametrize(
    ("condition", "fails"),
    [
        ("snr<20", False),
        ("SNR < 200 dB", True),
        ("min_snr<200", True),
        ("cosine<0.5", False),
        ("max-abs>0", True),
        ("relative>99%", False),
        ("size>1kb", True),
        ("size>1GB", False),
        ("latency>1ms", True),
    ],
)
def test_conditions(reference: str, pictures: str, tmp_path: Path, condition: str, fails: bool) -> None:
    changed = detector(tmp_path / "changed.onnx", changed=rough("w1", 1000))
    report = compare(reference, [changed], images=pictures, recipe=RECIPE, time=False, fail_if=[condition])
    assert bool(report.failures) is fails
    if "latency" in condition:
        assert "cannot be evaluated" in report.failures[0]


def test_a_picture_is_what_the_image_was() -> None:
    from PIL import Image

    pixels = np.full((SIZE, SIZE, 3), (200, 100, 20), np.uint8)
    for recipe in (RECIPE, PRESETS["imagenet"], make_recipe(pixel="GRAY")):
        jpeg = picture(preprocess(pixels, recipe), recipe)
        shown = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).reshape(-1, 3).mean(axis=0)
        wanted = (
            np.array([200, 100, 20]) if recipe.pixel != "GRAY" else np.full(3, 0.3 * 200 + 0.586 * 100 + 0.113 * 20)
        )
        assert np.abs(shown - wanted).max() < 4
    assert picture(np.zeros((5, 4, 4), np.float32), RECIPE) == b""


def test_files_that_are_not_there(reference: str, tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"none.onnx: no such file"):
        compare(reference, [tmp_path / "none.onnx"])
    with pytest.raises(OnnxlintError, match="none: no such file or folder"):
        compare(reference, [reference], images=tmp_path / "none")


def test_a_size_that_the_model_does_not_take(reference: str, pictures: str) -> None:
    with pytest.raises(OnnxlintError, match="is fixed to width 16"):
        compare(reference, [reference], images=str(Path(pictures).parent), recipe=make_recipe(shape="32,32,3"))


MEMORY = """
import resource, sys
from onnxlint.api import compare
from onnxlint.images.recipe import Recipe
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = compare(sys.argv[1], [sys.argv[1]], images=sys.argv[2], recipe=Recipe(mean=(0.0, 0.0, 0.0)), time=False)
assert report.inputs == int(sys.argv[3]), report.inputs
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_inputs_are_streamed(tmp_path: Path) -> None:
    """Twenty times as many images take no more memory: their inputs and outputs would be 160 MB."""
    from PIL import Image

    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N,3,H,W] image) => (float[N,3,H,W] y) { y = Relu (image) }
        """
    )
    model = tmp_path / "relu.onnx"
    model.write_bytes(proto.SerializeToString())
    Image.new("RGB", (256, 256), (9, 99, 199)).save(tmp_path / "one.png")
    peaks = []
    for count in (5, 105):
        names = tmp_path / f"{count}.txt"
        names.write_text(f"{tmp_path}/one.png\n" * count)
        words = [sys.executable, "-c", MEMORY, str(model), str(names), str(count)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * (1 if sys.platform != "darwin" else 1 / 1024))
    assert peaks[1] - peaks[0] < 50_000, peaks
