"""The int8 writer: ncnn2int8's bytes, its requantization rules, and what the wheel makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlint.backends.ncnn import format as fmt
from onnxlint.backends.ncnn.calibrate import make_table
from onnxlint.backends.ncnn.quantize import quantize, quantize_weights
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import load_table
from onnxlint.errors import OnnxlintError
from tests.support.ncnn_nets import REFERENCE, inputs, needs_data, small

NET = small()


@needs_data
@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_bytes_are_those_of_ncnn2int8(method: str) -> None:
    made = quantize(fmt.load(REFERENCE / "fp32.param"), load_table(REFERENCE / method / "model.table"))
    assert fmt.dump_bin(made.net) == (REFERENCE / method / "int8.bin").read_bytes()
    assert fmt.dump_param(made.net).encode() == (REFERENCE / method / "int8.param").read_bytes()
    assert made.int8_layers == 56
    assert all(d.state == "int8" for d in made.decisions)


def test_requantization_rules() -> None:
    made = quantize(NET, make_table(NET, inputs()))
    requantized = {d.layer for d in made.decisions if d.requantized}
    # stem → depth → wide → Split → {left, right}; those feed a sum, and an inner product is never requantized
    assert requantized == {"stem", "depth", "wide"}
    assert made.net.layer("depth").integer(8) == 101
    assert made.net.layer("left").integer(8) == 2
    assert made.net.layer("dense").integer(8) == 2
    top = made.net.layer("wide").blob("top_scale")
    bottom = made.net.layer("left").blob("bottom_scale")
    assert top is not None
    assert bottom is not None
    assert top.data == bottom.data


def test_a_split_with_a_float_branch_stays_float() -> None:
    made = quantize(NET, make_table(NET, inputs()), keep=["right"])
    assert "wide" not in {d.layer for d in made.decisions if d.requantized}
    decision = next(d for d in made.decisions if d.layer == "right")
    assert (decision.state, decision.why) == ("fp16", "kept in fp16 on request")


def test_a_split_with_an_output_stays_float() -> None:
    layers = tuple(replace(la, tops=("4", "5", "extra")) if la.name == "fork" else la for la in NET.layers)
    net = replace(NET, layers=layers, blob_count=13)
    made = quantize(net, make_table(NET, inputs()))
    assert "wide" not in {d.layer for d in made.decisions if d.requantized}


def test_the_wheel_loads_it_and_comes_close() -> None:
    table = make_table(NET, inputs())
    made = quantize(NET, table)
    for x in inputs():
        (exact, last), (rough, _) = Runner(NET).run(x, ["8", "out0"]), Runner(made.net).run(x, ["8", "out0"])
        assert last.shape == (5,)
        assert np.vdot(exact, rough) > 0.97 * np.linalg.norm(exact) * np.linalg.norm(rough)


def test_weights_round_half_away_from_zero() -> None:
    layer = fmt.Layer(
        "Convolution", "c", ("a",), ("b",), ((0, "1"), (6, "4")),
        blobs=(fmt.Blob("weight", np.array([0.5, -0.5, 1.49, 300], np.float32), 0),),
    )  # fmt: skip
    assert quantize_weights(layer, np.ones(1, np.float32)).tolist() == [1, -1, 1, 127]


def test_other_roundings_can_be_given() -> None:
    table = make_table(NET, inputs())
    q = quantize_weights(NET.layer("wide"), table.weights["wide"])
    made = quantize(NET, table, weights={"wide": -q})
    blob = made.net.layer("wide").blob("weight")
    assert blob is not None
    assert (blob.data == -q).all()
    with pytest.raises(OnnxlintError, match="layer 'wide' got 3 int8 weights for 128"):
        quantize(NET, table, weights={"wide": q[:3]})


def test_unknown_layer_to_keep() -> None:
    with pytest.raises(OnnxlintError, match="has no layer 'nope' to keep in fp16"):
        quantize(NET, make_table(NET, inputs()), keep=["nope"])


def test_an_int8_net_is_not_quantized_again() -> None:
    table = make_table(NET, inputs())
    once = quantize(NET, table).net
    again = quantize(once, table)
    assert fmt.dump_bin(again.net) == fmt.dump_bin(once)
    assert {d.why for d in again.decisions} == {"is int8 already"}
