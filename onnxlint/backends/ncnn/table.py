"""The calibration table that ncnn2table writes and ncnn2int8 reads, and checks for mistakes of manual edits.

One row a line: `LAYER_param_0 s s …` holds a layer's weight scales (one for each output channel, or group of a
depthwise layer), `LAYER s` the scale of its input. A scale is quantized units for each float unit: q = round(x · s).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Layer, Network
from onnxlint.errors import OnnxlintError
from onnxlint.model.output import write_atomically
from onnxlint.model.reading import read_regular
from onnxlint.text import printable

Floats = npt.NDArray[np.float32]

QUANTIZABLE = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""The layer types that ncnn2int8 quantizes with a table."""

SUFFIX = "_param_0"


AUTO = "# onnxlint-auto: these scales belong to the rescaled weights of the int8 net beside this file, not to the float net"
"""First line of a table that `--method auto` writes; it is none to be used with the float net."""


@dataclass(frozen=True)
class TableIssue:
    """One trap in a table. `line` is 1-based, 0 when a row is missing; `fatal`: the table cannot be used as it is."""

    line: int
    layer: str
    message: str
    fatal: bool = False

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return printable(f"{where}{self.message}")


@dataclass(frozen=True)
class Table:
    """Scales by layer name: `weights[name]` has shape (outputs,) or (groups,), `inputs[name]` shape (1,).

    `lines` gives the line of every row key (`name` or `name_param_0`), `issues` what parsing found.
    """

    weights: Mapping[str, Floats]
    inputs: Mapping[str, Floats]
    lines: Mapping[str, int] = field(default_factory=dict)
    issues: tuple[TableIssue, ...] = ()
    path: str = "<memory>"


def parse_table(text: str, path: str = "<memory>") -> Table:
    """Read a table. Never raises: rows that cannot be read become fatal `issues`."""
    weights: dict[str, Floats] = {}
    inputs: dict[str, Floats] = {}
    lines: dict[str, int] = {}
    issues: list[TableIssue] = []
    rows = text.splitlines()
    while rows and not rows[-1].strip():
        rows.pop()
    for number, row in enumerate(rows, 1):
        words = row.split()
        if not words:
            left = sum(1 for r in rows[number:] if r.strip())
            issues.append(
                TableIssue(
                    number, "", f"blank line: ncnn2int8 stops here and ignores {left} rows below; delete the line"
                )
            )
            continue
        key = words[0]
        layer = key.removesuffix(SUFFIX)
        if row.startswith(AUTO.split(":")[0]):
            issues.append(
                TableIssue(
                    number,
                    "",
                    "this table belongs to a net with weights rescaled by '--method auto', not to the float net;"
                    " use the int8 net made with it, or make a table with `onnxlint ncnn table`",
                    True,
                )
            )
            continue
        if key.startswith("#"):
            layer = layer.lstrip("#")
            issues.append(TableIssue(number, layer, f"row of '{layer}' is commented out; the layer stays in fp16"))
            continue
        if key in lines:
            issues.append(
                TableIssue(number, layer, f"'{key}' was given before, on line {lines[key]}; delete one of them", True)
            )
            continue
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and said below
                values = np.array([float(w) for w in words[1:]], np.float32)
        except ValueError:
            issues.append(TableIssue(number, layer, f"'{key}' holds something that is not a number", True))
            continue
        bad = values[~((values > 0) & np.isfinite(values))]
        if not len(values):
            issues.append(TableIssue(number, layer, f"'{key}' has no scales", True))
        elif len(bad):
            issues.append(
                TableIssue(number, layer, f"'{key}' holds the scale {bad[0]:g}; scales are above 0 and finite", True)
            )
        lines[key] = number
        (weights if key.endswith(SUFFIX) else inputs)[layer] = values
    return Table(weights, inputs, lines, tuple(issues), path)


LARGEST = 64 << 20
"""Bytes that a table may have: a number takes ten, and a large net has some ten thousand."""


def load_table(path: str | os.PathLike[str]) -> Table:
    """Read a table file. Raises OnnxlintError when it cannot be read or is not a table at all."""
    try:
        text = read_regular(os.fspath(path), LARGEST).decode()
    except OSError as e:
        raise OnnxlintError(printable(f"{path}: cannot be read ({e.strerror}); check the path")) from None
    except UnicodeDecodeError:
        raise OnnxlintError(printable(f"{path}: not a text file, so not a calibration table; make it again")) from None
    table = parse_table(text, str(path))
    if text.strip() and not table.lines and not any("commented" in i.message for i in table.issues):
        raise OnnxlintError(
            printable(f"{path}: holds no row of a calibration table; make it with `onnxlint ncnn table`")
        )
    return table


def dump_table(table: Table) -> str:
    """The text of the table, byte for byte as ncnn2table lays it out."""
    rows = [(f"{name}{SUFFIX}", values) for name, values in table.weights.items()]
    rows += list(table.inputs.items())
    return "".join(f"{key} {''.join(f'{float(v):f} ' for v in values)}\n" for key, values in rows)


def save_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write the table atomically. Raises OnnxlintError."""
    write_atomically(os.fspath(path), dump_table(table))


def weight_groups(layer: Layer) -> int:
    """How many weight scales a quantizable layer has: its groups when depthwise, else its outputs."""
    if layer.type == "ConvolutionDepthWise":
        return layer.integer(7, 1)
    return layer.integer(0)


def require_names(net: Network) -> None:
    """Raise OnnxlintError if a layer that can be quantized shares its name: a table knows layers by their names alone."""
    count = Counter(layer.name for layer in net.layers)
    shared = next((layer.name for layer in net.layers if count[layer.name] > 1 and quantizable(layer)), None)
    if shared is not None:
        raise OnnxlintError(
            printable(
                f"{net.path}: {count[shared]} layers are called '{shared}', so a table cannot tell them apart; rename them"
            )
        )


def quantizable(layer: Layer) -> bool:
    """Whether ncnn2int8 would quantize this layer, given a table."""
    return layer.type in QUANTIZABLE and not layer.integer(8) and layer.blob("weight") is not None


def source_blobs(net: Network) -> dict[str, str]:
    """Blob name → the blob it is a copy of, looking through Split; itself if none."""
    out: dict[str, str] = {}
    for layer in net.layers:
        for top in layer.tops:
            out[top] = out.get(layer.bottoms[0], layer.bottoms[0]) if layer.type == "Split" else top
    return out


def diagnose(table: Table, net: Network) -> list[TableIssue]:
    """Everything in the table that would surprise its user when it is applied to `net`, by line."""
    issues = list(table.issues)
    layers = {layer.name: layer for layer in net.layers}
    wanted = [layer for layer in net.layers if quantizable(layer)]
    commented = {i.layer for i in issues if "commented" in i.message}
    named = list(dict.fromkeys([*table.weights, *table.inputs]))
    unknown = [name for name in named if name not in layers]
    if unknown and 2 * len(unknown) > len(named):
        issues.append(
            TableIssue(
                _line(table, unknown[0]),
                unknown[0],
                f"{len(unknown)} of {len(named)} layers of the table are not in {net.path}"
                f" ('{unknown[0]}' is the first): it was made for another model; make it again",
                True,
            )
        )
    else:
        issues += [
            TableIssue(_line(table, n), n, f"'{n}' is not a layer of {net.path}; it will be ignored") for n in unknown
        ]
    for layer in wanted:
        name = layer.name
        weights, inputs = table.weights.get(name), table.inputs.get(name)
        if weights is None and inputs is None:
            if name not in commented:
                issues.append(TableIssue(0, name, f"'{name}' has no rows; the layer stays in fp16"))
            continue
        if weights is None or inputs is None:
            kept, lost = (name, name + SUFFIX) if weights is None else (name + SUFFIX, name)
            effect = (
                f"ncnn2int8 would stop quantizing every {layer.type} here"
                if weights is None
                else "the layer stays in fp16"
            )
            issues.append(
                TableIssue(table.lines.get(kept, 0), name, f"'{kept}' is left but '{lost}' is missing: {effect}")
            )
        if weights is not None and len(weights) != weight_groups(layer):
            issues.append(
                TableIssue(
                    table.lines.get(name + SUFFIX, 0),
                    name,
                    f"'{name}{SUFFIX}' has {len(weights)} scales and the layer needs {weight_groups(layer)}:"
                    " the table was made for another model; make it again",
                    True,
                )
            )
        if inputs is not None and len(inputs) != 1:
            issues.append(
                TableIssue(table.lines.get(name, 0), name, f"'{name}' has {len(inputs)} scales and needs one", True)
            )
    issues += _unequal(table, net, wanted)
    return sorted(issues, key=lambda i: i.line)


def _line(table: Table, name: str) -> int:
    return table.lines.get(name + SUFFIX, table.lines.get(name, 0))


def _unequal(table: Table, net: Network, wanted: list[Layer]) -> list[TableIssue]:
    source = source_blobs(net)
    first: dict[str, str] = {}
    out = []
    for layer in wanted:
        mine = table.inputs.get(layer.name)
        if mine is None or len(mine) != 1 or not layer.bottoms:
            continue
        other = first.setdefault(source[layer.bottoms[0]], layer.name)
        if not math.isclose(float(mine[0]), float(table.inputs[other][0]), rel_tol=1e-6):
            out.append(
                TableIssue(
                    table.lines.get(layer.name, 0),
                    layer.name,
                    f"'{layer.name}' and '{other}' (line {table.lines.get(other, 0)}) read the same blob with"
                    f" the scales {float(mine[0]):g} and {float(table.inputs[other][0]):g}; ncnn writes it"
                    " once, with the first: make them equal",
                )
            )
    return out
