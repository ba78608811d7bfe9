"""GraphViews with shapes from symbolic inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.graph.view import GraphView
from onnxlint.symbolic.inference import exact_sizes

if TYPE_CHECKING:
    from onnxlint.graph.source import Sources
    from onnxlint.model.skeleton import Model


def make_view(
    model: Model,
    sources: Sources | None = None,
    multiples: tuple[tuple[str, int], ...] = (),
    allow_empty: bool = False,
) -> GraphView:
    """The view of a model that rules and fixes read.

    A `GraphView` of its own knows the shapes that onnx's inference finds; this one completes them with `exact_sizes`.

    Args:
        model: The opened model.
        sources: Resolves source lines; by default relative to the repository around the working directory.
        multiples: Assumptions: (symbol of an input, number that it is a multiple of); those on one symbol combine.
        allow_empty: Prove for inputs with sizes of 0, too; by default all sizes of inputs are taken to be at least 1.
    """
    return GraphView(model, sources, multiples, exact_sizes, allow_empty)
