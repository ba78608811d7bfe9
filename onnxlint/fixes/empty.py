"""Whether a fixed model needs its inputs to have elements: a batch of 0 is no longer accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.reshapes import may_copy
from onnxlint.symbolic.sizes import Size

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView, Node


def needs_elements(result: GraphView, original: GraphView) -> bool:
    """Whether a fix took it that sizes are at least 1.

    Runtimes refuse a Reshape target with a -1 where another of its numbers is 0: they could not tell what -1 stands for.
    Without `allowzero`, a computed 0 copies a size. They also refuse to pool an empty map, even one that is padded.

    Args:
        result: The fixed model, in a view that allows empty inputs.
        original: The model as it was read, in such a view, too.
    """
    targets = {node.output(): _target(node) for node in result.nodes("Reshape")}
    computed = {output for output, target in targets.items() if target is None}
    symbolic = exact_sizes(original)
    if any(node.output() not in computed and may_copy(node, symbolic) for node in original.nodes("Reshape")):
        return True
    followed = {output for output, target in targets.items() if target is not None and -1 in target}
    if any(node.output() in followed and symbolic.val(node, 1) is None for node in original.nodes("Reshape")):
        return True  # patches before it made the target known
    refused = {node.output() for node in original.nodes("Reshape") if _may_be_empty(original, node)}
    lost = {node.output() for node in original.nodes("Reshape") if node.attribute("allowzero", 0)}
    reshaped = {node.output() for node in original.nodes("Reshape")} - lost
    if any(node.output() not in reshaped and _may_hold_zero(result, node) for node in result.nodes("Reshape")):
        return True
    if any(node.output() not in refused and _may_be_empty(result, node) for node in result.nodes("Reshape")):
        return True
    inferring = {node.output() for node in original.nodes("Reshape") if _infers(original, node)}
    if any(node.output() not in inferring and _infers_beside_zero(result, node) for node in result.nodes("Reshape")):
        return True
    pools = {(node.input(0), node.output()) for node in original.nodes("AveragePool")}
    pads = (node for node in result.nodes("AveragePool") if (node.input(0), node.output()) not in pools)
    return any(node.attribute("pads") and _reads_empty(result, node) for node in pads)


def _target(node: Node) -> list[int] | None:
    value = node.constant(1) if node.input(1) else None
    return None if value is None or value.dtype.kind not in "iu" else [int(number) for number in value.reshape(-1)]


def _may_be_empty(view: GraphView, node: Node) -> bool:
    """Whether a -1 stands beside a copied size that may be 0."""
    target = _target(node)
    if target is None or -1 not in target or 0 not in target or node.attribute("allowzero", 0):
        return False
    symbolic = exact_sizes(view)
    sizes = symbolic.shape(node.graph, node.input(0)) or ()
    copied = [sizes[i] if i < len(sizes) else None for i, number in enumerate(target) if number == 0]
    return not all(size is not None and symbolic.is_never_empty(size) for size in copied)


def _infers(view: GraphView, node: Node) -> bool:
    """Whether a target has a -1."""
    value = exact_sizes(view).val(node, 1)
    return value is not None and -1 in value.numbers


def _infers_beside_zero(view: GraphView, node: Node) -> bool:
    """Whether a computed target has a -1 beside a size that may be 0."""
    if _target(node) is not None or node.attribute("allowzero", 0) or not _infers(view, node):
        return False
    symbolic = exact_sizes(view)
    data, value = symbolic.of(node, 0) or (), symbolic.val(node, 1)
    sizes = [] if value is None else [data[i] if n == 0 and i < len(data) else n for i, n in enumerate(value.numbers)]
    return not all(isinstance(n, int | Size) and (n == -1 or symbolic.is_never_empty(n)) for n in sizes)


def _reads_empty(view: GraphView, node: Node) -> bool:
    """Whether a map that is pooled may be empty."""
    symbolic = exact_sizes(view)
    return not all(map(symbolic.is_never_empty, (symbolic.of(node, 0) or ())[2:]))


def _may_hold_zero(view: GraphView, node: Node) -> bool:
    """Whether a computed target may hold a 0 that is not taken for one."""
    if _target(node) is not None or node.attribute("allowzero", 0):
        return False
    symbolic = exact_sizes(view)
    value = symbolic.value(node.graph, node.input(1))
    return value is None or not all(
        isinstance(number, int | Size) and (number == -1 or symbolic.is_never_empty(number)) for number in value.numbers
    )
