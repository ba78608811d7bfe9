"""Programs of others: pnnx, and ncnn's own where a user names the folder that holds them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget, limit_other
from onnxlint.text import printable

LIMIT = 180.0
"""Seconds after which a program is taken for stuck, beside `LIMIT_PER_BYTE` for the model that it works on."""

LIMIT_PER_BYTE = 2e-5

PROGRAM = 1 << 30
"""Bytes of address space that a program may have beside what its model takes: its code, its threads."""

ROOM = 1 << 20
"""Bytes; with less left, a disk counts as full."""

_COLOR = re.compile(r"\x1b?\[[0-9;]*m")


def pnnx_binary(tools: str | None = None) -> str | None:
    """The pnnx program: the one in `tools`, or that of the wheel; None if there is none."""
    names = ("pnnx", "pnnx.exe")
    folders = [tools] if tools else []
    spec = importlib.util.find_spec("pnnx")
    if not tools and spec is not None and spec.origin is not None:
        folders.append(os.path.dirname(spec.origin))
    for folder in folders:
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return path
    return None


def real_tool(folder: str | None, name: str) -> str | None:
    """One of ncnn's programs in the folder of `--ncnn-tools`; None if it is not there."""
    if folder is None:
        return None
    if not os.path.isdir(folder):
        raise OnnxlintError(
            f"--ncnn-tools {printable(folder)}: not a folder; give the folder that holds ncnn's programs"
        )
    return next((path for end in ("", ".exe") if os.path.isfile(path := os.path.join(folder, name + end))), None)


def run_tool(command: Sequence[str], folder: str, size: int, inputs: int | None = None) -> tuple[int, str]:
    """Exit code (negative: killed by that signal) and everything that was printed.

    Args:
        command: The program and its arguments.
        folder: Where it runs.
        size: Bytes of the model that it works on.
        inputs: Bytes of the inputs that it runs the model on, which limit its memory; None: unknown.

    Raises:
        OnnxlintError: It cannot be started, or does not end.
    """
    limit = LIMIT + LIMIT_PER_BYTE * size
    try:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                if inputs is not None:
                    limit_other(process.pid, PROGRAM + Budget.of(size).run_on(inputs)[1])
                said, _ = process.communicate(timeout=limit)
            finally:
                process.kill()
    except subprocess.TimeoutExpired:
        raise OnnxlintError(f"{printable(command[0])}: did not end within {limit:.0f} s") from None
    except OSError as error:
        raise OnnxlintError(f"{printable(command[0])}: cannot be started: {error.strerror or error}") from None
    return process.returncode, _COLOR.sub("", said.decode("utf-8", "replace"))


def use_tool(command: Sequence[str], files: Sequence[str]) -> None:
    """Run a tool of ncnn that is to write `files`.

    Raises:
        OnnxlintError: It fails, or does not write them.
    """
    given = [name for name in command[1:] if name not in files and os.path.isfile(name)]
    size = sum(map(os.path.getsize, given))
    code, log = run_tool([os.path.abspath(command[0]), *command[1:]], os.getcwd(), size)
    if code != 0 or not all(os.path.exists(file) and os.path.getsize(file) for file in files):
        said = [line for line in log.splitlines() if line.strip()]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last = f": {printable(said[-1])[:200]}" if said else ""
        raise OnnxlintError(f"{printable(command[0])}: wrote no output ({how}){last}")


def require_room(folder: str) -> None:
    """Raises OnnxlintError if a tool may have failed because the disk is full: none of them says so."""
    if shutil.disk_usage(folder).free < ROOM:
        where = printable(os.path.dirname(folder))
        raise OnnxlintError(f"{where}: the disk is full; free some of it, or set TMPDIR to a folder on another one")
