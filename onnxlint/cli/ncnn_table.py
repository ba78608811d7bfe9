"""`onnxlint ncnn table`: what ncnn2table does."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from onnxlint.cli import console
from onnxlint.cli.options import (
    INT8,
    MAX_THREADS,
    OUTPUT,
    EngineName,
    QuietOption,
    RecipeOptions,
    UsageError,
    argument,
    number,
    option,
    recipe_of,
)
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends.ncnn.calibrate import Method

_OWN = re.compile(r"(mean|norm|shape|pixel|thread|method|type)=(.*)", re.DOTALL)
"""ncnn2table's own way to write options, which people paste."""

_METHODS = ("kl", "aciq", "eq")
_FORM = "write NET.param [NET.bin] IMAGES [NET.table]"


@dataclass(frozen=True, kw_only=True)
class Options(QuietOption, RecipeOptions):
    """Arguments and options of the command."""

    files: Annotated[
        list[str],
        argument(
            "FILE",
            "NET.param [NET.bin] IMAGES [NET.table], then, if you like, ncnn2table's own mean=[…] norm=[…] shape=[…] "
            "pixel=… thread=… method=…; IMAGES is a list of paths, a folder, a pattern or an .npz",
        ),
    ]
    output: Annotated[
        str | None, option("-o", "--output", metavar="FILE", help="the table, instead of NET.table", panel=OUTPUT)
    ] = None
    method: Annotated[str | None, option("--method", metavar="NAME", help="kl (default), aciq or eq", panel=INT8)] = (
        None
    )
    threads: Annotated[
        int | None,
        option(
            "--threads", metavar="N", parser=number(1, MAX_THREADS), help="number of threads (default: 2)", panel=INT8
        ),
    ] = None
    engine: EngineName = "local"


def run(options: Options) -> int:
    """Calibrate a net and write its table; returns the exit code."""
    from onnxlint.backends.ncnn.backend import Inputs, checked_method
    from onnxlint.backends.ncnn.calibrate import make_table
    from onnxlint.backends.ncnn.format import load
    from onnxlint.backends.ncnn.table import save_table
    from onnxlint.images.recipe import find_images
    from onnxlint.lint.engines import check_engine
    from onnxlint.model.protect import refuse_report

    options, files = _with_own_words(options)
    chosen = recipe_of(options)
    param, weights, images, table = _places(files, options.images, chosen.images, options.output)
    refuse_report(table, [param, weights, images])
    method = checked_method(options.method or (chosen.method if chosen.method in _METHODS else "kl"), _METHODS)
    threads = options.threads or 2
    net = load(param, weights)
    inputs = Inputs(net, find_images(images), chosen.recipe, threads)
    with ExitStack() as stack:
        cluster = None
        check_engine(options.engine)
        if options.engine != "local":
            from onnxlint.lint.cluster import Cluster

            stack.enter_context(console.own_stdout())  # Ray prints there what its workers died of
            cluster = Cluster(options.engine)
        progress = stack.enter_context(console.steps(options.quiet))
        made = make_table(net, inputs, cast("Method", method), threads=threads, progress=progress, spread=cluster)
    save_table(made, table)
    if not options.quiet:
        console.write(f"{printable(table)}: {len(made.inputs)} layers, {method}, {len(inputs.images)} images\n")
    console.notes(inputs.notes())
    return 0


def _with_own_words(options: Options) -> tuple[Options, list[str]]:
    """`mean=[…]` and its like as options; and the files that are left.

    Raises:
        UsageError: One is given twice, or not understood.
    """
    files: list[str] = []
    given: dict[str, Any] = {}
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
        if name in given or getattr(options, name) is not None:
            raise UsageError(f"{key} is given twice")
        try:
            given[name] = number(1, MAX_THREADS)(value) if name == "threads" else value
        except typer.BadParameter as error:
            raise UsageError(f"{word}: {error.message}") from None
    return replace(options, **given), files


def _places(
    files: list[str], images: str | None, configured: str | None, output: str | None
) -> tuple[str, str, str, str]:
    """`.param`, `.bin`, images, table.

    Args:
        files: The arguments.
        images, output: What the options of these names say.
        configured: Images that the configuration names.
    """
    if not files or not files[0].endswith(".param"):
        raise UsageError(f"{files[0] if files else 'no argument'} is not a .param file; {_FORM}")
    param, *rest = files
    stem = os.path.splitext(param)[0]
    weights = rest.pop(0) if rest and rest[0].endswith(".bin") else f"{stem}.bin"
    where = images if images is not None else rest.pop(0) if rest else configured
    if where is None:
        raise UsageError(f"missing argument: IMAGES; {_FORM}, or give --images")
    if len(rest) > 1:
        raise UsageError(f"unexpected argument: {rest[1]}; {_FORM}")
    if rest and images is not None and not rest[0].endswith(".table"):
        raise UsageError(f"the images are given twice: {rest[0]} and --images")
    if rest and output is not None:
        raise UsageError(f"the table is given twice: {rest[0]} and -o")
    return param, weights, where, output or (rest[0] if rest else f"{stem}.table")
