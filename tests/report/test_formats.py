"""What the formats promise: schemas, places, counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from onnxlint import Rule, Severity
from onnxlint.errors import OnnxlintError
from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.engine import Plan, check_file
from onnxlint.lint.finding import SAFE, Applicability, CheckResult, FileError, Finding, Fix
from onnxlint.report import FORMATS, Report, render
from tests.support.command import unmeasured
from tests.support.report_samples import detector, finding, fixes, on_file, rules, sarif_run

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "onnxlint-check.schema.json"
RETINAFACE = Path(__file__).parents[3] / "shared" / "data" / "retinaface"


def parsed_json(report: Report) -> Any:
    document = json.loads(render("json", report))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(OnnxlintError, match="did you mean 'sarif'"):
        render("serif", Report(()))
    with pytest.raises(OnnxlintError, match="choose from text, json"):
        render("\x1b[31m", Report(()))


def test_only_what_a_format_needs_is_imported() -> None:
    program = """
import sys
from onnxlint.report import FORMATS, Report, render
assert not {"json", "xml.etree.ElementTree", "rich", "onnx"} & set(sys.modules)
render("text", Report((), width=80))
assert not {"rich", "xml.etree.ElementTree", "onnx"} & set(sys.modules)
for name in FORMATS:
    render(name, Report(()))
assert "onnx" not in sys.modules and "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=unmeasured())


# Summary


def summary(report: Report) -> str:
    return render("text", report).splitlines()[-1]


def test_all_is_well_only_where_rules_ran_over_models() -> None:
    clean, broken = CheckResult("a.onnx"), CheckResult("b.onnx", error=FileError("b.onnx", "b.onnx: empty file"))
    some = rules("SHP001")
    assert summary(Report((clean,), some)) == "All checks passed"
    assert summary(Report((replace(clean, suppressed=3),), some)) == "All checks passed; 3 suppressed"
    assert summary(Report((clean, broken), some)) == "No findings in 1 model; checking failed on 1 model"
    assert summary(Report((broken,), some)) == "No model was checked; checking failed on 1 model"
    assert summary(Report((), some)) == "No model was checked"
    assert summary(Report((clean,), ())) == "No rule ran"


def test_the_summary_counts() -> None:
    found = (finding(), finding(severity=Severity.ERROR), finding(severity=Severity.INFO), finding())
    some = rules("SHP001")
    one, clean = CheckResult("a.onnx", found), CheckResult("b.onnx")
    assert summary(Report((one,), some)) == "Found 4 findings (1 error, 2 warnings, 1 info) in 1 model"
    assert summary(Report((one, clean), some)).endswith("in 1 of 2 models")
    assert summary(Report((CheckResult("a.onnx", found[:1]),), some)) == "Found 1 finding (1 warning) in 1 model"


# Text


def test_piped_text_has_a_line_with_the_code_for_every_finding() -> None:
    report = Report((CheckResult("m.onnx", (finding(), finding(), finding())),), rules("SHP001"))
    lines = render("text", replace(report, verbose=True)).splitlines()
    assert sum("SHP001" in line and "warning" in line for line in lines) == 3
    assert sum("--> /fpn/Resize  module fpn" in line for line in lines) == 3
    assert sum("help: use a constant scale_factor" in line for line in lines) == 1


def test_a_terminal_shows_a_shared_message_once_and_every_place() -> None:
    report = Report((CheckResult("m.onnx", (finding(), finding(), finding())),), rules("SHP001"), width=80)
    text = render("text", replace(report, verbose=True))
    assert text.count("SHP001") == 1
    assert text.count("--> /fpn/Resize") == 3


def test_findings_of_one_kind_are_one_block() -> None:
    def chain(i: int) -> Finding:
        frame = SourceLine("yolo.py", 10 + i % 20, "x.view(b, -1)", "forward")
        place = Location("m.onnx", node=f"/head/Reshape_{i}", op_type="Reshape", index=i, source=(frame,))
        return finding("SHP002", message=f"Reshape target [b, {i}] is computed", location=place)

    report = Report((CheckResult("m.onnx", tuple(chain(i) for i in range(60))),), rules("SHP002"))
    lines = render("text", report).splitlines()
    block = [line for line in lines[1:] if line.startswith(" ")]
    assert len(block) == 5
    assert "(60 places like this)" in block[0]
    assert "yolo.py:10  /head/Reshape_0, /head/Reshape_20, /head/Reshape_40" in block[1]
    assert block[3].endswith(" and 51 more")
    spelled = render("text", replace(report, verbose=True))
    assert all(f"/head/Reshape_{i} " in spelled for i in range(60))
    grouped = tuple(replace(one, group="Reshape targets are computed") for one in report.results[0].findings)
    shown = render("text", Report((CheckResult("m.onnx", grouped),), rules("SHP002")))
    assert "Reshape targets are computed (60 places)" in shown
    assert len(json.loads(render("json", report))["findings"]) == 60


def test_what_nobody_can_act_on_is_counted_at_the_end() -> None:
    quiet = tuple(replace(finding("SHP002", severity=Severity.INFO), actionable=False) for _ in range(3))
    report = Report((CheckResult("m.onnx", (finding(), *quiet)),), rules("SHP001", "SHP002"))
    text = render("text", report)
    assert "SHP002 ×3" in text
    assert text.count("info") == 1  # in the summary
    assert "3 findings that no fix and no other export would remove (SHP002 ×3); -v lists them" in text
    assert render("text", replace(report, verbose=True)).count("SHP002") >= 3
    alone = Report((CheckResult("m.onnx", quiet),), rules("SHP002"))
    assert "m.onnx" not in render("text", alone)
    assert "Found 3 findings" in render("text", alone)


def test_the_end_says_what_to_type() -> None:
    def fixed(fix: Fix) -> Finding:
        return finding(fix=fix)

    halves = [f"h % {n} == 0 and w % {n} == 0" for n in (32, 16)]
    found = (
        fixed(SAFE),
        fixed(SAFE),
        *(
            fixed(Fix(Applicability.ASSUMES, one, f"--multiple-of {n}"))
            for one, n in zip(halves, (32, 16), strict=True)
        ),
        fixed(Fix(Applicability.UNSAFE, flag="--concat-heads")),
        fixed(Fix(Applicability.ASSUMES, "seq % 7 == 0", "--assume 'seq % 7 == 0'")),
        fixed(Fix(Applicability.UNSAFE)),
        finding(),
    )
    text = render("text", Report((CheckResult("my model.onnx", found),), rules("SHP001")))
    hint = next(line for line in text.splitlines() if line.startswith("[*]"))
    assert hint.startswith("[*] 'onnxlint fix 'my model.onnx' -o fixed.onnx' fixes 2; ")
    assert set(hint.split("; ")[1:]) == {
        "2 more with --multiple-of 32",
        "1 more with --concat-heads",
        "1 more with --assume 'seq % 7 == 0'",
        "1 more with --unsafe",
    }
    only = render("text", Report((CheckResult("m.onnx", found[4:5]),), rules("SHP001")))
    assert "[*] 'onnxlint fix m.onnx -o fixed.onnx' fixes 1 with --concat-heads\n" in only
    assert "[*]" not in render("text", Report((CheckResult("m.onnx", found[-1:]),), rules("SHP001")))
    shorter = fixed(Fix(Applicability.SAFE, shortens=True))
    both = render("text", Report((CheckResult("m.onnx", (found[0], shorter, shorter)),), rules("SHP001")))
    assert "[*] 'onnxlint fix m.onnx -o fixed.onnx' fixes 1 and shortens 2\n" in both
    alone = render("text", Report((CheckResult("m.onnx", (shorter, found[4])),), rules("SHP001")))
    assert "[*] 'onnxlint fix m.onnx -o fixed.onnx' shortens 1; 1 more with --concat-heads\n" in alone


@pytest.mark.parametrize("width", [57, 80, 120])
def test_text_stays_within_the_terminal(width: int, tmp_path: Path) -> None:
    from rich.cells import cell_len

    wide = finding(
        message="形状" * 60,
        help="word " * 40,
        location=Location("m.onnx", node="/" + "名" * 70, op_type="Resize", index=0, scope="a" * 130),
    )
    report = detector(tmp_path)
    for result in (*report.results, fixes().results[0], CheckResult("m.onnx", (wide,))):
        text = render("text", replace(report, results=(result,), width=width))
        long = [line for line in text.splitlines() if line.startswith(" ") and cell_len(line) > width]
        assert not long


def test_colors_do_not_change_the_words(tmp_path: Path) -> None:
    from rich.text import Text

    for report in (detector(tmp_path), fixes()):
        plain = render("text", replace(report, width=90))
        colored = render("text", replace(report, width=90, color=True))
        assert "\x1b[" not in plain
        assert "\x1b[" in colored
        assert Text.from_ansi(colored).plain.rstrip("\n") == plain.rstrip("\n")


def test_ten_thousand_findings_take_less_than_a_second() -> None:
    found = tuple(
        finding(
            message=f"Reshape target [batch, -1, {i}] is computed (Shape → Gather → Unsqueeze → Concat → Reshape)",
            location=Location("m.onnx", node=f"/head.{i}/Reshape", op_type="Reshape", index=i, scope=f"head.{i}"),
        )
        for i in range(10_000)
    )
    report = Report((CheckResult("m.onnx", found),), rules("SHP001"))
    for options in ({}, {"width": 80}, {"width": 80, "color": True}):
        started = time.process_time()
        render("text", replace(report, **options))  # type: ignore[arg-type]
        assert time.process_time() - started < 1


# JSON


def test_json_is_one_document_that_keeps_its_schema(tmp_path: Path) -> None:
    report = detector(tmp_path)
    both = replace(report, results=report.results + fixes().results)
    document = parsed_json(both)
    assert [file["path"] for file in document["files"]] == [result.model for result in both.results]
    assert document["errors"] == [{"model": "missing.onnx", "message": "missing.onnx: no such file; check the path"}]
    assert document["summary"]["by_rule"] == {"OUT001": 1, "SEC001": 1, "SHP001": 5, "SHP002": 1, "SPC001": 1}
    assert document["summary"]["suppressed"] == 2
    assert document["findings"][0]["location"]["source"][-1]["path"] == "models/fpn.py"
    parsed_json(Report(()))


def test_json_is_ascii_and_keeps_names_exact() -> None:
    name = "\x1b[31m\u202eRés😀/\x7f"
    report = Report((CheckResult("m.onnx", (finding(location=Location("m.onnx", node=name, index=0)),)),))
    assert render("json", report).isascii()
    assert parsed_json(report)["findings"][0]["location"]["node"] == name


def test_json_of_file_names_that_are_not_utf8() -> None:
    name = b"caf\xe9.onnx".decode("utf-8", "surrogateescape")
    document = parsed_json(Report((CheckResult(name, error=FileError(name, "no such file")),)))
    assert document["files"][0]["path"] == "caf\\udce9.onnx"


# reviewdog


def test_rdjson_has_the_keys_of_reviewdog(tmp_path: Path) -> None:
    report = replace(detector(tmp_path), results=detector(tmp_path).results + fixes().results)
    document = json.loads(render("rdjson", report))
    assert set(document) == {"source", "diagnostics"}
    assert len(document["diagnostics"]) == sum(len(r.findings) + (r.error is not None) for r in report.results)
    for one in document["diagnostics"]:
        assert set(one) == {"message", "location", "severity", "code"}
        assert one["severity"] in ("ERROR", "WARNING", "INFO")
        assert set(one["location"]) <= {"path", "range"}
        assert one["location"].get("range", {"start": {"line": 1}})["start"]["line"] >= 1
    first = document["diagnostics"][0]["location"]
    assert (first["path"], first["range"]) == ("models/fpn.py", {"start": {"line": 12}})


def test_rdjson_suggests_the_line_that_a_rule_knows(tmp_path: Path) -> None:
    (result,) = on_file(tmp_path).results
    (found,) = (replace(one, evidence=(("replacement", "x = layer(x, scale_factor=2)"),)) for one in result.findings)
    report = Report((replace(result, findings=(found,)),), rules("SHP001"), root=tmp_path)
    (path,) = tmp_path.glob("nets/*.py")
    path.write_text("\n" * 6 + "    x = layer(x)\n")
    (one,) = json.loads(render("rdjson", report))["diagnostics"]
    at = {"line": 7}
    assert one["suggestions"] == [{"range": {"start": at, "end": at}, "text": "    x = layer(x, scale_factor=2)"}]
    path.write_text("\n" * 6 + "    y = other(x)\n")  # edited since the export
    assert "suggestions" not in render("rdjson", report)


# GitHub, GitLab


def test_github_annotates_files_that_exist(tmp_path: Path) -> None:
    on_python = render("github", on_file(tmp_path))
    assert on_python.startswith("::warning file=nets/my net.py,line=7,title=SHP001 resize-by-sizes::n: Resize sizes")
    on_model = render("github", on_file(tmp_path, source=(SourceLine("gone.py", 1, "x"),)))
    assert on_model.startswith("::warning file=a model#1.onnx,title=SHP001 resize-by-sizes::n (gone.py:1 x): ")
    nowhere = render("github", replace(on_file(tmp_path), root=tmp_path / "nets"))
    assert "file=" not in nowhere
    assert "a model#1.onnx: n (timm/layers.py:99 return x.view(n, -1)): Resize sizes" in nowhere


def test_github_gets_ten_annotations_of_a_kind_and_the_tenth_says_how_many_are_left() -> None:
    found = (*(finding(message=f"number {i}") for i in range(25)), finding(severity=Severity.ERROR))
    lines = render("github", Report((CheckResult("m.onnx", found),), rules("SHP001"))).splitlines()
    commands = [line.split()[0].split(",")[0] for line in lines if line.startswith("::")]
    assert Counter(commands) == {"::error": 1, "::warning": 10}
    assert lines[0].startswith("::error ")
    assert "16 more findings of this kind" in lines[10]
    assert lines[11] == "Findings without an annotation:"
    assert len(lines[12:]) == 16
    assert all(line.startswith("  warning: SHP001 ") for line in lines[12:])
    assert [f"number {i}" in "\n".join(lines) for i in range(25)] == [True] * 25


def test_github_escapes_properties_and_messages(tmp_path: Path) -> None:
    path = tmp_path / "a,b:c%.onnx"
    path.write_bytes(b"")
    text = render("github", on_file(tmp_path, model=str(path), node="100%\r\n::error::x", source=()))
    assert text.count("\n") == 1
    assert text.startswith("::warning file=a%2Cb%3Ac%25.onnx,title=SHP001 resize-by-sizes::100%25\\r\\n::error::x: ")


def test_github_and_gitlab_tell_of_models_that_could_not_be_checked() -> None:
    report = Report((CheckResult("gone.onnx", error=FileError("gone.onnx", "gone.onnx: no such file")),))
    assert render("github", report) == "::error title=onnxlint::gone.onnx: no such file\n"
    (entry,) = json.loads(render("gitlab", report))
    assert (entry["severity"], entry["location"]["path"]) == ("critical", "gone.onnx")


def test_gitlab_entries_are_complete_and_unique(tmp_path: Path) -> None:
    report = detector(tmp_path)
    twice = replace(report, results=report.results + report.results + fixes().results)
    entries = json.loads(render("gitlab", twice))
    assert len({entry["fingerprint"] for entry in entries}) == len(entries) == 2 * (3 + 1) + 6
    for entry in entries:
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert entry["location"]["lines"]["begin"] >= 1
    assert entries[0]["location"] == {"path": "models/fpn.py", "lines": {"begin": 12}}


def test_gitlab_fingerprints_survive_another_run(tmp_path: Path) -> None:
    assert render("gitlab", detector(tmp_path)) == render("gitlab", detector(tmp_path))


# JUnit


def test_junit_has_a_suite_for_each_model_and_a_case_for_each_rule(tmp_path: Path) -> None:
    root = ElementTree.fromstring(render("junit", detector(tmp_path)))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("7", "2", "1")
    bad, clean, missing = root.findall("testsuite")
    assert [case.get("name") for case in bad][:2] == ["SHP001 resize-by-sizes", "SHP002 shape-chain"]
    assert len(clean.findall("testcase")) == 3
    assert not clean.findall("testcase/*")
    assert [case.get("name") for case in missing] == ["check"]
    failure = bad.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "2 findings"
    assert "models/fpn.py:12 up = F.interpolate" in (failure.text or "")


@pytest.mark.parametrize(
    ("fail_on", "failures"), [(Severity.INFO, 4), (Severity.WARNING, 3), (Severity.ERROR, 2), (None, 0)]
)
def test_junit_fails_where_the_exit_code_does(fail_on: Severity | None, failures: int) -> None:
    root = ElementTree.fromstring(render("junit", replace(fixes(), fail_on=fail_on)))
    assert root.get("failures") == str(failures)
    assert len(root.findall("testsuite/testcase/failure")) == failures
    assert len(root.findall("testsuite/testcase/system-out")) == 4 - failures


# Markdown


def test_a_comment_never_gets_too_long(tmp_path: Path) -> None:
    (found, *_) = fixes().results[0].findings
    for number in (60, 300, 3000):
        kinds = tuple(replace(found, help=f"advice {k}") for k in range(number // 10))
        results = tuple(CheckResult(f"m{i}.onnx", kinds) for i in range(10))
        text = render("markdown", Report(results, rules("SHP001")))
        assert len(text) <= 65_000
        assert text.count("<details>") == text.count("</details>")
        assert ("```mermaid" in text) == (number < 3000)
        shown = text.count("<b>SHP001</b>")
        assert shown == number if number < 3000 else "more, left out for length." in text


# Every format, over real models


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    plan = Plan(rules("SHP001", "SHP002", "SHP003"), neighbourhoods=True)
    names = ("original_dynamo_dyn", "original_op11_st", "original_op9_dyn", "hand_fixed_released")
    return {name: Report((check_file(str(RETINAFACE / f"{name}.onnx"), plan),), plan.rules) for name in names}


@pytest.mark.skipif(not RETINAFACE.is_dir(), reason="the RetinaFace exports are not in this checkout")
class TestRetinaFace:
    def test_text_says_which_line_of_pytorch(self, reports: dict[str, Report]) -> None:
        text = render("text", replace(reports["original_dynamo_dyn"], verbose=True))
        assert (
            "--> node_upsample_nearest2d    models/net.py:89  "
            'up3 = F.interpolate(output3, size=[output2.size(2), output2.size(3)], mode="nearest")\n'
        ) in text
        assert text.count("SHP001") == 2
        assert text.count("SHP002") + text.count("SHP003") == 9

    def test_text_says_which_module_where_the_exporter_kept_no_line(self, reports: dict[str, Report]) -> None:
        for name, resize in (("original_op11_st", "/fpn/Resize"), ("original_op9_dyn", "/fpn/Upsample")):
            text = render("text", replace(reports[name], verbose=True))
            assert f"--> {resize}    module fpn\n" in text
            assert text.count("SHP001") == 2
            # Targets that fix the batch as the input does are one finding.
            assert text.count("SHP002") + text.count("SHP003") == (7 if name == "original_op11_st" else 9)

    def test_the_hand_fixed_model_has_no_shape_chains(self, reports: dict[str, Report]) -> None:
        text = render("text", reports["hand_fixed_released"])
        assert text.count("SHP001") + text.count("SHP002") == 0

    def test_sarif_is_valid_and_points_into_the_source(self, reports: dict[str, Report]) -> None:
        for report in reports.values():
            sarif_run(report)
        result = sarif_run(reports["original_dynamo_dyn"])["results"][0]
        place = result["locations"][0]["physicalLocation"]
        assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("models/net.py", 89)

    @pytest.mark.parametrize("format", FORMATS)
    def test_every_format_has_every_finding(self, format: str, reports: dict[str, Report]) -> None:
        for report in reports.values():
            found: tuple[Finding, ...] = report.results[0].findings
            text = render(format, replace(report, verbose=True))
            for one in found:
                assert one.code in text
                assert one.location.node in text.replace("&#45;", "-")


def test_markdown_has_one_entry_for_findings_of_a_kind() -> None:
    findings = (
        finding(
            "SHP002",
            message=f"Reshape target [{i}] is computed",
            location=Location("m.onnx", node=f"r{i}", op_type="Reshape", index=i),
        )
        for i in range(60)
    )
    grouped = tuple(replace(one, group="Reshape targets are computed") for one in findings)
    report = render("markdown", Report((CheckResult("m.onnx", grouped),), rules("SHP002")))
    assert report.count("<details>") == 1
    assert "Reshape targets are computed (60 places) — <code>r0</code> and 59 more" in report
    assert "also at `r1`, `r2`, " in report
    assert "`r30` and 29 more" in report


def test_what_differs_in_more_than_the_place_is_not_put_together() -> None:
    """Each operator that a target lacks is its own line."""

    class Apart(Rule):
        code = "ZZZ001"
        name = "apart"
        apart = True

        def check(self, view: Any, options: Any) -> Any:
            yield from ()

    findings = tuple(Apart().found(Location("m.onnx", node=op), f"no {op}") for op in ("Shape", "If"))
    text = render("text", Report((CheckResult("m.onnx", findings),), rules("SHP002")))
    assert "no Shape\n" in text
    assert "no If\n" in text
