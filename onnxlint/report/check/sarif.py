"""SARIF 2.1.0, for code scanning.

The physical location of a finding is its line of PyTorch, preferably one in the repository, else the model file; graph
and node are logical locations. GitHub follows a finding from one upload to the next by `primaryLocationLineHash` alone: it
is made of the model, the rule, the module, the operator and its ordinal, so that neither new node numbers nor moved lines
make a new alert. Results beyond GitHub's limits are left out, the least severe first, with a notification.

Sources: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html (the section numbers below), and what GitHub
reads of it: https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning/sarif-support-for-code-scanning
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any
from urllib.parse import quote, unquote

from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.finding import FileError, Finding, Severity
from onnxlint.lint.rule import Rule, Status
from onnxlint.report import Report
from onnxlint.report._common import Files, advice, dumps, fix_terms, identity, most_severe, shown
from onnxlint.text import counted
from onnxlint.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"

_LABEL = re.compile(r"[\\\[\]]")
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
# What GitHub sorts by.
_PROBLEM = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "recommendation"}
_TAGS = {
    "SHP": "shapes",
    "OUT": "outputs",
    "OPS": "operators",
    "GRF": "graph",
    "QNT": "quantization",
    "TGT": "targets",
    "SPC": "specification",
    "SEC": "security",
}

MOST_RESULTS = 25_000
"""Results of a run that GitHub accepts; it shows the 5,000 most severe."""

MOST_BYTES = 10_000_000
"""Of a gzipped log that GitHub accepts."""

MOST_TAGS = 20
MOST_LOCATIONS = 1_000
_LINKS = 5
"""Related locations that a message links; the result has all of them."""

_SECURITY = {Severity.ERROR: "8.0", Severity.WARNING: "5.0", Severity.INFO: "3.0"}
"""CVSS-like numbers of SEC rules: GitHub shows high, medium and low."""


def render(report: Report) -> str:
    """The report as a SARIF log with one run, within GitHub's limits."""
    import gzip

    total = sum(len(result.findings) for result in report.results)
    most = MOST_RESULTS
    while True:
        text = _log(report, most)
        size = len(gzip.compress(text.encode(), 6)) if len(text) > MOST_BYTES else 0
        if size <= MOST_BYTES or most <= 1:
            return text
        most = max(min(most, total) * MOST_BYTES // size * 9 // 10, 1)


def _log(report: Report, most: int) -> str:
    """The log with so many results at most, those that are most severe."""
    files = Files(report.root)
    indices = {rule.code: i for i, rule in enumerate(report.rules)}
    errors = [result.error for result in report.results if result.error is not None]
    checked = dict.fromkeys(result.model for result in report.results if result.error is None or result.findings)
    findings = [finding for result in report.results for finding in result.findings]
    kept = most_severe(findings, most)
    notifications = [_notification(error, files) for error in errors]
    if len(kept) < len(findings):
        left = counted(len(findings) - len(kept), "finding")
        text = (
            f"{left} of {len(findings):,} left out, the least severe: GitHub accepts {MOST_RESULTS:,} results and 10 MB"
        )
        notifications.append({"level": "warning", "message": {"text": text}})
    seen: Counter[str] = Counter()
    run = {
        "tool": {
            "driver": {
                "name": "onnxlint",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in report.rules],
            }
        },
        "invocations": [
            {
                "executionSuccessful": not errors,
                "toolExecutionNotifications": notifications,
            }
        ],
        "originalUriBaseIds": {ROOT: {"uri": _file_uri(os.path.abspath(report.root)).rstrip("/") + "/"}},
        "artifacts": [{"location": _model(path, files), "roles": ["analysisTarget"]} for path in checked],
        "results": [_result(finding, files, indices.get(finding.code), seen) for finding in kept],
        "columnKind": "unicodeCodePoints",
    }
    return dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: type[Rule]) -> dict[str, Any]:
    sections = rule.sections()
    markdown = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    what = sections.get("What it does", rule.summary())
    properties: dict[str, Any] = {
        "tags": ["onnx", _TAGS.get(rule.code[:3], rule.code[:3].lower()), *sorted(rule.targets)][:MOST_TAGS],
        "precision": "high",
        "problem.severity": _PROBLEM[rule.severity],
        "status": rule.status.value,
        "since": rule.since,
        "fixSafety": sections.get("Fix safety", ""),
    }
    if rule.code.startswith("SEC"):
        properties["security-severity"] = _SECURITY[rule.severity]
    if rule.targets:
        properties["targets"] = sorted(rule.targets)
    if rule.fix is not None:
        properties["fix"] = fix_terms(rule.fix)
    descriptor: dict[str, Any] = {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary() or rule.name},
        "fullDescription": {"text": what or rule.name},
        "help": {"text": rule.help or rule.summary() or rule.name, "markdown": markdown or rule.name},
        "defaultConfiguration": {
            "enabled": rule.default and rule.status is Status.STABLE,
            "level": _LEVELS[rule.severity],
        },
        "properties": properties,
    }
    former = sorted({alias for alias in rule.aliases if alias[:3].isupper()})
    if former:
        descriptor["deprecatedIds"] = former
    return descriptor


def _result(finding: Finding, files: Files, rule_index: int | None, seen: Counter[str]) -> dict[str, Any]:
    place = finding.location
    line = files.source(place) or (place.source[-1] if place.source else None)
    location: dict[str, Any] = {
        "physicalLocation": _line(line, files) if line else _whole_model(place.model, files),
        "logicalLocations": _logical(place),
    }
    related: list[dict[str, Any]] = [
        {"physicalLocation": _line(other, files), "message": {"text": _plain(other.function or "called here")}}
        for other in reversed(place.source)
        if other is not line
    ]
    if line is not None:
        related.append({"physicalLocation": _whole_model(place.model, files), "message": {"text": "the model"}})
    related = [{"id": i, **entry} for i, entry in enumerate(related[-MOST_LOCATIONS:], 1)]
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "message": {"text": "\n".join([_message(finding), *_links(related)])},
        "locations": [location],
        "properties": _properties(finding),
    }
    if rule_index is not None:
        result["ruleIndex"] = rule_index
    if related:
        result["relatedLocations"] = related
    if finding.fingerprint:
        model = files.model(place.model) or os.path.basename(place.model)
        result["partialFingerprints"] = {
            "primaryLocationLineHash": identity(seen, finding.fingerprint, model),
            "onnxlint/v1": shown(finding.fingerprint),
        }
    return result


def _links(related: list[dict[str, Any]]) -> list[str]:
    """A line that links the related locations, innermost first; none if there are none."""
    links = []
    for entry in related[:_LINKS]:
        where = entry["physicalLocation"]
        label = unquote(where["artifactLocation"]["uri"]).rsplit("/", 1)[-1]
        if entry["message"]["text"] != "the model":
            label += f":{where['region']['startLine']}"
        links.append(f"[{_LABEL.sub(_escape, shown(label))}]({entry['id']})")
    return [f"see {', '.join(links)}"] if links else []


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def _message(finding: Finding) -> str:
    """Message and place: viewers that know no logical locations show nothing else."""
    return "\n".join(_plain(text) for text in (f"{finding.location.place}: {finding.message}", *advice(finding)))


def _plain(text: str) -> str:
    """Text in which viewers find no embedded link, `[text](target)` (3.11.6)."""
    return shown(text).replace("](", "] (")


def _properties(finding: Finding) -> dict[str, Any]:
    properties: dict[str, Any] = {"evidence": {key: shown(value) for key, value in finding.evidence}}
    if finding.help:
        properties["help"] = shown(finding.help)
    if finding.fix is not None:
        properties["fix"] = {
            "applicability": finding.fix.applicability.value,
            "condition": finding.fix.condition,
            "flag": finding.fix.flag,
        }
    return properties


def _logical(place: Location) -> list[dict[str, Any]]:
    """Logical locations of a finding: node or value, graph, module (3.33)."""
    locations: list[dict[str, Any]] = []
    graph = shown(place.graph)
    if place.index is not None or place.value:
        name = place.place.removeprefix(f"{place.graph}/")
        kind = "value" if place.index is None else "node"
        locations.append({"name": shown(name), "fullyQualifiedName": shown(f"{place.graph}/{name}"), "kind": kind})
    locations.append({"name": graph.rsplit("/", 1)[-1], "fullyQualifiedName": graph, "kind": "graph"})
    if place.scope:
        scope = shown(place.scope)
        locations.append({"name": scope.rsplit(".", 1)[-1], "fullyQualifiedName": scope, "kind": "module"})
    return locations


def _line(line: SourceLine, files: Files) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": max(line.line, 1)}
    if line.code:
        region["snippet"] = {"text": shown(line.code)}
    if os.path.isabs(line.path) or line.path[1:3] in (":\\", ":/"):
        artifact = {"uri": _file_uri(line.path)}
    else:
        artifact = _below_root(line.path)
    return {"artifactLocation": artifact, "region": region}


def _whole_model(path: str, files: Files) -> dict[str, Any]:
    # A line number is wrong for a binary file, but GitHub drops results that have none.
    return {"artifactLocation": _model(path, files), "region": {"startLine": 1}}


def _model(path: str, files: Files) -> dict[str, Any]:
    relative = files.model(path)
    if relative is not None:
        return _below_root(relative)
    if path == "-" or (path.startswith("<") and not os.path.exists(path)):
        return _below_root(path)  # standard input, or a model that is not a file
    return {"uri": _file_uri(os.path.abspath(path))}


def _below_root(path: str) -> dict[str, Any]:
    return {"uri": _encoded(path), "uriBaseId": ROOT}


def _file_uri(path: str) -> str:
    encoded = _encoded(path)
    return f"file://{encoded}" if encoded.startswith("/") else f"file:///{encoded}"


def _encoded(path: str) -> str:
    # Colons are encoded too: a relative reference must not look like one with a scheme.
    slashed = path.replace("\\", "/") if os.sep == "\\" or path[1:3] == ":\\" else path
    try:
        return quote(os.fsencode(slashed), safe="/")
    except UnicodeEncodeError:  # half characters that no file name has
        return quote(slashed.encode("utf-8", "replace"), safe="/")


def _notification(error: FileError, files: Files) -> dict[str, Any]:
    return {
        "level": "error",
        "message": {"text": _plain(error.message)},
        "locations": [{"physicalLocation": {"artifactLocation": _model(error.model, files)}}],
    }
