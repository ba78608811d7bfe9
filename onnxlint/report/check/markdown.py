"""Markdown as GitHub and GitLab show it: for comments on pull requests and for the summary of a job.

Every kind of finding folds, and shows a Mermaid picture of the neighbourhood of the first one in the graph. A comment of
GitHub holds 65,536 characters: what does not fit loses its picture first, then the rest of its text, and is counted at the
end. Findings that nothing removes are counted, as in the text report.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.lint.finding import Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Totals, fix_terms, headline, totals
from onnxlint.report.check.groups import Group, grouped, split, unactionable
from onnxlint.report.markup import code, html, picture, prose
from onnxlint.text import listed

MOST = 65_000
"""Characters of a report at most."""

_RESERVED = 2_000
"""Characters kept free for the last lines."""

_SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.INFO: "ℹ️"}


def render(report: Report) -> str:
    """The report as GitHub-flavored Markdown of at most `MOST` characters."""
    total = totals(report)
    head = f"## onnxlint\n\n{_sign(report, total)} {headline(report)}\n\n"
    entries: list[_Entry] = []
    if report.statistics or total.findings > 1:
        entries.append((_table(report),))
    for result in report.results:
        if result.error is not None:
            entries.append((f"❌ {prose(result.error.message)}\n\n",))
        if result.findings and not report.statistics:
            entries.append((f"### {code(result.model)}\n\n",))
            some, others = split(result)
            entries += [_group(group) for group in grouped(some)]
            if others:
                entries.append((f"{prose(unactionable(others, 'the JSON report'))}\n\n",))
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
    for (rule, name), findings in sorted(rows.items(), key=lambda row: (-len(row[1]), row[0])):
        worst = max((finding.severity for finding in findings), key=lambda severity: severity.rank)
        fixable = sum(finding.fix is not None for finding in findings)
        sign = _SIGNS[worst]
        lines.append(f"| {sign} | {prose(rule)} | {prose(name)} | {len(findings)} | {fixable or ''} |")
    return "\n".join(lines) + "\n\n"


def _group(group: Group) -> _Entry:
    """With picture, without, and in one line."""
    finding = group.first
    more = f" and {group.places - 1:,} more" if group.places > 1 else ""
    summary = (
        f"{_SIGNS[finding.severity]} <b>{html(finding.code)}</b> {html(group.message)} "
        f"— <code>{html(finding.location.place)}</code>{more}"
    )
    facts = "\n".join(f"- {fact}" for fact in _facts(group))
    start, end = f"<details>\n<summary>{summary}</summary>\n\n{facts}\n", "\n</details>\n\n"
    line = f"- {summary}\n\n"
    if finding.neighbourhood is None:
        return f"{start}{end}", line
    return f"{start}{picture(finding.neighbourhood)}{end}", f"{start}{end}", line


_MOST_PLACES = 30
"""Places of one kind that are named beside the first."""


def _place(finding: Finding) -> str:
    """A place, with the line of Python that it comes from."""
    lines = finding.location.source[-1:]
    return " ".join([code(finding.location.place), *(code(f"{line.path}:{line.line}") for line in lines)])


def _facts(group: Group) -> Iterator[str]:
    finding = group.first
    place = finding.location
    yield f"**{finding.severity.value}** {prose(finding.name)}, at {code(place.place)}"
    for line in reversed(place.source):
        yield f"{code(f'{line.path}:{line.line}')} {code(line.code) if line.code else ''}".rstrip()
    if place.scope:
        yield f"module {code(place.scope)}"
    if place.near:
        yield f"near output {code(place.near)}"
    if others := [_place(one) for one in group.findings[1 : _MOST_PLACES + 1]]:
        left = len(group.findings) - 1 - len(others)
        yield f"also at {', '.join(others)}" + (f" and {left:,} more" if left else "")
    if finding.help:
        yield f"**help** {prose(finding.help)}"
    if finding.fix:
        terms = [fix_terms(one.fix) for one in group.findings if one.fix is not None]
        yield f"**fix** {prose(listed(dict.fromkeys(terms), 3))}"
