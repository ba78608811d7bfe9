"""onnxlint: find, explain and fix what will hurt an exported ONNX model in deployment.

The names below are imported when they are first used, so that `import onnxlint` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxlint.version import __version__ as __version__

if TYPE_CHECKING:
    from onnxlint.accuracy.results import AccuracyReport as AccuracyReport
    from onnxlint.accuracy.results import CandidateReport as CandidateReport
    from onnxlint.api import check as check
    from onnxlint.api import compare as compare
    from onnxlint.api import convert as convert
    from onnxlint.api import deploy as deploy
    from onnxlint.api import diff as diff
    from onnxlint.api import fix as fix
    from onnxlint.backends import Artifact as Artifact
    from onnxlint.conversion.session import Conversion as Conversion
    from onnxlint.conversion.session import Failure as Failure
    from onnxlint.deployment.results import Deployment as Deployment
    from onnxlint.deployment.results import StepError as StepError
    from onnxlint.difference.result import ModelDiff as ModelDiff
    from onnxlint.errors import OnnxlintError as OnnxlintError
    from onnxlint.exporting.api import export as export
    from onnxlint.exporting.results import ExportReport as ExportReport
    from onnxlint.fixes.results import Applied as Applied
    from onnxlint.fixes.results import FixReport as FixReport
    from onnxlint.fixes.results import Left as Left
    from onnxlint.graph.dims import Shape as Shape
    from onnxlint.graph.location import Location as Location
    from onnxlint.graph.location import SourceLine as SourceLine
    from onnxlint.graph.view import Graph as Graph
    from onnxlint.graph.view import GraphView as GraphView
    from onnxlint.graph.view import Node as Node
    from onnxlint.images.recipe import ImageSet as ImageSet
    from onnxlint.images.recipe import Recipe as Recipe
    from onnxlint.images.recipe import find_images as find_images
    from onnxlint.images.recipe import make_recipe as make_recipe
    from onnxlint.lint.finding import SAFE as SAFE
    from onnxlint.lint.finding import Applicability as Applicability
    from onnxlint.lint.finding import CheckResult as CheckResult
    from onnxlint.lint.finding import Finding as Finding
    from onnxlint.lint.finding import Fix as Fix
    from onnxlint.lint.finding import Severity as Severity
    from onnxlint.lint.rule import Example as Example
    from onnxlint.lint.rule import Options as Options
    from onnxlint.lint.rule import Request as Request
    from onnxlint.lint.rule import Rule as Rule
    from onnxlint.lint.rule import Silent as Silent
    from onnxlint.lint.rule import Status as Status
    from onnxlint.lint.rule import Unfixable as Unfixable
    from onnxlint.surgery.surgeon import Surgeon as Surgeon
    from onnxlint.text import counted as counted
    from onnxlint.text import listed as listed
    from onnxlint.text import printable as printable
    from onnxlint.verification.results import Verification as Verification

_HOMES = {
    "AccuracyReport": "onnxlint.accuracy.results",
    "CandidateReport": "onnxlint.accuracy.results",
    "check": "onnxlint.api",
    "compare": "onnxlint.api",
    "convert": "onnxlint.api",
    "deploy": "onnxlint.api",
    "diff": "onnxlint.api",
    "fix": "onnxlint.api",
    "Artifact": "onnxlint.backends",
    "Conversion": "onnxlint.conversion.session",
    "Failure": "onnxlint.conversion.session",
    "Deployment": "onnxlint.deployment.results",
    "StepError": "onnxlint.deployment.results",
    "ModelDiff": "onnxlint.difference.result",
    "OnnxlintError": "onnxlint.errors",
    "export": "onnxlint.exporting.api",
    "ExportReport": "onnxlint.exporting.results",
    "Applied": "onnxlint.fixes.results",
    "FixReport": "onnxlint.fixes.results",
    "Left": "onnxlint.fixes.results",
    "Shape": "onnxlint.graph.dims",
    "Location": "onnxlint.graph.location",
    "SourceLine": "onnxlint.graph.location",
    "Graph": "onnxlint.graph.view",
    "GraphView": "onnxlint.graph.view",
    "Node": "onnxlint.graph.view",
    "ImageSet": "onnxlint.images.recipe",
    "Recipe": "onnxlint.images.recipe",
    "find_images": "onnxlint.images.recipe",
    "make_recipe": "onnxlint.images.recipe",
    "Applicability": "onnxlint.lint.finding",
    "CheckResult": "onnxlint.lint.finding",
    "Finding": "onnxlint.lint.finding",
    "Fix": "onnxlint.lint.finding",
    "SAFE": "onnxlint.lint.finding",
    "Severity": "onnxlint.lint.finding",
    "Example": "onnxlint.lint.rule",
    "Options": "onnxlint.lint.rule",
    "Request": "onnxlint.lint.rule",
    "Rule": "onnxlint.lint.rule",
    "Silent": "onnxlint.lint.rule",
    "Status": "onnxlint.lint.rule",
    "Unfixable": "onnxlint.lint.rule",
    "Surgeon": "onnxlint.surgery.surgeon",
    "counted": "onnxlint.text",
    "listed": "onnxlint.text",
    "printable": "onnxlint.text",
    "Verification": "onnxlint.verification.results",
}
"""Public name → module that it is imported from; docs/api.md describes each."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'onnxlint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
