"""`onnxlint demo`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from onnxlint.cli import app, console
from onnxlint.cli.commands import ERROR
from onnxlint.cli.options import argument
from onnxlint.errors import OnnxlintError
from onnxlint.text import listed, printable

NOTES = "Exit code: 0 every step succeeded, 2 one failed. It needs no network, and no packages but onnxlint's own."

_FINDINGS = 1
_NEEDED = {"onnxruntime": "onnxruntime", "PIL": "pillow", "sympy": "sympy", "ncnn": "ncnn", "pnnx": "pnnx"}
"""Module → package of what converts."""

_TARGETS = "onnx-fp16,onnx-int8-dynamic,onnx-int8-static,ncnn,ncnn-fp16,ncnn-int8"
_TASKS = ("pycocotools",)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments and options of the command."""

    folder: Annotated[
        str, argument("DIR", "folder for the model, pictures and report, new or empty (default: demo)")
    ] = "demo"


def run(options: Options) -> int:
    """Write a small detector and pictures, then check, fix, convert and compare; returns the exit code."""
    folder = options.folder.rstrip("/") or options.folder
    _prepare(folder)
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    for words in commands(folder, everything=not missing):
        console.write(f"$ onnxlint {printable(shlex.join(words))}\n")
        code = app.run(words)
        if code != (_FINDINGS if words[0] == "check" else 0):
            return code if code > ERROR else ERROR
        console.write("\n")
    if missing:
        what = f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        console.write(
            f"{what}. With all extras, the demo also converts to fp16 and int8 for onnxruntime and ncnn, and compares "
            f"their accuracy:\n  pip install 'onnxlint[all]' && onnxlint demo {printable(shlex.quote(folder))}\n"
        )
    else:
        console.write(f"The report is {printable(folder)}/report.html. Your model: onnxlint check MODEL.onnx\n")
    return 0


def commands(folder: str, *, everything: bool) -> list[list[str]]:
    """The commands that the demo runs, in words.

    Args:
        folder: Where `_prepare` wrote.
        everything: Whether all packages are installed that convert and compare.
    """
    model, fixed = f"{folder}/pitfalls.onnx", f"{folder}/fixed"
    fix = "--heads bbox,cls,ldm --drop-output-activations --multiple-of 32 --exit-zero".split()
    if _lacks(["onnxruntime"]):
        fix.append("--no-verify")
    steps = [["check", model], ["fix", model, "-o", f"{fixed}.onnx", *fix], ["heads", f"{fixed}.onnx"]]
    if not everything:
        return steps
    recipe = ["--images", f"{folder}/images", "--preset", "retinaface", "--shape", "192,128,3"]
    endings = ".onnx _fp16.onnx _quan_dynamic.onnx _quan_static.onnx .param _fp16.param _int8.param".split()
    task = [] if _lacks(_TASKS) else ["--task", "detection", "--labels", f"{folder}/labels.txt"]
    # Latency depends on what else runs, and takes as long as the rest.
    report = ["--no-latency", "--format", "html", "-o", f"{folder}/report.html"]
    made = [f"{fixed}{ending}" for ending in endings]
    steps.append(["convert", f"{fixed}.onnx", "--to", _TARGETS, *recipe])
    steps.append(["compare", model, *made, *recipe, *task, *report])
    return steps


def _lacks(modules: Sequence[str]) -> bool:
    return any(find_spec(module) is None for module in modules)


def _prepare(folder: str) -> None:
    """Write the model, and pictures where Pillow is installed.

    Raises:
        OnnxlintError: The folder holds other things, or cannot be written.
    """
    from onnxlint.demo.model import detector, write_pictures
    from onnxlint.model.output import write_atomically

    model, path = detector(), os.path.join(folder, "pitfalls.onnx")
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder) and not _holds(path, model):
            raise OnnxlintError(f"{printable(folder)}: is not empty; name a new folder: onnxlint demo DIR")
    except OSError as error:
        raise OnnxlintError(f"{printable(folder)}: cannot be written: {error.strerror}; name another folder") from None
    write_atomically(path, model)
    if find_spec("PIL") is not None:
        write_pictures(folder)


def _holds(path: str, content: bytes) -> bool:
    """Whether a file has this content: the folder of an earlier demo."""
    if not os.path.isfile(path) or os.path.getsize(path) != len(content):
        return False
    with open(path, "rb") as file:
        return file.read() == content
