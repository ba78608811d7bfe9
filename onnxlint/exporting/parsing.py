"""The words of an export: shapes, free sizes, arguments of a factory. Nothing here needs torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import Wanted
from onnxlint.text import choices, counted, did_you_mean, listed, printable

DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")

LARGEST = 2**31 - 1
"""Largest size of an axis."""

MOST_AXES = 16

LONGEST_LITERAL = 10_000
"""Characters of an argument."""

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}
_AXES = {"batch": 0, "n": 0, "channels": 1, "c": 1, "height": 2, "h": 2, "width": 3, "w": 3}
"""Words for axes of images."""

_SIZE = re.compile(r"[0-9]{1,10}")
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def parse_inputs(shapes: Sequence[str], dynamic: Sequence[str], values: str | None = None) -> tuple[Wanted, ...]:
    """The inputs that `--shape`, `--dynamic` and `--inputs` describe.

    Args:
        shapes: `1,3,640,640`, `image=1,3,640,640`, `ids=1,128:int64`.
        dynamic: `image=N,3,H,W`; `N,3,H,W` or `batch,height` where there is one input.
        values: An .npz file with example inputs by name, whose sizes stand where no shape is given.

    Raises:
        OnnxlintError: One is malformed, they contradict each other, or the file cannot be read.
    """
    inputs = [_parse_shape(text) for text in shapes] or _read_inputs(values)
    named = [one.name for one in inputs]
    twice = next((name for name in named if name and named.count(name) > 1), None)
    if twice is not None:
        raise OnnxlintError(f"--shape: input {printable(twice)!r} is given twice")
    for text in dynamic:
        name, sizes = _split(text)
        if not inputs:
            raise OnnxlintError(
                f"--dynamic {_shown(text)}: give an example's size too, such as --shape {_example(text)}"
            )
        index = _find(text, name, inputs)
        inputs[index] = _with_free(text, name, sizes, inputs[index])
    return tuple(inputs)


def _read_inputs(path: str | None) -> list[Wanted]:
    """The inputs that an .npz file has."""
    if path is None:
        return []
    from onnxlint.model.arrays import read_arrays

    found = [Wanted(name, array.shape, str(array.dtype)) for name, array in read_arrays(path).items()]
    if not found:
        raise OnnxlintError(f"--inputs {printable(path)}: holds no arrays")
    return found


def _parse_shape(text: str) -> Wanted:
    name, sizes = _split(text)
    sizes, colon, dtype = sizes.partition(":")
    dtype = dtype.strip() if colon else "float32"
    if dtype not in DTYPES:
        hint = did_you_mean(dtype, DTYPES, choices(DTYPES))
        raise OnnxlintError(f"--shape {_shown(text)}: no element type is called {printable(dtype)!r}{hint}")
    words = [word.strip() for word in sizes.replace("x", ",").split(",")] if sizes.strip() else []
    numbers = [int(word) if _SIZE.fullmatch(word) else -1 for word in words]
    if len(words) > MOST_AXES or not all(0 < number <= LARGEST for number in numbers):
        raise OnnxlintError(
            f"--shape {_shown(text)}: write sizes, such as 1,3,640,640, image=1,3,640,640 or ids=1,128:int64"
        )
    return Wanted(name, tuple(numbers), dtype)


def _split(text: str) -> tuple[str, str]:
    name, _, sizes = text.rpartition("=")
    return name.strip(), sizes


def _find(text: str, name: str, inputs: Sequence[Wanted]) -> int:
    """Position of the input that an entry of `--dynamic` is about."""
    names = [one.name for one in inputs]
    if name in names:
        return names.index(name)
    if len(inputs) == 1 and not (name and names[0]):
        return 0
    if not name:
        raise OnnxlintError(
            f"--dynamic {_shown(text)}: name the input, such as {printable(names[0] or 'image')}=N,3,H,W"
        )
    hint = did_you_mean(name, filter(None, names), f"the inputs are {listed(map(printable, filter(None, names)), 8)}")
    raise OnnxlintError(f"--dynamic: no --shape names the input {printable(name)!r}{hint}")


def _with_free(text: str, name: str, sizes: str, one: Wanted) -> Wanted:
    words = [word.strip() for word in sizes.split(",")]
    shown = f"--dynamic {_shown(text)}"
    free: dict[int, str] = {}
    if all(word.lower() in _AXES and len(word) > 1 for word in words) and len(one.sizes) == 4:
        free = {_AXES[word.lower()]: word for word in words}
    else:
        if len(words) != len(one.sizes):
            raise OnnxlintError(
                f"{shown}: has {counted(len(words), 'size')}, and the shape has {counted(len(one.sizes), 'axis', 'axes')}"
            )
        for axis, (word, size) in enumerate(zip(words, one.sizes, strict=True)):
            if _SIZE.fullmatch(word):
                if int(word) != size:
                    raise OnnxlintError(f"{shown}: axis {axis} is {int(word)}, and {size} in --shape; give one of them")
            elif _SYMBOL.fullmatch(word):
                free[axis] = word
            elif word != "?":
                raise OnnxlintError(f"{shown}: a size is a number, a name such as H, or ? for what --shape says")
    # An example of 1 is taken for a constant by torch.export.
    raised = tuple(axis for axis, size in enumerate(one.sizes) if axis in free and size == 1)
    example = tuple(2 if axis in raised else size for axis, size in enumerate(one.sizes))
    return Wanted(one.name or name, example, one.dtype, free, raised)


def _example(text: str) -> str:
    """A `--shape` for a `--dynamic` without one."""
    name, sizes = _split(text)
    known = {"n": "1", "batch": "1", "c": "3", "channels": "3"}
    words = [word.strip() for word in sizes.split(",")][:MOST_AXES]
    if all(word.lower() in _AXES and len(word) > 1 for word in words):
        return "1,3,640,640"
    numbers = [word if _SIZE.fullmatch(word) else known.get(word.lower(), "640") for word in words]
    return printable(f"{name}={','.join(numbers)}" if name else ",".join(numbers))


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """`["width=64", "phase=test"]` → `{"width": 64, "phase": "test"}`.

    Values are Python literals; `true`, `false` and `none` in any case; anything else is text.

    Raises:
        OnnxlintError: One is not of the form NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise OnnxlintError(f"--arg {_shown(text)}: write NAME=VALUE, such as width=64 or phase=test")
        if name in found:
            raise OnnxlintError(f"--arg: {name} is given twice")
        found[name] = _literal(name, value)
    return found


def _literal(name: str, text: str) -> Any:
    if len(text) > LONGEST_LITERAL:
        raise OnnxlintError(f"--arg {name}: the value is longer than {LONGEST_LITERAL:,} characters")
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        if re.match(r"[\[\]{}()'\"]", text):
            raise OnnxlintError(
                f"--arg {name}: {_shown(text)} is not a Python literal; quote it for the shell"
            ) from None
        return text


def is_plain(value: object) -> bool:
    """Whether a value is one that `--arg` can give, and that JSON keeps."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(one) for key, one in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _shown(text: str) -> str:
    text = printable(text)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
