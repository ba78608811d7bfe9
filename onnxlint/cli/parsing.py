"""typer's commands as onnxlint uses them: imported when they run, help that fits 80 columns, errors of one line with the way
out.

The help is plain text by design: names of files and rules in it cannot be taken for markup, and rich is not imported.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from onnxlint.cli import console
from onnxlint.cli.commands import ERROR, Command
from onnxlint.cli.errors import UsageError
from onnxlint.cli.options import PANELS
from onnxlint.cli.words import COMMAND_HINTS, COMMAND_SYNONYMS, OPTION_HINTS, MissingValue, normalized
from onnxlint.store.urls import is_remote, shown
from onnxlint.text import choices, did_you_mean, nearest
from onnxlint.version import __version__

ABOUT = "Find, explain and fix what will hurt an exported ONNX model in deployment."
_PROGRAM = "onnxlint"
_HELP = ("-h", "--help")
_NAMES = 24
"""Columns for the names of options; longer ones stand on a line of their own."""
_USAGE_ERROR: Any = typer.BadParameter.__base__
"""click's class, wherever this release of typer keeps it."""


def run_command(commands: Mapping[str, Command], words: list[str]) -> int:
    """Run a command line and return its exit code.

    Args:
        commands: The commands by name.
        words: Arguments after the program's name.

    Raises:
        UsageError: The command line is wrong.
        OnnxlintError: The command failed.
    """
    program = _program(commands)
    if f"_{_PROGRAM.upper()}_COMPLETE" in os.environ:  # the shell asks what a word may become
        program.main(words, prog_name=_PROGRAM)
    try:
        with program.make_context(_PROGRAM, words) as context:
            return int(program.invoke(context) or 0)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except _USAGE_ERROR as error:
        raise explained(error) from None


def _program(commands: Mapping[str, Command]) -> Any:
    class Program(_Group):
        table = commands

    app = typer.Typer(
        cls=Program,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": list(_HELP)},
        help=ABOUT,
    )

    @app.callback()
    def program(
        context: typer.Context,
        version: Annotated[bool, typer.Option("-V", "--version", help="print the version")] = False,
    ) -> None:
        if version:
            console.write(f"{_PROGRAM} {__version__}\n")
            raise typer.Exit
        if context.invoked_subcommand is None:  # a script whose command line came out empty must not pass
            console.write(context.get_help() + "\n")
            raise typer.Exit(ERROR)

    return get_command(app)


# Commands


def load(name: str, entry: Command) -> Any:
    """Import a command and make typer's of it."""
    module = importlib.import_module(entry.module)

    def call(**values: Any) -> int:
        return int(module.run(module.Options(**values)))

    # typer reads the signature: the fields of the dataclass.
    hints = get_type_hints(module.Options, include_extras=True)
    parameters = inspect.signature(module.Options).parameters.values()
    fields = [one.replace(annotation=hints[one.name]) for one in parameters]
    call.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]
    call.__annotations__ = hints

    class Loaded(_Command):
        missing = staticmethod(getattr(module, "missing_value", lambda option, words: ""))
        notes = getattr(module, "NOTES", "")

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=Loaded, help=entry.about, context_settings={"help_option_names": list(_HELP)})(call)
    return get_command(app)


class _Command(TyperCommand):
    """A command: its words are normalized, its help is in groups, and nothing unexpected is left over."""

    missing: Callable[[str, Sequence[str]], str]
    notes: str

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _print_requested_help(self, ctx, args)
        taken = {name: _metavar(one) for one in self.get_params(ctx) for name in (*one.opts, *one.secondary_opts)}
        try:
            args = normalized(args, taken, _is_target)
        except MissingValue as error:
            if ctx.resilient_parsing:
                return []
            example = self.missing(error.option, args)
            raise UsageError(f"{error}{example or _see(ctx)}") from None
        ctx.allow_extra_args = True
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except _USAGE_ERROR as error:
            error.ctx = error.ctx or ctx  # an error of a word alone knows no command
            raise
        if rest and not ctx.resilient_parsing:
            raise UsageError(f"unexpected argument: {rest[0]}{_expected(self, rest[0], ctx)}")
        if not ctx.resilient_parsing:
            _refuse_addresses(self, ctx)
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, description, and the options by group."""
        _write_usage(formatter, _usage(self, ctx))
        formatter.write(f"\n{self.help}\n")
        groups = _option_groups(self, ctx)
        widest = max(len(name) for records in groups.values() for name, _ in records)
        for title, records in groups.items():
            _write_group(formatter, title or "arguments", PANELS.get(title, ""), records, widest)
        if self.notes:
            formatter.write("\n")
            formatter.write_text(self.notes)


class Help(NamedTuple):
    """The help of a command as data.

    Attributes:
        usage: How it is called, in one line.
        groups: Heading (empty for arguments) → (names, description) of each option.
        notes: What stands below them; may be empty.
    """

    usage: str
    groups: dict[str, list[tuple[str, str]]]
    notes: str


def help_of(name: str, entry: Command) -> Help:
    """What `onnxlint NAME --help` shows."""
    command = load(name, entry)
    ctx = typer.Context(command, info_name=f"{_PROGRAM} {name}", help_option_names=list(_HELP))
    return Help(_usage(command, ctx), _option_groups(command, ctx), command.notes)


def _usage(command: Any, ctx: Any) -> str:
    pieces = [_usage_of(one) for one in command.get_params(ctx) if one.param_type_name == "argument"]
    return f"{ctx.command_path} [OPTIONS] {' '.join(pieces)}".rstrip()


def _option_groups(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Heading → (names, description) of each option; headings without any are left out."""
    groups: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
    for one in command.get_params(ctx):
        record = _record(one, ctx)
        if record is not None:
            last = list(PANELS)[-1] if record[0] == ", ".join(_HELP) else ""
            groups.setdefault(getattr(one, "rich_help_panel", None) or last, []).append(record)
    return {title: records for title, records in groups.items() if records}


def _record(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    """Name and help of a parameter, as the help lists them; None for a hidden one."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper(), parameter.help or ""
    record: tuple[str, str] | None = parameter.get_help_record(ctx)
    if record is not None and record[0] == ", ".join(_HELP):
        return record[0], "show this help"
    return record


_PLACES = ("FILE", "DIR", "PATH", "FILE.npz", "[FILE.json]")
"""What stands for files and folders of this machine in the help."""


def _refuse_addresses(command: Any, ctx: Any) -> None:
    """Raise UsageError where an option that takes a file or folder was given `s3://…`: the system would make it a folder."""
    for one in command.get_params(ctx):
        if one.metavar not in _PLACES or (one.param_type_name == "argument" and one.metavar == "PATH"):
            continue
        given = ctx.params.get(one.name)
        for value in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(value, str) and "://" in value and is_remote(value) and not os.path.lexists(value):
                name = max(one.opts, key=len) if one.param_type_name == "option" else one.metavar
                raise UsageError(f"{name}: {shown(value)} is an address; name a file or folder of this machine")


def _metavar(parameter: Any) -> str:
    """What stands for an option's value in the help; empty for a flag."""
    if parameter.param_type_name == "argument" or parameter.is_flag or parameter.count:
        return ""
    return str(parameter.metavar or parameter.type.name.upper())


def _usage_of(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    dots = "..." if parameter.nargs == -1 else ""
    return f"{name}{dots}" if parameter.required else f"[{name}{dots}]"


def _is_target(option: str, word: str) -> bool:
    """Whether a word names a target (of conversion for `--to`, of checks for `--target`)."""
    folded = word.lower().replace("_", "-")
    if option == "--target":
        from onnxlint.lint.targets import names

        return folded in names()
    from onnxlint.backends import targets
    from onnxlint.conversion.session import ALL

    known = (name for _, target in targets() for name in (target.name, *target.aliases))
    return folded == ALL or folded in (name.replace("_", "-") for name in known)


def _expected(command: Any, word: str, ctx: Any) -> str:
    options = [name for one in command.get_params(ctx) for name in one.opts]
    if "--to" in options:
        from onnxlint.backends import targets

        near = nearest(word, [target.name for _, target in targets()])
        if near is not None:
            return f"; did you mean the target {near!r}?"
    return _see(ctx)


# Groups of commands


class _Group(TyperGroup):
    """Commands of a table, imported when they run."""

    table: Mapping[str, Command]
    prefix = ""

    def _names(self) -> dict[str, Command]:
        """The names after the prefix, commands of deeper groups whole."""
        return {
            name.removeprefix(self.prefix): entry for name, entry in self.table.items() if name.startswith(self.prefix)
        }

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys(name.split()[0] for name in self._names()))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with name and help, for lists and completion: nothing is imported."""
        entry = self._names().get(cmd_name)
        return TyperCommand(cmd_name, help=entry.about if entry else None, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] == "help":
            args = [*args[1:], "--help"]
        name, rest = COMMAND_SYNONYMS.get(args[0], args[0]) if not self.prefix else args[0], args[1:]
        if name == "--help":
            _print_requested_help(self, ctx, args)
        names = self._names()
        if name in names:
            return name, load(name, names[name]), rest
        if any(one.startswith(f"{name} ") for one in names):
            return name, self._group(name), rest
        if ctx.resilient_parsing:
            return None, None, rest
        raise _no_such_command(self, name, rest)

    def _group(self, name: str) -> Any:
        class Deeper(_Group):
            table = self.table
            prefix = f"{self.prefix}{name} "

        about = f"Work with {next(entry.group for key, entry in self._names().items() if key.startswith(name))}."
        return Deeper(
            name=name,
            help=about,
            no_args_is_help=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": list(_HELP)},
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            if args and args[0] in _HELP:
                _print_requested_help(self, ctx, args)
            if self.prefix and not args:
                console.write(self.get_help(ctx) + "\n")
                raise typer.Exit(ERROR)
        try:
            rest: list[str] = super().parse_args(ctx, list(args))
        except _USAGE_ERROR as error:
            if getattr(error, "option_name", ""):
                raise _no_such_command(self, args[0], args[1:]) from None
            raise
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, description, and the commands by group."""
        _write_usage(formatter, f"{ctx.command_path} COMMAND ...")
        formatter.write(f"\n{self.help}\n")
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self._names().items():
            groups.setdefault(entry.group, []).append((name, entry.about))
        width = max(len(name) for name in self._names())
        for title, rows in groups.items():
            _write_group(formatter, title, "", rows, width)
        options = [record for one in self.get_params(ctx) if (record := _record(one, ctx)) is not None]
        _write_group(formatter, "options", "", options, width)
        formatter.write(f"\n'{ctx.command_path} COMMAND --help' shows the options of a command.\n")


def _no_such_command(group: _Group, name: str, rest: Sequence[str]) -> UsageError:
    names = [*group.list_commands(None), *(() if group.prefix else ("--help", "--version"))]
    if not group.prefix:
        if name in COMMAND_HINTS:
            return UsageError(f"no such command: {name}; {COMMAND_HINTS[name]}")
        if any(map(_is_path, [name, *rest] if name.startswith("-") else [name])):
            return UsageError(f"{name} is not a command; did you mean 'onnxlint check {' '.join([name, *rest])}'?")
    what = "no such option" if name.startswith("-") else "no such command"
    return UsageError(f"{what}: {name}{did_you_mean(name, names, choices(names))}")


def _is_path(word: str) -> bool:
    return word == "-" or os.path.exists(word) or os.path.splitext(word)[1].lower().startswith(".onnx")


# Help


def _print_requested_help(command: Any, ctx: Any, words: Sequence[str]) -> None:
    """Print the help and stop where it is asked for, whatever else is wrong with the command line."""
    before = words[: list(words).index("--")] if "--" in words else words
    if any(word in _HELP for word in before):
        console.write(command.get_help(ctx) + "\n")
        raise typer.Exit


def _write_usage(formatter: Any, usage: str) -> None:
    formatter.write(f"usage: {usage}\n")


def _write_group(formatter: Any, title: str, about: str, records: Sequence[tuple[str, str]], widest: int) -> None:
    width = min(widest, _NAMES)
    formatter.write(f"\n{title}:\n")
    formatter.indent()
    if about:
        formatter.write_text(about)
    formatter.write_dl([(name.ljust(width), about) for name, about in records], col_max=_NAMES)
    formatter.dedent()


# Errors


def _see(ctx: Any) -> str:
    return f"; see '{_PROGRAM if ctx is None else ctx.command_path} --help'"


def explained(error: Any) -> UsageError:
    """click's error in one line, with the nearest option or the command whose help says more."""
    ctx = error.ctx
    see = _see(ctx)
    option = getattr(error, "option_name", None)
    if hasattr(error, "possibilities"):
        if option in OPTION_HINTS:
            return UsageError(f"no such option: {option}; {OPTION_HINTS[option]}")
        known = [name for one in ctx.command.get_params(ctx) for name in (*one.opts, *one.secondary_opts)]
        # Any letter is as close to another one as the next.
        hint = see if len(str(option)) < 4 else did_you_mean(str(option), known) or see
        if option in ("-o", "--output") and "--out-dir" in known:
            hint = "; this command writes several files: use --out-dir DIR"
        return UsageError(f"no such option: {option}{hint}")
    if option:
        return UsageError(f"{option}: {str(error.message).rstrip('.').removeprefix(f'Option {option!r} ')}{see}")
    parameter = getattr(error, "param", None)
    if parameter is None:
        return UsageError(f"{str(error.message).rstrip('.')}{see}")
    name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
    if type(error).__name__ == "MissingParameter":
        return UsageError(f"missing {'option' if name.startswith('-') else 'argument'}: {name}{see}")
    message = str(error.message).rstrip(".")
    return UsageError(f"{name}: {message}{'' if message.endswith('?') else see}")
