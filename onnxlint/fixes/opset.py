"""Raise a model to a newer operator set, exactly.

Works on the skeleton: nodes change where an operator's form or meaning did (`opset_changes`), everything else stays as it
is, byte for byte, and weights are not read. A model that cannot be converted exactly is refused.

`onnx.version_converter` does the same with less care: of 383 conversions to opset 11 and 17 of models of one operator each
(fixtures/old_operators.py), 41 compute other numbers (Upsample, Resize, Hardmax) and 14 do not load (Clip, Pad); here none.
benchmarks/opset.py measures that; these numbers are of onnx 1.23.2 and onnxruntime 1.32.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset_body import MISUSED
from onnxlint.fixes.opset_changes import CHANGES, NEWEST, OLDEST, STEPS
from onnxlint.graph.dims import Shape
from onnxlint.graph.view import STANDARD_DOMAINS, Graph, GraphView
from onnxlint.symbolic.engine import MISUSE
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["NEWEST", "OLDEST", "Conversion", "convert", "raise_opset"]


@dataclass(frozen=True)
class Conversion:
    """A model in a newer operator set.

    Attributes:
        proto: The new skeleton; the original object where nothing had to change.
        notes: What the user should know, one line each.
        exact: Whether runtimes give the same bits; if not, results are equal within rounding, and a note says why.
    """

    proto: onnx.ModelProto
    notes: tuple[str, ...]
    exact: bool


def convert(view: GraphView, version: int) -> onnx.ModelProto:
    """The skeleton of a model at a newer operator set: `raise_opset` for those who need no notes."""
    return raise_opset(view, version).proto


def raise_opset(view: GraphView, version: int) -> Conversion:
    """Raise a model to a newer version of the standard operator set.

    Args:
        view: The model; it is not changed.
        version: Of the operator set, `OLDEST` to `NEWEST`.

    Raises:
        OnnxlintError: It cannot be done exactly; the message is one line and names the node.
    """
    import onnx
    from onnx import defs, helper

    path = printable(view.model.path)
    newest = min(NEWEST, defs.onnx_opset_version())
    if version > newest:
        raise OnnxlintError(f"{path}: opset {version} is not supported; {newest} is the newest")
    if version == view.opset:
        return Conversion(view.proto, (), True)
    if version < view.opset:
        raise OnnxlintError(f"{path}: it has opset {view.opset}, and can only be raised; leave out --opset {version}")
    if view.opset == 0:
        raise OnnxlintError(
            f"{path}: it has no standard operators, so there is no opset to raise; leave out --opset {version}"
        )
    if view.opset < OLDEST:
        raise OnnxlintError(
            f"{path}: opset {view.opset} is too old to be raised exactly ({OLDEST} and later can be); export the model again"
        )
    if view.proto.training_info:
        raise OnnxlintError(f"{path}: it has training_info, which cannot be raised; export the model for inference")
    proto = onnx.ModelProto()
    proto.CopyFrom(view.proto)
    work = _Work(view, proto, version)
    work.graph(view.main, proto.graph, view.opset)
    tops = [graph for graph in view.graphs if graph.is_function]
    for function, top in zip(proto.functions, tops, strict=True):
        old = _version_of(function.opset_import)
        if 0 < old < version:
            if old < OLDEST:
                raise OnnxlintError(f"{path}: {printable(top.path)} has opset {old}, which is too old to be raised")
            work.graph(top, function, old)
            _set_version(function.opset_import, version)
    work.sweep()
    _set_version(proto.opset_import, version)
    needed = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    if proto.ir_version < 4 <= needed:
        _fix_initializers(proto, work)
    proto.ir_version = max(proto.ir_version, needed)
    return Conversion(proto, tuple(work.notes), work.exact)


def _version_of(imports: Sequence[onnx.OperatorSetIdProto]) -> int:
    return max((entry.version for entry in imports if entry.domain in STANDARD_DOMAINS), default=0)


def _set_version(imports: Sequence[onnx.OperatorSetIdProto], version: int) -> None:
    for entry in imports:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = version


def _fix_initializers(proto: onnx.ModelProto, work: _Work) -> None:
    """Until IR version 4 initializers had to be listed as inputs; from then on that lets callers override them."""
    names = {tensor.name for tensor in proto.graph.initializer}
    before = len(proto.graph.input)
    _keep(proto.graph.input, lambda value: value.name not in names)
    count = before - len(proto.graph.input)
    if count:
        work.note(
            f"{count} initializer{'s are' if count > 1 else ' is'} no longer listed as input{'s' * (count > 1)}: this was "
            "required before IR version 4, and would let callers override them now"
        )


class _Work:
    """One conversion.

    Attributes:
        notes: For the user, in order, each once.
        exact: See `Conversion`.
    """

    def __init__(self, view: GraphView, proto: onnx.ModelProto, target: int) -> None:
        self.view = view
        self.proto = proto
        self.target = target
        self.notes: list[str] = []
        self.exact = True
        self._names: set[str] | None = None
        self._node_names: set[str] | None = None
        self._released: set[str] = set()
        self._dropped: set[str] = set()
        self._lone_float: int | None = None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def graph(self, graph: Graph, proto: Any, old: int) -> None:
        """Convert a graph or function, with all that is nested in it."""
        for child in graph.children:
            assert child.parent_node is not None
            self.graph(child, _body(proto.node[child.parent_node.index], child), old)
        place = _Place(self, graph, proto)
        nodes: list[onnx.NodeProto] = []
        is_longer = False
        known: dict[str, bool] = {}
        for node in proto.node:
            if node.domain not in STANDARD_DOMAINS:
                nodes.append(node)
                continue
            op = node.op_type
            if op not in known:
                known[op] = _exists(op, old)
            if not known[op]:
                raise place.fail(node, f"opset {old} has no such operator")
            if op not in CHANGES or CHANGES[op][-1] <= old:
                nodes.append(node)
                continue
            before = len(nodes)
            try:
                nodes += self._upgraded(node, old, place)
            except MISUSE:
                raise place.fail(node, MISUSED) from None
            is_longer = is_longer or len(nodes) != before + 1
        if is_longer or place.prelude:
            copies = [type(node).FromString(node.SerializeToString()) for node in (*place.prelude, *nodes)]
            del proto.node[:]
            proto.node.extend(copies)

    def _upgraded(self, node: onnx.NodeProto, old: int, place: _Place) -> Iterator[onnx.NodeProto]:
        op = node.op_type
        for version in CHANGES.get(op, ()):
            step = STEPS.get((op, version)) if old < version <= self.target else None
            replaced = None if step is None else step(node, place)
            if replaced is not None:
                for other, its_version in replaced:
                    yield from self._upgraded(other, its_version, place)
                return
        yield node

    def fresh(self, base: str) -> str:
        if self._names is None:
            self._names = {""}
            for graph in self.view.graphs:
                self._names.update(graph.inputs, graph.initializers, graph.outputs, graph.sparse_initializers)
                for node in graph.nodes:
                    self._names.update(node.inputs, node.outputs)
        name = _unused(base, self._names)
        self._names.add(name)
        return name

    def fresh_node(self, base: str) -> str:
        if self._node_names is None:
            self._node_names = {node.name for node in self.view.nodes()}
        name = _unused(base, self._node_names)
        self._node_names.add(name)
        return name

    def lone_float(self) -> int:
        """The only floating-point type that the model can have; 0 if there may be several."""
        if self._lone_float is None:
            self._lone_float = _lone_float(self.view)
        return self._lone_float

    def release(self, name: str) -> None:
        self._released.add(name)

    def drop(self, name: str) -> None:
        self._dropped.add(name)

    def sweep(self) -> None:
        """Remove constants that the conversion left unused, and declarations of removed values."""
        if self._released:
            gone = self._released - _read_names(self.proto)
            _keep(self.proto.graph.initializer, lambda tensor: tensor.name not in gone)
            _keep(self.proto.graph.input, lambda value: value.name not in gone)
            _keep(self.proto.graph.node, lambda node: node.op_type != "Constant" or node.output[0] not in gone)
            self._dropped |= gone
        if self._dropped:
            for graph in _graphs(self.proto):
                _keep(graph.value_info, lambda value: value.name not in self._dropped)


class _Place:
    """Where a node stands: what the steps of `opset_changes` see of a conversion."""

    def __init__(self, work: _Work, graph: Graph, proto: Any) -> None:
        self.work = work
        self.graph = graph
        self.proto = proto
        self.target = work.target
        self.prelude: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._values: dict[str, npt.NDArray[np.generic]] = {}
        # Constants are initializers, unless the graph keeps its own as nodes.
        self._as_nodes = graph.is_function or (
            not graph.initializers and any(node.op == "Constant" for node in graph.nodes)
        )

    def fail(self, node: onnx.NodeProto, why: str) -> OnnxlintError:
        name = printable(node.name) or next((printable(output) for output in node.output if output), "")
        inside = "" if self.graph is self.work.view.main else f" in {printable(self.graph.path)}"
        return OnnxlintError(
            f"{printable(self.work.view.model.path)}: {printable(node.op_type)} {name!r}{inside} cannot be raised to opset "
            f"{self.target}: {why}"
        )

    def value(self, name: str) -> npt.NDArray[np.generic] | None:
        if not name:
            return None
        known = self._values.get(name)
        return self.graph.constant(name) if known is None else known

    def shape(self, name: str) -> Shape | None:
        return self.graph.shape(name) if name else None

    def dtype(self, name: str) -> int:
        if not name:
            return 0
        return self.graph.dtype(name) or self.work.lone_float()

    def enlarges(self, name: str) -> bool:
        from onnxlint.symbolic.sizes import lower_bound
        from onnxlint.symbolic.values import Quotient

        value = exact_sizes(self.work.view).value(self.graph, name) if name else None
        if value is None:
            return False
        for number in value.numbers:
            if number is None:
                return False
            excess = number.num - number.den if isinstance(number, Quotient) else number - 1
            bound = lower_bound(excess)
            if bound is None or bound < 0:
                return False
        return True

    def is_used(self, name: str) -> bool:
        return self.graph.is_output(name) or bool(self.graph.consumers(name))

    def constant(self, base: str, values: npt.NDArray[np.generic]) -> str:
        from onnx import helper, numpy_helper

        key = (str(values.dtype), values.shape, values.tobytes())
        name = self._constants.get(key)
        if name is None:
            numbers = values.reshape(-1).tolist()
            is_short = values.dtype.kind == "i" and len(numbers) <= 4
            name = self.work.fresh("_".join([base, *(str(n).replace("-", "m") for n in numbers if is_short)]))
            self._constants[key] = name
            self._values[name] = values
            tensor = numpy_helper.from_array(values, name)
            if self._as_nodes:
                self.prelude.append(helper.make_node("Constant", [], [name], self.work.fresh_node(name), value=tensor))
            else:
                self.proto.initializer.append(tensor)
        return name

    def made(
        self, like: onnx.NodeProto, op: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> onnx.NodeProto:
        from onnx import helper

        base = f"{like.name}_{op.lower()}" if like.name else ""
        node = helper.make_node(op, list(inputs), [output], self.work.fresh_node(base) if base else None, **attributes)
        node.doc_string = like.doc_string
        node.metadata_props.extend(like.metadata_props)
        return node

    def fresh(self, base: str) -> str:
        return self.work.fresh(base)

    def note(self, text: str) -> None:
        self.work.note(text)

    def rounds(self, text: str) -> None:
        self.work.note(text)
        self.work.exact = False

    def released(self, name: str) -> None:
        self.work.release(name)

    def dropped(self, name: str) -> None:
        self.work.drop(name)


def _unused(base: str, names: set[str]) -> str:
    name, i = base, 0
    while name in names:
        i += 1
        name = f"{base}_{i}"
    return name


def _exists(op: str, version: int) -> bool:
    from onnx import defs

    try:
        schema = defs.get_schema(op, version, "")
    except defs.SchemaError:
        return False
    return not schema.deprecated or any(version < later for later in CHANGES.get(op, ()))


def _body(node: onnx.NodeProto, child: Graph) -> onnx.GraphProto:
    """The message of a nested graph in a copy of its model."""
    label = child.path.rsplit(".", 1)[1]
    for attribute in node.attribute:
        if attribute.HasField("g") and attribute.name == label:
            return attribute.g
        for k, body in enumerate(attribute.graphs):
            if f"{attribute.name}[{k}]" == label:
                return body
    raise KeyError(label)


def _lone_float(view: GraphView) -> int:
    """FLOAT, where a model can have no other floating-point type; else 0."""
    from onnxlint.model.skeleton import walk_tensors

    if any("::" in op for op in view.ops):
        return 0
    kinds = {tensor.data_type for tensor in walk_tensors(view.proto)}
    for value in view.proto.graph.input:
        if not value.type.HasField("tensor_type"):
            return 0
        kinds.add(value.type.tensor_type.elem_type)
    for node in view.nodes():
        for attribute in node.proto.attribute:
            if attribute.name in ("to", "dtype", "output_dtype", "output_datatype"):
                kinds.add(attribute.i)
            elif attribute.name in ("value_float", "value_floats"):
                kinds.add(1)
    # What operators make without being told is FLOAT too.
    return 1 if kinds & {1, 10, 11, 16} == {1} else 0


def _graphs(proto: onnx.ModelProto) -> Iterator[Any]:
    """All graphs and functions of a model."""
    pending: list[Any] = [proto.graph, *proto.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _read_names(proto: onnx.ModelProto) -> set[str]:
    names: set[str] = set()
    for graph in _graphs(proto):
        for node in graph.node:
            names.update(node.input)
        names.update(getattr(value, "name", value) for value in graph.output)
    return names


def _keep(messages: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [message for message in messages if wanted(message)]
    if len(kept) < len(messages):
        copies = [type(message).FromString(message.SerializeToString()) for message in kept]
        del messages[:]
        messages.extend(copies)
