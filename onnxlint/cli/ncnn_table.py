"""`onnxlint ncnn table`: what ncnn2table does."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, cast

from onnxlint.cli import console
from onnxlint.cli.options import UsageError, config_options, number, recipe_of
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends.ncnn.calibrate import Method

_OWN = re.compile(r"(mean|norm|shape|pixel|thread|method|type)=(.*)", re.DOTALL)
"""ncnn2table's own way to write options, which people paste."""


_METHODS = ("kl", "aciq", "eq")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="NET.param [NET.bin] IMAGES [NET.table]: images are a list of paths, a folder, a pattern or an .npz; then "
        "ncnn2table's own mean=[…] norm=[…] shape=[…] pixel=… thread=… method=…, if you like",
    )
    parser.add_argument("--mean", metavar="A,B,C", help="taken from pixels 0 to 255, in --pixel order")
    parser.add_argument("--norm", metavar="A,B,C", help="what they are then multiplied by")
    parser.add_argument("--shape", metavar="W,H,C", help="size of the input: 640,640,3")
    parser.add_argument("--pixel", metavar="ORDER", help="BGR (default), RGB or GRAY")
    parser.add_argument("--resize", metavar="HOW", help="stretch (default, as ncnn2table), letterbox or center-crop")
    parser.add_argument("--preset", metavar="NAME", help="a whole recipe: facenet, imagenet, retinaface or ssd")
    parser.add_argument("--method", metavar="NAME", help="kl (default), aciq or eq")
    parser.add_argument("--threads", metavar="N", type=number(1), help="(default: 2)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no summary and no progress")
    parser.set_defaults(images=None)
    config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.backends.ncnn.backend import Inputs, checked_method
    from onnxlint.backends.ncnn.calibrate import make_table
    from onnxlint.backends.ncnn.format import load
    from onnxlint.backends.ncnn.table import save_table
    from onnxlint.images.recipe import find_images

    files = _take_own_words(options)
    param, weights, images, table = _places(files)
    chosen = recipe_of(options)
    method = checked_method(options.method or (chosen.method if chosen.method in _METHODS else "kl"), _METHODS)
    threads = options.threads or 2
    net = load(param, weights)
    inputs = Inputs(net, find_images(images), chosen.recipe, threads)
    with console.steps(options.quiet) as progress:
        made = make_table(net, inputs, cast("Method", method), threads=threads, progress=progress)
    save_table(made, table)
    if not options.quiet:
        console.write(f"{printable(table)}: {len(made.inputs)} layers, {method}, {len(inputs.images)} images\n")
    console.notes(inputs.notes())
    return 0


def _take_own_words(options: argparse.Namespace) -> list[str]:
    """Turn `mean=[…]` and its like into options; what is left are files.

    Raises:
        UsageError: One is given twice, or not understood.
    """
    files = []
    for word in options.files:
        match = _OWN.fullmatch(word)
        if match is None:
            files.append(word)
            continue
        key, value = match.groups()
        if key == "type":
            if value != "0":
                raise UsageError(f"{word}: onnxlint makes tables for int8, which is type=0")
            continue
        name = "threads" if key == "thread" else key
        if getattr(options, name) is not None:
            raise UsageError(f"{key} is given twice")
        if name == "threads":
            try:
                options.threads = number(1)(value)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"{word}: {error}") from None
        else:
            setattr(options, name, value)
    return files


def _places(files: list[str]) -> tuple[str, str, str, str]:
    """`.param`, `.bin`, images, table."""
    how = "write NET.param [NET.bin] IMAGES [NET.table]"
    if not files or not files[0].endswith(".param"):
        raise UsageError(f"{files[0] if files else 'no file'} is no .param file; {how}")
    param, *rest = files
    stem = os.path.splitext(param)[0]
    weights = rest.pop(0) if rest and rest[0].endswith(".bin") else f"{stem}.bin"
    if not rest:
        raise UsageError(f"which images? {how}")
    if len(rest) > 2:
        raise UsageError(f"unexpected argument: {rest[2]}; {how}")
    return param, weights, rest[0], rest[1] if len(rest) == 2 else f"{stem}.table"
