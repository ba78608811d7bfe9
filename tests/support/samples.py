"""Models that give what a test of the samples of `onnxlint deploy` wants, and how these are written and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxlint.accuracy.tasks.decoder import PRESETS
from onnxlint.accuracy.tasks.priors import prior_boxes
from onnxlint.backends import backend_for
from onnxlint.deployment.samples import sample_texts
from onnxlint.images.recipe import Recipe, preprocess

RNG = np.random.default_rng(5)
PHOTO = RNG.integers(0, 256, (50, 67, 3), np.uint8)


def constant_model(path: Path, outputs: dict[str, np.ndarray], size: tuple[int, int] | None, channels: int = 3) -> Path:
    """A model whose outputs are these, whatever the image is."""
    shape: list[int | str] = [1, channels, *(size[::-1] if size else ("H", "W"))]
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["none"]),
    ]
    nodes += [helper.make_node("Add", [f"c{i}", "none"], [name]) for i, name in enumerate(outputs)]
    weights = [numpy_helper.from_array(np.float32(0), "zero")]
    weights += [numpy_helper.from_array(array.astype(np.float32), f"c{i}") for i, array in enumerate(outputs.values())]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in outputs.items()],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def identity_model(path: Path, recipe: Recipe, names: tuple[str, str] = ("image", "same")) -> Path:
    shape = [1, recipe.channels, *(recipe.size[::-1] if recipe.size else ("H", "W"))]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], [names[1]])], "g", [ends[0]], [ends[1]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write(model: Path, recipe: Recipe, artifact: Path | None = None, **options: Any) -> Path:
    """Write the samples of an artifact beside it; returns the script."""
    artifact = artifact or model
    files = backend_for(str(artifact)).files(str(artifact))
    folder = artifact.parent / "samples"
    folder.mkdir(exist_ok=True)
    target = {".mnn": "mnn", ".param": "ncnn", ".xml": "openvino"}.get(artifact.suffix, "onnx-fp16")
    session = backend_for(str(artifact)).open(str(artifact))
    x = preprocess(PHOTO, recipe)[None]
    texts = sample_texts(target, files, session, onnx.load(model), recipe, x, **options)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(name for name in texts if name.endswith(".py"))


def photo(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(PHOTO).save(folder / "photo.png")
    Image.fromarray(PHOTO).save(folder / "photo.ppm")
    return folder / "photo.png"


def printed(script: Path, *images: Path) -> list[str]:
    """What a script prints, in a process of its own that cannot import onnxlint by accident."""
    done = subprocess.run(
        [sys.executable, script.name, *map(str, images)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "onnxlint" not in re.sub(r"(?m)^.*Written by onnxlint.*$|#.*", "", script.read_text())
    return done.stdout.splitlines()


def random_boxes(count: int, size: tuple[int, int]) -> np.ndarray:
    low = RNG.uniform(0, 0.7, (count, 2)) * size
    return np.concatenate([low, low + RNG.uniform(0.05, 0.3, (count, 2)) * size], 1)


def detector_outputs(preset: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random outputs of the form that a preset reads, with some clear detections among them."""
    decoder = PRESETS[preset]
    count = 40 if decoder.priors is None else len(prior_boxes(decoder.priors, *size))
    offsets = decoder.priors is not None
    boxes = RNG.normal(0, 1, (count, 4))
    if not offsets:
        corners = random_boxes(count, size)
        boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        boxes = boxes / (np.tile(size, 2) if decoder.unit == "relative" else 1)
    classes = {"retinaface": 2, "ssd300-voc": 21}.get(preset, 5)
    scores = RNG.normal(0, 1, (count, classes)) - 6.0
    if decoder.background is not None:
        scores[:, decoder.background] = 6
    lucky = RNG.permutation(count)[:12]
    scores[lucky, RNG.integers(1, classes - 1 if decoder.background == -1 else classes, 12)] = RNG.uniform(5, 9, 12)
    if decoder.activation == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
    if preset == "retinaface":
        return {"boxes": boxes[None], "classes": scores[None], "landmarks": RNG.normal(0, 1, (1, count, 10))}
    if decoder.layout == "columns":
        return {"output": np.concatenate([boxes, scores], 1).T[None]}
    if "objectness" in dict(decoder.joined):
        return {"output": np.concatenate([boxes, RNG.uniform(0.9, 1, (count, 1)), scores], 1)[None]}
    return {"boxes": boxes[None], "scores": scores[None]}


DETECTORS = {
    "retinaface": (64, 96),
    "ssd300-voc": (300, 300),
    "ssdlite320": (320, 320),
    "yolov5": (64, 64),
    "yolov8": (64, 64),
    "yolox": (64, 32),
    "detr": (64, 48),
}


def detector(folder: Path, preset: str) -> tuple[Path, Recipe, dict[str, np.ndarray]]:
    size = DETECTORS[preset]
    outputs = {name: array.astype(np.float32) for name, array in detector_outputs(preset, size).items()}
    model = constant_model(folder / "m.onnx", outputs, size)
    recipe = Recipe(size, pixel="BGR", resize="letterbox")
    return write(model, recipe, task="detection", detection={"preset": preset}), recipe, outputs
