"""What is to be exported: `package.module:factory`, `path/to/file.py:factory`, or a file that holds a network.

Mistakes are found without importing anything: torch takes seconds.
"""

from __future__ import annotations

import ast
import io
import os
import pickletools
import re
import sys
import zipfile
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Literal

from onnxlint.errors import OnnxlintError
from onnxlint.model.reading import no_such_file
from onnxlint.text import did_you_mean, listed, printable

Kind = Literal["module", "file", "saved"]

SAVED = (".pt", ".pth", ".pt2", ".pth.tar", ".bin", ".ckpt", ".jit", ".ts", ".torchscript")
"""Endings of files that torch writes."""

_EXAMPLE = "write package.module:factory, path/to/file.py:factory, or the path of a .pt or .pt2 file"
_LARGEST_SOURCE = 4 << 20


@dataclass(frozen=True)
class Spec:
    """A network's origin.

    Attributes:
        text: As the user wrote it.
        kind: `module`: a name that is imported; `file`: a Python file; `saved`: a file that torch wrote.
        place: Name or path of that.
        factory: The attribute, dotted; empty for saved files.
    """

    text: str
    kind: Kind
    place: str
    factory: str = ""


def parse_spec(text: str) -> Spec:
    """Read a spec, and look whether it can exist.

    Raises:
        OnnxlintError: It cannot.
    """
    shown = printable(text)
    if os.path.isdir(text):
        raise OnnxlintError(f"{shown}: is a folder; {_EXAMPLE}")
    if os.path.isfile(text):
        if text.endswith(".py"):
            raise OnnxlintError(f"{shown}: name the function or class in it: {_some_names(text)}")
        if text.lower().endswith(".onnx"):
            raise OnnxlintError(f"{shown}: is an ONNX model already; 'onnxlint check {shown}' checks it")
        return Spec(text, "saved", text)
    place, colon, factory = text.rpartition(":")
    if not colon or not place or not factory:
        if text.lower().endswith((*SAVED, ".py", ".onnx")) or os.sep in text:
            raise OnnxlintError(f"{shown}: {no_such_file(text)}")
        raise OnnxlintError(f"{shown}: names no function or class; {_EXAMPLE}")
    if not all(part.isidentifier() for part in factory.split(".")):
        raise OnnxlintError(f"{shown}: {printable(factory)!r} is no name of a function or class; {_EXAMPLE}")
    if place.endswith(".py") or os.sep in place:
        if not os.path.isfile(place):
            raise OnnxlintError(f"{printable(place)}: {no_such_file(place)}")
        _require_name(shown, place, factory)
        return Spec(text, "file", place, factory)
    if not all(part.isidentifier() for part in place.split(".")):
        raise OnnxlintError(f"{shown}: {printable(place)!r} is no name of a module; {_EXAMPLE}")
    path = find_module(place, [os.getcwd(), *sys.path])
    if path:
        _require_name(shown, path, factory)
    return Spec(text, "module", place, factory)


def find_module(name: str, folders: list[str]) -> str:
    """The source file of a module; empty if it has none. Nothing is imported.

    Raises:
        OnnxlintError: There is no such module.
    """
    if name in sys.builtin_module_names:
        return ""
    parts = name.split(".")
    search: list[str] | None = folders
    found = ""
    for i in range(len(parts)):
        part = ".".join(parts[: i + 1])
        spec = PathFinder.find_spec(part, search)
        if spec is None:
            where = "the working directory or the installed packages" if i == 0 else ".".join(parts[:i])
            raise OnnxlintError(
                f"no module {printable(part)!r} in {where}; run the command in the folder that 'python -c \"import "
                f"{parts[0]}\"' works in, or give the path of the file"
            )
        found = spec.origin or ""
        search = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else []
    return found if found.endswith(".py") else ""


def _tree(path: str) -> ast.Module | None:
    """The syntax of a Python file; None if it is too large to be read here.

    Raises:
        OnnxlintError: It is not Python.
    """
    try:
        if os.path.getsize(path) > _LARGEST_SOURCE:
            return None
        with open(path, "rb") as file:
            return ast.parse(file.read(), path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise OnnxlintError(
            f"{printable(path)}{f':{line}' if line else ''}: is not Python: {printable(str(getattr(error, 'msg', error)))}"
        ) from None
    except OSError as error:
        raise OnnxlintError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None


def _names(path: str) -> tuple[list[str], bool]:
    """Names that a file defines at its top, classes and functions first, and whether there may be others.

    Raises:
        OnnxlintError: It is not Python.
    """
    tree = _tree(path)
    if tree is None:
        return [], True
    made: list[str] = []
    others: list[str] = []
    is_open = False
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.append(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            others.append(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
            others += names
            is_open = is_open or "*" in names
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("globals", "setattr", "exec")
        ):
            is_open = True
    top = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return [name for name in made if name in top] + others, is_open or "__getattr__" in top


def _some_names(path: str) -> str:
    """How functions and classes at the top of a file are named: networks first, the last one before its parts."""
    tree = _tree(path)
    made = [] if tree is None else [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    public = [one for one in reversed(made) if not one.name.startswith("_")]
    public.sort(key=lambda one: not _is_network(one))
    names = [f"{path}:{one.name}" for one in public] or [f"{path}:FACTORY"]
    return listed(map(printable, names), 3, "or")


def _is_network(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether a definition is a class with a `forward`."""
    return isinstance(node, ast.ClassDef) and _forward(node) is not None


def _forward(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "forward"), None)


def inputs_of(spec: Spec) -> tuple[str, ...]:
    """Parameters without a default of the `forward` that the class of a spec defines; empty if the source does not tell."""
    path = spec.place if spec.kind == "file" else find_module(spec.place, [os.getcwd(), *sys.path])
    tree = _tree(path) if path and spec.kind != "saved" else None
    body = tree.body if tree is not None else []
    found = next((one for one in body if isinstance(one, ast.ClassDef) and one.name == spec.factory), None)
    forward = _forward(found) if found is not None else None
    if forward is None:
        return ()
    names = [one.arg for one in (*forward.args.posonlyargs, *forward.args.args)]
    return tuple(names[1 : len(names) - len(forward.args.defaults)])


def _require_name(shown: str, path: str, factory: str) -> None:
    names, is_open = _names(path)
    first = factory.split(".")[0]
    if first not in names and not is_open:
        public = [name for name in dict.fromkeys(names) if not name.startswith("_")]
        hint = did_you_mean(first, public, f"it has {listed(map(printable, public), 6)}" if public else "it is empty")
        raise OnnxlintError(f"{shown}: {printable(path)} defines no {printable(first)!r}{hint}")


_PLAIN = re.compile(
    r"collections OrderedDict|torch (Size|device|\w*Storage|b?float\d*|u?int\d+|bool)|torch\.storage \w+"
    r"|torch\._utils _rebuild_\w+|torch\.nn\.parameter \w*Parameter|numpy\S* (scalar|dtype|ndarray|_reconstruct)"
    r"|_codecs encode"
)
"""Names in a pickle of tensors and plain data."""

_MOST_OPCODES = 200_000
_LARGEST_PICKLE = 64 << 20


def holds_weights_alone(path: str) -> bool:
    """Whether a file of torch.save holds tensors and plain data, so that there is no network in it.

    The names in the pickle are read; nothing is loaded. False where that is not certain.
    """
    try:
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                data = io.BytesIO(file.read(_LARGEST_PICKLE))
            pickles = 4  # magic number, protocol, machine, and the object
        else:
            with zipfile.ZipFile(path) as archive:
                name = next(one for one in archive.namelist() if one.partition("/")[2] == "data.pkl")
                with archive.open(name) as file:
                    data = io.BytesIO(file.read(_LARGEST_PICKLE))
            pickles = 1
        return all(_is_plain_pickle(data) for _ in range(pickles))
    except Exception:  # noqa: BLE001 - whatever a damaged file makes the readers raise: torch says what is wrong with it
        return False


def _is_plain_pickle(data: io.BytesIO) -> bool:
    for i, (opcode, value, _) in enumerate(pickletools.genops(data)):
        if i > _MOST_OPCODES or opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            return False
        if opcode.name in ("GLOBAL", "INST") and not _PLAIN.fullmatch(str(value)):
            return False
    return True


SavedKind = Literal["program", "torchscript", "pickle"]


def saved_kind(path: str) -> SavedKind:
    """What a file of torch's holds: an exported program (.pt2), a TorchScript program, or a pickle.

    Raises:
        OnnxlintError: It cannot be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            return "pickle"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise OnnxlintError(f"{printable(path)}: cannot be read: {printable(str(error))}") from None
    tails = {name.partition("/")[2] for name in names}
    if "archive_format" in tails or {"archive_format", "serialized_exported_program.json"} & set(names):
        return "program"
    if "constants.pkl" in tails and any(tail.startswith("code/") for tail in tails):
        return "torchscript"
    return "pickle"
