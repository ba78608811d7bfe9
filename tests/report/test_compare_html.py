"""The page of a comparison: what the text says, whatever the names; and in a browser, with nothing loaded."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from onnxlint import text as numbers
from onnxlint.accuracy.results import AccuracyReport, Detection, ImageAccuracy, LayerAccuracy, TaskResult
from onnxlint.report import charts
from onnxlint.report.compare import tables as compare_tables
from onnxlint.report.compare.html import render
from onnxlint.report.page import POLICY
from tests.support.accuracy_reports import REPORT, model, output
from tests.support.pages import Strict, opened, overflow

HOSTILE = "</script><script>document.title='hit'</script><img src=x onerror=alert(1)>\u202eevil\x1b[31m\x00"
SNRS = (100.0, 9.0, math.inf, 40.0, math.nan, -math.inf)


def picture() -> bytes:
    """A PNG, 64×48."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file = io.BytesIO()
    image.new("RGB", (64, 48), (90, 20, 20)).save(file, "PNG")
    return file.getvalue()


def report() -> AccuracyReport:
    """One of all that a comparison can say, its worst image with a picture."""
    first, *others = REPORT.candidates
    found = (Detection((4, 4, 30, 30), 0.9, 1, (10, 10, 20, 20)),)
    worst = (ImageAccuracy("a.png", 12.5, found, (), pixels=picture()),)
    layers = tuple(LayerAccuracy(f"r{i}", f"c{i}", "Conv", snr, i / 10) for i, snr in enumerate(SNRS))
    return replace(REPORT, candidates=(replace(first, worst=worst, layers=layers), *others))


def hostile() -> AccuracyReport:
    """The same with names that would like to be more than that."""
    one = report().candidates[0]
    layers = tuple(
        replace(layer, reference=HOSTILE, candidate=f"c{i}" + HOSTILE * 4, type=HOSTILE, source=HOSTILE)
        for i, layer in enumerate(one.layers)
    )
    worst = tuple(replace(image, name=HOSTILE * 4, labels=(HOSTILE, HOSTILE)) for image in one.worst)
    suggestions = tuple(replace(item, text=HOSTILE, option=HOSTILE) for item in one.suggestions)
    bad = replace(
        one,
        name=HOSTILE,
        path=HOSTILE * 5,
        backend=HOSTILE,
        unmatched=(HOSTILE,),
        notes=(HOSTILE,),
        layers=layers,
        worst=worst,
        suggestions=suggestions,
        outputs=(output(HOSTILE),),
    )
    return replace(
        report(),
        candidates=(bad, model("x" * 300, snr_db=math.nan)),
        source=HOSTILE,
        recipe=HOSTILE,
        failures=(HOSTILE * 3,),
        notes=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
    )


def test_is_well_formed_and_may_load_nothing() -> None:
    for one in (report(), hostile()):
        page = Strict(render(one))
        assert page.policy == POLICY
        assert "default-src 'none'" in POLICY


def test_names_are_only_ever_text() -> None:
    text = render(hostile()).replace(charts.bundle(), "")
    assert all(char == "\n" or char.isprintable() for char in text)
    page = Strict(text)
    assert len(page.named("script")) == 2
    assert "\\u202eevil\\x1b[31m\\x00" in page.words
    assert {(attributes["src"] or "")[:22] for attributes in page.named("img")} == {"data:image/png;base64,"}


def test_charts_that_cannot_be_made_cost_the_charts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """V8 ends the process that it runs in where it cannot reserve its addresses, as under `ulimit -v`."""
    monkeypatch.setattr(charts, "RESERVED", 1 << 30)
    charts.bundle.cache_clear()
    try:
        page = Strict(render(report()))
    finally:
        charts.bundle.cache_clear()
    assert "No charts: vl-convert-python fails here: the native library crashed on it" in page.words
    assert not [attributes for attributes in page.named("div") if attributes.get("class") == "chart"]
    assert page.named("table")


def test_without_a_task_nothing_is_said_to_be_found_and_a_photo_is_shown_once() -> None:
    full = report()
    bare = replace(
        full,
        reference=replace(full.reference, task=None),
        candidates=tuple(
            replace(
                one,
                task=None,
                worst=tuple(replace(image, reference=(), candidate=(), labels=("", "")) for image in one.worst),
            )
            for one in full.candidates
        ),
    )
    page = Strict(render(bare))
    assert " found" not in page.words
    assert len(page.named("img")) == 1
    assert len(Strict(render(full)).named("img")) == 2


def test_candidates_are_drawn_by_what_tells_them_apart() -> None:
    task = TaskResult("detection", {"found": 30.0, "missed": 1.0, "extra": 4.0}, "the labels")
    small = tuple(
        replace(one, bytes=number * 10_000, task=task, worst=()) for number, one in enumerate(report().candidates, 1)
    )
    page = render(replace(report(), candidates=small))
    assert "Size against accuracy (SNR" in page
    assert "size of the files, KB" in page
    more = replace(small[0], task=replace(task, metrics={**task.metrics, "found": 31.0}))
    assert "Size against accuracy (found)" in render(replace(report(), candidates=(more, *small[1:])))


def test_what_is_worst_is_called_an_image_only_where_there_is_one() -> None:
    random = tuple(replace(one, worst=tuple(replace(x, pixels=b"") for x in one.worst)) for one in report().candidates)
    assert "Worst images" in render(report())
    assert "Worst images" not in render(replace(report(), candidates=random))


def test_without_the_packages_the_tables_stay_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    page = Strict(render(report()))
    assert "pip install 'onnxlint[charts]'" in page.words
    assert len(page.named("script")) == 1
    assert page.named("table")


def test_charts_are_drawn_at_the_size_of_the_page_and_answer_the_mouse(tmp_path: Path) -> None:
    with opened(render(report()), tmp_path) as tab:
        tab.wait_for_selector(".chart svg")
        texts = "[...document.querySelectorAll('.chart svg text')].filter(t => t.getBoundingClientRect().width > 0)"
        scale = "Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b)"
        sizes = tab.evaluate(f"{texts}.map(t => parseFloat(getComputedStyle(t).fontSize) * {scale})")
        assert len(sizes) > 10
        assert {round(size) for size in sizes} == {charts.FONT}
        clipped = tab.evaluate(
            "[...document.querySelectorAll('.chart')].flatMap(c => [...c.querySelectorAll('svg text')].filter(t => {"
            "const a = t.getBoundingClientRect(), b = c.getBoundingClientRect();"
            "return a.width && (a.left < b.left - 1 || a.right > b.right + 1)}).map(t => t.textContent))"
        )
        assert clipped == []
        tab.locator(".chart .mark-symbol path").first.hover(force=True)
        tab.wait_for_selector("#vg-tooltip-element.visible")
        assert "net_" in tab.locator("#vg-tooltip-element").inner_text()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_column_hides(width: int, theme: str, tmp_path: Path) -> None:
    with opened(render(report()), tmp_path, width, color_scheme=theme) as tab:
        assert overflow(tab) <= 0
        hidden = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        assert tab.evaluate(hidden) == 0


def test_has_the_numbers_of_the_text() -> None:
    one = report()
    words = Strict(render(one)).words
    tables = [compare_tables.summary(one), *(compare_tables.outputs(candidate) for candidate in one.candidates)]
    for table in tables:
        for row in table.rows:
            for cell in row:
                assert cell in words
    for wanted in (compare_tables.headline(one), *one.failures, *one.notes, *one.candidates[0].unmatched):
        assert wanted in words
    for layer in one.candidates[0].layers:
        assert numbers.db(layer.snr_db) in words
        assert numbers.share(layer.share) in words
    for line in compare_tables.suggestions(one.candidates[0]):
        assert line in words


def test_what_is_no_number_is_shown_as_everywhere() -> None:
    strange = replace(
        output("boxes", math.nan),
        cosine=math.nan,
        max_abs=math.inf,
        mean_abs=math.nan,
        relative=math.inf,
        nan_share=1.0,
    )
    one = replace(
        report(), candidates=(model("a.onnx", snr_db=math.nan, outputs=(strange,), parameters=None), model("b.onnx"))
    )
    text = render(one)
    page = Strict(text)
    assert numbers.UNKNOWN in page.words
    # The script's text may say so; no cell, chart or attribute does.
    body = re.sub(r"(?s)<(script|style)>.*?</\1>", "", text)
    assert not re.search(r"[\s\"(,:>]nan\b", body)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("x", "y", "cx", "cy", "width", "height", "points", "d", "style", "data-v") and value:
                assert not re.search("nan|inf|None", value), (tag, name, value)


# In a browser


def column(tab: object, number: int) -> list[str]:
    cells = tab.locator(f".data:has(.filter) tbody tr:visible td:nth-child({number})")  # type: ignore[attr-defined]
    return [str(text) for text in cells.all_inner_texts()]


def test_sorts_and_filters(tmp_path: Path) -> None:
    with opened(render(report()), tmp_path) as tab:
        assert overflow(tab) == 0
        layers = tab.locator(".data:has(.filter)")
        head = layers.locator("th", has=tab.locator("button", has_text="SNR"))
        falling = ["exact", "100.00 dB", "40.00 dB", "9.00 dB"]
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert column(tab, 5)[:4] == falling
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(tab, 5)[-4:] == falling[::-1]
        layers.locator("th button", has_text="#").click()
        layers.locator("th button", has_text="#").click()
        assert column(tab, 1) == [str(i + 1) for i in range(len(SNRS))]
        layers.locator("input").fill("C3")
        assert column(tab, 2) == ["c3"]
        assert layers.locator(".count").inner_text() == f"1 of {len(SNRS)}"
        layers.locator("input").fill("nothing has this")
        assert column(tab, 2) == []
        layers.locator("input").fill("")
        assert len(column(tab, 2)) == len(SNRS)
        summary = tab.locator(".data").first
        summary.locator("th button", has_text="size").focus()
        tab.keyboard.press("Enter")
        assert summary.locator("th[aria-sort]").inner_text().startswith("size")


def test_compares_images_and_fits_a_phone(tmp_path: Path) -> None:
    with opened(render(report()), tmp_path, 400) as tab:
        assert overflow(tab) == 0
        sides = [tab.locator(f".pair figure.{side}").first for side in ("reference", "candidate")]
        assert [side.is_visible() for side in sides] == [True, True]
        assert tab.locator(".pair img").first.evaluate("image => image.naturalWidth") == 64
        for value, shown in (("candidate", [False, True]), ("reference", [True, False]), ("both", [True, True])):
            button = tab.locator(f".pick button[value={value}]").first
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
            assert tab.locator(".pick").first.locator("button[aria-pressed=true]").count() == 1
            assert [side.is_visible() for side in sides] == shown
        image, drawn = (tab.locator(f".pair figure.reference {kind}").first.bounding_box() for kind in ("img", "svg"))
        assert image == drawn
        back = "getComputedStyle(document.body).backgroundColor"
        light = tab.evaluate(back)
        tab.locator("#theme").click()
        assert tab.evaluate(back) != light
        tab.emulate_media(media="print")
        assert tab.evaluate(back) == light


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_names_neither_run_nor_widen_the_page(width: int, tmp_path: Path) -> None:
    with opened(render(hostile()), tmp_path, width) as tab:
        assert tab.title().startswith("onnxlint compare")
        assert overflow(tab) == 0
