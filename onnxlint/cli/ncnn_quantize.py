"""`onnxlint ncnn quantize`: what ncnn2int8 does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import INT8, QuietOption, UsageError, argument, option, split
from onnxlint.text import printable

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options(QuietOption):
    """Arguments and options of the command."""

    files: Annotated[
        list[str], argument("FILE", "IN.param [IN.bin] OUT.param [OUT.bin] [IN.table], in the order of ncnn2int8")
    ]
    keep: Annotated[
        list[str] | None, option("--keep", metavar="LAYERS", help="layers that stay in fp16", panel=INT8)
    ] = None


def run(options: Options) -> int:
    """Quantize a net with a table and write it; returns the exit code."""
    from onnxlint.backends.ncnn.backend import kept_layers
    from onnxlint.backends.ncnn.format import load, save
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.table import diagnose, load_table
    from onnxlint.model.protect import refuse_inputs, refuse_model_output

    param, weights, out_param, out_weights, table_path = _places(options.files)
    for output in (out_param, out_weights):
        refuse_inputs(output, [param, weights, table_path])
        refuse_model_output(output)
    net, table = load(param, weights), load_table(table_path)
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
    return 0


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
