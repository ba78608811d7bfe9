"""`onnxlint ncnn quantize`: what ncnn2int8 does."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from onnxlint.cli import console
from onnxlint.cli.options import (
    INT8,
    QuietOption,
    RecipeOptions,
    ThreadsOption,
    UsageError,
    argument,
    option,
    recipe_of,
    split,
)
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.images.recipe import Recipe

_SHOWN = 10
_LOW = 20.0
"""dB below which another method is proposed."""


@dataclass(frozen=True, kw_only=True)
class Options(QuietOption, RecipeOptions, ThreadsOption):
    """Arguments and options of the command."""

    files: Annotated[
        list[str], argument("FILE", "IN.param [IN.bin] OUT.param [OUT.bin] [IN.table], in the order of ncnn2int8")
    ]
    keep: Annotated[
        list[str] | None, option("--keep", metavar="LAYERS", help="layers that stay in fp16", panel=INT8)
    ] = None


def run(options: Options) -> int:
    """Quantize a net with a table and write it, and measure its loss on images; returns the exit code."""
    from onnxlint.backends.ncnn.backend import kept_layers
    from onnxlint.backends.ncnn.format import load, save
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.table import diagnose, load_table
    from onnxlint.conversion.manifest import require_finished
    from onnxlint.images.recipe import find_images
    from onnxlint.model.protect import refuse_inputs, refuse_model_output

    param, weights, out_param, out_weights, table_path = _places(options.files)
    require_finished(param)
    for output in (out_param, out_weights):
        refuse_inputs(output, [param, weights, table_path])
        refuse_model_output(output)
    chosen = recipe_of(options)
    net, table = load(param, weights), load_table(table_path)
    if chosen.images is not None:
        find_images(chosen.images)  # what is wrong with them, before anything is written
    made = quantize(net, table, keep=kept_layers(net, split(options.keep)))
    save(made.net, out_param, out_weights)
    console.notes(printable(f"{table_path}: {issue}") for issue in diagnose(table, net))
    if options.quiet:
        return 0
    console.write(f"{printable(out_param)}: {made.int8_layers} of {len(made.decisions)} layers with weights are int8\n")
    rest = [one for one in made.decisions if one.state != "int8"]
    for one in rest[:_SHOWN]:
        console.write(f"  {printable(one.layer)} ({printable(one.type)}): {one.state}, {printable(one.why)}\n")
    if len(rest) > _SHOWN:
        console.write(f"  and {len(rest) - _SHOWN} more\n")
    if chosen.images is None:
        line = f"onnxlint compare {param} {out_param} --images IMAGES --mean A,B,C --norm A,B,C"
        console.notes([f"the loss was not measured: give --images and the recipe here, or run '{printable(line)}'"])
    else:
        nets = (param, weights), (out_param, out_weights)
        _report_loss(*nets, chosen.images, chosen.recipe, options.threads)
    return 0


def _report_loss(net: tuple[str, str], made: tuple[str, str], images: str, recipe: Recipe, threads: int) -> None:
    """Run both nets on the images, in a process of their own, and print the SNR of the outputs."""
    from onnxlint.backends import silent
    from onnxlint.backends.ncnn.commands import measured
    from onnxlint.conversion.child import call_with_progress

    size = sum(os.path.getsize(file) for file in (*net, *made))
    ratio, count, notes = call_with_progress(net[0], size, silent, measured, net, made, images, recipe, threads)
    loss = f"{ratio:.1f} dB" if math.isfinite(ratio) else "none, they are NaN or infinite"
    console.write(f"mean SNR of the outputs on {counted(count, 'image')}: {loss}\n")
    console.notes(notes)
    if not ratio >= _LOW:  # NaN, too
        console.notes(["'onnxlint convert MODEL.onnx --to ncnn-int8' (--method auto) usually loses less than a table"])


def _places(files: list[str]) -> tuple[str, str, str, str, str]:
    """In and out `.param` and `.bin`, and the table; what is left out lies beside its `.param`."""
    params = [file for file in files if file.endswith(".param")]
    weights = [file for file in files if file.endswith(".bin")]
    tables = [file for file in files if file not in params and file not in weights]
    if len(params) != 2 or len(weights) not in (0, 2) or len(tables) > 1:
        raise UsageError("wrong files: write IN.param [IN.bin] OUT.param [OUT.bin] [IN.table]")
    stems = [os.path.splitext(param)[0] for param in params]
    places = weights or [f"{stem}.bin" for stem in stems]
    if os.path.realpath(params[0]) == os.path.realpath(params[1]):
        raise UsageError(f"{params[1]} is the float net itself; give another name to write to")
    return params[0], places[0], params[1], places[1], tables[0] if tables else f"{stems[0]}.table"
