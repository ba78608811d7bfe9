"""Which output positions layers are refitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxlint.backends import Job
from onnxlint.backends.ort import auto
from onnxlint.backends.ort.calibration import Calibration
from onnxlint.backends.ort.plan import Plan
from onnxlint.backends.ort.reconstruct import _Windows, reconstruct
from onnxlint.backends.ort.session import OrtSession
from onnxlint.backends.task import Loss, Pairs
from onnxlint.images.recipe import ImageSet
from tests.backends.ort.test_int8 import RECIPE, network


def windows(x: np.ndarray) -> _Windows:
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    found = _Windows.of(node, (3, 3), x)
    assert found is not None
    return found


def test_positions_are_taken_once_and_all_where_they_are_few() -> None:
    one = windows(np.ones((1, 2, 20, 20), np.float32))
    assert one.some(1000, np.random.default_rng(0), False).tolist() == list(range(100))
    some = one.some(30, np.random.default_rng(0), False)
    assert len(set(some.tolist())) == 30


def test_positions_with_large_values_are_more() -> None:
    """The object is at one place; a tenth of the energy of others has the background."""
    x = np.full((1, 2, 20, 20), 0.1, np.float32)
    x[:, :, 8:12, 4:8] = 5
    one = windows(x)
    bright = [i for i in range(100) if x[0, 0, i // 10 * 2, i % 10 * 2] == 5]
    assert len(bright) == 4
    some = one.some(60, np.random.default_rng(0), True)
    assert len(some) == 60
    assert np.isin(some, bright).sum() > 15
    assert len(set(some.tolist()) - set(bright)) > 15
    dark = windows(np.zeros_like(x)).some(60, np.random.default_rng(0), True)
    assert len(set(dark.tolist())) == 60


@dataclass(frozen=True)
class Finds:
    """A task whose outputs are objects, or something else."""

    metric: str

    def measure(self, pairs: Pairs) -> Loss:
        return Loss((0.0 * len(list(pairs)),), {self.metric: 1.0})

    def record(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(("metric", "salient"), [("found", True), ("top1", False), ("", False)])
def test_they_are_for_detectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, metric: str, salient: bool) -> None:
    asked: list[bool] = []

    def fitted(*words: Any, **more: Any) -> Any:
        asked.append(more["salient"])
        return reconstruct(*words, **more)

    monkeypatch.setattr(auto, "reconstruct", fitted)
    net = network(13)
    onnx.save(net, tmp_path / "m.onnx")
    pixels = np.random.default_rng(7).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    session = OrtSession(str(tmp_path / "m.onnx"))
    calibration = Calibration.of(session, Job(recipe=RECIPE, images=ImageSet("pixels", arrays=pixels)))
    auto.auto(net, calibration, Plan("m", task=Finds(metric) if metric else None))
    assert asked == [salient]
