"""Carries a model into onnx_graphsurgeon and back without losing anything.

graphsurgeon drops metadata, doc strings, quantization annotations and much more when it exports a graph, and cannot
import some constructs at all. So nothing is exported by it: it holds the graph while patches change it, and their changes
not change is taken from the original, message by message. What graphsurgeon cannot represent is hidden from it for the
time being, and is back in its place afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.surgery.importing import Quiet, importable
from onnxlint.surgery.messages import node_state, renamed, tensor_state
from onnxlint.surgery.order import dead_nodes, is_graph
from onnxlint.surgery.rebuild import Origin, Surgery, rebuild
from onnxlint.surgery.wiring import detach, replace
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import onnx_graphsurgeon as gs


class AlreadyPatched(Exception):  # noqa: N818 - an answer, not an error
    """Another patch of this round has changed a node: this one has to wait for the next round."""


class Surgeon:
    """A model opened for surgery.

    Args:
        view: The model; nodes of its graphs are found again with `node`.

    Attributes:
        graph: graphsurgeon's main graph. Patches change it and its subgraphs freely.
        metadata: `metadata_props` of the model to set.
        drop_inputs: Names of initializers that are to be no longer listed as inputs.
        drop_value_info: Names of values whose declared shape is dropped.
        conditions: What the changes assume about sizes of inputs: `H % 32 == 0`.
        unproven: What else they need, which running the model has to show.
    """

    def __init__(self, view: GraphView) -> None:
        import onnx_graphsurgeon as gs

        self.view = view
        self._names: set[str] | None = None
        self._asked: set[int] = set()
        self._in_use: set[int] = set()
        self._owners: dict[str, int] | None = None
        bare = importable(view.proto)
        with Quiet():
            try:
                self.graph: gs.Graph = gs.import_onnx(bare)
            except Exception as error:
                reason = printable(" ".join(str(error).split()))[:200]
                raise OnnxlintError(
                    f"{printable(view.model.path)}: onnx_graphsurgeon cannot import this graph: {reason}"
                ) from error
        self._surgery = Surgery(view.model.path, view.proto, self.graph)
        self._origins = self._surgery.origins
        self.metadata = self._surgery.metadata
        self.drop_inputs = self._surgery.drop_inputs
        self.drop_value_info = self._surgery.drop_value_info
        self.conditions: list[str] = []
        self.unproven: list[str] = []
        self._remember(view.main, self.graph)

    def _remember(self, graph: Graph, held: gs.Graph) -> None:
        proto: Any = graph.proto
        self._origins[id(held)] = Origin(
            proto=proto,
            graph=held,
            ordered=list(held.nodes),
            nodes={
                id(node): (original, node_state(node)) for node, original in zip(held.nodes, proto.node, strict=True)
            },
            inputs=[(tensor, tensor_state(tensor)) for tensor in held.inputs],
            outputs=[(tensor, tensor_state(tensor)) for tensor in held.outputs],
            dead={id(node) for node in dead_nodes(held)},
        )
        for child in graph.children:
            body = self._body(child, held)
            if body is not None:
                self._remember(child, body)

    def _body(self, child: Graph, held: gs.Graph) -> gs.Graph | None:
        assert child.parent_node is not None
        body = self._origins[id(held)].ordered[child.parent_node.index].attrs.get(child.path.rsplit(".", 1)[1])
        return body if is_graph(body) else None

    # For patches

    def node(self, node: Node) -> gs.Node:
        """graphsurgeon's node for a node of the view.

        Raises:
            AlreadyPatched: Another patch of this round has changed it.
            OnnxlintError: It lies in a function or in a list of graphs, which graphsurgeon does not hold.
        """
        held = self._origins[id(self.held(node.graph))].ordered[node.index]
        if id(held) in self._in_use:
            raise AlreadyPatched
        self._asked.add(id(held))
        return held

    def begin(self) -> None:
        """A patch starts."""
        self._asked.clear()

    def end(self) -> None:
        """A patch is done: the nodes that it asked for are taken for this round."""
        self._in_use |= self._asked

    def held(self, graph: Graph) -> gs.Graph:
        """graphsurgeon's graph for a graph of the view."""
        if graph.parent is None and not graph.is_function:
            return self.graph
        if graph.parent is not None:
            body = self._body(graph, self.held(graph.parent))
            if body is not None:
                return body
        raise OnnxlintError(
            f"{printable(self.view.model.path)}: {printable(graph.path)} cannot be patched: graphsurgeon does not hold it"
        )

    def name(self, base: str) -> str:
        """A name that no value and no node of the model has yet."""
        if self._names is None:
            self._names = set()
            for graph in self.view.graphs:
                self._names.update(graph.inputs, graph.initializers, graph.outputs)
                for node in graph.nodes:
                    self._names.update((node.name, *node.outputs))
        name, i = base, 0
        while name in self._names:
            i += 1
            name = f"{base}_{i}"
        self._names.add(name)
        return name

    def constant(self, base: str, values: npt.NDArray[np.generic], graph: Graph | None = None) -> gs.Constant:
        """A new initializer: of the given graph, where nodes of nested graphs may read it; else of whichever reads it."""
        import onnx_graphsurgeon as gs

        constant = gs.Constant(self.name(base), values)
        if graph is not None:
            self._surgery.homes[id(constant)] = (constant, self.held(graph))
        return constant

    def tensor(self, node: Node, name: str) -> gs.Tensor:
        """graphsurgeon's tensor for a value that a node of the view reads or makes."""
        held = self.node(node)
        return next(tensor for tensor in (*held.inputs, *held.outputs) if tensor.name == name)

    def remove_dead(self, node: Node) -> None:
        """Remove a node that was dead from the start (other unused nodes are removed automatically)."""
        held = self.node(node)
        self._origins[id(self.held(node.graph))].dead.discard(id(held))

    def drop_initializer(self, graph: Graph, name: str) -> None:
        """Remove an unused initializer, and its entry among the inputs."""
        self._origins[id(self.held(graph))].dropped.add(name)

    def inline(self, node: Node, body: Graph, arguments: Sequence[gs.Tensor] = ()) -> list[gs.Tensor]:
        """Put the nodes of a nested graph in the place of the node that it is nested in.

        Args:
            node: An If or Loop.
            body: One of its graphs.
            arguments: What the body's inputs become.

        Returns:
            The body's outputs. The node itself is gone; its outputs still have to be replaced (`replace_value`).
        """
        held, outer, inner = self.node(node), self.held(node.graph), self.held(body)
        for inside in body.nodes:
            self.node(inside)  # the graph that they are in is no more: other patches wait for the next round
        here, there = self._origins[id(outer)], self._origins[id(inner)]
        for parameter, argument in zip(inner.inputs, arguments, strict=True):
            replace(parameter, argument)
            inner.outputs = [argument if tensor is parameter else tensor for tensor in inner.outputs]
        initializers = {tensor.name: tensor for tensor in there.proto.initializer}
        made = [tensor for inside in inner.nodes for tensor in inside.outputs]
        read = {
            id(t): t for t in (*(t for n in inner.nodes for t in n.inputs), *inner.outputs) if t.name in initializers
        }
        for tensor in (*made, *read.values()):
            name = tensor.name
            if not name:
                continue
            if self._defined(name) > 1 and not any(tensor is argument for argument in arguments):
                tensor.name = self.name(name)
                self._owners[name] -= 1  # type: ignore[index]
            if id(tensor) in read:
                here.adopted[tensor.name] = renamed(initializers[name], tensor.name)
        here.nodes.update(there.nodes)
        here.dead.update(there.dead)
        outer.nodes = [n for one in outer.nodes for n in (inner.nodes if one is held else (one,))]
        outputs = list(inner.outputs)
        for child in node.graph.children:
            if child.parent_node is node:
                self.held(child).outputs = []
        detach(held)
        return outputs

    def is_returned(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is an output of the model, or of a nested graph."""
        return any(tensor is output for origin in self._origins.values() for output in origin.graph.outputs)

    def replace_value(self, tensor: gs.Tensor, by: gs.Tensor, like: Node) -> None:
        """Let all that read a tensor read another one; where the graph returns it, the other one gets its name.

        Args:
            tensor: Output of a node of the view; if it is a graph output, that node is detached.
            by: What takes its place.
            like: That node.
        """
        import onnx_graphsurgeon as gs

        if not self.is_returned(tensor):
            replace(tensor, by)
            return
        held = self.held(like.graph)
        maker = by.inputs[0] if by.inputs else None
        for before in list(tensor.inputs):
            detach(before)
        if maker is None or self.is_returned(by) or not any(maker is node for node in held.nodes):
            held.nodes.append(gs.Node("Identity", self.name(f"{tensor.name}_identity"), {}, [by], [tensor]))
        else:
            replace(by, tensor)
            maker.outputs = [tensor if made is by else made for made in maker.outputs]

    def _defined(self, name: str) -> int:
        """How many graphs define a value of that name."""
        if self._owners is None:
            self._owners = {}
            for graph in self.view.graphs:
                for own in {*graph.inputs, *graph.initializers, *(n for node in graph.nodes for n in node.outputs)}:
                    self._owners[own] = self._owners.get(own, 0) + 1
        return self._owners.get(name, 0)

    def add(self, op: str, inputs: list[gs.Tensor], like: Node, base: str, **attrs: object) -> gs.Tensor:
        """A new node, in the graph of `like` and with its metadata (where in the source it comes from).

        Args:
            op: Operator of the standard domain.
            inputs: Its inputs.
            like: The node of the view that it does part of the work of.
            base: Name for the node and its output, if it is still free.

        Returns:
            Its output.
        """
        import onnx_graphsurgeon as gs

        name = self.name(base)
        output = gs.Variable(f"{name}_output_0")
        node = gs.Node(op, name, dict(attrs), inputs, [output])
        held = self.held(like.graph)
        held.nodes.append(node)
        self._surgery.likes[id(node)] = (node, like.proto)
        return output

    # Back

    def close(self) -> onnx.ModelProto:
        """The patched model; unchanged parts are the original's, message for message."""
        return rebuild(self._surgery)
