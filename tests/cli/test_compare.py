"""`onnxlint compare`, typed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from unittest import mock

import pytest

from fixtures import pictures
from tests.support.accuracy_models import SIZE, detector, images, rough
from tests.support.command import onnxlint

RECIPE = ("--mean", "[100,110,120]", "--norm", "1/64,1/64,1/64", "--no-latency", "--isolated")


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str, str]:
    """A reference, a candidate and pictures."""
    return (
        detector(tmp_path / "net.onnx"),
        detector(tmp_path / "worse.onnx", changed=rough("w1")),
        images(tmp_path / "pictures.npy"),
    )


def test_a_table_and_exit_code_0(models: tuple[str, str, str]) -> None:
    reference, candidate, pictures = models
    done = onnxlint("compare", reference, candidate, "--images", pictures, *RECIPE)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("No candidate is close to net.onnx (at least 30 dB in the worst output)")
    assert done.out.splitlines()[3].endswith(
        f"--shape {SIZE},{SIZE},3 --mean 100,110,120 --norm 0.015625,0.015625,0.015625 --pixel BGR --resize stretch)"
    )
    assert "net.onnx    reference" in done.out
    assert "\nworse.onnx\n  output  compared with" in done.out


def test_a_condition_that_holds_is_exit_code_1(models: tuple[str, str, str]) -> None:
    reference, candidate, pictures = models
    words = ("compare", reference, candidate, "--images", pictures, *RECIPE, "--fail-if")
    done = onnxlint(*words, "snr<90")
    assert done.code == 1
    assert "failed: worse.onnx: snr<90: snr is " in done.out
    assert onnxlint(*words, "snr<1").code == 0
    assert onnxlint(*words, "snr<1", "--fail-if", "cosine<0.999999999").code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fail-if", "cosin<1"), "no such metric: 'cosin'; did you mean 'cosine'?"),
        (("--format", "htm"), "did you mean 'html'?"),
        (("--task", "detecton"), "did you mean 'detection'?"),
        (("--labels", "x.txt"), "--labels needs --task"),
        (("--layer",), "did you mean '--layers'?"),
        (("--preset", "yolo"), "no preset is called 'yolo'"),
        (("--images", "pictures/none"), "pictures/none: no such file or folder; give --images a folder"),
        (("--task", "detection", "--labels", "none.txt"), "none.txt: no such labels"),
        (("--config=",), "--config: needs a value (FILE)"),
        (("-o", "none/report.json"), "no such folder"),
    ],
)
def test_what_is_misspelt_is_one_line_and_exit_code_2(
    models: tuple[str, str, str], words: tuple[str, ...], message: str
) -> None:
    reference, candidate, pictures = models
    done = onnxlint("compare", reference, candidate, "--images", pictures, *RECIPE, *words)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("onnxruntime", (), "convert"),
        ("pycocotools", ("--task", "detection"), "tasks"),
        ("skimage", ("--task", "super_resolution"), "tasks"),
        ("ray", ("--engine", "ray"), "ray"),
        ("PIL", (), "convert"),
    ],
)
def test_a_missing_package_is_said_before_a_process_is_started(
    models: tuple[str, str, str], tmp_path: Path, package: str, words: tuple[str, ...], extra: str
) -> None:
    reference, candidate, _ = models
    pictures.build(tmp_path / "photos", 1, SIZE, SIZE)
    real = importlib.util.find_spec
    with (
        mock.patch("importlib.util.find_spec", lambda name, *more: None if name == package else real(name, *more)),
        mock.patch("onnxlint.accuracy.worker.in_child", side_effect=AssertionError),
    ):
        done = onnxlint("compare", reference, candidate, "--images", tmp_path / "photos", *RECIPE, *words)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"pip install 'onnxlint[{extra}]'" in done.err


@pytest.mark.parametrize(("ending", "package", "extra"), [(".param", "ncnn", "ncnn"), (".xml", "openvino", "openvino")])
def test_a_missing_runtime_of_a_candidate_names_the_file(
    models: tuple[str, str, str], tmp_path: Path, ending: str, package: str, extra: str
) -> None:
    candidate = tmp_path / f"net{ending}"
    for one in (candidate, candidate.with_suffix(".bin")):
        one.write_bytes(b"")
    real = importlib.util.find_spec
    with mock.patch("importlib.util.find_spec", lambda name, *more: None if name == package else real(name, *more)):
        done = onnxlint("compare", models[0], candidate, *RECIPE)
    way = f"{package} is not installed; install it with `pip install 'onnxlint[{extra}]'`, or compare the others without it"
    assert (done.code, done.err) == (2, f"error: {candidate}: {way}\n")


def test_a_report_goes_to_a_file(models: tuple[str, str, str], tmp_path: Path) -> None:
    reference, candidate, pictures = models
    file = tmp_path / "report.json"
    words = ("compare", reference, candidate, "--images", pictures, *RECIPE, "--layers", "--suggest")
    done = onnxlint(*words, "--format", "json", "-o", file)
    assert done.code == 0
    assert "worse.onnx" in done.out
    assert done.out.endswith(f"wrote {file}\n")
    report = json.loads(file.read_text())
    text = onnxlint(*words).out
    (one,) = report["candidates"]
    assert f"{one['snr_db']:.2f} dB" in text
    assert {layer["reference"] for layer in one["layers"]} >= {"conv0", "conv1", "conv2"}
    assert onnxlint(*words, "--format", "json").json == report


def test_the_recipe_of_the_configuration(models: tuple[str, str, str], tmp_path: Path) -> None:
    reference, candidate, pictures = models
    config = tmp_path / "onnxlint.toml"
    config.write_text(f'[recipe]\nimages = "{pictures}"\nmean = [100, 110, 120]\nnorm = "1/64,1/64,1/64"\n')
    words = ("compare", reference, candidate, "--no-latency", "--config", config, "--format", "json")
    by_file = onnxlint(*words).json
    by_words = onnxlint("compare", reference, candidate, "--images", pictures, *RECIPE, "--format", "json").json
    assert by_file == by_words
    assert onnxlint(*words, "--mean", "0,0,0").json != by_file
    config.write_text("[recipe]\nmean = [1, 2]\n")
    done = onnxlint(*words)
    assert done.code == 2
    assert "[recipe] of" in done.err


def test_what_cannot_be_compared(models: tuple[str, str, str], tmp_path: Path) -> None:
    reference, _, _ = models
    (tmp_path / "model.tflite").write_bytes(b"x")
    done = onnxlint("compare", reference, tmp_path / "model.tflite", "--isolated")
    assert done.code == 2
    assert "no backend runs such a file" in done.err
    assert onnxlint("compare", reference).code == 2


@pytest.mark.parametrize("typed", ["nets\\a.param", "nets/a.parm", "nets/aa.parm"])
def test_a_path_that_is_misspelt_or_written_as_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for name in ("a.bin", "a.onnx", "a.param", "a.table", "b.onnx"):
        (tmp_path / "nets" / name).write_bytes(b"")
    wanted = f"{typed}: no such file; did you mean 'nets/a.param'?"
    if typed.startswith("nets/aa"):
        (tmp_path / "nets" / "a.param").rename(tmp_path / "nets" / "aab.param")
        wanted = wanted.replace("a.param", "aab.param")
    assert onnxlint("compare", "nets/b.onnx", typed, "--isolated").err == f"error: {wanted}\n"
