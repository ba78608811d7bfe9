"""Where models are checked, by the name that `--engine` takes."""

from __future__ import annotations

from onnxlint.errors import OnnxlintError
from onnxlint.lint.workers import Engine, InProcess, Processes
from onnxlint.text import printable


def make_engine(name: str, workers: int, in_process: bool = False) -> Engine:
    """The engine of a name.

    Args:
        name: `local`, `ray`, or `ray://HOST:PORT`.
        workers: Processes of this machine.
        in_process: Whether a model comes from standard input, which other processes do not have.

    Raises:
        OnnxlintError: There is no such engine.
    """
    check_engine(name)
    if name != "local":
        if in_process:
            raise OnnxlintError("--engine ray cannot check standard input; name a file")
        from onnxlint.lint.cluster import Cluster

        return Cluster(name)
    return InProcess() if workers <= 1 or in_process else Processes(workers)


def check_engine(name: str) -> None:
    """Raise OnnxlintError unless a name is that of an engine."""
    if name not in ("local", "ray") and not name.startswith("ray://"):
        raise OnnxlintError(f"--engine: no such engine: {printable(name)!r}; it is local, ray or ray://HOST:PORT")
