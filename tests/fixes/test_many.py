"""Several models in one fix."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.many import Destination, Result, exit_code, fix_many
from onnxlint.fixes.options import FixOptions
from onnxlint.lint.configuration import Configs, Settings
from onnxlint.model.limits import usable_cores

DIRTY = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,4] x) => (float[N,4] y) { a = Identity (x) y = Relu (a) }
"""
CLEAN = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
"""


def fix(*paths: Path, **destination: object) -> list[Result]:
    configs = Configs(Settings(), None, isolated=True)
    options = FixOptions(verify=False)
    return list(fix_many([str(path) for path in paths], configs, options, Destination(**destination)))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("dirty", DIRTY), ("clean", CLEAN)):
        (tmp_path / f"{name}.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    return tmp_path


def test_an_error_costs_no_other_model_its_result(folder: Path) -> None:
    before = (folder / "clean.onnx").read_bytes()
    results = fix(*(folder / f"{name}.onnx" for name in ("broken", "dirty", "clean")), in_place=True)
    assert [result.exit_code for result in results] == [2, 0, 0]
    assert "broken.onnx" in results[0].error
    assert [result.has_changed for result in results] == [False, True, False]
    assert [result.output is not None for result in results] == [False, True, False]
    assert (folder / "clean.onnx").read_bytes() == before
    assert len(onnx.load(folder / "dirty.onnx").graph.node) == 1
    assert exit_code(results) == 2
    assert exit_code(results[1:]) == 0
    assert exit_code(results[1:], on_change=True) == 1
    assert exit_code(results[2:], on_change=True) == 0


def test_several_processes_make_the_same(folder: Path) -> None:
    for number in range(6):
        (folder / f"m{number}.onnx").write_bytes((folder / "dirty.onnx").read_bytes())
    configs = Configs(Settings(), None, isolated=True)
    options = FixOptions(verify=False)
    told = []
    for jobs in (1, 3):
        goes = Destination(folder=str(folder / f"out{jobs}"))
        results = list(fix_many([str(folder / "*.onnx")], configs, options, goes, jobs=jobs))
        told.append([(one.path, one.error, one.exit_code, one.has_changed, bool(one.output)) for one in results])
    assert told[0] == told[1]
    assert sum(bool(error) for _, error, *_ in told[0]) == 1
    made = [{path.name: path.read_bytes() for path in (folder / f"out{jobs}").iterdir()} for jobs in (1, 3)]
    assert made[0] == made[1]
    assert len(made[0]) == 8


def test_large_weights_are_not_loaded_side_by_side(folder: Path) -> None:
    from onnxlint.fixes import many

    models = [str(folder / "dirty.onnx"), str(folder / "clean.onnx")]
    if usable_cores() < 2:
        pytest.skip("there is one core")
    assert many._processes(models, 0) == 2
    with open(folder / "dirty.onnx.data", "wb") as weights:
        weights.truncate(1 << 40)
    assert many._processes(models, 0) == 1
    assert many._processes(models, 2) == 2  # asked for


def test_results_go_to_a_folder(folder: Path) -> None:
    out = folder / "out"
    results = fix(folder / "dirty.onnx", folder / "clean.onnx", folder=str(out))
    assert sorted(path.name for path in out.iterdir()) == ["clean.onnx", "dirty.onnx"]
    assert [result.output for result in results] == [str(out / "dirty.onnx"), str(out / "clean.onnx")]


def test_nothing_is_written_where_two_results_would_be_one_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "dirty.onnx").write_bytes((folder / "dirty.onnx").read_bytes())
    with pytest.raises(OnnxlintError, match="would both be written to"):
        fix(folder / "dirty.onnx", folder / "sub" / "dirty.onnx", folder=str(folder / "out"))
    with pytest.raises(OnnxlintError, match="would be replaced; use --in-place for that"):
        fix(folder / "dirty.onnx", folder=str(folder))
    assert not (folder / "out").exists()
