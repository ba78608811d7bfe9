"""`onnxlint check`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import (
    EXIT,
    KNOWN,
    REPORT,
    RULES,
    WORK,
    ConfigOptions,
    EngineName,
    Jobs,
    RuleOptions,
    argument,
    configs_of,
    number,
    option,
    rule_settings,
    split,
)

if TYPE_CHECKING:
    from onnxlint.lint.configuration import Config
    from onnxlint.lint.session import Check

NOTES = "Exit code: 0 nothing that fails, 1 findings, 2 error, or a model that could not be checked."


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions):
    """Arguments and options of the command."""

    paths: Annotated[
        list[str] | None, argument("PATH", "model, folder, glob, s3://… or https://…, or - for stdin (default: .)")
    ] = None
    min_opset: Annotated[
        int | None,
        option("--min-opset", metavar="N", parser=number(1), help="oldest opset to accept (default: 11)", panel=RULES),
    ] = None
    severity: Annotated[
        list[str] | None,
        option(
            "--severity", metavar="RULE=LEVEL", help="set the severity of a rule: error, warning or info", panel=RULES
        ),
    ] = None
    weights: Annotated[
        bool | None, option("--weights/--no-weights", help="also run rules that read weights", panel=RULES)
    ] = None
    format: Annotated[
        str | None,
        option(
            "--format",
            metavar="FORMAT",
            help="text (default), json, jsonl, sarif, github, gitlab, rdjson, junit, markdown or html",
            panel=REPORT,
            complete=completion.check_formats,
        ),
    ] = None
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="write the report to a file", panel=REPORT)
    ] = None
    statistics: Annotated[bool, option("--statistics", help="count findings by rule", panel=REPORT)] = False
    verbose: Annotated[bool, option("-v", "--verbose", help="show every finding separately", panel=REPORT)] = False
    quiet: Annotated[
        bool, option("-q", "--quiet", help="print the report only: no notes, no progress", panel=REPORT)
    ] = False
    no_color: Annotated[bool, option("--no-color", help="print without colors", panel=REPORT)] = False
    fail_on: Annotated[
        str | None,
        option(
            "--fail-on",
            metavar="LEVEL",
            help="lowest severity that fails: error, warning (default), info or never",
            panel=EXIT,
        ),
    ] = None
    exit_zero: Annotated[bool, option("--exit-zero", help="exit with 0 even if there are findings", panel=EXIT)] = False
    baseline: Annotated[
        str | None, option("--baseline", metavar="FILE", help="leave out the findings listed in this file", panel=KNOWN)
    ] = None
    write_baseline: Annotated[
        str | None,
        option(
            "--write-baseline",
            metavar="[FILE.json]",
            help="list all findings in this file (default: --baseline, or onnxlint-baseline.json)",
            panel=KNOWN,
        ),
    ] = None
    jobs: Jobs = None
    engine: EngineName = "local"
    cache_dir: Annotated[
        str | None,
        option(
            "--cache-dir",
            metavar="DIR",
            help="keep results here, and check only what changed (default: $ONNXLINT_CACHE_DIR, else none)",
            panel=WORK,
        ),
    ] = None
    no_cache: Annotated[bool, option("--no-cache", help="neither use nor keep results", panel=WORK)] = False
    force_exclude: Annotated[
        bool, option("--force-exclude", help="apply 'exclude' to models named here too", panel=WORK)
    ] = False


MANY = 32
"""Models from which on it pays to change how memory is handled."""


def run(options: Options) -> int:
    """Check models and report the findings; returns the exit code."""
    from onnxlint.lint.configuration import parse_severities
    from onnxlint.lint.session import Check, Execution
    from onnxlint.model.limits import keep_freed_memory
    from onnxlint.model.output import check_writable
    from onnxlint.model.protect import refuse_report
    from onnxlint.report import NEEDS_FIXES, NEEDS_NEIGHBOURHOODS

    command = replace(
        rule_settings(options),
        min_opset=options.min_opset,
        fail_on=options.fail_on,
        severity=parse_severities(split(options.severity)),
        weights=options.weights,
        jobs=options.jobs,
        baseline=options.baseline,
        format=options.format,
    )
    configs = configs_of(options, command)
    here = configs.of_folder(".")
    if options.output is not None:
        check_writable(options.output)
        inputs = (*(options.paths or ()), options.config, here.baseline)
        refuse_report(options.output, [path for path in inputs if path is not None and os.path.isfile(path)])
    cache = "" if options.no_cache else options.cache_dir or os.environ.get("ONNXLINT_CACHE_DIR", "")
    check = Check(
        options.paths or ["."],
        configs,
        force_exclude=options.force_exclude,
        write_baseline=options.write_baseline,
        neighbourhoods=here.format in NEEDS_NEIGHBOURHOODS,
        fixes=here.format in NEEDS_FIXES,
        execution=Execution(engine=options.engine, cache=cache),
    )
    if check.total >= MANY:
        keep_freed_memory()
    with ExitStack() as stack:
        if options.engine != "local":  # Ray prints there what its workers died of
            stack.enter_context(console.own_stdout())
        if here.format == "jsonl":
            return _stream(check, options)
        return _report(check, options, here)


def _report(check: Check, options: Options, here: Config) -> int:
    """Check all models, and write one report on them."""
    from onnxlint.graph.source import Sources
    from onnxlint.lint.session import fail_level
    from onnxlint.model.output import write_atomically
    from onnxlint.report import Report, render

    to_file = options.output is not None
    with console.progress("Checking models", options.quiet) as progress:
        run = check.run(progress)
    report = Report(
        run.results,
        run.rules,
        statistics=options.statistics,
        verbose=options.verbose,
        fail_on=fail_level(here),
        root=Sources().root,
        color=not to_file and console.has_color(options.no_color),
        width=None if to_file else console.width(),
    )
    text = render(here.format, report)
    if options.output is not None:
        write_atomically(options.output, text)
    else:
        console.write(text)
    if to_file or here.format != "text":  # the text on stdout has the errors in it
        console.errors(result.error.message for result in run.results if result.error)
    if not options.quiet:
        console.notes(run.notes)
    return 0 if options.exit_zero and run.exit_code == 1 else run.exit_code


def _stream(check: Check, options: Options) -> int:
    """Write the line of each model as it comes; results are not kept in memory."""
    from onnxlint.model.output import writing
    from onnxlint.report.check.jsonl import render_one

    with console.progress("Checking models", options.quiet) as progress, ExitStack() as stack:
        write = console.write if options.output is None else stack.enter_context(writing(options.output))
        for done, result in enumerate(check.results(), 1):
            write(render_one(result))
            if result.error is not None:
                console.errors([result.error.message])
            progress(done, check.total)
    if not options.quiet:
        console.notes(check.notes)
    return 0 if options.exit_zero and check.exit_code == 1 else check.exit_code
