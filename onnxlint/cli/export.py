"""`onnxlint export`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import console
from onnxlint.cli.options import (
    EXIT,
    NETWORK,
    OUTPUT,
    SOURCE,
    VERIFICATION,
    WORK,
    ConfigOptions,
    NetworkOptions,
    PixelOptions,
    QuietOption,
    RuleOptions,
    TextOrJson,
    UsageError,
    argument,
    configs_of,
    number,
    one_of,
    option,
    pixels_of,
    rule_settings,
    split,
)

if TYPE_CHECKING:
    from onnxlint.exporting.options import ExportOptions
    from onnxlint.exporting.results import ExportReport
    from onnxlint.lint.configuration import Configs

NOTES = "Exit code: 0 the model was written, 1 it was, with findings at --fail-on, 2 error (nothing was written)."


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions, QuietOption, NetworkOptions, PixelOptions, TextOrJson):
    """Arguments and options of the command."""

    network: Annotated[
        str, argument("NETWORK", "package.module:factory, file.py:factory, or a .pt or .pt2 file with a whole network")
    ]
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="the ONNX file to write", panel=OUTPUT)
    ] = None
    weights_key: Annotated[
        str | None,
        option("--weights-key", metavar="KEY", help="entry of the checkpoint (default: found)", panel=NETWORK),
    ] = None
    allow_missing: Annotated[
        list[str] | None,
        option("--allow-missing", metavar="KEYS", help="keys that the checkpoint may lack: 'fc.*'", panel=NETWORK),
    ] = None
    allow_unexpected: Annotated[
        list[str] | None,
        option("--allow-unexpected", metavar="KEYS", help="keys of it that may be left out", panel=NETWORK),
    ] = None
    shape: Annotated[
        list[str] | None,
        option("--shape", metavar="[NAME=]D,D,…[:TYPE]", help="example size of an input: 1,3,640,640", panel=NETWORK),
    ] = None
    dynamic: Annotated[
        list[str] | None,
        option("--dynamic", metavar="SHAPE", help="sizes that stay free: 'image=N,3,H,W'", panel=NETWORK),
    ] = None
    input_names: Annotated[
        list[str] | None,
        option("--input-names", metavar="NAMES", help="names in the graph (default: forward's)", panel=NETWORK),
    ] = None
    output_names: Annotated[
        list[str] | None,
        option("--output-names", metavar="NAMES", help="names in the graph (default: output, …)", panel=NETWORK),
    ] = None
    opset: Annotated[
        int | None,
        option("--opset", metavar="N", parser=number(1), help="operator set (default: the exporter's)", panel=NETWORK),
    ] = None
    exporter: Annotated[
        str,
        option(
            "--exporter",
            metavar="NAME",
            parser=one_of("auto", "dynamo", "torchscript"),
            help="auto (default: the better of both), dynamo or torchscript",
            panel=NETWORK,
        ),
    ] = "auto"
    no_verify: Annotated[
        bool, option("--no-verify", help="do not run network and model and compare them", panel=VERIFICATION)
    ] = False
    inputs: Annotated[
        str | None, option("--inputs", metavar="FILE.npz", help="example inputs by name", panel=VERIFICATION)
    ] = None
    fail_on: Annotated[
        str | None,
        option(
            "--fail-on", metavar="LEVEL", help="lowest severity of findings that fails (default: never)", panel=EXIT
        ),
    ] = None
    fix_source: Annotated[
        bool,
        option("--fix-source", help="write the better lines that are shown, and export again", panel=SOURCE),
    ] = False
    multiple_of: Annotated[
        int | None,
        option(
            "--multiple-of",
            metavar="N",
            parser=number(1),
            help="with --fix-source: height and width are multiples of N",
            panel=SOURCE,
        ),
    ] = None
    concat_heads: Annotated[
        bool, option("--concat-heads", help="with --fix-source: return the heads as one tensor", panel=SOURCE)
    ] = False
    verbose: Annotated[
        bool, option("-v", "--verbose", help="show every finding, and what torch and the network print", panel=WORK)
    ] = False


def run(options: Options) -> int:
    """Export a network and print what is known of the model; returns the exit code."""
    from onnxlint.exporting.options import FixSource
    from onnxlint.exporting.session import export_network

    if options.output is None:
        raise UsageError("no output given: use -o FILE.onnx")
    if not options.fix_source and (options.multiple_of is not None or options.concat_heads):
        flag = "--concat-heads" if options.concat_heads else "--multiple-of"
        raise UsageError(
            f"{flag}: is about changes of the source; give --fix-source, or use 'onnxlint fix' on the model"
        )
    configs = configs_of(options, replace(rule_settings(options), fail_on=options.fail_on or "never"))
    wanted = _wanted(options, configs)
    with console.status(options.quiet) as progress:
        report = export_network(
            options.network,
            options.output,
            wanted,
            configs,
            fixing=FixSource(options.multiple_of, options.concat_heads) if options.fix_source else None,
            progress=progress,
            verbose=options.verbose,
        )
    if options.format == "json":
        console.write(_json(report))
    elif not options.quiet:
        console.write(_text(report, options, configs))
    if report.check.error is not None:
        console.errors([report.check.error.message])
        return 2
    return int(_fails(report, configs))


def _wanted(options: Options, configs: Configs) -> ExportOptions:
    from onnxlint.exporting.options import ExportOptions
    from onnxlint.exporting.parsing import parse_arguments, parse_inputs

    return ExportOptions(
        inputs=parse_inputs(options.shape or (), options.dynamic or (), options.inputs),
        values=options.inputs,
        weights=options.weights,
        weights_key=options.weights_key,
        arguments=parse_arguments(options.arg or ()),
        allow_missing=split(options.allow_missing),
        allow_unexpected=split(options.allow_unexpected),
        input_names=split(options.input_names),
        output_names=split(options.output_names),
        opset=options.opset,
        exporter=options.exporter,
        trust=options.trust,
        verify=not options.no_verify,
        recipe=pixels_of(options, configs),
    )


def _fails(report: ExportReport, configs: Configs) -> bool:
    from onnxlint.lint.session import fail_level

    level = fail_level(configs.of(report.output or "model.onnx"))
    return level is not None and any(one.severity.rank >= level.rank for one in report.check.findings)


def _text(report: ExportReport, options: Options, configs: Configs) -> str:
    """The export, then the findings as `check` prints them."""
    from onnxlint.graph.source import Sources
    from onnxlint.lint.session import Plans, fail_level
    from onnxlint.report import Report, render
    from onnxlint.report.export import render_diffs, render_export

    path = report.output or "model.onnx"
    found = Report(
        (report.check,),
        tuple(Plans(configs).of(path).rules),
        verbose=options.verbose,
        fail_on=fail_level(configs.of(path)),
        root=Sources().root,
        color=console.has_color(),
        width=console.width(),
    )
    return f"{render_export(report)}\n{render('text', found)}{render_diffs(report)}"


def _json(report: ExportReport) -> str:
    from onnxlint.report._common import dumps

    return dumps(report.to_dict())
