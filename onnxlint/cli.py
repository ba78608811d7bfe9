"""The command line: it parses, calls, prints and sets the exit code.

Exit codes: 0 nothing to complain about, 1 findings, 2 the work could not be done (a wrong command line included),
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from onnxlint import __version__, console
from onnxlint.errors import OnnxlintError, printable

if TYPE_CHECKING:
    from onnxlint.rule import Registry

app = typer.Typer(
    name="onnxlint",
    help="Find and explain what will hurt an exported ONNX model in deployment.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.write(f"onnxlint {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Read this configuration, not the nearest one.")
]
Isolated = Annotated[bool, typer.Option("--isolated", help="Read no configuration file.")]


@app.command()
def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATHS]...", help="Models, folders, globs, or - for standard input (default: .)."),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="RULES", help="Run these rules, not the default ones: codes, prefixes, names, ALL."),
    ] = None,
    extend_select: Annotated[list[str] | None, typer.Option(metavar="RULES", help="Run these rules too.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="RULES", help="Do not run these rules.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Backends that the models are meant for, such as ncnn.")
    ] = None,
    min_opset: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Oldest operator set to accept (default: 11).")
    ] = None,
    severity: Annotated[
        list[str] | None, typer.Option(metavar="RULE=LEVEL", help="Make a rule's findings error, warning or info.")
    ] = None,
    weights: Annotated[
        bool | None, typer.Option("--weights/--no-weights", help="Also run the rules that read weights.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="text, json, sarif, github, gitlab, junit or markdown (default: text)."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the report to a file.")
    ] = None,
    statistics: Annotated[bool, typer.Option("--statistics", help="Count findings by rule.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Exit with 1 from this on: error, warning, info, never (default: warning)."),
    ] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever is found.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=0, metavar="N", help="Worker processes (0: as many as pay).")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="FILE", help="Leave out the known findings in this file.")
    ] = None,
    write_baseline: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE.json]",
            help="Write all findings to a baseline file (default: --baseline, or onnxlint-baseline.json).",
        ),
    ] = None,
    config: ConfigFile = None,
    isolated: Isolated = False,
    force_exclude: Annotated[
        bool, typer.Option("--force-exclude", help="Let 'exclude' hold for models named themselves, too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report only: no notes, no progress.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colors.")] = False,
) -> None:
    """Report what will hurt models in deployment."""
    from onnxlint.config import Configs, Settings, parse_severities
    from onnxlint.files import check_writable, write_atomically
    from onnxlint.report import Report, render
    from onnxlint.run import check_paths, fail_level
    from onnxlint.source import Sources

    command = Settings(
        select=None if select is None else _split(select),
        extend_select=_split(extend_select),
        ignore=_split(ignore),
        targets=None if target is None else _split(target),
        min_opset=min_opset,
        fail_on=fail_on,
        severity=parse_severities(_split(severity)),
        weights=weights,
        jobs=jobs,
        baseline=baseline,
        format=format,
    )
    configs = Configs(command, config, isolated)
    here = configs.of_folder(".")
    if output is not None:
        check_writable(output)
    with console.progress("Checking models", quiet) as progress:
        run = check_paths(
            paths or ["."], configs, force_exclude=force_exclude, write_baseline=write_baseline, progress=progress
        )
    report = Report(
        run.results,
        run.rules,
        statistics=statistics,
        fail_on=fail_level(here),
        root=Sources().root,
        color=output is None and console.has_color(no_color),
        width=None if output is not None else console.width(),
    )
    text = render(here.format, report)
    if output is None:
        console.write(text)
    else:
        write_atomically(output, text)
    if not quiet:
        console.notes(run.notes)
    raise typer.Exit(0 if exit_zero and run.exit_code == 1 else run.exit_code)


@app.command()
def rules(
    format: Annotated[str, typer.Option(metavar="FORMAT", help="text or json.")] = "text",
    config: ConfigFile = None,
    isolated: Isolated = False,
) -> None:
    """List all rules."""
    from onnxlint import docs

    formats = {"text": docs.catalogue, "json": docs.catalogue_json}
    if format not in formats:
        raise OnnxlintError(f"--format: {format!r} is not a format of the catalogue; there are text and json")
    console.write(formats[format](_registry(config, isolated)))


@app.command()
def rule(
    name: Annotated[str, typer.Argument(metavar="CODE", help="A code, name or alias.")],
    config: ConfigFile = None,
    isolated: Isolated = False,
) -> None:
    """Explain a rule, with examples."""
    from onnxlint import docs

    console.write(docs.page(_registry(config, isolated).find(name)))


@app.command()
def test_rules(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS...", help="Files or folders with rules.")],
) -> None:
    """Run the examples of rules: your own or anybody's."""
    from onnxlint.run import test_rules_at

    failed = 0
    for name, problem in test_rules_at(paths):
        console.write(
            f"{'FAILED' if problem else 'ok'}  {name}\n" + "".join(f"    {line}\n" for line in problem.splitlines())
        )
        failed += bool(problem)
    console.write(f"{failed} failed\n" if failed else "All examples hold.\n")
    raise typer.Exit(1 if failed else 0)


@app.command("config")
def show_config(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A model, or a folder (default: .).")] = ".",
    config: ConfigFile = None,
    isolated: Isolated = False,
) -> None:
    """Show what is configured for a model."""
    from onnxlint.config import Configs, Settings
    from onnxlint.run import describe

    console.write(describe(Configs(Settings(), config, isolated), model))


def _registry(config: str | None, isolated: bool) -> Registry:
    from onnxlint.config import Configs, Settings
    from onnxlint.rule import load_registry

    return load_registry(Configs(Settings(), config, isolated).of_folder(".").rule_paths)


def _split(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["SHP,OUT001", "GRF"]` → `("SHP", "OUT001", "GRF")`."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: Arguments after the program's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console.use_safe_streams()
    try:
        code = app(_with_values(arguments) or ["--help"], prog_name="onnxlint", standalone_mode=False)
        if not arguments:
            return 2  # a script whose list of models came out empty must not pass
        if code == 130:
            console.error("interrupted")
        return code if isinstance(code, int) else 0
    except OnnxlintError as error:
        console.error(str(error))
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return 130
    except _UsageError as error:
        console.error(_usage_message(error, arguments))
    except MemoryError:
        console.error("out of memory; check fewer models at once (-j 1)")
    except Exception as error:  # noqa: BLE001 - Python's own exit code would be 1, which means findings
        import traceback

        traceback.print_exc()
        console.error(f"{type(error).__name__}: this is a bug in onnxlint, please report it with the lines above")
    return 2


# Typer hands out only this subclass of Click's UsageError, of which it has its own copy since 0.26.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _usage_message(error: Exception, arguments: Sequence[str]) -> str:
    """One line for a wrong command line: what is wrong, and the way out."""
    message = getattr(error, "format_message", lambda: str(error))().rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "onnxlint"
    option, known = getattr(error, "option_name", ""), getattr(error, "possibilities", None) or []
    first = next((word for word in arguments if not word.startswith("-") or word == "-"), "")
    if command == "onnxlint" and (any(map(_is_path, arguments)) if option else _is_path(first)):
        what = f"no such option: {option}" if option else f"{first!r} is not a command"
        message = f"{what}; did you mean 'onnxlint check {' '.join(arguments)}'?"
    elif option:
        import difflib

        near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
        message = f"no such option: {option}" + (f"; did you mean {near[0]}?" if near else "")
    hint = "" if message.endswith("?") else f"; '{command} --help' lists what there is"
    return printable(message) + hint


def _is_path(word: str) -> bool:
    return word == "-" or os.path.exists(word) or os.path.splitext(word)[1].lower().startswith(".onnx")


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Give `--write-baseline`, whose file may be left out, an empty value where no .json file follows.

    So `--write-baseline model.onnx` never takes a model for the file to write.
    """
    out = list(arguments)
    for i, word in enumerate(arguments):
        if word == "--":
            break
        if word == "--write-baseline" and not "".join(arguments[i + 1 : i + 2]).endswith(".json"):
            out[i] = "--write-baseline="
    return out
