"""onnxlint.check, for Python programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
def test_what_cannot_be_done_raises(here: Path, arguments: dict[str, Any], message: str) -> None:
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


def test_the_public_names_are_those_of_the_page() -> None:
    import re

    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(\w+)`", page))
    assert set(onnxlint.__all__) - {"__version__"} <= listed
    assert dir(onnxlint) == sorted(onnxlint.__all__)
    for name in onnxlint.__all__:
        assert getattr(onnxlint, name) is not None


def test_importing_is_cheap() -> None:
    import subprocess
    import sys

    code = "import sys, onnxlint; dir(onnxlint); print(sorted({'onnx', 'numpy', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_results_are_lists(here: Path) -> None:
    result = onnxlint.check("bad.onnx", select="SHP001")
    assert (len(result), [finding.code for finding in result]) == (2, ["SHP001", "SHP001"])
    assert repr(result) == "<CheckResult bad.onnx: 2 findings>"
    rows = result.rows()
    assert [row["code"] for row in rows] == ["SHP001", "SHP001"]
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}
    plain = result.to_dict()
    assert plain["findings"][0]["severity"] == "warning"
    import json

    json.dumps(plain)
    clean = onnxlint.check("clean.onnx")
    assert (len(clean), list(clean), bool(clean), clean.rows()) == (0, [], True, [])


def test_a_notebook_shows_escaped_values() -> None:
    from onnxlint import CheckResult, Finding, Location

    hostile = "<script>alert(1)</script>\x1b[31m"
    finding = Finding("SHP001", "x", Severity.ERROR, hostile, Location(hostile, value=hostile))
    result = CheckResult(hostile, (finding,) * 150)
    shown = result._repr_html_()
    assert "<script" not in shown
    assert "\x1b" not in shown + repr(result)
    assert "and 50 more" in shown
    assert shown.count("<tr>") == 101


def test_reports_of_every_function_are_lists(tmp_path: Path) -> None:
    for needed in ("onnxruntime", "PIL"):
        pytest.importorskip(needed)
    import json

    from fixtures import pitfalls

    pitfalls.build(tmp_path)
    model = tmp_path / "pitfalls.onnx"
    fixed = onnxlint.fix(model, tmp_path / "fixed.onnx", multiple_of=32, isolated=True)
    assert len(fixed) == len(fixed.rows()) >= len(fixed.applied)
    assert repr(fixed).startswith(f"<FixReport {model}: fixed ")
    made = onnxlint.convert(tmp_path / "fixed.onnx", "onnx-fp16", out_dir=tmp_path / "out", shapes={})
    assert [row["target"] for row in made.rows()] == ["onnx-fp16"] == [one.target for one in made]
    assert made.rows()[0]["bytes"] > 0
    report = onnxlint.compare(model, str(tmp_path / "fixed.onnx"), recipe={"shape": (96, 64)}, time=False)
    assert [row["model"] for row in report.rows()] == ["pitfalls.onnx", "fixed.onnx"]
    assert len(report) == 1
    diff = onnxlint.diff(model, tmp_path / "fixed.onnx")
    assert len(diff) == len(diff.rows()) == len(list(diff)) > 10
    assert {"interface", "node"} <= {row["about"] for row in diff.rows()}
    for result in (fixed, made, report, diff):
        json.dumps(result.to_dict())
        assert "<table" in result._repr_html_()
        assert "\n" not in repr(result)
        assert len({frozenset(row) for row in result.rows()}) == 1
        if result is not diff:
            for entry in result:
                assert repr(entry).startswith(f"<{type(entry).__name__} ")
                assert len(repr(entry)) < 400


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: onnxlint.convert("bad.onnx", "ncnn-int8"), "give images a folder"),
        (lambda: onnxlint.convert("bad.onnx", "n"), "no such target: 'n'"),
        (lambda: onnxlint.convert("bad.onnx", ["onnx-fp16"], shapes={"x": (1, 3)}), "shapes x"),
        (lambda: onnxlint.convert("bad.onnx", "onnx-fp16", recipe="imagnet"), "did you mean 'imagenet'"),
        (lambda: onnxlint.convert("bad.onnx", "onnx-fp16", recipe={"mena": 1}), "recipe: no such key: 'mena'"),
        (lambda: onnxlint.convert("bad.onnx", "onnx-fp16", recipe={"norm": [0, 0, 0]}), r"recipe\['norm'\]"),
        (lambda: onnxlint.compare("bad.onnx", "bad.onnx", task="detection"), "task needs images"),
        (lambda: onnxlint.fix("bad.onnx", dynamic="x"), "dynamic 'x'"),
        (lambda: onnxlint.check("bad.onnx", select="SHP9"), "select: "),
    ],
)
def test_errors_name_arguments(here: Path, call: Any, message: str) -> None:
    with pytest.raises(OnnxlintError, match=message) as caught:
        call()
    assert "--" not in str(caught.value)


def test_a_question_about_pixels_is_answered_in_python(here: Path) -> None:
    from onnxlint.errors import in_python
    from onnxlint.images.recipe import Recipe
    from onnxlint.images.sizes import require_values

    with pytest.raises(OnnxlintError) as caught:
        require_values("m.onnx", Recipe(), "onnxlint convert m.onnx --to ncnn-int8 --images x")
    assert in_python(str(caught.value)) == (
        "m.onnx: preprocessing of pixels (0–255) unknown; give recipe='imagenet' (or facenet, retinaface, ssd), or add your "
        "training's recipe={'mean': 'A,B,C', 'norm': 'A,B,C'}; recipe={'mean': '0,0,0'} feeds raw pixels"
    )
