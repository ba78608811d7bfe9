"""Element types that operators take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from onnxlint import Node, printable
from onnxlint.rulekit import STANDARD_DOMAINS
from onnxlint_rules._tensors import type_name


@dataclass(frozen=True)
class _Signature:
    """Types that an operator takes.

    Attributes:
        version: The operator set that the operator is of.
        parameters: Type parameter of each input (`T`, `tensor(int64)`); the last one repeats where `variadic`.
        variadic: Whether the last input repeats, with one type.
        allowed: Types that each parameter may stand for.
    """

    version: int
    parameters: tuple[str, ...]
    variadic: bool
    allowed: dict[str, frozenset[str]]


@cache
def _signature(op: str, domain: str, opset: int) -> _Signature | None:
    from onnx import defs

    try:
        schema = defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None  # SPC001 reports it
    inputs = list(schema.inputs)
    variadic = bool(inputs) and inputs[-1].option == defs.OpSchema.FormalParameterOption.Variadic
    if variadic and not inputs[-1].is_homogeneous:
        inputs.pop()
        variadic = False
    return _Signature(
        schema.since_version,
        tuple(formal.type_str for formal in inputs),
        variadic,
        {entry.type_param_str: frozenset(entry.allowed_type_strs) for entry in schema.type_constraints},
    )


def type_conflict(node: Node) -> str:
    """The type error of a node's inputs; empty if there is none."""
    domain = node.proto.domain
    opset = node.graph.view.opset_of(domain)
    if domain not in (*STANDARD_DOMAINS, "ai.onnx.ml") or not 0 < opset < 2**31:
        return ""
    signature = _signature(node.proto.op_type, "" if domain in STANDARD_DOMAINS else domain, opset)
    if signature is None:
        return ""
    bound: dict[str, tuple[str, str]] = {}
    for i, name in enumerate(node.inputs):
        kind = node.graph.dtype(name) if name else 0
        if not kind or (i >= len(signature.parameters) and not signature.variadic):
            continue
        parameter = signature.parameters[min(i, len(signature.parameters) - 1)]
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
    return ""
