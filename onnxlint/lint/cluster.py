"""Models over a Ray cluster: its scheduler, its retries. Nodes have onnxlint installed, and reach the models."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from onnxlint.errors import OnnxlintError
from onnxlint.lint.engine import Plan, check_file
from onnxlint.lint.finding import CheckResult
from onnxlint.lint.workers import Job, killed
from onnxlint.store.urls import is_remote
from onnxlint.telemetry import turn_off_telemetry
from onnxlint.text import printable

Answer = TypeVar("Answer")

BATCH = 16
"""Models of a task: starting one costs about a millisecond."""

TRIES = 3
"""How often Ray starts a task again whose worker or node has died."""

CONNECT_SECONDS = 10.0
"""How long a cluster's address may take to answer."""

_AHEAD = 4
"""Batches for each core of the cluster that are under way at once."""


class Cluster:
    """Checks models on a Ray cluster.

    Args:
        name: `ray`: the cluster of RAY_ADDRESS, or else one that is started on this machine; `ray://HOST:PORT`: the one
            with that address.

    Raises:
        OnnxlintError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, name: str) -> None:
        self._ray = connect(name)

    def check(self, jobs: Iterable[Job]) -> Iterator[CheckResult]:
        """See `Engine`."""
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=TRIES)(_check_batch)
        alone = ray.remote(num_cpus=1, max_retries=1)(_check_batch)
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: deque[CheckResult | tuple[list[tuple[str, Plan]], Any]] = deque()
        plans: dict[int, tuple[Plan, Any]] = {}
        batch: list[tuple[str, Plan]] = []
        here = os.getcwd()

        def shared(plan: Plan) -> Any:
            if id(plan) not in plans:
                plans[id(plan)] = plan, ray.put(plan)
            return plans[id(plan)][1]

        def started(task: Any, models: list[tuple[str, Plan]]) -> Any:
            return task.remote(here, [path for path, _ in models], shared(models[0][1]))

        def send() -> None:
            if batch:
                pending.append((list(batch), started(task, batch)))
                batch.clear()

        def answers() -> Iterator[CheckResult]:
            one = pending.popleft()
            if isinstance(one, CheckResult):
                yield one
                return
            models, reference = one
            try:
                yield from ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, OnnxlintError) else error from None
            except ray.exceptions.RayError:
                # One of them ends its process again and again: each has to stand for itself.
                singles = [(path, started(alone, [(path, plan)])) for path, plan in models]
                for path, single in singles:
                    try:
                        yield from ray.get(single)
                    except ray.exceptions.RayError:
                        yield killed(path)

        for job in jobs:
            if isinstance(job, CheckResult):
                send()
                pending.append(job)
            else:
                if batch and batch[0][1] is not job[1]:
                    send()
                batch.append(job)
                if len(batch) == BATCH:
                    send()
            while len(pending) >= ahead * BATCH or (pending and isinstance(pending[0], CheckResult)):
                yield from answers()
            while sum(not isinstance(one, CheckResult) for one in pending) > ahead:
                yield from answers()
        send()
        while pending:
            yield from answers()

    def each(
        self, call: Callable[..., Answer], jobs: Iterable[tuple[Any, ...]], *common: Any
    ) -> Iterator[Answer | None]:
        """See `onnxlint.lint.engines.Spread`."""
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=TRIES)(call)
        sent = [ray.put(one) for one in common]
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: deque[Any] = deque()

        def answer() -> Answer | None:
            try:
                found: Answer = ray.get(pending.popleft())
                return found
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError:
                return None

        for job in jobs:
            pending.append(task.remote(*sent, *job))
            if len(pending) >= ahead:
                yield answer()
        while pending:
            yield answer()


def enter(folder: str, paths: Iterable[str]) -> None:
    """Work in the folder of the program that asked, so that paths and source lines mean the same.

    Raises:
        OnnxlintError: A path is that of a file, and this node has no such folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        if not all(map(is_remote, paths)):
            raise OnnxlintError(
                f"{printable(folder)}: a node of the cluster cannot use this folder ({error.strerror}); nodes must "
                "reach the models: use a shared folder or a store"
            ) from None


def _check_batch(folder: str, paths: list[str], plan: Plan) -> list[CheckResult]:
    enter(folder, paths)
    return [check_file(path, plan) for path in paths]


def connect(name: str) -> Any:
    """The module `ray`, connected to a cluster.

    Args:
        name: See `Cluster`.

    Raises:
        OnnxlintError: Ray is not installed, or the cluster cannot be reached.
    """
    turn_off_telemetry()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise OnnxlintError("--engine ray takes the package ray: pip install 'onnxlint[ray]'") from None
    if ray.is_initialized():
        return ray
    _, _, address = name.partition("://")
    place = name if address else os.environ.get("RAY_ADDRESS") or None
    if place is not None and place != "auto":
        _reach(place)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if place is None:
        settings["include_dashboard"] = False
    try:
        ray.init(address=place, **settings)
    except Exception as error:  # noqa: BLE001 - of Ray's many exception classes none says more
        said = printable(str(error).strip().split("\n")[0])[:200] or type(error).__name__
        where = f"at {printable(place)}" if place else "on this machine"
        raise OnnxlintError(f"--engine: no Ray cluster {where}: {said}; check the address") from None
    return ray


def _reach(address: str) -> None:
    """Refuse an address that nobody answers at: Ray would try for minutes."""
    import socket

    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    shown = printable(address)
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise OnnxlintError(f"--engine: {shown!r} is not the address of a Ray cluster, HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise OnnxlintError(
            f"--engine: no Ray cluster at {shown}: {error.strerror or error}; check the address and RAY_ADDRESS"
        ) from None
