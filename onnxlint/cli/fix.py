"""`onnxlint fix`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import UsageError, config_options, number, split


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", metavar="MODEL", help="model, or - for stdin")
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="FILE", help="write the fixed model to a file")
    group.add_argument("--in-place", action="store_true", help="replace the model")
    group.add_argument("--diff", action="store_true", help="print what would change, and write nothing")
    group.add_argument("--dry-run", action="store_true", help="print the summary, and write nothing")
    group.add_argument("--external-data", metavar="NAME", help="write large weights to a file of this name beside it")
    group.add_argument("--inline", action="store_true", help="bring external data into the file")
    group = parser.add_argument_group("rules", "RULES are codes, prefixes, names or ALL, separated by commas.")
    group.add_argument("--select", metavar="RULES", action="append", help="fix these findings only")
    group.add_argument("--extend-select", metavar="RULES", action="append", help="fix these, too")
    group.add_argument("--ignore", metavar="RULES", action="append", help="leave these alone")
    group.add_argument("--target", metavar="NAMES", action="append", help="backends that the model is meant for")
    group = parser.add_argument_group("what may be assumed or changed (default: only what is exact for every input)")
    group.add_argument(
        "--assume", metavar="COND", action="append", help="allow what is exact under a condition: 'H%%32==0,W%%32==0'"
    )
    group.add_argument(
        "--multiple-of", metavar="N", type=number(1), help="assume that height and width are multiples of N"
    )
    group.add_argument("--unsafe", action="store_true", help="allow fixes that change results or the interface")
    group.add_argument(
        "--concat-heads",
        metavar="NAMES",
        nargs="?",
        const="",
        help="join the detection heads into one output: all of them, or these, in this order",
    )
    group.add_argument("--axis", metavar="N", type=int, help="axis to join them along (default: the one that differs)")
    group.add_argument("--concat-name", metavar="NAME", default="output", help="name of the joined output (output)")
    group.add_argument("--drop-output-activations", action="store_true", help="drop a Softmax or Sigmoid at an output")
    group.add_argument("--rename", metavar="OLD=NEW", action="append", help="give an input or output another name")
    group.add_argument(
        "--dynamic", metavar="SHAPE", action="append", help="set sizes of an input free: 'image=N,3,H,W'"
    )
    group.add_argument("--static", metavar="SHAPE", action="append", help="fix sizes of an input: 'image=1,3,640,640'")
    group.add_argument(
        "--clamp-fp16",
        action="store_true",
        help="bring weights and constants into the range of float16 (reads weights)",
    )
    group.add_argument("--opset", metavar="N", type=number(7), help="raise the operator set to N (default: to 11)")
    group = parser.add_argument_group("verification")
    group.add_argument("--no-verify", action="store_true", help="do not run both models and compare them")
    group.add_argument("--inputs", metavar="FILE.npz", help="compare on these inputs, too")
    group = parser.add_argument_group("exit code", "0 nothing that fails is left, 1 findings are left, 2 not done.")
    group.add_argument("--fail-on", metavar="LEVEL", help="least severity that fails (default: warning)")
    group.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is left")
    group.add_argument("-q", "--quiet", action="store_true", help="print no summary and no progress")
    config_options(group)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.fixes.options import FixOptions
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.rule import Request
    from onnxlint.model.output import check_writable
    from onnxlint.report.fix import render_fix

    output = options.model if options.in_place else options.output
    wanted = output is not None and not (options.diff or options.dry_run)
    if options.in_place and (options.output is not None or options.model == "-"):
        raise UsageError("--in-place replaces the model: it goes with neither -o nor stdin")
    if output is None and not (options.diff or options.dry_run):
        raise UsageError(
            "where to? -o FILE writes the fixed model, --in-place replaces it, --diff only shows the changes"
        )
    if wanted:
        check_writable(output)
    command = Settings(
        select=None if options.select is None else split(options.select),
        extend_select=split(options.extend_select),
        ignore=split(options.ignore),
        targets=None if options.target is None else split(options.target),
        weights=True if options.clamp_fp16 else None,
        fail_on=options.fail_on,
    )
    request = Request(
        unsafe=options.unsafe,
        concat_heads=None if options.concat_heads is None else split([options.concat_heads]),
        concat_axis=options.axis,
        concat_name=options.concat_name,
        drop_output_activations=options.drop_output_activations,
        clamp_fp16=options.clamp_fp16,
        rename=tuple(_renaming(text) for text in options.rename or ()),
        dynamic=tuple(options.dynamic or ()),
        static=tuple(options.static or ()),
        opset=options.opset,
    )
    with console.status(options.quiet) as progress:
        fixed = fix_path(
            options.model,
            Configs(command, options.config, options.isolated),
            FixOptions(request, split(options.assume), options.multiple_of, not options.no_verify, options.inputs),
            progress,
        )
        if wanted:
            progress("writing")
            write(fixed, output, options.external_data, options.inline)
    if options.diff:
        from onnxlint.fixes.diff import diff_lines

        console.write("".join(f"{line}\n" for line in diff_lines(fixed.model.proto, fixed.proto)))
    elif not options.quiet:
        console.write(render_fix(fixed.report, output if wanted else None))
    return int(fixed.failing and not options.exit_zero)


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not equals or not old or not new:
        raise UsageError(f"--rename {text!r}: write it as OLD=NEW")
    return old, new
