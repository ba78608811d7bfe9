"""Super-resolution, and other tasks that make a picture out of one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.results import TaskResult
from onnxlint.accuracy.tasks.base import Answer
from onnxlint.accuracy.tasks.labels import is_image, match
from onnxlint.accuracy.tasks.optional import optional
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe, decode
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined
    from onnxlint.images.recipe import ImageSet

Array = npt.NDArray[Any]

BORDER = 16
"""By so many pixels on each side a true picture may be larger: convolutions without padding cut that off."""

WINDOW = 11
"""Side of SSIM's window."""


@dataclass
class _Tally:
    images: int = 0
    equal: int = 0
    psnr: float = 0.0
    ssim: float = 0.0
    small: int = 0


class SuperResolutionTask:
    """See `onnxlint.accuracy.tasks.Task`.

    Metrics: `psnr` (dB; mean over the images that differ, infinite if none does) and `ssim` (Gaussian window, as in Wang
    et al. 2004), on pixels from 0 to 255, all channels together, against the true pictures, or else the reference's.
    """

    name = "super-resolution"

    def __init__(self, recipe: Recipe, images: ImageSet | None, labels: str | None) -> None:
        optional("skimage.metrics")
        self.truth = "the reference's pictures"
        self._recipe = recipe
        self._notes: tuple[str, ...] = ()
        self._pictures: _Pictures | None = None
        if labels is not None:
            self._pictures = _Pictures(labels)
            self._notes = match(self._pictures, images, labels, self._pictures.example)
            self.truth = labels
        self._scale: _Scale | None = None
        self._image = ""
        self._true: Array | None = None
        self._reference: Answer | None = None
        self._tallies: dict[str, _Tally] = {}

    def read(self, outputs: Mapping[str, Array], size: tuple[int, int], heads: Sequence[Joined] = ()) -> Answer:
        """The picture that the model made of one image. Raises OnnxlintError if no single output is one."""
        pictures: dict[str, Array] = {
            name: array.reshape(array.shape[-3:])
            for name, array in outputs.items()
            if array.ndim >= 3
            and array.size == np.prod(array.shape[-3:])
            and {array.shape[-3], array.shape[-1]} & {1, 3}
        }
        if len(pictures) != 1:
            shapes = ", ".join(f"{printable(name)} ({'×'.join(map(str, a.shape))})" for name, a in outputs.items())
            raise OnnxlintError(
                f"--task super-resolution: needs one output that is a picture (1, 3 or 1, height, width): {shapes}"
            )
        values: Array = next(iter(pictures.values())).astype(np.float32)
        if values.shape[0] in (1, 3):
            values = values.transpose(1, 2, 0)
        if self._scale is None:
            self._scale = find_scale(values, self._recipe)
            if self._scale.note:
                self._notes += (self._scale.note,)
        pixels = np.clip(np.nan_to_num(self._scale.apply(values), posinf=255, neginf=0), 0, 255)
        if self._recipe.pixel == "BGR" and pixels.shape[2] == 3:
            pixels = pixels[..., ::-1]
        return Answer(f"{pixels.shape[1]}×{pixels.shape[0]} pixels", pixels)

    def judge(self, model: str, image: str, reference: Answer, candidate: Answer) -> None:
        """Compare the candidate's picture with the true one, or with the reference's."""
        if image != self._image or reference is not self._reference:
            self._image, self._reference = image, reference
            self._true = self._find_truth(image, reference.values)
        tally = self._tallies.setdefault(model, _Tally())
        if self._true is None:
            return
        if candidate.values.shape != self._true.shape:
            raise OnnxlintError(
                f"--task super-resolution: {printable(image)}: the picture should be {_size(self._true)} and is"
                f" {_size(candidate.values)}"
            )
        tally.images += 1
        metrics = optional("skimage.metrics")
        if np.array_equal(self._true, candidate.values):
            tally.equal += 1
            tally.ssim += 1
            return
        tally.psnr += float(metrics.peak_signal_noise_ratio(self._true, candidate.values, data_range=255))
        if min(self._true.shape[:2]) < WINDOW:
            tally.small += 1
            return
        tally.ssim += float(
            metrics.structural_similarity(
                self._true,
                candidate.values,
                data_range=255,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )

    def _find_truth(self, image: str, made: Array) -> Array | None:
        if self._pictures is None:
            return made
        path = self._pictures.get(image)
        if path is None:
            return None
        try:
            pixels = decode(path)
        except Exception as error:  # noqa: BLE001 - a decoder may raise anything over a broken file
            raise OnnxlintError(f"{printable(path)}: cannot be read as an image ({printable(str(error))})") from None
        true = pixels.astype(np.float32)
        if made.shape[2] == 1:  # luma as ITU-R BT.601 has it
            true = true @ np.asarray([[0.299], [0.587], [0.114]], np.float32)
        y, x = true.shape[0] - made.shape[0], true.shape[1] - made.shape[1]
        if y == x and x % 2 == 0 and 0 <= x <= 2 * BORDER:
            return true[y // 2 : y // 2 + made.shape[0], x // 2 : x // 2 + made.shape[1]]
        raise OnnxlintError(
            f"{printable(path)}: is {_size(true)}, but the model makes {_size(made)} of {printable(image)}; the input"
            " must have the small image's own size (no --shape), or --labels pictures of that size"
        )

    def results(self) -> dict[str, TaskResult]:
        """Mean PSNR in dB and mean SSIM (0 to 1) over the images."""
        out = {}
        for model, tally in self._tallies.items():
            differing, windows = tally.images - tally.equal, tally.images - tally.small
            psnr = None if not tally.images else tally.psnr / differing if differing else float("inf")
            notes = self._notes
            if differing and tally.equal:
                notes += (f"{tally.equal} of {tally.images} pictures are equal; psnr is of the others",)
            if tally.small:
                what = f"{tally.small} of {tally.images} pictures: they are smaller than its window of {WINDOW} pixels"
                notes += (f"ssim is not computed for {what}",)
            ssim = tally.ssim / windows if windows else None
            out[model] = TaskResult(self.name, {"psnr": psnr, "ssim": ssim}, self.truth, notes)
        return out


def _size(picture: Array) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}×{picture.shape[2]}"


class _Pictures:
    """True pictures by the stem of their files; `0801x4.png` and `baby_LR.png` are of `0801.png` and `baby_HR.png`."""

    def __init__(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise OnnxlintError(
                f"{printable(folder)}: no such folder; --labels of super-resolution are a folder of images"
            )
        found = sorted(str(path) for path in Path(folder).rglob("*") if path.is_file() and is_image(path.name))
        if not found:
            raise OnnxlintError(f"{printable(folder)}: holds no image")
        self.example = found[0]
        self._exact: dict[str, list[str]] = {}
        self._loose: dict[str, list[str]] = {}
        for path in found:
            self._exact.setdefault(PurePath(path).stem, []).append(path)
            self._loose.setdefault(_stem_without_scale(path), []).append(path)

    def get(self, path: str) -> str | None:
        for found in (self._exact.get(PurePath(path).stem, ()), self._loose.get(_stem_without_scale(path), ())):
            if len(found) == 1:
                return found[0]
        return None


def _stem_without_scale(path: str) -> str:
    return re.sub(r"(?i)([_-]?x\d|[_-](lr|hr))+$", "", PurePath(path).stem)


@dataclass(frozen=True)
class _Scale:
    """Pixels 0…255 are value · factor + offset, channel by channel."""

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    note: str = ""

    def apply(self, values: Array) -> Array:
        return np.asarray(values * np.asarray(self.factor, np.float32) + np.asarray(self.offset, np.float32))


def find_scale(values: Array, recipe: Recipe) -> _Scale:
    """How the numbers of a picture (H, W, C) become pixels: as in the input, by the recipe, if that makes sense; else
    they are from 0 to 1, or pixels already."""
    ways = [
        _Scale((255.0,), (0.0,), "outputs are taken as 0 to 1"),
        _Scale((1.0,), (0.0,), "outputs are taken as 0 to 255"),
    ]
    norm, mean = recipe.norm or (1.0,) * recipe.channels, recipe.mean or (0.0,) * recipe.channels
    if recipe.channels != values.shape[2] and len(set(norm)) == len(set(mean)) == 1:
        norm, mean = norm[:1], mean[:1]
    if len(norm) in (1, values.shape[2]):
        ways.insert(0, _Scale(tuple(1 / n for n in norm), mean))
    for way in ways:
        low, high = np.nanpercentile(way.apply(values), (1, 99))
        if low > -32 and 3 < high < 288:
            return way
    raise OnnxlintError(
        f"--task super-resolution: the reference's output ({values.min():.3g} to {values.max():.3g}) is not a picture:"
        " neither in the input's scale nor from 0 to 1 or 255; check --mean and --norm"
    )
