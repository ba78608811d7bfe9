"""`onnxlint compare`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import (
    EXIT,
    MEASURE,
    REPORT,
    EngineName,
    InputShapeOption,
    QuietOption,
    RecipeOptions,
    ThreadsOption,
    UsageError,
    argument,
    input_shapes,
    option,
    recipe_of,
)
from onnxlint.text import choices, did_you_mean, printable

NOTES = "Exit code: 0 no condition of --fail-if holds, 1 one does, 2 error."


@dataclass(frozen=True, kw_only=True)
class Options(QuietOption, RecipeOptions, InputShapeOption, ThreadsOption):
    """Arguments and options of the command."""

    reference: Annotated[str, argument("REFERENCE", "reference model")]
    candidates: Annotated[list[str], argument("CANDIDATE", ".onnx, ncnn .param, OpenVINO .xml or .mnn files")]
    task: Annotated[
        str | None,
        option(
            "--task",
            metavar="NAME",
            help="also its metrics: detection, classification, verification, super-resolution",
            panel=MEASURE,
            complete=completion.tasks,
        ),
    ] = None
    labels: Annotated[
        str | None,
        option(
            "--labels", metavar="FILE", help="ground-truth labels (default: the reference's answers)", panel=MEASURE
        ),
    ] = None
    layers: Annotated[
        bool, option("--layers", help="SNR along the network, and the loss of each layer", panel=MEASURE)
    ] = False
    suggest: Annotated[bool, option("--suggest", help="try settings that may reduce the loss", panel=MEASURE)] = False
    no_latency: Annotated[bool, option("--no-latency", help="do not measure latency", panel=MEASURE)] = False
    engine: EngineName = "local"
    format: Annotated[
        str,
        option(
            "--format",
            metavar="FORMAT",
            help="text (default), json, markdown, html or junit",
            panel=REPORT,
            complete=completion.compare_formats,
        ),
    ] = "text"
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="write the report to a file", panel=REPORT)
    ] = None
    no_color: Annotated[bool, option("--no-color", help="print without colors", panel=REPORT)] = False
    fail_if: Annotated[
        list[str] | None,
        option(
            "--fail-if",
            metavar="CONDITION",
            help="for each candidate: 'snr<20', 'cosine<0.99', 'latency>50', 'ap<0.9'; may be repeated",
            panel=EXIT,
        ),
    ] = None


def run(options: Options) -> int:
    """Compare models with a reference and report what they lose; returns the exit code."""
    from onnxlint.accuracy.compare import compare
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.images.options import ImageOptions
    from onnxlint.model.output import check_writable, write_atomically
    from onnxlint.model.protect import refuse_report
    from onnxlint.report.compare import FORMATS, render
    from onnxlint.report.compare.text import brief

    if options.format not in FORMATS:
        hint = did_you_mean(options.format, FORMATS, choices(FORMATS))
        raise UsageError(f"no report format is called {options.format!r}{hint}")
    if options.output is not None:
        check_writable(options.output)
    chosen = recipe_of(options)
    if options.output is not None:
        models = (options.reference, *options.candidates)
        weights = (f"{os.path.splitext(path)[0]}.bin" for path in models if path.lower().endswith((".param", ".xml")))
        tables = (one for one in (chosen.images, options.labels, options.config) if one is not None)
        refuse_report(options.output, [*models, *weights, *tables])
    task = options.task if options.task is not None else chosen.task
    with console.steps(options.quiet) as progress:
        report = compare(
            options.reference,
            options.candidates,
            ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape), chosen.noted),
            CompareOptions(
                task,
                options.labels if options.labels is not None or task is None else chosen.labels,
                chosen.detection,
                options.layers,
                options.suggest,
                tuple(options.fail_if or ()),
                options.threads,
                not options.no_latency,
                options.engine,
            ),
            progress,
        )
    text = render(options.format, report, options.output is None and console.has_color(options.no_color))
    if options.output is not None:
        write_atomically(options.output, text)
        if not options.quiet:
            console.write(f"{brief(report, console.has_color(options.no_color))}\nwrote {printable(options.output)}\n")
        console.errors(report.failures)
    else:
        console.write(text)
    return int(bool(report.failures))
