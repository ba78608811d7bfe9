"""`onnxlint convert`: targets, files, the manifest, and what happens where something cannot be made."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import pytest

from fixtures import pictures, pitfalls
from onnxlint.accuracy.loss import loss_for
from onnxlint.api import convert
from onnxlint.conversion.manifest import read_manifest
from onnxlint.conversion.session import find_targets, repeat
from onnxlint.errors import OnnxlintError
from tests.support.command import onnxlint, save
from tests.support.optional import need

pytest.importorskip("onnxruntime")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

ALL_FILES = {
    "onnx-fp16": ["m_fp16.onnx"],
    "onnx-int8-dynamic": ["m_quan_dynamic.onnx"],
    "onnx-int8-static": ["m_quan_static.onnx"],
    "ncnn": ["m.param", "m.bin"],
    "ncnn-fp16": ["m_fp16.param", "m_fp16.bin"],
    "ncnn-int8": ["m_int8.param", "m_int8.bin", "m.table"],
    "tensorrt-fp16": ["m_tensorrt_fp16.onnx"],
    "tensorrt-int8": ["m_tensorrt_int8.onnx"],
    "mnn": ["m.mnn"],
    "mnn-fp16": ["m_fp16.mnn"],
    "openvino": ["m_openvino.xml", "m_openvino.bin"],
    "openvino-fp16": ["m_openvino_fp16.xml", "m_openvino_fp16.bin"],
    "openvino-int8": ["m_openvino_int8.xml", "m_openvino_int8.bin"],
}
HERE = [target.name for _, target in find_targets(["all"])]
"""Those whose packages are installed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fixed model `m.onnx`, the unfixed one `bad.onnx`, and pictures."""
    folder = tmp_path_factory.mktemp("convert")
    pitfalls.build(folder / "built")
    os.rename(folder / "built" / "pitfalls_fixed.onnx", folder / "m.onnx")
    os.rename(folder / "built" / "pitfalls.onnx", folder / "bad.onnx")
    pictures.build(folder / "images", 4, 96, 64)
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_targets_and_the_manifest_that_makes_them_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("_mnncengine")
    monkeypatch.chdir(place)
    out = onnxlint(
        *(
            "convert",
            "m.onnx",
            "--to",
            "all",
            "--images",
            "images",
            "--shape",
            "96,64,3",
            "--mean",
            "0,0,0",
            "--out-dir",
            str(tmp_path / "a"),
        )
    )
    assert out.code == 0, out.err
    made = {path.name for path in (tmp_path / "a").iterdir()}
    expected = {name: ALL_FILES[name] for name in HERE}
    assert made == {"m.onnxlint.json", *(name for names in expected.values() for name in names)}
    for target in expected:
        assert target in out.out

    document = read_manifest(str(tmp_path / "a" / "m.onnxlint.json"))
    assert {name: [file["path"] for file in entry["files"]] for name, entry in document["targets"].items()} == expected
    for entry in document["targets"].values():
        for file in entry["files"]:
            assert file["sha256"] == digest(tmp_path / "a" / file["path"])
    assert document["model"]["sha256"] == digest(place / "m.onnx")
    assert any(decision["state"] == "int8" for decision in document["targets"]["ncnn-int8"]["decisions"])

    again = repeat(  # judged by the same task, which the command recognizes
        str(tmp_path / "a" / "m.onnxlint.json"),
        out_dir=str(tmp_path / "b"),
        task=lambda path, entry: loss_for(path, entry.get("task"), entry.get("detection")),
    )
    assert not again.failures
    assert all("the same bytes" in note for note in again.notes)
    for name in made - {"m.onnxlint.json"}:
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name), name


def test_a_manifest_keeps_what_is_known_of_other_targets(place: Path, tmp_path: Path) -> None:
    convert(place / "m.onnx", ["onnx-fp16"], out_dir=str(tmp_path))
    convert(place / "m.onnx", ["onnx_quan_dy"], out_dir=str(tmp_path))
    assert set(read_manifest(str(tmp_path / "m.onnxlint.json"))["targets"]) == {"onnx-fp16", "onnx-int8-dynamic"}


def test_a_changed_model_is_not_converted_by_an_old_manifest(place: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes((place / "m.onnx").read_bytes())
    done = convert(tmp_path / "m.onnx", ["onnx-int8-dynamic"])
    (tmp_path / "m.onnx").write_bytes((place / "bad.onnx").read_bytes())
    with pytest.raises(OnnxlintError, match="is not the model that"):
        repeat(done.manifest)


def test_one_target_that_fails_does_not_stop_another(tmp_path: Path) -> None:
    save(
        tmp_path / "m.onnx",
        """<ir_version: 8, opset_import: ["": 17]> g (float[1,4] x) => (float[1,2] y)
        <float[4,2] w = {1,2,3,4,5,6,7,8}> { a = MatMul(x, w) y = Hardmax(a) }""",
    )
    out = onnxlint("convert", tmp_path / "m.onnx", "--to", "ncnn-fp16,onnx-int8-dynamic", "--out-dir", tmp_path / "out")
    assert out.code == 2
    assert "error: ncnn-fp16: " in out.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"m_quan_dynamic.onnx", "m.onnxlint.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "ncnn-int9"], "no such target: 'ncnn-int9'; did you mean 'ncnn-int8'?"),
        (["--to", "ncnn-int8"], "ncnn-int8 is calibrated with images"),
        (["--to", ","], "no target given"),
        ([], "missing --to (for example --to ncnn-int8)"),
        (["--to", "onnx-int8-static", "--images", "nowhere"], "nowhere: no such file or folder"),
        (["--to", "onnx-fp16", "--input-shape", "x=1,3"], "m.onnx has no such input"),
        (
            ["--to", "onnx-int8-static", "--images", "IMAGES", "--pixel", "GRAY"],
            "has 3 channels, and --pixel GRAY gives 1",
        ),
        (["--to", "ncnn", "--shape", "96,64,3", "--norm", "1e30,1e30,1e30"], "inputs would reach 2.55e+32"),
        (["--to", "onnx-fp16", "--budget", "much"], "'much' is not a percentage"),
        (["--to", "onnx-fp16", "--out-dir", "FILE"], "cannot be written to"),
    ],
)
def test_wrong_command_lines(place: Path, tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "file").write_text("x")
    words = {"IMAGES": str(place / "images"), "FILE": str(tmp_path / "file")}
    out = onnxlint("convert", str(place / "m.onnx"), *(words.get(word, word) for word in options))
    assert out.code == 2
    assert message in out.err
    assert out.err.count("\n") == 1
    assert not list(place.glob("m_*"))


def test_a_size_that_the_fix_did_not_allow(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "f.onnx"
    onnxlint("fix", place / "bad.onnx", "-o", model, "--multiple-of", "32", "--no-verify")
    out = onnxlint("convert", model, "--to", "ncnn", "--shape", "96,60,3")
    assert out.code == 2
    assert "60 violates the model's condition (height % 32 == 0): choose a --shape of multiples of 32" in out.err


def test_damaged_manifests(place: Path, tmp_path: Path) -> None:
    for text, message in (
        ("{", "is not a manifest"),
        ("[]", "is not a manifest"),
        (json.dumps({"format": 1, "targets": {}}), "is a damaged manifest: model is missing"),
    ):
        (tmp_path / "m.onnxlint.json").write_text(text)
        with pytest.raises(OnnxlintError, match=message):
            repeat(str(tmp_path / "m.onnxlint.json"))


def test_targets_are_named_once() -> None:
    names = [target.name for _, target in find_targets(["ncnn_quan", "all", "ncnn-int8"])]
    assert names[0] == "ncnn-int8"
    assert sorted(names) == sorted(HERE)


def test_all_leaves_out_what_is_not_installed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("ncnn", "openvino", "MNN") else there(name)
    )
    names = [target.name for _, target in find_targets(["all"])]
    assert "onnx-fp16" in names
    assert not [name for name in names if name.startswith(("ncnn", "openvino", "mnn"))]
    recipe = {"mean": "0,0,0", "shape": "96,64,3"}
    done = convert(place / "m.onnx", ["all"], images=place / "images", recipe=recipe, out_dir=str(tmp_path))
    assert [one.target for one in done.artifacts] == names
    assert "'all' leaves out ncnn: ncnn is not installed; install it with `pip install 'onnxlint[ncnn]'`" in done.notes
    with pytest.raises(OnnxlintError, match="ncnn is not installed"):
        convert(place / "m.onnx", ["ncnn"], recipe=recipe, out_dir=str(tmp_path))


def test_the_list_of_targets() -> None:
    out = onnxlint("convert", "--list")
    assert out.code == 0
    for name in HERE:
        assert name in out.out


def test_another_size_than_the_models_own(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "s.onnx"
    onnxlint("fix", place / "m.onnx", "-o", model, "--static", "input0=1,3,64,96", "--no-verify", "--exit-zero")
    out = onnxlint("convert", model, "--to", "onnx-fp16", "--preset", "retinaface")
    assert out.code == 0, out.err
    entry = read_manifest(str(tmp_path / "s.onnxlint.json"))["targets"]["onnx-fp16"]
    assert entry["job"]["recipe"]["size"] == [96, 64]
    out = onnxlint("convert", model, "--to", "onnx-fp16", "--preset", "retinaface", "--shape", "640,640,3")
    assert out.code == 2
    assert "is fixed to width 96 and height 64, not 640 and 640: use --shape 96,64,3, or make the sizes free" in out.err
