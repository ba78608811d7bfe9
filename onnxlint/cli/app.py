"""The command line: it parses, calls, prints and sets the exit code.

Exit codes: 0 nothing to complain about, 1 findings, 2 the work could not be done (a wrong command line included),
130 interrupted.

Made with argparse: a check of a small model may take 0.13 s of CPU beside importing onnx, and importing typer 0.29,
which brings pydantic, and building its commands takes 0.15 s.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from onnxlint.cli import console
from onnxlint.cli.options import UsageError
from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable
from onnxlint.version import __version__

ABOUT = "Find, explain and fix what will hurt an exported ONNX model in deployment."
INTERRUPTED = 130


class Command(NamedTuple):
    """One command.

    Attributes:
        about: What it does, in one line.
        module: The module of `onnxlint.cli` that has its `add_options` and `run`.
    """

    about: str
    module: str

    def load(self) -> Any:
        """Import it: only the command that is called costs start-up time."""
        return importlib.import_module(f"onnxlint.cli.{self.module}")


COMMANDS = {
    "check": Command("Report what will hurt models in deployment.", "check"),
    "fix": Command("Fix what can be proved or measured, and say which.", "fix"),
    "convert": Command("Make fp16, int8 and ncnn models of it.", "convert"),
    "ncnn table": Command("Make a calibration table, as ncnn2table does.", "ncnn_table"),
    "ncnn quantize": Command("Make an int8 net from a table, as ncnn2int8 does.", "ncnn_quantize"),
    "compare": Command("Say how far models are from a reference, where, and what would help.", "compare"),
    "deploy": Command("Check, fix, convert, quantize and compare, into one folder with samples.", "deploy"),
    "view": Command("Show a model in Netron, in the browser.", "view"),
    "heads": Command("Print what is where in a joined output.", "heads"),
    "rules": Command("List all rules.", "rules"),
    "rule": Command("Explain a rule, with examples.", "rule"),
    "test-rules": Command("Run the examples of rules: your own or anybody's.", "test_rules"),
    "config": Command("Show what is configured for a model.", "config"),
}


# Parsing


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help survives a reader that went away."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; '{self.prog} --help' lists what there is")

    def print_help(self, file: object = None) -> None:
        console.write(self.format_help())


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
        UsageError: They are wrong.
    """
    parser = _Parser(prog=f"onnxlint {name}", description=COMMANDS[name].about, allow_abbrev=False)
    COMMANDS[name].load().add_options(parser)
    options, unknown = parser.parse_known_intermixed_args(_with_values(words))
    if not unknown:
        return options
    first = unknown[0].split("=")[0]
    if not first.startswith("-"):
        parser.error(f"unexpected argument: {first}")
    known = [f"--{key.replace('_', '-')}" for key in vars(options)]
    raise UsageError(_unknown("no such option:", first, known, f"'{parser.prog} --help' lists what there is"))


def _unknown(what: str, word: str, known: Sequence[str], otherwise: str) -> str:
    return f"{what} {word}{did_you_mean(word, known, otherwise)}"


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
    if " ".join(words[:2]) in COMMANDS:  # `ncnn table`
        name, words = " ".join(words[:2]), words[1:]
    if name in COMMANDS:
        command = COMMANDS[name].load()
        return int(command.run(_parse(name, words[1:])))
    if any(map(_is_path, words if name.startswith("-") else [name])):
        raise UsageError(f"{name} is not a command; did you mean 'onnxlint check {' '.join(words)}'?")
    known = [*COMMANDS, "--help", "--version"]
    raise UsageError(_unknown("no such command:", name, known, choices(COMMANDS)))


def _is_path(word: str) -> bool:
    return word == "-" or os.path.exists(word) or os.path.splitext(word)[1].lower().startswith(".onnx")


def run(words: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    Args:
        words: Arguments after the program's name.
    """
    try:
        return _dispatch(words)
    except (OnnxlintError, UsageError) as error:
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
