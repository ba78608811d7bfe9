"""How reports write numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint import text as numbers


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (numbers.db(41.371), "41.37 dB"),
        (numbers.db(math.inf), "exact"),
        (numbers.db(None), "–"),
        (numbers.gain(4.96), "+4.96 dB"),
        (numbers.gain(-0.3), "-0.30 dB"),
        (numbers.gain(math.inf), "–"),
        (numbers.share(0.1234), "12.3 %"),
        (numbers.share(1e-6), "< 0.1 %"),
        (numbers.share(0.0), "0.0 %"),
        (numbers.cosine(0.998765), "0.99877"),
        (numbers.cosine(0.99999712), "0.99999712"),
        (numbers.cosine(1.0), "1.00000"),
        (numbers.magnitude(4.5321e-7), "4.53e-07"),
        (numbers.milliseconds(14.23), "14.2 ms"),
        (numbers.milliseconds(0.0421), "0.042 ms"),
        (numbers.milliseconds(1312.0), "1.31 s"),
        (numbers.size(28), "28 bytes"),
        (numbers.size(1), "1 byte"),
        (numbers.size(853632), "853.6 KB"),
        (numbers.size(999_960), "1.0 MB"),
        (numbers.size(2_000_000_000_000_000), "2000.0 TB"),
        (numbers.quantity(426608), "426,608"),
        (numbers.shape((1, 16800, 4)), "1×16800×4"),
        (numbers.shape(()), "scalar"),
        (numbers.metric("found", 27), "27"),
        (numbers.metric("missed", 1.0), "1"),
        (numbers.metric("extra", 0.0), "0"),
        (numbers.metric("found", 27.0), "27"),
        (numbers.metric("ap", 1.0), "1.0000"),
        (numbers.metric("ap", 0.51234), "0.5123"),
        (numbers.metric("ap", None), "–"),
        (numbers.metric("psnr", math.inf), "exact"),
    ],
)
def test_a_number_is_written_as_people_read_it(text: str, wanted: str) -> None:
    assert text == wanted


@given(st.floats(allow_nan=True) | st.integers(-(10**18), 10**18).map(float) | st.none())
def test_every_number_can_be_written(value: float | None) -> None:
    for write in (numbers.db, numbers.gain, numbers.share, numbers.cosine, numbers.magnitude, numbers.milliseconds):
        assert write(value)
    assert numbers.metric("x", value)


def test_a_word_inside_of_a_name_is_nearer_than_its_letters() -> None:
    from onnxlint.text import nearest

    rules = ["baked-size", "resize-by-sizes", "shape-chain"]
    assert nearest("resize", rules) == "resize-by-sizes"
    assert nearest("detect", ["classification", "detection"]) == "detection"
    assert nearest("crop", ["stretch", "center-crop"]) == "center-crop"
    assert nearest("nccn", ["onnx-fp16", "ncnn", "ncnn-int8"]) == "ncnn"
    assert nearest("--concat-head", ["--concat-axis", "--concat-heads"]) == "--concat-heads"
    assert nearest("NOPE", ["OPS", "SHP"]) is None
