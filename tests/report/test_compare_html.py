"""The page of a comparison in a browser: sorting, filtering, pictures, and nothing loaded."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest

from onnxlint.accuracy.results import (
    AccuracyReport,
    CandidateReport,
    Detection,
    ImageAccuracy,
    LayerAccuracy,
    OutputAccuracy,
)
from onnxlint.report.compare_html import render

BROWSER = Path("/usr/bin/chromium")


def _page() -> str:
    image = pytest.importorskip("PIL.Image", reason="extra 'tasks' is not installed")
    file = io.BytesIO()
    image.new("RGB", (64, 48), (90, 20, 20)).save(file, "PNG")
    found = (Detection((4, 4, 30, 30), 0.9),)
    one = CandidateReport(
        "<script>x</script>",
        "a.onnx",
        "onnx",
        1000,
        10,
        30.0,
        (OutputAccuracy("y", "y", (1, 4), 4, 30.0, 0.99, 0.1, 0.05, 0.02),),
        layers=tuple(LayerAccuracy(f"r{i}", f"c{i}", "Conv", snr) for i, snr in enumerate((40.0, math.inf, 9.0))),
        worst=(ImageAccuracy("a.png", 12.0, found, found, pixels=file.getvalue()),),
    )
    reference = CandidateReport("ref.onnx", "ref.onnx", "onnx", 4000, 10, math.inf, ())
    return render(AccuracyReport(reference, (one,), 1, "images", ""))


def test_names_are_escaped() -> None:
    assert "<script>x" not in _page()
    assert "&lt;script&gt;x" in _page()


def test_works_in_a_browser_and_loads_nothing(tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER.exists():
        pytest.skip(f"{BROWSER} is not installed")
    path = tmp_path / "page.html"
    path.write_text(_page(), encoding="utf-8")
    asked: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(BROWSER), args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 400, "height": 800})
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        data = tab.locator(".data", has=tab.locator("input")).first
        data.locator("th button", has_text="SNR").first.click()
        rows = data.locator("tbody tr").all_inner_texts()
        data.locator("input").fill("c1")
        visible = data.locator("tbody tr:visible").count()
        tab.locator(".pick button[value=candidate]").first.click()
        shown = [tab.locator(f".pair figure.{side}").first.is_visible() for side in ("reference", "candidate")]
        wide = tab.evaluate("document.documentElement.scrollWidth")
        browser.close()
    snrs = ["exact" if "exact" in row else "40" if "40.00" in row else "9" for row in rows]
    assert snrs in (["exact", "40", "9"], ["9", "40", "exact"])
    assert visible == 1
    assert shown == [False, True]
    assert wide <= 400
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
