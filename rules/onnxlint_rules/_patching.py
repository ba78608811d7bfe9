"""What patches of several rules share: which nodes can be patched, and patching many nodes under one finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from onnxlint import Node, Unfixable
from onnxlint_rules._graph import fixed_tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from onnxlint import Graph, Surgeon

UNHELD = "it is inside a function, which fixes do not reach"


def is_held(graph: Graph) -> bool:
    """Whether a graph can be patched: functions, and graphs in lists of graphs, cannot."""
    here: Graph | None = graph
    while here is not None:
        if here.is_function or here.path.endswith("]"):
            return False
        here = here.parent
    return True


def each(surgeon: Surgeon, nodes: Iterable[Node], patch: Callable[[Node], None]) -> None:
    """Patch many nodes, but those that another patch of this round has changed: they come again in the next.

    Args:
        patch: Asks the surgeon for all that it changes, before it changes anything; raises Unfixable where it cannot.

    Raises:
        AlreadyPatched: All have been changed.
        Unfixable: None can be patched.
    """
    from onnxlint.rulekit import AlreadyPatched

    done, taken, why = 0, 0, ""
    for node in nodes:
        if not is_held(node.graph):
            why = why or UNHELD
            continue
        try:
            patch(node)
            done += 1
        except AlreadyPatched:
            taken += 1
        except Unfixable as reason:
            why = why or str(reason)
    if not done:
        raise AlreadyPatched if taken else Unfixable(why or "there is nothing left to do")


def array_of(node: Node, i: int) -> npt.NDArray[np.generic] | None:
    """Values of operand `i` of a node, read from the file where they are large; None if it is not a fixed constant.

    Raises:
        OnnxlintError: Its data is missing or broken.
    """
    name = node.input(i)
    tensor = fixed_tensor(node.graph, name) if name else None
    return node.constant(i) if tensor is None else node.graph.view.array(tensor)
