"""What HTML reports share: one page that loads nothing, its style, its tables and the little script that they need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from onnxlint.text import printable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"
"""No page of ours loads anything, whatever a model's names try."""


def text(value: str) -> str:
    """A text that came from anywhere, safe in HTML."""
    return escape(printable(value), quote=True)


def page(title: str, body: Iterable[str], style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: Pieces of HTML.
        style: CSS beside what all pages have.
        script: JavaScript beside what all pages have.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        '<button type="button" id="theme" aria-label="Switch between light and dark">◐</button>\n<main>\n'
        + "\n".join(body)
        + f"\n</main>\n<script>{SCRIPT}{script}</script>\n</body>\n</html>\n"
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
        values: What each cell is sorted by; where it is missing or None, its text.
        words: Columns that begin at the left.
        caption: Plain text; read out, and not shown where a heading says the same.
        filtered: Label of a field that filters the rows; empty for none.
    """
    left = set(words)
    head = "".join(
        f'<th scope="col"{"" if i in left else " class=n"}><button type="button">{text(name)}</button></th>'
        for i, name in enumerate(header)
    )
    body = []
    for r, row in enumerate(rows):
        cells = []
        for c, cell in enumerate(row):
            value = values[r][c] if r < len(values) and c < len(values[r]) else None
            mark = "" if value is None else f' data-v="{_plain(value)}"'
            cells.append(f"<td{'' if c in left else ' class=n'}{mark}>{cell}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    field = ""
    if filtered:
        field = (
            f'<label class="filter">{text(filtered)} <input type="search"></label><p class="count" role="status"></p>'
        )
    shown = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="data">{field}<div class="scroll" tabindex="0"><table>{shown}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></div>"
    )


def _plain(value: float) -> str:
    if math.isinf(value):
        return "1e308" if value > 0 else "-1e308"
    return "-1e308" if math.isnan(value) else repr(float(value))


STYLE = """
:root{--back:#fff;--panel:#f6f7f9;--line:#d5d9e0;--ink:#1b1f26;--soft:#545c69;--accent:#0b5cad;--bad:#b3261e;--good:#1b6e3a;
--c0:#0b5cad;--c1:#b54708;--c2:#1b6e3a;--c3:#8b2fa8;--c4:#a01c4b;--c5:#00707a;--c6:#6b5900;--c7:#4a4f9c}
@media screen and (prefers-color-scheme:dark){
:root:not([data-theme=light]){--back:#14171c;--panel:#1c2027;--line:#3a414d;--ink:#e8eaee;
--soft:#a9b1bf;--accent:#7db8ff;--bad:#ff8a80;--good:#79d29a;--c0:#7db8ff;--c1:#ffb074;--c2:#79d29a;--c3:#dda0f0;--c4:#ff9ab8;
--c5:#6fd6e0;--c6:#e0c95c;--c7:#aab0ff}}
@media screen{
:root[data-theme=dark]{--back:#14171c;--panel:#1c2027;--line:#3a414d;--ink:#e8eaee;--soft:#a9b1bf;--accent:#7db8ff;
--bad:#ff8a80;--good:#79d29a;--c0:#7db8ff;--c1:#ffb074;--c2:#79d29a;--c3:#dda0f0;--c4:#ff9ab8;--c5:#6fd6e0;--c6:#e0c95c;
--c7:#aab0ff}
:root[data-theme=dark]{color-scheme:dark}}:root[data-theme=light]{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;
overflow-wrap:anywhere}
main{max-width:1160px;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.5rem;margin:.2rem 2.5rem .2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;overflow-wrap:anywhere}
h3{font-size:1rem;margin:1.3rem 0 .4rem}p{margin:.3rem 0}code,.mono{font:13px/1.45 ui-monospace,Menlo,Consolas,monospace}
.soft{color:var(--soft)}.bad{color:var(--bad)}.good{color:var(--good)}
#theme{position:absolute;top:1rem;right:1rem;font-size:1.1rem;width:2.2rem;height:2.2rem;border-radius:50%;cursor:pointer;
background:var(--panel);color:var(--ink);border:1px solid var(--line)}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{position:absolute;left:-9999px}
th,td{padding:.35rem .7rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td{min-width:4.5rem}td:not(.n):has(+td){min-width:8rem}
td:first-child:not(.n){min-width:11rem}td.n{white-space:nowrap}tbody tr:last-child td{border-bottom:0}
th{background:var(--panel);white-space:nowrap}th.n,td.n{text-align:right}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible,.scroll:focus-visible,#theme:focus-visible,
.pick button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
.bar{display:block;height:5px;border-radius:3px;background:var(--line);margin-top:3px;min-width:90px}
.bar i{display:block;height:100%;border-radius:3px;background:var(--accent)}
.filter{display:inline-block;margin:.2rem 0 .5rem}.filter input{font:inherit;padding:.25rem .5rem;
border:1px solid var(--soft);border-radius:6px;background:var(--back);color:var(--ink);width:min(20rem,60vw)}
.filter~.scroll{max-height:70vh;overflow:auto}.filter~.scroll thead th{position:sticky;top:0}
.count{display:inline-block;margin-left:.8rem;color:var(--soft)}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;margin:.6rem 0}
.alarm{border-color:var(--bad)}
svg{max-width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg .ink{fill:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:1rem;margin-top:1rem}
.charts figure,.pair figure{margin:0}figcaption{color:var(--soft);font-size:.9rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:.8rem}
.pair .stack{position:relative}.pair img{width:100%;display:block;border-radius:6px}
.pair svg{position:absolute;inset:0;width:100%;height:100%}.pick{margin:.4rem 0}
.pick button{font:inherit;padding:.15rem .7rem;border:1px solid var(--soft);background:var(--back);
color:var(--ink);border-radius:6px;cursor:pointer}.pick button[aria-pressed=true]{background:var(--accent);color:var(--back)}
.pair[data-show=reference] figure:last-child,.pair[data-show=candidate] figure:first-child{display:none}
.pair[data-show=reference],.pair[data-show=candidate]{grid-template-columns:minmax(0,640px)}
details>summary{cursor:pointer;padding:.2rem 0}ul{padding-left:1.2rem;margin:.3rem 0}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;list-style:none}
.legend i{display:inline-block;width:.8rem;height:.8rem;
border-radius:3px;margin-right:.4rem;vertical-align:-1px}
@media(max-width:560px){th,td{padding:.3rem .45rem}body{font-size:14px}}
@media print{.filter~.scroll{max-height:none}
#theme,.filter,.count,.pick{display:none}main{max-width:none;padding:0}.scroll{overflow:visible;border:0}
details>*{display:block}h2,h3{break-after:avoid}figure,tr,.panel{break-inside:avoid}body{font-size:11px}}
"""

SCRIPT = """
"use strict";
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
for (const data of document.querySelectorAll(".data")) {
  const body = data.querySelector("tbody"), heads = [...data.querySelectorAll("th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" ||
      (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column];
      return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      const order = typeof x === "number" && typeof y === "number" ? x - y
        : typeof x === "number" ? 1 : typeof y === "number" ? -1 : x.localeCompare(y, undefined, {numeric: true});
      return down ? -order : order;
    });
    body.append(...rows);
  }));
  const field = data.querySelector("input");
  if (field) {
    const count = data.querySelector(".count");
    const update = () => {
      const wanted = field.value.toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      count.textContent = shown + " of " + body.rows.length;
    };
    field.addEventListener("input", update);
    update();
  }
}
for (const pick of document.querySelectorAll(".pick")) {
  pick.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of pick.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    pick.nextElementSibling.dataset.show = button.value;
  });
}
"""
