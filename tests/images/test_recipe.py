"""Recipes: ncnn's pixels to the last bit, and every way to name images."""

from __future__ import annotations

import importlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxlint.errors import OnnxlintError
from onnxlint.images import recipe as rec

ncnn = pytest.importorskip("ncnn")
image_module = importlib.import_module("PIL.Image")


def picture(height: int, width: int, seed: int = 0) -> rec.Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_ncnn(image: rec.Bytes, recipe: rec.Recipe) -> rec.Floats:
    kinds = ncnn.Mat.PixelType
    kind = {"BGR": kinds.PIXEL_RGB2BGR, "RGB": kinds.PIXEL_RGB, "GRAY": kinds.PIXEL_RGB2GRAY}[recipe.pixel]
    h, w = image.shape[:2]
    mat = ncnn.Mat.from_pixels_resize(image, kind, w, h, *(recipe.size or (w, h)))
    mat.substract_mean_normalize(list(recipe.mean), list(recipe.norm))
    return np.array(mat).reshape(recipe.channels, mat.h, mat.w)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 90),
    st.integers(2, 90),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["BGR", "RGB", "GRAY"]),
)
def test_resized_pixels_are_those_of_ncnn(h: int, w: int, height: int, width: int, pixel: rec.Pixel) -> None:
    recipe = rec.Recipe((width, height), pixel=pixel)
    image = picture(h, w)
    assert np.array_equal(rec.preprocess(image, recipe), by_ncnn(image, recipe))


@pytest.mark.parametrize(
    ("mean", "norm"),
    [
        ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),
        ((127.5,) * 3, (1 / 128,) * 3),
        ((1.5, 2.5, 3.7), (0.017, 0.018, 0.33)),
        ((3.0, 4.0, 5.0), ()),
    ],
)
@pytest.mark.parametrize("pixel", ["BGR", "RGB"])
def test_normalized_values_are_those_of_ncnn(mean, norm, pixel: rec.Pixel) -> None:  # type: ignore[no-untyped-def]
    recipe = rec.Recipe((64, 48), mean, norm, pixel)
    image = picture(60, 100)
    assert np.allclose(rec.preprocess(image, recipe), by_ncnn(image, recipe), rtol=1e-6, atol=1e-6)


def test_letterbox_fills_with_the_mean_and_keeps_the_shape() -> None:
    recipe = rec.make_recipe(preset="retinaface", shape="32,32,3")
    x = rec.preprocess(picture(10, 20), recipe)
    assert x.shape == (3, 32, 32)
    assert (x[:, 16:] == 0).all()
    assert np.array_equal(
        x[:, :16],
        rec.preprocess(picture(10, 20), rec.make_recipe(preset="retinaface", shape="32,16", resize="stretch")),
    )


def test_center_crop_takes_the_middle() -> None:
    image = picture(20, 40)
    x = rec.preprocess(image, rec.Recipe((20, 20), pixel="RGB", resize="center-crop"))
    assert np.array_equal(x, image[:, 10:30].transpose(2, 0, 1))


def test_words_of_ncnn2table() -> None:
    recipe = rec.make_recipe(mean="[104,117,123]", norm="1/128, 1/128,1/128", shape="[640,480,3]", pixel="bgr")
    assert recipe == rec.Recipe((640, 480), (104.0, 117.0, 123.0), (1 / 128,) * 3, "BGR", "stretch")
    assert rec.make_recipe(preset="imagenet", shape="64,64").size == (64, 64)
    assert rec.make_recipe(shape="1,3,480,640").size == (640, 480)
    assert set(rec.PRESETS) == {"facenet", "imagenet", "retinaface", "ssd"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"mean": "1,2"}, "--mean: 2 numbers for the 3 channels of BGR"),
        ({"norm": "1,1,0"}, "--norm: .* would make every input zero"),
        ({"norm": "1/0,1,1"}, "--norm: cannot read"),
        ({"mean": "nan,1,1"}, "--mean: cannot read"),
        ({"mean": "1e999,1,1"}, "--mean"),
        ({"shape": "640"}, "--shape: '640' should be width,height,channels"),
        ({"shape": "640,-1,3"}, "--shape"),
        ({"shape": "640,640,1"}, "1 channels do not go with --pixel BGR"),
        ({"pixel": "YUV"}, "is not BGR, RGB or GRAY"),
        ({"resize": "zoom"}, "is not stretch, letterbox or center-crop"),
        ({"resize": "pad"}, "'letterbox' keeps the proportions"),
        ({"resize": "crop"}, "did you mean 'center-crop'"),
        ({"pixel": "RBG"}, "did you mean 'RGB'"),
        ({"preset": "yolo"}, "no preset is called 'yolo'; choose from facenet"),
    ],
)
def test_recipes_that_make_no_sense(words: dict[str, str], problem: str) -> None:
    with pytest.raises(OnnxlintError, match=problem):
        rec.make_recipe(**words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for i, name in enumerate(["one.png", "a/two with space.jpg", "a/deep/three.bmp"]):
        image_module.fromarray(picture(12, 9, i)).save(tmp_path / name)
    (tmp_path / "a" / "notes.md").write_text("no image")
    return tmp_path


def names(images: rec.ImageSet) -> list[str]:
    return sorted(Path(p).name for p in images.paths)


ALL = ["one.png", "three.bmp", "two with space.jpg"]


def test_folder_glob_list_and_file(folder: Path) -> None:
    assert names(rec.find_images(folder)) == ALL
    assert names(rec.find_images(f"{folder}/**/*.bmp")) == ["three.bmp"]
    assert names(rec.find_images(folder / "one.png")) == ["one.png"]
    listed = folder / "imagelist.txt"
    listed.write_bytes(f"{folder}/one.png\r\na/two with space.jpg\r\n\r\n{folder}/a/deep/three.bmp\r\n".encode())
    assert names(rec.find_images(listed)) == ALL
    assert len([*rec.tensors(rec.find_images(listed), rec.Recipe())]) == 3


def test_arrays(tmp_path: Path) -> None:
    pixels = np.stack([picture(8, 8, i) for i in range(3)])
    np.savez(tmp_path / "p.npz", images=pixels)
    recipe = rec.Recipe(mean=(1.0, 2.0, 3.0))
    got = [x for _, x in rec.tensors(rec.find_images(tmp_path / "p.npz"), recipe)]
    assert np.array_equal(got[1], rec.preprocess(pixels[1], recipe))
    ready = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "r.npy", ready)
    named = dict(rec.tensors(rec.find_images(tmp_path / "r.npy"), recipe))
    assert np.array_equal(np.stack([*named.values()]), ready)
    assert next(iter(named)).endswith("r.npy[0]")
    np.save(tmp_path / "bad.npy", np.zeros(3))
    with pytest.raises(OnnxlintError, match="should hold images of one shape"):
        rec.find_images(tmp_path / "bad.npy")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(OnnxlintError, match=r"is not a complete .npy or .npz file"):
        rec.find_images(tmp_path / "junk.npz")


def test_unreadable_images_are_named_and_not_fatal(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30))
    (folder / "empty.png").write_bytes(b"")
    bad: list[rec.Unreadable] = []
    good = [name for name, _ in rec.tensors(rec.find_images(folder), rec.Recipe((8, 8)), unreadable=bad)]
    assert len(good) == 3
    assert sorted(Path(b.path).name for b in bad) == ["broken.jpg", "empty.png"]
    assert all(b.why for b in bad)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(OnnxlintError, match="none of the 1 images can be read"):
        list(rec.tensors(rec.find_images(tmp_path), rec.Recipe()))
    (tmp_path / "none").mkdir()
    with pytest.raises(OnnxlintError, match="the folder holds no image"):
        rec.find_images(tmp_path / "none")
    with pytest.raises(OnnxlintError, match="no such file or folder"):
        rec.find_images(tmp_path / "missing")
    with pytest.raises(OnnxlintError, match="the pattern matches no image"):
        rec.find_images(str(tmp_path / "*.jpg"))


def test_images_are_streamed(tmp_path: Path) -> None:
    image_module.fromarray(picture(4, 4)).save(tmp_path / "one.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/one.png\n" * 400)
    stream = rec.tensors(rec.find_images(tmp_path / "list.txt"), rec.Recipe((200, 200)), threads=2)
    tracemalloc.start()
    assert sum(1 for _ in stream) == 400
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1/127.5", (1 / 127.5,) * 3),
        ("1/58.395, 1/57.12, 1/57.375", (1 / 58.395, 1 / 57.12, 1 / 57.375)),
        ("[.5,1e-2,2.]", (0.5, 0.01, 2.0)),
    ],
)
def test_fractions_and_one_number_for_all_channels(text: str, values: tuple[float, ...]) -> None:
    assert rec.make_recipe(norm=text).norm == values


@pytest.mark.parametrize(
    "text", ["1e999999999,0,0", "1/1e999999999", "9" * 10000, "1/0", "1//2", "0x10", ",".join("1" * 9999)]
)
def test_numbers_that_cost_no_time(text: str) -> None:
    with pytest.raises(OnnxlintError, match="--mean: ") as caught:
        rec.make_recipe(mean=text)
    assert len(str(caught.value)) < 300


def test_the_way_out_of_a_wrong_number_of_channels() -> None:
    with pytest.raises(OnnxlintError, match="use --pixel GRAY"):
        rec.make_recipe(shape="32,32,1")
    with pytest.raises(OnnxlintError, match=r"the order is width,height,channels: 64,32,3"):
        rec.make_recipe(shape="3,32,64")
