"""The command line, made with typer: it parses, calls, prints and sets the exit code.

A command is a line in `COMMANDS` of `onnxlint.cli.commands` and a module, which is imported only when the command runs:

    "show": Command("onnxlint.cli.show", "Draw a part of a model.", LOOK),

The module has a frozen dataclass, whose fields are the command's arguments and options, and a function that does it:

    @dataclass(frozen=True, kw_only=True)
    class Options(ConfigOptions):
        model: Annotated[str, argument("MODEL", "model to draw")]
        depth: Annotated[int, option("--depth", metavar="N", parser=number(1), panel=DRAWING, help="(default: 2)")] = 2

    def run(options: Options) -> int:
        \"\"\"Draw a part of a model; returns the exit code.\"\"\"

`onnxlint.cli.options` has `argument`, `option`, types of values, and options that several commands share; titles of groups
of options are in its `PANELS`. Wrong input is an `OnnxlintError` or a `UsageError` of one line; `onnxlint.cli.console`
writes.
Words that people type for something else (`--output-format`, `lint`) are in `onnxlint.cli.words`.
"""
