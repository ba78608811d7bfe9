"""What the pages of docs/ tell to type is understood, and runs as printed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.support.documents import PAGES, answer, check_options, commands, make_place, run_as_printed

OWN_TESTS = {"exporting", "scale"}
"""Pages with tests of their own: tests/exporting/test_page.py (programs and output, too), tests/store/test_page.py."""


def test_every_line_of_the_pages_is_understood() -> None:
    lines = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
    assert len(lines) > 30
    for words in lines:
        check_options(words)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in OWN_TESTS], ids=lambda page: page.stem)
def test_the_lines_of_a_page_run_as_printed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    typed = commands(text)
    if not typed:
        pytest.skip("no command on this page")
    make_place(tmp_path)
    # A page about files shows them in blocks of four backticks, below a line that names them.
    for name, content in re.findall(r"`([\w/]+\.py)`:\n\n````python\n(.*?)````", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(content))
    monkeypatch.chdir(tmp_path)
    for words in typed:
        run_as_printed(words, answer(text, words))
