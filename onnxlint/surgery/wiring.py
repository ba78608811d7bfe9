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
            list.__delitem__(others, next(i for i, other in enumerate(others) if other is node))
        list.clear(tensors)
