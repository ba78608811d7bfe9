"""Loads and runs a model in a process of its own, to learn whether onnxruntime survives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxlint.backends import Array, bytes_of
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget, die_with_parent, set_budget
from onnxlint.text import printable

SECONDS = 600
"""After which a trial is ended."""

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from onnxlint.backends.ort.trial import main; main()"


def crashes(path: str, feeds: Mapping[str, Array], threads: int = 2) -> str:
    """How onnxruntime dies of loading a model or of running it: `SIGSEGV`, `exit code 134`, `no end within …`; empty where
    it does not. An error that it reports is not a crash.

    Args:
        path: The model.
        feeds: One set of its inputs.
        threads: For onnxruntime.

    Raises:
        OnnxlintError: It takes more time or memory than a model of its size may, which no single node is to blame for.
    """
    from signal import Signals

    with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
        arrays = os.path.join(folder, "feeds.npz")
        np.savez(arrays, *feeds.values(), names=np.array(list(feeds)))
        command = [
            sys.executable,
            "-I",
            "-c",
            _START,
            json.dumps(sys.path),
            path,
            arrays,
            str(threads),
            str(os.getpid()),
        ]
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"no end within {SECONDS} s"
    if code == 0:
        return ""
    overrun = Budget.of(bytes_of(path)).overrun(code)
    if overrun:
        raise OnnxlintError(f"{printable(path)}: {overrun}")
    names = {one.value: one.name for one in Signals}
    return names.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


def culprits(candidates: Sequence[int], survives: Callable[[set[int]], bool], most: int = 8) -> set[int] | None:
    """The fewest of some candidates, found by bisection, without which all is well.

    Args:
        candidates: In order.
        survives: Whether all is well without some of them.
        most: How many to look for.

    Returns:
        None if more than `most` are to blame, or even without all of them it is not well.
    """
    found: set[int] = set()
    if not survives(set(candidates)):
        return None
    while len(found) < most:
        # The shortest beginning without which, the culprits found so far left out as well, all is well.
        low, high = 0, len(candidates)
        while low < high:
            middle = (low + high) // 2
            if survives(found | set(candidates[:middle])):
                high = middle
            else:
                low = middle + 1
        if low == 0:
            return found
        found.add(candidates[low - 1])
        if survives(found):
            return found
    return None


def main() -> None:
    """`PATH FEEDS.npz THREADS`: exit code 0 if the model runs, or onnxruntime reports an error."""
    from onnxlint.backends.ort.session import OrtSession

    path, arrays, threads, parent = sys.argv[2:]
    die_with_parent(int(parent))
    set_budget(bytes_of(path))
    try:
        with np.load(arrays) as loaded:
            feeds = {str(name): loaded[f"arr_{i}"] for i, name in enumerate(loaded["names"])}
        OrtSession(path, int(threads)).run(feeds)
    except OnnxlintError:  # whoever asked loads it again, and learns why
        os._exit(0)
    os._exit(0)
