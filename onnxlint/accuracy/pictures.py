"""A network's input as a picture."""

from __future__ import annotations

import io

import numpy as np

from onnxlint.backends import Array
from onnxlint.images.recipe import Recipe


def picture(x: Array, recipe: Recipe) -> bytes:
    """A network's input (C, H, W) as a JPEG, with the recipe's normalization undone; empty if it is not a picture, or
    Pillow is not installed."""
    if x.ndim != 3 or x.shape[0] != recipe.channels or min(x.shape[1:]) < 1:
        return b""
    try:
        from PIL import Image
    except ImportError:
        return b""
    norm = np.asarray(recipe.norm or (1.0,) * recipe.channels)[:, None, None]
    mean = np.asarray(recipe.mean or (0.0,) * recipe.channels)[:, None, None]
    pixels = np.clip(np.rint(np.nan_to_num(x / norm + mean)), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if recipe.pixel == "GRAY":
        pixels = pixels[..., 0]
    elif recipe.pixel == "BGR":
        pixels = pixels[..., ::-1]
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
