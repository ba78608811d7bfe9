"""What the tests of HTML reports share: a strict reader, and a browser that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

BROWSER = Path("/usr/bin/chromium")

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
"""Elements that hold nothing, and are never closed."""


class Strict(HTMLParser):
    """Reads a page; tags that do not balance, ids that are there twice and addresses of anything outside are errors.

    Attributes:
        tags: Those that open, in order, with their attributes.
        words: The text outside of style and script.
        policy: The content security policy.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.policy = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(set(ids)) == len(ids), f"an id twice: {ids}"
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        assert len(known) == len(attrs), f"an attribute twice: {attrs}"
        for name, value in attrs:
            assert not name.startswith("on"), f"a handler: {name}"
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                assert (value or "").startswith("data:image/"), f"{tag} loads {value}"
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"] or ""
        self.tags.append((tag, known))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        depth = len(self._open)
        self.handle_starttag(tag, attrs)
        del self._open[depth:]

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> inside of {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of one kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@contextmanager
def opened(text: str, folder: Path, width: int = 1280, **more: Any) -> Iterator[Any]:
    """A tab of a real browser with the page; it fails on a script error and on every request but the one for the page."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER.exists():
        pytest.skip(f"{BROWSER} is not installed")
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    asked: list[str] = []
    wrong: list[str] = []

    def answer(route: Any) -> None:
        url = route.request.url
        asked.append(url)
        route.continue_() if url == path.as_uri() else route.abort()

    with api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=str(BROWSER), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            tab = browser.new_page(viewport={"width": width, "height": 900}, **more)
            tab.route("**/*", answer)
            tab.on("pageerror", lambda error: wrong.append(str(error)))
            tab.on("console", lambda line: wrong.append(line.text))
            tab.goto(path.as_uri())
            yield tab
        finally:
            browser.close()
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert not wrong


def overflow(tab: Any) -> int:
    """Pixels that the page is wider than its window."""
    return int(tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
