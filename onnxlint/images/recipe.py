"""How images become an input tensor, in ncnn2table's words: size, mean, norm, pixel order; and where they are.

`preprocess` computes what ncnn's `Mat.from_pixels_resize` and `substract_mean_normalize` compute, in NumPy.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import math
import os
import re
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.images.lists import read_list
from onnxlint.model.arrays import read_arrays
from onnxlint.model.reading import similar_file
from onnxlint.text import choices, did_you_mean, printable

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Pixel = Literal["BGR", "RGB", "GRAY"]
Resize = Literal["stretch", "letterbox", "center-crop"]

EXTENSIONS = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Their formats, as Pillow calls them. What a file's bytes are counts, not its name: of others, Pillow would hand some to
other programs (EPS to Ghostscript)."""


@dataclass(frozen=True)
class Recipe:
    """`size` is (width, height), None to keep each image's own; `mean` and `norm` one number for each channel in
    `pixel` order (empty: none): x = (pixel − mean) · norm, pixels 0…255.

    `letterbox` scales an image to fit, puts it in the upper left corner, and fills the rest with the mean (0 after
    normalization); `center-crop` scales it to cover, and cuts the middle out.

    Attributes:
        suggested: Whether `size` is only a preset's suggestion, which the model's own size overrides.
        multiples: Where `size` is None, each image is brought to the nearest (width, height) that are multiples of these.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    norm: tuple[float, ...] = ()
    pixel: Pixel = "BGR"
    resize: Resize = "stretch"
    suggested: bool = False
    multiples: tuple[int, int] = (1, 1)

    @property
    def channels(self) -> int:
        """1 for GRAY, else 3."""
        return 1 if self.pixel == "GRAY" else 3

    @property
    def defines_values(self) -> bool:
        """Whether it defines the preprocessing of pixel values; `mean` of zeros means raw pixels."""
        return bool(self.mean or self.norm)


PRESETS: dict[str, Recipe] = {
    "facenet": Recipe((160, 160), (127.5,) * 3, (1 / 128,) * 3, "RGB", "stretch", suggested=True),
    "imagenet": Recipe(
        (224, 224),
        (123.675, 116.28, 103.53),
        (1 / 58.395, 1 / 57.12, 1 / 57.375),
        "RGB",
        "center-crop",
        suggested=True,
    ),
    "retinaface": Recipe((640, 640), (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", "letterbox", suggested=True),
    "ssd": Recipe((300, 300), (127.0,) * 3, (1 / 128,) * 3, "RGB", "stretch", suggested=True),
}
"""Recipes by name; override parts with `make_recipe(preset=…, shape=…)`."""

_NUMBER = r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")
_MOST_NUMBERS = 64


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers separated by commas, brackets around them and fractions allowed: `[1/127.5, 1/128, 0.5]`.

    Raises:
        OnnxlintError: It is none; the message begins with `what`.
    """
    body = text.strip().removeprefix("[").removesuffix("]").strip()
    parts = body.split(",", _MOST_NUMBERS) if body else []
    values = [value for part in parts if (value := _number(part)) is not None]
    if len(values) != len(parts) or len(values) > _MOST_NUMBERS:
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise OnnxlintError(
            printable(f"{what}: cannot read '{shown}'; write numbers such as 104,117,123 or fractions such as 1/128")
        )
    return tuple(values)


def _number(text: str) -> float | None:
    """A number or fraction; None if it is none, or is not finite."""
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    over, under = float(match[1]), float(match[2] or 1)
    value = over / under if under else math.inf
    return value if math.isfinite(value) else None


LARGEST = 1e6
"""No network wants larger inputs, and sums of their squares leave the range of float32."""


def _reach(recipe: Recipe) -> list[float]:
    """The largest magnitude that each channel of an input can have."""
    means = recipe.mean or (0.0,) * recipe.channels
    norms = recipe.norm or (1.0,) * recipe.channels
    return [max(abs(mean), abs(255 - mean)) * abs(norm) for mean, norm in zip(means, norms, strict=True)]


_OTHER_WAYS = {
    **dict.fromkeys(("pad", "fit", "contain", "keep-ratio"), "; 'letterbox' keeps the proportions and fills the rest"),
    **dict.fromkeys(("crop", "cover", "fill"), "; 'center-crop' keeps the proportions and cuts the rest off"),
    **dict.fromkeys(("resize", "scale", "bilinear", "linear"), "; 'stretch' scales width and height apart"),
}
"""Words for ways of resizing in other tools."""


def make_recipe(
    *,
    preset: str | None = None,
    shape: str | None = None,
    mean: str | None = None,
    norm: str | None = None,
    pixel: str | None = None,
    resize: str | None = None,
) -> Recipe:
    """A recipe from command line words; `shape` is ncnn2table's width,height,channels, or 1,channels,height,width.

    Raises:
        OnnxlintError: A word is wrong, or they do not go together.
    """
    if preset is not None and preset not in PRESETS:
        near = did_you_mean(preset, PRESETS, choices(sorted(PRESETS)))
        raise OnnxlintError(f"--preset: no preset is called {printable(preset)!r}{near}")
    recipe = PRESETS[preset] if preset is not None else Recipe()
    if pixel is not None:
        orders: dict[str, Pixel] = {"BGR": "BGR", "RGB": "RGB", "GRAY": "GRAY"}
        if pixel.upper() not in orders:
            near = did_you_mean(pixel, [*orders, "GREY"]).replace("GREY", "GRAY")
            raise OnnxlintError(printable(f"--pixel: '{pixel}' is not BGR, RGB or GRAY{near}"))
        recipe = replace(recipe, pixel=orders[pixel.upper()])
    if resize is not None:
        ways: dict[str, Resize] = {"stretch": "stretch", "letterbox": "letterbox", "center-crop": "center-crop"}
        if resize not in ways:
            near = did_you_mean(resize, ways) or _OTHER_WAYS.get(resize.lower(), "")
            raise OnnxlintError(printable(f"--resize: '{resize}' is not stretch, letterbox or center-crop{near}"))
        recipe = replace(recipe, resize=ways[resize])
    if shape is not None:
        dims = parse_numbers(shape, "--shape")
        if len(dims) == 4 and dims[0] == 1:  # batch,channels,height,width, as networks have it
            dims = dims[:0:-1]
        if len(dims) not in (2, 3) or any(d != int(d) or not 0 < d < 65536 for d in dims):
            raise OnnxlintError(printable(f"--shape: '{shape}' should be width,height,channels, such as 640,640,3"))
        recipe = replace(recipe, size=(int(dims[0]), int(dims[1])), suggested=False)
        if len(dims) == 3 and dims[2] != recipe.channels:
            way = {1: "; use --pixel GRAY", 3: "; use --pixel BGR or RGB"}.get(int(dims[2]), "")
            if dims[0] == recipe.channels:
                way = f"; the order is width,height,channels: {dims[2]:.0f},{dims[1]:.0f},{dims[0]:.0f}"
            raise OnnxlintError(
                f"--shape: {int(dims[2])} channels do not go with --pixel {recipe.pixel}, which has "
                f"{recipe.channels}{way}"
            )
    if mean is not None:
        recipe = replace(recipe, mean=_for_channels(parse_numbers(mean, "--mean"), recipe))
    if norm is not None:
        recipe = replace(recipe, norm=_for_channels(parse_numbers(norm, "--norm"), recipe))
    for what, values in (("--mean", recipe.mean), ("--norm", recipe.norm)):
        if values and len(values) != recipe.channels:
            raise OnnxlintError(f"{what}: {len(values)} numbers for the {recipe.channels} channels of {recipe.pixel}")
        if not np.isfinite(values).all() or (what == "--norm" and 0 in values):
            raise OnnxlintError(f"{what}: {values} would make every input zero or not a number")
    reach = max(_reach(recipe))
    if reach > LARGEST:
        raise OnnxlintError(f"--norm: inputs would reach {reach:.3g}; pixels are multiplied by it: 1/128, not 128")
    return recipe


def _for_channels(values: tuple[float, ...], recipe: Recipe) -> tuple[float, ...]:
    """One number holds for all channels."""
    return values * recipe.channels if len(values) == 1 else values


# ---------------------------------------------------------------- pixels


def _taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """For each of `target` pixels: the two source pixels and their weights, as ncnn rounds them (11 bits)."""
    scale = source / target
    f = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    low = np.floor(f).astype(np.intp)
    f = f - low.astype(np.float32)
    f[low < 0] = 0
    low[low < 0] = 0
    last = low >= source - 1
    low[last] = max(source - 2, 0)
    f[last] = 1
    w = np.stack([(np.float32(1) - f) * np.float32(2048), f * np.float32(2048)])
    weights = np.floor(w.astype(np.float64) + 0.5).astype(np.int32)
    return low, np.minimum(low + 1, source - 1), weights


def resize_bilinear(image: Bytes, width: int, height: int) -> Bytes:
    """Resize (H, W, C) pixels as ncnn does: half-pixel centres, no antialiasing, fixed-point arithmetic."""
    if image.shape[:2] == (height, width):
        return image
    x0, x1, wx = _taps(image.shape[1], width)
    y0, y1, wy = _taps(image.shape[0], height)
    rows, back = np.unique(np.concatenate([y0, y1]), return_inverse=True)
    lines = image[rows].astype(np.int32)
    across = (lines[:, x0] * wx[0][None, :, None] + lines[:, x1] * wx[1][None, :, None]) >> 4
    top, bottom = across[back[:height]], across[back[height:]]
    down = ((top * wy[0][:, None, None]) >> 16) + ((bottom * wy[1][:, None, None]) >> 16)
    return np.asarray((down + 2) >> 2, np.uint8)


def fit(image: Bytes, recipe: Recipe) -> Bytes:
    """Bring (H, W, 3) RGB pixels to the recipe's size."""
    h, w = image.shape[:2]
    if recipe.size is None:
        across, down = recipe.multiples
        return resize_bilinear(image, max(1, round(w / across)) * across, max(1, round(h / down)) * down)
    width, height = recipe.size
    if recipe.resize == "stretch":
        return resize_bilinear(image, width, height)
    if recipe.resize == "center-crop":
        scale = max(width / w, height / h)
        nw, nh = max(width, round(w * scale)), max(height, round(h * scale))
        x, y = (nw - width) // 2, (nh - height) // 2
        return resize_bilinear(image, nw, nh)[y : y + height, x : x + width]
    scale = min(width / w, height / h)
    return resize_bilinear(image, min(width, max(1, round(w * scale))), min(height, max(1, round(h * scale))))


@lru_cache(maxsize=8)
def _pixel_values(recipe: Recipe) -> Floats:
    """What each pixel value 0…255 becomes, shape (C, 256), with one rounding as a fused multiply-add has it."""
    values = np.arange(256, dtype=np.float64)
    mean = np.asarray(recipe.mean or (0.0,) * recipe.channels, np.float32)[:, None]
    norm = np.asarray(recipe.norm or (1.0,) * recipe.channels, np.float32)[:, None]
    return (values * norm.astype(np.float64) + (-mean * norm)).astype(np.float32)


def preprocess(image: Bytes, recipe: Recipe) -> Floats:
    """RGB pixels (H, W, 3) uint8 → the network's input (C, H, W) float32."""
    pixels = fit(image, recipe)
    if recipe.pixel == "GRAY":
        wide = pixels.astype(np.uint16)
        pixels = ((wide[..., 0] * 77 + wide[..., 1] * 150 + wide[..., 2] * 29) >> 8).astype(np.uint8)[..., None]
    elif recipe.pixel == "BGR":
        pixels = pixels[..., ::-1]
    x = np.stack([row[pixels[..., c]] for c, row in enumerate(_pixel_values(recipe))])
    if recipe.size is not None and recipe.resize == "letterbox":
        full = np.zeros((recipe.channels, recipe.size[1], recipe.size[0]), np.float32)
        full[:, : x.shape[1], : x.shape[2]] = x
        return full
    return x


# ---------------------------------------------------------------- where images are


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be used, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class ImageSet:
    """Image files (`paths`), or the arrays of an .npz/.npy file: `arrays` (N, H, W, 3) uint8 RGB pixels, or
    (N, C, H, W) float32 inputs that are used as they are."""

    source: str
    paths: tuple[str, ...] = ()
    arrays: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.paths) if self.arrays is None else len(self.arrays)


def find_images(source: str | os.PathLike[str]) -> ImageSet:
    """Images from a folder (searched recursively), a glob, a text list (one path a line), an .npz or .npy file, or a
    single image. Raises OnnxlintError when there are none."""
    text = os.fspath(source)
    path = Path(text)
    if os.path.isdir(path):
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        return _some(text, found, f"the folder holds no image ({', '.join(sorted(EXTENSIONS))})")
    if os.path.isfile(path):
        if path.suffix.lower() in (".npz", ".npy"):
            return ImageSet(text, arrays=_load_arrays(path))
        if path.suffix.lower() in EXTENSIONS:
            return _some(text, [text], "")
        return _some(text, read_list(path), "the list names no image; write one path a line")
    if any(c in text for c in "*?["):
        found = sorted(p for p in glob.glob(text, recursive=True) if Path(p).suffix.lower() in EXTENSIONS)
        return _some(text, found, "the pattern matches no image")
    way = similar_file(text) or "give --images a folder, a pattern, a list or .npz"
    raise OnnxlintError(f"{printable(text)}: no such file or folder; {way}")


LARGEST_NUMBER = 1e300
"""Numbers in files are smaller."""


def is_number(value: object) -> bool:
    """Whether a value read from a file is a number to compute with: JSON and TOML have NaN, infinities, and whole numbers
    of any length, too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def require_pillow(source: str) -> None:
    """Raise OnnxlintError if Pillow, which reads images, is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise OnnxlintError(
            f"{printable(source)}: reading images takes Pillow; install it with `pip install 'onnxlint[convert]'`"
        )


def _some(source: str, paths: list[str], problem: str) -> ImageSet:
    if not paths:
        raise OnnxlintError(printable(f"{source}: {problem}"))
    require_pillow(source)
    return ImageSet(source, tuple(paths))


def _load_arrays(path: Path) -> npt.NDArray[Any]:
    arrays = list(read_arrays(str(path)).values())
    pixels = [a if a.ndim == 4 else a[None] for a in arrays if a.ndim in (3, 4)]
    if len(pixels) != len(arrays) or len({(a.shape[1:], a.dtype) for a in pixels}) != 1:
        raise OnnxlintError(printable(f"{path}: should hold images of one shape: uint8 N×H×W×3 or float N×C×H×W"))
    out = np.concatenate(pixels)
    if out.dtype != np.uint8 and out.dtype.kind != "f":
        raise OnnxlintError(printable(f"{path}: holds {out.dtype}; pixels are uint8, inputs are float"))
    if out.dtype == np.uint8 and out.shape[3] != 3:
        raise OnnxlintError(printable(f"{path}: uint8 images have the shape N×H×W×3, not {out.shape}"))
    return out


def decode(path: str) -> Bytes:
    """The RGB pixels (H, W, 3) of an image file. Raises OSError or ValueError."""
    if not os.path.isfile(path):
        raise OSError("it is not a regular file")
    image_module = importlib.import_module("PIL.Image")
    with warnings.catch_warnings():
        warnings.simplefilter("error", image_module.DecompressionBombWarning)
        with image_module.open(path, formats=FORMATS) as image:
            return np.asarray(image.convert("RGB"))


def _load(images: ImageSet, index: int, recipe: Recipe) -> Floats | Unreadable:
    if images.arrays is not None:
        array = images.arrays[index]
        return preprocess(array, recipe) if array.dtype == np.uint8 else np.asarray(array, np.float32)
    path = images.paths[index]
    try:
        return preprocess(decode(path), recipe)
    except Exception as e:  # noqa: BLE001 (a decoder may raise anything over a broken file)
        return Unreadable(path, str(e) or type(e).__name__)


def tensors(
    images: ImageSet, recipe: Recipe, *, threads: int = 2, unreadable: list[Unreadable] | None = None
) -> Iterator[tuple[str, Floats]]:
    """(name, input (C, H, W)) of every image, decoded in parallel and streamed: few are in memory at a time.

    Images that cannot be read are put in `unreadable` and skipped; OnnxlintError if that is all of them.
    """
    bad: list[Unreadable] = []
    pending: deque[tuple[int, Future[Floats | Unreadable]]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for index in range(len(images) + 2 * threads):
            if index < len(images):
                pending.append((index, pool.submit(_load, images, index, recipe)))
            if pending and (index >= len(images) or len(pending) > 2 * threads):
                at, future = pending.popleft()
                item = future.result()
                if isinstance(item, Unreadable):
                    bad.append(item)
                else:
                    yield images.paths[at] if images.paths else f"{images.source}[{at}]", item
    if unreadable is not None:
        unreadable.extend(bad)
    if len(bad) == len(images):
        why = f" ('{bad[0].path}': {bad[0].why})" if bad else ""
        raise OnnxlintError(printable(f"{images.source}: none of the {len(images)} images can be read{why}"))
