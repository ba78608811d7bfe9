"""`onnxlint check`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import config_options, number, split


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("paths", metavar="PATH", nargs="*", help="model, folder, glob, or - for stdin (default: .)")
    group = parser.add_argument_group("rules", "RULES are codes, prefixes, names or ALL, separated by commas.")
    group.add_argument("--select", metavar="RULES", action="append", help="run these rules, not the default ones")
    group.add_argument("--extend-select", metavar="RULES", action="append", help="run these rules too")
    group.add_argument("--ignore", metavar="RULES", action="append", help="do not run these rules")
    group.add_argument(
        "--target", metavar="NAMES", action="append", help="backends that the models are meant for: ncnn, …"
    )
    group.add_argument("--min-opset", metavar="N", type=number(1), help="oldest operator set to accept (default: 11)")
    group.add_argument("--severity", metavar="RULE=LEVEL", action="append", help="make it error, warning or info")
    group.add_argument(
        "--weights", action=argparse.BooleanOptionalAction, default=None, help="also run the rules that read weights"
    )
    group = parser.add_argument_group("report")
    group.add_argument(
        "--format", metavar="FORMAT", help="text, json, sarif, github, gitlab, junit, markdown or html (default: text)"
    )
    group.add_argument("-o", "--output", metavar="FILE", help="write the report to a file")
    group.add_argument("--statistics", action="store_true", help="count findings by rule")
    group.add_argument("-v", "--verbose", action="store_true", help="show every finding by itself")
    group.add_argument("-q", "--quiet", action="store_true", help="print the report only: no notes, no progress")
    group.add_argument("--no-color", action="store_true", help="print without colors")
    group = parser.add_argument_group(
        "exit code", "0 nothing that fails, 1 findings, 2 something could not be checked."
    )
    group.add_argument(
        "--fail-on", metavar="LEVEL", help="least severity that fails: error, warning, info or never (default: warning)"
    )
    group.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is found")
    group = parser.add_argument_group("known findings")
    group.add_argument("--baseline", metavar="FILE", help="leave out the known findings in this file")
    group.add_argument(
        "--write-baseline",
        metavar="[FILE.json]",
        help="make all findings known ones (default: in --baseline, or onnxlint-baseline.json)",
    )
    group = parser.add_argument_group("the work")
    group.add_argument("-j", "--jobs", metavar="N", type=number(0), help="worker processes (default 0: as many as pay)")
    group.add_argument("--force-exclude", action="store_true", help="let 'exclude' hold for models named here, too")
    config_options(group)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.graph.source import Sources
    from onnxlint.lint.configuration import Configs, Settings, parse_severities
    from onnxlint.lint.session import check_paths, fail_level
    from onnxlint.model.output import check_writable, write_atomically
    from onnxlint.report import NEEDS_FIXES, NEEDS_NEIGHBOURHOODS, Report, render

    command = Settings(
        select=None if options.select is None else split(options.select),
        extend_select=split(options.extend_select),
        ignore=split(options.ignore),
        targets=None if options.target is None else split(options.target),
        min_opset=options.min_opset,
        fail_on=options.fail_on,
        severity=parse_severities(split(options.severity)),
        weights=options.weights,
        jobs=options.jobs,
        baseline=options.baseline,
        format=options.format,
    )
    configs = Configs(command, options.config, options.isolated)
    here = configs.of_folder(".")
    to_file = options.output is not None
    if to_file:
        check_writable(options.output)
    with console.progress("Checking models", options.quiet) as progress:
        run = check_paths(
            options.paths or ["."],
            configs,
            force_exclude=options.force_exclude,
            write_baseline=options.write_baseline,
            neighbourhoods=here.format in NEEDS_NEIGHBOURHOODS,
            fixes=here.format in NEEDS_FIXES,
            progress=progress,
        )
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
    if to_file:
        write_atomically(options.output, text)
    else:
        console.write(text)
    if to_file or here.format != "text":  # the text on stdout has the errors in it
        console.errors(result.error.message for result in run.results if result.error)
    if not options.quiet:
        console.notes(run.notes)
    return 0 if options.exit_zero and run.exit_code == 1 else run.exit_code
