"""`.param` and `.bin`: the real tools' bytes, and what broken files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxlint.backends.ncnn import format as fmt
from onnxlint.errors import OnnxlintError
from tests.support.ncnn_nets import REFERENCE, SMALL, needs_data, small


@needs_data
@pytest.mark.parametrize("name", ["fp32", "fp16", "kl/int8", "aciq/int8"])
def test_real_files_come_back_byte_for_byte(name: str) -> None:
    net = fmt.load(REFERENCE / f"{name}.param")
    assert fmt.dump_param(net).encode() == (REFERENCE / f"{name}.param").read_bytes()
    assert fmt.dump_bin(net) == (REFERENCE / f"{name}.bin").read_bytes()


@needs_data
def test_fp16_has_the_bytes_of_ncnnoptimize() -> None:
    net = fmt.to_fp16(fmt.load(REFERENCE / "fp32.param"))
    assert fmt.dump_bin(net) == (REFERENCE / "fp16.bin").read_bytes()
    assert fmt.dump_param(net).encode() == (REFERENCE / "fp16.param").read_bytes()


def test_small_net_round_trips() -> None:
    net = small()
    again = fmt.parse_bin(fmt.parse_param(fmt.dump_param(net)), fmt.dump_bin(net))
    assert fmt.dump_param(again) == SMALL
    assert fmt.dump_bin(again) == fmt.dump_bin(net)


def test_fp16_keeps_subnormals_and_leaves_what_overflows() -> None:
    tiny = np.array([6e-8, -3e-6, 1.0, 0.0], np.float32)
    half = fmt.half_blob(fmt.Blob("weight", tiny, 0))
    assert half.data.dtype == np.float16
    assert (half.data != 0).tolist() == [True, True, True, False]
    huge = fmt.Blob("weight", np.array([7e4], np.float32), 0)
    assert fmt.half_blob(huge) is huge
    raw = fmt.Blob("bias", tiny)
    assert fmt.half_blob(raw) is raw


def test_codebook_weights_are_read() -> None:
    param = "7767517\n2 2\nInput i 0 1 a\nInnerProduct d 1 1 a b 0=1 2=3\n"
    book = np.arange(256, dtype="<f4")
    data = (7).to_bytes(4, "little") + book.tobytes() + bytes([3, 255, 0, 0])
    net = fmt.parse_bin(fmt.parse_param(param), data)
    weight = net.layer("d").blob("weight")
    assert weight is not None
    assert weight.values().tolist() == [3, 255, 0]
    assert fmt.dump_bin(net) == data


def test_parameters_stay_in_the_order_of_the_tools() -> None:
    layer = fmt.parse_param(SMALL).layer("stem").with_param(8, "102")
    assert [k for k, _ in layer.params] == [0, 1, 3, 4, 5, 6, 8, 9, 10]
    assert layer.with_param(8, None) == fmt.parse_param(SMALL).layer("stem")
    assert layer.numbers(10) == (0.1,)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda s: "", "does not begin with 7767517"),
        (lambda s: s[:8], "ends after its first line"),
        (lambda s: s.replace("11 12", "12 12"), "says 12 layers and holds 11"),
        (lambda s: s.replace("11 12", "11 3"), "says 3 blobs and holds 12"),
        (lambda s: s.replace("11 12", "11"), ":2: expected 'layers blobs'"),
        (lambda s: s.replace("1 1 2 3", "1 1 99 3"), ":6: layer 'wide': reads blob '99', which no earlier layer makes"),
        (lambda s: s.replace("1 1 2 3", "1 1 2 2"), "makes blob '2', which another layer already makes"),
        (lambda s: s.replace("6=128", "6=many"), "parameter 6=many should be an integer"),
        (lambda s: s.replace("6=128", "6=1?"), "'1?' should be a number"),
        (lambda s: s.replace("6=128", "6"), "'6' should be id=value"),
        (lambda s: s.replace("-23310=1,1", "-23310=2,1"), "array parameter 10 says 2 values and holds 1"),
        (lambda s: s.replace("2 1 6 7 8", "9 1 6 7 8"), "the line ends before their names"),
        (lambda s: s.replace("0=5 1=1", "0=5 0=5"), "parameter 0 is given twice"),
    ],
)
def test_broken_param_names_line_and_problem(edit, problem: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OnnxlintError) as error:
        fmt.parse_bin(fmt.parse_param(edit(SMALL), "net.param"), fmt.dump_bin(small()), "net.bin")
    assert problem in str(error.value)
    assert str(error.value).startswith("net.")
    assert "\n" not in str(error.value)


def test_broken_bin_names_the_layer() -> None:
    net, data = fmt.parse_param(SMALL, "n.param"), fmt.dump_bin(small())
    with pytest.raises(OnnxlintError, match=r"^n.bin: layer 'dense' \(InnerProduct\): needs 20 bytes at offset"):
        fmt.parse_bin(net, data[:-1], "n.bin")
    with pytest.raises(OnnxlintError, match="4 bytes are left after the last layer"):
        fmt.parse_bin(net, data + bytes(4), "n.bin")
    lying = fmt.parse_param(SMALL.replace("6=216", "6=99999999999"), "n.param")
    with pytest.raises(OnnxlintError, match=r"layer 'stem'.*needs 399999999996 bytes"):
        fmt.parse_bin(lying, data, "n.bin")
    with pytest.raises(OnnxlintError, match="would have -1 elements"):
        fmt.parse_bin(fmt.parse_param(SMALL.replace("6=216", "6=-1")), data, "n.bin")


def test_binary_instead_of_text_is_told() -> None:
    with pytest.raises(OnnxlintError, match=r"not a text \.param file"):
        fmt.parse_param(b"\xdd\x85\x76\x00", "n.param")


def test_names_from_files_are_never_echoed_raw() -> None:
    with pytest.raises(OnnxlintError) as error:
        fmt.parse_param("7767517\n1 1\nInput \x1b[31m 0 x y\n", "n.param")
    assert "\x1b" not in str(error.value)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match="cannot be read"):
        fmt.load(tmp_path / "none.param")
    with pytest.raises(OnnxlintError, match="cannot be written"):
        fmt.save(small(), tmp_path / "no" / "folder.param")


def test_save_and_load(tmp_path: Path) -> None:
    net = small()
    param, weights = fmt.save(net, tmp_path / "n.param")
    assert (param.name, weights.name) == ("n.param", "n.bin")
    assert fmt.dump_bin(fmt.load(param)) == fmt.dump_bin(net)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.bin", "n.param"]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SMALL)), st.integers(0, 40), st.text(max_size=12))
@example(0, 0, "\0")
def test_edited_param_is_read_or_refused(at: int, cut: int, paste: str) -> None:
    text = SMALL[:at] + paste + SMALL[at + cut :]
    try:
        net = fmt.parse_bin(fmt.parse_param(text), fmt.dump_bin(small()))
    except OnnxlintError:
        return
    assert fmt.dump_bin(net) == fmt.dump_bin(small())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 12_000))
def test_garbage_bin_is_read_or_refused(garbage: bytes, at: int) -> None:
    data = fmt.dump_bin(small())
    at = min(at, len(data))
    net = fmt.parse_param(SMALL)
    try:
        got = fmt.parse_bin(net, data[:at] + garbage + data[at + len(garbage) :])
    except OnnxlintError:
        return
    assert len(fmt.dump_bin(got)) >= len(data)


def test_every_layer_type_with_weights_has_slots() -> None:
    for kind, slots in fmt.SLOTS.items():
        layer = fmt.Layer(kind, "x", (), (), ((0, "4"), (1, "1"), (2, "8")))
        for _, _, size in slots(replace(layer)):
            assert size >= 0
