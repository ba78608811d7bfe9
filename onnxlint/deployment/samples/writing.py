"""Plans into source code: literals that hold whatever a name holds, and the jinja2 templates."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.errors import OnnxlintError

if TYPE_CHECKING:
    from jinja2 import Environment

    from onnxlint.deployment.samples.plan import Plan

THREADS = 2
"""Threads that samples use."""

LANGUAGES = {"python": ".py", "cpp": ".cpp"}
"""Folder of templates → ending of the sample."""

_LINE = 100
"""Columns of a line of names in a sample."""

_ABOUT = {
    "detection": "prints the detections",
    "classification": "prints the five most likely classes",
    "verification": "prints the similarity of each image to the first",
    "super-resolution": "writes the resulting picture",
    "none": "prints statistics of the outputs",
}
_NCNN_PIXELS = {"BGR": "PIXEL_RGB2BGR", "RGB": "PIXEL_RGB", "GRAY": "PIXEL_RGB2GRAY"}


def sample_name(target: str) -> str:
    """A sample's name without its ending. A script called ncnn.py would hide the module ncnn."""
    return f"run_{target.replace('-', '_')}"


def python_string(text: str) -> str:
    """A Python literal of a text, in ASCII."""
    literal = ascii(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def cpp_string(text: str) -> str:
    """A C++ literal of the text's UTF-8 bytes; octal escapes end after three digits, whatever follows."""
    body = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "backslashreplace")
    )
    return f'"{body}"'


def comment(text: str) -> str:
    """A name within a comment or a docstring, which nothing in it can end."""
    return re.sub(r"[^A-Za-z0-9 ._/=,+:()-]", "_", text)


def render(language: str, plan: Plan) -> str:
    """A sample in one of `LANGUAGES`.

    Raises:
        OnnxlintError: jinja2 is not installed.
    """
    values: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}
    about = f"Runs {comment(plan.files[0])} ({plan.target}) on images and {_ABOUT[plan.task]}."
    template = _environment(language).get_template(f"{language}/sample{LANGUAGES[language]}.jinja")
    return template.render(
        **values,
        about=about,
        name=sample_name(plan.target),
        threads=THREADS,
        ncnn_pixels=_NCNN_PIXELS[plan.pixel],
        activations=plan.activations,
        slices=plan.slices,
    )


def render_tensorrt(plan: Plan, shape: tuple[int, ...], is_free: bool) -> str:
    """The script that builds an engine with trtexec and compares it with polygraphy.

    Args:
        plan: Of the artifact, an ONNX file.
        shape: Of the input.
        is_free: Whether some of its sizes are free.

    Raises:
        OnnxlintError: jinja2 is not installed.
    """
    sizes = [str(size) for size in shape]
    return (
        _environment("shell")
        .get_template("shell/tensorrt.sh.jinja")
        .render(
            name=f"build_{plan.target.replace('-', '_')}",
            file=plan.files[0],
            engine=f"{os.path.splitext(plan.files[0])[0]}.plan",
            free=is_free,
            shapes=f"{plan.input}:{'x'.join(sizes)}",
            profile=f"{plan.input}:[{','.join(sizes)}]",
        )
    )


def require_jinja() -> None:
    """Raise if the samples cannot be written.

    Raises:
        OnnxlintError: jinja2 is not installed.
    """
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise OnnxlintError("the samples of deploy need jinja2: pip install 'onnxlint[deploy]'")


@cache
def _environment(language: str) -> Environment:
    """The templates of a language. C++ is full of `{{`, so variables are written `@{ name }@`."""
    require_jinja()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        variable_start_string="@{",
        variable_end_string="}@",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # source code: the filters below write literals
    )
    environment.filters |= {
        "literal": python_string if language == "python" else cpp_string,
        "float_literal": _python_float if language == "python" else _cpp_float,
        "number": _number,
        "comment": comment,
        "quoted": shlex.quote,
        "wrapped": _wrapped,
    }
    return environment


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _python_float(value: float) -> str:
    return repr(float(value))


def _cpp_float(value: float) -> str:
    """A C++ literal of the nearest float."""
    return f"{float(np.float32(value))!r}f"


def _wrapped(items: Iterable[str], start: str, end: str) -> str:
    """`NAMES = ["a", "b"]`, over several lines where it is long."""
    items = list(items)
    line = f"{start}{', '.join(items)}{end}"
    if len(line) <= _LINE:
        return line
    lines, current = [start], ""
    for item in items:
        if current and len(current) + len(item) > _LINE - 8:
            lines.append(f"    {current.rstrip()}")
            current = ""
        current += f"{item}, "
    return "\n".join([*lines, f"    {current.rstrip()}", end])
