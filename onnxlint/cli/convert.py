"""`onnxlint convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import (
    INT8,
    OUTPUT,
    CalibrationOptions,
    EngineName,
    InputShapeOption,
    QuietOption,
    RecipeOptions,
    TextOrJson,
    ThreadsOption,
    UsageError,
    argument,
    input_shapes,
    option,
    recipe_of,
    split,
)

if TYPE_CHECKING:
    from onnxlint.backends import Progress
    from onnxlint.conversion.session import Conversion

NOTES = "Exit code: 0 everything was made, 2 error."


@dataclass(frozen=True, kw_only=True)
class Options(QuietOption, RecipeOptions, InputShapeOption, CalibrationOptions, ThreadsOption, TextOrJson):
    """Arguments and options of the command."""

    model: Annotated[str | None, argument("MODEL", "the model, best after 'onnxlint fix'")] = None
    to: Annotated[
        list[str] | None,
        option(
            "--to",
            metavar="TARGETS",
            help="targets to make, or all; --list shows them",
            panel=OUTPUT,
            complete=completion.conversions,
        ),
    ] = None
    list_targets: Annotated[bool, option("--list", help="list the targets", panel=OUTPUT)] = False
    task: Annotated[
        str | None,
        option(
            "--task",
            metavar="NAME",
            help="what outputs are used for, for --mixed and --max-drop: detection, classification, verification",
            panel=INT8,
            complete=completion.tasks,
        ),
    ] = None
    engine: EngineName = "local"
    out_dir: Annotated[
        str | None, option("--out-dir", metavar="DIR", help="output folder (default: the model's)", panel=OUTPUT)
    ] = None
    manifest: Annotated[
        str | None,
        option(
            "--manifest", metavar="FILE", help="repeat the conversion in a manifest (NAME.onnxlint.json)", panel=OUTPUT
        ),
    ] = None


def run(options: Options) -> int:
    """Make the targets, or list them; returns the exit code."""
    from onnxlint.lint.engines import check_engine
    from onnxlint.report.convert import render_conversion, render_json, render_targets

    if options.list_targets:
        console.write(render_targets())
        return 0
    if (options.model is None) == (options.manifest is None):
        raise UsageError("missing argument: MODEL with --to TARGETS (or --manifest FILE, to repeat a conversion)")
    if options.manifest is None and not options.to:
        raise UsageError("missing --to (for example --to ncnn-int8); 'onnxlint convert --list' shows all targets")
    check_engine(options.engine)
    with console.steps(options.quiet) as progress:
        done = _converted(options, progress)
    if not options.quiet:
        console.write(render_json(done) if options.format == "json" else render_conversion(done))
    for failure in done.failures:
        console.errors([f"{failure.target}: {failure.message}"])
        if failure.findings:
            console.notes([f"'onnxlint check' found: {line}" for line in failure.findings])
        if failure.advice:
            console.notes([f"fix it first: {failure.advice}"])
    return 2 if done.failures else 0


def _converted(options: Options, progress: Progress) -> Conversion:
    from onnxlint.accuracy.loss import loss_for
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.conversion.session import convert, repeat
    from onnxlint.images.options import ImageOptions

    if options.manifest is not None:
        return repeat(
            options.manifest,
            threads=options.threads,
            tools=options.ncnn_tools,
            out_dir=options.out_dir,
            task=lambda path, entry: loss_for(path, entry.get("task"), entry.get("detection")),
            progress=progress,
        )
    chosen = recipe_of(options)
    if not options.quiet:
        console.notes(chosen.notes(options.model or ""))
    task = options.task if options.task is not None else chosen.task
    return convert(
        options.model or "",
        split(options.to),
        ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape), chosen.noted),
        ConvertOptions(
            options.method or chosen.method or "auto",
            options.mixed,
            options.budget / 100,
            split(options.keep),
            options.threads,
            options.ncnn_tools,
            options.weight_bits,
            loss_for(options.model or "", task, chosen.detection) if chosen.images is not None else None,
            split(options.max_drop),
            options.holdout or 0.0,
            options.engine,
        ),
        out_dir=options.out_dir,
        progress=progress,
    )
