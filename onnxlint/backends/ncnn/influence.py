"""What changes inside a float net do to its outputs: computed from the changed place on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.evaluate import heads, power
from onnxlint.backends.ncnn.format import Network
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.run import Runner, in_order
from onnxlint.backends.ncnn.table import source_blobs
from onnxlint.backends.ncnn.walk import Walk, part

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Outputs:
    """The outputs of a float net for some inputs (C, H, W); see `onnxlint.backends.ncnn.evaluate.heads`."""

    def __init__(self, net: Network, images: Sequence[Floats], threads: int) -> None:
        self.net = net
        self.threads = threads
        self.heads = heads(net)
        self.runner = Runner(net, light=True)
        self.truth = [[np.array(y) for y in ys] for ys in self.runner.map(images, self.heads, threads)]
        self.power = np.maximum(np.sum([[power(y) for y in ys] for ys in self.truth], axis=0), 1e-30)
        self._images = images
        self._copies: dict[str, list[str]] = {}
        for name, source in source_blobs(net).items():
            self._copies.setdefault(source, []).append(name)

    def places(self, names: Iterable[str]) -> Iterator[Place]:
        """Blobs, in the order of the net."""
        wanted = set(names)
        sources = [name for name, copies in self._copies.items() if not wanted.isdisjoint(copies)]
        walk = Walk(self.runner, self._images, sources, self.heads, self.threads)
        reached = _reached(self.net, self.heads)
        for source in sources:
            values, copies = walk.reach(source), self._copies[source]
            # A Split makes all its copies anew when one of them is asked for: all are known, or a changed one would be lost.
            known = [{**one, **dict.fromkeys(copies, x)} for one, x in zip(walk.known, values, strict=True)]
            for name in copies:
                if name in wanted:
                    yield Place(self, name, known, reached[name])


class Place:
    """A blob, from which the outputs are computed.

    Args:
        outputs: Of the net.
        name: Of the blob.
        known: For each input, values that the outputs can be computed from: of the blob as well, and of its copies.
        reached: The outputs that are made from it.
    """

    def __init__(
        self, outputs: Outputs, name: str, known: Sequence[Mapping[str, Packed]], reached: Collection[str]
    ) -> None:
        self.name = name
        self._outputs = outputs
        self._known = known
        self._at = [i for i, head in enumerate(outputs.heads) if head in reached and head not in known[0]]
        self._ends = [outputs.heads[i] for i in self._at]

    @cached_property
    def _values(self) -> list[Floats]:
        return [known[self.name].array() for known in self._known]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the blob, for the first input."""
        return self._known[0][self.name].shape

    def noise_with(self, change: Callable[[Floats], Floats]) -> Doubles:
        """Noise in each output, as a part of its power, where the values of the blob are changed."""
        outputs = self._outputs
        if not self._at:  # nothing is made from it
            return np.zeros(len(outputs.heads))

        def run(at: int) -> list[Floats]:
            return outputs.runner.run({**self._known[at], self.name: change(self._values[at])}, self._ends)

        return self._noise(in_order(run, range(len(self._known)), outputs.threads))

    def noise_of(self, net: Network) -> Doubles:
        """The same, where another net reads the blob and makes blobs of the same names."""
        if not self._at:
            return np.zeros(len(self._outputs.heads))
        runner = Runner(part(net, self._known[0], self._ends), light=True)
        fed = ({name: known[name] for name in runner.inputs} for known in self._known)
        return self._noise(runner.map(fed, self._ends, self._outputs.threads))

    def _noise(self, found: Iterable[Sequence[Floats]]) -> Doubles:
        noise = np.zeros(len(self._outputs.heads))
        for ys, truth in zip(found, self._outputs.truth, strict=True):
            noise[self._at] += [power(y - truth[i]) for i, y in zip(self._at, ys, strict=True)]
        return np.asarray(noise / self._outputs.power)


def _reached(net: Network, ends: Collection[str]) -> dict[str, set[str]]:
    """Blob → which of some blobs are made from it, itself included."""
    found: dict[str, set[str]] = {name: {name} for name in ends}
    for layer in reversed(net.layers):
        made = set[str]().union(*(found.setdefault(top, set()) for top in layer.tops))
        for bottom in layer.bottoms:
            found.setdefault(bottom, set()).update(made)
    return found
