"""`onnxlint deploy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import (
    CHANGES,
    EXIT,
    MEASURE,
    OUTPUT,
    TASK,
    CalibrationOptions,
    InputShapeOption,
    NetworkOptions,
    QuietOption,
    RecipeOptions,
    TextOrJson,
    ThreadsOption,
    UsageError,
    argument,
    input_shapes,
    number,
    option,
    recipe_of,
    split,
)
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends import Progress
    from onnxlint.deployment.results import Deployment

NOTES = "Exit code: 0 no condition of --fail-if holds, 1 one does, 2 error (a target that failed, too)."


@dataclass(frozen=True, kw_only=True)
class Options(
    QuietOption, RecipeOptions, InputShapeOption, CalibrationOptions, ThreadsOption, NetworkOptions, TextOrJson
):
    """Arguments and options of the command."""

    model: Annotated[
        str, argument("MODEL", "the exported model, which is not changed; or a network, as 'onnxlint export' takes it")
    ]
    to: Annotated[
        list[str] | None,
        option(
            "--to",
            metavar="TARGETS",
            help="targets to make, or all; 'onnxlint convert --list' shows them (default: the fixed model only)",
            panel=OUTPUT,
            complete=completion.conversions,
        ),
    ] = None
    out_dir: Annotated[
        str | None,
        option("--out-dir", metavar="DIR", help="output folder (default: MODEL_deploy)", panel=OUTPUT),
    ] = None
    resume: Annotated[bool, option("--resume", help="skip steps whose inputs are unchanged", panel=OUTPUT)] = False
    task: Annotated[
        str | None,
        option(
            "--task",
            metavar="NAME",
            help="for report and samples: detection, classification, verification, super-resolution",
            panel=TASK,
            complete=completion.tasks,
        ),
    ] = None
    labels: Annotated[
        str | None,
        option("--labels", metavar="FILE", help="names of the classes, or ground-truth labels", panel=TASK),
    ] = None
    assume: Annotated[
        list[str] | None,
        option(
            "--assume",
            metavar="COND",
            help="allow fixes exact under a condition: 'H%28==0,W%28==0'",
            panel=CHANGES,
        ),
    ] = None
    multiple_of: Annotated[
        int,
        option(
            "--multiple-of",
            metavar="N",
            parser=number(0),
            help="assume that height and width are multiples of N, if --shape is (default: 32; 0: no assumption)",
            panel=CHANGES,
        ),
    ] = 32
    no_concat_heads: Annotated[
        bool, option("--no-concat-heads", help="keep detection heads as separate outputs", panel=CHANGES)
    ] = False
    keep_output_activations: Annotated[
        bool, option("--keep-output-activations", help="keep a Softmax or Sigmoid at an output", panel=CHANGES)
    ] = False
    layers: Annotated[
        bool, option("--layers", help="SNR along the network, and the loss of each layer", panel=MEASURE)
    ] = False
    suggest: Annotated[bool, option("--suggest", help="try settings that may reduce the loss", panel=MEASURE)] = False
    fail_if: Annotated[
        list[str] | None,
        option("--fail-if", metavar="CONDITION", help="such as 'snr<20'; may be repeated", panel=EXIT),
    ] = None


def run(options: Options) -> int:
    """Deploy a model and print the results; returns the exit code."""
    from onnxlint.deployment.results import StepError

    if options.to is not None and not split(options.to):
        raise UsageError("--to: no target given; 'onnxlint convert --list' shows all targets")
    try:
        with console.steps(options.quiet) as progress:
            done = _deployed(options, progress)
    except StepError as stopped:
        console.notes([f"'onnxlint check' found: {line}" for line in stopped.findings])
        raise
    if not options.quiet:
        console.write(_json(done) if options.format == "json" else _text(done))
    if options.quiet or options.format == "json":
        failed = [step for step in done.steps if step.state == "failed" and not step.name.startswith("convert")]
        console.errors(f"{step.name}: {line}" for step in failed for line in step.lines)
    for failure in done.failures:
        console.errors([f"{failure.target}: {failure.message}"])
        console.notes([f"'onnxlint check' found: {line}" for line in failure.findings])
    if done.report is not None:
        console.errors(done.report.failures)
    if not done.ok:
        return 2
    return int(done.report is not None and bool(done.report.failures))


def _deployed(options: Options, progress: Progress) -> Deployment:
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.deployment.pipeline import deploy
    from onnxlint.exporting.options import ExportOptions
    from onnxlint.exporting.parsing import parse_arguments
    from onnxlint.fixes.options import FixOptions
    from onnxlint.images.options import ImageOptions
    from onnxlint.lint.rule import Request

    chosen = recipe_of(options)
    if not options.quiet:
        console.notes(chosen.notes(options.model))
    task = options.task if options.task is not None else chosen.task
    request = Request(
        concat_heads=None if options.no_concat_heads else (),
        drop_output_activations=not options.keep_output_activations,
    )
    return deploy(
        options.model,
        split(options.to),
        ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape), chosen.noted),
        FixOptions(request, split(options.assume), options.multiple_of or None),
        ConvertOptions(
            options.method or chosen.method or "auto",
            options.mixed,
            options.budget / 100,
            split(options.keep),
            options.threads,
            options.ncnn_tools,
            options.weight_bits,
            max_drop=split(options.max_drop),
            holdout=options.holdout or 0.0,
        ),
        CompareOptions(
            task,
            options.labels if options.labels is not None or task is None else chosen.labels,
            chosen.detection,
            options.layers,
            options.suggest,
            tuple(options.fail_if or ()),
            options.threads,
        ),
        ExportOptions(weights=options.weights, arguments=parse_arguments(options.arg or ()), trust=options.trust),
        out_dir=options.out_dir,
        resume=options.resume,
        config=options.config,
        isolated=options.isolated,
        progress=progress,
    )


def _text(done: Deployment) -> str:
    """The steps, a line or some each, and the summary of the comparison."""
    from onnxlint.report._common import disarmed
    from onnxlint.report.compare.text import brief

    lines = []
    for step in done.steps:
        how = "unchanged" if step.state == "unchanged" else f"{step.seconds:.1f} s"
        lines.append(f"{step.name} ({'failed, ' if step.state == 'failed' else ''}{how})")
        lines += [f"  {line}" for line in step.lines]
    if done.report is not None:
        lines += ["", *brief(done.report).splitlines()]  # the rest is in report.html
    lines += ["", f"Everything is in {printable(done.folder)}; begin with report.html and samples/"]
    return disarmed("".join(f"{line}\n" for line in lines))


def _json(done: Deployment) -> str:
    """All of it as one JSON document; the comparison as `onnxlint compare --format json` has it."""
    from dataclasses import asdict, replace

    from onnxlint.accuracy.plain import document
    from onnxlint.report._common import dumps

    plain = asdict(replace(done, report=None))
    plain["report"] = None if done.report is None else document(done.report)
    return dumps(plain)
