"""Entries to a forge: one comment kept up to date, notes on lines, and the job's summary for the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator

from onnxlint.bot.comment import MARKER, comment, is_worth_posting
from onnxlint.bot.entries import Entries, FindingEntry
from onnxlint.bot.forges import LINE_MARKER, Forge, LineNote
from onnxlint.bot.web import Refused
from onnxlint.errors import OnnxlintError
from onnxlint.report.markup import code, prose
from onnxlint.text import printable

MOST_NOTES = 10
"""Notes on lines in one review."""

SUMMARY_BYTES = 1_000_000
"""GitHub's summary of a step holds 1 MiB."""


def post(entries: Entries, forge: Forge) -> str:
    """Bring the comment up to date.

    Returns:
        The result, in one line.

    Raises:
        Refused: The token may not write.
        OnnxlintError: The forge does not answer.
    """
    text = comment(entries)
    known = forge.find()
    if known is None and not is_worth_posting(entries):
        return "nothing to post: no new findings, and no earlier comment"
    if known is None:
        forge.create(text)
        done = "comment written"
    elif known[1].strip() != text.strip():
        forge.update(known[0], text)
        done = "comment updated"
    else:
        done = "comment is up to date"
    notes = list(line_notes(entries))
    if notes:
        try:
            forge.annotate(notes, entries.head)
        except Refused as error:
            return f"{done}; notes on lines were refused ({error})"
    return done


def line_notes(entries: Entries) -> Iterator[LineNote]:
    """Notes on lines of PyTorch that the pull request itself changes, the most severe first."""
    changed = dict(entries.lines)
    places: dict[tuple[str, int], list[FindingEntry]] = {}
    for model in entries.models:
        for finding in model.findings:
            if any(first <= finding.line <= last for first, last in changed.get(finding.path, ())):
                places.setdefault((finding.path, finding.line), []).append(finding)
    order = {"error": 0, "warning": 1, "info": 2}
    ranked = sorted(places.items(), key=lambda item: min(order[one.severity] for one in item[1]))
    for (path, line), findings in ranked[:MOST_NOTES]:
        yield LineNote(path, line, _note(findings))


def _note(findings: list[FindingEntry]) -> str:
    parts = [LINE_MARKER]
    seen = set()
    for finding in findings:
        if finding.code not in seen:
            seen.add(finding.code)
            amount = sum(one.code == finding.code for one in findings)
            times = f" ({amount} nodes)" if amount > 1 else ""
            parts.append(f"**{prose(finding.code)}** {prose(finding.message)}{times}")
            if finding.help:
                parts.append(prose(finding.help))
    replacements = {one.replacement for one in findings if one.replacement}
    if len(replacements) == 1:  # one line may be called for several sizes, each with a factor of its own
        parts.append(_suggestion(replacements.pop()))
    return "\n\n".join(parts)


def _suggestion(line: str) -> str:
    """GitHub's block that applies a replacement by a click; the fence is longer than any in the line."""
    fence = "```"
    while fence in line:
        fence += "`"
    if "\n" in line or "\r" in line or not line.isprintable():
        return f"write {code(line)}"
    return f"{fence}suggestion\n{line}\n{fence}"


def write_summary(entries: Entries) -> bool:
    """Append the whole report to the summary of the job, if any (`GITHUB_STEP_SUMMARY`)."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    text = comment(entries, SUMMARY_BYTES // 4).removeprefix(f"{MARKER}\n")
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "a name with a null byte"
        raise OnnxlintError(f"GITHUB_STEP_SUMMARY: {printable(path)}: cannot be written to: {why}") from None
    return True
