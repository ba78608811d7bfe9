"""Sizes as onnx's inference finds them, for whoever asks of a model only whether its nodes fit together."""

from __future__ import annotations

from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.symbolic.engine import Sizes, Symbolic
from onnxlint.symbolic.inference import OPERATORS
from onnxlint.symbolic.values import Value


class UndecidedError(Exception):
    """Sizes or numbers that onnx's inference does not find: symbolic inference may."""


class Inferred(Symbolic):
    """Sizes of a model that onnx's inference accepts, without symbolic inference.

    Its numbers and symbols of inputs are those of symbolic inference, too. A size that it does not know equals nothing.
    """

    def __init__(self, view: GraphView) -> None:
        super().__init__(view, OPERATORS)

    def _run(self, graph: Graph) -> None:
        """Nothing is inferred."""

    def of(self, node: Node, i: int) -> Sizes | None:
        """Sizes of input `i`; None if it is absent.

        Raises:
            UndecidedError: Its rank is unknown.
        """
        name = node.input(i)
        if not name:
            return None
        graph = node.graph
        known = self._shapes[id(graph)]
        sizes = known.get(name)
        if sizes is None:
            tensor = graph.initializers.get(name)
            shape = self.view.onnx_inferred(graph, name)[1] if tensor is None else tuple(tensor.dims)
            if shape is None:
                raise UndecidedError
            sizes = known[name] = tuple([self._known(dim) for dim in shape])
        return sizes

    def val(self, node: Node, i: int) -> Value | None:
        """Numbers of input `i`; None if it is absent.

        Raises:
            UndecidedError: It is no constant.
        """
        name = node.input(i)
        value = self.value(node.graph, name) if name else None
        if name and value is None:
            raise UndecidedError
        return value
