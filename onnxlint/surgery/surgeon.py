"""Carries a model into onnx_graphsurgeon and back without losing anything.

graphsurgeon drops metadata, doc strings, quantization annotations and much more when it exports a graph, and cannot
import some constructs at all. So nothing is exported by it: it holds the graph while patches change it, and what they did
not change is taken from the original, message by message. What graphsurgeon cannot represent is hidden from it for the
time being, and is back in its place afterwards.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError, printable
from onnxlint.graph.view import GRAPH_OPS, Graph, GraphView, Node

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import onnx_graphsurgeon as gs

_PLAIN_ATTRIBUTES = frozenset((1, 2, 3, 4, 5, 6, 7, 8))
"""Attribute types that graphsurgeon holds: FLOAT to STRINGS, GRAPHS and later ones excepted."""

_PLAIN_TENSORS = frozenset(range(1, 17))
"""Element types that graphsurgeon holds: FLOAT to BFLOAT16."""


@dataclass
class _Origin:
    """What a graph of the original looked like when graphsurgeon took it.

    Attributes:
        proto: The original message; never changed.
        graph: graphsurgeon's.
        ordered: The nodes as they were imported, in the order of the file.
        nodes: id of a gs.Node → (its original, its state at import).
        inputs, outputs: (tensor, its state at import) in the original order.
        dead: ids of the nodes that no output depended on: dead before us, and left alone.
        adopted: Initializers that came with the nodes of a nested graph.
        dropped: Names of initializers that are to go.
    """

    proto: onnx.GraphProto
    graph: gs.Graph
    ordered: list[gs.Node]
    nodes: dict[int, tuple[onnx.NodeProto, tuple[Any, ...]]]
    inputs: list[tuple[gs.Tensor, tuple[Any, ...]]]
    outputs: list[tuple[gs.Tensor, tuple[Any, ...]]]
    dead: set[int]
    adopted: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


class Taken(Exception):  # noqa: N818 - an answer, not an error
    """A node was changed by another patch of this round."""


class Surgeon:
    """A model opened for surgery.

    Args:
        view: The model; nodes of its graphs are found again with `node`.

    Attributes:
        graph: graphsurgeon's main graph. Patches change it and its subgraphs freely.
        metadata: `metadata_props` of the model to set.
        drop_inputs: Names of initializers that are to be no longer listed as inputs.
        drop_value_info: Names of values whose declared shape is to be forgotten.
    """

    def __init__(self, view: GraphView) -> None:
        import onnx_graphsurgeon as gs

        self.view = view
        self.metadata: dict[str, str] = {}
        self.drop_inputs: set[str] = set()
        self.drop_value_info: set[str] = set()
        self._origins: dict[int, _Origin] = {}
        self._names: set[str] | None = None
        self._likes: dict[int, tuple[gs.Node, onnx.NodeProto]] = {}
        self._asked: set[int] = set()
        self._taken: set[int] = set()
        self._homes: dict[int, tuple[gs.Constant, gs.Graph]] = {}
        self._owners: dict[str, int] | None = None
        bare = _bare(view.proto)
        with _Quiet():
            try:
                self.graph: gs.Graph = gs.import_onnx(bare)
            except Exception as error:
                reason = printable(" ".join(str(error).split()))[:200]
                raise OnnxlintError(
                    f"{printable(view.model.path)}: onnx_graphsurgeon cannot import this graph: {reason}"
                ) from error
        self._remember(view.main, self.graph)

    def _remember(self, graph: Graph, held: gs.Graph) -> None:
        proto: Any = graph.proto
        self._origins[id(held)] = _Origin(
            proto=proto,
            graph=held,
            ordered=list(held.nodes),
            nodes={id(node): (original, _state(node)) for node, original in zip(held.nodes, proto.node, strict=True)},
            inputs=[(tensor, _tensor_state(tensor)) for tensor in held.inputs],
            outputs=[(tensor, _tensor_state(tensor)) for tensor in held.outputs],
            dead={id(node) for node in _dead(held)},
        )
        for child in graph.children:
            body = self._body(child, held)
            if body is not None:
                self._remember(child, body)

    def _body(self, child: Graph, held: gs.Graph) -> gs.Graph | None:
        assert child.parent_node is not None
        body = self._origins[id(held)].ordered[child.parent_node.index].attrs.get(child.path.rsplit(".", 1)[1])
        return body if _is_graph(body) else None

    # For patches

    def node(self, node: Node) -> gs.Node:
        """graphsurgeon's node for a node of the view.

        Raises:
            Taken: Another patch of this round has changed it.
            OnnxlintError: It lies in a function or in a list of graphs, which graphsurgeon does not hold.
        """
        held = self._origins[id(self.held(node.graph))].ordered[node.index]
        if id(held) in self._taken:
            raise Taken
        self._asked.add(id(held))
        return held

    def begin(self) -> None:
        """A patch starts."""
        self._asked.clear()

    def end(self) -> None:
        """A patch is done: the nodes that it asked for are taken for this round."""
        self._taken |= self._asked

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
            self._homes[id(constant)] = (constant, self.held(graph))
        return constant

    def tensor(self, node: Node, name: str) -> gs.Tensor:
        """graphsurgeon's tensor for a value that a node of the view reads or makes."""
        held = self.node(node)
        return next(tensor for tensor in (*held.inputs, *held.outputs) if tensor.name == name)

    def bury(self, node: Node) -> None:
        """Let a node go that was dead from the start (others go by themselves when nothing reads them any more)."""
        held = self.node(node)
        self._origins[id(self.held(node.graph))].dead.discard(id(held))

    def drop_initializer(self, graph: Graph, name: str) -> None:
        """Leave out an initializer that nothing reads (any more), and its listing as an input."""
        self._origins[id(self.held(graph))].dropped.add(name)

    def inline(self, node: Node, body: Graph, arguments: Sequence[gs.Tensor] = ()) -> list[gs.Tensor]:
        """Put the nodes of a nested graph in the place of the node that it is nested in.

        Args:
            node: An If or Loop.
            body: One of its graphs.
            arguments: What the body's inputs become.

        Returns:
            The body's outputs. The node itself is gone; what read its outputs still has to be given others (`supply`).
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
                here.adopted[tensor.name] = _renamed(initializers[name], tensor.name)
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

    def supply(self, tensor: gs.Tensor, by: gs.Tensor, like: Node) -> None:
        """Let all that read a tensor read another one, whose maker takes over its name where the graph returns it.

        Args:
            tensor: What a node of the view makes; where the graph returns it, that node is detached.
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
        self._likes[id(node)] = (node, like.proto)
        return output

    # Back

    def close(self) -> onnx.ModelProto:
        """The model with what patches changed; everything else is the original's, message for message."""
        import onnx

        graph = self._rebuild(self.graph, top=True)
        original = self.view.proto
        if graph is original.graph and not self.metadata and not self._touches_header():
            return original
        model = onnx.ModelProto()
        model.CopyFrom(original)
        if graph is not original.graph:
            model.graph.CopyFrom(graph)
        for key, value in self.metadata.items():
            for entry in model.metadata_props:
                if entry.key == key:
                    entry.value = value
                    break
            else:
                model.metadata_props.add(key=key, value=value)
        return model

    def _touches_header(self) -> bool:
        return bool(self.drop_inputs or self.drop_value_info)

    def _rebuild(self, held: gs.Graph, top: bool = False) -> onnx.GraphProto:
        """The graph's message: the original object where nothing in it changed."""
        origin = self._origins.get(id(held))
        if origin is None:
            raise OnnxlintError("a patch added a subgraph, which is not supported")
        self._bury(held, origin)
        nodes = list(_in_order(held))
        protos = [self._node_proto(node, origin) for node in nodes]
        same_nodes = len(protos) == len(origin.proto.node) and all(
            a is b for a, b in zip(protos, origin.proto.node, strict=True)
        )
        same_ends = _ends(held.inputs) == [id(t) for t, _ in origin.inputs] and _ends(held.outputs) == [
            id(t) for t, _ in origin.outputs
        ]
        same_ends = same_ends and all(_tensor_state(t) == state for t, state in (*origin.inputs, *origin.outputs))
        new_values = self._new_initializers(held, origin, nodes)
        same_header = not origin.dropped and not (top and self._touches_header())
        if same_nodes and same_ends and not new_values and same_header:
            return origin.proto
        return self._assemble(held, origin, protos, new_values)

    def _assemble(
        self, held: gs.Graph, origin: _Origin, protos: list[onnx.NodeProto], new: dict[str, onnx.TensorProto]
    ) -> onnx.GraphProto:
        import onnx
        from onnx import helper

        graph = onnx.GraphProto()
        graph.CopyFrom(origin.proto)
        del graph.node[:]
        graph.node.extend(protos)
        made = {name for node in protos for name in node.output}
        used = set(_used_names(protos)) | {tensor.name for tensor in held.outputs}
        was_used = set(_used_names(origin.proto.node)) | {value.name for value in origin.proto.output}
        listed = {value.name for value in origin.proto.input}

        stay = listed - self.drop_inputs - origin.dropped
        kept = [
            new.pop(tensor.name, tensor)
            for tensor in origin.proto.initializer
            if (tensor.name in used or tensor.name not in was_used or tensor.name in stay)
            and (tensor.name in used or tensor.name not in origin.dropped)
            and tensor.name not in made
        ]
        kept += [tensor for name, tensor in origin.adopted.items() if name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(new.values())
        _keep(
            graph.sparse_initializer, lambda s: s.values.name in used or s.values.name not in was_used | origin.dropped
        )

        initializers = {tensor.name for tensor in graph.initializer}
        del graph.input[:]
        declared = {value.name: value for value in origin.proto.input}
        held_inputs = {id(tensor): value for (tensor, _), value in self._pairs(origin.inputs, origin.proto.input)}
        graph.input.extend(self._ends_of(held.inputs, origin.inputs, held_inputs))
        # Initializers that are listed as inputs keep their places at the end of the list or among the inputs.
        overridable = [
            value
            for value in origin.proto.input
            if value.name in initializers and value.name in stay and value.name not in _names(held.inputs)
        ]
        if overridable:
            order = {name: i for i, name in enumerate(declared)}
            merged = sorted([*graph.input, *overridable], key=lambda value: order.get(value.name, -1))
            merged = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in merged]
            del graph.input[:]
            graph.input.extend(merged)
        if held is self.graph and self.view.proto.ir_version < 4:
            # There, each initializer is listed as an input too.
            for tensor in (*new.values(), *(t for name, t in origin.adopted.items() if name in used)):
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

        held_outputs = {id(tensor): value for (tensor, _), value in self._pairs(origin.outputs, origin.proto.output)}
        del graph.output[:]
        graph.output.extend(self._ends_of(held.outputs, origin.outputs, held_outputs))

        # Claims about values that are gone go with them; those that were about nothing before stay.
        if graph.value_info or graph.quantization_annotation:
            gone = _value_names(origin.proto) - _value_names(graph)
            _keep(graph.value_info, lambda v: v.name not in gone and v.name not in self.drop_value_info)
            _keep(graph.quantization_annotation, lambda a: a.tensor_name not in gone)
        return graph

    @staticmethod
    def _pairs(held: list[Any], protos: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[Any, onnx.ValueInfoProto]]:
        by_name = {value.name: value for value in protos}
        for tensor, state in held:
            yield (tensor, state), by_name[state[0]]

    @staticmethod
    def _ends_of(
        tensors: list[gs.Tensor],
        before: list[tuple[gs.Tensor, tuple[Any, ...]]],
        protos: dict[int, onnx.ValueInfoProto],
    ) -> list[onnx.ValueInfoProto]:
        states = {id(tensor): state for tensor, state in before}
        out = []
        for tensor in tensors:
            proto = protos.get(id(tensor))
            if proto is not None and states[id(tensor)] == _tensor_state(tensor):
                out.append(proto)
            else:
                out.append(_value_info(tensor, proto))
        return out

    def _node_proto(self, node: gs.Node, origin: _Origin) -> onnx.NodeProto:
        import onnx

        entry = origin.nodes.get(id(node))
        bodies: dict[str, onnx.GraphProto] = {}
        for key, value in node.attrs.items():
            if _is_graph(value):
                bodies[key] = self._rebuild(value)
        if entry is not None:
            original, before = entry
            changed_bodies = {
                key: body
                for key, body in bodies.items()
                if all(attribute.g is not body for attribute in original.attribute if attribute.name == key)
            }
            now = _state(node)
            if before == now and not changed_bodies:
                return original
            proto = onnx.NodeProto()
            proto.CopyFrom(original)
            if not changed_bodies and (*before[:3], before[4]) == (*now[:3], now[4]):
                _write_names(proto, node)
                return proto
            old_attributes = before[4]
        else:
            proto, changed_bodies, old_attributes = onnx.NodeProto(), bodies, ()
            if id(node) in self._likes:
                proto.metadata_props.extend(self._likes[id(node)][1].metadata_props)
        proto.op_type = node.op
        if node.name or proto.name:
            proto.name = node.name
        if node.domain:
            proto.domain = node.domain
        elif proto.domain:
            proto.ClearField("domain")
        _write_names(proto, node)
        _write_attributes(proto, node, dict(old_attributes), changed_bodies)
        return proto

    def _new_initializers(self, held: gs.Graph, origin: _Origin, nodes: list[gs.Node]) -> dict[str, onnx.TensorProto]:
        """Constants that patches brought or changed, by name, in the order of their first use."""
        import onnx_graphsurgeon as gs
        from onnx import numpy_helper

        originals = {tensor.name: tensor for tensor in origin.proto.initializer}
        found: dict[str, onnx.TensorProto] = {}
        own = [constant for constant, home in self._homes.values() if home is held and constant.outputs]
        for tensor in (*(t for node in nodes for t in node.inputs), *held.outputs, *own):
            if not isinstance(tensor, gs.Constant) or tensor.name in found or hasattr(tensor._values, "tensor"):
                continue  # a variable, or a constant that nobody looked into
            if id(tensor) in self._homes and self._homes[id(tensor)][1] is not held:
                continue  # an outer graph's
            before = originals.get(tensor.name)
            if before is None or not _same_values(before, tensor.values):
                found[tensor.name] = numpy_helper.from_array(tensor.values, tensor.name)
        return found

    def _bury(self, held: gs.Graph, origin: _Origin) -> None:
        """Remove nodes that patches left without use; what was dead before stays."""
        dead = _dead(held, origin.dead)
        if dead:
            gone = {id(node) for node in dead}
            for node in dead:
                detach(node)
            held.nodes = [node for node in held.nodes if id(node) not in gone]


def bypass(node: gs.Node) -> None:
    """Let the readers of a node's first output read its first input."""
    replace(node.outputs[0], node.inputs[0])


def replace(tensor: gs.Tensor, by: gs.Tensor) -> None:
    """Let all nodes that read a tensor read another one."""
    readers = {id(reader): reader for reader in tensor.outputs}
    list.clear(tensor.outputs)
    for reader in readers.values():
        for i, read in enumerate(reader.inputs):
            if read is tensor:
                list.__setitem__(reader.inputs, i, by)
                list.append(by.outputs, reader)


def detach(node: gs.Node) -> None:
    """Let a node read and make nothing any more.

    graphsurgeon's own lists look nodes up by equality, and take one for another where both make nothing: so by identity.
    """
    for tensors, side in ((node.inputs, "outputs"), (node.outputs, "inputs")):
        for tensor in tensors:
            others = getattr(tensor, side)
            list.__delitem__(others, next(i for i, other in enumerate(others) if other is node))
        list.clear(tensors)


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import onnx

    if tensor.name == name:
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what graphsurgeon cannot import, and without what it need not see."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.functions[:], bare.metadata_props[:]
    pending = [bare.graph]
    while pending:
        graph = pending.pop()
        del graph.value_info[:], graph.quantization_annotation[:], graph.metadata_props[:]
        for tensor in graph.initializer:
            _soften(tensor)
        for value in (*graph.input, *graph.output):
            if not value.type.HasField("tensor_type") or not _holds(value.type.tensor_type.elem_type):
                value.ClearField("type")
        for node in graph.node:
            if node.op_type in GRAPH_OPS or node.domain or node.op_type == "Constant" or len(node.attribute) > 0:
                _soften_attributes(node, pending)
    return bare


def _holds(kind: int) -> bool:
    return kind in _PLAIN_TENSORS


def _soften(tensor: onnx.TensorProto) -> None:
    if not _holds(tensor.data_type):
        tensor.data_type = 2  # only the name matters: the original is put back


def _soften_attributes(node: onnx.NodeProto, pending: list[onnx.GraphProto]) -> None:
    strange = []
    for i, attribute in enumerate(node.attribute):
        kind = attribute.type
        if kind in (1, 2, 6, 7):
            continue
        if kind == 4:
            _soften(attribute.t)
        elif kind == 5:
            pending.append(attribute.g)
        elif kind not in _PLAIN_ATTRIBUTES or not _decodable(attribute):
            strange.append(i)
    for i in reversed(strange):
        del node.attribute[i]


def _decodable(attribute: onnx.AttributeProto) -> bool:
    try:
        attribute.s.decode()
        for text in attribute.strings:
            text.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Quiet:
    """graphsurgeon logs to the terminal; what it would say is about things that we put right."""

    def __enter__(self) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        self._severity = G_LOGGER.severity
        G_LOGGER.severity = G_LOGGER.CRITICAL

    def __exit__(self, *_: object) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        G_LOGGER.severity = self._severity


def _is_graph(value: object) -> bool:
    import onnx_graphsurgeon as gs

    return isinstance(value, gs.Graph)  # gs.Graph answers hasattr with a log line, so types are asked


def _state(node: gs.Node) -> tuple[Any, ...]:
    """What a node's message says, in a form that shows whether a patch changed it."""
    return (
        node.op,
        node.name,
        node.domain or "",
        (tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs)),
        tuple((key, _attribute_state(value)) for key, value in node.attrs.items()),
    )


def _attribute_state(value: Any) -> Any:
    if isinstance(value, list):
        return (list, tuple(value))
    if isinstance(value, int | float | str | bytes):
        return (type(value), value if value == value else "nan")
    return (type(value), id(value), None if _is_graph(value) else id(getattr(value, "_values", None)))


def _same_values(tensor: onnx.TensorProto, values: npt.NDArray[np.generic]) -> bool:
    from onnx import numpy_helper

    before = numpy_helper.to_array(tensor)
    return before.dtype == values.dtype and before.shape == values.shape and before.tobytes() == values.tobytes()


def _tensor_state(tensor: gs.Tensor) -> tuple[Any, ...]:
    if not hasattr(tensor, "type"):
        return (tensor.name, "constant")
    return (tensor.name, str(tensor.dtype), None if tensor.shape is None else tuple(tensor.shape), tensor.type)


def _ends(tensors: Iterable[gs.Tensor]) -> list[int]:
    return [id(tensor) for tensor in tensors]


def _names(tensors: Iterable[gs.Tensor]) -> set[str]:
    return {tensor.name for tensor in tensors}


def _keep(messages: Any, wanted: Any) -> None:
    kept = [message for message in messages if wanted(message)]
    if len(kept) < len(messages):
        copies = [type(message).FromString(message.SerializeToString()) for message in kept]
        del messages[:]
        messages.extend(copies)


def _value_names(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.output}
    names.update(value.name for value in (*graph.input, *graph.output))
    names.update(tensor.name for tensor in graph.initializer)
    return names


def _used_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Names that nodes read, those in their bodies included."""
    pending = [nodes]
    while pending:
        for node in pending.pop():
            yield from node.input
            if node.op_type in GRAPH_OPS or node.domain:
                for attribute in node.attribute:
                    for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                        yield from (value.name for value in body.output)
                        pending.append(body.node)


def _dead(graph: gs.Graph, kept: AbstractSet[int] = frozenset()) -> list[gs.Node]:
    """Nodes that no output depends on, however far, and no node in `kept` (ids)."""
    outputs = {tensor.name for tensor in graph.outputs}
    captured = _captured(graph)
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            uses[tensor.name] = uses.get(tensor.name, 0) + 1
    makers = {tensor.name: node for node in graph.nodes for tensor in node.outputs if tensor.name}

    def is_dead(node: gs.Node) -> bool:
        return id(node) not in kept and not any(
            t.name and (t.name in outputs or t.name in captured or uses.get(t.name)) for t in node.outputs
        )

    dead: list[gs.Node] = []
    seen: set[int] = set()
    pending = [node for node in graph.nodes if is_dead(node)]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        dead.append(node)
        for tensor in node.inputs:
            if not tensor.name:
                continue
            uses[tensor.name] -= 1
            maker = makers.get(tensor.name)
            if maker is not None and uses[tensor.name] == 0 and is_dead(maker):
                pending.append(maker)
    return dead


def _captured(graph: gs.Graph) -> set[str]:
    """Names that nested graphs read from outside."""
    names: set[str] = set()
    pending = [node for node in graph.nodes if node.attrs and any(map(_is_graph, node.attrs.values()))]
    while pending:
        node = pending.pop()
        for body in node.attrs.values():
            if _is_graph(body):
                names.update(tensor.name for tensor in body.outputs)
                for inner in body.nodes:
                    names.update(tensor.name for tensor in inner.inputs)
                    pending.append(inner)
    return names


def _in_order(graph: gs.Graph) -> Iterator[gs.Node]:
    """Nodes in topological order, as near to their present order as that allows.

    Patches append nodes at the end: each moves up to just before its first reader.
    """
    nodes = graph.nodes
    if _is_sorted(nodes):
        yield from nodes
        return
    place = {id(node): i for i, node in enumerate(nodes)}
    makers = {tensor.name: node for node in nodes for tensor in node.outputs if tensor.name}
    needs: dict[int, set[int]] = {}
    readers: dict[int, list[gs.Node]] = {}
    for node in nodes:
        wanted = {t.name for t in node.inputs if t.name}
        if any(map(_is_graph, node.attrs.values())):
            wanted |= _captured_by(node)
        for name in wanted:
            maker = makers.get(name)
            if maker is not None and maker is not node:
                needs.setdefault(id(node), set()).add(id(maker))
                readers.setdefault(id(maker), []).append(node)
    # A node's rank is the smallest place among its own and its readers'.
    rank = dict(place)
    for node in reversed(list(_topological(nodes, needs, readers, place))):
        for reader in readers.get(id(node), ()):
            rank[id(node)] = min(rank[id(node)], rank[id(reader)])
    yield from _topological(nodes, needs, readers, rank)


def _is_sorted(nodes: Sequence[gs.Node]) -> bool:
    """Whether no node reads, itself or in its bodies, what a later one makes."""
    coming = {tensor.name for node in nodes for tensor in node.outputs}
    coming.discard("")
    for node in nodes:
        if any(tensor.name in coming for tensor in node.inputs):
            return False
        if node.attrs and any(map(_is_graph, node.attrs.values())) and not coming.isdisjoint(_captured_by(node)):
            return False
        coming.difference_update([tensor.name for tensor in node.outputs])
    return True


def _topological(
    nodes: list[gs.Node], needs: dict[int, set[int]], readers: dict[int, list[gs.Node]], rank: dict[int, int]
) -> Iterator[gs.Node]:
    """Kahn's algorithm, the smallest rank first."""
    place = {id(node): i for i, node in enumerate(nodes)}
    waiting = {key: len(value) for key, value in needs.items()}
    heap = [(rank[id(node)], place[id(node)]) for node in nodes if not waiting.get(id(node))]
    heapq.heapify(heap)
    while heap:
        node = nodes[heapq.heappop(heap)[1]]
        yield node
        for reader in readers.get(id(node), ()):
            waiting[id(reader)] -= 1
            if waiting[id(reader)] == 0:
                heapq.heappush(heap, (rank[id(reader)], place[id(reader)]))


def _captured_by(node: gs.Node) -> set[str]:
    names: set[str] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        for body in current.attrs.values():
            if _is_graph(body):
                names.update(tensor.name for tensor in body.outputs)
                for inner in body.nodes:
                    names.update(tensor.name for tensor in inner.inputs)
                    pending.append(inner)
    return names


def _write_names(proto: onnx.NodeProto, node: gs.Node) -> None:
    del proto.input[:], proto.output[:]
    proto.input.extend([tensor.name for tensor in node.inputs])
    proto.output.extend([tensor.name for tensor in node.outputs])


def _write_attributes(
    proto: onnx.NodeProto, node: gs.Node, before: dict[str, Any], bodies: dict[str, onnx.GraphProto]
) -> None:
    """Bring a node's attributes up to date; those that graphsurgeon was not shown stay."""
    from onnx import helper, numpy_helper

    gone = [i for i, a in enumerate(proto.attribute) if a.name in before and a.name not in node.attrs]
    for i in reversed(gone):
        del proto.attribute[i]
    places = {attribute.name: i for i, attribute in enumerate(proto.attribute)}
    for key, value in node.attrs.items():
        if key in bodies:
            made = helper.make_attribute(key, bodies[key])
        elif key in before and before[key] == _attribute_state(value):
            continue
        elif _is_graph(value):
            continue  # an unchanged body
        elif hasattr(value, "_values"):
            made = helper.make_attribute(key, numpy_helper.from_array(value.values, value.name))
        else:
            made = helper.make_attribute(key, value)
        if key in places:
            proto.attribute[places[key]].CopyFrom(made)
        else:
            proto.attribute.append(made)


def _value_info(tensor: gs.Tensor, original: onnx.ValueInfoProto | None) -> onnx.ValueInfoProto:
    """A graph end that a patch brought or changed; doc strings and denotations of the original stay."""
    import onnx
    from onnx import helper

    value = onnx.ValueInfoProto()
    if original is not None:
        value.CopyFrom(original)
    value.name = tensor.name
    kind = getattr(tensor, "dtype", None)
    if kind is not None:
        shape = getattr(tensor, "shape", None)
        elem = kind if isinstance(kind, int) else helper.np_dtype_to_tensor_dtype(kind)
        made = helper.make_tensor_type_proto(elem, None if shape is None else list(shape))
        value.type.tensor_type.CopyFrom(made.tensor_type)
    return value
