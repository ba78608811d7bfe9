"""Manifests that were damaged, and the recipe that one gives for an artifact."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxlint.api import convert
from onnxlint.conversion.manifest import read_manifest, recipe_of
from onnxlint.conversion.session import Conversion, repeat
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS

pytest.importorskip("onnxruntime")

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,h,w] x) => (float[1,4,h,w] y) <float[4,3,1,1] w> {
    y = Conv(x, w) }"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    folder = tmp_path_factory.mktemp("manifest")
    model = onnx.parser.parse_model(MODEL)
    del model.graph.initializer[:]
    values = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    onnx.save(model, folder / "m.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.savez(folder / "images.npz", pixels)
    return convert(
        folder / "m.onnx", ["onnx-int8-static", "onnx-fp16"], images=folder / "images.npz", recipe=PRESETS["ssd"]
    )


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a document there is something."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, one in inner for path in paths(one, (*at, key)))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    new = copy.deepcopy(document)
    inside = new
    for key in path[:-1]:
        inside = inside[key]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return new


def test_every_field_missing_or_of_another_type_is_one_line_or_harmless(done: Conversion, tmp_path: Path) -> None:
    """Whatever is wrong with a manifest, reading it raises an error of one line, or leaves all that readers rely on."""
    document = json.loads(Path(done.manifest).read_text())
    refused = 0
    for path in paths(document)[1:]:
        values: tuple[object, ...] = (None, 7, "text", [], {}, True)
        for value in values:
            file = tmp_path / "m.onnxlint.json"
            file.write_text(json.dumps(changed(document, path, value)))
            try:
                read = read_manifest(str(file))
            except OnnxlintError as error:
                problem = str(error)
            else:
                for entry in read["targets"].values():
                    assert isinstance(entry["job"]["method"], str)
                    assert all(isinstance(one["path"], str) for one in entry["files"])
                continue
            refused += 1
            assert "\n" not in problem
            assert problem.startswith(str(file))
    assert refused > 100


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("targets", "onnx-int8-static", "job", "recipe", "size"), "big"),
        (("targets", "onnx-int8-static", "job", "recipe", "mean"), [1, 2]),
        (("targets", "onnx-int8-static", "job", "recipe", "pixel"), "YUV"),
        (("targets", "onnx-int8-static", "job", "recipe", "taste"), "sweet"),
        (("targets", "onnx-int8-static", "job", "images"), [1]),
        (("targets", "onnx-int8-static", "job", "weight_bits"), "seven"),
        (("targets", "onnx-int8-static", "job", "weight_bits"), 10**400),
        (("targets", "onnx-int8-static", "job", "budget"), 10**400),
        (("targets", "onnx-int8-static", "job", "recipe", "mean"), [10**400, 1, 1]),
        (("targets", "onnx-int8-static", "job", "recipe", "suggested"), {}),
        (("images",), {}),
    ],
)
def test_a_damaged_manifest_is_not_repeated(
    done: Conversion, tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    document = changed(json.loads(Path(done.manifest).read_text()), path, value)
    folder = Path(done.manifest).parent
    document["model"]["path"] = str(folder / "m.onnx")
    file = folder / "damaged.onnxlint.json"
    file.write_text(json.dumps(document))
    with pytest.raises(OnnxlintError, match="damaged manifest"):
        repeat(str(file), out_dir=str(tmp_path))
    file.unlink()


def test_the_recipe_of_an_artifact(done: Conversion) -> None:
    recipe = recipe_of(done.artifacts[0].files[0])
    assert recipe is not None
    assert (recipe.mean, recipe.norm, recipe.pixel) == (PRESETS["ssd"].mean, PRESETS["ssd"].norm, "RGB")
    assert recipe_of(done.model) is None
