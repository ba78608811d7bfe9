"""Where models are checked, by the name that `--engine` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from onnxlint.errors import OnnxlintError
from onnxlint.lint.workers import Engine, InProcess, Processes
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.lint.cluster import Cluster


T = TypeVar("T")


class Spread(Protocol):
    """Computes elsewhere, such as on a cluster."""

    def each(self, call: Callable[..., T], jobs: Iterable[tuple[Any, ...]], *common: Any) -> Iterator[T | None]:
        """Results of a call for each job, in the order of the jobs; None where it ended its process (again and again).

        Args:
            call: A function of a module; called with what is in common, and the job.
            jobs: Arguments; taken as they are needed.
            common: Arguments that are sent once.

        Raises:
            Exception: What a call raised.
        """


def new_token() -> str:
    """A name that no other run has."""
    return os.urandom(8).hex()


def kept(token: str, make: Callable[[], T]) -> T:
    """What the jobs of one run share and take long to load: made once in a process, in place of what an earlier run kept.

    Args:
        token: Names the run.
        make: Loads it.
    """
    if token not in _kept:
        _kept.clear()
        _kept[token] = make()
    found: T = _kept[token]
    return found


def let_go(token: str) -> None:
    """Keep no longer what a run's jobs shared."""
    _kept.pop(token, None)


_kept: dict[str, Any] = {}


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
        cluster = make_cluster(name)
        assert cluster is not None
        return cluster
    return InProcess() if workers <= 1 or in_process else Processes(workers)


def make_cluster(name: str) -> Cluster | None:
    """The cluster of an engine's name; None for `local`.

    Raises:
        OnnxlintError: There is no such engine, or its cluster cannot be reached.
    """
    check_engine(name)
    if name == "local":
        return None
    from onnxlint.lint.cluster import Cluster

    return Cluster(name)


def check_engine(name: str) -> None:
    """Raise OnnxlintError unless a name is that of an engine whose package is installed."""
    from importlib.util import find_spec  # for --engine alone

    if name not in ("local", "ray") and not name.startswith("ray://"):
        raise OnnxlintError(f"--engine: no such engine: {printable(name)!r}; it is local, ray or ray://HOST:PORT")
    if name != "local" and find_spec("ray") is None:
        raise OnnxlintError("--engine ray takes the package ray: pip install 'onnxlint[ray]'")
