"""The task super-resolution: PSNR and SSIM by their definitions, true pictures found by name."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from onnxlint.accuracy.tasks import Array, Task, make_task
from onnxlint.errors import OnnxlintError
from onnxlint.images import recipe as rec

pytest.importorskip("skimage")
Image = importlib.import_module("PIL.Image")
UNIT = rec.Recipe(None, (), (1 / 255,) * 3, "RGB")


def make(recipe: rec.Recipe = UNIT, images: rec.ImageSet | None = None, labels: Path | None = None) -> Task:
    return make_task("super-resolution", recipe=recipe, images=images, labels=str(labels) if labels else None)


def picture(side: int = 24, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(20, 236, (3, side, side)).astype(np.float32)


def test_against_the_reference() -> None:
    task = make()
    for image, error in (("a", 5), ("b", 10), ("c", 0)):
        reference = task.read({"y": picture()[None] / 255}, (12, 12))
        candidate = task.read({"y": (picture()[None] + error) / 255}, (12, 12))
        task.judge("reference", image, reference, reference)
        task.judge("candidate", image, reference, candidate)
    own, got = task.results()["reference"], task.results()["candidate"]
    assert own.metrics == {"psnr": math.inf, "ssim": 1}
    assert got.metrics["psnr"] == pytest.approx(10 * math.log10(255**2 / 50), abs=1e-3)  # mean of 5² and 10² in dB
    assert 0.9 < (got.metrics["ssim"] or 0) < 1
    assert got.notes == ("1 of 3 pictures are equal; psnr is of the others",)


def test_ssim_of_flat_pictures_by_hand() -> None:
    task = make()
    reference = task.read({"y": np.full((1, 1, 16, 16), 100 / 255, np.float32)}, (16, 16))
    candidate = task.read({"y": np.full((1, 1, 16, 16), 150 / 255, np.float32)}, (16, 16))
    task.judge("candidate", "a", reference, candidate)
    c1 = (0.01 * 255) ** 2
    want = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert task.results()["candidate"].metrics["ssim"] == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(
    ("recipe", "factor", "offset", "note"),
    [
        (UNIT, 1 / 255, 0, ()),
        (rec.Recipe(None, (127.5,) * 3, (1 / 127.5,) * 3, "RGB"), 1 / 127.5, -1, ()),
        (rec.Recipe(pixel="RGB"), 1, 0, ()),
        (rec.Recipe(pixel="RGB"), 1 / 255, 0, ("outputs are taken as 0 to 1",)),
        (UNIT, 1, 0, ("outputs are taken as 0 to 255",)),
    ],
)
def test_outputs_become_pixels(recipe: rec.Recipe, factor: float, offset: float, note: tuple[str, ...]) -> None:
    task = make(recipe)
    answer = task.read({"y": picture()[None] * factor + offset}, (24, 24))
    assert answer.values == pytest.approx(picture().transpose(1, 2, 0), abs=1e-3)
    task.judge("reference", "a", answer, answer)
    assert task.results()["reference"].notes == note


def test_channels_last_and_bgr() -> None:
    values = picture()[None] / 255
    rgb = make().read({"y": values}, (24, 24)).values
    assert make().read({"y": values.transpose(0, 2, 3, 1)}, (24, 24)).values.tolist() == rgb.tolist()
    bgr = rec.Recipe(None, (), (1 / 255,) * 3, "BGR")
    assert make(bgr).read({"y": values[:, ::-1]}, (24, 24)).values.tolist() == rgb.tolist()


@pytest.mark.parametrize(("small", "true"), [("a.png", "a.png"), ("0801x4.png", "0801.png"), ("a_LR.png", "a_HR.png")])
@pytest.mark.parametrize("border", [0, 6])
def test_true_pictures(tmp_path: Path, small: str, true: str, border: int) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "true").mkdir()
    pixels = picture(40).transpose(1, 2, 0).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "true" / true)
    Image.new("RGB", (20, 20)).save(tmp_path / "small" / small)
    images = rec.find_images(tmp_path / "small")
    task = make(UNIT, images, tmp_path / "true")
    made = picture(40)[:, border : 40 - border, border : 40 - border] + 2
    answer = task.read({"y": made[None] / 255}, (20, 20))
    task.judge("reference", images.paths[0], answer, answer)
    assert task.results()["reference"].metrics["psnr"] == pytest.approx(20 * math.log10(255 / 2), abs=1e-3)


def test_true_pictures_of_another_size(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    task = make(UNIT, rec.find_images(tmp_path), tmp_path)
    answer = task.read({"y": picture()[None] / 255}, (24, 24))
    with pytest.raises(OnnxlintError, match=r"a\.png: is 64×48×3, but the model makes 24×24×3"):
        task.judge("reference", str(tmp_path / "a.png"), answer, answer)


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"nowhere: no such folder"):
        make(labels=tmp_path / "nowhere")
    with pytest.raises(OnnxlintError, match=r"holds no image"):
        make(labels=tmp_path)
    with pytest.raises(OnnxlintError, match=r"needs one output that is a picture .*: logits \(1×10\)"):
        make().read({"logits": np.zeros((1, 10))}, (4, 4))
    with pytest.raises(OnnxlintError, match=r"the reference's output \(0 to 0\) is not a picture"):
        make().read({"y": np.zeros((1, 3, 8, 8))}, (4, 4))
    task = make()
    reference, candidate = (task.read({"y": picture(side)[None] / 255}, (4, 4)) for side in (12, 14))
    with pytest.raises(OnnxlintError, match="the picture should be 12×12×3 and is 14×14×3"):
        task.judge("candidate", "a", reference, candidate)


def test_pictures_too_small_for_ssim() -> None:
    task = make()
    reference, candidate = (task.read({"y": (picture(8)[None] + d) / 255}, (4, 4)) for d in (0, 1))
    task.judge("candidate", "a", reference, candidate)
    result = task.results()["candidate"]
    assert result.metrics["ssim"] is None
    assert result.notes == ("ssim is not computed for 1 of 1 pictures: they are smaller than its window of 11 pixels",)
