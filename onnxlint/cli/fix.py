"""`onnxlint fix`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import console
from onnxlint.cli.options import (
    CHANGES,
    EXIT,
    OUTPUT,
    VERIFICATION,
    ConfigOptions,
    QuietOption,
    RuleOptions,
    UsageError,
    argument,
    number,
    option,
    split,
)
from onnxlint.errors import OnnxlintError

if TYPE_CHECKING:
    from onnxlint.lint.configuration import Settings
    from onnxlint.lint.rule import Request

NOTES = "Exit code: 0 nothing that fails is left, 1 findings are left, 2 error."


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions, QuietOption):
    """Arguments and options of the command."""

    model: Annotated[str, argument("MODEL", "model, or - for stdin")]
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="write the fixed model to a file", panel=OUTPUT)
    ] = None
    in_place: Annotated[bool, option("--in-place", help="replace the model", panel=OUTPUT)] = False
    diff: Annotated[bool, option("--diff", help="print what would change, and write nothing", panel=OUTPUT)] = False
    dry_run: Annotated[bool, option("--dry-run", help="print the summary, and write nothing", panel=OUTPUT)] = False
    external_data: Annotated[
        str | None,
        option(
            "--external-data", metavar="NAME", help="write large weights to a file of this name beside it", panel=OUTPUT
        ),
    ] = None
    inline: Annotated[bool, option("--inline", help="bring external data into the file", panel=OUTPUT)] = False
    assume: Annotated[
        list[str] | None,
        option(
            "--assume",
            metavar="COND",
            help="allow what is exact under a condition: 'H%32==0,W%32==0'",
            panel=CHANGES,
        ),
    ] = None
    multiple_of: Annotated[
        int | None,
        option(
            "--multiple-of",
            metavar="N",
            parser=number(1),
            help="assume that height and width are multiples of N",
            panel=CHANGES,
        ),
    ] = None
    unsafe: Annotated[
        bool, option("--unsafe", help="allow fixes that change outputs or the interface", panel=CHANGES)
    ] = False
    concat_heads: Annotated[
        bool, option("--concat-heads", help="concatenate the detection heads into one output", panel=CHANGES)
    ] = False
    heads: Annotated[
        list[str] | None,
        option("--heads", metavar="NAMES", help="concatenate these outputs, in this order: bbox,class", panel=CHANGES),
    ] = None
    axis: Annotated[
        int | None,
        option("--axis", metavar="N", help="axis to concatenate along (default: the one that differs)", panel=CHANGES),
    ] = None
    concat_name: Annotated[
        str, option("--concat-name", metavar="NAME", help="name of that output (default: output)", panel=CHANGES)
    ] = "output"
    drop_output_activations: Annotated[
        bool,
        option("--drop-output-activations", help="remove a Softmax or Sigmoid at an output", panel=CHANGES),
    ] = False
    rename: Annotated[
        list[str] | None,
        option("--rename", metavar="OLD=NEW", help="rename an input or output", panel=CHANGES),
    ] = None
    dynamic: Annotated[
        list[str] | None,
        option("--dynamic", metavar="SHAPE", help="free sizes of an input: 'image=N,3,H,W'", panel=CHANGES),
    ] = None
    static: Annotated[
        list[str] | None,
        option("--static", metavar="SHAPE", help="fix sizes of an input: 'image=1,3,640,640'", panel=CHANGES),
    ] = None
    clamp_fp16: Annotated[
        bool,
        option(
            "--clamp-fp16",
            help="clamp weights and constants to the range of float16 (reads weights)",
            panel=CHANGES,
        ),
    ] = False
    opset: Annotated[
        int | None,
        option("--opset", metavar="N", parser=number(7), help="raise the opset to N (default: to 11)", panel=CHANGES),
    ] = None
    no_verify: Annotated[
        bool, option("--no-verify", help="do not run both models and compare them", panel=VERIFICATION)
    ] = False
    inputs: Annotated[
        str | None, option("--inputs", metavar="FILE.npz", help="compare on these inputs too", panel=VERIFICATION)
    ] = None
    fail_on: Annotated[
        str | None,
        option("--fail-on", metavar="LEVEL", help="lowest severity that fails (default: warning)", panel=EXIT),
    ] = None
    exit_zero: Annotated[bool, option("--exit-zero", help="exit with 0 whatever is left", panel=EXIT)] = False


def run(options: Options) -> int:
    """Fix a model, and print what was done and what is left; returns the exit code."""
    from onnxlint.fixes.options import FixOptions
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.configuration import Configs
    from onnxlint.model.output import check_writable
    from onnxlint.report.fix import render_fix

    output = options.model if options.in_place else options.output
    wanted = output is not None and not (options.diff or options.dry_run)
    if options.in_place and (options.output is not None or options.model == "-"):
        raise UsageError("--in-place replaces the model: it goes with neither -o nor stdin")
    if output is None and not (options.diff or options.dry_run):
        raise UsageError("no output given: use -o FILE, --in-place or --diff")
    if wanted and output is not None:
        check_writable(output)
    with console.status(options.quiet) as progress:
        fixed = fix_path(
            options.model,
            Configs(_settings(options), options.config, options.isolated),
            FixOptions(
                _request(options), split(options.assume), options.multiple_of, not options.no_verify, options.inputs
            ),
            progress,
        )
        if wanted and output is not None:
            progress("writing")
            write(fixed, output, options.external_data, options.inline)
    if options.diff:
        from onnxlint.fixes.diff import diff_lines

        console.write("".join(f"{line}\n" for line in diff_lines(fixed.model.proto, fixed.proto)))
    elif not options.quiet:
        console.write(render_fix(fixed.report, output if wanted else None))
    return int(fixed.failing and not options.exit_zero)


def _settings(options: Options) -> Settings:
    from onnxlint.lint.configuration import Settings

    return Settings(
        select=None if options.select is None else split(options.select),
        extend_select=split(options.extend_select),
        ignore=split(options.ignore),
        targets=None if options.target is None else split(options.target),
        weights=True if options.clamp_fp16 else None,
        fail_on=options.fail_on,
    )


def _request(options: Options) -> Request:
    from onnxlint.lint.rule import Request

    heads = split(options.heads)
    return Request(
        unsafe=options.unsafe,
        concat_heads=heads if heads or options.concat_heads else None,
        concat_axis=options.axis,
        concat_name=options.concat_name,
        drop_output_activations=options.drop_output_activations,
        clamp_fp16=options.clamp_fp16,
        rename=tuple(_renaming(text) for text in options.rename or ()),
        dynamic=tuple(options.dynamic or ()),
        static=tuple(options.static or ()),
        opset=options.opset,
    )


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not equals or not old or not new:
        raise UsageError(f"--rename: {text!r} is not of the form OLD=NEW")
    return old, new


def missing_value(option: str, words: Sequence[str]) -> str:
    """What the value of `--dynamic` or `--static` looks like, for the model that the command line names."""
    if option not in ("--dynamic", "--static"):
        return ""
    from onnxlint.fixes.shapes import example_shape
    from onnxlint.model.skeleton import open_model
    from onnxlint.symbolic.view import make_view

    shown = "image=N,3,H,W" if option == "--dynamic" else "image=1,3,640,640"
    for word in words:
        if word.lower().endswith((".onnx", ".onnxtxt", ".onnxtext")):
            with suppress(OnnxlintError):
                view = make_view(open_model(word))
                shown = example_shape(view) if view.main.data_inputs else shown
                break
    if option == "--static":
        name, _, sizes = shown.rpartition("=")
        numbers = {"N": "1", "C": "3"}
        fixed = (size if size.isdigit() else numbers.get(size, "640") for size in sizes.split(","))
        shown = f"{name}={','.join(fixed)}"
    return f", such as '{shown}'"
