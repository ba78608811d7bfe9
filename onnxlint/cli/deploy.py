"""`onnxlint deploy`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from onnxlint.cli import console
from onnxlint.cli.options import (
    calibration_options,
    config_options,
    input_shapes,
    number,
    recipe_of,
    recipe_options,
    split,
)
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.deployment.results import Deployment


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", metavar="MODEL", help="the model as it was exported; it is not touched")
    parser.add_argument(
        "--to",
        metavar="TARGETS",
        action="append",
        required=True,
        help="what to make: ncnn-int8,onnx-int8-static or all; 'onnxlint convert --list' says what there is",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--out-dir", metavar="DIR", help="where everything goes (default: MODEL_deploy)")
    group.add_argument("--resume", action="store_true", help="leave out the steps that nothing has changed for")
    group.add_argument("--format", choices=("text", "json"), default="text", help="of what is printed (default: text)")
    recipe_options(parser)
    group = parser.add_argument_group("the task")
    group.add_argument(
        "--task",
        metavar="NAME",
        help="detection, classification, verification or super-resolution: for report and samples",
    )
    group.add_argument("--labels", metavar="FILE", help="what is right (default: what the model itself says)")
    group = parser.add_argument_group("fixes beside those that are exact for every input")
    group.add_argument(
        "--multiple-of",
        metavar="N",
        type=number(0),
        default=32,
        help="assume that height and width are multiples of N, as far as --shape is (default: 32; 0: assume nothing)",
    )
    group.add_argument("--no-concat-heads", action="store_true", help="leave detection heads apart")
    group.add_argument("--keep-output-activations", action="store_true", help="leave a Softmax or Sigmoid at an output")
    calibration_options(parser)
    group = parser.add_argument_group("report")
    group.add_argument("--layers", action="store_true", help="SNR along the network, and what each layer costs")
    group.add_argument("--suggest", action="store_true", help="try out what would help, and say what it gains")
    group = parser.add_argument_group("the work")
    group.add_argument("--threads", metavar="N", type=number(1), default=2, help="(default: 2)")
    group.add_argument("--ncnn-tools", metavar="DIR", help="use the real ncnn tools in this folder, not ours")
    group.add_argument("-q", "--quiet", action="store_true", help="print no summary and no progress")
    group = parser.add_argument_group("exit code", "0 all is well, 1 a condition of --fail-if holds, 2 not (all) done.")
    group.add_argument(
        "--fail-if", metavar="CONDITION", action="append", default=[], help="such as 'snr<20'; may be repeated"
    )
    config_options(group)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.deployment.pipeline import StepError, deploy
    from onnxlint.fixes.options import FixOptions
    from onnxlint.images.options import ImageOptions
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.rule import Request

    chosen = recipe_of(options)
    task = options.task if options.task is not None else chosen.task
    request = Request(
        concat_heads=None if options.no_concat_heads else (),
        drop_output_activations=not options.keep_output_activations,
    )
    try:
        with console.steps(options.quiet) as progress:
            done = deploy(
                options.model,
                split(options.to),
                ImageOptions(chosen.images, chosen.recipe, input_shapes(options.input_shape)),
                FixOptions(request, multiple_of=options.multiple_of or None),
                ConvertOptions(
                    options.method or chosen.method or "auto",
                    options.mixed,
                    options.budget / 100,
                    split(options.keep),
                    options.threads,
                    options.ncnn_tools,
                ),
                CompareOptions(
                    task,
                    options.labels if options.labels is not None or task is None else chosen.labels,
                    Configs(Settings(), options.config, options.isolated).of_folder(".").detection,
                    options.layers,
                    options.suggest,
                    tuple(options.fail_if),
                    options.threads,
                ),
                out_dir=options.out_dir,
                resume=options.resume,
                config=options.config,
                isolated=options.isolated,
                progress=progress,
            )
    except StepError as stopped:
        console.notes([f"'onnxlint check' found: {line}" for line in stopped.findings])
        raise
    if not options.quiet:
        console.write(_json(done) if options.format == "json" else _text(done))
    for failure in done.failures:
        console.errors([f"{failure.target}: {failure.message}"])
        console.notes([f"'onnxlint check' found: {line}" for line in failure.findings])
    if done.report is not None:
        console.errors(done.report.failures)
    if not done.ok:
        return 2
    return int(done.report is not None and bool(done.report.failures))


def _text(done: Deployment) -> str:
    """The steps, a line or some each, and the summary of the comparison."""
    from onnxlint.report.compare.text import brief

    lines = []
    for step in done.steps:
        how = "unchanged" if step.state == "unchanged" else f"{step.seconds:.1f} s"
        lines.append(f"{step.name} ({'failed, ' if step.state == 'failed' else ''}{how})")
        lines += [f"  {line}" for line in step.lines]
    if done.report is not None:
        lines += ["", *brief(done.report).splitlines()]  # the rest is in report.html
    lines += ["", f"Everything is in {printable(done.folder)}; begin with report.html and samples/"]
    return "".join(f"{line}\n" for line in lines)


def _json(done: Deployment) -> str:
    """All of it as one JSON document; the comparison as `onnxlint compare --format json` has it."""
    import json
    from dataclasses import asdict, replace

    from onnxlint.report.compare.json import document

    plain = asdict(replace(done, report=None))
    plain["report"] = None if done.report is None else document(done.report)
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
