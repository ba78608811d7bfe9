"""For people: findings by file, those of one kind together, then what to type.

With `verbose`, every finding separately, with one help text for neighbours that share it. Colors and the
width of characters come from rich, imported only where they are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby

from onnxlint.lint.finding import CheckResult, Finding
from onnxlint.report import Report
from onnxlint.report._common import fix_terms, headline, shown, totals
from onnxlint.report.check.groups import Group, fix_hint, grouped, split, unactionable
from onnxlint.text import listed

_Paint = Callable[[str, str], str]
_Measure = Callable[[str], int]

_MARGIN = 17
"""Columns before the messages: two spaces, severity, code."""

_ALIGNED = 40
"""Places longer than this do not push the neighbours' lines of Python to the right."""

_LEAST = 40
"""Columns that text gets at least, however narrow the terminal."""

_PLACES = 3
"""Lines of places of one kind."""

_SHORT = 100
"""Columns of a line of places if the output is not wrapped."""

_ENOUGH = 40
"""Columns of a line of Python that say enough: with less room than this it gets a line of its own."""

_STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "bold cyan",
    "path": "bold underline",
    "code": "bold",
    "fix": "green",
    "arrow": "blue",
    "source": "cyan",
    "python": "dim",
    "label": "bold green",
    "good": "bold green",
    "bad": "bold red",
}


def render(report: Report) -> str:
    """The report as text, with ANSI colors and wrapped where the report asks for it."""
    writer = _Writer(report)
    return "".join(line + "\n" for line in writer.lines())


class _Writer:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.paint: _Paint = _painter() if report.color else _plain
        self.measure: _Measure = len
        self.room: int | None = None  # columns right of the margin
        if report.width is not None:
            self.measure = _cell_measure()
            self.room = max(report.width - _MARGIN, _LEAST)

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        separator: tuple[str, ...] = ()
        for result in self.report.results:
            if result.findings and not self.report.statistics and (lines := [*self._file(result)]):
                yield from (*separator, *lines)
                separator = ("",)
        for result in self.report.results:
            if result.error is not None:
                yield f"{self.paint('error', 'error')}: {shown(result.error.message)}"
        if self.report.statistics:
            yield from self._statistics()
        if not self.report.statistics:
            yield from self._end()
        total = totals(self.report)
        style = "bad" if total.failed else "good" if not total.findings else "code"
        yield self.paint(style, headline(self.report))

    def _file(self, result: CheckResult) -> Iterator[str]:
        if self.report.verbose:
            yield from self._every(result)
            return
        findings, _ = split(result)
        if findings:
            yield self.paint("path", shown(result.model))
            for group in grouped(findings):
                yield from self._group(group)

    def _end(self) -> Iterator[str]:
        """Counted findings, and the command to type."""
        if not self.report.verbose:
            others = [finding for result in self.report.results for finding in split(result)[1]]
            if others:
                yield unactionable(others)
        if hint := fix_hint(self.report.results):
            yield hint  # as one line, so that the command can be copied

    def _group(self, group: Group) -> Iterator[str]:
        first = group.first
        yield from self._head(first, group.message)
        if len(group.findings) == 1:
            yield from self._place(first, 0)
        else:
            yield from self._places(group)
        if first.help:
            yield from self._advice("help", shown(first.help))
        if group.conditions and group.conditions[0] not in group.message:
            yield from self._advice("fix", f"assumes {listed(map(shown, group.conditions), 2)}")

    def _places(self, group: Group) -> Iterator[str]:
        """Places by the line of Python or the module that they come from, in a few lines."""
        by_origin: dict[str, list[str]] = {}
        for finding in group.findings:
            frames = finding.location.source
            where = f"{shown(frames[-1].path)}:{frames[-1].line}" if frames else ""
            by_origin.setdefault(where, []).append(shown(finding.location.place))
        room = _SHORT if self.room is None else self.room
        lines = list(by_origin.items())
        last = min(len(lines), _PLACES) - 1
        left = sum(len(names) for _, names in lines[_PLACES:]) + group.places - len(group.findings)
        for number, (where, names) in enumerate(lines[:_PLACES]):
            more = left if number == last else 0
            start = f"{where}  " if where else ""
            text = self._few(names, room - self.measure(start), more)
            arrow = self.paint("arrow", "-->") + " " if not number else "    "
            margin = " " * (_MARGIN - 4) + arrow
            if self.room is None or self.measure(start + text) <= self.room:
                yield margin + (self.paint("source", where) + "  " if where else "") + text
                continue
            for line in self._wrapped(where) if where else ():
                yield margin + self.paint("source", line)
                margin = " " * _MARGIN
            for line in self._wrapped(text):
                yield margin + line
                margin = " " * _MARGIN

    def _few(self, names: list[str], room: int, more: int) -> str:
        """As many names as fit, and how many others there are."""
        fit: list[str] = []
        for name in names:
            rest = len(names) - len(fit) - 1 + more
            tail = f" and {rest:,} more" if rest else ""
            if fit and self.measure(", ".join([*fit, name])) + len(tail) > room:
                break
            fit.append(name)
        rest = len(names) - len(fit) + more
        return ", ".join(fit) + (f" and {rest:,} more" if rest else "")

    def _every(self, result: CheckResult) -> Iterator[str]:
        """Each finding with its place, and advice once for neighbours that need the same."""
        yield self.paint("path", shown(result.model))
        for _, neighbours in groupby(result.findings, key=lambda f: (f.code, f.severity, f.help)):
            run = list(neighbours)
            aligned = self._aligned(run)
            terms = [(fix, list(alike)) for fix, alike in groupby(run, key=lambda f: f.fix)]
            for fix, alike in terms:
                said = ""
                for finding in alike:
                    # On a terminal, neighbours share a message; elsewhere each has its own line with code, for grep.
                    if self.room is None or finding.message != said:
                        yield from self._head(finding, finding.message)
                    yield from self._place(finding, aligned)
                    said = finding.message
                if fix and len(terms) > 1:
                    yield from self._advice("fix", fix_terms(fix))
            if run[0].help:
                yield from self._advice("help", shown(run[0].help))
            if run[0].fix and len(terms) == 1:
                yield from self._advice("fix", fix_terms(run[0].fix))

    def _head(self, finding: Finding, message: str) -> Iterator[str]:
        """Severity, code and message."""
        severity = finding.severity.value
        mark = self.paint("fix", "[*]") + " " if finding.fix else ""
        first = 4 if finding.fix else 0
        lines = self._wrapped(shown(message), first)
        head = f"  {self.paint(severity, f'{severity:<7}')} {self.paint('code', finding.code)} {mark}"
        yield head + lines[0]
        for line in lines[1:]:
            yield " " * _MARGIN + line

    def _aligned(self, run: list[Finding]) -> int:
        widths = [self.measure(shown(finding.location.place)) for finding in run]
        return max((width for width in widths if width <= _ALIGNED), default=0)

    def _place(self, finding: Finding, aligned: int) -> Iterator[str]:
        place, tail, python = shown(finding.location.place), "", ""
        location = finding.location
        if location.source:
            frame = location.source[-1]
            tail, python = f"{shown(frame.path)}:{frame.line}", shown(frame.code)
        elif location.scope:
            tail = f"module {shown(location.scope)}"
        elif location.near:
            tail = f"near output {shown(location.near)}"
        margin = " " * (_MARGIN - 4) + self.paint("arrow", "-->") + " "
        width = self.measure(place)
        padding = " " * max(aligned - width, 0) + "  "
        first = place + padding + tail
        room = self.room
        if room is None or self.measure(first) <= room:
            line = margin + place + padding + self.paint("source", tail)
            if not python:
                yield line.rstrip()
                return
            left = None if room is None else room - self.measure(first) - 2
            if left is None or self.measure(python) <= left or left >= _ENOUGH:
                yield f"{line}  {self._python(python, left)}"
                return
            yield line
        else:
            lines = self._wrapped(place)
            yield margin + lines[0]
            for line in lines[1:]:
                yield " " * _MARGIN + line
            for line in self._wrapped(tail):
                yield " " * _MARGIN + self.paint("source", line)
        if python:
            yield " " * _MARGIN + self._python(python, room)

    def _python(self, code: str, room: int | None) -> str:
        """A line of Python, cut where the terminal ends: path and number tell where the rest is."""
        if room is not None and self.measure(code) > room:
            code = self._cut(code, room - 1)[0].rstrip() + "…"
        return self.paint("python", code)

    def _advice(self, label: str, text: str) -> Iterator[str]:
        lines = self._wrapped(text, len(label) + 2, len(label) + 2)
        yield " " * _MARGIN + self.paint("label", label) + ": " + lines[0]
        for line in lines[1:]:
            yield " " * (_MARGIN + len(label) + 2) + line

    def _statistics(self) -> Iterator[str]:
        findings = [finding for result in self.report.results for finding in result.findings]
        counts = Counter((finding.code, finding.name) for finding in findings)
        fixable = Counter(finding.code for finding in findings if finding.fix)
        digits = len(str(max(counts.values(), default=0)))
        width = max((len(name) for _, name in counts), default=0)
        for (code, name), number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            severity = max((f.severity for f in findings if f.code == code), key=lambda s: s.rank)
            fix = self.paint("fix", f"{fixable[code]} fixable") if fixable[code] else ""
            line = f"{number:>{digits}}  {self.paint(severity.value, code)}  {shown(name):<{width}}  {fix}"
            yield line.rstrip()
        if counts:
            yield ""

    def _wrapped(self, text: str, used: int = 0, indent: int = 0) -> list[str]:
        """Lines that fit right of the margin; the first has `used` columns less, the others `indent`."""
        room = self.room
        if room is None or self.measure(text) + used <= room:
            return [text]
        lines: list[str] = []
        words: list[str] = []  # of the line that is being filled
        filled, free = 0, room - used
        for word in text.split(" "):
            width = self.measure(word)
            if words and filled + 1 + width <= free:
                words.append(word)
                filled += 1 + width
                continue
            if words:
                lines.append(" ".join(words))
                free = room - indent
            while width > free:
                start, word = self._cut(word, free)
                lines.append(start)
                width, free = self.measure(word), room - indent
            words, filled = [word], width
        lines.append(" ".join(words))
        # A log takes a line that starts with :: for a command.
        return [f"\\x3a{line[1:]}" if line.startswith("::") else line for line in lines]

    def _cut(self, text: str, columns: int) -> tuple[str, str]:
        """A text in two, the first part as long as fits (at least one character)."""
        end = min(len(text), columns)
        while end > 1 and self.measure(text[:end]) > columns:
            end -= 1
        return text[: max(end, 1)], text[max(end, 1) :]


def _plain(style: str, text: str) -> str:
    return text


def _painter() -> _Paint:
    from rich.color import ColorSystem
    from rich.style import Style

    styles = {name: Style.parse(definition) for name, definition in _STYLES.items()}

    def paint(style: str, text: str) -> str:
        return styles[style].render(text, color_system=ColorSystem.STANDARD)

    return paint


def _cell_measure() -> _Measure:
    """Columns that a text takes on a terminal; most texts are ASCII, and need no table of widths."""

    def measure(text: str) -> int:
        if text.isascii():
            return len(text)
        from rich.cells import cell_len

        return cell_len(text)

    return measure
