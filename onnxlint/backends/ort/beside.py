"""The float model and an int8 one that is being made, computed side by side from layer to layer.

What leads from the values that are known to what the next layer reads is run as one model: onnxruntime fuses it, and what is
between stays in its memory. Each node is run once in either, and values are dropped with the last node that reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import onnx

from onnxlint.backends import Array
from onnxlint.backends.ort.calibrate import Ranges
from onnxlint.backends.ort.qdq import quantize
from onnxlint.backends.ort.session import blank, part, read_by, run, start

Values = dict[str, Array]


class SideBySide:
    """Values of two models of the same nodes.

    Attributes:
        ranges: Of the values that the int8 model rounds, as they become known.
    """

    def __init__(
        self,
        models: tuple[onnx.ModelProto, onnx.ModelProto],
        inputs: Sequence[Mapping[str, Array]],
        stops: Mapping[int, str],
        rounding: Collection[str],
        *,
        name: str,
        threads: int,
    ) -> None:
        """Start at the inputs.

        Args:
            models: The float one; the int8 one in floats, whose weights may change until a value behind them is asked for.
            inputs: Held in memory.
            stops: Nodes, by index, that compute something else in the int8 model: the value that is asked for before.
            rounding: Names of those of them that round it.
            name: Of the model, for errors.
            threads: For onnxruntime.
        """
        self.ranges: Ranges = {}
        self._models = models
        self._tensors = [{tensor.name: tensor for tensor in model.graph.initializer} for model in models]
        self._exact: list[Values] = [dict(feeds) for feeds in inputs]
        self._given: list[Values] = [dict(feeds) for feeds in inputs]
        self._stops = stops
        self._rounding = rounding
        self._name = name
        self._threads = threads
        nodes = models[0].graph.node
        self._reads = [read_by(node) for node in nodes]
        self._makers = {key: i for i, node in enumerate(nodes) for key in node.output if key}
        self._done: set[int] = set()
        # How many nodes are still to read a value; those that lead to no stop do not count.
        self._left = Counter(key for i in self._before(stops.values()) for key in self._reads[i])
        self._left.update(stops.values())

    def reach(self, value: str) -> list[tuple[Array, Array]]:
        """A value of both models, for each set of inputs.

        Raises:
            OnnxlintError: onnxruntime cannot compute it.
        """
        if value not in self._exact[0]:
            self._compute(value)
        return [(a[value], b[value]) for a, b in zip(self._exact, self._given, strict=True)]

    def leave(self, value: str) -> None:
        """Nobody asks for a value of `stops` once more."""
        self._drop([value])

    def _before(self, wanted: Collection[str]) -> list[int]:
        """Nodes, in order, that compute some values from those that are known."""
        known = self._exact[0]
        found: set[int] = set()
        ahead = [key for key in wanted if key not in known]
        while ahead:
            i = self._makers.get(ahead.pop())
            if i is not None and i not in found:
                found.add(i)
                ahead.extend(key for key in self._reads[i] if key not in known)
        return sorted(found)

    def _compute(self, value: str) -> None:
        nodes = self._before([value])
        self._left.subtract(key for i in nodes for key in self._reads[i])
        made = [key for i in nodes for key in self._models[0].graph.node[i].output if key]
        wanted = [key for key in made if key == value or self._left[key] > 0]
        fed = [key for key in dict.fromkeys(key for i in nodes for key in self._reads[i]) if key in self._exact[0]]
        exact = self._run(0, nodes, wanted, fed, self._exact)
        # As long as nothing before them was rounded, nodes without weights make the same in both.
        first, other = self._exact[0], self._given[0]
        same = self._stops.keys().isdisjoint(nodes) and all(first[key] is other[key] for key in fed)
        given = exact if same else self._run(1, nodes, wanted, fed, self._given)
        for values, outputs in ((self._exact, exact), (self._given, given)):
            for one, arrays in zip(values, outputs, strict=True):
                one.update(zip(wanted, arrays, strict=True))
        self._drop(fed, 0)

    def _drop(self, keys: Collection[str], count: int = 1) -> None:
        """Note that `count` readers of some values are done, and drop those that nobody reads any more."""
        for key in keys:
            self._left[key] -= count
            if self._left[key] <= 0:
                for one in (*self._exact, *self._given):
                    one.pop(key, None)

    def _run(
        self, which: int, nodes: Sequence[int], wanted: Sequence[str], fed: Sequence[str], values: Sequence[Values]
    ) -> list[list[Array]]:
        """What some nodes of one of the models make, for each set of inputs."""
        model, tensors = self._models[which], self._tensors[which]
        piece = blank(model)
        piece.graph.node.extend(model.graph.node[i] for i in nodes)
        reads = dict.fromkeys(key for i in nodes for key in sorted(self._reads[i]))
        piece.graph.initializer.extend(tensors[key] for key in reads if key in tensors and key not in values[0])
        piece = part(piece, wanted, {key: values[0][key] for key in fed})
        if which:
            keep = {node.name for node in piece.graph.node}.difference(self._rounding)
            piece = quantize(piece, self.ranges, keep, weights_too=False)
        session = start(piece, name=self._name, threads=self._threads, integers=False)
        return [run(session, self._name, {key: one[key] for key in fed}, wanted) for one in values]
