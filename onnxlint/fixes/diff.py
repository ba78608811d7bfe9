"""A readable difference of two graphs: nodes removed, nodes added, and changes around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

_SHOWN = 8
"""Values of a constant that are shown at most."""


def diff_lines(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    """Lines of the difference: `-` gone, `+` new, `~` changed; nothing if the graphs are the same."""
    yield from _header(before, after)
    yield from _graph(before.graph, after.graph, "graph")


def _header(before: onnx.ModelProto, after: onnx.ModelProto) -> Iterator[str]:
    if before.ir_version != after.ir_version:
        yield f"~ ir_version {before.ir_version} → {after.ir_version}"
    old = {o.domain or "ai.onnx": o.version for o in before.opset_import}
    new = {o.domain or "ai.onnx": o.version for o in after.opset_import}
    for domain in sorted(old.keys() | new.keys()):
        if old.get(domain) != new.get(domain):
            yield f"~ opset {printable(domain)} {old.get(domain, 'none')} → {new.get(domain, 'none')}"
    known = {(entry.key, entry.value) for entry in before.metadata_props}
    for entry in after.metadata_props:
        if (entry.key, entry.value) not in known:
            yield f"+ metadata {printable(entry.key)} = {printable(entry.value)}"


def _graph(before: onnx.GraphProto, after: onnx.GraphProto, path: str) -> Iterator[str]:
    lines = [*_ends("input", before.input, after.input), *_ends("output", before.output, after.output)]
    old = {_key(node): node for node in before.node}
    new = {_key(node): node for node in after.node}
    constants = _Constants(after)
    bodies: list[str] = []
    lines += [f"- {_show(node)}" for node in before.node if _key(node) not in new]
    for node in after.node:
        known = old.get(_key(node))
        if known is None:
            lines.append(f"+ {_show(node)} ({constants.operands(node.input)})")
        elif known is not node and known != node:
            changed = list(_changes(known, node, constants))
            if changed:
                lines.append(f"~ {_show(node)}: {'; '.join(changed)}")
            bodies += _bodies(known, node, path)
    lines += _initializers(before, after)
    if lines:
        yield f"{printable(path)}"
        yield from (f"  {line}" for line in lines)
    yield from bodies


def _key(node: onnx.NodeProto) -> tuple[str, ...]:
    """Key of a node on both sides: its outputs, or its name if it has none."""
    return tuple(node.output) or (node.name,)


def _show(node: onnx.NodeProto) -> str:
    domain = f"{node.domain}::" if node.domain else ""
    return printable(f"{domain}{node.op_type} {node.name or (node.output[0] if node.output else '')}".rstrip())


class _Constants:
    """Short texts for operands: small constants by value, the others by name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def operand(self, name: str) -> str:
        from onnx import numpy_helper

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == 1:
            return printable(name) or "nothing"
        count = 1
        for dim in tensor.dims:
            count *= dim
        if count > _SHOWN:
            return printable(name)
        return str(numpy_helper.to_array(tensor).tolist())

    def operands(self, names: Any) -> str:
        return ", ".join(map(self.operand, names))


def _changes(old: onnx.NodeProto, new: onnx.NodeProto, constants: _Constants) -> Iterator[str]:
    if old.op_type != new.op_type:
        yield f"{printable(old.op_type)} → {printable(new.op_type)}"
    for i in range(max(len(old.input), len(new.input))):
        a = old.input[i] if i < len(old.input) else ""
        b = new.input[i] if i < len(new.input) else ""
        if a != b:
            yield f"input {i} {printable(a) or 'nothing'} → {constants.operand(b)}"
    left = {a.name: a for a in old.attribute}
    right = {a.name: a for a in new.attribute}
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name) and not (name in left and left[name].HasField("g")):
            yield f"{printable(name)} {_value(left.get(name))} → {_value(right.get(name))}"


def _value(attribute: onnx.AttributeProto | None) -> str:
    from onnx import helper

    if attribute is None:
        return "unset"
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError:  # of a function's argument, or of no type
        return "…"
    if isinstance(value, bytes):
        return printable(value.decode("utf-8", "replace"))
    if isinstance(value, int | float):
        return str(value)
    text = str(list(value)) if attribute.type in (6, 7) else "…"
    return printable(text[:80])


def _bodies(old: onnx.NodeProto, new: onnx.NodeProto, path: str) -> Iterator[str]:
    right = {a.name: a for a in new.attribute}
    for attribute in old.attribute:
        other = right.get(attribute.name)
        if other is not None and attribute.HasField("g") and other.HasField("g"):
            yield from _graph(attribute.g, other.g, f"{path}/{new.name or new.op_type}.{attribute.name}")


def _ends(what: str, before: Any, after: Any) -> Iterator[str]:
    old, new = {value.name: value for value in before}, {value.name: value for value in after}
    yield from (f"- {what} {_end(value)}" for name, value in old.items() if name not in new)
    yield from (f"+ {what} {_end(value)}" for name, value in new.items() if name not in old)
    for name, value in new.items():
        if name in old and _end(old[name]) != _end(value):
            yield f"~ {what} {_end(old[name])} → {_end(value)}"


def _end(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim]
    return printable(f"{value.name} [{', '.join(dims)}]") if tensor.HasField("shape") else printable(value.name)


def _initializers(before: onnx.GraphProto, after: onnx.GraphProto) -> Iterator[str]:
    old = {tensor.name for tensor in before.initializer}
    new = {tensor.name for tensor in after.initializer}
    for name in sorted(old - new):
        yield f"- initializer {printable(name)}"
