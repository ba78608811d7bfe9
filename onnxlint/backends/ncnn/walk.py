"""From blob to blob through a net, for several images at a time: each is computed on from those before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Layer, Network
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.run import Runner, in_order

Floats = npt.NDArray[np.float32]


def part(net: Network, known: Collection[str], wanted: Collection[str]) -> Network:
    """The layers that make the `wanted` blobs of those that are `known`, which become its inputs: a small net is loaded in
    a fraction of the time. Of what a Split makes, all or nothing is to be known."""
    made = net.producers()
    inputs, needed = set[str](), set[int]()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in known:
            inputs.add(name)
        elif made[name] not in needed:
            needed.add(made[name])
            left += net.layers[made[name]].bottoms
    given = [Layer("Input", name, (), (name,)) for name in known if name in inputs]
    layers = (*given, *(net.layers[i] for i in sorted(needed)))
    return replace(net, layers=layers, blob_count=sum(len(layer.tops) for layer in layers))


class Walk:
    """Values of blobs, for some images, which stay as ncnn made them.

    Args:
        runner: A light net with one input.
        images: Inputs (C, H, W).
        stops: The blobs to reach, none of them made by Split.
        ends: Blobs that are to be computed from those that are known, at any time.
        threads: How many images are computed at a time.
    """

    def __init__(
        self,
        runner: Runner,
        images: Sequence[Floats],
        stops: Collection[str],
        ends: Collection[str] = (),
        threads: int = 2,
    ) -> None:
        self._runner = runner
        self._threads = threads
        (self._input,) = runner.inputs
        self._unread = {*stops, *ends}
        self._ends = set(ends)
        self._after = _next_stops(runner.net, self._unread)
        self.known: list[dict[str, Packed]] = [{self._input: runner.packed(x)} for x in images]

    def reach(self, blob: str, net: Network | None = None) -> list[Packed]:
        """The values of a stop, for each image; what nothing is to be made of any more is forgotten.

        Args:
            blob: One of the stops.
            net: Makes it of what is known, in place of the first net.
        """
        runner = self._runner if net is None else Runner(part(net, self.known[0], [blob]), light=True)

        def made(known: Mapping[str, Packed]) -> Packed:
            found: list[Packed] = []
            given = known if net is None else {name: known[name] for name in runner.inputs}
            runner.visit(given, [blob], lambda _, value: found.append(value))
            return found[0]

        values = list(in_order(made, self.known, self._threads))
        for known, value in zip(self.known, values, strict=True):
            known[blob] = value
        if blob not in self._ends:
            self._unread.discard(blob)
        for known in self.known:
            for name in [n for n in known if n not in (self._input, blob) and not self._after[n] & self._unread]:
                del known[name]
        return values


def _next_stops(net: Network, stops: Collection[str]) -> dict[str, set[str]]:
    """Blob → the stops that are made from it without another one of them between."""
    after: dict[str, set[str]] = {}
    for layer in reversed(net.layers):
        found: set[str] = set()
        for top in layer.tops:
            found |= {top} if top in stops else after.get(top, set())
        for bottom in layer.bottoms:
            after.setdefault(bottom, set()).update(found)
    for name in stops:
        after.setdefault(name, set())
    return after
