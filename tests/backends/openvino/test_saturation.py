"""Overflow of int8 sums in OpenVINO, measured, and models computed without it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxlint.backends import Job, backend_for, find_target
from onnxlint.backends.openvino import saturation
from onnxlint.backends.openvino.runtime import compiled, read_ir, runtime
from onnxlint.backends.openvino.session import OpenVinoSession
from onnxlint.backends.ort.session import run, start
from onnxlint.backends.overflow import NOTE
from tests.support.conv_nets import IMAGES, RECIPE, conv_net

pytest.importorskip("openvino")

X = np.random.default_rng(3).standard_normal((1, 3, 24, 24)).astype(np.float32)


def model(largest: int, kind: type = np.int8) -> Any:
    """x times one weight in full."""
    ov = runtime()
    ops = ov.opset13
    x = ops.parameter([1, 2], np.float32)
    weights = ops.convert(ops.constant(np.array([[1], [largest]], kind)), "f32")
    return ov.Model([ops.matmul(x, weights, False, False)], [x], "net")


def test_processors_with_vnni_compute_the_largest_sums_exactly() -> None:
    info = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not info.exists():
        pytest.skip("flags of the processor are not known here")
    has_vnni = "vnni" in info.read_text(encoding="utf-8")
    assert (saturation.measured_share() > 0.99) is has_vnni


@pytest.mark.parametrize(("largest", "large"), [(64, False), (65, True), (-128, True), (-64, False)])
def test_weights_of_seven_bits_are_not_large(monkeypatch: pytest.MonkeyPatch, largest: int, large: bool) -> None:
    assert saturation.has_large(model(largest)) is large
    assert not saturation.has_large(model(largest, np.float32))
    monkeypatch.setattr(saturation, "measured_share", lambda: 0.5)
    assert saturation.notes_for(model(largest)) == ((NOTE,) if large else ())
    monkeypatch.setattr(saturation, "measured_share", lambda: 1.0)
    assert saturation.notes_for(model(largest)) == ()


@pytest.mark.parametrize("bits", [7, pytest.param(8, marks=pytest.mark.slow)])
def test_without_integers_as_onnxruntime_computes_exactly(tmp_path: Path, bits: int) -> None:
    """On every processor: what int8 layers compute exactly, all values rounded as in the ONNX model, inner values too."""
    source = conv_net(tmp_path / "m.onnx")
    files = {}
    for to in ("onnx-int8-static", "openvino-int8"):
        backend, target = find_target(to)
        files[to] = tuple(str(tmp_path / f"m{ending}") for ending in target.files)
        job = Job(recipe=RECIPE, images=IMAGES, method="minmax", weight_bits=bits)
        made = backend.make(target, source, files[to], job)
        overflows = bits == 8 and saturation.measured_share() < 0.9
        assert made.notes.count(NOTE) == overflows
    path = files["openvino-int8"][0]
    session = backend_for(path).open(path)
    assert isinstance(session, OpenVinoSession)
    assert session.notes.count(NOTE) == overflows

    expected = run(start(files["onnx-int8-static"][0], integers=False), "m", {"x": X})
    exact = OpenVinoSession(path, integers=False)
    for a, b in zip(expected, exact.run({"x": X}), strict=True):
        assert ((a - b) ** 2).sum() < 1e-4 * (a**2).sum(), "but for values that are rounded to the next step"
    inner = [name for name, kind in exact.tensors() if kind == "Convolution"][1]
    alone = exact.run({"x": X}, [inner])[0]
    assert np.isfinite(alone).all()
    again = exact.run({"x": X, inner: alone})
    for a, b in zip(exact.run({"x": X}), again, strict=True):
        assert ((a - b) ** 2).sum() < 1e-4 * (a**2).sum()


def test_without_integers_nothing_is_computed_in_them(tmp_path: Path) -> None:
    backend, target = find_target("openvino-int8")
    files = tuple(str(tmp_path / f"m{ending}") for ending in target.files)
    job = Job(recipe=RECIPE, images=IMAGES, method="minmax")
    backend.make(target, conv_net(tmp_path / "m.onnx"), files, job)
    kinds = {}
    for integers in (True, False):
        plan = compiled(read_ir(files[0]), files[0], 2, integers=integers).get_runtime_model()
        kinds[integers] = {
            op.get_rt_info()["runtimePrecision"].astype(str)
            for op in plan.get_ops()
            if op.get_rt_info()["layerType"].astype(str) == "Convolution"
        }
    assert kinds[True] <= {"u8", "i8"}
    assert kinds[False] == {"f32"}
