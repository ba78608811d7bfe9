"""`onnxlint compare`, typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
