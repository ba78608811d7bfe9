"""Names come out of files that anybody can make: whatever they hold, a report stays a report."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.finding import Applicability, CheckResult, FileError, Finding, Fix, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.report import FORMATS, Report, render
from onnxlint.report.check.groups import grouped
from tests.report.test_formats import parsed_json
from tests.support.report_samples import rules, sarif_run

NASTY = (
    "\x1b[31m", "\x1b]8;;http://evil\x1b\\", "\r\n", "\n", "\u2028", "\x85", "\x00", "\x7f", "\u202e", "\u2066", "\u200b",
    "\ud800", "\udce9", "\ufffe", "::error::x", "::stop-commands::t", "##[error]", "##vso[task.setvariable]", "%0A", "%",
    "<script>alert(1)</script>", "</summary>", "</details>", "<!--", "-->", "]]>", "&amp;", "&#64;", '"', "'", "`", "```",
    "~~~", "\n```\n", "|", "**b**", "__i__", "_", "[x](http://evil)", "![x](http://evil)", "@everyone", "#1", "$x$",
    "https://evil.example", "www.evil.example", "mailto:a@b.example", "# h", "- [ ] item", "1. one", "> q", "---", "\\",
    "end", "%%{init: {}}%%", "click n0 href", "classDef x", ";", ":::", "{{", "(", ")", "é", "日本語", "😀", " ", "\t",
    "a" * 1500,
)  # fmt: skip

texts = st.lists(
    st.one_of(st.sampled_from(NASTY), st.text(st.characters(), max_size=8)), max_size=4
).map("".join)  # fmt: skip
severities = st.sampled_from(Severity)
lines = st.builds(SourceLine, texts, st.integers(0, 10**9), texts, texts)
places = st.builds(
    Location,
    model=texts,
    graph=st.one_of(st.just("graph"), texts),
    node=texts,
    op_type=texts,
    index=st.one_of(st.none(), st.integers(0, 10**6)),
    value=texts,
    scope=texts,
    source=st.lists(lines, max_size=2).map(tuple),
    near=texts,
)
boxes = st.builds(Box, st.sampled_from(["node", "input", "output", "constant"]), texts, texts)
neighbourhoods = st.builds(
    lambda three, labels: Neighbourhood(tuple(three), ((0, 1, labels[0]), (1, 2, labels[1])), 1),
    st.lists(boxes, min_size=3, max_size=3),
    st.lists(texts, min_size=2, max_size=2),
)
findings = st.builds(
    Finding,
    code=st.sampled_from(["SHP001", "SHP002", "ABC123"]),
    name=st.just("some-rule"),
    severity=severities,
    message=texts,
    location=places,
    help=texts,
    evidence=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    fix=st.one_of(
        st.none(),
        st.builds(Fix, st.sampled_from(Applicability), st.one_of(st.none(), texts), st.one_of(st.none(), texts)),
    ),
    fingerprint=texts,
    neighbourhood=st.one_of(st.none(), neighbourhoods),
    after=st.one_of(st.none(), texts, neighbourhoods),
)
results = st.builds(
    lambda model, found, error: CheckResult(
        model, tuple(found), FileError(model, error) if error is not None else None
    ),
    texts,
    st.lists(findings, max_size=3),
    st.one_of(st.none(), texts),
)
reports = st.builds(
    lambda some, statistics, fail_on: Report(tuple(some), rules("SHP001", "SHP002"), statistics, fail_on),
    st.lists(results, max_size=2),
    st.booleans(),
    st.one_of(st.none(), severities),
)

run = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def shape(report: Report) -> tuple[int, int]:
    """(findings, errors)."""
    found = sum(len(result.findings) for result in report.results)
    return found, sum(result.error is not None for result in report.results)


def letters(text: Any) -> Any:
    """Other letters for other texts: findings are in one group where these are the same."""
    if not text:
        return text
    digest = hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).digest()
    return "x" + "".join(chr(ord("a") + byte % 26) for byte in digest[:8])


def bland(value: Any) -> Any:
    """The same report with nothing but letters in it."""
    if isinstance(value, Report):
        return replace(value, results=tuple(bland(result) for result in value.results))
    if isinstance(value, CheckResult):
        error = FileError("x", "x") if value.error else None
        return replace(value, model="x", findings=tuple(map(bland, value.findings)), error=error)
    if isinstance(value, Finding):
        fix = value.fix and Fix(value.fix.applicability, letters(value.fix.condition), letters(value.fix.flag))
        return replace(
            value,
            message="x",
            help=letters(value.help),
            fingerprint="x",
            fix=fix,
            location=replace(
                value.location,
                model="x",
                graph="graph" if value.location.graph == "graph" else "x",
                node="x",
                op_type="x",
                value="x",
                scope=value.location.scope and "x",
                near=value.location.near and "x",
                source=tuple(SourceLine("x", 1, line.code and "x") for line in value.location.source),
            ),
            neighbourhood=value.neighbourhood and bland(value.neighbourhood),
            after="x" if isinstance(value.after, str) else value.after and bland(value.after),
        )
    if isinstance(value, Neighbourhood):
        return replace(
            value,
            boxes=tuple(Box(box.kind, "x", box.name and "x") for box in value.boxes),
            edges=tuple((a, b, "x") for a, b, _ in value.edges),
        )
    raise AssertionError(value)


@run
@given(reports, st.sampled_from(FORMATS))
def test_nothing_unprintable_is_echoed(report: Report, format: str) -> None:
    text = render(format, report)
    assert all(char == "\n" or char.isprintable() for char in text)
    text.encode("utf-8")
    assert not re.search(r"##(\[|vso\[)", text)
    if format != "github":
        assert not re.search(r"^\s*::", text, re.MULTILINE)


@run
@given(reports, st.integers(1, 200))
def test_text_on_a_terminal(report: Report, width: int) -> None:
    text = render("text", replace(report, width=width))
    assert all(char == "\n" or char.isprintable() for char in text)
    assert not re.search(r"^\s*::|##\[|##vso\[", text, re.MULTILINE)
    colored = render("text", replace(report, width=width, color=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == text


@run
@given(reports)
def test_piped_text_has_a_line_and_a_place_for_each_finding(report: Report) -> None:
    text = render("text", replace(report, statistics=False, verbose=True))
    assert len(re.findall(r"^  (?:error  |warning|info   ) [A-Z]{3}\d{3} ", text, re.MULTILINE)) == shape(report)[0]
    assert len(re.findall(r"^ {13}-->(?: |$)", text, re.MULTILINE)) == shape(report)[0]
    assert len(re.findall(r"^error: ", text, re.MULTILINE)) == shape(report)[1]


@run
@given(reports)
def test_text_has_a_block_for_each_kind_of_finding(report: Report) -> None:
    text = render("text", replace(report, statistics=False))
    kinds = sum(len(grouped(result.findings)) for result in report.results)
    assert len(re.findall(r"^  (?:error  |warning|info   ) [A-Z]{3}\d{3} ", text, re.MULTILINE)) == kinds
    assert len(re.findall(r"^ {13}-->(?: |$)", text, re.MULTILINE)) == kinds
    assert all(line.isprintable() for line in text.splitlines())


@run
@given(reports)
def test_json(report: Report) -> None:
    document = parsed_json(report)
    assert (len(document["findings"]), len(document["errors"])) == shape(report)
    names = [found.location.node for result in report.results for found in result.findings]
    for name, entry in zip(names, document["findings"], strict=True):
        if not re.search("[\ud800-\udfff]", name):
            assert entry["location"]["node"] == name


@settings(run, max_examples=25)
@given(reports)
def test_sarif(report: Report) -> None:
    log = sarif_run(report)
    assert (len(log["results"]), len(log["invocations"][0]["toolExecutionNotifications"])) == shape(report)
    for result in log["results"]:
        said = result["message"]["text"]
        links = re.search(r"\nsee (\[(?:\\.|[^\[\]\\])*\]\(\d+\)(?:, |$))+$", said)
        assert bool(links) == bool(result.get("relatedLocations"))
        assert not re.search(r"\]\(", said[: links.start()] if links else said)
        for location in result["locations"] + result.get("relatedLocations", []):
            artifact = location["physicalLocation"]["artifactLocation"]
            assert re.fullmatch(r"[A-Za-z0-9%/._~:-]*", artifact["uri"])
            assert urlsplit(artifact["uri"]).scheme == ("" if "uriBaseId" in artifact else "file")


@run
@given(reports)
def test_github(report: Report) -> None:
    text = render("github", report)
    lines = [line for line in text.split("\n") if line]
    commands = [line for line in lines if line.startswith("::")]
    counts = Counter(command.split()[0] for command in commands)
    assert max(counts.values(), default=0) <= 10
    logged = [line for line in lines if line.startswith("  ")]
    assert len(commands) - sum("more finding" in command for command in commands) + len(logged) == sum(shape(report))
    assert all(line.startswith(("::", "  ", "Findings without")) for line in lines)
    for command in commands:
        assert re.fullmatch(r"::(error|warning|notice) (file=[^,:]+,)?(line=\d+,)?title=[^,:]+::[^\r\n]*", command)


@run
@given(reports)
def test_gitlab(report: Report) -> None:
    entries = json.loads(render("gitlab", report))
    assert len(entries) == len({entry["fingerprint"] for entry in entries}) == sum(shape(report))


@run
@given(reports)
def test_junit(report: Report) -> None:
    text = render("junit", report)
    assert text.isascii()
    root = ElementTree.fromstring(text)
    assert len(root.findall("testsuite")) == len(report.results)
    assert len(root.findall("testsuite/testcase/error")) == shape(report)[1]
    reported = "".join(element.text or "" for element in root.iter() if element.tag in ("failure", "system-out"))
    severities_shown = re.findall(r"^(?:error|warning|info): ", reported, re.MULTILINE)
    assert len(severities_shown) <= shape(report)[0]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(f"{tag} {attrs}")

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")


def structure(text: str) -> list[str]:
    """What Markdown makes of a text, without the words: blocks, spans and HTML tags."""
    found: list[str] = []

    def walk(tokens: list[Token]) -> None:
        for token in tokens:
            if token.type in ("html_block", "html_inline"):
                parser = _Tags()
                parser.feed(token.content)
                found.extend(parser.tags)
            elif token.type == "inline":
                walk(token.children or [])
            elif token.type not in ("text", "text_special"):
                found.append(f"{token.type} {token.info}")

    walk(MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text))
    return found


@run
@given(reports)
def test_markdown(report: Report) -> None:
    text = render("markdown", report)
    assert structure(text) == structure(render("markdown", bland(report)))
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"```mermaid\n.*?\n```", "", text, flags=re.DOTALL))
    assert not re.search(r"https?://|www\.|@\w|(?<!&)#\w", outside)


@run
@given(neighbourhoods)
def test_mermaid(around: Neighbourhood) -> None:
    from onnxlint.report.markup import picture

    label = r"(?:[\w _/,.()?×→…]|<br/>|#\d+;)*"
    for line in picture(around).strip().split("\n")[2:-3]:
        assert re.fullmatch(rf' {{4}}n\d(?:\["{label}"\]|\(\["{label}"\]\)| -->\|"{label}"\| n\d)', line), line
