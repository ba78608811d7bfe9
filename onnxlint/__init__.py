"""onnxlint: find, explain and fix what will hurt an exported ONNX model in deployment.

The names below are imported when they are first used, so that `import onnxlint` costs next to nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxlint.accuracy.compare import compare as compare
    from onnxlint.api import check as check
    from onnxlint.api import fix as fix
    from onnxlint.convert import convert as convert
    from onnxlint.deploy import deploy as deploy
    from onnxlint.errors import OnnxlintError as OnnxlintError
    from onnxlint.finding import SAFE as SAFE
    from onnxlint.finding import Applicability as Applicability
    from onnxlint.finding import CheckResult as CheckResult
    from onnxlint.finding import Finding as Finding
    from onnxlint.finding import Fix as Fix
    from onnxlint.finding import Location as Location
    from onnxlint.finding import Severity as Severity
    from onnxlint.rule import Example as Example
    from onnxlint.rule import Options as Options
    from onnxlint.rule import Request as Request
    from onnxlint.rule import Rule as Rule
    from onnxlint.rule import Silent as Silent
    from onnxlint.rule import Unfixable as Unfixable
    from onnxlint.view import Graph as Graph
    from onnxlint.view import GraphView as GraphView
    from onnxlint.view import Node as Node

_HOMES = {
    "check": "onnxlint.api",
    "compare": "onnxlint.accuracy.compare",
    "fix": "onnxlint.api",
    "convert": "onnxlint.convert",
    "deploy": "onnxlint.deploy",
    "OnnxlintError": "onnxlint.errors",
    "SAFE": "onnxlint.finding",
    "Applicability": "onnxlint.finding",
    "CheckResult": "onnxlint.finding",
    "Finding": "onnxlint.finding",
    "Fix": "onnxlint.finding",
    "Location": "onnxlint.finding",
    "Severity": "onnxlint.finding",
    "Example": "onnxlint.rule",
    "Options": "onnxlint.rule",
    "Request": "onnxlint.rule",
    "Unfixable": "onnxlint.rule",
    "Rule": "onnxlint.rule",
    "Silent": "onnxlint.rule",
    "Graph": "onnxlint.view",
    "GraphView": "onnxlint.view",
    "Node": "onnxlint.view",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'onnxlint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Keeps `onnxlint.check` the function: importing the module of that name would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
