"""Samples: the code that is written runs by itself and computes what onnxlint computes."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint.accuracy.tasks import make_task
from onnxlint.accuracy.tasks.decoder import PRESETS, decode
from onnxlint.backends import Job, backend_for, find_target
from onnxlint.deployment.samples import sample_texts
from onnxlint.deployment.samples.writing import comment, cpp_string, python_string
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import read_heads
from onnxlint.images.recipe import PRESETS as RECIPES
from onnxlint.images.recipe import ImageSet, Recipe, preprocess
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY
from tests.support.optional import need
from tests.support.samples import (
    DETECTORS,
    PHOTO,
    RNG,
    constant_model,
    detector,
    detector_outputs,
    identity_model,
    photo,
    printed,
    write,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
NASTY = 'a"b\\\n*/ ??/ é🙂 """ \' {x} @NAMES@'

pytest.importorskip("onnxruntime")


# What is written


@given(st.text())
def test_names_are_the_same_in_python(text: str) -> None:
    literal = python_string(text)
    assert literal.isascii()
    assert ast.literal_eval(literal) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_names_are_the_same_in_cpp(text: str) -> None:
    literal = cpp_string(text)
    assert re.fullmatch(r'"(?:[^"\\?]|\\[0-7]{3})*"', literal)
    assert literal.isascii()
    assert literal.isprintable()
    read = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), literal[1:-1].encode())
    assert read == text.encode()


@given(st.text())
def test_names_cannot_end_a_comment(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9 ._/=,+:()-]*", comment(text))


# Preprocessing

RESIZES = [
    Recipe((32, 24), (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", "letterbox"),
    Recipe((40, 24), (127.5,) * 3, (1 / 128,) * 3, "RGB", "stretch"),
    Recipe((24, 32), (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375), "RGB", "center-crop"),
    Recipe((90, 100), (), (1 / 255,), "GRAY", "letterbox"),
    Recipe(None, (1.0, 2.0, 3.0), (), "BGR"),
    Recipe((67, 50)),
]


@pytest.mark.parametrize("recipe", RESIZES, ids=lambda recipe: f"{recipe.resize}-{recipe.pixel}-{recipe.size}")
def test_script_for_onnxruntime_prepares_images_exactly(tmp_path: Path, recipe: Recipe) -> None:
    script = write(identity_model(tmp_path / "m.onnx", recipe), recipe)
    made = runpy.run_path(str(script))["preprocess"](PHOTO)
    np.testing.assert_array_equal(made[0], preprocess(PHOTO, recipe))


@pytest.mark.parametrize("recipe", RESIZES, ids=lambda recipe: f"{recipe.resize}-{recipe.pixel}-{recipe.size}")
def test_script_for_ncnn_prepares_images_exactly(tmp_path: Path, recipe: Recipe) -> None:
    script = write(identity_model(tmp_path / "m.onnx", recipe), recipe, ncnn_identity(tmp_path))
    scope = runpy.run_path(str(script))
    made = np.array(scope["preprocess"](PHOTO))
    np.testing.assert_allclose(made, preprocess(PHOTO, recipe), rtol=0, atol=1e-4 * max(recipe.norm or (1,)))
    np.testing.assert_array_equal(scope["run"](scope["preprocess"](PHOTO))[0][0], made)


def ncnn_identity(folder: Path) -> Path:
    pytest.importorskip("ncnn")
    (folder / "m.param").write_text("7767517\n2 2\nInput image 0 1 image\nReLU relu 1 1 image same 0=1.0\n")
    (folder / "m.bin").write_bytes(b"")
    return folder / "m.param"


# Tasks


@pytest.mark.parametrize("preset", DETECTORS)
def test_script_detects_what_compare_detects(tmp_path: Path, preset: str) -> None:
    script, recipe, outputs = detector(tmp_path, preset)
    assert recipe.size is not None
    expected = decode(outputs, recipe.size, PRESETS[preset])
    sure = expected.scores >= PRESETS[preset].threshold
    assert sure.sum() >= 5
    scope = runpy.run_path(str(script))
    boxes, scores, labels, points = scope["detect"](scope["run"](scope["preprocess"](PHOTO)), *recipe.size)
    np.testing.assert_allclose(boxes, expected.boxes[sure], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, expected.scores[sure], rtol=1e-5)
    np.testing.assert_array_equal(labels, expected.labels[sure])
    np.testing.assert_allclose(points.reshape(len(boxes), -1), expected.landmarks[sure], rtol=1e-5, atol=1e-4)
    lines = printed(script, photo(tmp_path))
    assert lines[0].endswith(f": {sure.sum()} found")
    scale = 67 / round(67 * min(recipe.size[0] / 67, recipe.size[1] / 50))
    across = float(lines[1].split("box ")[1].split()[0])
    assert across == pytest.approx(expected.boxes[0, 0] * scale, abs=0.01)


@pytest.mark.parametrize("resize", ["none", "stretch", "letterbox", "center-crop"])
def test_boxes_are_printed_in_pixels_of_the_photo(tmp_path: Path, resize: Any) -> None:
    from onnxlint.accuracy.tasks.detection import to_original

    size = (67, 50) if resize == "none" else (64, 96)
    outputs = {name: array.astype(np.float32) for name, array in detector_outputs("retinaface", size).items()}
    recipe = Recipe(None) if resize == "none" else Recipe(size, resize=resize)
    model = constant_model(tmp_path / "m.onnx", outputs, recipe.size)
    lines = printed(write(model, recipe, task="detection"), photo(tmp_path))
    expected = decode(outputs, size, PRESETS["retinaface"])
    boxes = to_original(expected.boxes[expected.scores >= 0.5], str(tmp_path / "photo.png"), recipe)
    assert len(lines) - 1 == len(boxes) >= 5
    got = [[float(number) for number in line.split("box ")[1].split()[:4]] for line in lines[1:]]
    inside = np.clip(got, 0, (67, 50, 67, 50)) if recipe.size else got
    np.testing.assert_allclose(inside, boxes, atol=0.02)


def joined(model: Path, names: list[str], widths: list[int], activation: str) -> None:
    """Record heads in the only output, as fix does, the second one without its activation."""

    proto = onnx.load(model)
    ends = np.cumsum(widths)
    heads = [
        {"name": name, "start": int(end - width), "stop": int(end)}
        for name, width, end in zip(names, widths, ends, strict=True)
    ]
    for key, value in (
        (HEADS_KEY, [{"output": "output", "axis": 2, "heads": heads}]),
        (DROPPED_KEY, {names[1]: {"op": activation, "axis": 2}}),
    ):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    onnx.save(proto, model)


def test_joined_heads_are_taken_apart_and_what_was_dropped_is_applied(tmp_path: Path) -> None:
    apart = {name: array.astype(np.float32) for name, array in detector_outputs("retinaface", (64, 96)).items()}
    outputs = {"output": np.concatenate(list(apart.values()), 2)}
    model = constant_model(tmp_path / "m.onnx", outputs, (64, 96))
    joined(model, ["b", NASTY, "l"], [4, 2, 10], "Softmax")
    script = write(model, Recipe((64, 96)), task="detection")
    expected = decode(outputs, (64, 96), PRESETS["retinaface"], read_heads(onnx.load(model)))
    sure = expected.scores >= 0.5
    scope = runpy.run_path(str(script))
    boxes, scores, _, _ = scope["detect"](scope["run"](scope["preprocess"](PHOTO)), 64, 96)
    assert len(boxes) >= 5
    np.testing.assert_allclose(boxes, expected.boxes[sure], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, expected.scores[sure], rtol=1e-5)


@pytest.mark.parametrize("activation", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_every_removed_activation_is_applied(tmp_path: Path, activation: str) -> None:
    logits = RNG.normal(0, 3, (1, 9)).astype(np.float32)
    model = constant_model(tmp_path / "m.onnx", {"scores": logits}, (16, 16))
    proto = onnx.load(model)
    entry = proto.metadata_props.add()
    entry.key, entry.value = DROPPED_KEY, json.dumps({"scores": {"op": activation, "axis": 1}})
    onnx.save(proto, model)
    script = write(model, Recipe((16, 16)))
    scope = runpy.run_path(str(script))
    (values,) = scope["split_outputs"](scope["run"](scope["preprocess"](PHOTO)))
    softmax = np.exp(logits) / np.exp(logits).sum()
    expected = {"Softmax": softmax, "LogSoftmax": np.log(softmax), "Sigmoid": 1 / (1 + np.exp(-logits))}[activation]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    program = script.with_suffix(".cpp").read_text()
    assert f"Tensor {activation.lower()}(" in program
    assert f"{activation.lower()}(outputs[0]" in program


@pytest.mark.parametrize(
    "record", ['{"scores": {"op": "exit(0) or ", "axis": 1}}', '{"scores": {"op": "Softmax", "axis": "1"}}', "[]", "{"]
)
def test_a_damaged_record_of_activations_is_an_error(tmp_path: Path, record: str) -> None:
    model = constant_model(tmp_path / "m.onnx", {"scores": np.zeros((1, 9), np.float32)}, (16, 16))
    proto = onnx.load(model)
    entry = proto.metadata_props.add()
    entry.key, entry.value = DROPPED_KEY, record
    onnx.save(proto, model)
    with pytest.raises(OnnxlintError, match="damaged"):
        write(model, Recipe((16, 16)))


@pytest.mark.parametrize("are_logits", [True, False])
def test_script_names_the_most_likely_classes(tmp_path: Path, are_logits: bool) -> None:
    scores = RNG.normal(0, 3, (1, 9)).astype(np.float32)
    if not are_logits:
        scores = (np.exp(scores) / np.exp(scores).sum()).astype(np.float32)
    model = constant_model(tmp_path / "m.onnx", {"logits": scores}, (16, 16))
    names = ['tabby "cat"', NASTY.replace("\n", " "), *"cdefghi"]
    script = write(model, Recipe((16, 16)), task="classification", classes=names)
    lines = printed(script, photo(tmp_path))
    best = int(scores.argmax())
    answer = make_task("classification", recipe=Recipe((16, 16))).read({"logits": scores}, (16, 16))
    assert len(lines) == 5
    share = lines[0].split()[1]
    assert f"{float(share):.2f}" == answer.words.split()[-1]
    assert lines[0].endswith(f"  {names[best]}")


def test_script_compares_embeddings(tmp_path: Path) -> None:
    from PIL import Image

    recipe = Recipe((8, 8), (127.5,) * 3, (1 / 128,) * 3, "RGB")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,3,8,8] x) => (float[1,192] e) { e = Flatten (x) }'
    )
    onnx.save(model, tmp_path / "m.onnx")
    other = PHOTO[::-1].copy()
    Image.fromarray(other).save(tmp_path / "other.png")
    script = write(tmp_path / "m.onnx", recipe, task="verification")
    lines = printed(script, photo(tmp_path), tmp_path / "other.png")
    a, b = (preprocess(pixels, recipe).ravel().astype(np.float64) for pixels in (PHOTO, other))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    shown = [float(line.split("image ")[1].split(",")[0]) for line in lines]
    assert shown == [1.0, pytest.approx(cosine, abs=1e-4)]


def test_script_writes_pictures(tmp_path: Path) -> None:
    from PIL import Image

    recipe = Recipe((40, 30), (), (1 / 255,) * 3, "BGR")
    script = write(identity_model(tmp_path / "m.onnx", recipe), recipe, task="super-resolution")
    printed(script, photo(tmp_path))
    from onnxlint.images.recipe import fit

    made = np.asarray(Image.open(script.parent / "photo.onnx-fp16.png"))
    np.testing.assert_array_equal(made, fit(PHOTO, recipe))
    outputs = {"same": preprocess(PHOTO, recipe)[None]}
    if shutil.which("true") and _has("skimage"):
        answer = make_task("super-resolution", recipe=recipe, images=ImageSet("x", ("x",))).read(outputs, (40, 30))
        np.testing.assert_allclose(made, answer.values, atol=0.5)


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def test_names_from_a_model_do_not_become_code(tmp_path: Path) -> None:
    recipe = Recipe((16, 12), pixel="RGB")
    script = write(identity_model(tmp_path / "m.onnx", recipe, (f"{NASTY}1", f"{NASTY}2")), recipe)
    lines = printed(script, photo(tmp_path))
    x = preprocess(PHOTO, recipe)
    assert f"{NASTY}2: 1 x 3 x 12 x 16, min {x.min():.6g}, max {x.max():.6g}" in "\n".join(lines)


def test_a_model_without_an_image_gets_no_sample(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,4] x, float[1,4] y) => (float[1,4] z) { z = Add (x, y) }'
    )
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(OnnxlintError, match="models with one image input; the inputs are x and y"):
        write(tmp_path / "m.onnx", Recipe((16, 16)))


def test_outputs_that_are_no_detections_are_an_error(tmp_path: Path) -> None:
    model = constant_model(tmp_path / "m.onnx", {"y": np.ones((1, 10))}, (16, 16))
    with pytest.raises(OnnxlintError, match="neither RetinaFace's nor a known SSD's"):
        write(model, Recipe((16, 16)), task="detection")


# The real network


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_faces_on_a_photo(tmp_path: Path) -> None:
    recipe = RECIPES["retinaface"]
    source = DATA / "retinaface" / "original_op11_st.onnx"
    shutil.copy(source, tmp_path / "m.onnx")
    session = backend_for(str(source)).open(str(source))
    from onnxlint.images.recipe import decode as decode_image

    pixels = decode_image(str(DATA / "photos" / "crowd.jpg"))
    arrays = session.run({session.inputs[0].name: preprocess(pixels, recipe)[None]})
    outputs = {port.name: array for port, array in zip(session.outputs, arrays, strict=True)}
    expected = decode(outputs, (640, 640), PRESETS["retinaface"])
    script = write(tmp_path / "m.onnx", recipe, task="detection")
    lines = printed(script, DATA / "photos" / "crowd.jpg")
    sure = expected.scores >= 0.5
    assert len(lines) - 1 == sure.sum() > 10
    scale = max(pixels.shape[:2]) / 640
    for line, box, score in zip(lines[1:], expected.boxes[sure], expected.scores[sure], strict=True):
        name, found, _, *numbers = line.split()
        assert name == "face"
        assert float(found) == pytest.approx(score, abs=1e-4)
        np.testing.assert_allclose([float(one) for one in numbers[:4]], box * scale, atol=0.02 * scale + 0.5)


# C++: compiled where a compiler and the headers are; CPATH and LIBRARY_PATH say where else to look


@cache
def _headers() -> tuple[str, ...]:
    """Where headers may be, beside the compiler's own folders; the wheel of OpenVINO brings its own."""
    package = find_spec("openvino")
    own = [f"{folder}/include" for folder in package.submodule_search_locations or ()] if package else []
    return ("/usr/include/ncnn", "/usr/include/onnxruntime", *own)


@cache
def _compiles(header: str) -> str:
    """Why a header cannot be compiled against; empty where it can."""
    compiler = shutil.which("g++")
    if compiler is None:
        return "there is no g++"
    done = subprocess.run(
        [compiler, "-E", "-x", "c++", "-", *(f"-I{folder}" for folder in _headers())],
        input=f"#include <{header}>\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return "" if done.returncode == 0 else f"g++ does not find {header}; CPATH says where it is"


def compiled(script: Path, folder: Path) -> Path | None:
    """Compile the C++ sample beside a script; the program, or None where there is no library to link it with."""
    source = script.with_suffix(".cpp")
    is_ncnn, is_openvino = (f in source.read_text() for f in ('"net.h"', "openvino.hpp"))
    why = _compiles("net.h" if is_ncnn else "openvino/openvino.hpp" if is_openvino else "onnxruntime_cxx_api.h")
    if why:
        pytest.skip(why)
    flags = ["g++", "-std=c++17", "-O0", "-Wall", "-Wextra", *(f"-I{folder}" for folder in _headers())]
    result = folder / "sample.o"
    done = subprocess.run([*flags, "-c", str(source), "-o", str(result)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if source.name in line and "warning" in line]
    assert not ours
    program = folder / "sample"
    if is_ncnn:
        link = ["-fopenmp", "-lncnn"]
    elif is_openvino:
        libs = Path(_headers()[-1]).parent / "libs"
        link = [str(next(iter(libs.glob("libopenvino.so.*")))), f"-Wl,-rpath,{libs}", f"-Wl,-rpath-link,{libs}"]
    else:
        import onnxruntime

        capi = Path(onnxruntime.__file__).parent / "capi"
        library = next(iter(capi.glob("libonnxruntime.so*")), None)
        if library is None:
            return None
        if not (folder / "libonnxruntime.so.1").exists():
            (folder / "libonnxruntime.so.1").symlink_to(library)
        link = [str(library), f"-Wl,-rpath,{folder}"]
    done = subprocess.run(["g++", str(result), "-o", str(program), *link], capture_output=True, text=True, check=False)
    return program if done.returncode == 0 else None


def same_in_cpp(script: Path, folder: Path) -> None:
    """The C++ sample compiles, and prints what the script prints, where it can be linked."""
    png = photo(folder)
    program = compiled(script, folder)
    if program is None:
        return
    done = subprocess.run(
        [str(program), str(folder), "photo.ppm"], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    if "API version" in done.stderr:
        pytest.skip(f"compiled; headers and library of onnxruntime differ: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    expected = [line.replace(str(png), "photo.ppm").replace(".png", ".ppm") for line in printed(script, png)]
    got = done.stdout.splitlines()
    assert len(got) == len(expected)
    number = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    for one, other in zip(got, expected, strict=True):
        assert re.sub(number, "#", one) == re.sub(number, "#", other)
        np.testing.assert_allclose(
            [float(n) for n in re.findall(number, one)],
            [float(n) for n in re.findall(number, other)],
            rtol=2e-5,
            atol=0.011,
        )


def test_cpp_detects_what_the_script_detects(tmp_path: Path) -> None:
    same_in_cpp(detector(tmp_path, "retinaface")[0], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in DETECTORS if name != "retinaface"])
def test_cpp_of_all_decoders(tmp_path: Path, preset: str) -> None:
    same_in_cpp(detector(tmp_path, preset)[0], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RESIZES, ids=lambda recipe: f"{recipe.resize}-{recipe.pixel}-{recipe.size}")
@pytest.mark.parametrize("runtime", ["onnxruntime", "ncnn"])
def test_cpp_prepares_images_as_the_script(tmp_path: Path, recipe: Recipe, runtime: str) -> None:
    artifact = ncnn_identity(tmp_path) if runtime == "ncnn" else None
    same_in_cpp(write(identity_model(tmp_path / "m.onnx", recipe), recipe, artifact), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "verification", "super-resolution", "names"])
def test_cpp_of_other_tasks(tmp_path: Path, task: str) -> None:
    recipe = Recipe((16, 12), (), (1 / 255,) * 3, "BGR")
    if task in ("classification", "verification"):
        model = constant_model(tmp_path / "m.onnx", {"y": RNG.normal(0, 2, (1, 9))}, (16, 12))
        script = write(model, recipe, task=task, classes=[NASTY.replace("\n", " ")] * 9)
    elif task == "super-resolution":
        script = write(identity_model(tmp_path / "m.onnx", recipe), recipe, task=task)
    else:
        script = write(
            identity_model(tmp_path / "m.onnx", recipe, (f"{NASTY}1", f"{NASTY}2")), replace(recipe, norm=())
        )
    same_in_cpp(script, tmp_path)


@pytest.mark.slow
def test_cpp_of_whole_numbers_and_of_nothing(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 16]>
        g (float[1,3,8,8] image) => (int64[4,N] where, int64[4,M] nowhere) {
            where = NonZero (image)
            none = Sub (image, image)
            nowhere = NonZero (none)
        }
        """
    )
    onnx.save(model, tmp_path / "m.onnx")
    script = write(tmp_path / "m.onnx", Recipe((8, 8)))
    assert printed(script, photo(tmp_path))[1].endswith(": nowhere: 4 x 0, nothing in it")
    same_in_cpp(script, tmp_path)


def openvino_ir(model: Path, target: str = "openvino") -> Path:
    """An IR of a model, beside it."""
    pytest.importorskip("openvino")
    backend, kind = find_target(target)
    files = tuple(str(model.with_name(model.stem + ending)) for ending in kind.files)
    backend.make(kind, str(model), files, Job(Recipe()))
    return Path(files[0])


def test_script_for_openvino(tmp_path: Path) -> None:
    recipe = RESIZES[0]
    model = identity_model(tmp_path / "m.onnx", recipe, (f"{NASTY}1", f"{NASTY}2"))
    script = write(model, recipe, openvino_ir(model))
    same = [line.partition(": ")[2] for line in printed(write(model, recipe), photo(tmp_path))]
    assert [line.partition(": ")[2] for line in printed(script, photo(tmp_path))] == same
    assert '"INFERENCE_PRECISION_HINT": "f32"' in script.read_text()


def test_script_for_mnn(tmp_path: Path) -> None:
    need("_mnncengine")
    recipe = RESIZES[0]
    model = constant_model(tmp_path / "m.onnx", {"y": RNG.normal(0, 2, (1, 9))}, recipe.size)
    backend, target = find_target("mnn")
    artifact = tmp_path / "m.mnn"
    backend.make(target, str(model), (str(artifact),), Job(recipe))
    same = [line.partition(": ")[2] for line in printed(write(model, recipe), photo(tmp_path))]
    lines = printed(write(model, recipe, artifact), photo(tmp_path))
    assert [line.partition(": ")[2] for line in lines if "y" in line] == same
    assert not (tmp_path / "samples" / "run_mnn.cpp").exists()


@pytest.mark.parametrize("size", [(32, 24), None])
def test_script_for_tensorrt(tmp_path: Path, size: tuple[int, int] | None) -> None:
    recipe = Recipe(size)
    model = identity_model(tmp_path / "m.onnx", recipe, ("in'; put", "out"))
    session = backend_for(str(model)).open(str(model))
    x = np.zeros((1, 3, 24, 32), np.float32)
    texts = sample_texts("tensorrt-int8", ["a b.onnx"], session, onnx.load(model), recipe, x)
    assert set(texts) == {"run_tensorrt_int8.py", "run_tensorrt_int8.cpp", "build_tensorrt_int8.sh"}
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("trtexec", "polygraphy"):
        (tools / name).write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
        (tools / name).chmod(0o755)
    (tmp_path / "samples").mkdir()
    script = tmp_path / "samples" / "build.sh"
    script.write_text(texts["build_tensorrt_int8.sh"])
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, check=True, env={"PATH": f"{tools}:{os.environ['PATH']}"}
    )
    words = done.stdout.splitlines()
    assert words[:3] == [str(tools / "trtexec"), "--onnx=a b.onnx", "--saveEngine=a b.plan"]
    assert ("--optShapes=in'; put:1x3x24x32" in words) == (size is None)
    assert words[words.index("--input-shapes") + 1] == "in'; put:[1,3,24,32]"


@pytest.mark.slow
def test_samples_for_openvino_detect_what_the_others_detect(tmp_path: Path) -> None:
    script, recipe, _ = detector(tmp_path, "retinaface")
    lines = printed(script, photo(tmp_path))
    ours = write(
        tmp_path / "m.onnx",
        recipe,
        openvino_ir(tmp_path / "m.onnx"),
        task="detection",
        detection={"preset": "retinaface"},
    )
    assert printed(ours, photo(tmp_path)) == lines
    same_in_cpp(ours, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_cpp_of_the_real_network_in_ncnn(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    for name in ("fp32.param", "fp32.bin"):
        shutil.copy(DATA / "ncnn_reference" / name, tmp_path / name)
    model = DATA / "retinaface" / "hand_fixed_released.onnx"
    script = write(model, RECIPES["retinaface"], tmp_path / "fp32.param", task="detection")
    same_in_cpp(script, tmp_path)
    assert os.path.exists(script.with_suffix(".cpp"))
