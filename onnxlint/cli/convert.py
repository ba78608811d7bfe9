"""`onnxlint convert`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import (
    UsageError,
    calibration_options,
    config_options,
    input_shapes,
    number,
    recipe_of,
    recipe_options,
    split,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from onnxlint.conversion.session import ALL

    parser.add_argument("model", metavar="MODEL", nargs="?", help="the model, best after 'onnxlint fix'")
    parser.add_argument(
        "--to",
        metavar="TARGETS",
        action="append",
        help=f"what to make, separated by commas, or {ALL}; 'onnxlint convert --list' says what there is",
    )
    parser.add_argument("--list", action="store_true", help="list the targets")
    group = parser.add_argument_group("output")
    group.add_argument("--out-dir", metavar="DIR", help="where to write (default: beside the model)")
    group.add_argument("--manifest", metavar="FILE", help="do again what a manifest (NAME.onnxlint.json) says")
    group.add_argument("--format", choices=("text", "json"), default="text", help="of what is printed (default: text)")
    recipe_options(parser)
    calibration_options(parser)
    group = parser.add_argument_group("the work")
    group.add_argument("--threads", metavar="N", type=number(1), default=2, help="(default: 2)")
    group.add_argument("--ncnn-tools", metavar="DIR", help="use the real ncnn tools in this folder, not ours")
    group.add_argument("-q", "--quiet", action="store_true", help="print no summary and no progress")
    config_options(group)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.conversion.session import convert, repeat
    from onnxlint.images.options import ImageOptions
    from onnxlint.report.convert import render_conversion, render_json, render_targets

    if options.list:
        console.write(render_targets())
        return 0
    if (options.model is None) == (options.manifest is None):
        raise UsageError("what to convert? Give a model and --to TARGETS, or --manifest FILE to do it again")
    if options.manifest is None and not options.to:
        raise UsageError("to what? --to ncnn-int8, --to all, …; 'onnxlint convert --list' says what there is")
    with console.steps(options.quiet) as progress:
        if options.manifest is not None:
            done = repeat(
                options.manifest,
                threads=options.threads,
                tools=options.ncnn_tools,
                out_dir=options.out_dir,
                progress=progress,
            )
        else:
            chosen = recipe_of(options)
            done = convert(
                options.model,
                split(options.to),
                ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape)),
                ConvertOptions(
                    options.method or chosen.method or "auto",
                    options.mixed,
                    options.budget / 100,
                    split(options.keep),
                    options.threads,
                    options.ncnn_tools,
                ),
                out_dir=options.out_dir,
                progress=progress,
            )
    if not options.quiet:
        console.write(render_json(done) if options.format == "json" else render_conversion(done))
    for failure in done.failures:
        console.errors([f"{failure.target}: {failure.message}"])
        if failure.findings:
            console.notes([f"'onnxlint check' found: {line}" for line in failure.findings])
        if failure.advice:
            console.notes([f"fix it first: {failure.advice}"])
    return 2 if done.failures else 0
