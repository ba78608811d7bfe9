"""Fixes as tests make them: the default rules on models given as text, and both models run in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser

from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.results import FixReport
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Request
from onnxlint.model.skeleton import Model

DEFAULT = tuple(rule for rule in load_registry() if rule.default and not rule.targets and not rule.needs_weights)
"""The rules that run without options."""


def fix(model: Model, **wanted: Any) -> tuple[onnx.ModelProto, FixReport]:
    """The fixed skeleton and the report of the default rules, without verification.

    Args:
        model: The model.
        wanted: `select`, a prefix of codes; what else there is goes into the request.
    """
    select = wanted.pop("select", ())
    rules = tuple(rule for rule in DEFAULT if not select or rule.code.startswith(select))
    return fix_model(model, Plan(rules), Request(**wanted))


def parse(text: str) -> Model:
    """A model from ONNX's text syntax."""
    return Model("example.onnx", onnx.parser.parse_model(text), 0)


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random pixels."""
    return (np.random.default_rng(0).standard_normal(shape) * 50).astype(np.float32)


_NAMELESS = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,H,W,8] x) => ({outputs})
    <int64 zero = {{0}}, int64[1] axes = {{0}}, int64[1] minus = {{-1}}, int64[1] four = {{4}}> {{ {nodes} }}"""


def nameless(count: int) -> Model:
    """Chains of nodes without names, each to a Reshape."""
    nodes, outputs = [], []
    for i in range(count):
        nodes.append(f"s{i} = Shape (x) b{i} = Gather <axis = 0> (s{i}, zero) l{i} = Unsqueeze (b{i}, axes)")
        nodes.append(f"t{i} = Concat <axis = 0> (l{i}, minus, four) y{i} = Reshape (x, t{i})")
        outputs.append(f"float[N,P,4] y{i}")
    return parse(_NAMELESS.format(outputs=", ".join(outputs), nodes="\n".join(nodes)))
