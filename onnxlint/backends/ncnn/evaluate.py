"""How close a candidate net comes to the float net: SNR of the outputs, computed by the wheel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxlint.backends.closeness import Powers
from onnxlint.backends.ncnn.format import Network
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.task import Loss, TaskLoss, size_of

Floats = npt.NDArray[np.float32]

PASSING = frozenset({"Reshape", "Flatten", "Squeeze", "ExpandDims", "Permute", "Noop"})
"""Layers that leave every number as it is."""


class Held:
    """Of a stream of inputs that is gone through, some are held: at most `count` of the first one, evenly spaced; never
    more than twice as many."""

    def __init__(self, images: Iterable[Floats], count: Callable[[Floats], int]) -> None:
        self._images = images
        self._count_for = count
        self._count = 0
        self._kept: list[Floats] = []

    def __iter__(self) -> Iterator[Floats]:
        """All inputs, in their order."""
        stride = 1
        self._kept = []
        for i, image in enumerate(self._images):
            x = np.ascontiguousarray(image, np.float32)
            self._count = self._count or self._count_for(x)
            if i % stride == 0:
                self._kept.append(x)
            if len(self._kept) == 2 * self._count:
                self._kept, stride = self._kept[::2], 2 * stride
            yield x

    @property
    def some(self) -> list[Floats]:
        """Those that are held, of all that came."""
        kept, count = self._kept, self._count
        if len(kept) <= count:
            return kept
        return [kept[i] for i in np.linspace(0, len(kept) - 1, count).round().astype(int).tolist()]


def spread(images: Iterable[Floats], count: int) -> list[Floats]:
    """At most `count` of a stream of inputs, evenly spaced; never more than twice as many are held."""
    held = Held(images, lambda _: count)
    for _ in held:
        pass
    return held.some


def heads(net: Network) -> list[str]:
    """The blobs to compare: the outputs and, if an output is a Concat, its inputs; of probabilities what a Softmax or
    Sigmoid makes them of, as the few that are not sure would decide alone."""
    made = net.producers()
    out: list[str] = []
    for name in net.outputs():
        last = layer = net.layers[made[name]]
        while last.type in PASSING and last.bottoms:
            last = net.layers[made[last.bottoms[0]]]
        if last.type in ("Softmax", "Sigmoid") and net.layers[made[last.bottoms[0]]].type != "Split":
            name = last.bottoms[0]
            layer = net.layers[made[name]]
        out += layer.bottoms if layer.type == "Concat" else [name]
    return out


class Evaluator:
    """Compares nets with `net` on inputs (C, H, W) that are held in memory: their heads and, with `outputs`, the outputs
    as well where these are something else."""

    def __init__(self, net: Network, images: Sequence[Floats], threads: int = 2, *, outputs: bool = False) -> None:
        self.images = list(images)
        self.threads = threads
        self.heads = list(dict.fromkeys([*heads(net), *(net.outputs() if outputs else ())]))
        self.truth = self._run(net)
        self.power = [np.array([power(h) for h in one]) for one in self.truth]

    def _run(self, net: Network) -> list[list[Floats]]:
        runner = Runner(net, threads=1, light=True)
        return [[np.array(y) for y in ys] for ys in runner.map(self.images, self.heads, self.threads)]

    def powers(self, candidate: Network, beats: float = -math.inf) -> Powers:
        """What its heads differ by on each image, or on the first ones: as noise only adds up, no more are computed once
        the mean SNR of all images cannot reach `beats` dB any more."""
        found = Runner(candidate, threads=1, light=True).map(self.images, self.heads, self.threads)
        signal, noise = np.array(self.power), np.zeros((0, len(self.heads)))
        for ys, truth in zip(found, self.truth, strict=False):
            noise = np.append(noise, [[power(y - t) for y, t in zip(ys, truth, strict=True)]], axis=0)
            if Powers(signal, noise).decibels.mean() < beats:
                break
        return Powers(signal, noise).first(len(noise))

    def score(self, candidate: Network, beats: float = -math.inf) -> float:
        """The mean SNR of the heads, dB; NaN where one is not finite, or where it cannot reach `beats`."""
        found = self.powers(candidate, beats)
        is_whole = len(found.noise) == len(self.images)
        return float(found.decibels.mean()) if is_whole and np.isfinite(found.noise).all() else math.nan


class Answers:
    """Measures what nets lose of a task's answers on inputs (C, H, W) that are held in memory, beside `net`."""

    def __init__(self, net: Network, images: Sequence[Floats], task: TaskLoss, threads: int = 2) -> None:
        self._images = list(images)
        self._task = task
        self._threads = threads
        self._truth = self._outputs(net)

    def _outputs(self, net: Network) -> list[dict[str, Floats]]:
        names = net.outputs()
        runner = Runner(net, threads=1, light=True)
        return [
            {name: np.array(y)[None] for name, y in zip(names, ys, strict=True)}
            for ys in runner.map(self._images, names, self._threads)
        ]

    @property
    def are_known(self) -> bool:
        """Whether the outputs are those of the task."""
        return bool(self._measured(self._truth).rank)

    def loss(self, candidate: Network) -> Loss:
        """What a net of the same outputs loses."""
        return self._measured(self._outputs(candidate))

    def _measured(self, found: Sequence[dict[str, Floats]]) -> Loss:
        sizes = [size_of(x.shape) for x in self._images]
        return self._task.measure(zip(self._truth, found, sizes, strict=True))


def power(x: Floats) -> float:
    """The sum of the squares."""
    flat = x.reshape(-1)
    return float(np.dot(flat, flat))
