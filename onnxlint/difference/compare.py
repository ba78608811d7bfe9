"""Compare two opened models: interface, operators, nodes and weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.difference.align import Alignment, align
from onnxlint.difference.constants import Constant, all_constants, constant_of, is_operand, type_text
from onnxlint.difference.result import Change, Detail, ModelDiff, NodeChange, Sizes, Weights
from onnxlint.difference.weights import Pair, compare_weights
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.lint.excerpt import around

if TYPE_CHECKING:
    import onnx

SHOWN = 200
"""Characters of an attribute's value that are shown at most."""

_MADE_UP = re.compile(r"\w+_dim_\d+|unk__\d+|\?|None|-1")

PICTURES, PICTURES_OF_A_MODULE = 60, 3
"""Changed nodes that are drawn at most: in all, and of one module."""


def compare_views(old: GraphView, new: GraphView, pictures: bool = False) -> ModelDiff:
    """What differs between two models, without their findings.

    Args:
        old, new: The models.
        pictures: Whether the graph around the first changed nodes is kept, for reports that draw it.
    """
    graphs = list(_graph_pairs(old, new))
    changed: list[_Changed] = []
    weights = _Weights()
    unaligned = False
    for _, after, alignment in graphs:
        changed += _node_changes(after, alignment, weights)
        unaligned |= alignment.gave_up
    matched = {id(graph) for before, after, _ in graphs for graph in (before, after)}
    changed += [_removed(node) for node in _unmatched(old, matched)]
    changed += [_added(node) for node in _unmatched(new, matched)]
    nodes = [change for change, _, _ in changed]
    if pictures:
        nodes = _with_pictures(changed)
    return ModelDiff(
        old.model.path,
        new.model.path,
        tuple(_header(old, new)),
        (sizes(old), sizes(new)),
        (old.opset, new.opset),
        _operators(old, new),
        tuple(nodes),
        weights.compared(old, new),
        unaligned=unaligned,
    )


def _graph_pairs(old: GraphView, new: GraphView) -> Iterator[tuple[Graph, Graph, Alignment]]:
    """Graphs that stand for each other, outermost first: the main ones, functions of one name, bodies of paired nodes."""
    pending: list[tuple[Graph, Graph, dict[str, str]]] = [(old.main, new.main, same_inputs(old.main, new.main))]
    functions = {graph.path: graph for graph in new.graphs if graph.is_function}
    for graph in old.graphs:
        if graph.is_function and graph.path in functions:
            other = functions[graph.path]
            pending.append((graph, other, dict(zip(graph.inputs, other.inputs, strict=False))))
    while pending:
        before, after, inputs = pending.pop(0)
        alignment = align(before, after, inputs)
        yield before, after, alignment
        bodies = {(child.parent_node, _label(child)): child for child in after.children}
        for child in before.children:
            other_node = alignment.pairs.get(child.parent_node) if child.parent_node is not None else None
            body = bodies.get((other_node, _label(child)))
            if body is not None:
                pending.append((child, body, dict(zip(child.inputs, body.inputs, strict=False))))


def _label(graph: Graph) -> str:
    return graph.path.rsplit(".", 1)[-1]


def same_inputs(old: Graph, new: Graph) -> dict[str, str]:
    """Old input → new input: by name, and those that are left by order and rank."""
    known = {name: name for name in old.data_inputs if name in new.data_inputs}
    left = [name for name in old.data_inputs if name not in known]
    free = [name for name in new.data_inputs if name not in known]
    for name in left:
        shape = old.shape(name)
        rank = None if shape is None else len(shape)
        other = next((x for x in free if rank == (None if (s := new.shape(x)) is None else len(s))), None)
        if other is not None:
            known[name] = other
            free.remove(other)
    return known


# Header


def _header(old: GraphView, new: GraphView) -> Iterator[Detail]:
    inputs = same_inputs(old.main, new.main)
    outputs = same_outputs(old.main, new.main)
    yield from _ends("input", old, new, old.main.data_inputs, new.main.data_inputs, inputs)
    yield from _ends("output", old, new, old.main.outputs, new.main.outputs, outputs)
    before, after = _opsets(old.proto), _opsets(new.proto)
    for domain in sorted(before.keys() | after.keys()):
        if before.get(domain) != after.get(domain):
            yield Detail(f"opset {domain}", str(before.get(domain, "")), str(after.get(domain, "")))
    for what, one, other in (
        ("IR version", str(old.proto.ir_version), str(new.proto.ir_version)),
        ("producer", _producer(old.proto), _producer(new.proto)),
    ):
        if one != other:
            yield Detail(what, one, other)
    known = {entry.key: entry.value for entry in old.proto.metadata_props}
    now = {entry.key: entry.value for entry in new.proto.metadata_props}
    for key in sorted(known.keys() | now.keys()):
        if known.get(key) != now.get(key):
            yield Detail(f"metadata {key}", _cut(known.get(key, "")), _cut(now.get(key, "")))


def same_outputs(old: Graph, new: Graph) -> dict[str, str]:
    """Old output → new output: by name, and those that are left by place where both have equally many."""
    others = set(new.outputs)
    known = {name: name for name in old.outputs if name in others}
    left = [name for name in old.outputs if name not in known]
    free = [name for name in new.outputs if name not in known]
    return {**known, **dict(zip(left, free, strict=True))} if len(left) == len(free) else known


def _ends(
    kind: str, old: GraphView, new: GraphView, before: Sequence[str], after: Sequence[str], same: dict[str, str]
) -> Iterator[Detail]:
    met = set(same.values())
    for name in before:
        other = same.get(name)
        one = end_text(old, name)
        if other is None:
            yield Detail(kind, one, "")
        elif one != (two := end_text(new, other)):
            yield Detail(kind, one, two)
    for name in after:
        if name not in met:
            yield Detail(kind, "", end_text(new, name))
    kept = [same[name] for name in before if name in same]
    stayed = [name for name in after if name in met]
    if kept != stayed:
        yield Detail(f"order of {kind}s", ", ".join(kept), ", ".join(stayed))


def end_text(view: GraphView, name: str) -> str:
    """An input or output as the file declares it: `image float32[1, 3, H, W]`; `?` for what is not declared."""
    ends: dict[str, onnx.ValueInfoProto] | None = view.memo.get(_ENDS)
    if ends is None:
        # Where an input is an output as well, it is shown as the input is declared.
        ends = view.memo[_ENDS] = {one.name: one for one in (*view.proto.graph.output, *view.proto.graph.input)}
    value = ends.get(name)
    if value is None:
        return name
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return f"{name} ({value.type.WhichOneof('value') or 'untyped'})"
    kind = type_text(tensor.elem_type, ()).removesuffix("[]")
    if not tensor.HasField("shape"):
        return f"{name} {kind}[…]"
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else _symbol(dim.dim_param) for dim in tensor.shape.dim]
    return f"{name} {kind}[{', '.join(dims)}]"


_ENDS = "onnxlint.difference.ends"


def _symbol(name: str) -> str:
    """The name of a free size; `?` where it has none, or one that an exporter made up (`Softmax576_dim_0`)."""
    return "?" if not name or _MADE_UP.fullmatch(name) else name


def _opsets(proto: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}


def _producer(proto: onnx.ModelProto) -> str:
    return f"{proto.producer_name} {proto.producer_version}".strip()


def _operators(old: GraphView, new: GraphView) -> dict[str, int]:
    before, after = _counts(old), _counts(new)
    return {op: after[op] - before[op] for op in sorted(before.keys() | after.keys()) if after[op] != before[op]}


def _counts(view: GraphView) -> Counter[str]:
    return Counter(node.op for node in view.nodes() if node.op != "Constant")


def sizes(view: GraphView) -> Sizes:
    """Nodes, parameters and bytes of a model; external data counts with the length that the file states."""
    constants = all_constants(view)
    external = 0
    for one in constants:
        tensor = one.tensor
        if tensor is not None and tensor.data_location == 1:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            length = entries.get("length", "")
            if entries.get("location", "-") != "-" and length.isascii() and length.isdigit() and len(length) < 19:
                external += int(length)
    nodes = sum(_counts(view).values())
    return Sizes(nodes, sum(one.elements for one in constants if not one.is_small), view.model.size + external)


# Nodes


class _Weights:
    """Collects which weight of the new model stands for which of the old one."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, str], Pair] = {}
        self._used: set[tuple[int, str]] = set()

    def pair(self, old: Constant, new: Constant) -> None:
        """Note that two weights stand in the same place; the first place decides."""
        if old.key not in self._pairs and new.key not in self._used:
            self._pairs[old.key] = old, new
            self._used.add(new.key)

    def compared(self, old: GraphView, new: GraphView) -> Weights:
        """Compare them; weights that no paired nodes read are found by name, then by content."""
        gone = [one for one in _weights(old) if one.key not in self._pairs]
        came = [one for one in _weights(new) if one.key not in self._used]
        for key in (_named, Constant.signature):
            found = {key(one): one for one in reversed(came)}
            for one in gone:
                other = found.pop(key(one), None)
                if other is not None:
                    self.pair(one, other)
            gone = [one for one in gone if one.key not in self._pairs]
            came = [one for one in came if one.key not in self._used]
        return compare_weights(list(self._pairs.values()), gone, came)


def _named(constant: Constant) -> str:
    return f"{constant.graph.path} {constant.name}"


def _weights(view: GraphView) -> list[Constant]:
    return [one for one in all_constants(view) if not one.is_small]


_Changed = tuple[NodeChange, Node | None, Node | None]
"""A change with its node in the old and in the new model."""


def _node_changes(after: Graph, alignment: Alignment, weights: _Weights) -> list[_Changed]:
    """Changes in the order of the new graph; nodes that went stand after the last one that was before them."""
    gone = _gone_after(alignment)
    changes = [_removed(node) for node in gone.get(None, ())]
    for node in alignment.new:
        old = alignment.back.get(node)
        if old is None:
            changes.append(_added(node))
            continue
        details = tuple(_details(old, node, alignment, weights))
        if details:
            place = after.view.at(node)
            module = place.scope or old.graph.view.sources.scope(old.proto)
            changes.append((NodeChange(Change.CHANGED, place, node.op, module, details), old, node))
        changes += [_removed(one) for one in gone.get(node, ())]
    return changes


def _removed(node: Node) -> _Changed:
    place = node.graph.view.at(node)
    return NodeChange(Change.REMOVED, place, node.op, place.scope), node, None


def _added(node: Node) -> _Changed:
    place = node.graph.view.at(node)
    return NodeChange(Change.ADDED, place, node.op, place.scope), None, node


def _gone_after(alignment: Alignment) -> dict[Node | None, list[Node]]:
    """Nodes without a pair, by the new node that the last paired node before them became."""
    gone: dict[Node | None, list[Node]] = {}
    last: Node | None = None
    for node in alignment.old:
        last = alignment.pairs.get(node, last)
        if node not in alignment.pairs:
            gone.setdefault(last, []).append(node)
    return gone


def _details(old: Node, new: Node, alignment: Alignment, weights: _Weights) -> Iterator[Detail]:
    if old.op != new.op:
        yield Detail("operator", old.op, new.op)
    attributes = [*_attribute_changes(old, new)]
    inputs = []
    for i in range(max(len(old.inputs), len(new.inputs))):
        detail = _input_change(old, new, i, alignment, weights)
        if detail is not None:
            inputs.append(detail)
    # Newer operator sets take as inputs what were attributes (axes, pads, min, max): the same value is no change.
    moved = {one.before for one in attributes if not one.after} & {one.after for one in inputs if not one.before}
    back = {one.after for one in attributes if not one.before} & {one.before for one in inputs if not one.after}
    yield from (
        one for one in attributes if (one.after or one.before not in moved) and (one.before or one.after not in back)
    )
    yield from (
        one for one in inputs if (one.before or one.after not in moved) and (one.after or one.before not in back)
    )


def _attribute_changes(old: Node, new: Node) -> Iterator[Detail]:
    left = {attribute.name: attribute for attribute in old.proto.attribute}
    right = {attribute.name: attribute for attribute in new.proto.attribute}
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name), right.get(name)
        if one is not None and other is not None and (one == other or one.HasField("g")):
            continue
        before, after = _text(old, name, one), _text(new, name, other)
        if before != after:
            yield Detail(f"attribute {name}", before, after)


def _text(node: Node, name: str, attribute: onnx.AttributeProto | None) -> str:
    """An attribute as text: empty if it has its default, an axis counted from the front."""
    default = _default(node, name)
    given = default if attribute is None else attribute
    if name == "axis" and given is not None:
        shape = node.shape(0)
        return str(given.i + len(shape) if given.i < 0 and shape is not None else given.i)
    return "" if attribute is None or attribute == default else attribute_text(attribute)


def _default(node: Node, name: str) -> onnx.AttributeProto | None:
    """The default of an attribute in the operator set that the model imports; None if it has none."""
    from onnx import defs

    try:
        schema = defs.get_schema(node.proto.op_type, node.graph.view.opset_of(node.proto.domain), node.proto.domain)
    except defs.SchemaError:
        return None
    attribute = schema.attributes.get(name)
    return attribute.default_value if attribute is not None and attribute.default_value.name else None


def _input_change(old: Node, new: Node, i: int, alignment: Alignment, weights: _Weights) -> Detail | None:
    one, other = old.input(i), new.input(i)
    before, after = constant_of(old.graph, one), constant_of(new.graph, other)
    what = f"input {i}"
    if before is not None and after is not None:
        if not (is_operand(old, before) and is_operand(new, after)):
            weights.pair(before, after)
            return None
        return Detail(what, before.text(), after.text()) if before.signature() != after.signature() else None
    if before is not None or after is not None:
        empty = [one is not None and one.elements == 0 for one in (before, after)]
        if any(empty) and not (one and other):
            return None  # an empty constant is what leaving the input out means
        return Detail(what, _source_text(old, one, before), _source_text(new, other, after))
    if not one or not other:
        return Detail(what, one, other) if one != other else None
    return _rewired(old, new, i, alignment)


def _rewired(old: Node, new: Node, i: int, alignment: Alignment) -> Detail | None:
    """Another node makes a computed input, and no node that came or went explains it."""
    one, other = old.inputs[i], new.inputs[i]
    maker, new_maker = old.graph.producer(one), new.graph.producer(other)
    if any(node is not None and node.graph is not user.graph for node, user in ((maker, old), (new_maker, new))):
        return None  # a value of an outer graph: its own pair says what changed
    if (maker is not None and maker not in alignment.pairs) or (
        new_maker is not None and new_maker not in alignment.back
    ):
        return None
    if maker is None or new_maker is None:
        same = maker is None and new_maker is None and alignment.inputs.get(one, other) == other
        return None if same else Detail(f"input {i}", one, other)
    if alignment.pairs[maker] is new_maker and maker.outputs.index(one) == new_maker.outputs.index(other):
        return None
    return Detail(f"input {i}", f"from {_shown(maker)}", f"from {_shown(new_maker)}")


def _source_text(node: Node, name: str, constant: Constant | None) -> str:
    if constant is not None:
        return constant.text()
    producer = node.graph.producer(name) if name else None
    return f"computed by {_shown(producer)}" if producer is not None else name


def _shown(node: Node) -> str:
    return f"{node.op} {node.name}".rstrip()


def attribute_text(attribute: onnx.AttributeProto | None) -> str:
    """An attribute's value as text; empty if it is absent."""
    from onnx import helper

    if attribute is None:
        return ""
    if attribute.HasField("g"):
        return f"graph of {len(attribute.g.node)} nodes"
    if attribute.HasField("t"):
        return type_text(attribute.t.data_type, tuple(attribute.t.dims))
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError:
        return "unreadable"
    if isinstance(value, bytes):
        return _cut(value.decode("utf-8", "replace"))
    if isinstance(value, int | float):
        return f"{value:.7g}" if isinstance(value, float) else str(value)
    if not isinstance(value, list):  # no type, a sparse tensor or a type
        return "unreadable" if value is None else str(value.DESCRIPTOR.name)
    items = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value[:SHOWN]]
    return _cut(str(items)) if all(isinstance(item, str | int | float) for item in items) else f"{len(value)} values"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _unmatched(view: GraphView, matched: set[int]) -> Iterator[Node]:
    """Nodes of graphs that have no counterpart: functions that came or went, bodies of nodes that did."""
    for graph in view.graphs:
        if id(graph) not in matched:
            yield from (node for node in graph.nodes if node.op != "Constant")


def _with_pictures(changes: Sequence[_Changed]) -> list[NodeChange]:
    """The changes, the first few of each module drawn; nodes that another picture shows already are left out."""
    touched = {node for _, old, new in changes for node in (old, new) if node is not None}
    drawn: Counter[str] = Counter()
    shown: set[str] = set()
    out = [change for change, _, _ in changes]
    order = sorted(range(len(changes)), key=lambda i: changes[i][0].change is not Change.CHANGED)
    for i in order:
        change, old, new = changes[i]
        if drawn.total() >= PICTURES or drawn[change.top] >= PICTURES_OF_A_MODULE or change.location.node in shown:
            continue
        drawn[change.top] += 1
        pictures = [around(node, touched.__contains__) if node is not None else None for node in (old, new)]
        shown.update(box.name for picture in pictures if picture is not None for box in picture.boxes if box.name)
        out[i] = replace(change, before=pictures[0], after=pictures[1])
    return out
