"""`onnxlint ncnn table`: what ncnn2table does."""

from __future__ import annotations

import os
import re
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
    from onnxlint.backends import Progress
    from onnxlint.backends.ncnn.calibrate import Method
    from onnxlint.backends.ncnn.table import Table
    from onnxlint.images.recipe import Recipe

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
    from onnxlint.backends.ncnn.backend import checked_method
    from onnxlint.backends.ncnn.table import save_table
    from onnxlint.conversion.manifest import require_finished
    from onnxlint.lint.engines import check_engine
    from onnxlint.model.protect import refuse_report

    options, files = _with_own_words(options)
    chosen = recipe_of(options)
    param, weights, images, table = _places(files, options.images, chosen.images, options.output)
    require_finished(param)
    refuse_report(table, [param, weights, images])
    method = checked_method(options.method or (chosen.method if chosen.method in _METHODS else "kl"), _METHODS)
    check_engine(options.engine)
    job = (param, weights), images, chosen.recipe, cast("Method", method), options.threads or 2
    with console.steps(options.quiet) as progress:
        made, count, notes = _calibrated(options.engine, progress, job)
    save_table(made, table)
    if not options.quiet:
        console.write(f"{printable(table)}: {len(made.inputs)} layers, {method}, {count} images\n")
    console.notes(notes)
    return 0


def _calibrated(
    engine: str, progress: Progress, job: tuple[tuple[str, str], str, Recipe, Method, int]
) -> tuple[Table, int, tuple[str, ...]]:
    """Table, number of images and notes: from a process of its own, or with the statistics from a cluster."""
    from onnxlint.backends.ncnn.commands import calibrated
    from onnxlint.conversion.child import call_with_progress

    if engine == "local":
        net = job[0]
        size = sum(os.path.getsize(file) for file in net if os.path.isfile(file))
        return call_with_progress(net[0], size, progress, calibrated, *job)
    from onnxlint.lint.cluster import Cluster

    with console.own_stdout():  # Ray prints there what its workers died of
        return calibrated(progress, *job, cluster=Cluster(engine))


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
