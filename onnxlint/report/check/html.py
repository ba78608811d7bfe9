"""Findings as one HTML page that loads nothing: they filter, and each shows its place in the graph, drawn.

Where a fix was tried (`Plan(fixes=True)`), the same place is drawn as the fix leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnxlint.lint.excerpt import FIXED_OF_A_RULE
from onnxlint.lint.finding import CheckResult, Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import fix_terms, headline, shown, totals
from onnxlint.report.check.groups import Group, fix_hint, grouped, split
from onnxlint.report.drawing import figure
from onnxlint.report.page import page, table, text
from onnxlint.text import counted
from onnxlint.version import __version__

PICTURES = 500
"""Findings that are drawn; a page with more is slow in every browser."""

SOURCES = 5
"""Lines of Python that a group shows; each place has its own."""

OPEN = 12
"""With more findings than this, all begin folded."""


def render(report: Report) -> str:
    """The whole page."""
    return page("onnxlint check", _body(report), ("check.css", "check.js"))


def _text(value: str) -> str:
    return text(shown(value))


def _body(report: Report) -> Iterator[str]:
    total = totals(report)
    yield "<h1>onnxlint check</h1>"
    yield f'<p class="soft">{_text(headline(report))}</p>'
    if hint := fix_hint(report.results):
        yield f'<p class="panel"><code>{_text(hint)}</code></p>'
    errors = [result.error.message for result in report.results if result.error is not None]
    if errors:
        items = "".join(f"<li>{_text(message)}</li>" for message in errors)
        yield f'<div class="panel alarm" role="alert"><strong class="bad">Not checked</strong><ul>{items}</ul></div>'
    if total.findings > 1 or (total.findings and report.statistics):
        yield "<h2>Rules</h2>"
        yield _rules(report)
    if total.findings and not report.statistics:
        yield _controls(total.severities)
        room = PICTURES
        for result in report.results:
            if result.findings:
                yield from _file(result, total.findings <= OPEN, room)
                room -= len(result.findings)
        if room < 0:
            yield f'<p class="soft">Only the first {PICTURES} are drawn.</p>'
        if any(finding.after is not None for result in report.results for finding in result.findings):
            yield (
                '<p class="soft">The result of a fix is drawn for at most '
                f"{FIXED_OF_A_RULE} findings of a rule in a model, fewer in large ones.</p>"
            )
    yield f'<p class="soft">onnxlint {text(__version__)}</p>'


def _rules(report: Report) -> str:
    known: dict[tuple[str, str], list[Finding]] = {}
    for result in report.results:
        for finding in result.findings:
            known.setdefault((finding.code, finding.name), []).append(finding)
    rows: list[list[str]] = []
    values: list[list[float | None]] = []
    for (code, name), found in sorted(known.items(), key=lambda row: (-len(row[1]), row[0])):
        worst = max((finding.severity for finding in found), key=lambda severity: severity.rank)
        fixable = sum(finding.fix is not None for finding in found)
        rows.append([_badge(worst), _text(code), _text(name), str(len(found)), str(fixable or "")])
        values.append([worst.rank, None, None, len(found), fixable])
    header = ("severity", "rule", "name", "count", "fixable")
    return table(header, rows, values=values, words=(0, 1, 2), caption="Rules")


def _badge(severity: Severity) -> str:
    return f'<span class="badge {severity.value}">{severity.value}</span>'


def _controls(severities: Mapping[Severity, int]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" value="{severity.value}" checked> {severity.value} ({severities[severity]})</label>'
        for severity in Severity
        if severities[severity]
    )
    return (
        '<div id="controls"><label>Filter <input type="search" id="words"></label>'
        f'{boxes}<button type="button" id="fold">fold or open all</button><span id="shown" role="status"></span></div>'
    )


def _file(result: CheckResult, unfolded: bool, room: int) -> Iterator[str]:
    """The findings of a model: grouped by kind, those that are not actionable at the end."""
    yield f'<section class="file"><h2>{_text(result.model)}</h2>'
    silenced = f", {result.suppressed} suppressed" if result.suppressed else ""
    yield f'<p class="soft">{counted(len(result.findings), "finding")}{silenced}</p>'
    some, others = split(result)
    for group in grouped(some):
        yield _group(group, unfolded, room)
        room -= len(group.findings)
    if others:
        yield f"<h3>No fix and no other export removes {'this' if len(others) == 1 else 'these'}</h3>"
    for group in grouped(others):
        yield _group(group, False, room)
        room -= len(group.findings)
    yield "</section>"


def _group(group: Group, unfolded: bool, room: int) -> str:
    """One finding, or a card with what several have in common and each of their places."""
    if len(group.findings) == 1:
        return _finding(group.first, unfolded, room > 0)
    first = group.first
    sources = dict.fromkeys(
        f"<code>{_text(f'{line.path}:{line.line}')}</code> <code>{_text(line.code)}</code>"
        for line in (finding.location.source[-1] for finding in group.findings if finding.location.source)
    )
    more = f"<br>and {len(sources) - SOURCES} more lines" if len(sources) > SOURCES else ""
    facts = {
        "rule": _text(first.name),
        "source": "<br>".join(list(sources)[:SOURCES]) + more,
        "help": _text(first.help),
        "fix": "<br>".join(dict.fromkeys(text(fix_terms(one.fix)) for one in group.findings if one.fix is not None)),
    }
    places = "".join(_finding(one, False, i < room, is_member=True) for i, one in enumerate(group.findings))
    return (
        f'<div class="panel group"><p>{_badge(first.severity)} <strong>{_text(first.code)}</strong> '
        f"{_text(group.message)}</p>{_facts(facts)}{places}</div>"
    )


def _finding(finding: Finding, unfolded: bool, drawn: bool, is_member: bool = False) -> str:
    """One finding; a member of a group does not repeat the group's text."""
    place = finding.location
    code = f'<code class="soft">{_text(place.place)}</code>'
    frame = f" <code>{_text(f'{place.source[-1].path}:{place.source[-1].line}')}</code>" if place.source else ""
    summary = f"{code}{frame}"
    if not is_member:
        summary = f"{_badge(finding.severity)} <strong>{_text(finding.code)}</strong> {_text(finding.message)} {code}"
    lines = "<br>".join(
        f"<code>{_text(f'{line.path}:{line.line}')}</code> <code>{_text(line.code)}</code>"
        for line in reversed(place.source)
    )
    facts = {
        "rule": _text(f"{finding.code} {finding.name}" if is_member else finding.name),
        "message": _text(finding.message) if is_member else "",
        "place": f"<code>{_text(place.place)}</code>",
        "source": lines,
        "module": f"<code>{_text(place.scope)}</code>" if place.scope else "",
        "near output": f"<code>{_text(place.near)}</code>" if place.near else "",
        "help": _text(finding.help),
        "fix": text(fix_terms(finding.fix)) if finding.fix else "",
    }
    return (
        f'<details class="{"" if is_member else "panel "}finding" data-severity="{finding.severity.value}"'
        f"{' open' if unfolded else ''}><summary>{summary}</summary>"
        f"{_facts(facts)}{pictures(finding) if drawn else ''}</details>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    """A definition list of name → HTML, without empty entries."""
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
    return f"<dl>{listed}</dl>"


# Pictures


def pictures(finding: Finding) -> str:
    """The nodes around a finding as HTML, before and after its fix; empty for one about the whole model."""
    before, after = finding.neighbourhood, finding.after
    if before is None:
        return ""
    if after is None:
        return f'<div class="graphs">{figure(before, "")}</div>'
    if isinstance(after, str):
        return f'<div class="graphs">{figure(before, "")}</div><p class="soft">After the fix: {_text(after)}.</p>'
    gone = "before; dashed: removed or changed by the fix" if before.changed else "before"
    new = "after the fix; green: added or changed" if after.changed else "after the fix"
    return f'<div class="graphs">{figure(before, gone, "gone")}{figure(after, new, "new")}</div>'
