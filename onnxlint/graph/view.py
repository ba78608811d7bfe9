"""GraphView: a read-only index over a model's skeleton. What rules read.

Building it takes one pass over the nodes. What costs more (inferred shapes, distances to the outputs) is made when a rule
first asks for it, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from onnxlint.errors import OnnxlintError
from onnxlint.graph.attributes import all_values, chosen, first_values, nested_graphs
from onnxlint.graph.constants import Numbers, array_of, constant_holder, numbers_of
from onnxlint.graph.dims import Shape, is_invented, type_of
from onnxlint.graph.disputed import Place, contradicted_nodes, disputed_nodes, rounding_resizes
from onnxlint.graph.location import Location
from onnxlint.graph.onnx_inference import GRAPH_OPS, OnnxInference, infer, without_claims
from onnxlint.graph.order import nearest_outputs, topological_order
from onnxlint.graph.source import Sources
from onnxlint.model.assumptions import combined_multiples
from onnxlint.model.skeleton import Model
from onnxlint.text import listed, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")

_NAME = attrgetter("name")


class Node:
    """One node in its graph.

    Attributes:
        proto: The NodeProto.
        graph: The graph that it is in.
        index: Its position there, 0-based.
        op: Operator type; `domain::type` outside the standard domain, so that `Resize` always means ONNX's.
        inputs: Input names; empty if an optional input is left out.
        outputs: Output names.
    """

    __slots__ = ("_attributes", "graph", "index", "inputs", "op", "outputs", "proto")

    def __init__(self, proto: onnx.NodeProto, graph: Graph, index: int) -> None:
        self.proto = proto
        self.graph = graph
        self.index = index
        domain = proto.domain
        self.op: str = proto.op_type if domain in STANDARD_DOMAINS else f"{domain}::{proto.op_type}"
        self.inputs: tuple[str, ...] = tuple(proto.input)
        self.outputs: tuple[str, ...] = tuple(proto.output)
        self._attributes: dict[str, Any] | None = None  # read when one is first asked for

    def __repr__(self) -> str:
        return f"<{self.op} {self.name!r} in {self.graph.path}>"

    @property
    def name(self) -> str:
        """The node's name; empty if it has none."""
        return self.proto.name

    @property
    def label(self) -> str:
        """Its name; where it has none that of its output, or its number."""
        return self.name or self.output() or f"#{self.index}"

    def input(self, i: int) -> str:
        """Name of input `i`; empty if it is absent."""
        return self.inputs[i] if i < len(self.inputs) else ""

    def output(self, i: int = 0) -> str:
        """Name of output `i`; empty if it is absent."""
        return self.outputs[i] if i < len(self.outputs) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, see `chosen`: int, float, str, list, TensorProto or GraphProto."""
        return chosen(self._held(), name, default)

    def attributes(self) -> dict[str, Any]:
        """Values of all attributes by name; cheaper than several calls of `attribute`."""
        return all_values(self.proto, self._held())

    def _held(self) -> dict[str, Any]:
        if self._attributes is None:
            self._attributes = first_values(self.proto)
        return self._attributes

    def producer(self, i: int) -> Node | None:
        """The node that makes input `i`; None for graph inputs, initializers and absent inputs."""
        name = self.input(i)
        return self.graph.producer(name) if name else None

    def constant(self, i: int) -> npt.NDArray[np.generic] | None:
        """Value of input `i` where it is a small constant (see `Graph.constant`)."""
        name = self.input(i)
        return self.graph.constant(name) if name else None

    def numbers(self, i: int) -> Numbers | None:
        """Value of input `i` where it is a small constant, as plain numbers (see `Graph.numbers`)."""
        name = self.input(i)
        return self.graph.numbers(name) if name else None

    def shape(self, i: int) -> Shape | None:
        """Inferred shape of input `i`; None if its rank is unknown."""
        name = self.input(i)
        return self.graph.shape(name) if name else None

    def output_shape(self, i: int = 0) -> Shape | None:
        """Inferred shape of output `i`; None if its rank is unknown."""
        name = self.output(i)
        return self.graph.shape(name) if name else None

    def consumers(self) -> list[Node]:
        """Nodes that read any output, those in nested graphs included."""
        return [user for name in self.outputs if name for user in self.graph.consumers(name)]


class Graph:
    """A graph and its index: the main graph, the body of an If/Loop/Scan, or a function.

    Attributes:
        path: `graph`, `graph/<node>.<attribute>` or `function:<domain>.<name>`.
        proto: GraphProto, or FunctionProto for a function.
        parent: The graph around a nested one; names not found here are looked up there.
        outermost: The main graph or function that it is, or is nested in.
        parent_node: The If/Loop/Scan that this graph is the body of.
        nodes: In the order of the file.
        initializers: By name.
        inputs: Names; for the main graph including initializers that are listed as inputs.
        outputs: Names.
        is_sorted: Whether every node stands after those that it reads.
    """

    def __init__(
        self,
        view: GraphView,
        proto: onnx.GraphProto | onnx.FunctionProto,
        path: str,
        parent: Graph | None = None,
        parent_node: Node | None = None,
    ) -> None:
        self.view = view
        self.proto = proto
        self.path = path
        self.parent = parent
        self.outermost: Graph = self if parent is None else parent.outermost
        self.parent_node = parent_node
        self.is_function = not hasattr(proto, "initializer")
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.sparse_initializers: dict[str, onnx.SparseTensorProto] = {}
        if self.is_function:
            self.inputs: list[str] = list(proto.input)  # type: ignore[arg-type]
            self.outputs: list[str] = list(proto.output)  # type: ignore[arg-type]
        else:
            self.inputs = [value.name for value in proto.input]  # type: ignore[union-attr]
            self.outputs = [value.name for value in proto.output]  # type: ignore[union-attr]
            self.initializers = {t.name: t for t in proto.initializer}  # type: ignore[union-attr]
            self.sparse_initializers = {s.values.name: s for s in proto.sparse_initializer}  # type: ignore[union-attr]
        self._producers: dict[str, Node] = {}
        self._consumers: dict[str, list[Node]] = {}
        self._constants: dict[str, npt.NDArray[np.generic] | None] = {}
        self._numbers: dict[str, Numbers | None] = {}
        self.children: list[Graph] = []
        self.nodes: list[Node] = self._index(proto.node)

    def _index(self, protos: Sequence[onnx.NodeProto]) -> list[Node]:
        nodes = [Node(proto, self, i) for i, proto in enumerate(protos)]
        producers, consumers = self._producers, self._consumers
        unresolved: set[str] = set()
        own = set(self.inputs)
        own.update(self.initializers, self.sparse_initializers)
        for node in nodes:
            for name in node.inputs:
                users = consumers.get(name)
                if users is None:
                    consumers[name] = [node]
                    if name not in producers and name not in own:
                        unresolved.add(name)
                elif users[-1] is not node:
                    users.append(node)
            for name in node.outputs:
                producers.setdefault(name, node)
        producers.pop("", None)
        consumers.pop("", None)
        unresolved.discard("")
        self.is_sorted = producers.keys().isdisjoint(unresolved)
        for name in unresolved:
            if self.parent is not None and name not in producers:
                self._capture(name, consumers[name])
        return nodes

    def _capture(self, name: str, users: list[Node]) -> None:
        graph: Graph | None = self.parent
        while graph is not None:
            if name in graph._producers or graph.parent is None or graph.owns(name):
                graph._consumers.setdefault(name, []).extend(users)
                return
            graph = graph.parent

    def owns(self, name: str) -> bool:
        """Whether this graph itself defines a value: as input, initializer or node output."""
        return (
            name in self._producers
            or name in self.initializers
            or name in self.inputs
            or name in self.sparse_initializers
        )

    def owner(self, name: str) -> Graph | None:
        """The innermost graph, from this one outwards, that defines `name`."""
        graph: Graph | None = self
        while graph is not None and not graph.owns(name):
            graph = graph.parent
        return graph

    def producer(self, name: str) -> Node | None:
        """The node that makes a value, here or in an outer graph; None for inputs and initializers."""
        node = self._producers.get(name)
        if node is not None or self.parent is None or self.owns(name):
            return node
        return self.parent.producer(name)

    def consumers(self, name: str) -> list[Node]:
        """Nodes that read a value that this graph defines, those in nested graphs included."""
        return self._consumers.get(name, [])

    def read_names(self) -> set[str]:
        """Values that nodes or the outputs of this graph read, and those of this graph that nested ones read."""
        return {*self._consumers, *self.outputs}

    def is_output(self, name: str) -> bool:
        """Whether a value is one of the graph's outputs."""
        return name in self._output_set

    @cached_property
    def _output_set(self) -> frozenset[str]:
        return frozenset(self.outputs)

    @cached_property
    def data_inputs(self) -> list[str]:
        """Inputs that are not initializers: the ones that a user feeds."""
        return [name for name in self.inputs if name not in self.initializers]

    @cached_property
    def order(self) -> list[Node]:
        """Nodes in topological order.

        Raises:
            OnnxlintError: The graph has a cycle.
        """
        if self.is_sorted:
            return self.nodes
        order, stuck = topological_order([node.inputs for node in self.nodes], [node.outputs for node in self.nodes])
        if stuck:
            some = [self.nodes[i] for i in stuck]
            names = listed([printable(node.name or f"{node.op} #{node.index}") for node in some], 3)
            raise OnnxlintError(
                f"{printable(self.view.model.path)}: the graph has a cycle through {names}; "
                "no runtime can execute it: export the model again"
            )
        return [self.nodes[i] for i in order]

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """A small constant's value: an initializer, a Constant node or an Identity of one.

        None for anything else, for tensors whose data stayed in the file (`skeleton.LARGE` bytes and more), and
        for initializers that a caller may override (IR version 4 and up, listed as inputs).
        """
        if name not in self._constants:
            self._constants[name] = array_of(constant_holder(self, name))
        return self._constants[name]

    def numbers(self, name: str) -> Numbers | None:
        """The value of a small constant as plain Python numbers; None as for `constant`, and for other types than
        numbers and truth values. For rules that look at every model: it does not import NumPy.
        """
        if name not in self._numbers:
            self._numbers[name] = numbers_of(constant_holder(self, name))
        return self._numbers[name]

    def is_constant(self, name: str) -> bool:
        """Whether a value is an initializer or comes from a Constant node, of any size."""
        graph: Graph | None = self
        while graph is not None:
            if name in graph.initializers or name in graph.sparse_initializers:
                return True
            if name in graph._producers:
                return graph._producers[name].op == "Constant"
            graph = None if name in graph.inputs else graph.parent
        return False

    def shape(self, name: str) -> Shape | None:
        """Inferred shape: from declared inputs, initializers and operators alone; None if the rank is unknown."""
        return self.view.inferred(self, name)[1]

    def dtype(self, name: str) -> int:
        """Inferred element type (onnx.TensorProto.DataType); 0 if it is unknown."""
        return self.view.onnx_inferred(self, name)[0]

    def declared_shape(self, name: str) -> Shape | None:
        """The shape that the file claims for a value (value_info, outputs); a claim, not a fact."""
        entry = self.view.declared(self).get(name)
        return entry[1] if entry else None


class ShapeInference(Protocol):
    """Shapes of values, found by other means than onnx's inference."""

    def shape(self, graph: Graph, name: str) -> tuple[object, ...] | None:
        """Sizes of a value: numbers, and expressions that `str` makes symbols of; None if the rank is unknown."""


class GraphView:
    """A read-only index over a model.

    Args:
        refine: Gives the inference that completes the shapes that onnx's loses (`onnxlint.symbolic.view.make_view`).

    Attributes:
        model: The opened model.
        main: The main graph.
        graphs: The main graph, then nested ones in order of appearance, then functions and what is nested in them.
        opset: Version of the standard operator set; 0 if the model imports none.
        multiples: Assumptions: symbol of an input → number that it is a multiple of.
        allow_empty: Whether proofs have to hold for inputs with sizes of 0, too.
    """

    def __init__(
        self,
        model: Model,
        sources: Sources | None = None,
        multiples: tuple[tuple[str, int], ...] = (),
        refine: Callable[[GraphView], ShapeInference] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.model = model
        self.proto = model.proto
        self.sources = sources or Sources()
        self.multiples = combined_multiples(multiples)
        self.allow_empty = allow_empty
        self._refine = refine
        self.memo: dict[str, Any] = {}  # what rules share about this model, made once; keys are theirs
        self._by_op: dict[str, list[Node]] = {}
        self._nearest: dict[int, dict[int, str]] = {}
        self._declared: dict[int, dict[str, tuple[int, Shape | None]]] = {}
        self.main = Graph(self, self.proto.graph, "graph")
        self.graphs: list[Graph] = []
        self._enter(self.main)
        for function in self.proto.functions:
            overload = f":{function.overload}" if function.overload else ""
            path = f"function:{function.domain}.{function.name}{overload}"
            self._enter(Graph(self, function, path))
        for graph in self.graphs:
            if not graph.is_sorted:
                _ = graph.order  # a cycle is an error here, not in the middle of a rule

    def _enter(self, top: Graph) -> None:
        pending = [(top, 0)]
        while pending:
            graph, depth = pending.pop()
            self.graphs.append(graph)
            by_op = self._by_op
            nested: list[Graph] = []
            for node in graph.nodes:
                op = node.op
                nodes = by_op.get(op)
                if nodes is None:
                    by_op[op] = [node]
                else:
                    nodes.append(node)
                if op in GRAPH_OPS or "::" in op:
                    for label, body in nested_graphs(node.proto):
                        path = f"{graph.path}/{node.name or f'{op} #{node.index}'}.{label}"
                        nested.append(Graph(self, body, path, parent=graph, parent_node=node))
            graph.children = nested
            pending.extend((child, depth + 1) for child in reversed(nested))

    @cached_property
    def opset(self) -> int:
        """Imported version of the standard operator set; 0 if there is none."""
        return self.opset_of("")

    def opset_of(self, domain: str) -> int:
        """Imported version of a domain; 0 if the model does not import it. Never more than onnx can be asked about."""
        return self._opsets.get("" if domain in STANDARD_DOMAINS else domain, 0)

    @cached_property
    def _opsets(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.proto.opset_import:
            domain = "" if entry.domain in STANDARD_DOMAINS else entry.domain
            found[domain] = max(found.get(domain, 0), min(entry.version, 2**31 - 1))
        return found

    def nodes(self, *ops: str) -> Iterator[Node]:
        """Nodes of the given operators (all where none is given), graph by graph, in the order of the file."""
        if not ops:
            for graph in self.graphs:
                yield from graph.nodes
        elif len(ops) == 1:
            yield from self._by_op.get(ops[0], ())
        else:
            found = [node for op in ops for node in self._by_op.get(op, ())]
            order = {id(graph): i for i, graph in enumerate(self.graphs)}
            found.sort(key=lambda node: (order[id(node.graph)], node.index))
            yield from found

    @property
    def ops(self) -> Iterable[str]:
        """Operators in use."""
        return self._by_op.keys()

    def array(self, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
        """Value of any tensor, read from the file where it has to be: only for rules that need weights."""
        return self.model.array(tensor)

    def raw(self, tensor: onnx.TensorProto) -> memoryview | None:
        """The bytes of a tensor whose raw data stayed in the model file, without NumPy; None for all others."""
        return self.model.raw(tensor)

    # Shapes

    def declared(self, graph: Graph) -> dict[str, tuple[int, Shape | None]]:
        """What the file claims: name → (element type, shape), from inputs, outputs and value_info."""
        known = self._declared.get(id(graph))
        if known is None:
            known = {}
            proto: Any = graph.proto
            for values in (proto.value_info,) if graph.is_function else (proto.value_info, proto.output, proto.input):
                for value in values:
                    known[value.name] = type_of(value)
            self._declared[id(graph)] = known
        return known

    def inferred(self, graph: Graph, name: str) -> tuple[int, Shape | None]:
        """(element type, shape) of a value as inference finds them, looked up outwards through the graphs.

        Ranks that onnx's inference loses, and in a model that computes shapes also sizes, are those of symbolic
        inference: numbers, symbols of the inputs, or expressions of them (`ceil(h/16)`).
        """
        kind, shape = self.onnx_inferred(graph, name)
        if self._refine and (shape is None or (self._has_sizes and any(is_invented(dim) for dim in shape))):
            sizes = self._refine(self).shape(graph, name)
            if sizes is not None:
                return kind, tuple(size if isinstance(size, int) else str(size) for size in sizes)
        return kind, shape

    @cached_property
    def _has_sizes(self) -> bool:
        """Whether symbolic inference may know sizes that onnx's inference does not."""
        return "Shape" in self._by_op or "Size" in self._by_op or bool(self._rounding_resizes)

    @cached_property
    def _rounding_resizes(self) -> list[tuple[Place, int]]:
        return rounding_resizes(self)

    def onnx_inferred(self, graph: Graph, name: str) -> tuple[int, Shape | None]:
        """(element type, shape) of a value as `onnx.shape_inference` finds them, without the file's claims."""
        here: Graph | None = graph
        while here is not None:
            known = self._inferred[id(here)]
            entry = known.get(name)
            if entry is not None:
                if not isinstance(entry, tuple):
                    entry = known[name] = type_of(entry)
                return entry
            tensor = here.initializers.get(name)
            if tensor is not None:
                return tensor.data_type, tuple(tensor.dims)
            if here.owns(name):
                return 0, None
            here = here.parent
        return 0, None

    def element_types(self, graph: Graph) -> dict[str, int]:
        """Element type (onnx.TensorProto.DataType; 0: unknown) of each value of a graph that has an inferred one.

        One pass that makes no shapes: for rules that look at every value.
        """
        types = {name: tensor.data_type for name, tensor in graph.initializers.items()}
        for name, entry in self._inferred[id(graph)].items():
            types[name] = entry[0] if isinstance(entry, tuple) else entry.type.tensor_type.elem_type
        return types

    def rankless(self, graph: Graph) -> list[str]:
        """Values that nodes of a graph make and whose rank cannot be inferred, in the order of the file."""
        known = self._inferred[id(graph)]
        lost = []
        for node in graph.nodes:
            for name in node.outputs:
                entry = known.get(name)
                has_rank = entry is not None and (
                    entry[1] is not None if isinstance(entry, tuple) else entry.type.tensor_type.HasField("shape")
                )
                if not has_rank and name and self.inferred(graph, name)[1] is None:
                    lost.append(name)
        return lost

    @cached_property
    def _inference(self) -> OnnxInference:
        disputed = disputed_nodes(self)
        found = infer(self.proto, self._rounding_resizes, disputed)
        wrong = contradicted_nodes(self, found.model.graph)
        return infer(self.proto, self._rounding_resizes, [*disputed, *wrong]) if wrong else found

    @cached_property
    def _inferred(self) -> dict[int, dict[str, tuple[int, Shape | None] | onnx.ValueInfoProto]]:
        known: dict[int, dict[str, tuple[int, Shape | None] | onnx.ValueInfoProto]] = {
            id(graph): {} for graph in self.graphs
        }
        pairs: list[tuple[Graph, Any]] = [(self.main, self._inference.model.graph)]
        while pairs:
            graph, proto = pairs.pop()
            values = known[id(graph)]
            for group in (proto.output, proto.value_info, proto.input):
                values.update(zip(map(_NAME, group), group, strict=True))
            for child in graph.children:
                assert child.parent_node is not None
                bodies = dict(nested_graphs(proto.node[child.parent_node.index]))
                body = bodies.get(child.path.rsplit(".", 1)[1])
                if body is not None:
                    pairs.append((child, body))
        return known

    @property
    def is_contradictory(self) -> bool:
        """Whether strict inference refuses the model, whatever shapes the file declares for computed values."""
        return self._inference.refused

    @property
    def inference_error(self) -> str:
        """Why onnx's inference gave up, where it did; one line."""
        return self._inference.error

    @property
    def stopped(self) -> str:
        """Why onnx's inference was stopped before its end; empty if it finished, or was not requested."""
        made: OnnxInference | None = self.__dict__.get("_inference")
        return made.error if made is not None and made.stopped else ""

    def without_claims(self) -> onnx.ModelProto:
        """A copy of the model whose declared shapes are gone, but for the inputs' (which are its contract)."""
        return without_claims(self.proto)

    # Places

    def at(self, node: Node | None = None, value: str = "", graph: Graph | None = None) -> Location:
        """The location of a node, of a value (an input, output or initializer), or of the whole model."""
        if node is None:
            where = graph or self.main
            producer = where.producer(value) if value else None
            return Location(
                model=self.model.path,
                graph=where.path,
                value=value,
                scope=self.sources.scope(producer.proto) if producer else "",
                source=self.sources.lines(producer.proto) if producer else (),
            )
        scope, lines = self.sources.scope(node.proto), self.sources.lines(node.proto)
        return Location(
            model=self.model.path,
            graph=node.graph.path,
            node=node.name,
            op_type=node.op,
            index=node.index,
            value=value,
            scope=scope,
            source=lines,
            near="" if scope or lines else self.nearest_output(node),
        )

    def find(self, location: Location) -> Node:
        """The node of a location that `at` made of this model.

        Raises:
            KeyError: It is not about a node of this model.
        """
        for graph in self.graphs:
            if graph.path == location.graph and location.index is not None and location.index < len(graph.nodes):
                return graph.nodes[location.index]
        raise KeyError(location.place)

    def nearest_output(self, node: Node) -> str:
        """The graph output that the fewest nodes separate from `node`; empty if none depends on it."""
        while node.graph.parent_node is not None:
            node = node.graph.parent_node
        return self._nearest_outputs(node.graph).get(node.index, "")

    def _nearest_outputs(self, graph: Graph) -> dict[int, str]:
        if id(graph) not in self._nearest:
            reads, makes = [node.inputs for node in graph.nodes], [node.outputs for node in graph.nodes]
            self._nearest[id(graph)] = nearest_outputs(graph.outputs, reads, makes)
        return self._nearest[id(graph)]
