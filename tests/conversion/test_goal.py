"""`--max-drop` and `--holdout`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fixtures import pictures
from onnxlint.api import convert
from onnxlint.backends import Job
from onnxlint.backends.ort.saturation import measured_share
from onnxlint.conversion.goal import candidates, distance, parse_bounds, split_images
from onnxlint.conversion.session import repeat
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe
from tests.backends.ort.test_int8 import network
from tests.support.command import onnxlint

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net `m.onnx` and pictures."""
    folder = tmp_path_factory.mktemp("goal")
    onnx.save(network(13, 24), folder / "m.onnx")
    pictures.build(folder / "images", 8, 24, 24)
    return folder


def test_bounds() -> None:
    (one, other) = parse_bounds(["found >= 99%", "Min-Cosine>0.9"])
    assert (one.metric, one.sign, one.number, other.metric) == ("found", ">=", 0.99, "min_cosine")
    assert one.distance({"found": 0.99}) == 0
    assert one.distance({"found": 0.97}) == pytest.approx(0.02)
    assert distance([one, other], {"found": 1.0, "min_cosine": 0.9}) > 0
    for wrong in ("found", "found>=", "found=0.9", ">=1", "found>=1.2.3", "found>=1e999x"):
        with pytest.raises(OnnxlintError, match="--max-drop"):
            parse_bounds([wrong])
    with pytest.raises(OnnxlintError, match=r"top1 is not measured on these images.*--task"):
        distance(parse_bounds(["top1>=1"]), {"snr": 3.0})


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_images_are_held_out_evenly_and_once(count: int) -> None:
    images = ImageSet("folder", tuple(map(str, range(count))))
    rest, held = split_images(images, 0.5)
    assert sorted([*rest.paths, *held.paths], key=int) == list(images.paths)
    assert abs(len(held) - count / 2) < 1
    arrays = ImageSet("a.npy", arrays=np.arange(count)[:, None, None, None])
    rest, held = split_images(arrays, 0.5)
    assert len(rest) + len(held) == count


def test_too_few_images() -> None:
    images = ImageSet("folder", ("a", "b", "c"))
    with pytest.raises(OnnxlintError, match=r"--holdout 0\.1: of 3 images that leaves none to judge by"):
        split_images(images, 0.1)
    with pytest.raises(OnnxlintError, match="leaves none to calibrate with"):
        split_images(ImageSet("folder", ("a",)), 0.999999999999999999)


def test_candidates_cost_more_and_more() -> None:
    jobs = list(candidates(Job(Recipe(), budget=0.01)))
    assert [(job.mixed, job.budget) for job in jobs[1:]] == [(True, 0.001), (True, 0.005), (True, 0.01)]
    assert not jobs[0].mixed


@pytest.mark.parametrize("to", ["onnx-int8-static", "openvino-int8"])
def test_the_cheapest_file_that_keeps_it(place: Path, tmp_path: Path, to: str) -> None:
    if to == "openvino-int8":
        pytest.importorskip("openvino", reason="openvino is not installed")
    how: dict[str, Any] = {"images": place / "images", "recipe": {"mean": (127.5,) * 3, "norm": (1 / 64,) * 3}}
    pure = convert(place / "m.onnx", to, max_drop="snr>=5", out_dir=tmp_path / "a", **how)
    assert not pure.failures
    facts = pure.artifacts[0].details["held_out"]
    assert facts["asked"] == ["snr>=5"]
    assert facts["images"] == 2
    reached = facts["snr"]
    assert all(one.state == "int8" for one in pure.artifacts[0].decisions)
    better = convert(
        place / "m.onnx",
        to,
        max_drop=f"snr>={reached + 4}",
        budget=2.0,
        holdout=0.25,
        out_dir=tmp_path / "b",
        **how,
    )
    assert not better.failures
    assert any(one.state == "fp32" for one in better.artifacts[0].decisions)
    # The manifest has the job of the file that was taken, without the images that were held out.
    document = json.loads(Path(better.manifest).read_text(encoding="utf-8"))
    job = document["targets"][to]["job"]
    assert job["mixed"]
    assert len(document["images"][job["images"]]["files"]) == 6
    assert "the same bytes as recorded" in repeat(better.manifest, out_dir=str(tmp_path / "c")).notes[0]


def test_what_cannot_be_kept_is_said_with_the_best_that_was_reached(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    words = ["convert", "m.onnx", "--to", "onnx-int8-static", "--images", "images", "--mean", "0,0,0"]
    out = onnxlint(*words, "--max-drop", "snr>=250", "--budget", "0.1", "--out-dir", str(tmp_path))
    assert out.code == 2
    assert "no file keeps snr>=250 on the 2 images that are held out; the best, " in out.err
    assert "bytes)" in out.err
    assert ("sums overflow" in out.err) is (measured_share() < 0.9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-drop", "found>=0.9"], "found is not measured on these images"),
        (["--max-drop", "found=1"], "write it as METRIC>=NUMBER"),
        (["--holdout", "0.3"], "say what has to be kept"),
        (["--holdout", "1.5", "--max-drop", "snr>=1"], "is not a part between 0 and 1"),
        (["--task", "classify", "--max-drop", "snr>=1"], "no such task: 'classify'"),
    ],
)
def test_wrong_options(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(place)
    first = ["convert", "m.onnx", "--to", "onnx-int8-static", "--images", "images", "--mean", "0,0,0"]
    out = onnxlint(*first, *words, "--out-dir", str(tmp_path))
    assert out.code == 2
    assert said in out.err
    assert "Traceback" not in out.err
    assert not list(tmp_path.iterdir())
