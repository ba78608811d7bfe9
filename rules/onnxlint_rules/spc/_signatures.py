"""Element types that operators take."""

from __future__ import annotations

from onnxlint import Node, printable
from onnxlint.rulekit import STANDARD_DOMAINS, operator_schema
from onnxlint_rules._tensors import type_name


def type_conflict(node: Node) -> str:
    """The type error of a node's inputs; empty if there is none."""
    kinds = tuple([node.graph.dtype(name) if name else 0 for name in node.inputs])
    fitting: set[tuple[str, tuple[int, ...]]] = node.graph.view.memo.setdefault("onnxlint_rules.fitting_types", set())
    if (node.op, kinds) in fitting:
        return ""
    domain = node.proto.domain
    opset = node.graph.view.opset_of(domain)
    if domain not in (*STANDARD_DOMAINS, "ai.onnx.ml") or not 0 < opset < 2**31:
        return ""
    signature = operator_schema(node.graph.view, node.op)
    if signature is None:
        return ""  # SPC001 reports it
    bound: dict[str, tuple[str, str]] = {}
    for i, (name, kind) in enumerate(zip(node.inputs, kinds, strict=True)):
        if not kind or (i >= len(signature.inputs) and not signature.repeats):
            continue
        parameter = signature.inputs[min(i, len(signature.inputs) - 1)]
        shown = type_name(kind)
        allowed = signature.allowed.get(parameter, frozenset((parameter,)))
        if f"tensor({shown})" not in allowed:
            if not any(one.startswith("tensor(") for one in allowed):
                continue  # a sequence or map, whose type inference told as a tensor's
            return f"{printable(node.op)} of opset {opset} does not take {shown} ({printable(name)!r})"
        first = bound.setdefault(parameter, (shown, name))
        if first[0] != shown:
            return (
                f"{printable(node.op)} takes inputs of one type, and gets {first[0]} ({printable(first[1])!r}) and "
                f"{shown} ({printable(name)!r})"
            )
    fitting.add((node.op, kinds))
    return ""
