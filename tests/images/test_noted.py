"""A recipe in a model's metadata: written, read again, and read where nobody says another one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint import OnnxlintError, Recipe
from onnxlint.api import compare, convert, deploy
from onnxlint.conversion.manifest import recipe_of
from onnxlint.images.noted import note_recipe, noted_recipe
from onnxlint.images.recipe import PRESETS, make_recipe
from onnxlint.model.metadata import RECIPE_KEY
from tests.support.accuracy_models import detector, images
from tests.support.command import onnxlint

RECIPE = make_recipe(mean="100,110,120", norm="1/58.395,1/57.12,1/127.5", pixel="RGB", resize="letterbox")


@pytest.mark.parametrize("recipe", [RECIPE, *PRESETS.values(), Recipe((64, 48), (0.5,), (1 / 3,), "GRAY")])
def test_what_is_written_is_read(recipe: Recipe) -> None:
    proto = onnx.ModelProto()
    note_recipe(proto, Recipe())
    note_recipe(proto, recipe)
    assert len(proto.metadata_props) == 1
    expected = replace(recipe, size=None, suggested=False) if recipe.suggested else recipe
    assert noted_recipe(proto, "m.onnx") == expected


def test_no_metadata_is_no_recipe() -> None:
    assert noted_recipe(onnx.ModelProto(), "m.onnx") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        '{"mean": [1,2,3], "more": 1}',
        '{"mean": [1,2]}',
        '{"mean": "1,2,3"}',
        '{"mean": [true, 1, 2]}',
        '{"norm": [0,0,0]}',
        '{"norm": [1e9,1,1]}',
        '{"mean": [NaN, 1, 1]}',
        '{"mean": [1e999, 1, 1]}',
        '{"pixel": "--norm"}',
        '{"pixel": null}',
        '{"resize": ["stretch"]}',
        '{"size": [0, 4]}',
        '{"size": [1e9, 4]}',
        '{"mean": [' + "1," * 5000 + "1]}",
    ],
)
def test_damaged_metadata_is_one_line_with_the_way_out(text: str) -> None:
    proto = onnx.ModelProto()
    proto.metadata_props.add(key=RECIPE_KEY, value=text)
    with pytest.raises(
        OnnxlintError, match=r"^m\.onnx: its metadata 'onnxlint.recipe'.*--mean and --norm, or --preset$"
    ):
        noted_recipe(proto, "m.onnx")


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), st.lists),
    st.sampled_from(["mean", "size"]),
)
def test_any_value_is_a_recipe_or_an_error(value: object, key: str) -> None:
    proto = onnx.ModelProto()
    proto.metadata_props.add(key=RECIPE_KEY, value=json.dumps({key: value}))
    try:
        recipe = noted_recipe(proto, "m.onnx")
    except OnnxlintError:
        return
    assert recipe is not None
    assert len(recipe.mean) in (0, 3)


@pytest.fixture
def model(tmp_path: Path) -> str:
    pytest.importorskip("onnxruntime")
    path = detector(tmp_path / "model.onnx")
    proto = onnx.load(path)
    note_recipe(proto, RECIPE)
    onnx.save(proto, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(np.load(images(tmp_path / "arrays.npy", 2))):
        Image.fromarray(image.repeat(4, axis=0).repeat(4, axis=1)).save(folder / f"{i}.png")
    return str(folder)


def used(model: str) -> Recipe:
    found = recipe_of(model.replace(".onnx", "_quan_static.onnx"))
    assert found is not None
    return replace(found, size=None, suggested=False)


def test_convert_and_compare_take_it_and_say_so(model: str, pictures: str) -> None:
    outcome = onnxlint("convert", model, "--to", "onnx-int8-static", "--images", pictures)
    assert outcome.code == 0, outcome.err
    assert f"note: pixels become the input as the metadata of {model} says: --mean 100,110,120" in outcome.err
    assert used(model) == RECIPE
    report = compare(model, model, images=pictures, time=False)
    assert "--mean 100,110,120" in report.recipe
    assert any("as the metadata of" in note for note in report.candidates[0].notes)


def test_what_the_user_says_wins(model: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(model, "onnx-int8-static", images=pictures, recipe={"mean": 0, "pixel": "BGR"})
    assert used(model) == Recipe(mean=(0.0,) * 3)
    convert(model, "onnx-int8-static", images=pictures, recipe={"shape": "16,16"})
    assert used(model) == RECIPE
    outcome = onnxlint("convert", model, "--to", "onnx-int8-static", "--images", pictures, "--pixel", "BGR")
    assert outcome.code == 2
    assert "preprocessing of pixels (0–255) unknown" in outcome.err
    monkeypatch.chdir(tmp_path)
    Path("onnxlint.toml").write_text('[recipe]\nmean = "1,2,3"\n', encoding="utf-8")
    outcome = onnxlint("convert", model, "--to", "onnx-int8-static", "--images", pictures)
    assert outcome.err == ""
    assert used(model) == Recipe(mean=(1.0, 2.0, 3.0))


@pytest.mark.slow
def test_deploy_takes_it(model: str, pictures: str) -> None:
    pytest.importorskip("jinja2")
    done = deploy(model, "onnx-fp16", images=pictures)
    assert replace(done.recipe, size=None) == RECIPE


def test_a_manifest_wins_over_the_reference_s_metadata(model: str, pictures: str) -> None:
    convert(model, "onnx-int8-static", images=pictures, recipe={"mean": (1, 2, 3)})
    report = compare(model, model.replace(".onnx", "_quan_static.onnx"), images=pictures, time=False)
    assert "--mean 1,2,3 " in report.recipe
