"""The detector of the demonstration with its trained weights, and the pictures that it is shown."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxlint.demo.graph import Array, make_model, parameter_shapes
from onnxlint.demo.pictures import draw
from onnxlint.model.output import write_atomically

WIDTH = 8
"""Channels of the pyramid."""

MEAN = (104.0, 117.0, 123.0)
"""Subtracted from blue, green and red."""

COUNT = 16
"""Pictures of the demonstration."""

_WEIGHTS = Path(__file__).with_name("weights.npy")


def detector() -> bytes:
    """The detector with every pitfall, as a file; `fixtures.demo_training` in the repository trained it."""
    model = make_model(unpack(_WEIGHTS.read_bytes()))
    return model.SerializeToString(deterministic=True)


def write_pictures(folder: str) -> None:
    """Write COUNT pictures into `images/` of a folder, and the boxes of their faces into `labels.txt`.

    The boxes are in the format of WIDER FACE. Needs Pillow.
    """
    from PIL import Image

    os.makedirs(os.path.join(folder, "images"), exist_ok=True)
    lines = []
    for seed in range(COUNT):
        scene, name = draw(seed), f"faces_{seed:02}.png"
        file = io.BytesIO()
        Image.fromarray(scene.pixels).save(file, "png")
        write_atomically(os.path.join(folder, "images", name), file.getvalue())
        lines += [name, str(len(scene.boxes))]
        for x1, y1, x2, y2 in scene.boxes:
            lines.append(f"{x1:.1f} {y1:.1f} {x2 - x1:.1f} {y2 - y1:.1f} 0 0 0 0 0 0")
    write_atomically(os.path.join(folder, "labels.txt"), "".join(f"{line}\n" for line in lines))


def pack(weights: Mapping[str, Array]) -> bytes:
    """Weights as float16 in the order of `parameter_shapes`, a .npy file."""
    flat = [np.asarray(weights[name]).reshape(-1) for name in parameter_shapes(WIDTH)]
    file = io.BytesIO()
    np.save(file, np.concatenate(flat).astype(np.float16))
    return file.getvalue()


def unpack(data: bytes) -> dict[str, Array]:
    """What `pack` made, by name."""
    flat = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32)
    weights, start = {}, 0
    for name, shape in parameter_shapes(WIDTH).items():
        end = start + int(np.prod(shape))
        weights[name] = flat[start:end].reshape(shape)
        start = end
    return weights
