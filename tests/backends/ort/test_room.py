"""Ranges that are wider than what calibration images show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxlint.backends import channels
from onnxlint.backends.ort.calibrate import channel_extremes
from onnxlint.backends.ort.judge import computer
from onnxlint.backends.ort.plan import Plan
from onnxlint.backends.ort.qdq import activations
from onnxlint.backends.ort.room import rooms
from onnxlint.backends.ort.strength import Evener
from onnxlint.images.recipe import ImageSet
from tests.backends.ort.test_int8 import make, network

X = np.random.default_rng(4).standard_normal((1, 3, 24, 24)).astype(np.float32)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_images_whose_peaks_differ_leave_room(strength: float) -> None:
    net = network(13)
    names = activations(net)

    def found(sizes: Sequence[float]) -> dict[str, float]:
        inputs = [{"x": X * np.float32(size)} for size in sizes]
        every = channel_extremes(inputs, computer(net, names, "m", 1), names)
        evener = Evener.of(net, inputs[0], Plan("m"), names)
        return rooms(every, evener.made(strength, every)[1], evener.shapes)

    assert found([1.0] * 9).keys() == set(names)
    assert set(found([1.0] * 9).values()) == {1.0}
    apart = found([*np.linspace(0.5, 1, 8), 1.8])
    assert 1.3 < max(apart.values()) <= 1.8
    assert set(found([1.0, 1.8]).values()) == {1.0}  # two images do not tell


@pytest.mark.parametrize("cost", [100.0, -100.0])
def test_auto_takes_it_for_all_but_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
    """One of the images has more contrast than the others; pixels have their range whatever they show."""
    monkeypatch.setattr(channels, "ROOM_COST", cost)
    noise = np.random.default_rng(5).standard_normal((8, 24, 24, 3))
    contrast = np.array([20, 24, 22, 26, 25, 21, 23, 42]).reshape(-1, 1, 1, 1)
    pixels = np.clip(127.5 + contrast * noise, 0, 255).astype(np.uint8)
    ends = {}
    for method in ("minmax", "auto"):
        _, _, out = make(tmp_path, network(), images=ImageSet("pixels", arrays=pixels), method=method)
        held = {one.name: numpy_helper.to_array(one) for one in onnx.load(out).graph.initializer}
        names = [name.removesuffix("_scale") for name in held if name.endswith("_scale") and held[name].size == 1]
        ends[method] = {name: (255 - int(held[f"{name}_zero_point"])) * float(held[f"{name}_scale"]) for name in names}
    assert ends["auto"]["x"] == pytest.approx(ends["minmax"]["x"])
    factor = ends["auto"]["stem.act"] / ends["minmax"]["stem.act"]
    assert factor > 1.2 if cost > 0 else factor == pytest.approx(1, rel=0.01)
