"""Which node reads which tensor, changed in graphsurgeon's graph: what patches use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def bypass(node: gs.Node) -> None:
    """Let the readers of a node's first output read its first input."""
    replace(node.outputs[0], node.inputs[0])


def replace(tensor: gs.Tensor, by: gs.Tensor) -> None:
    """Let all nodes that read a tensor read another one."""
    readers = {id(reader): reader for reader in tensor.outputs}
    list.clear(tensor.outputs)
    for reader in readers.values():
        for i, read in enumerate(reader.inputs):
            if read is tensor:
                list.__setitem__(reader.inputs, i, by)
                list.append(by.outputs, reader)


def detach(node: gs.Node) -> None:
    """Detach a node: clear its inputs and outputs.

    graphsurgeon's own lists look nodes up by equality, and take one for another where both make nothing: so by identity.
    """
    for tensors, side in ((node.inputs, "outputs"), (node.outputs, "inputs")):
        for tensor in tensors:
            others = getattr(tensor, side)
            list.__delitem__(others, _place(others, node))
        list.clear(tensors)


def _place(nodes: list[gs.Node], node: gs.Node) -> int:
    """Where a node is in a list that has it, looked for from both ends: thousands of readers go in their order, or from the
    last to the first."""
    pairs = enumerate(zip(nodes, reversed(nodes), strict=True))
    return next(i if first is node else -1 - i for i, (first, last) in pairs if first is node or last is node)
