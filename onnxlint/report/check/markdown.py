"""Markdown as GitHub and GitLab show it: for comments on pull requests and for the summary of a job.

Every finding folds, and shows a Mermaid picture of what is around it in the graph. A comment of GitHub holds 65,536
characters: what does not fit loses its picture first, then the rest of its text, and is counted at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint.lint.finding import Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Totals, fix_terms, headline, shortened, shown, totals

if TYPE_CHECKING:
    from onnxlint.lint.excerpt import Box, Neighbourhood

MOST = 65_000
"""Characters of a report at most."""

_RESERVED = 2_000
"""Characters kept free for the last lines."""

_LABEL = 48
"""Characters of a name in a picture."""

_TEXT = 400
"""Characters of a name or message outside of pictures."""

_SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.INFO: "ℹ️"}

# Punctuation that Markdown, and what GitHub and GitLab add to it (mentions, links, mathematics), reads something into.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$@#]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)|(?<=www)\.", re.IGNORECASE)


def render(report: Report) -> str:
    """The report as GitHub-flavored Markdown of at most `MOST` characters."""
    total = totals(report)
    head = f"## onnxlint\n\n{_sign(report, total)} {headline(report)}\n\n"
    entries: list[_Entry] = []
    if report.statistics or total.findings > 1:
        entries.append((_table(report),))
    for result in report.results:
        if result.error is not None:
            entries.append((f"❌ {_prose(result.error.message)}\n\n",))
        if result.findings and not report.statistics:
            entries.append((f"### {_code(result.model)}\n\n",))
            entries += [_finding(finding) for finding in result.findings]
    parts, left_out = _fitted(entries, MOST - _RESERVED - len(head))
    if left_out:
        parts.append(f"… and {left_out} more, left out for length.\n")
    return (head + "".join(parts)).rstrip("\n") + "\n"


_Entry = tuple[str, ...]
"""The same content at falling length."""


def _fitted(entries: list[_Entry], room: int) -> tuple[list[str], int]:
    """Each entry as long as it can be while the shortest form of all that follow still fits.

    Returns:
        (texts, number of entries that are left out).
    """
    after = sum(len(entry[-1]) for entry in entries)
    texts: list[str] = []
    for entry in entries:
        after -= len(entry[-1])
        spare = max(min(after, room - len(entry[-1])), 0)  # where not all fit, the first do
        text = next((version for version in entry if len(version) <= room - spare), "")
        if not text:
            break
        texts.append(text)
        room -= len(text)
    return texts, len(entries) - len(texts)


def _sign(report: Report, total: Totals) -> str:
    if total.failed or any(report.fails(severity) for severity in total.severities):
        return "❌"
    return "⚠️" if total.findings else "✅" if total.checked and report.rules else "ℹ️"


def _table(report: Report) -> str:
    rows: dict[tuple[str, str], list[Finding]] = {}
    for result in report.results:
        for finding in result.findings:
            rows.setdefault((finding.code, finding.name), []).append(finding)
    lines = ["| | rule | | findings | fixable |", "| --- | --- | --- | ---: | ---: |"]
    for (code, name), findings in sorted(rows.items(), key=lambda row: (-len(row[1]), row[0])):
        worst = max((finding.severity for finding in findings), key=lambda severity: severity.rank)
        fixable = sum(finding.fix is not None for finding in findings)
        sign = _SIGNS[worst]
        lines.append(f"| {sign} | {_prose(code)} | {_prose(name)} | {len(findings)} | {fixable or ''} |")
    return "\n".join(lines) + "\n\n"


def _finding(finding: Finding) -> _Entry:
    """With picture, without, and in one line."""
    summary = (
        f"{_SIGNS[finding.severity]} <b>{_html(finding.code)}</b> {_html(finding.message)} "
        f"— <code>{_html(finding.location.place)}</code>"
    )
    facts = "\n".join(f"- {fact}" for fact in _facts(finding))
    start, end = f"<details>\n<summary>{summary}</summary>\n\n{facts}\n", "\n</details>\n\n"
    line = f"- {summary}\n\n"
    if finding.neighbourhood is None:
        return f"{start}{end}", line
    return f"{start}{_picture(finding.neighbourhood)}{end}", f"{start}{end}", line


def _facts(finding: Finding) -> Iterator[str]:
    place = finding.location
    yield f"**{finding.severity.value}** {_prose(finding.name)}, at {_code(place.place)}"
    for line in reversed(place.source):
        yield f"{_code(f'{line.path}:{line.line}')} {_code(line.code) if line.code else ''}".rstrip()
    if place.scope:
        yield f"module {_code(place.scope)}"
    if place.near:
        yield f"near output {_code(place.near)}"
    if finding.help:
        yield f"**help** {_prose(finding.help)}"
    if finding.fix:
        yield f"**fix** {_prose(fix_terms(finding.fix))}"


# Pictures


def _picture(around: Neighbourhood) -> str:
    lines = ["", "```mermaid", "flowchart LR"]
    lines += [f"    n{i}{_box(box)}" for i, box in enumerate(around.boxes)]
    lines += [f'    n{source} -->|"{_label(label)}"| n{target}' for source, target, label in around.edges]
    lines += ["    classDef finding stroke-width:4px,stroke:orange", f"    class n{around.center} finding", "```", ""]
    return "\n".join(lines)


def _box(box: Box) -> str:
    title = _label(box.title)
    if box.kind != "node":
        return f'(["{title}"])'
    # The operator is in most names already, but not in all; the name says which of them it is.
    return f'["{title}<br/>{_label(box.name)}"]' if box.name else f'["{title}"]'


def _label(text: str) -> str:
    """A text for a quoted label: all but letters, digits and what is harmless as Mermaid's entity codes."""
    text = shown(shortened(text, _LABEL), _LABEL * 10) or " "
    return "".join(c if c.isalnum() or c in " _/,.()?×→…" else f"#{ord(c)};" for c in text)


# Text


def _code(text: str) -> str:
    """A code span that holds exactly this text."""
    text = shown(text, _TEXT) or " "
    fence = "`"
    while fence in text:
        fence += "`"
    if len(fence) > 1 or text.startswith(" ") or text.endswith(" "):
        return f"{fence} {text} {fence}"
    return f"{fence}{text}{fence}"


def _html(text: str) -> str:
    """A text that is no markup, neither in an HTML block nor in a line of Markdown: entities are text in both."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};{_apart(match[0])}", shown(text, _TEXT))


def _prose(text: str) -> str:
    """A text without markup, readable in the file too: no emphasis, link, mention or element can come of it."""
    return _MARKUP.sub(lambda match: f"\\{match[0]}{_apart(match[0])}", shown(text, _TEXT))


def _apart(char: str) -> str:
    # Mentions and issue numbers are found in the text that is shown, where backslashes and entities are gone.
    return "<!-- -->" if char in "@#" else ""
