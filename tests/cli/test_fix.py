"""`onnxlint fix` as a command: where results go, several models, and words for sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

from onnxlint.fixes.opset import NEWEST
from tests.support.command import onnxlint

MODEL = """
<ir_version: 8, opset_import: ["": 17]>
net (float[1,3,8,8] image) => (float[1,3,8,8] out, float[1,3,8,8] other) {
    same = Identity (image)
    out = Relu (same)
    other = Neg (same)
}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.onnx").write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nodes(path: Path) -> int:
    return len(onnx.load(path).graph.node)


def test_one_model_to_a_file(here: Path) -> None:
    outcome = onnxlint("fix", "a.onnx", "-o", "fixed.onnx", "--no-verify")
    assert outcome.code == 0, outcome.err
    assert "wrote fixed.onnx" in outcome.out
    assert (nodes(here / "a.onnx"), nodes(here / "fixed.onnx")) == (3, 2)


def test_several_models(here: Path) -> None:
    (here / "broken.onnx").write_bytes(b"broken")
    outcome = onnxlint("fix", "a.onnx", "b.onnx", "broken.onnx", "--out-dir", "out", "--no-verify")
    assert outcome.code == 2
    assert "broken.onnx" in outcome.err
    assert [nodes(here / "out" / name) for name in ("a.onnx", "b.onnx")] == [2, 2]
    outcome = onnxlint("fix", "a.onnx", "b.onnx", "--in-place", "--no-verify", "--fail-on-change")
    assert outcome.code == 1
    assert [nodes(here / name) for name in ("a.onnx", "b.onnx")] == [2, 2]
    assert onnxlint("fix", "a.onnx", "b.onnx", "--in-place", "--no-verify", "--fail-on-change").code == 0
    assert onnxlint("fix", ".", "--dry-run", "--no-verify").out.count("Nothing to fix") == 4


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("a.onnx new.onnx", "no output given: use -o FILE, --in-place, --out-dir DIR or --diff; did you mean "
         "'onnxlint fix a.onnx -o new.onnx'?"),
        ("a.onnx b.onnx", "no output given: use -o FILE, --in-place, --out-dir DIR or --diff"),
        ("a.onnx b.onnx -o c.onnx", "-o names one file, and 2 models are given: use --out-dir DIR or --in-place"),
        ("a.onnx -o c.onnx --in-place", "-o and --in-place cannot be used together: each names the output"),
        ("- --in-place", "--in-place cannot be used with stdin: there is no file to replace"),
        ("a.onnx --diff --rename image", "--rename: 'image' is not of the form OLD=NEW"),
        ("a.onnx --diff --inputs none.npz", "--inputs none.npz: no such file; check the path"),
        ("a.onnx --diff --opset 99", f"--opset 99: operator sets up to {NEWEST} can be written; give a lower one"),
        ("a.onnx --diff --bind image", "--bind: 'image' is not of the form NAME=VALUE"),
        ("a.onnx --diff --static height", "--static height: name the input, such as --static 'image=1,3,8,8'"),
        ("a.onnx --diff --dynamic hight", "--dynamic 'hight': write it as --dynamic 'image=1,3,8,8'"),
    ],
)  # fmt: skip
def test_mistakes(here: Path, words: str, problem: str) -> None:
    outcome = onnxlint("fix", *words.split())
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {problem}\n")


def test_axes_by_their_names(here: Path) -> None:
    outcome = onnxlint("fix", "a.onnx", "-o", "free.onnx", "--dynamic", "height,width", "--no-verify")
    assert outcome.code == 0, outcome.err
    shape = onnx.load(here / "free.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == [1, 3, "height", "width"]


def test_heads_and_flags_together(here: Path) -> None:
    by_name = onnxlint("fix", "a.onnx", "-o", "x.onnx", "--heads", "other,out", "--axis", "1", "--no-verify")
    assert by_name.code == 0, by_name.err
    old = onnxlint("fix", "a.onnx", "-o", "y.onnx", "--concat-heads", "other,out", "--axis", "1", "--no-verify")
    assert old.code == 0
    assert (here / "x.onnx").read_bytes() == (here / "y.onnx").read_bytes()
    assert "0:3, out 3:6" in by_name.out


def test_no_hint_tells_to_overwrite_a_model(tmp_path: Path) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        path.write_bytes(b"")
    outcome = onnxlint("fix", *map(str, paths))
    assert outcome.code == 2
    assert outcome.err == "error: no output given: use -o FILE, --in-place, --out-dir DIR or --diff\n"
