"""What HTML reports share: a page that loads nothing, and tables that sort. CSS and JavaScript are in assets/."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources

from onnxlint.report._common import LOG_COMMAND
from onnxlint.text import printable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"
"""Content security policy of pages: nothing is loaded, even if a model's names try."""

MANY = 10
"""Columns from which a table is set closer."""


def text(value: str) -> str:
    """A text that came from anywhere, safe in HTML, and in the log of a CI service that the page is printed to."""
    return LOG_COMMAND.sub("&#35;#", escape(printable(value), quote=True))


@cache
def asset(name: str) -> str:
    """A file of `assets/`: CSS and JavaScript of the pages."""
    return (resources.files("onnxlint.report") / "assets" / name).read_text(encoding="utf-8")


def page(title: str, body: Iterable[str], assets: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: Pieces of HTML.
        assets: Names of CSS and JavaScript files of `assets/` beside those of all pages.
        scripts: JavaScript that runs before that of `assets/`.
    """
    names = ("page.css", "page.js", *assets)
    style = "".join(asset(name) for name in names if name.endswith(".css"))
    own = "".join(asset(name) for name in names if name.endswith(".js"))
    script = "".join(f"<script>{one}</script>\n" for one in (*scripts, own))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<button type="button" id="theme" aria-label="Switch between light and dark">◐</button>\n<main>\n'
        + "\n".join(body)
        + f"\n</main>\n{script}</body>\n</html>\n"
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    values: Sequence[Sequence[float | None]] = (),
    words: Iterable[int] = (0,),
    caption: str = "",
    filtered: str = "",
) -> str:
    """A table that sorts by a click on a header.

    Args:
        header: Plain texts.
        rows: Cells, HTML.
        values: Sort key of each cell; if missing or None, its text.
        words: Columns that begin at the left.
        caption: Plain text; read out, and not shown where a heading says the same.
        filtered: Label of a field that filters the rows; empty for none.
    """
    left = set(words)
    head = "".join(
        f'<th scope="col"{"" if i in left else " class=n"}><button type="button">{_breakable(name)}</button></th>'
        for i, name in enumerate(header)
    )
    body = []
    for r, row in enumerate(rows):
        cells = []
        for c, cell in enumerate(row):
            value = values[r][c] if r < len(values) and c < len(values[r]) else None
            mark = "" if value is None else f' data-v="{_plain(value)}"'
            label = f' data-label="{text(header[c])}"' if c < len(header) else ""
            cells.append(f"<td{'' if c in left else ' class=n'}{mark}{label}>{cell}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    field = ""
    if filtered:
        field = (
            f'<label class="filter">{text(filtered)} <input type="search"></label><p class="count" role="status"></p>'
        )
    many = ' class="many"' if len(header) >= MANY else ""
    shown = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="data">{field}<div class="scroll" tabindex="0"><table{many}>{shown}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></div>"
    )


def _breakable(name: str) -> str:
    """The name of a column, which may break after each `_`."""
    return text(name).replace("_", "_<wbr>")


def _plain(value: float) -> str:
    if math.isinf(value):
        return "1e308" if value > 0 else "-1e308"
    return "-1e308" if math.isnan(value) else repr(float(value))
