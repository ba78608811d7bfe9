"""JUnit XML: a suite for each model, a case for each rule.

A case fails where a finding counts for the exit code; lesser ones are its output. The elements and their order are those
of https://github.com/testmoapp/junitxml, which Jenkins, GitLab and others read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.lint.finding import CheckResult, Finding
from onnxlint.report import Report
from onnxlint.report._common import advice, described, shown
from onnxlint.text import counted

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def render(report: Report) -> str:
    """The report as XML in plain ASCII; what XML cannot say (control characters) is escaped as in other reports."""
    from xml.etree import ElementTree

    suites = [_suite(result, report) for result in report.results]
    seconds = sum(result.seconds for result in report.results)
    root = ElementTree.Element("testsuites", {"name": "onnxlint", **_sums(suites), "time": _seconds(seconds)})
    root.extend(suites)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode").replace("##", "#&#35;")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode("ascii", "xmlcharrefreplace").decode()


def _suite(result: CheckResult, report: Report) -> Element:
    from xml.etree.ElementTree import Element, SubElement

    name = shown(result.model)
    suite = Element("testsuite", name=name, tests="0", failures="0", errors="0", skipped="0")
    suite.set("time", _seconds(result.seconds))
    if result.error is not None:
        case = SubElement(suite, "testcase", classname=name, name="check", time="0")
        message = shown(result.error.message)
        SubElement(case, "error", message=message, type="error").text = message
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    if result.error is None or result.findings:  # of a model that could not be opened no rule can say that it passes
        by_rule = {(rule.code, rule.name): [] for rule in report.rules}
    for finding in result.findings:
        by_rule.setdefault((finding.code, finding.name), []).append(finding)
    for (code, title), findings in by_rule.items():
        case = SubElement(suite, "testcase", classname=name, name=f"{code} {shown(title)}", time="0")
        failing = [finding for finding in findings if report.fails(finding.severity)]
        rest = [finding for finding in findings if not report.fails(finding.severity)]
        if failing:
            worst = max((finding.severity for finding in failing), key=lambda severity: severity.rank)
            message = shown(failing[0].message) if len(failing) == 1 else counted(len(failing), "finding")
            SubElement(case, "failure", message=message, type=worst.value).text = _text(failing)
        if rest:
            SubElement(case, "system-out").text = _text(rest)
    for key, value in _counts(suite).items():
        suite.set(key, value)
    return suite


def _text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines += [f"{finding.severity.value}: {described(finding)}", *(f"  {line}" for line in advice(finding))]
    return "\n".join(lines)


def _counts(suite: Element) -> dict[str, str]:
    return {
        "tests": str(len(suite)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
    }


def _sums(suites: list[Element]) -> dict[str, str]:
    return {key: str(sum(int(suite.get(key, "0")) for suite in suites)) for key in ("tests", "failures", "errors")}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"
