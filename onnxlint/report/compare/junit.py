"""A comparison as JUnit XML: a suite for each candidate, a case for each output, and one for `--fail-if`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.accuracy.results import AccuracyReport, CandidateReport
from onnxlint.accuracy.verdict import worst_snr
from onnxlint.report._common import shown
from onnxlint.report.compare import tables
from onnxlint.text import cosine, db, magnitude

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def render(report: AccuracyReport) -> str:
    """The report as XML in plain ASCII."""
    from xml.etree import ElementTree

    suites = [_suite(one) for one in report.candidates]
    sums = {key: str(sum(int(suite.get(key, "0")) for suite in suites)) for key in ("tests", "failures")}
    root = ElementTree.Element("testsuites", {"name": "onnxlint compare", **sums, "errors": "0"})
    root.extend(suites)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode").replace("##", "#&#35;")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode("ascii", "xmlcharrefreplace").decode()


def _suite(one: CandidateReport) -> Element:
    from xml.etree.ElementTree import Element, SubElement

    name = shown(one.name)
    suite = Element("testsuite", name=name)
    for output in one.outputs:
        case = SubElement(suite, "testcase", classname=name, name=shown(output.name), time="0")
        SubElement(
            case, "system-out"
        ).text = f"SNR {db(output.snr_db)}, cosine {cosine(output.cosine)}, max error {magnitude(output.max_abs)}"
    for line in one.unmatched:
        case = SubElement(suite, "testcase", classname=name, name=f"not compared: {shown(line)}", time="0")
        SubElement(case, "skipped", message=shown(line))
    case = SubElement(suite, "testcase", classname=name, name="accuracy", time="0")
    failures = one.failures
    if failures:
        SubElement(case, "failure", message=shown(failures[0]), type="fail-if").text = shown(
            "\n".join(failures), 10_000
        )
    SubElement(case, "system-out").text = shown("; ".join([_snr(one), *tables.suggestions(one)]))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(1 if failures else 0))
    suite.set("errors", "0")
    suite.set("skipped", str(len(one.unmatched)))
    return suite


def _snr(one: CandidateReport) -> str:
    """`SNR 41.37 dB`; of several outputs their mean and the worst."""
    if len(one.outputs) < 2:
        return f"SNR {db(one.snr_db)}"
    return f"SNR mean {db(one.snr_db)}, worst output {db(worst_snr(one))}"
