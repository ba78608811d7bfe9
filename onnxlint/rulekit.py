"""What rules may use beside the names of `onnxlint` itself; docs/writing-rules.md describes each name.

The names are imported when they are first used. Built-in rules import from here and from `onnxlint`, and from nowhere
else in this package, so that whatever they can do a team's own rules can do, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxlint.fixes.activations import drop_activation
    from onnxlint.fixes.join import join_heads
    from onnxlint.fixes.opset import NEWEST as NEWEST_OPSET
    from onnxlint.fixes.opset import OLDEST as OLDEST_OPSET
    from onnxlint.fixes.opset import convert as convert_opset
    from onnxlint.graph.chains import SHAPE_OPERANDS, Chain
    from onnxlint.graph.chains import origins as operand_origins
    from onnxlint.graph.chains import trace as shape_chain
    from onnxlint.graph.constants import small_array, small_numbers
    from onnxlint.graph.dims import Dim, is_invented
    from onnxlint.graph.onnx_inference import GRAPH_OPS
    from onnxlint.graph.schemas import first_opset, newest_ir_version, newest_opset
    from onnxlint.graph.schemas import schema as operator_schema
    from onnxlint.graph.view import STANDARD_DOMAINS
    from onnxlint.lint.targets import Limit, Target
    from onnxlint.lint.targets import load as load_target
    from onnxlint.lint.targets import names as target_names
    from onnxlint.model.assumptions import assumptions, unusable_assumptions
    from onnxlint.model.external import External, tensor_bytes
    from onnxlint.model.native import Crashed, in_child, run_checker, run_node_checker
    from onnxlint.model.onnx_types import ElementType
    from onnxlint.model.skeleton import inline_span, is_external, locate_external
    from onnxlint.surgery.surgeon import AlreadyPatched
    from onnxlint.surgery.wiring import bypass, detach
    from onnxlint.symbolic.batch import batch_axis
    from onnxlint.symbolic.conditions import when_equal
    from onnxlint.symbolic.constraints import BakedSize, baked_sizes
    from onnxlint.symbolic.demands import impossible_demands, number_text
    from onnxlint.symbolic.engine import Sizes, Symbolic
    from onnxlint.symbolic.free_sizes import free_sizes
    from onnxlint.symbolic.inference import assumed_sizes, exact_sizes, sizes_where
    from onnxlint.symbolic.misread import misread_sizes
    from onnxlint.symbolic.reshapes import Step, constant_target, hold_as_many, may_copy, reshape_steps
    from onnxlint.symbolic.sizes import AnySize, Size, ceil_div, floors_in, is_made_up, ratio_of, substitute, symbols
    from onnxlint.symbolic.values import Number, Quotient, in_single
    from onnxlint.telemetry import load_onnxruntime
    from onnxlint.text import size as byte_size

__all__ = [
    "GRAPH_OPS",
    "NEWEST_OPSET",
    "OLDEST_OPSET",
    "SHAPE_OPERANDS",
    "STANDARD_DOMAINS",
    "AlreadyPatched",
    "AnySize",
    "BakedSize",
    "Chain",
    "Crashed",
    "Dim",
    "ElementType",
    "External",
    "Limit",
    "Number",
    "Quotient",
    "Size",
    "Sizes",
    "Step",
    "Symbolic",
    "Target",
    "assumed_sizes",
    "assumptions",
    "baked_sizes",
    "batch_axis",
    "bypass",
    "byte_size",
    "ceil_div",
    "constant_target",
    "convert_opset",
    "detach",
    "drop_activation",
    "exact_sizes",
    "first_opset",
    "floors_in",
    "free_sizes",
    "hold_as_many",
    "impossible_demands",
    "in_child",
    "in_single",
    "inline_span",
    "is_external",
    "is_invented",
    "is_made_up",
    "join_heads",
    "load_onnxruntime",
    "load_target",
    "locate_external",
    "may_copy",
    "misread_sizes",
    "newest_ir_version",
    "newest_opset",
    "number_text",
    "operand_origins",
    "operator_schema",
    "ratio_of",
    "reshape_steps",
    "run_checker",
    "run_node_checker",
    "shape_chain",
    "sizes_where",
    "small_array",
    "small_numbers",
    "substitute",
    "symbols",
    "target_names",
    "tensor_bytes",
    "unusable_assumptions",
    "when_equal",
]

_HOMES = {
    "onnxlint.fixes.activations": ("drop_activation",),
    "onnxlint.fixes.join": ("join_heads",),
    "onnxlint.fixes.opset": ("NEWEST_OPSET=NEWEST", "OLDEST_OPSET=OLDEST", "convert_opset=convert"),
    "onnxlint.graph.chains": ("SHAPE_OPERANDS", "Chain", "operand_origins=origins", "shape_chain=trace"),
    "onnxlint.graph.dims": ("Dim", "is_invented"),
    "onnxlint.graph.constants": ("small_array", "small_numbers"),
    "onnxlint.graph.onnx_inference": ("GRAPH_OPS",),
    "onnxlint.graph.schemas": ("first_opset", "newest_ir_version", "newest_opset", "operator_schema=schema"),
    "onnxlint.graph.view": ("STANDARD_DOMAINS",),
    "onnxlint.lint.targets": ("Limit", "Target", "load_target=load", "target_names=names"),
    "onnxlint.model.assumptions": ("assumptions", "unusable_assumptions"),
    "onnxlint.model.native": ("Crashed", "in_child", "run_checker", "run_node_checker"),
    "onnxlint.model.external": ("External", "tensor_bytes"),
    "onnxlint.model.onnx_types": ("ElementType",),
    "onnxlint.model.skeleton": ("inline_span", "is_external", "locate_external"),
    "onnxlint.telemetry": ("load_onnxruntime",),
    "onnxlint.surgery.surgeon": ("AlreadyPatched",),
    "onnxlint.surgery.wiring": ("bypass", "detach"),
    "onnxlint.symbolic.batch": ("batch_axis",),
    "onnxlint.symbolic.conditions": ("when_equal",),
    "onnxlint.symbolic.constraints": ("BakedSize", "baked_sizes"),
    "onnxlint.symbolic.demands": ("impossible_demands", "number_text"),
    "onnxlint.symbolic.engine": ("Sizes", "Symbolic"),
    "onnxlint.symbolic.free_sizes": ("free_sizes",),
    "onnxlint.symbolic.inference": ("assumed_sizes", "exact_sizes", "sizes_where"),
    "onnxlint.symbolic.misread": ("misread_sizes",),
    "onnxlint.symbolic.reshapes": ("Step", "constant_target", "hold_as_many", "may_copy", "reshape_steps"),
    "onnxlint.symbolic.sizes": (
        "AnySize",
        "Size",
        "ceil_div",
        "floors_in",
        "is_made_up",
        "ratio_of",
        "substitute",
        "symbols",
    ),
    "onnxlint.symbolic.values": ("Number", "Quotient", "in_single"),
    "onnxlint.text": ("byte_size=size",),
}
"""Module → names that it holds, as `name` or as `name=name there`."""

_PLACES = {
    name: (module, there or name)
    for module, entries in _HOMES.items()
    for name, _, there in (entry.partition("=") for entry in entries)
}


def __getattr__(name: str) -> Any:
    """Import a name from the module that holds it.

    Raises:
        AttributeError: It is none of `__all__`.
    """
    import importlib

    if name not in _PLACES:
        raise AttributeError(f"module 'onnxlint.rulekit' has no attribute {name!r}")
    module, there = _PLACES[name]
    value = globals()[name] = getattr(importlib.import_module(module), there)
    return value


def __dir__() -> list[str]:
    return __all__
