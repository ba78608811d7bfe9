"""`onnxlint debug-info`."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from onnxlint.cli import console
from onnxlint.text import printable
from onnxlint.version import __version__

_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
"""Instruction sets that decide how int8 and fp16 models are computed, as Linux names them."""

_NOT_OURS = frozenset({"onnxlint"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command has no options."""


def run(options: Options) -> int:
    """Print the versions and the machine, for a bug report; returns the exit code.

    Nothing of a model, no path and no name of a user is printed.
    """
    rows = [
        ("onnxlint", __version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()}, {sys.platform})"),
        ("system", platform.platform()),
        ("processor", _processor()),
        *_packages(),
    ]
    width = max(len(name) for name, _ in rows)
    console.write("".join(f"{name.ljust(width)}  {printable(value)}\n" for name, value in rows))
    return 0


def _packages() -> list[tuple[str, str]]:
    """Version of each package that onnxlint or one of its extras needs; `-` for one that is absent."""
    return [(name, _version(name)) for name in _required()]


def _required() -> list[str]:
    """Names of the packages in onnxlint's own metadata, those of extras for developers left out."""
    try:
        lines = requires("onnxlint") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        return ["numpy", "onnx", "onnx-graphsurgeon", "onnxruntime"]
    users = (line for line in lines if not re.search(r"""extra == ['"](dev|test|docs|fuzz)['"]""", line))
    names = {re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0] for line in users}
    return sorted(names - _NOT_OURS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _processor() -> str:
    model, flags = _cpuinfo()
    known = [name for name in _INSTRUCTIONS if name in flags]
    described = f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return f"{described}, {' '.join(known)}" if known else described


def _cpuinfo() -> tuple[str, frozenset[str]]:
    """Name and instruction sets of the processor as Linux tells them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", frozenset()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return (model.group(1) if model else ""), frozenset(flags.group(1).split() if flags else ())
