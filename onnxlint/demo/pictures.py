"""Pictures for the demonstration: drawn faces among other shapes, and where the faces are.

The same seed draws the same picture. Discs without eyes and boxes with spots are no faces, so that the detector has
something to tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float64]

WIDTH, HEIGHT = 192, 128
"""Size of the pictures, and of the input that the demonstration converts the detector for."""

LANDMARKS = np.array([(-0.36, -0.22), (0.36, -0.22), (0.0, 0.12), (-0.34, 0.42), (0.34, 0.42)])
"""Eyes, nose and corners of the mouth, in half widths and half heights of the face from its middle."""


@dataclass(frozen=True)
class Scene:
    """A picture and its faces.

    Attributes:
        pixels: (HEIGHT, WIDTH, 3), RGB.
        boxes: (K, 4): x1, y1, x2, y2 of each face, in pixels.
        landmarks: (K, 5, 2): x and y, in the order of LANDMARKS.
    """

    pixels: npt.NDArray[np.uint8]
    boxes: Pixels
    landmarks: Pixels


def draw(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Scene:
    """One picture with up to four faces that do not overlap."""
    random = np.random.default_rng(seed)
    pixels = _background(random, width, height)
    boxes: list[tuple[float, float, float, float]] = []
    landmarks = []
    for _ in range(int(random.integers(1, 5))):
        half = np.exp(random.uniform(np.log(8), np.log(0.38 * min(width, height))))
        rx, ry = half * random.uniform(0.85, 1.0), half * random.uniform(1.0, 1.15)
        x, y = random.uniform(rx + 1, width - rx - 1), random.uniform(ry + 1, height - ry - 1)
        box = (x - rx, y - ry, x + rx, y + ry)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            continue
        _face(random, pixels, x, y, rx, ry)
        boxes.append(box)
        landmarks.append(LANDMARKS * (rx, ry) + (x, y))
    pixels += random.normal(0, random.uniform(1, 6), pixels.shape)
    return Scene(
        np.clip(np.rint(pixels), 0, 255).astype(np.uint8),
        np.array(boxes).reshape(-1, 4),
        np.array(landmarks).reshape(-1, 5, 2),
    )


def _background(random: np.random.Generator, width: int, height: int) -> Pixels:
    """A gradient with ellipses and boxes on it, some of them with spots."""
    corners = random.uniform(20, 235, (4, 3))
    u, v = (np.arange(width) / width)[None, :, None], (np.arange(height) / height)[:, None, None]
    pixels: Pixels = (1 - v) * ((1 - u) * corners[0] + u * corners[1]) + v * ((1 - u) * corners[2] + u * corners[3])
    for _ in range(int(random.integers(4, 10))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        rx, ry = random.uniform(0.04, 0.3, 2) * min(width, height)
        color = random.uniform(20, 255, 3)
        _shape(pixels, x, y, rx, ry, color, round_=random.random() < 0.6)
        for _ in range(int(random.integers(0, 4)) if random.random() < 0.5 else 0):
            dx, dy = random.uniform(-0.5, 0.5, 2)
            _shape(pixels, x + dx * rx, y + dy * ry, 0.15 * rx, 0.15 * ry, color * random.uniform(0.1, 0.5))
    return pixels


def _face(random: np.random.Generator, pixels: Pixels, x: float, y: float, rx: float, ry: float) -> None:
    skin = np.array([random.uniform(150, 255), random.uniform(110, 220), random.uniform(50, 170)])
    dark = skin * random.uniform(0.05, 0.3)
    _shape(pixels, x, y, rx, ry, skin)
    (left, right, nose, corner, other) = LANDMARKS * (rx, ry) + (x, y)
    eye = random.uniform(0.12, 0.17)
    for px, py in (left, right):
        _shape(pixels, px, py, eye * rx, eye * ry, dark)
    _shape(pixels, nose[0], nose[1], 0.07 * rx, 0.14 * ry, skin * 0.6)
    for t in np.linspace(0, 1, 9):  # a smile: a parabola of dots
        place = (1 - t) * corner + t * other
        _shape(pixels, place[0], place[1] + (0.25 * ry) * 4 * t * (1 - t), 0.09 * rx, 0.09 * ry, dark)


def _shape(pixels: Pixels, x: float, y: float, rx: float, ry: float, color: Pixels, *, round_: bool = True) -> None:
    """Draw an ellipse or a box, its edge smooth, into the pixels that it touches."""
    height, width = pixels.shape[:2]
    left, right = max(int(x - rx) - 1, 0), min(int(x + rx) + 3, width)
    top, bottom = max(int(y - ry) - 1, 0), min(int(y + ry) + 3, height)
    if left >= right or top >= bottom:
        return
    dx = (np.arange(left, right) + 0.5 - x)[None, :] / rx
    dy = (np.arange(top, bottom) + 0.5 - y)[:, None] / ry
    distance = np.sqrt(dx * dx + dy * dy) if round_ else np.maximum(abs(dx), abs(dy))
    inside = np.clip((1 - distance) * min(rx, ry) + 0.5, 0, 1)[..., None]
    part = pixels[top:bottom, left:right]
    part += inside * (color - part)
