"""`onnxlint fix`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from glob import has_magic
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import console
from onnxlint.cli.options import (
    CHANGES,
    EXIT,
    OUTPUT,
    VERIFICATION,
    ConfigOptions,
    EngineName,
    Jobs,
    QuietOption,
    RuleOptions,
    UsageError,
    argument,
    configs_of,
    number,
    option,
    rule_settings,
    split,
)
from onnxlint.errors import OnnxlintError
from onnxlint.text import listed, printable

if TYPE_CHECKING:
    from onnxlint.fixes.many import Destination, Result
    from onnxlint.fixes.options import FixOptions
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.rule import Request

MAX_RANK = 64
"""Axes that a tensor may have: NumPy's limit."""

NOTES = "Exit code: 0 nothing that fails is left, 1 findings are left, 2 error."


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions, QuietOption):
    """Arguments and options of the command."""

    models: Annotated[list[str], argument("MODEL", "model, folder or glob, or - for stdin")]
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="write the fixed model to a file", panel=OUTPUT)
    ] = None
    in_place: Annotated[bool, option("--in-place", help="replace the models", panel=OUTPUT)] = False
    out_dir: Annotated[
        str | None,
        option(
            "--out-dir", metavar="DIR", help="write the fixed models to a folder, under their own names", panel=OUTPUT
        ),
    ] = None
    diff: Annotated[bool, option("--diff", help="print the changes without writing them", panel=OUTPUT)] = False
    dry_run: Annotated[bool, option("--dry-run", help="print the summary without writing the model", panel=OUTPUT)] = (
        False
    )
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
            help="allow fixes exact under a condition: 'H%32==0,W%32==0'",
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
    allow_empty: Annotated[
        bool, option("--allow-empty", help="keep fixes exact for inputs with a size of 0 too", panel=CHANGES)
    ] = False
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
        option(
            "--axis",
            metavar="N",
            parser=number(-MAX_RANK, MAX_RANK - 1),
            help="axis to concatenate along (default: the one that differs)",
            panel=CHANGES,
        ),
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
    bind: Annotated[
        list[str] | None,
        option(
            "--bind", metavar="NAME=VALUE", help="make an input a constant: numbers, or an .npy file", panel=CHANGES
        ),
    ] = None
    simplify: Annotated[bool, option("--simplify", help="also run onnxsim (in a separate process)", panel=CHANGES)] = (
        False
    )
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
        option(
            "--opset", metavar="N", parser=number(7), help="raise or lower the opset to N (default: 11)", panel=CHANGES
        ),
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
    exit_zero: Annotated[bool, option("--exit-zero", help="exit with 0 even if findings remain", panel=EXIT)] = False
    fail_on_change: Annotated[
        bool, option("--fail-on-change", help="exit with 1 if a model changed, as pre-commit expects", panel=EXIT)
    ] = False
    jobs: Jobs = None
    engine: EngineName = "local"


def run(options: Options) -> int:
    """Fix models, and print applied fixes and remaining findings; returns the exit code."""
    # Before NumPy is imported: its threads, one for each core, keep their cores busy for a while, and nothing uses them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from onnxlint.fixes.many import Destination, exit_code, fix_many
    from onnxlint.fixes.options import FixOptions

    _require_output(options)
    _require_local(options)
    configs = configs_of(options, _settings(options))
    wanted = FixOptions(
        _request(options), split(options.assume), options.multiple_of, not options.no_verify, options.inputs
    )
    shows_only = options.diff or options.dry_run
    results: list[Result] = []
    with ExitStack() as stack:
        if options.engine != "local":  # Ray prints there what its workers died of
            stack.enter_context(console.own_stdout())
        progress = stack.enter_context(console.status(options.quiet))
        if options.output is not None and not shows_only:
            results.append(_fix_one(options, configs, wanted, progress))
        else:
            goes = Destination() if shows_only else _destination(options)
            jobs = 1 if options.diff else configs.of_folder(".").jobs  # what is compared line by line stays here
            results += fix_many(options.models, configs, wanted, goes, progress, options.engine, jobs)
    for result in results:
        _show(result, options)
    if not options.quiet:
        console.notes(
            filter(
                None,
                dict.fromkeys(configs.of(result.path).withheld_note for result in results if result.fixed is not None),
            )
        )
    return exit_code(results, exit_zero=options.exit_zero, on_change=options.fail_on_change)


def _require_output(options: Options) -> None:
    """Raise unless the command line names exactly one output.

    Raises:
        UsageError: No output or several are given, or one file for several models.
    """
    outputs = [
        name
        for name, value in (
            ("-o", options.output is not None),
            ("--in-place", options.in_place),
            ("--out-dir", options.out_dir is not None),
        )
        if value
    ]
    if len(outputs) > 1:
        raise UsageError(f"{listed(outputs)} cannot be used together: each names the output")
    if options.in_place and "-" in options.models:
        raise UsageError("--in-place cannot be used with stdin: there is no file to replace")
    if options.output is not None and len(options.models) > 1:
        lost = next((one for one in options.models if one != "-" and not os.path.exists(one)), None)
        known = f"; {printable(lost)!r} is no file" if lost is not None and not has_magic(lost) else ""
        raise UsageError(
            f"-o names one file, and {len(options.models)} models are given: use --out-dir DIR or --in-place{known}"
        )
    if not outputs and not options.diff and not options.dry_run:
        two = len(options.models) == 2 and all(word.endswith(".onnx") for word in options.models)
        first, last = printable(options.models[0]), printable(options.models[-1])
        is_new = two and not os.path.exists(options.models[-1])  # no hint tells anybody to overwrite a model
        asked = f"; did you mean 'onnxlint fix {first} -o {last}'?" if is_new else ""
        raise UsageError(f"no output given: use -o FILE, --in-place, --out-dir DIR or --diff{asked}")


def _require_local(options: Options) -> None:
    """Raise where an engine other than this process is asked for what only this one can show or write."""
    if options.engine != "local" and (options.diff or options.output is not None):
        raise UsageError(f"--engine {options.engine} fixes several models: use --in-place, --out-dir DIR or --dry-run")


def _destination(options: Options) -> Destination:
    from onnxlint.fixes.many import Destination

    return Destination(options.in_place, options.out_dir, options.external_data, options.inline)


def _fix_one(options: Options, configs: Configs, wanted: FixOptions, progress: Callable[[str], None]) -> Result:
    """Fix the one model for which -o names the file."""
    from onnxlint.fixes.many import Result
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.model.output import check_writable
    from onnxlint.model.protect import refuse_inputs

    (model,), output = options.models, options.output or ""
    check_writable(output)
    refuse_inputs(output, [model], "--in-place replaces the model")
    fixed = fix_path(model, configs, wanted, progress)
    progress("writing")
    write(fixed, output, options.external_data, options.inline)
    return Result(model, fixed, output)


def _show(result: Result, options: Options) -> None:
    from onnxlint.report.fix import render_fix

    if result.fixed is None:
        console.errors([result.error])
    elif options.diff:
        from onnxlint.fixes.diff import diff_lines

        lines = diff_lines(result.fixed.model.proto, result.fixed.proto)
        console.write("".join(f"{line}\n" for line in lines))
    elif not options.quiet:
        console.write(render_fix(result.fixed.report, result.output))


def _settings(options: Options) -> Settings:
    return replace(
        rule_settings(options), weights=True if options.clamp_fp16 else None, fail_on=options.fail_on, jobs=options.jobs
    )


def _request(options: Options) -> Request:
    from onnxlint.lint.rule import Request

    heads = split(options.heads)
    if not heads and not options.concat_heads and (options.axis is not None or options.concat_name != "output"):
        name = "--axis" if options.axis is not None else "--concat-name"
        raise UsageError(f"{name} needs --concat-heads or --heads NAMES")
    return Request(
        unsafe=options.unsafe,
        concat_heads=heads if heads or options.concat_heads else None,
        concat_axis=options.axis,
        concat_name=options.concat_name,
        drop_output_activations=options.drop_output_activations,
        clamp_fp16=options.clamp_fp16,
        rename=tuple(_pair("--rename", "OLD=NEW", text) for text in options.rename or ()),
        dynamic=tuple(options.dynamic or ()),
        static=tuple(options.static or ()),
        opset=options.opset,
        bind=tuple(_pair("--bind", "NAME=VALUE", text) for text in options.bind or ()),
        simplify=options.simplify,
        allow_empty=options.allow_empty,
    )


def _pair(flag: str, form: str, text: str) -> tuple[str, str]:
    """`a=b` as two words; names may have `=` in them where the value has none."""
    left, equals, right = text.rpartition("=")
    if not equals or not left or not right:
        raise UsageError(f"{flag}: {text!r} is not of the form {form}")
    return left, right


_EXAMPLES = {
    "--assume": ", such as 'h % 32 == 0,w % 32 == 0'",
    "--heads": ", such as bbox,cls,ldm",
    "--multiple-of": ", such as 32",
    "--opset": ", such as 17",
    "--rename": ", such as 562=boxes",
    "-o": ", such as fixed.onnx",
    "--output": ", such as fixed.onnx",
}


def missing_value(option: str, words: Sequence[str]) -> str:
    """What the value of `--dynamic`, `--static` or `--bind` looks like, for the model that the command line names."""
    if option not in ("--dynamic", "--static", "--bind"):
        return _EXAMPLES.get(option, "")
    from onnxlint.fixes.shapes import example_shape
    from onnxlint.model.skeleton import open_model
    from onnxlint.symbolic.view import make_view

    shown = {"--dynamic": "image=N,3,H,W", "--static": "image=1,3,640,640"}.get(option, "factor=1,1,2,2")
    for word in words:
        if word.lower().endswith((".onnx", ".onnxtxt", ".onnxtext")):
            with suppress(OnnxlintError):
                view = make_view(open_model(word))
                inputs = view.main.data_inputs
                if option == "--bind":  # the last: a factor, a threshold; images come first
                    shown = f"{printable(inputs[-1])}=1,1,2,2" if len(inputs) > 1 else shown
                else:
                    shown = example_shape(view, option) if inputs else shown
                break
    return f", such as '{shown}'"
