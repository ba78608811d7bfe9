"""onnxlint.check, for Python programs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnxlint
from onnxlint import OnnxlintError, Severity
from tests.support.command import BAD, CLEAN, save
from tests.support.command import onnxlint as command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    save(tmp_path / "bad.onnx", BAD)
    save(tmp_path / "clean.onnx", CLEAN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def codes(result: onnxlint.CheckResult) -> list[str]:
    return [finding.code for finding in result.findings]


def test_a_path(here: Path) -> None:
    result = onnxlint.check("bad.onnx", select=["SHP001"])
    assert codes(result) == ["SHP001", "SHP001"]
    assert result.findings[0].location.model == "bad.onnx"
    assert onnxlint.check(here / "clean.onnx").findings == ()


def test_a_loaded_model_gives_what_its_file_gives(here: Path) -> None:
    loaded = onnxlint.check(onnx.load("bad.onnx"))
    from_file = onnxlint.check("bad.onnx")
    assert [f.fingerprint for f in loaded.findings] == [f.fingerprint for f in from_file.findings]
    assert loaded.model == "<model>"


def test_the_model_is_left_as_it_was(here: Path) -> None:
    model = onnx.load("bad.onnx")
    before = model.SerializeToString(deterministic=True)
    onnxlint.check(model, select=["ALL"], weights=True)
    assert model.SerializeToString(deterministic=True) == before


def test_selection_and_severities(here: Path) -> None:
    assert (
        codes(onnxlint.check("bad.onnx", select="SHP001", ignore=["resize-by-sizes", "OUT"], extend_select=["OUT003"]))
        == []
    )
    result = onnxlint.check("bad.onnx", select=["SHP001"], severity={"SHP001": Severity.ERROR})
    assert result.findings[0].severity is Severity.ERROR
    assert onnxlint.check("bad.onnx", select=["SHP001"], severity={"SHP": "info"}).findings[0].severity is Severity.INFO


def test_configuration_and_baseline_are_those_of_the_command_line(here: Path) -> None:
    (here / "onnxlint.toml").write_text('select = ["SHP001"]')
    assert codes(onnxlint.check("bad.onnx")) == ["SHP001", "SHP001"]
    assert codes(onnxlint.check(onnx.load("bad.onnx"))) == ["SHP001", "SHP001"]
    (here / "other.toml").write_text('select = ["OUT003"]')
    assert codes(onnxlint.check("bad.onnx", config="other.toml")) == []
    assert len(onnxlint.check("bad.onnx", isolated=True).findings) >= 2
    command("check", "bad.onnx", "--write-baseline", "known.json")
    result = onnxlint.check("bad.onnx", baseline=Path("known.json"))
    assert (result.findings, result.suppressed) == ((), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nope.onnx"}, r"nope\.onnx: no such file"),
        ({"model": "."}, "is a folder"),
        ({"model": "bad.onnx", "select": ["NOPE"]}, "no rule is called 'NOPE'"),
        ({"model": "bad.onnx", "severity": {"SHP001": "fatal"}}, "SHP001=fatal"),
        ({"model": "bad.onnx", "baseline": "nope.json"}, r"nope\.json: no such baseline"),
        ({"model": "bad.onnx", "config": "nope.toml"}, r"nope\.toml: no such configuration"),
    ],
)
def test_what_cannot_be_done_raises(here: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(OnnxlintError, match=message):
        onnxlint.check(**arguments)


def test_a_rule_that_fails_raises_so_that_no_findings_means_clean(here: Path) -> None:
    from tests.cli.test_check import team_rule

    team_rule(here, "raise KeyError('oops')")
    with pytest.raises(OnnxlintError, match="TEA001 failed with KeyError"):
        onnxlint.check("clean.onnx")


def test_fix_does_what_the_command_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fixtures import pitfalls

    pitfalls.build(tmp_path)
    model = tmp_path / "pitfalls.onnx"
    report = onnxlint.fix(
        model,
        tmp_path / "api.onnx",
        concat_heads=["bbox", "class", "landm"],
        drop_output_activations=True,
        multiple_of=32,
        rename={"input0": "image"},
        static=["input0=1,3,64,96"],
        opset=13,
        external_data="api.bin",
    )
    assert report.changed
    assert report.verification is not None
    assert report.verification.verified
    words = "--concat-heads bbox,class,landm --drop-output-activations --multiple-of 32 --rename input0=image --static"
    options = [*words.split(), "input0=1,3,64,96", "--opset", "13", "--external-data", "api.bin", "--exit-zero"]
    (tmp_path / "cli").mkdir()
    assert command("fix", model, "-o", tmp_path / "cli" / "api.onnx", *options).code == 0
    assert (tmp_path / "api.onnx").read_bytes() == (tmp_path / "cli" / "api.onnx").read_bytes()


def test_inputs_and_clamping_reach_the_fix(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import numpy as np
    import onnx.parser

    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[1] x) => (float[1] y) <float[1] w = {1e9}> { c = Identity (x)  y = Mul (c, w) }"""
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    np.savez(tmp_path / "x.npz", other=np.ones(1, np.float32))
    with pytest.raises(onnxlint.OnnxlintError, match=r"x\.npz"):
        onnxlint.fix(tmp_path / "m.onnx", clamp_fp16=True, inputs=tmp_path / "x.npz", isolated=True)
    report = onnxlint.fix(tmp_path / "m.onnx", tmp_path / "f.onnx", clamp_fp16=True, isolated=True)
    assert {applied.finding.code for applied in report.applied} == {"GRF003", "QNT001"}
