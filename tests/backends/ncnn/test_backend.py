"""The targets, and running what they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxlint.backends import Artifact, Job, find_target
from onnxlint.backends.ncnn.backend import BACKEND, Inputs
from onnxlint.backends.ncnn.format import Network, load, parse_bin, parse_param, save
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import NcnnSession
from onnxlint.backends.ncnn.table import load_table
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe, find_images
from tests.support.ncnn_nets import inputs, small

RECIPE = Recipe()


@pytest.fixture
def net(tmp_path: Path) -> str:
    save(small(), tmp_path / "a.param")
    return str(tmp_path / "a.param")


def images(*arrays: Any) -> ImageSet:
    return ImageSet("inputs.npz", arrays=np.stack(arrays))


def make(name: str, source: str, job: Job) -> Artifact:
    backend, target = find_target(name)
    assert backend.name == "ncnn"
    folder = Path(source).parent / name
    folder.mkdir(exist_ok=True)
    return BACKEND.make(target, source, tuple(str(folder / f"a{end}") for end in target.files), job)


# On so few numbers kl, and eq which starts from it, clip what matters to the last layer; the real tool's do, too.
@pytest.mark.parametrize(("method", "least_db"), [("kl", 2), ("aciq", 10), ("eq", 4), ("auto", 15)])
def test_int8_by_every_method(net: str, method: str, least_db: float) -> None:
    made = make("ncnn_quan", net, Job(RECIPE, images(*inputs()), method=method))
    assert made.details["method"] == method
    assert {one.state for one in made.decisions} == {"int8"}
    session = BACKEND.open(made.files[0])
    [y] = session.run({"in0": np.stack(inputs(2))})
    [truth] = BACKEND.open(net).run({"in0": np.stack(inputs(2))})
    assert y.shape == truth.shape == (2, 5)
    assert 10 * np.log10((truth**2).sum() / ((y - truth) ** 2).sum()) > least_db
    assert sum(Path(file).stat().st_size for file in BACKEND.files(made.files[0])) < 10_000
    if method == "auto":  # must not be taken for a table of the float net
        with pytest.raises(OnnxlintError, match="--method auto"):
            quantize(load(net), load_table(made.files[2]))
    else:
        again = quantize(load(net), load_table(made.files[2]))
        assert again.int8_layers == len(made.decisions)


def test_mixed_says_what_it_gains(net: str) -> None:
    job = Job(RECIPE, images(*inputs()), method="kl", mixed=True, budget=0.5, keep=("stem",))
    made = {one.layer: one for one in make("ncnn-int8", net, job).decisions}
    assert made["stem"].state == "fp16"
    assert made["stem"].why == "kept in fp16 on request"
    chosen = [one for one in made.values() if one.state == "fp16" and one.layer != "stem"]
    assert chosen
    assert all(one.gain_db and one.gain_db > 0 and one.bytes is not None for one in chosen)


def test_the_same_job_gives_the_same_bytes(net: str) -> None:
    job = Job(RECIPE, images(*inputs()), mixed=True, budget=0.3)
    one = [Path(file).read_bytes() for file in make("ncnn-int8", net, job).files]
    two = [
        Path(file).read_bytes()
        for file in make("ncnn-int8", net, Job(RECIPE, job.images, mixed=True, budget=0.3, threads=1)).files
    ]
    assert one == two


def test_fp16(net: str) -> None:
    made = make("ncnn_fp16", net, Job(RECIPE))
    assert {one.state for one in made.decisions} == {"fp16"}
    assert (
        BACKEND.parameters(made.files[0])
        == BACKEND.parameters(net)
        == sum(blob.data.size for layer in small().layers for blob in layer.blobs)
    )
    x = {"in0": np.stack(inputs(1))}
    [y], [truth] = BACKEND.open(made.files[0]).run(x), BACKEND.open(net).run(x)
    assert 10 * np.log10((truth**2).sum() / ((y - truth) ** 2).sum()) > 40


@pytest.mark.parametrize(
    ("given", "job", "problem"),
    [
        ([np.zeros((3, 24, 24), np.float32)] * 3, {}, "of one colour"),
        ([np.full((3, 24, 24), np.nan, np.float32)], {}, "holds NaN or infinity; check --mean and --norm"),
        ([np.ones((1, 24, 24), np.float32)], {}, "input 'in0' has 3 channels"),
        (inputs(1), {"method": "minmax"}, "--method minmax: ncnn's int8 knows auto, kl, aciq and eq"),
        (inputs(1), {"keep": ("stam",)}, "did you mean 'stem'"),
    ],
)
@pytest.mark.parametrize("method", ["kl", "auto"])
def test_bad_input_is_one_line(net: str, given: Any, job: dict[str, Any], problem: str, method: str) -> None:
    with pytest.raises(OnnxlintError, match=problem) as caught:
        make("ncnn-int8", net, Job(RECIPE, images(*given), **{"method": method, **job}))
    assert "\n" not in str(caught.value)
    assert not list((Path(net).parent / "ncnn-int8").iterdir())


def test_unreadable_images_are_named_and_left_out(net: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    image_module = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    image_module.fromarray(noise).save(folder / "fine.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    made = make("ncnn-int8", net, Job(Recipe(size=(24, 24)), find_images(folder), method="aciq"))
    assert any("1 of 2 images cannot be read" in note and "broken.png" in note for note in made.notes)


def test_the_wrong_size_is_found_before_ncnn_reads_beyond_its_memory() -> None:
    text = "7767517\n2 2\nInput in 0 1 in\nInnerProduct dense 1 1 a out 0=2 1=0 2=96\n".replace(
        "InnerProduct", "Pooling p 1 1 in a 0=1 1=2 2=2\nInnerProduct"
    ).replace("2 2\n", "3 3\n", 1)
    net = parse_bin(parse_param(text), bytes(4) + np.ones(96, "<f4").tobytes())
    session = NcnnSession(net)
    assert session.run({"in": np.ones((1, 3, 8, 8), np.float32)})[0].shape == (1, 2)
    with pytest.raises(OnnxlintError, match=r"'dense' takes 48 numbers and gets 192 .*--shape"):
        session.run({"in": np.ones((1, 3, 16, 16), np.float32)})
    with pytest.raises(OnnxlintError, match="--shape"):
        list(Inputs(net, images(np.ones((3, 16, 16), np.float32)), RECIPE, 1))


def test_a_session_takes_inner_values_and_several_inputs(net: str) -> None:
    session = BACKEND.open(net)
    assert session.inputs[0].shape == (None, 3, None, None)
    assert ("sum", "BinaryOp") not in session.tensors()
    assert ("8", "BinaryOp") in session.tensors()
    x = np.stack(inputs(2))
    [inner] = session.run({"in0": x}, ["8"])
    assert inner.shape[:2] == (2, 16)
    [changed] = session.run({"in0": x, "8": np.zeros_like(inner)})
    assert np.allclose(changed[0], changed[1])
    assert not np.allclose(changed, session.run({"in0": x})[0])
    with pytest.raises(OnnxlintError, match="no blob 'nine'"):
        session.run({"in0": x}, ["nine"])
    with pytest.raises(OnnxlintError, match="no values for its input 'in0'"):
        session.run({})
    two = NcnnSession(_sum())
    a, b = np.ones((1, 2, 3, 3), np.float32), np.full((1, 2, 3, 3), 2, np.float32)
    assert (two.run({"b": b, "a": a})[0] == 3).all()
    assert [port.name for port in two.inputs] == ["a", "b"]


def _sum() -> Network:
    return parse_param("7767517\n3 3\nInput a 0 1 a\nInput b 0 1 b\nBinaryOp s 2 1 a b out 0=0\n")


def test_int8_blobs_come_out_as_floats(net: str) -> None:
    made = make("ncnn-int8", net, Job(RECIPE, images(*inputs()), method="kl"))
    assert load(made.files[0]).layer("stem").integer(8) > 100
    x = {"in0": np.stack(inputs(1))}
    [y], [truth] = BACKEND.open(made.files[0]).run(x, ["1"]), BACKEND.open(net).run(x, ["1"])
    assert 10 * np.log10((truth**2).sum() / ((y - truth) ** 2).sum()) > 15


def test_a_net_of_two_inputs_is_not_calibrated(tmp_path: Path) -> None:
    save(_sum(), tmp_path / "a.param")
    with pytest.raises(OnnxlintError, match=r"has 2 inputs \(a, b\)"):
        make("ncnn-int8", str(tmp_path / "a.param"), Job(RECIPE, images(*inputs(1))))


@pytest.mark.parametrize(("damage", "problem"), [(None, "cannot be read"), (100, "the .bin is cut")])
def test_a_bin_that_is_missing_or_short(net: str, damage: int | None, problem: str) -> None:
    weights = Path(net).with_suffix(".bin")
    if damage is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:damage])
    with pytest.raises(OnnxlintError, match=problem) as caught:
        BACKEND.open(net)
    assert "\n" not in str(caught.value)
