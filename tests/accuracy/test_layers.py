"""Where a loss comes from, on networks that were spoiled at one place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.accuracy.alignment import Tensor, align
from onnxlint.accuracy.results import CandidateReport, LayerAccuracy, first_fall
from onnxlint.accuracy.wiring import read_wiring
from onnxlint.api import compare
from onnxlint.images.recipe import Recipe, preprocess
from tests.support.accuracy_models import SIZE, detector, images, rough
from tests.support.zoo import SHARED

RECIPE = Recipe((SIZE, SIZE), (100.0, 110.0, 120.0), (1 / 64,) * 3, "BGR")


def explained(tmp_path: Path, candidate: str, suggest: bool = False) -> CandidateReport:
    reference = detector(tmp_path / "reference.onnx")
    pictures = images(tmp_path / "pictures.npy", 3)
    report = compare(reference, [candidate], images=pictures, recipe=RECIPE, time=False, layers=True, suggest=suggest)
    return report.candidates[0]


@pytest.mark.parametrize("prefix", ["", "x_"])
@pytest.mark.parametrize(("weight", "layer"), [("w0", "conv0"), ("w1", "conv1"), ("w2", "conv2")])
def test_the_one_layer_that_was_spoiled(tmp_path: Path, weight: str, layer: str, prefix: str) -> None:
    outputs = (f"{prefix}boxes", f"{prefix}scores")
    spoiled = detector(tmp_path / "spoiled.onnx", changed=rough(weight), prefix=prefix, outputs=outputs)
    one = explained(tmp_path, spoiled)
    by_name = {found.reference: found for found in one.layers}
    assert by_name[layer].candidate == prefix + layer
    assert by_name[layer].share == pytest.approx(1, abs=1e-3)
    assert by_name[layer].source == "body"
    before = [found for found in one.layers if found.reference < layer and found.reference.startswith("conv")]
    assert all(found.snr_db == math.inf and found.share == 0 for found in before)
    fall = first_fall(one.layers)
    assert fall is not None
    assert fall[0].reference == layer
    assert fall[1] == math.inf


def test_the_same_network_loses_nothing(tmp_path: Path) -> None:
    one = explained(tmp_path, detector(tmp_path / "same.onnx", prefix="x_"))
    assert one.layers
    assert {found.snr_db for found in one.layers} == {math.inf}
    assert {found.share for found in one.layers} == {0.0}
    assert first_fall(one.layers) is None


def test_shares_add_up(tmp_path: Path) -> None:
    one = explained(tmp_path, detector(tmp_path / "worse.onnx", changed={**rough("w0", 60), **rough("w2", 60)}))
    assert sum(found.share or 0 for found in one.layers) == pytest.approx(1)
    shares = {found.reference: found.share or 0 for found in one.layers}
    assert shares["conv0"] + shares["conv2"] == pytest.approx(1, abs=1e-3)
    assert min(shares["conv0"], shares["conv2"]) > 0.05


def test_an_8_bit_model_is_told_which_layer_to_keep(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = detector(tmp_path / "reference.onnx")
    int8 = tmp_path / "int8.onnx"
    quantize_dynamic(source, int8, weight_type=QuantType.QUInt8)
    one = explained(tmp_path, str(int8), suggest=True)
    assert one.suggestions
    best = one.suggestions[0]
    name = best.option.removeprefix("--keep ")
    assert name in {layer.name for layer in read_wiring(source).layers}
    # Keeping it is worth what was measured, nearly: onnxruntime quantizes the others as before.
    kept = tmp_path / "kept.onnx"
    quantize_dynamic(source, kept, weight_type=QuantType.QUInt8, nodes_to_exclude=[name])
    report = compare(source, [str(kept)], images=tmp_path / "pictures.npy", recipe=RECIPE, time=False)
    assert report.candidates[0].snr_db - one.snr_db == pytest.approx(best.gain_db, abs=0.3)
    assert [found.gain_db for found in one.suggestions] == sorted((f.gain_db for f in one.suggestions), reverse=True)


def test_a_relu_that_the_rounding_does_is_where_it_was(tmp_path: Path) -> None:
    """onnxruntime takes a Relu out whose result is rounded to 8 bits: the tensor is the one after the rounding."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    source = detector(tmp_path / "reference.onnx")
    x = np.stack([preprocess(image, RECIPE) for image in np.load(images(tmp_path / "pictures.npy", 3))])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rows = iter([{"image": x}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    int8 = tmp_path / "static.onnx"
    quantize_static(source, int8, Reader(), activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
    assert "Relu" not in {node.op_type for node in onnx.load(int8).graph.node}
    one = explained(tmp_path, str(int8))
    relus = [found for found in one.layers if found.reference.startswith("relu")]
    assert [found.reference for found in relus] == ["relu0", "relu1", "relu2"]
    assert min(found.snr_db for found in relus) > 20
    assert sum(found.share or 0 for found in one.layers) == pytest.approx(1)


def test_nothing_to_suggest_is_said(tmp_path: Path) -> None:
    one = explained(tmp_path, detector(tmp_path / "same.onnx"), suggest=True)
    assert not one.suggestions
    assert any("no change that was tried" in note for note in one.notes)


def tensor(name: str, values: np.ndarray) -> Tensor:
    return Tensor(name, name, "Conv", values.shape, values.dtype, values.reshape(-1).astype(np.float32), values.nbytes)


def links(reference: list[Tensor], candidate: list[Tensor]) -> list[tuple[str, str]]:
    return [(link.reference.name, link.candidate.name) for link in align(reference, candidate, {}, {})]


def test_tensors_are_matched_by_what_is_in_them() -> None:
    generator = np.random.default_rng(0)
    a, b, c = (generator.standard_normal((1, 4, 5)) for _ in range(3))
    noise = 0.05 * generator.standard_normal((1, 4, 5))
    reference = [tensor("a", a), tensor("b", b), tensor("c", c)]
    # A fused operator has no partner.
    assert links(reference, [tensor("1", a + noise), tensor("2", c + noise)]) == [("a", "1"), ("c", "2")]
    # Branches in another order are found nevertheless.
    assert links(reference, [tensor("1", b), tensor("2", a), tensor("3", c)]) == [("b", "1"), ("a", "2"), ("c", "3")]
    # Numbers are no names: ncnn's 2 is not the exporter's.
    assert links([tensor("2", a)], [tensor("2", b)]) == []
    # A name is one, however far the numbers are apart.
    assert links([tensor("conv", a)], [tensor("conv", b)]) == [("conv", "conv")]
    assert links(reference, [tensor("a", generator.standard_normal((1, 4, 6)))]) == []


def layer(snr: float) -> LayerAccuracy:
    return LayerAccuracy("r", "c", "Conv", snr)


def test_where_the_snr_first_falls() -> None:
    layers = [layer(value) for value in (60, 58, 57, 40, 39, 20)]
    assert first_fall(layers) == (layers[3], 57)
    layers = [layer(value) for value in (math.inf, 30, 29, 28)]
    assert first_fall(layers) == (layers[1], math.inf)
    layers = [layer(value) for value in (130, 120, 40)]
    assert first_fall(layers) == (layers[2], 120)
    assert first_fall([layer(140), layer(110)]) is None  # rounding
    assert first_fall([layer(math.inf)]) is None
    assert first_fall([]) is None


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ncnn_reference").is_dir(), reason="../shared/data is not here")
def test_ncnn_int8_is_made_again_with_a_layer_kept(tmp_path: Path) -> None:
    """The gain is that of the file that would be written, its bytes too."""
    from onnxlint.backends.ncnn.format import dump_bin, load, save
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.table import load_table
    from onnxlint.images.recipe import make_recipe

    folder = SHARED / "ncnn_reference"
    pictures = tmp_path / "list.txt"
    pictures.write_text("".join(f"{path}\n" for path in sorted((SHARED / "calibration").glob("*.png"))[:2]))
    recipe = make_recipe(preset="retinaface")
    report = compare(
        folder / "fp32.param", [folder / "kl" / "int8.param"], images=pictures, recipe=recipe, time=False, suggest=True
    )
    (one,) = report.candidates
    best = max((s for s in one.suggestions if "," not in s.option), key=lambda s: s.gain_db)
    net = quantize(
        load(folder / "fp32.param"), load_table(folder / "kl" / "model.table"), keep=[best.option.split()[1]]
    )
    save(net.net, tmp_path / "kept.param", tmp_path / "kept.bin")
    again = compare(folder / "fp32.param", [tmp_path / "kept.param"], images=pictures, recipe=recipe, time=False)
    assert again.candidates[0].snr_db - one.snr_db == pytest.approx(best.gain_db, abs=0.01)
    assert best.bytes == len(dump_bin(net.net)) - (folder / "kl" / "int8.bin").stat().st_size
    assert best.gain_db > 1
