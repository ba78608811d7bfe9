"""Sizes of a model whose inputs are set free, followed through the graph; `CHECKS` has a function for each operator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.graph.dims import Shape
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.symbolic.engine import Sizes, Symbolic
from onnxlint.symbolic.inference import OPERATORS
from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, divide, product, substitute
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_CHOICES = 4096
"""Ways to spread a size over axes that are looked at."""


Checks = Mapping[str, "Callable[[Freeing, Node], Sizes | None]"]


class Freeing(Symbolic):
    """Sizes of a model whose inputs were set free, and the constants in it that have to change for that.

    Args:
        view: The model with its new inputs.
        before: The model with the old ones, of the same nodes.
        values: Symbol → the number that it was.
        checks: Operator → what it says to a free size: the sizes of its output, or None to leave them to inference.

    Attributes:
        constants: (node, operand, numbers) to write; operand -1: the scales of a Resize.
        repeats: (node, operand, axis, other operand, its axis): have the operand repeated along the axis as often as the
            other one is long.
        needed: Symbol → number that it has to be a multiple of, so that added maps still fit.
    """

    def __init__(self, view: GraphView, before: GraphView, values: dict[str, int], checks: Checks) -> None:
        self.values = values
        self._checks = checks
        self.constants: list[tuple[Node, int, npt.NDArray[np.generic]]] = []
        self.repeats: list[tuple[Node, int, int, int, int]] = []
        self.needed: dict[str, int] = {}
        self._derived: set[tuple[int, str]] = set()
        self._before = dict(zip(map(id, view.graphs), before.graphs, strict=True))
        self._pool: dict[int, dict[AnySize, None]] = {}
        self._touched = False
        super().__init__(view, OPERATORS)

    def was(self, size: AnySize) -> int | None:
        """The number that a size had; None if it depends on what cannot be followed."""
        number = substitute(size, dict(self.values))
        return number if isinstance(number, int) else None

    def is_free(self, size: AnySize) -> bool:
        """Whether a size that was one number no longer is; nothing is known about sizes that cannot be followed."""
        return not isinstance(size, int) and "?" not in str(size)

    def fail(self, node: Node, why: str) -> OnnxlintError:
        """The error for a node that does not allow the free sizes, to be raised."""
        label = printable(node.label)
        scope = self.view.sources.scope(node.proto)
        place = f" (in {printable(scope)})" if scope and scope not in label else ""
        return OnnxlintError(f"--dynamic: {node.op} {label}{place} does not allow it: {why}")

    def widen(self, node: Node, operand: int, axis: int, like: int, like_axis: int) -> bool:
        """Have a constant part of a batch of 1 repeated for each of the batch; False if it is not such a constant."""
        sizes = self.of(node, operand)
        if sizes is None or sizes[axis] != 1 or (id(node.graph), node.input(operand)) in self._derived:
            return False
        self.repeats.append((node, operand, axis, like, like_axis))
        return True

    def visit(self, node: Node) -> None:
        """Infer a node's outputs; with its own check where a size that was set free reaches it."""
        outer, self._touched = self._touched, self._is_touched(node)
        try:
            check = self._checks.get(node.op) if self._touched else None
            try:
                shape = check(self, node) if check is not None else None
            except TooComplexError:
                raise self.fail(node, "its sizes are too complex to be followed") from None
            if shape is not None:
                self.record(node.graph, node.output(), shape)
            else:
                super().visit(node)
            if self._touched:
                self._derived.update((id(node.graph), name) for name in node.outputs)
            self._compare(node)
        finally:
            self._touched = outer

    def _is_touched(self, node: Node) -> bool:
        """Whether anything that goes into a node depends on what was set free."""
        if node.graph.children:
            return True
        for i, name in enumerate(node.inputs):
            if not name or node.graph.is_constant(name):
                continue
            sizes, value = self.of(node, i), self.val(node, i)
            if sizes is None or any(not isinstance(size, int) for size in sizes):
                return True
            if value is not None and any(not isinstance(number, int) for number in value.numbers):
                return True
        return False

    def merge(self, own: Sizes | None, inferred: Shape | None) -> Sizes | None:
        """Sizes of a value: our own before those that onnx infers, which still have the old sizes in them."""
        # What onnx infers still has the old sizes baked in, from the first Reshape on.
        if not self._touched:
            return super().merge(own, inferred)
        if own is not None:
            return own
        return None if inferred is None else tuple(self.fresh() for _ in inferred)

    def declared_input(self, graph: Graph, name: str, shape: Shape | None) -> Sizes | None:
        """Sizes of an input; those of a body's inputs may have been set free."""
        if graph is self.view.main or shape is None:
            return super().declared_input(graph, name, shape)
        return tuple(self.fresh() for _ in shape)  # what a Loop hands in may have been set free

    def _compare(self, node: Node) -> None:
        """With the old numbers put in, the sizes have to be what they were."""
        for name in node.outputs:
            sizes = self.shape(node.graph, name)
            old = self._before[id(node.graph)].shape(name) if sizes is not None else None
            if sizes is None or old is None:
                continue
            for size, number in zip(sizes, old, strict=False):
                if not isinstance(size, int):
                    self._pool.setdefault(self.was(size) or 0, {})[size] = None
                was = self.was(size)
                if was is not None and isinstance(number, int) and was != number:
                    raise self.fail(node, f"it makes {was} of what was {number}")

    def spread(self, node: Node, total: AnySize, old: Sequence[int]) -> Sizes:
        """Sizes for axes that had the old numbers and whose product is now `total`.

        Raises:
            OnnxlintError: No assignment of sizes fits, or several do.
        """
        choices: list[list[AnySize]] = []
        for number in old:
            rest = product(n for i, n in enumerate(old) if i != len(choices))
            known = [number, *self._pool.get(number, ())]
            whole = divide([total], [rest])
            if whole is not None and whole not in known and self.was(whole) == number:
                known.append(whole)
            choices.append(known)
        if math.prod(map(len, choices)) > _MAX_CHOICES:
            raise self.fail(node, f"its axes {list(old)} can be read in too many ways")
        ways = [way for way in itertools.product(*choices) if product(way) == total]
        if not ways:
            shown = printable(str(total))
            raise self.fail(node, f"{shown} has no constant factor that leaves {list(old)}")
        simplest = min(map(complexity_of, ways))
        best = [way for way in ways if complexity_of(way) == simplest]
        if len(best) > 1:
            # A batch of 1 among other axes of 1 is the outermost; anything else would be a guess.
            if any(number != 1 for way in best for number, size in zip(old, way, strict=True) if self.is_free(size)):
                sizes = sorted({str(size) for way in best for size in way if self.is_free(size)})
                names = printable(" and ".join(sizes))
                raise self.fail(
                    node,
                    f"which of its axes {list(old)} is {names} cannot be determined: export with sizes that differ",
                )
            best.sort(key=lambda way: next(i for i, size in enumerate(way) if self.is_free(size)))
        return best[0]


def complexity_of(way: Sequence[AnySize]) -> tuple[int, int]:
    """Small where free sizes are plain symbols with no factor before them."""
    factors = sum(abs(k) for size in way if isinstance(size, Size) for _, k in size.terms)
    atoms = max((len(mono) for size in way if isinstance(size, Size) for mono, _ in size.terms), default=0)
    return atoms, factors
