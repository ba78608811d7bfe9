"""What several reporters need: counting, escaping, and files of the repository."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.finding import Applicability, Finding, Fix, Severity
from onnxlint.text import counted, listed, printable, shortened

if TYPE_CHECKING:
    from onnxlint.report import Report

_SOURCE_BYTES = 10_000_000
"""Of a file of Python that are read."""

LIMIT = 1000
"""Characters of a name or message that reports for people show."""

LOG_COMMAND = re.compile(r"##(?=\[|vso\[)")
"""What Azure takes for a command wherever it stands in a log."""

_COMMAND = re.compile(rf"{LOG_COMMAND.pattern}|(?<!\S)::")
_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(text: str, limit: int = LIMIT) -> str:
    """A text that came out of a model, safe for terminals and for the logs of CI services; long ones lose their middle."""
    if len(text) > limit:
        text = shortened(text, limit)
    return disarmed(printable(text))


def disarmed(text: str) -> str:
    """A text, of any number of lines, without what GitHub and Azure take for commands in a log.

    That is `::` at the start of a line or after a space, `##[` and `##vso[`.
    """
    if not _COMMAND.search(text):
        return text
    return _COMMAND.sub(lambda match: f"\\x{ord(match[0][0]):02x}{match[0][1:]}", text)


@dataclass(frozen=True)
class Totals:
    """Sums over a report.

    Attributes:
        severities: Findings by severity.
        models: Models that have findings.
        checked: Models that were checked without an error.
        failed: Models that could not be checked, or only in part.
        fixable: Findings that have a fix.
        suppressed: Findings that a baseline or the model itself keeps silent.
        suppressed_codes: Their codes, each once.
    """

    severities: Counter[Severity]
    models: int
    checked: int
    failed: int
    fixable: int
    suppressed: int
    suppressed_codes: tuple[str, ...]

    @property
    def findings(self) -> int:
        """All of them."""
        return sum(self.severities.values())

    @property
    def by_severity(self) -> str:
        """`2 errors, 9 warnings, 3 info`: severities that occur, worst first."""
        words = []
        for severity in Severity:
            number = self.severities[severity]
            if number:
                words.append(f"{number} info" if severity is Severity.INFO else counted(number, severity.value))
        return ", ".join(words)


def totals(report: Report) -> Totals:
    """The sums over a report."""
    findings = [finding for result in report.results for finding in result.findings]
    failed = sum(result.error is not None for result in report.results)
    return Totals(
        Counter(finding.severity for finding in findings),
        models=sum(bool(result.findings) for result in report.results),
        checked=len(report.results) - failed,
        failed=failed,
        fixable=sum(finding.fix is not None for finding in findings),
        suppressed=sum(result.suppressed for result in report.results),
        suppressed_codes=tuple(sorted({code for result in report.results for code in result.suppressed_codes})),
    )


def headline(report: Report) -> str:
    """The summary of a report in one line. That all is well it says only where rules ran over models."""
    total = totals(report)
    if total.findings:
        models = counted(len(report.results), "model")
        where = models if total.models == len(report.results) else f"{total.models} of {models}"
        line = f"Found {counted(total.findings, 'finding')} ({total.by_severity}) in {where}"
    elif total.checked and report.rules:
        line = f"No findings in {counted(total.checked, 'model')}" if total.failed else "All checks passed"
    else:
        line = "No model was checked" if report.rules or not report.results else "No rule ran"
    notes = [f"{total.fixable} fixable"] if total.fixable else []
    if total.suppressed:
        codes = listed(total.suppressed_codes, limit=5)
        notes.append(f"{total.suppressed} suppressed{f' ({codes})' if codes else ''}")
    if total.failed:
        notes.append(f"checking failed on {counted(total.failed, 'model')}")
    return "; ".join([line, *notes])


def fix_terms(fix: Fix) -> str:
    """On which terms a fix can be had: `safe`, `assumes H % 32 == 0`, `unsafe, with --concat-heads`."""
    words = f"{fix.applicability.value}{', shortens the chain' if fix.shortens else ''}"
    if fix.applicability is Applicability.ASSUMES and fix.condition:
        return f"assumes {shown(fix.condition)}"
    if fix.condition:
        words += f" where {shown(fix.condition)}"
    return f"{words}, with {shown(fix.flag)}" if fix.flag else words


def origin(place: Location) -> str:
    """Where a place comes from: its line of Python, else its module, else the nearest output (escaped)."""
    if place.source:
        return shown(str(place.source[-1]))
    if place.scope:
        return f"module {shown(place.scope)}"
    return f"near output {shown(place.near)}" if place.near else ""


class Files:
    """Which of the files that findings name lie in the repository.

    Args:
        root: The repository's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._relative: dict[str, str | None] = {}
        self._exists: dict[str, bool] = {}
        self._lines: dict[str, list[str]] = {}

    @cached_property
    def _resolved(self) -> str:
        return os.path.realpath(self.root)

    def model(self, path: str) -> str | None:
        """A model's path relative to the repository, with `/`; None if it lies outside or is not a file."""
        if path not in self._relative:
            self._relative[path] = self._below(path)
        return self._relative[path]

    def _below(self, path: str) -> str | None:
        try:
            # Links are followed in the folder only: a model that is itself a link (LFS, DVC) stays where it is.
            folder, name = os.path.split(os.path.abspath(path))
            full = os.path.join(os.path.realpath(folder), name)
            relative = os.path.relpath(full, self._resolved)
            if not os.path.isfile(full):
                return None
        except (OSError, ValueError):  # another drive of Windows, or a null byte
            return None
        relative = relative.replace(os.sep, "/")
        return None if relative == ".." or relative.startswith("../") else relative

    def has(self, path: str) -> bool:
        """Whether a path of a source line is that of a file in the repository."""
        if path not in self._exists:
            inside = not os.path.isabs(path) and ".." not in path.split("/")
            try:
                self._exists[path] = inside and os.path.isfile(os.path.join(self.root, path))
            except ValueError:
                self._exists[path] = False
        return self._exists[path]

    def line(self, line: SourceLine) -> str:
        """A line of a file of the repository as it is now, without its end; empty if there is none."""
        if line.path not in self._lines:
            try:
                with open(os.path.join(self.root, line.path), "rb") as file:
                    self._lines[line.path] = file.read(_SOURCE_BYTES).decode("utf-8", "replace").splitlines()
            except OSError:
                self._lines[line.path] = []
        lines = self._lines[line.path]
        return lines[line.line - 1] if 0 < line.line <= len(lines) else ""

    def source(self, place: Location) -> SourceLine | None:
        """The innermost line of Python that lies in the repository."""
        return next((line for line in reversed(place.source) if self.has(line.path)), None)


def anchor(files: Files, place: Location) -> tuple[str | None, int]:
    """The file of the repository that a finding is pinned to, and the line in it: a line of Python, else the model.

    Returns:
        (path relative to the repository, 1-based line); None if neither is in the repository.
    """
    line = files.source(place)
    return (line.path, max(line.line, 1)) if line is not None else (files.model(place.model), 1)


def replacement(files: Files, finding: Finding) -> tuple[SourceLine, str] | None:
    """The line of Python to write in place of the one that a finding comes from, where its rule knows one.

    Returns:
        (the line in the repository, what it should be, with its indentation); None if no rule knows, or where the
        file has another line there by now.
    """
    text = dict(finding.evidence).get("replacement", "").strip()
    line = files.source(finding.location)
    if not text or line is None or not line.code.strip():
        return None
    now = files.line(line)
    if now.strip() != line.code.strip():
        return None
    return replace(line, code=now), now[: len(now) - len(now.lstrip())] + text


def most_severe(findings: Sequence[Finding], most: int) -> list[Finding]:
    """So many of the findings, the most severe; in their own order."""
    ranked = sorted(range(len(findings)), key=lambda i: -findings[i].severity.rank)[:most]
    return [findings[i] for i in sorted(ranked)]


def identity(seen: Counter[str], *parts: str) -> str:
    """A digest that stays the same from run to run for the same parts; equal ones are numbered."""
    import hashlib  # OpenSSL takes as long to load as ten of our modules, and few formats need it

    key = "\0".join(parts)
    seen[key] += 1
    return f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}:{seen[key]}"


def described(finding: Finding, has_source: bool = False) -> str:
    """A finding in one sentence for formats that show nothing else: place, origin, message (escaped).

    Args:
        finding: The finding.
        has_source: Whether the format shows the line of Python itself.
    """
    place = shown(finding.location.place)
    where = "" if has_source and finding.location.source else origin(finding.location)
    return f"{place} ({where}): {shown(finding.message)}" if where else f"{place}: {shown(finding.message)}"


def advice(finding: Finding) -> list[str]:
    """Lines about what to do: help and fix (escaped)."""
    lines = [f"help: {shown(finding.help)}"] if finding.help else []
    return [*lines, f"fix: {fix_terms(finding.fix)}"] if finding.fix else lines


def dumps(document: Any, indent: int | None = 2) -> str:
    """JSON in plain ASCII, valid whatever the strings hold, and without what CI services take for commands.

    Args:
        document: Plain data.
        indent: Spaces of a level; None for one line without spaces.
    """
    import json

    separators = (",", ":") if indent is None else None
    text = json.dumps(document, indent=indent, separators=separators, allow_nan=False)
    if "\\ud" in text:
        text = json.dumps(_without_surrogates(document), indent=indent, separators=separators, allow_nan=False)
    return LOG_COMMAND.sub("#\\\\u0023", text) + "\n"


def _without_surrogates(value: Any) -> Any:
    """Half characters (file names that are not UTF-8 have them) become text such as `\\udc80`: parsers refuse them."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_without_surrogates(item) for item in value]
    return value
