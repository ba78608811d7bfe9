"""Values inside a model, computed for each input here or by the tasks of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from onnxlint.backends import Array
from onnxlint.errors import OnnxlintError
from onnxlint.lint.engines import Spread, kept, new_token
from onnxlint.model.limits import set_budget
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

Feeds = Mapping[str, Array]
Compute = Callable[[Feeds], Sequence[Array]]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Computer:
    """A function from inputs to values of a model that can be sent to another process.

    Attributes:
        model: The model, serialized.
        names: The values.
        path: What messages call the model.
        threads: How many to use: the number may change the last digit of a sum.
        token: Names the model.
    """

    model: bytes
    names: tuple[str, ...]
    path: str
    threads: int
    token: str = field(default_factory=new_token)

    def __call__(self, feeds: Feeds) -> Sequence[Array]:
        """The values for one set of inputs."""
        return kept(self.token, self._load)(feeds)

    def _load(self) -> Compute:
        import onnx

        from onnxlint.backends.ort.judge import computer

        set_budget(len(self.model))
        return computer(onnx.ModelProto.FromString(self.model), self.names, self.path, self.threads)


def make_computer(
    model: onnx.ModelProto, names: Sequence[str], path: str, threads: int, cluster: Spread | None
) -> Compute:
    """A function from inputs to the named values of a model, which runs here where there is no cluster."""
    if cluster is not None:
        return Computer(model.SerializeToString(), tuple(names), path, threads)
    from onnxlint.backends.ort.judge import computer

    return computer(model, names, path, threads)


def each(
    call: Callable[..., T], inputs: Iterable[Feeds], compute: Compute, *common: object, cluster: Spread | None
) -> Iterator[T]:
    """call(compute, …, feeds) of each input, in their order.

    Raises:
        OnnxlintError: The model cannot be run on one.
    """
    if cluster is None:
        yield from (call(compute, *common, feeds) for feeds in inputs)
        return
    jobs = ((_whole(feeds),) for feeds in inputs)
    for i, found in enumerate(cluster.each(call, jobs, compute, *common), 1):
        if found is None:
            path = compute.path if isinstance(compute, Computer) else "the model"
            raise OnnxlintError(f"{printable(path)}: running it on input {i} ended its process again and again")
        yield found


def _whole(feeds: Feeds) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array) for name, array in feeds.items()}
