"""The comment on a pull request, as Markdown: a table at a glance, then what is new, folded.

Everything in it comes from a model or a pull request and may be hostile: it is escaped so that it can make no link, mention,
reference, element, picture or command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxlint.bot.entries import Entries, FindingEntry, Level, ModelEntry, PictureEntry
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.report.markup import change_item, code, folded, html, picture, prose, rows_table
from onnxlint.text import counted, size

MARKER = "<!-- onnxlint-bot -->"
"""The first line of the comment: how it is found again."""

MOST = 65_000
"""Characters of a comment; GitHub takes 65,536."""

PLACES = 12
"""Places of one rule that are listed."""

_RESERVED = 400
_SIGNS: dict[Level, str] = {"error": "❌", "warning": "⚠️", "info": "ℹ️"}


def comment(entries: Entries, most: int = MOST) -> str:
    """The whole comment.

    Args:
        entries: What it says.
        most: Limit on characters; the rest is cut, and the last line reports that.
    """
    parts = [f"{MARKER}\n{_headline(entries)}\n\n", *_table(entries)]
    room = most - _RESERVED - sum(map(len, parts))
    left_out = 0
    for versions in _details(entries):
        text = next((version for version in versions if len(version) <= room), None)
        if text is None:
            left_out += 1
            continue
        parts.append(text)
        room -= len(text)
    if left_out:
        parts.append(
            f"{counted(left_out, 'part was', 'parts were')} left out: a comment holds {most:,} characters. "
            "The summary of the job has everything.\n"
        )
    return "".join(parts).rstrip("\n") + "\n"


def is_worth_posting(entries: Entries) -> bool:
    """Whether a pull request that has no comment yet gets one: for new findings and for models that cannot be read."""
    return bool(entries.new or entries.errors)


def _headline(entries: Entries) -> str:
    models = counted(len(entries.models), "model")
    if entries.errors:
        return f"### ❌ onnxlint: {counted(entries.errors, 'model')} of {len(entries.models)} could not be checked"
    if entries.new:
        sign = "❌" if entries.failing else "⚠️"
        return f"### {sign} onnxlint: {counted(entries.new, 'new finding')} in {models}"
    return f"### ✅ onnxlint: no new findings in {models}"


def _table(entries: Entries) -> Iterator[str]:
    if not entries.models:
        yield "No model differs now.\n\n"
        return
    runs = any(model.outputs for model in entries.models)
    columns = ["model", "new", "fixed", "remaining", "nodes", "size", "opset", *(["outputs"] if runs else [])]
    yield f"| {' | '.join(columns)} |\n|{' --- |' + ' ---: |' * 5 + ' --- |' * (len(columns) - 6)}\n"
    for model in entries.models:
        cells = [
            f"{code(model.path)}{'' if model.status == 'modified' else f' ({model.status})'}",
            *((str(len(model.findings)), str(model.fixed), str(model.remaining)) if not model.error else ("–",) * 3),
            _change(*model.nodes, lambda number: f"{number:,}"),
            _change(*model.bytes, size),
            _change(*model.opset, str),
            *([prose(model.outputs) or "–"] if runs else []),
        ]
        # A `|` ends a cell even inside of a code span.
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"
    yield "\n"


def _change(old: int | None, new: int | None, shown: object) -> str:
    texts = [str(shown(value)) if callable(shown) and value is not None else "–" for value in (old, new)]
    if old is None or new is None:
        return texts[1] if old is None else texts[0]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} → {texts[1]}"


def _details(entries: Entries) -> Iterator[tuple[str, ...]]:
    """Parts of the comment, each at falling length, the most important first."""
    for model in entries.models:
        if model.error:
            yield (f"❌ {code(model.path)}: {prose(model.error)}\n\n",)
    for model in entries.models:
        for group in _by_rule(model.findings):
            yield _finding(model, group)
    for model in entries.models:
        if model.rows or model.sections:
            yield _graph(model), f"{folded(f'what changed in {model.path}', rows_table(model.rows))}"


def _by_rule(findings: Sequence[FindingEntry]) -> list[list[FindingEntry]]:
    """The findings of each rule, the most severe rules first."""
    groups: dict[tuple[str, str], list[FindingEntry]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    order = list(_SIGNS)
    return sorted(groups.values(), key=lambda group: order.index(group[0].severity))


def _finding(model: ModelEntry, group: Sequence[FindingEntry]) -> tuple[str, ...]:
    finding = group[0]
    amount = f"{len(group)} × " if len(group) > 1 else ""
    title = f"{_SIGNS[finding.severity]} {amount}{html(finding.code)} {html(finding.message)}"
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    place = f"{html(model.path)}, {html(finding.place)}{more}"
    places = ", ".join(code(one.place) for one in group[:PLACES])
    rest = f" and {len(group) - PLACES} more" if len(group) > PLACES else ""
    lines = [f"**{prose(finding.severity)}** {prose(finding.name)}, in {code(model.path)} at {places}{rest}"]
    sources = dict.fromkeys((one.path, one.line, one.text) for one in group if one.path)
    for path, line, text in list(sources)[:PLACES]:
        lines.append(f"{code(f'{path}:{line}')} {code(text) if text else ''}".rstrip())
    if finding.replacement:
        lines.append(f"write {code(finding.replacement)}")
    if finding.help:
        lines.append(f"**help** {prose(finding.help)}")
    if finding.fix:
        lines.append(f"**fix** {code(finding.fix)}")
    body = "".join(f"- {line}\n" for line in lines)
    summary = f"<summary>{title} — {place}</summary>"
    short = f"<details>\n{summary}\n\n{body}\n</details>\n\n"
    one_line = f"- {title} — {place}\n\n"
    if finding.picture is None:
        return short, one_line
    return f"<details>\n{summary}\n\n{body}{_drawn(finding.picture)}\n</details>\n\n", short, one_line


def _drawn(entry: PictureEntry) -> str:
    boxes = tuple(Box(kind, title, name) for kind, title, name in entry.boxes)
    edges = tuple(edge for edge in entry.edges if 0 <= edge[0] < len(boxes) and 0 <= edge[1] < len(boxes))
    center = entry.center if 0 <= entry.center < len(boxes) else 0
    return picture(Neighbourhood(boxes, edges, center)) if boxes else ""


def _graph(model: ModelEntry) -> str:
    body = rows_table(model.rows)
    for title, lines in model.sections:
        body += f"**{prose(title)}**\n\n" + "".join(f"- {change_item(line)}\n" for line in lines) + "\n"
    return folded(f"what changed in {model.path}", body)
