"""The one error a user can cause, and its words for Python programs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from onnxlint.text import bounded
from onnxlint.text import printable as printable

_Function = TypeVar("_Function", bound=Callable[..., Any])

_COMMAND = re.compile(r"('onnxlint [^']*'|onnxlint (?:check|fix|convert|compare|deploy|export) .*)")
_FLAG = re.compile(r"--([a-z][a-z0-9-]*)")
_PART = r"--(?:preset|shape|mean|norm|pixel|resize)"
_RECIPE_FLAG = re.compile(r"--(preset|shape|mean|norm|pixel|resize)(?: (?=[A-Za-z0-9\[])([^\s;:]*[^\s;:,]))?")
_RECIPE_FLAGS = re.compile(rf"{_PART} [A-Za-z0-9\[][^\s;:]*(?: {_PART} [A-Za-z0-9\[][^\s;:]*[^\s;:,])+")
_TYPED = re.compile(r"type 'onnxlint .*? --preset (\w+)'")
_RENAMED = {
    "arg": "arguments",
    "axis": "concat_axis",
    "heads": "concat_heads",
    "input-shape": "shapes",
    "ncnn-tools": "tools",
    "no-latency": "time",
    "no-verify": "verify=False",
    "target": "targets",
}
"""Options of the command line whose argument has another name."""


class OnnxlintError(Exception):
    """Bad input or an impossible request.

    The message is one line that names the file (or option), the problem and the way out. The CLI prints it and
    exits with code 2; nothing has been written when it is raised. What it repeats of files and options is bounded.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(bounded(message))


class OutOfMemory(OnnxlintError):  # noqa: N818 - what happened
    """A model takes more memory than it may: other inputs of that size would, too."""


def names_arguments(function: _Function) -> _Function:
    """Let the errors of a function name its arguments (`images`) where they name options (`--images`)."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OnnxlintError as error:
            error.args = (in_python(str(error), function.__name__ != "export"),)
            raise

    return cast("_Function", wrapped)


def in_python(message: str, has_recipe: bool = True) -> str:
    """A message with arguments in place of options; commands that it quotes stay as they are.

    Args:
        message: The command line's words.
        has_recipe: Whether `--shape` is a part of a recipe.
    """
    parts = _COMMAND.split(_TYPED.sub(r"give recipe='\1'", message) if has_recipe else message)
    parts[::2] = [_FLAG.sub(_argument, _recipes(part) if has_recipe else part) for part in parts[::2]]
    return "".join(parts)


def _recipes(text: str) -> str:
    """A text with recipes as Python has them; options side by side are parts of one."""
    return _RECIPE_FLAG.sub(_recipe_part, _RECIPE_FLAGS.sub(_recipe_parts, text))


def _recipe_parts(match: re.Match[str]) -> str:
    return f"recipe={{{', '.join(f'{name!r}: {value!r}' for name, value in _RECIPE_FLAG.findall(match[0]))}}}"


def _recipe_part(match: re.Match[str]) -> str:
    return f"recipe[{match[1]!r}]" if match[2] is None else f"recipe={{{match[1]!r}: {match[2]!r}}}"


def _argument(match: re.Match[str]) -> str:
    return _RENAMED.get(match[1], match[1].replace("-", "_"))
