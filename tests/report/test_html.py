"""`check --format html`: one page that loads nothing, whatever the names, and works in a browser."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings

from onnxlint.fixes.rule_tests import parse
from onnxlint.graph.location import SourceLine
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.excerpt import FIXED_OF_A_RULE
from onnxlint.lint.finding import SAFE, Finding, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import Model
from onnxlint.report import Report, render
from onnxlint.report.check.html import PICTURES
from onnxlint.report.drawing import _placed
from onnxlint.report.page import POLICY
from onnxlint.symbolic.view import make_view
from tests.report.test_hostile import bland, reports, run
from tests.support.command import onnxlint
from tests.support.pages import Strict, opened, overflow
from tests.support.report_samples import DETECTOR, detector, finding, fixes

HOSTILE = "</script><script>document.title='hit'</script><img src=x onerror=alert(1)>\u202eevil\x1b[31m\x00"


def checked(text: str, *codes: str) -> list[Finding]:
    rules = tuple(rule for rule in load_registry() if rule.code in codes)
    view = make_view(Model("m.onnx", parse(text), size=0))
    found, _, failures = check_view(view, Plan(rules, neighbourhoods=True, fixes=True))
    assert not failures
    return found


def titles(picture: Neighbourhood | str | None, only: tuple[int, ...] | None = None) -> list[str]:
    assert isinstance(picture, Neighbourhood), picture
    return sorted(box.title for i, box in enumerate(picture.boxes) if only is None or i in only)


# What is on it


def test_has_all_that_a_finding_says() -> None:
    report = fixes()
    words = Strict(render("html", report)).words
    for one in report.results[0].findings:
        for wanted in (one.code, one.name, one.severity.value, one.message, one.help, one.location.place):
            assert wanted in words
    for wanted in (
        "models/net.py:89",
        "up3 = F.interpolate(output3, size=sizes)",
        "assumes H % 32 == 0",
        "near output",
    ):
        assert wanted in words
    assert "Found 6 findings (2 errors, 3 warnings, 1 info) in 1 model; 4 fixable; 2 suppressed" in words


def test_models_that_could_not_be_checked_are_said_first(tmp_path: Path) -> None:
    words = Strict(render("html", detector(tmp_path))).words
    assert "missing.onnx: no such file; check the path" in words
    assert words.index("missing.onnx: no such") < words.index("Rules")


def test_statistics_are_the_table_alone() -> None:
    page = Strict(render("html", replace(fixes(), statistics=True)))
    assert "SHP001" in page.words
    assert not page.named("details")
    assert not page.named("svg")


def test_a_page_of_thousands_draws_the_first() -> None:
    (one, *_) = fixes().results[0].findings
    result = replace(fixes().results[0], findings=(one,) * (PICTURES + 7))
    page = Strict(render("html", Report((result,))))
    assert len(page.named("svg")) == PICTURES
    assert len(page.named("details")) == PICTURES + 7
    assert f"Only the first {PICTURES} are drawn." in page.words


# Pictures


def test_before_and_after_a_fix() -> None:
    (one, *_) = checked(DETECTOR, "SHP002")
    assert isinstance(one.neighbourhood, Neighbourhood)
    assert isinstance(one.after, Neighbourhood)
    assert titles(one.neighbourhood, one.neighbourhood.changed) == ["Concat", "Reshape", "Shape", "Slice"]
    assert titles(one.after, one.after.changed) == ["Reshape"]
    assert "Shape" not in titles(one.after)
    assert one.after.boxes[one.after.center].title == "Reshape"
    page = Strict(render("html", replace(fixes(), results=(replace(fixes().results[0], findings=(one,)),))))
    classes = [attributes["class"] or "" for attributes in page.named("g")]
    assert sum("gone" in name for name in classes) == 4
    assert sum("new" in name for name in classes) == 1


def test_a_fix_under_a_condition_is_drawn_as_it_would_be() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,4,H,W] x) => (float[N,4,A,B] z) <int64[1] two = {2}, int64[1] four = {4}> {
        small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        shape = Shape (x)
        z = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric"> (small, , , shape)
    }
    """
    (one,) = checked(text, "SHP001")
    assert one.fix is not None
    assert one.fix.condition
    assert titles(one.after) == ["MaxPool", "Resize", "x", "z"]


def test_a_node_that_goes_leaves_its_neighbours_joined() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,4] x) => (float[N,4] z) {
        a = Relu (x)
        b = Identity (a)
        z = Neg (b)
    }
    """
    (one,) = checked(text, "GRF003")
    assert isinstance(one.after, Neighbourhood)
    assert one.after.center == -1
    assert titles(one.neighbourhood, one.neighbourhood.changed if one.neighbourhood else ()) == ["Identity"]
    boxes = one.after.boxes
    assert ("Relu", "Neg") in {(boxes[a].title, boxes[b].title) for a, b, _ in one.after.edges}


def test_only_the_first_of_a_rule_are_drawn_after_their_fix() -> None:
    number = FIXED_OF_A_RULE + 3
    chain = """
        s{i} = Shape (x)
        b{i} = Slice (s{i}, zero, one)
        t{i} = Concat <axis = 0> (b{i}, free, four)
        y{i} = Reshape (x, t{i})
    """
    outputs = ", ".join(f"float[N,P{i},4] y{i}" for i in range(number))
    values = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] free = {-1}, int64[1] four = {4}"
    body = "".join(chain.format(i=i) for i in range(number))
    found = checked(
        f'<ir_version: 8, opset_import: ["": 13]> g (float[N,8] x) => ({outputs}) <{values}> {{ {body} }}', "SHP002"
    )
    assert len(found) == number
    assert [one.after is not None for one in found] == [i < FIXED_OF_A_RULE for i in range(number)]
    assert all(one.neighbourhood for one in found)


def test_workers_draw_it_too() -> None:
    plan = Plan(tuple(load_registry()), neighbourhoods=True, fixes=True)
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_fix_that_has_to_be_asked_for_is_not_drawn() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,3,4] x) => (float[N,3,4] boxes, float[N,3,2] scores) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
        boxes = Neg (x)
        logits = MatMul (x, w)
        scores = Softmax <axis = -1> (logits)
    }
    """
    (one,) = checked(text, "OUT002")
    assert one.fix is not None
    assert one.neighbourhood is not None
    assert one.after is None


def test_a_patch_that_fails_is_said_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = next(rule for rule in load_registry() if rule.code == "SHP002")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("what\x1b[31m")

    monkeypatch.setattr(rule, "patch", broken)
    (one, *_) = checked(DETECTOR, "SHP002")
    assert isinstance(one.after, str)
    assert one.after.startswith("its patch failed with ZeroDivisionError: what\\x1b[31m; please report it")


def test_a_pass_through_boxes_is_never_drawn_on_one_another() -> None:
    boxes = tuple(Box("node", f"Op{i}", f"n{i}") for i in range(8))
    edges = (
        (0, 1, "a"),
        (0, 7, "a"),
        (1, 2, "b"),
        (1, 3, "b"),
        (2, 4, "c"),
        (3, 4, "d"),
        (4, 7, "e"),
        (5, 6, ""),
        (6, 7, ""),
    )
    rows, paths = _placed(Neighbourhood(boxes, edges, 7))
    for row in rows:
        for left, right in pairwise(row):
            assert left.x + left.wide / 2 < right.x - right.wide / 2
    for path in paths:
        assert [spot.row for spot in path] == list(range(path[0].row, path[-1].row + 1))


def test_a_loop_of_edges_is_drawn_too() -> None:
    boxes = tuple(Box("node", f"Op{i}") for i in range(3))
    around = Neighbourhood(boxes, ((0, 1, ""), (1, 2, ""), (2, 0, "")), 0)
    Strict(render("html", Report((replace(fixes().results[0], findings=(finding(neighbourhood=around),)),))))


# Names that anybody can make


@settings(run, max_examples=30)
@given(reports)
def test_names_are_only_ever_text(report: Report) -> None:
    page = Strict(render("html", report))
    assert page.policy == POLICY
    tame = Strict(render("html", bland(report)))

    def kinds(one: Strict) -> list[tuple[str, list[str], str]]:
        return [(tag, sorted(attributes), attributes.get("class") or "") for tag, attributes in one.tags]

    assert kinds(page) == kinds(tame)


# In a browser


def hostile(tmp_path: Path) -> Report:
    around = Neighbourhood(
        (Box("input", HOSTILE), Box("node", HOSTILE, HOSTILE * 5), Box("output", "日本語" * 40)),
        ((0, 1, HOSTILE), (1, 2, "W" * 300)),
        1,
        (1,),
    )
    found = (
        finding("ABC123", HOSTILE * 9, Severity.ERROR, help="x" * 900, neighbourhood=around, after=around, fix=SAFE),
        *fixes().results[0].findings,
    )
    results = (replace(fixes().results[0], model="a" * 400 + HOSTILE, findings=found), *detector(tmp_path).results)
    return replace(fixes(), results=results)


def seen(tab: Any) -> list[str]:
    return [str(text) for text in tab.locator("details.finding:visible > summary").all_inner_texts()]


def test_filters_and_folds(tmp_path: Path) -> None:
    report = hostile(tmp_path)
    every = [one for result in report.results for one in result.findings]
    with opened(render("html", report), tmp_path) as tab:
        assert tab.title() == "onnxlint check"
        assert tab.locator("script").count() == 1
        assert tab.locator("img").count() == 0
        assert overflow(tab) == 0
        assert len(seen(tab)) == len(every)
        tab.locator("#words").fill("F.INTERPOLATE(OUTPUT3")
        (only,) = seen(tab)
        assert only.endswith("models/net.py:89")
        assert tab.locator(".file:visible").count() == 1
        assert tab.locator("#shown").inner_text() == f"1 of {len(every)}"
        tab.locator("#words").fill("")
        tab.locator("#controls input[value=warning]").uncheck()
        assert len(seen(tab)) == sum(one.severity is not Severity.WARNING for one in every)
        tab.locator("#fold").click()
        opened_now = tab.locator("details.finding:visible[open]").count()
        tab.locator("#fold").click()
        assert {opened_now, tab.locator("details.finding:visible[open]").count()} == {0, len(seen(tab))}
        tab.locator("th button", has_text="count").click()
        counts = [int(text) for text in tab.locator("tbody td:nth-child(4)").all_inner_texts()]
        assert counts == sorted(counts, reverse=True)


def test_fits_a_phone_and_prints_light_and_unfolded(tmp_path: Path) -> None:
    with opened(render("html", hostile(tmp_path)), tmp_path, 400, color_scheme="dark") as tab:
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert overflow(tab) == 0
        assert tab.locator("svg").first.bounding_box()["height"] > 100
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = false")
        back = "getComputedStyle(document.body).backgroundColor"
        dark = tab.evaluate(back)
        tab.locator("#theme").click()
        assert tab.evaluate(back) == "rgb(255, 255, 255)" != dark
        tab.locator("#theme").click()
        assert tab.evaluate(back) == dark
        tab.emulate_media(media="print")
        assert tab.evaluate(back) == "rgb(255, 255, 255)"
        assert tab.locator("svg").first.is_visible()
        assert not tab.locator("#controls").is_visible()


# The command


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    path, out = tmp_path / "detector.onnx", tmp_path / "report.html"
    onnx.save(parse(DETECTOR), str(path))
    done = onnxlint("check", str(path), "--format", "html", "-o", str(out))
    assert (done.code, done.out) == (1, "")
    text = out.read_text(encoding="utf-8")
    page = Strict(text)
    assert "after the fix" in page.words
    both = onnxlint("check", str(path), "--format", "text").out
    assert len(page.named("details")) == int(re.findall(r"Found (\d+) finding", both)[0])
    printed = onnxlint("check", str(path), "--format", "html")
    assert (printed.code, printed.out) == (1, text)


def test_findings_of_one_kind_are_one_card_with_help_and_source_line() -> None:
    (one, *_) = fixes().results[0].findings
    frames = tuple(SourceLine("net.py", line, f"x{line} = y.view(n, -1)") for line in (3, 4))
    found = tuple(replace(one, location=replace(one.location, source=(frame,))) for frame in (*frames, frames[0]))
    page = Strict(render("html", Report((replace(fixes().results[0], findings=found),))))
    assert page.words.count(one.message) == 1 + len(found)  # the card, and in each place
    assert f"{one.message} (3 places)" in page.words
    card = page.words[page.words.index("(3 places)") :]
    assert card.index("x3 = y.view(n, -1)") < card.index("x4 = y.view(n, -1)") < card.index(one.help)
    assert len(page.named("details")) == 3
