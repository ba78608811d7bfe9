"""`onnxlint ncnn table` and `onnxlint ncnn quantize`, as they are typed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from onnxlint.backends.ncnn.calibrate import make_table
from onnxlint.backends.ncnn.format import Blob, load, save
from onnxlint.backends.ncnn.table import dump_table, load_table
from onnxlint.cli.app import run
from tests.support.ncnn_nets import DATA, REFERENCE, inputs, needs_data, small

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a net and its inputs."""
    monkeypatch.chdir(tmp_path)
    save(small(), tmp_path / "net.param")
    np.savez(tmp_path / "images.npz", np.stack(inputs()))
    return tmp_path


def error(capsys: Output, *words: str) -> str:
    """The one line that a wrong command prints."""
    assert run(["ncnn", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .*\n", err), err
    return err


@needs_data
def test_what_people_paste_gives_the_reference_bytes(tmp_path: Path) -> None:
    images = sorted(str(path) for path in (DATA / "calibration").glob("*.png"))
    (tmp_path / "imagelist.txt").write_text("\r\n".join(images), encoding="utf-8")
    net = [str(REFERENCE / "fp32.param"), str(REFERENCE / "fp32.bin")]
    own = "mean=[104,117,123] norm=[1,1,1] shape=[640,640,3] pixel=BGR thread=2 method=aciq".split()
    table = str(tmp_path / "model.table")
    assert run(["ncnn", "table", *net, str(tmp_path / "imagelist.txt"), table, *own, "-q"]) == 0
    made, real = load_table(table), load_table(REFERENCE / "aciq" / "model.table")
    assert list(made.inputs) == list(real.inputs)
    for name, scales in real.inputs.items():
        assert np.allclose(made.inputs[name], scales, rtol=1e-6)
    out = [str(tmp_path / "int8.param"), str(tmp_path / "int8.bin")]
    assert run(["ncnn", "quantize", *net, *out, str(REFERENCE / "kl" / "model.table")]) == 0
    for path in out:
        assert Path(path).read_bytes() == (REFERENCE / "kl" / Path(path).name).read_bytes()


def test_layers_of_one_name(folder: Path, capsys: Output) -> None:
    """A table knows layers by their names: one of two would get the weights of the other."""
    assert run(["ncnn", "table", "net.param", "images.npz"]) == 0
    capsys.readouterr()
    text = (folder / "net.param").read_text()
    layers = [line.split() for line in text.splitlines()[2:]]
    first = next(words[1] for words in layers if words[0] == "Convolution")
    other = next(words[1] for words in layers if words[0] not in ("Convolution", "Input"))
    (folder / "net.param").write_text(re.sub(rf" {other} ", f" {first} ", text, count=1))
    said = f"error: net.param: 2 layers are called '{first}', so a table cannot tell them apart; rename them\n"
    assert error(capsys, "table", "net.param", "images.npz", "-o", "other.table") == said
    assert error(capsys, "quantize", "net.param", "o.param", "net.table") == said
    assert not (folder / "o.param").exists()


def test_what_is_left_out_lies_beside_the_param(folder: Path, capsys: Output) -> None:
    assert run(["ncnn", "table", "net.param", "images.npz"]) == 0
    assert capsys.readouterr().out == "net.table: 6 layers, kl, 4 images\n"
    expected = dump_table(make_table(small(), inputs(), "kl"))
    assert (folder / "net.table").read_text() == expected
    assert run(["ncnn", "quantize", "net.param", "out.param", "--keep", "left,dense"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("out.param: 4 of 6 layers with weights are int8\n")
    assert "  dense (InnerProduct): fp16, kept in fp16 on request\n" in out
    assert load(folder / "out.param").layer("stem").integer(8)


def test_what_int8_costs_is_measured_on_images(folder: Path, capsys: Output) -> None:
    losses = []
    for method in ("kl", "eq"):
        run(["ncnn", "table", "net.param", "images.npz", "--method", method, "-q"])
        capsys.readouterr()
        assert run(["ncnn", "quantize", "net.param", "out.param", "net.table", "--images", "images.npz"]) == 0
        out, err = capsys.readouterr()
        measured = re.search(r"^mean SNR of the outputs on 4 images: ([\d.]+) dB$", out, re.MULTILINE)
        assert measured
        losses.append(float(measured[1]))
        assert ("--to ncnn-int8' (--method auto) usually loses less" in err) == (losses[-1] < 20)
    assert losses[0] < losses[1]
    assert run(["ncnn", "quantize", "net.param", "out.param", "net.table"]) == 0
    assert "or run 'onnxlint compare net.param out.param --images IMAGES" in capsys.readouterr().err


def test_outputs_that_are_not_finite_are_said_to_be(folder: Path, capsys: Output) -> None:
    assert run(["ncnn", "table", "net.param", "images.npz"]) == 0
    net = load(folder / "net.param")
    dense = net.layer("dense")
    bias = Blob("bias", np.full(dense.integer(0), np.inf, np.float32))
    save(net.with_layers({"dense": dense.with_blobs(bias)}), folder / "net.param", folder / "net.bin")
    assert run(["ncnn", "quantize", "net.param", "out.param", "net.table", "--images", "images.npz"]) == 0
    assert "mean SNR of the outputs on 4 images: none, they are NaN or infinite\n" in capsys.readouterr().out


def test_traps_of_an_edited_table_are_printed_with_their_lines(folder: Path, capsys: Output) -> None:
    run(["ncnn", "table", "net.param", "images.npz", "--method", "aciq", "-q"])
    rows = (folder / "net.table").read_text().splitlines()
    rows[0] = "#" + rows[0]
    rows.insert(2, "")
    (folder / "net.table").write_text("\n".join(rows))
    capsys.readouterr()
    assert run(["ncnn", "quantize", "net.param", "out.param", "net.table"]) == 0
    out, err = capsys.readouterr()
    assert "net.table: line 1: row of 'stem' is commented out" in err
    assert "net.table: line 3: blank line" in err
    assert "5 of 6" in out


def test_wrong_command_lines(folder: Path, capsys: Output) -> None:
    assert "--method auto: ncnn's int8 knows kl, aciq and eq" in error(
        capsys, "table", "net.param", "images.npz", "--method", "auto"
    )
    assert "method is given twice" in error(capsys, "table", "net.param", "images.npz", "method=kl", "--method", "kl")
    assert "thread=no: 'no' is not a whole number" in error(capsys, "table", "net.param", "images.npz", "thread=no")
    assert "type=0" in error(capsys, "table", "net.param", "images.npz", "type=1")
    assert "missing argument: IMAGES" in error(capsys, "table", "net.param")
    assert "is not a .param file" in error(capsys, "table", "net.bin", "images.npz")
    assert "unexpected argument: c" in error(capsys, "table", "net.param", "images.npz", "b.table", "c")
    assert "net.table: cannot be read" in error(capsys, "quantize", "net.param", "out.param")
    assert "give another name" in error(capsys, "quantize", "net.param", "./net.param")
    assert "wrong files: write" in error(capsys, "quantize", "net.param")
    assert sorted(path.name for path in folder.iterdir()) == ["images.npz", "net.bin", "net.param"]


def test_a_table_of_another_model(folder: Path, capsys: Output) -> None:
    (folder / "other.table").write_text("a_param_0 1.0 \nb_param_0 1.0 \na 1.0 \nb 1.0 \n")
    assert "it was made for another model" in error(capsys, "quantize", "net.param", "out.param", "other.table")


def test_nothing_is_left_where_the_disk_is_full(folder: Path, capsys: Output) -> None:
    resource = pytest.importorskip("resource")
    run(["ncnn", "table", "net.param", "images.npz", "-q"])
    capsys.readouterr()
    before = sorted(path.name for path in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert "out.bin: cannot be written: File too large" in error(capsys, "quantize", "net.param", "out.param")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in folder.iterdir()) == before
