"""`onnxlint compare`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import (
    UsageError,
    config_options,
    input_shapes,
    number,
    recipe_of,
    recipe_options,
)
from onnxlint.report.compare import FORMATS, render
from onnxlint.text import choices, did_you_mean


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("reference", metavar="REFERENCE", help="the model that is right")
    parser.add_argument("candidates", metavar="CANDIDATE", nargs="+", help=".onnx or ncnn .param files")
    recipe_options(parser)
    group = parser.add_argument_group("what to measure")
    group.add_argument(
        "--task", metavar="NAME", help="detection, classification, verification or super-resolution: its metrics too"
    )
    group.add_argument("--labels", metavar="FILE", help="what is right (default: what the reference says)")
    group.add_argument("--layers", action="store_true", help="SNR along the network, and what each layer costs")
    group.add_argument("--suggest", action="store_true", help="try out what would help, and say what it gains")
    group.add_argument("--no-latency", action="store_true", help="do not measure how long the models take")
    group.add_argument("--threads", metavar="N", type=number(1), default=2, help="for each model (default: 2)")
    group = parser.add_argument_group("report")
    group.add_argument("--format", metavar="NAME", default="text", help=f"{', '.join(FORMATS)} (default: text)")
    group.add_argument("-o", "--output", metavar="FILE", help="write the report to this file")
    group.add_argument("--no-color", action="store_true", help="no colors, whatever stdout is")
    group.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    group = parser.add_argument_group("exit code", "0 all is well, 1 a condition of --fail-if holds, 2 not done.")
    group.add_argument(
        "--fail-if",
        metavar="CONDITION",
        action="append",
        default=[],
        help="such as 'snr<20', 'cosine<0.99', 'latency>50', 'ap<0.9'; for each candidate; may be repeated",
    )
    config_options(group)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.accuracy.compare import compare
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.images.options import ImageOptions
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.model.output import check_writable, write_atomically

    if options.format not in FORMATS:
        hint = did_you_mean(options.format, FORMATS, choices(FORMATS))
        raise UsageError(f"no report format is called {options.format!r}{hint}")
    if options.output is not None:
        check_writable(options.output)
    chosen = recipe_of(options)
    detection = Configs(Settings(), options.config, options.isolated).of_folder(".").detection
    task = options.task if options.task is not None else chosen.task
    with console.steps(options.quiet) as progress:
        report = compare(
            options.reference,
            options.candidates,
            ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape)),
            CompareOptions(
                task,
                options.labels if options.labels is not None or task is None else chosen.labels,
                detection,
                options.layers,
                options.suggest,
                tuple(options.fail_if),
                options.threads,
                not options.no_latency,
            ),
            progress,
        )
    color = options.output is None and console.has_color(options.no_color)
    text = render(options.format, report, color)
    if options.output is not None:
        write_atomically(options.output, text)
        console.errors(report.failures)
    else:
        console.write(text)
    return int(bool(report.failures))
