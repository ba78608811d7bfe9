"""The recipe for a model: its own sizes and conditions go before what a preset suggests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS, Recipe, make_recipe, preprocess
from onnxlint.images.sizes import recipe_for
from onnxlint.model.metadata import ASSUMES_KEY
from onnxlint.model.skeleton import Model, open_model


def model(tmp_path: Path, shape: str, assumes: str = "") -> Model:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}'
    proto = onnx.parser.parse_model(text)
    if assumes:
        proto.metadata_props.add(key=ASSUMES_KEY, value=assumes)
    onnx.save(proto, tmp_path / "m.onnx")
    return open_model(str(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("shape", "assumes", "recipe", "size", "multiples"),
    [
        ("1,3,240,320", "", PRESETS["retinaface"], (320, 240), (1, 1)),
        ("n,3,h,320", "", PRESETS["retinaface"], (320, 640), (1, 1)),
        ("n,3,h,w", "", PRESETS["ssd"], (300, 300), (1, 1)),
        ("n,3,h,w", "h % 32 == 0 and w % 8 == 0", PRESETS["ssd"], (304, 320), (1, 1)),
        ("n,3,h,w", "h % 32 == 0 and w % 8 == 0", Recipe(), None, (8, 32)),
        ("1,3,64,96", "", Recipe(), (96, 64), (1, 1)),
        ("n,3,h,w", "", make_recipe(preset="ssd", shape="64,64,3"), (64, 64), (1, 1)),
    ],
)
def test_sizes(
    tmp_path: Path, shape: str, assumes: str, recipe: Recipe, size: tuple[int, int] | None, multiples: tuple[int, int]
) -> None:
    found = recipe_for(model(tmp_path, shape, assumes), recipe, {})
    assert (found.size, found.multiples, found.suggested) == (size, multiples, False)


@pytest.mark.parametrize(
    ("shape", "assumes", "recipe", "message"),
    [
        ("1,3,240,320", "", make_recipe(preset="ssd", shape="300,300,3"), "use --shape 320,240,3"),
        ("n,3,h,w", "h % 32 == 0", Recipe((64, 60)), "60 violates the model's condition"),
        ("n,1,h,w", "", Recipe(), "use --pixel GRAY"),
        ("n,3,h,w", "", Recipe(pixel="GRAY"), "use --pixel BGR or RGB"),
        ("n,h,w,3", "", Recipe(), None),
        ("1,32,32,3", "", Recipe(), "has its channels last"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, shape: str, assumes: str, recipe: Recipe, message: str | None) -> None:
    opened = model(tmp_path, shape, assumes)
    if message is None:
        assert recipe_for(opened, recipe, {}).size is None
        return
    with pytest.raises(OnnxlintError, match=message):
        recipe_for(opened, recipe, {})


def test_images_are_brought_to_the_multiples() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 101, 3), np.uint8)
    assert preprocess(image, Recipe(multiples=(8, 32))).shape == (3, 64, 104)
    assert preprocess(image, Recipe()).shape == (3, 50, 101)
