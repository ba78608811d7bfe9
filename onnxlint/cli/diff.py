"""`onnxlint diff`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import (
    REPORT,
    VERIFICATION,
    WORK,
    ConfigOptions,
    QuietOption,
    RuleOptions,
    UsageError,
    argument,
    configs_of,
    option,
    rule_settings,
)

NOTES = "Exit code: 0 the models are the same, 1 they differ, 2 error (a model that could not be read, too)."


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions, QuietOption):
    """Arguments and options of the command."""

    old: Annotated[str, argument("OLD", "model, or - for stdin")]
    new: Annotated[str, argument("NEW", "model to compare it with, or - for stdin")]
    verify: Annotated[
        bool, option("--verify", help="run both on the same inputs and compare the outputs", panel=VERIFICATION)
    ] = False
    format: Annotated[
        str,
        option(
            "--format",
            metavar="FORMAT",
            help="text (default), json, markdown or html",
            panel=REPORT,
            complete=completion.diff_formats,
        ),
    ] = "text"
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="write the report to a file", panel=REPORT)
    ] = None
    verbose: Annotated[bool, option("-v", "--verbose", help="list every node and finding separately", panel=REPORT)] = (
        False
    )
    no_check: Annotated[bool, option("--no-check", help="do not check the models", panel=WORK)] = False


def run(options: Options) -> int:
    """Compare two models and print what changed; returns the exit code."""
    from onnxlint.difference.session import diff_models
    from onnxlint.model.output import check_writable, write_atomically
    from onnxlint.model.protect import refuse_report
    from onnxlint.report.diff import check_format, render

    if options.old == options.new == "-":
        raise UsageError("OLD and NEW cannot both come from stdin: name a file for one of them")
    check_format(options.format)
    if options.output is not None:
        check_writable(options.output)
        inputs = (options.old, options.new, options.config)
        refuse_report(options.output, [path for path in inputs if path is not None and os.path.isfile(path)])
    configs = None if options.no_check else configs_of(options, rule_settings(options))
    with console.status(options.quiet):
        diff = diff_models(
            options.old,
            options.new,
            configs=configs,
            verify=options.verify,
            pictures=options.format in ("html", "markdown"),
        )
    text = render(options.format, diff, options.verbose)
    if options.output is not None:
        write_atomically(options.output, text)
    else:
        console.write(text)
    errors = [result.error.message for result in diff.checks or () if result.error]
    if options.format != "text" or options.output is not None:
        console.errors(errors)
    return 2 if errors else int(not diff.same)
