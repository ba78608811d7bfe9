"""How words of a command line are read before typer sees them: values that may be separate words, options whose value may be
left out, and what people type who know other tools.

Words are read by their spelling alone, never by the files that exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from onnxlint.cli.errors import UsageError

OPTION_SYNONYMS = {"--output-format": "--format", "--type": "--to", "--targets": "--target"}
"""Options of other tools that work here."""

COMMAND_SYNONYMS = {"lint": "check", "explain": "rule"}
"""Commands of other tools that work here."""

COMMAND_HINTS = {
    "info": "'onnxlint check MODEL' reports problems, 'onnxlint view MODEL' shows the graph",
    "optimize": "'onnxlint fix MODEL -o FILE' simplifies a model, with --simplify by onnxsim too",
    "quantise": "use 'onnxlint convert MODEL --to onnx-int8-static' or --to ncnn-int8",
    "quantize": "use 'onnxlint convert MODEL --to onnx-int8-static' or --to ncnn-int8",
    "simplify": "'onnxlint fix MODEL -o FILE' simplifies a model, with --simplify by onnxsim too",
    "version": "use 'onnxlint --version'",
}
"""Commands of other tools → the equivalent here."""

OPTION_HINTS = {
    "--explain": "'onnxlint rule CODE' explains a rule",
    "--fix": "'onnxlint fix MODEL -o FILE' fixes models",
    "--list-rules": "'onnxlint rules' lists the rules",
    "--quantize": "'onnxlint convert MODEL --to onnx-int8-static' quantizes models",
    "--simplify": "'onnxlint fix MODEL -o FILE --simplify' simplifies models",
}
"""Options of other tools → the equivalent here."""

_NUMBER = re.compile(r"[-+]?\d[\d.eE+/-]*,?")
_RULE = re.compile(r"(?:[A-Z]{3}\d{0,3}|ALL),?")
_CONDITION = re.compile(r"[a-z][\w -]*[<>]=?[^<>=]+")
_MODEL = re.compile(r"(?:-|.*\.(?:onnx|onnxtxt|onnxtext|ort|pb))", re.IGNORECASE)

_NUMBERS = ("--mean", "--norm", "--shape")

GATHERED = {
    "--extend-select": _RULE,
    "--fail-if": _CONDITION,
    "--ignore": _RULE,
    "--select": _RULE,
    **dict.fromkeys(_NUMBERS, _NUMBER),
}
"""Options whose values may be separate words (`--mean 104 117 123`), and how such a word is spelt."""


_EMPTY = "an argument is empty: is a variable of the command line unset?"


class MissingValue(UsageError):  # noqa: N818 - said of an option
    """An option stands without its value; `option` is its name."""

    def __init__(self, option: str, metavar: str) -> None:
        super().__init__(f"{option}: needs a value ({metavar})")
        self.option = option


def normalized(words: Sequence[str], options: Mapping[str, str], is_target: Callable[[str, str], bool]) -> list[str]:
    """The words of a command with synonyms replaced and every value as part of its option (`--select=SHP`).

    Args:
        words: The words after the command's name.
        options: Options of the command → placeholder of the value in the help; empty for flags.
        is_target: Whether a word after `--to` or `--target` (the first argument) names a target.

    Raises:
        MissingValue: An option has no value, or an empty one.
        UsageError: An argument is empty.
    """
    out: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            if "" in rest:
                raise UsageError(_EMPTY)
            return [*out, word, *rest]
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name not in options:
            name = OPTION_SYNONYMS.get(name, name)
        if not word:
            raise UsageError(_EMPTY)
        if name not in options:
            out.append(word)
        elif name == "--concat-heads" and (not equals or "," in value):
            out.append(_concat_heads(value, rest))
        elif name == "--write-baseline" and not equals:
            out.append(f"{name}={rest.pop(0) if rest and rest[0].endswith('.json') else ''}")
        elif options[name] and (not value if equals else not rest or rest[0].partition("=")[0] in {*options, ""}):
            raise MissingValue(name, options[name])
        elif equals or not options[name]:
            out.append(f"{name}{equals}{value}")
        elif name.startswith("--"):
            values = [rest.pop(0)]
            while rest and _continues(name, rest[0], is_target):
                values.append(rest.pop(0))
            out += [f"{name}={','.join(values)}"] if name in _NUMBERS else [f"{name}={one}" for one in values]
        else:
            out += [name, rest.pop(0)]
    return out


def _continues(name: str, word: str, is_target: Callable[[str, str], bool]) -> bool:
    """Whether a word is one more value of an option."""
    if name in ("--to", "--target"):
        parts = [part for part in word.split(",") if part]
        return bool(parts) and not _MODEL.fullmatch(word) and all(is_target(name, part) for part in parts)
    return name in GATHERED and GATHERED[name].fullmatch(word) is not None


def _concat_heads(value: str, rest: list[str]) -> str:
    """`--concat-heads bbox,class MODEL`, as it was written before there was `--heads`: names have a comma between them."""
    if not value and rest and "," in rest[0] and not rest[0].startswith("-") and not _MODEL.fullmatch(rest[0]):
        value = rest.pop(0)
    return f"--heads={value}" if value else "--concat-heads"
