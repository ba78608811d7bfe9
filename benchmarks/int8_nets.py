"""int8 of several nets by all methods: `python benchmarks/int8_nets.py NETS.toml`, a Markdown table.

NETS.toml has a table for each net, with paths relative to it; `images` calibrate, `photos` judge, and must be others:

    [nudenet]
    model = "320n.onnx"
    images = "photos/design"
    photos = "photos/held-back"
    recipe = { mean = [0, 0, 0], norm = [0.00392157, 0.00392157, 0.00392157], pixel = "RGB", shape = [320, 320, 3] }

Each output's SNR, over all photos together, is against the ONNX model in onnxruntime; the table has the mean over the
outputs, the worst output, bytes and CPU seconds. `--nncf PYTHON` names an interpreter that has nncf, onnx and onnxruntime:
its default quantization of the ONNX model is another row. `--save FILE.json` keeps what was measured, as in convert.py.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.convert import cpu_seconds
from benchmarks.exact import outputs_of
from benchmarks.nncf_onnx import by_nncf
from benchmarks.results import Results
from onnxlint.accuracy.metrics import Ratio, mean_db
from onnxlint.api import convert
from onnxlint.backends import backend_for
from onnxlint.backends.ort.session import start
from onnxlint.images.recipe import Recipe, find_images, make_recipe, tensors

Floats = npt.NDArray[np.float32]

METHODS = {
    "onnx-int8-static": ("auto", "learned", "percentile", "minmax", "mse", "entropy"),
    "ncnn-int8": ("auto", "kl", "aciq"),
    "openvino-int8": ("auto", "percentile", "minmax", "nncf"),
}
"""Target → methods."""

NNCF = "NNCF"


@dataclass(frozen=True)
class Net:
    """A net, what it is calibrated with, and what it is judged on."""

    name: str
    model: str
    images: str
    photos: str
    recipe: Recipe


def read_nets(path: str) -> list[Net]:
    """The nets of a file."""
    home = Path(path).parent
    with open(path, "rb") as file:
        tables = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").load(file)
    return [
        Net(
            name,
            str(home / table["model"]),
            str(home / table["images"]),
            str(home / table["photos"]),
            make_recipe(**{key: _words(value) for key, value in table["recipe"].items()}),
        )
        for name, table in tables.items()
    ]


def _words(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def ratios(truth: list[list[npt.NDArray[Any]]], found: list[list[npt.NDArray[Any]]]) -> list[float]:
    """SNR of each output in dB."""
    meters = [Ratio() for _ in truth[0]]
    for one, other in zip(truth, found, strict=True):
        for meter, a, b in zip(meters, one, other, strict=True):
            meter.add(np.asarray(a), np.asarray(b).reshape(np.shape(a)))
    return [meter.snr_db for meter in meters]


class Measured:
    """A net with what its models are compared with."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self._judged: list[Floats] = []
        self._truth: list[list[npt.NDArray[Any]]] = []
        self._names: list[str] = []

    def row(self, target: str, method: str, nncf: str | None, folder: str) -> dict[str, Any]:
        """Make a model and measure it: mean and worst output in dB, bytes, CPU seconds; or {"failure": why}."""
        net = self.net
        if not self._truth:
            self._judged = [x for _, x in tensors(find_images(net.photos), net.recipe)]
            self._names = [one.name for one in start(net.model).get_outputs()]
            self._truth = outputs_of(net.model, self._judged, self._names)
        began = cpu_seconds()
        try:
            if target == NNCF:
                calibration = [x for _, x in tensors(find_images(net.images), net.recipe)]
                path = by_nncf(str(nncf), net.model, calibration, folder)
            else:
                done = convert(net.model, [target], images=net.images, recipe=net.recipe, method=method, out_dir=folder)
                if done.failures:
                    raise RuntimeError(done.failures[0].message[:100])
                path = done.artifacts[0].files[0]
            seconds = cpu_seconds() - began
            snr = ratios(self._truth, outputs_of(path, self._judged, self._names))
        except Exception as error:  # a row says what went wrong, and the others are measured
            return {"failure": str(error)}
        size = sum(
            os.path.getsize(file) for file in backend_for(path).files(path) if not file.endswith((".param", ".xml"))
        )
        return {"mean": mean_db(snr), "worst": min(snr), "bytes": size, "seconds": seconds}


def shown(name: str, row: Mapping[str, Any]) -> str:
    """A line of the table."""
    net, target, method = name.split("/")
    if "failure" in row:
        return f"| {net} | {target} {method} | {row['failure']} | | | |"
    figures = f"{row['mean']:.1f} | {row['worst']:.1f} | {row['bytes']:,} | {row['seconds']:.1f}"
    return f"| {net} | {target} {method} | {figures} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", help="NETS.toml")
    parser.add_argument("--only", help="nets, separated by commas")
    parser.add_argument("--targets", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--methods", help="separated by commas")
    parser.add_argument("--nncf", metavar="PYTHON", help="an interpreter that has nncf")
    parser.add_argument("--save", metavar="FILE", help="rows that were measured, and where to go on")
    args = parser.parse_args()
    wanted = {
        target: tuple(one for one in methods if not args.methods or one in args.methods.split(","))
        for target, methods in METHODS.items()
        if target in args.targets.split(",")
    }
    print(
        "| net | method | mean dB | worst output dB | bytes | CPU s |\n| --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    results = Results(args.save)
    kinds = [(target, method) for target, methods in wanted.items() for method in methods]
    kinds += [(NNCF, "default")] if args.nncf else []
    for net in read_nets(args.nets):
        if args.only and net.name not in args.only.split(","):
            continue
        measured = Measured(net)
        with tempfile.TemporaryDirectory() as folder:
            for target, method in kinds:
                name = f"{net.name}/{target}/{method}"
                row = results.get(name, measured.row, target, method, args.nncf, folder)
                print(shown(name, row), flush=True)


if __name__ == "__main__":
    main()
