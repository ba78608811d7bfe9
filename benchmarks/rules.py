"""How often each rule fires over a set of models, and whether what it finds can be fixed.

    python -m benchmarks.rules MODEL_OR_FOLDER… [--multiple-of 32] [--jobs 2] [--models WORDS] [-o docs/rule-statistics.md]

Each model is checked with the default rules and fixed as `onnxlint fix --multiple-of 32` does, with verification. Counted
are findings of the original: fixed, shortened, offered with a flag that changes outputs or the interface, left although
another export could avoid them, and those that nothing removes. `python -m fixtures.transformers_exports` makes a set of
models; wheels on PyPI hold others.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import onnxlint
from onnxlint import Applicability, CheckResult
from onnxlint.lint.registry import load_registry
from onnxlint.report import Report, render


@dataclass
class Tally:
    """What one rule found.

    Attributes:
        models: Models in which it fired.
        findings: How often.
        fixed: Findings that a default fix removed.
        asked: Findings whose fix has to be asked for.
        idle: Findings that neither a fix nor another export would remove.
    """

    models: int = 0
    findings: int = 0
    fixed: int = 0
    asked: int = 0
    idle: int = 0


@dataclass
class Statistics:
    """What all rules found over all models."""

    rules: dict[str, Tally] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    rolled_back: int = 0

    def add(self, other: Statistics) -> None:
        """Add those of other models."""
        self.lines += other.lines
        self.failed += other.failed
        self.rolled_back += other.rolled_back
        for code, theirs in other.rules.items():
            mine = self.rules.setdefault(code, Tally())
            for name in vars(theirs):
                setattr(mine, name, getattr(mine, name) + getattr(theirs, name))


def of_model(result: CheckResult, report: onnxlint.FixReport) -> Statistics:
    """What the rules found in one model."""
    left = Counter(one.finding.code for one in report.left)
    rules = {}
    for code, count in Counter(finding.code for finding in result.findings).items():
        of_rule = [finding for finding in result.findings if finding.code == code]
        asked = sum(f.fix is not None and f.fix.applicability is Applicability.UNSAFE for f in of_rule)
        rules[code] = Tally(
            models=1,
            findings=count,
            fixed=max(count - max(left[code], asked), 0),
            asked=asked,
            idle=sum(not finding.actionable for finding in of_rule),
        )
    lines = render("text", Report((result,))).count("\n")
    failed = [f"{result.model}: {result.error.message}"] if result.error else []
    return Statistics(rules, [lines], failed, len(report.rolled_back))


def measure(path: Path, multiple_of: int) -> Statistics:
    """Check and fix one model."""
    print(path, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = onnxlint.check(path, isolated=True)
            report = onnxlint.fix(path, Path(folder) / "fixed.onnx", multiple_of=multiple_of, isolated=True)
        except onnxlint.OnnxlintError as error:
            return Statistics(failed=[str(error)])
    return of_model(result, report)


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """Models at paths: files as they are, folders with all that is in them."""
    for path in paths:
        yield from sorted(path.rglob("*.onnx")) if path.is_dir() else [path]


def collect(paths: Sequence[Path], multiple_of: int, jobs: int) -> Statistics:
    """Check and fix every model, in so many processes."""
    found = Statistics()
    with ProcessPoolExecutor(jobs) as pool:
        for one in pool.map(partial(measure, multiple_of=multiple_of), files(paths)):
            found.add(one)
    return found


def machine() -> str:
    """Where this was measured."""
    python = platform.python_version()
    return f"onnxlint {onnxlint.__version__}, Python {python}, {platform.machine()}, {os.cpu_count()} cores"


def page(found: Statistics, multiple_of: int, models: str) -> str:
    """The Markdown page."""
    count = len(found.lines)
    rows = [
        "# How often rules fire",
        f"Made by `python -m benchmarks.rules` on {date.today()} ({machine()}) over {count} models ({models}),"
        f" fixed with `--multiple-of {multiple_of}`, verified; {found.rolled_back} patches were rolled"
        f" back. A text report has {statistics.median(found.lines):.0f} lines in the median, {max(found.lines)} at most."
        " *Fixed* are findings of the original that are not there afterwards; with *asked* the fix changes outputs or the"
        " interface and needs its flag; with *idle* neither a fix nor another export would remove them.",
        "| Rule | Name | Models | Findings | Fixed | Asked | Idle |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    registry = load_registry()
    for code, tally in sorted(found.rules.items(), key=lambda item: (-item[1].models, item[0])):
        name = registry.find(code).name
        cells = (tally.models, tally.findings, tally.fixed, tally.asked, tally.idle)
        rows[-1] += f"\n| [{code}](rules/{code}.md) | {name} | {' | '.join(map(str, cells))} |"
    always = [rule for rule in registry if rule.default and not rule.targets and not rule.needs_weights]
    silent = [rule.code for rule in always if rule.code not in found.rules]
    rows.append(f"Default rules that never fired: {', '.join(silent)}.")
    if found.failed:
        rows.append("Not counted:\n\n" + "\n".join(f"- {line}" for line in found.failed))
    return "\n\n".join(rows) + "\n"


def main() -> int:
    """Count, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--multiple-of", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--models", default="given on the command line", help="what models these are, for the page")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    text = page(collect(options.paths, options.multiple_of, options.jobs), options.multiple_of, options.models)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
