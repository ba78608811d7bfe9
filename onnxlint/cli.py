"""The command line: it parses, calls, prints and sets the exit code.

Exit codes: 0 nothing to complain about, 1 findings, 2 the work could not be done (a wrong command line included),
130 interrupted.

Made with argparse: a check of a small model may take 0.13 s of CPU beside importing onnx, and importing typer 0.29,
which brings pydantic, and building its commands takes 0.15 s.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from onnxlint import __version__, console
from onnxlint.errors import OnnxlintError, printable

if TYPE_CHECKING:
    from onnxlint.rule import Registry

ABOUT = "Find, explain and fix what will hurt an exported ONNX model in deployment."
INTERRUPTED = 130


class Command(NamedTuple):
    """One command.

    Attributes:
        about: What it does, in one line.
        add_options: Adds its options to a parser.
        run: Does it and returns the exit code.
    """

    about: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


# check


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", help="model, folder, glob, or - for stdin (default: .)")
    group = parser.add_argument_group("rules", "RULES are codes, prefixes, names or ALL, separated by commas.")
    group.add_argument("--select", metavar="RULES", action="append", help="run these rules, not the default ones")
    group.add_argument("--extend-select", metavar="RULES", action="append", help="run these rules too")
    group.add_argument("--ignore", metavar="RULES", action="append", help="do not run these rules")
    group.add_argument(
        "--target", metavar="NAMES", action="append", help="backends that the models are meant for: ncnn, …"
    )
    group.add_argument("--min-opset", metavar="N", type=_number(1), help="oldest operator set to accept (default: 11)")
    group.add_argument("--severity", metavar="RULE=LEVEL", action="append", help="make it error, warning or info")
    group.add_argument(
        "--weights", action=argparse.BooleanOptionalAction, default=None, help="also run the rules that read weights"
    )
    group = parser.add_argument_group("report")
    group.add_argument(
        "--format", metavar="FORMAT", help="text, json, sarif, github, gitlab, junit or markdown (default: text)"
    )
    group.add_argument("-o", "--output", metavar="FILE", help="write the report to a file")
    group.add_argument("--statistics", action="store_true", help="count findings by rule")
    group.add_argument("-q", "--quiet", action="store_true", help="print the report only: no notes, no progress")
    group.add_argument("--no-color", action="store_true", help="print without colors")
    group = parser.add_argument_group(
        "exit code", "0 nothing that fails, 1 findings, 2 something could not be checked."
    )
    group.add_argument(
        "--fail-on", metavar="LEVEL", help="least severity that fails: error, warning, info or never (default: warning)"
    )
    group.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is found")
    group = parser.add_argument_group("known findings")
    group.add_argument("--baseline", metavar="FILE", help="leave out the known findings in this file")
    group.add_argument(
        "--write-baseline",
        metavar="[FILE.json]",
        help="make all findings known ones (default: in --baseline, or onnxlint-baseline.json)",
    )
    group = parser.add_argument_group("the work")
    group.add_argument(
        "-j", "--jobs", metavar="N", type=_number(0), help="worker processes (default 0: as many as pay)"
    )
    group.add_argument("--force-exclude", action="store_true", help="let 'exclude' hold for models named here, too")
    _config_options(group)


def _check(options: argparse.Namespace) -> int:
    from onnxlint.config import Configs, Settings, parse_severities
    from onnxlint.files import check_writable, write_atomically
    from onnxlint.report import NEEDS_NEIGHBOURHOODS, Report, render
    from onnxlint.run import check_paths, fail_level
    from onnxlint.source import Sources

    command = Settings(
        select=None if options.select is None else _split(options.select),
        extend_select=_split(options.extend_select),
        ignore=_split(options.ignore),
        targets=None if options.target is None else _split(options.target),
        min_opset=options.min_opset,
        fail_on=options.fail_on,
        severity=parse_severities(_split(options.severity)),
        weights=options.weights,
        jobs=options.jobs,
        baseline=options.baseline,
        format=options.format,
    )
    configs = Configs(command, options.config, options.isolated)
    here = configs.of_folder(".")
    to_file = options.output is not None
    if to_file:
        check_writable(options.output)
    with console.progress("Checking models", options.quiet) as progress:
        run = check_paths(
            options.paths or ["."],
            configs,
            force_exclude=options.force_exclude,
            write_baseline=options.write_baseline,
            neighbourhoods=here.format in NEEDS_NEIGHBOURHOODS,
            progress=progress,
        )
    report = Report(
        run.results,
        run.rules,
        statistics=options.statistics,
        fail_on=fail_level(here),
        root=Sources().root,
        color=not to_file and console.has_color(options.no_color),
        width=None if to_file else console.width(),
    )
    text = render(here.format, report)
    if to_file:
        write_atomically(options.output, text)
    else:
        console.write(text)
    if to_file or here.format != "text":  # the text on stdout has the errors in it
        console.errors(result.error.message for result in run.results if result.error)
    if not options.quiet:
        console.notes(run.notes)
    return 0 if options.exit_zero and run.exit_code == 1 else run.exit_code


# fix


def _fix_options(parser: argparse.ArgumentParser) -> None:
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
        "--multiple-of", metavar="N", type=_number(1), help="assume that height and width are multiples of N"
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
    group.add_argument("--opset", metavar="N", type=_number(7), help="raise the operator set to N (default: to 11)")
    group = parser.add_argument_group("verification")
    group.add_argument("--no-verify", action="store_true", help="do not run both models and compare them")
    group.add_argument("--inputs", metavar="FILE.npz", help="compare on these inputs, too")
    group = parser.add_argument_group("exit code", "0 nothing that fails is left, 1 findings are left, 2 not done.")
    group.add_argument("--fail-on", metavar="LEVEL", help="least severity that fails (default: warning)")
    group.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is left")
    group.add_argument("-q", "--quiet", action="store_true", help="print no summary and no progress")
    _config_options(group)


def _fix(options: argparse.Namespace) -> int:
    from onnxlint.config import Configs, Settings
    from onnxlint.files import check_writable
    from onnxlint.fix_run import fix_path, write
    from onnxlint.report.fix_text import render_fix
    from onnxlint.rule import Request

    output = options.model if options.in_place else options.output
    wanted = output is not None and not (options.diff or options.dry_run)
    if options.in_place and (options.output is not None or options.model == "-"):
        raise _UsageError("--in-place replaces the model: it goes with neither -o nor stdin")
    if output is None and not (options.diff or options.dry_run):
        raise _UsageError(
            "where to? -o FILE writes the fixed model, --in-place replaces it, --diff only shows the changes"
        )
    if wanted:
        check_writable(output)
    command = Settings(
        select=None if options.select is None else _split(options.select),
        extend_select=_split(options.extend_select),
        ignore=_split(options.ignore),
        targets=None if options.target is None else _split(options.target),
        weights=True if options.clamp_fp16 else None,
        fail_on=options.fail_on,
    )
    request = Request(
        unsafe=options.unsafe,
        concat_heads=None if options.concat_heads is None else _split([options.concat_heads]),
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
            request,
            assumptions=_split(options.assume),
            multiple_of=options.multiple_of,
            verify=not options.no_verify,
            inputs=options.inputs,
            progress=progress,
        )
        if wanted:
            progress("writing")
            write(fixed, output, options.external_data, options.inline)
    if options.diff:
        from onnxlint.diff import diff_lines

        console.write("".join(f"{line}\n" for line in diff_lines(fixed.model.proto, fixed.proto)))
    elif not options.quiet:
        console.write(render_fix(fixed.report, output if wanted else None))
    return int(fixed.failing and not options.exit_zero)


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not equals or not old or not new:
        raise _UsageError(f"--rename {text!r}: write it as OLD=NEW")
    return old, new


def _heads_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model whose heads 'onnxlint fix --concat-heads' joined")


def _heads(options: argparse.Namespace) -> int:
    from onnxlint.fix_run import joined_heads

    console.write(joined_heads(options.model))
    return 0


# The other commands


def _rules_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    _config_options(parser)


def _rules(options: argparse.Namespace) -> int:
    from onnxlint import docs

    render = docs.catalogue_json if options.format == "json" else docs.catalogue
    console.write(render(_registry(options)))
    return 0


def _rule_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="CODE", help="a code, name or alias")
    _config_options(parser)


def _rule(options: argparse.Namespace) -> int:
    from onnxlint import docs

    console.write(docs.page(_registry(options).find(options.rule)))
    return 0


def _test_rules_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file or folder with rules")


def _test_rules(options: argparse.Namespace) -> int:
    from onnxlint.run import run_examples

    failed = 0
    for name, problem in run_examples(options.paths):
        details = "".join(f"    {line}\n" for line in problem.splitlines())
        console.write(f"{'FAILED' if problem else 'ok'}  {name}\n{details}")
        failed += bool(problem)
    console.write(f"{failed} failed\n" if failed else "All examples hold.\n")
    return 1 if failed else 0


def _show_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", default=".", help="model or folder (default: .)")
    _config_options(parser)


def _show_config(options: argparse.Namespace) -> int:
    from onnxlint.config import Configs, Settings
    from onnxlint.run import describe

    console.write(describe(Configs(Settings(), options.config, options.isolated), options.model))
    return 0


COMMANDS = {
    "check": Command("Report what will hurt models in deployment.", _check_options, _check),
    "fix": Command("Fix what can be proved or measured, and say which.", _fix_options, _fix),
    "heads": Command("Print what is where in a joined output.", _heads_options, _heads),
    "rules": Command("List all rules.", _rules_options, _rules),
    "rule": Command("Explain a rule, with examples.", _rule_options, _rule),
    "test-rules": Command("Run the examples of rules: your own or anybody's.", _test_rules_options, _test_rules),
    "config": Command("Show what is configured for a model.", _show_config_options, _show_config),
}


# Parsing


class _UsageError(Exception):
    """The command line is wrong; the message is one line."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help survives a reader that went away."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; '{self.prog} --help' lists what there is")

    def print_help(self, file: object = None) -> None:
        console.write(self.format_help())


def _config_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--config", metavar="FILE", help="read this configuration, not the nearest one")
    parser.add_argument("--isolated", action="store_true", help="read no configuration file")


def _number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return value

    return convert


def _split(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["SHP,OUT001", "GRF"]` → `("SHP", "OUT001", "GRF")`."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def _registry(options: argparse.Namespace) -> Registry:
    from onnxlint.config import Configs, Settings
    from onnxlint.rule import load_registry

    return load_registry(Configs(Settings(), options.config, options.isolated).of_folder(".").rule_paths)


def _with_values(words: Sequence[str]) -> list[str]:
    """Give options whose value may be left out an empty one where what follows is not theirs.

    So `--write-baseline model.onnx` never takes a model for the file to write, nor `--concat-heads model.onnx` one for
    the name of a head.
    """
    out = list(words)
    for i, word in enumerate(words):
        if word == "--":
            break
        if word == "--write-baseline" and not "".join(words[i + 1 : i + 2]).endswith(".json"):
            out[i] = "--write-baseline="
        if word == "--concat-heads" and (not words[i + 1 :] or os.path.exists(words[i + 1]) or ".onnx" in words[i + 1]):
            out[i] = "--concat-heads="
    return out


def _parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of a command.

    Raises:
        _UsageError: They are wrong.
    """
    parser = _Parser(prog=f"onnxlint {name}", description=COMMANDS[name].about, allow_abbrev=False)
    COMMANDS[name].add_options(parser)
    options, unknown = parser.parse_known_intermixed_args(_with_values(words))
    if not unknown:
        return options
    first = unknown[0].split("=")[0]
    if not first.startswith("-"):
        parser.error(f"unexpected argument: {first}")
    known = [f"--{key.replace('_', '-')}" for key in vars(options)]
    raise _UsageError(_unknown("no such option:", first, known, f"'{parser.prog} --help' lists what there is"))


def _unknown(what: str, word: str, known: Sequence[str], otherwise: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"{what} {word}; {f'did you mean {near[0]}?' if near else otherwise}"


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items())
    return (
        f"usage: onnxlint COMMAND ...\n\n{ABOUT}\n\ncommands:\n{commands}\n\n"
        "'onnxlint COMMAND --help' says more; 'onnxlint --version' prints the version.\n"
    )


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        console.write(_overview())
        return 0 if words else 2  # a script whose command line came out empty must not pass
    name = words[0]
    if name in ("-V", "--version"):
        console.write(f"onnxlint {__version__}\n")
        return 0
    if name in COMMANDS:
        return COMMANDS[name].run(_parse(name, words[1:]))
    if any(map(_is_path, words if name.startswith("-") else [name])):
        raise _UsageError(f"{name} is not a command; did you mean 'onnxlint check {' '.join(words)}'?")
    known = [*COMMANDS, "--help", "--version"]
    raise _UsageError(_unknown("no such command:", name, known, f"there are {', '.join(COMMANDS)}"))


def _is_path(word: str) -> bool:
    return word == "-" or os.path.exists(word) or os.path.splitext(word)[1].lower().startswith(".onnx")


def run(words: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    Args:
        words: Arguments after the program's name.
    """
    try:
        return _dispatch(words)
    except (OnnxlintError, _UsageError) as error:
        console.errors([printable(str(error))])
    except KeyboardInterrupt:
        console.errors(["interrupted"])
        return INTERRUPTED
    except MemoryError:
        console.errors(["out of memory; check fewer models at once (-j 1)"])
    except SystemExit as stop:  # argparse, after --help
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:  # noqa: BLE001 - Python's own exit code would be 1, which means findings
        import traceback

        traceback.print_exc()
        console.errors([f"{type(error).__name__}: this is a bug in onnxlint, please report it with the lines above"])
    return 2


def main() -> NoReturn:
    """The program: run the command line of this process and end it."""
    # Nearly all that imports and models allocate lives until the end: looking for garbage in it takes 5 % of the time.
    gc.set_threshold(100_000, 10, 10)
    console.use_safe_streams()
    code = run(sys.argv[1:])
    # Freeing every object one by one takes another 15 %. Nothing is open any more but the streams.
    console.flush()
    os._exit(code)
