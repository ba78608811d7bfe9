"""The packages `openvino` and `nncf`, without their telemetry; models read and compiled, errors in one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import budget, lacks_memory, loading
from onnxlint.text import printable

TELEMETRY = "openvino_telemetry"
"""The package that reports imports and conversions; openvino and nncf go on without it."""

HINT = "INFERENCE_PRECISION_HINT"
"""OpenVINO's property that allows less exact arithmetic than the model's."""

NO_INTEGERS = {"LP_TRANSFORMS_MODE": "NO", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""Properties with which its CPU plugin computes what is quantized in float, with values rounded as the model says: integers
that do not overflow come to the same."""

IR_START = b"<net"
"""What an IR has near its beginning."""

_HEAD = 4096

_PLACES = ("Exception from ", "Check '", "[ERROR]", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
"""How lines of an error begin that say where in OpenVINO's source it arose."""


def runtime() -> Any:
    """The `openvino` module; nothing is reported about its use.

    Raises:
        OnnxlintError: It is not installed.
    """
    return _imported("openvino", "openvino")


def nncf() -> Any:
    """The `nncf` module, silent; nothing is reported about its use.

    Raises:
        OnnxlintError: It is not installed.
    """
    module = _imported("nncf", "nncf")
    module.set_log_level(logging.ERROR)
    return module


def _imported(name: str, extra: str) -> Any:
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]  # importing it fails from now on
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OnnxlintError(
            f"{name}: cannot be imported ({printable(str(error))}); install it with `pip install 'onnxlint[{extra}]'`"
        ) from None


def first_line(error: BaseException) -> str:
    """An error of OpenVINO as one printable line, without the places in its source."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_PLACES)]
    return printable(" ".join(said or lines) or type(error).__name__)[:400]


def read_ir(path: str) -> Any:
    """An IR as an `openvino.Model`.

    Raises:
        OnnxlintError: It is not one, or cannot be read.
    """
    shown = printable(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if IR_START not in head:
        raise OnnxlintError(f"{shown}: is not an OpenVINO IR (it has no <net> element)")
    weights = os.path.splitext(path)[0] + ".bin"
    if not os.path.isfile(weights):
        raise OnnxlintError(f"{shown}: {printable(weights)} is missing; an IR is two files, .xml and .bin")
    core = runtime().Core()
    try:
        with loading():
            return core.read_model(path, weights)
    except Exception as error:  # the classes that OpenVINO raises share none
        raise OnnxlintError(f"{shown}: OpenVINO cannot read it: {_why(error)}") from error


def compiled(model: Any, name: str, threads: int, *, integers: bool = True) -> Any:
    """A model compiled for the CPU, with 32-bit arithmetic where it has floats.

    Args:
        model: An `openvino.Model`.
        name: Of it, for errors.
        threads: For OpenVINO.
        integers: Whether int8 layers may be computed in integers, whose sums overflow on some processors.

    Raises:
        OnnxlintError: OpenVINO cannot compile it.
    """
    settings = {HINT: "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, **({} if integers else NO_INTEGERS)}
    core = runtime().Core()
    try:
        with loading():
            return core.compile_model(model, "CPU", settings)
    except Exception as error:  # as above
        raise OnnxlintError(f"{printable(name)}: OpenVINO cannot compile it: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """Why a model cannot be loaded: the limit on memory, or the reason that OpenVINO gives."""
    most = budget()
    return most.memory_overrun() if most is not None and lacks_memory(error) else first_line(error)


def default_precision() -> str:
    """The arithmetic that OpenVINO chooses on this CPU without a hint: `f32`, `bf16` or `f16`."""
    return str(runtime().Core().get_property("CPU", HINT).get_type_name())
