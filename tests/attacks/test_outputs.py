"""Nothing is lost: no output replaces an input, a model, or weights that a model needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model.protect import identity, note_of
from onnxlint.model.save import copy, save
from onnxlint.model.scratch import PREFIX
from onnxlint.model.skeleton import open_model
from tests.support.command import onnxlint

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
net (float[1,2048] x) => (float[1,2048] y) {
    a = Identity (x)
    y = Add (a, w)
}
"""


def model(first: float = 0) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT)
    made.graph.initializer.append(numpy_helper.from_array(np.arange(first, first + 2048, dtype=np.float32), "w"))
    return made


def external(folder: Path, name: str = "ext.onnx", data: str = "ext.bin", first: float = 0) -> Path:
    """A model whose weights lie in another file."""
    folder.mkdir(exist_ok=True)
    onnx.save_model(
        model(first), folder / name, save_as_external_data=True, all_tensors_to_one_file=True, location=data
    )
    return folder / name


def inline(folder: Path, name: str = "a.onnx") -> Path:
    (folder / name).write_bytes(model().SerializeToString())
    return folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with inline weights, two with weights in other files, a table and a link."""
    monkeypatch.chdir(tmp_path)
    inline(tmp_path)
    external(tmp_path)
    external(tmp_path, "other.onnx", "other.data", 5)
    external(tmp_path, "letters.onnx", "ascii.bin")
    (tmp_path / "ascii.bin").write_bytes(b"A" * (tmp_path / "ascii.bin").stat().st_size)  # weights that look like text
    (tmp_path / "own.toml").write_text('select = ["GRF"]\n')
    (tmp_path / "known.json").write_text('{"onnxlint-baseline": 1, "models": {}}')
    (tmp_path / "notes.data").write_bytes(b"\x00\x01 somebody's")
    (tmp_path / "link.onnx").symlink_to("a.onnx")
    for name in ("net.param", "net.bin", "net.table", "list.txt"):
        (tmp_path / name).write_bytes(b"\x00" if name == "net.bin" else b"text")
    (tmp_path / "pictures").mkdir()
    os.link(tmp_path / "a.onnx", tmp_path / "hard.bin")
    return tmp_path


REFUSED = [
    # Reports
    ("check", "a.onnx", "-o", "a.onnx"),
    ("check", "a.onnx", "-o", "./a.onnx"),
    ("check", "a.onnx", "-o", "link.onnx"),
    ("check", "a.onnx", "-o", "hard.bin"),
    ("check", "a.onnx", "-o", "other.onnx"),
    ("check", "ext.onnx", "-o", "ext.bin"),
    ("check", "a.onnx", "-o", "ext.bin"),
    ("check", ".", "-o", "other.data"),
    ("check", "a.onnx", "--format", "json", "--output", "a.onnx"),
    ("compare", "a.onnx", "other.onnx", "-o", "a.onnx"),
    ("compare", "a.onnx", "other.onnx", "-o", "other.onnx"),
    ("compare", "ext.onnx", "other.onnx", "-o", "ext.bin"),
    ("check", "a.onnx", "-o", "ascii.bin"),
    ("check", "a.onnx", "--config", "own.toml", "-o", "own.toml"),
    ("check", "a.onnx", "--baseline", "known.json", "-o", "known.json"),
    ("diff", "a.onnx", "other.onnx", "-o", "a.onnx"),
    ("diff", "a.onnx", "other.onnx", "-o", "link.onnx"),
    ("diff", "a.onnx", "a.onnx", "-o", "other.onnx"),
    ("diff", "a.onnx", "other.onnx", "--no-check", "-o", "ext.bin"),
    ("diff", "a.onnx", "other.onnx", "--config", "own.toml", "-o", "own.toml"),
    ("bot", "--write", "ext.onnx"),
    ("bot", "--write", "ext.bin"),
    ("ncnn", "table", "net.param", "net.bin", "pictures", "net.bin"),
    ("ncnn", "table", "net.param", "net.bin", "pictures", "ext.bin"),
    ("ncnn", "table", "net.param", "net.bin", "pictures", "a.onnx"),
    ("ncnn", "table", "net.param", "net.bin", "list.txt", "-o", "list.txt"),
    ("ncnn", "quantize", "net.param", "net.bin", "int8.param", "net.bin", "net.table"),
    ("ncnn", "quantize", "net.param", "net.bin", "int8.param", "ext.bin", "net.table"),
    # Models
    ("convert", "ext.onnx", "--to", "ncnn"),
    ("convert", "ext.onnx", "--to", "onnx-fp16,ncnn"),
    ("fix", "a.onnx", "-o", "a.onnx"),
    ("fix", "a.onnx", "-o", "link.onnx"),
    ("fix", "a.onnx", "-o", "hard.bin"),
    ("fix", "ext.onnx", "-o", "ext.bin"),
    ("fix", "a.onnx", "-o", "ext.bin"),
    ("fix", "ext.onnx", "-o", "other.data", "--inline"),
    # Weights
    ("fix", "ext.onnx", "-o", "new.onnx", "--external-data", "ext.bin"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "ext.bin"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "other.data"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "notes.data"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "a.onnx"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "other.onnx"),
    ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "new.onnx"),
    ("fix", "ext.onnx", "--in-place", "--external-data", "other.data"),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused_with_one_line_and_nothing_lost(here: Path, words: tuple[str, ...]) -> None:
    before = contents(here)
    outcome = onnxlint(*words)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert contents(here) == before


@pytest.mark.parametrize(
    "words",
    [
        ("check", "a.onnx", "-o", "report.txt"),
        ("fix", "a.onnx", "-o", "new.onnx"),
        ("fix", "a.onnx", "--in-place"),
        ("fix", "ext.onnx", "--in-place"),
        ("fix", "ext.onnx", "--in-place", "--inline"),
        ("fix", "ext.onnx", "--in-place", "--external-data", "ext.bin"),
        ("fix", "ext.onnx", "--in-place", "--external-data", "fresh.bin"),
        ("fix", "a.onnx", "-o", "new.onnx", "--external-data", "new.data"),
    ],
    ids=" ".join,
)
def test_what_is_allowed_works_twice(here: Path, words: tuple[str, ...]) -> None:
    for _ in range(2):
        assert onnxlint(*words).code in (0, 1)
    assert not [name for name in contents(here) if PREFIX in name]
    onnx.checker.check_model(here / "ext.onnx")
    onnx.checker.check_model(here / "other.onnx")
    if "new.onnx" in words:
        onnx.checker.check_model(here / "new.onnx")


def test_data_in_another_folder_that_is_somebody_elses(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out/new.onnx.data").write_bytes(b"precious")
    outcome = onnxlint("fix", "ext.onnx", "-o", "out/new.onnx")
    assert outcome.code == 2
    assert "exists, and is not the data of out/new.onnx" in outcome.err
    assert contents(here / "out") == {"new.onnx.data": b"precious"}


def test_data_that_two_models_share_stays(here: Path) -> None:
    shutil.copy(here / "ext.onnx", here / "twin.onnx")
    before = contents(here)
    outcome = onnxlint("fix", "ext.onnx", "--in-place", "--external-data", "ext.bin")
    assert outcome.code == 2
    assert "holds the weights of twin.onnx" in outcome.err
    assert contents(here) == before


def test_a_model_in_a_folder_below_that_the_command_reads(here: Path) -> None:
    """The data lies in another folder than the model that refers to it."""
    (here / "weights").mkdir()
    proto = model()
    onnx.save_model(proto, here / "deep.onnx", save_as_external_data=True, location="weights.bin")
    os.rename(here / "weights.bin", here / "weights/w.bin")
    moved = onnx.load(here / "deep.onnx", load_external_data=False)
    moved.graph.initializer[0].external_data[0].value = "weights/w.bin"
    (here / "deep.onnx").write_bytes(moved.SerializeToString())
    before = contents(here)
    for words in (("check", "deep.onnx", "-o", "weights/w.bin"), ("fix", "deep.onnx", "-o", "weights/w.bin")):
        assert onnxlint(*words).code == 2
        assert contents(here) == before


def test_data_of_an_interrupted_write_is_ours(here: Path) -> None:
    source = open_model(here / "a.onnx")
    target = here / "late.data"
    target.write_bytes(b"half of an earlier run")
    with pytest.raises(OnnxlintError, match="exists, and is not the data"):
        save(source, source.proto, str(here / "late.onnx"), external_data="late.data")
    Path(note_of(str(target))).write_text(identity(str(target)))
    save(source, source.proto, str(here / "late.onnx"), external_data="late.data")
    onnx.checker.check_model(here / "late.onnx")
    assert not Path(note_of(str(target))).exists()
    (here / "late.onnx").unlink()
    target.unlink()
    target.write_bytes(b"somebody else's")
    Path(note_of(str(target))).write_text("1:2:3")  # of another file
    with pytest.raises(OnnxlintError, match="exists, and is not the data"):
        save(source, source.proto, str(here / "late.onnx"), external_data="late.data")


def test_copies_replace_no_weights(here: Path) -> None:
    with pytest.raises(OnnxlintError, match="holds the weights of"):
        copy(str(here / "a.onnx"), str(here / "ext.bin"))
