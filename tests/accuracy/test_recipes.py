"""How images become inputs: as the user says, else as the candidates were converted, at the size that fits them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from onnxlint.accuracy.recipes import describe
from onnxlint.api import compare, convert
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from onnxlint.model.metadata import ASSUMES_KEY
from tests.support.accuracy_models import detector, images
from tests.support.recipes import RECIPE


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return detector(tmp_path / "reference.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """A folder of images."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(np.load(images(tmp_path / "arrays.npy", 3))):
        Image.fromarray(image.repeat(4, axis=0).repeat(4, axis=1)).save(folder / f"{i}.png")
    return str(folder)


def converted(model: str, pictures: str, recipe: Recipe, folder: Path) -> str:
    made = convert(model, to=["onnx-int8-static"], images=pictures, recipe=recipe, out_dir=str(folder))
    return made.artifacts[0].files[0]


def test_the_recipe_of_a_candidate_is_read_from_its_manifest(reference: str, pictures: str, tmp_path: Path) -> None:
    int8 = converted(reference, pictures, RECIPE, tmp_path / "out")
    told = compare(reference, [int8], images=pictures, recipe=RECIPE, time=False)
    silent = compare(reference, [int8], images=pictures, time=False)
    assert silent.recipe == told.recipe == describe(RECIPE)
    assert silent.candidates[0].outputs == told.candidates[0].outputs
    assert any("which its manifest records: --mean 100,110,120" in note for note in silent.candidates[0].notes)


def test_another_recipe_than_the_recorded_one_is_noticed(reference: str, pictures: str, tmp_path: Path) -> None:
    int8 = converted(reference, pictures, RECIPE, tmp_path / "out")
    report = compare(reference, [int8], images=pictures, recipe=replace(RECIPE, pixel="RGB"), time=False)
    (note,) = [note for note in report.candidates[0].notes if "converted with" in note]
    assert "--pixel BGR --resize stretch, but compared with" in note


def free(path: Path, condition: str = "") -> str:
    """A model of images of any size."""
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        net (float[N,3,H,W] image) => (float[N,3,h,w] y) <float[3,3,1,1] k = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
            y = Conv (image, k)
        }
        """
    )
    if condition:
        proto.metadata_props.add(key=ASSUMES_KEY, value=condition)
    path.write_bytes(proto.SerializeToString())
    return str(path)


def test_candidates_are_compared_at_the_sizes_they_were_made_for(pictures: str, tmp_path: Path) -> None:
    model = free(tmp_path / "free.onnx")
    small = converted(model, pictures, replace(RECIPE, size=(16, 24)), tmp_path / "small")
    large = converted(model, pictures, replace(RECIPE, size=(48, 32)), tmp_path / "large")
    one = compare(model, [small], images=pictures, time=False)
    assert "--shape 16,24,3" in one.recipe
    assert one.candidates[0].outputs[0].shape == (1, 3, 24, 16)
    both = compare(model, [small, large], images=pictures, time=False)
    assert [candidate.outputs[0].shape for candidate in both.candidates] == [(1, 3, 24, 16), (1, 3, 32, 48)]
    assert any("compared at 48×32" in note for note in both.candidates[1].notes)
    beside = compare(model, [model, small], images=pictures, time=False)
    assert [candidate.outputs[0].shape for candidate in beside.candidates] == [(1, 3, 24, 16)] * 2
    told = compare(model, [large], images=pictures, recipe=replace(RECIPE, size=(16, 16)), time=False)
    assert "converted for 48×32, but compared at 16×16" in told.candidates[0].notes


def test_images_are_resized_to_what_a_candidate_was_fixed_for(pictures: str, tmp_path: Path) -> None:
    model, fixed = free(tmp_path / "free.onnx"), free(tmp_path / "fixed.onnx", "H % 24 == 0 and W % 32 == 0")
    recipe = replace(RECIPE, size=None)
    assert compare(model, [model], images=pictures, recipe=recipe, time=False).candidates[0].outputs[0].shape[2:] == (
        64,
        64,
    )
    report = compare(model, [fixed], images=pictures, recipe=recipe, time=False)
    height, width = report.candidates[0].outputs[0].shape[2:]
    assert (height % 24, width % 32) == (0, 0)


def test_a_condition_that_inputs_break_is_named(tmp_path: Path) -> None:
    model, fixed = free(tmp_path / "free.onnx"), free(tmp_path / "fixed.onnx", "H % 32 == 0")
    data = tmp_path / "data.npz"
    np.savez(data, image=np.zeros((1, 3, 40, 40), np.float32))
    with pytest.raises(OnnxlintError, match=r"40 on axis 2 violates the model's condition \(H % 32 == 0\) in .*fixed"):
        compare(model, [fixed], images=data, time=False)


def test_without_a_recipe_there_is_a_question(reference: str, pictures: str) -> None:
    with pytest.raises(OnnxlintError, match=r"preprocessing of pixels .* unknown"):
        compare(reference, [reference], images=pictures, time=False)


def test_a_preset_gives_way_to_the_size_that_a_candidate_fixes(pictures: str, tmp_path: Path) -> None:
    model, static = free(tmp_path / "free.onnx"), str(tmp_path / "static.onnx")
    proto = onnx.load(model)
    for axis, size in ((0, 1), (2, 40), (3, 48)):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(proto, static)
    report = compare(model, [static], images=pictures, recipe="imagenet", time=False)
    assert report.candidates[0].outputs[0].shape == (1, 3, 40, 48)
