"""SHP004: a Reshape that spills pixels into the batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import Applicability, Example, Finding, Fix, GraphView, Node, Options, Request, Rule, Severity, Silent
from onnxlint.rulekit import batch_axis, exact_sizes, substitute, symbols
from onnxlint_rules._graph import constant_integers

if TYPE_CHECKING:
    from onnxlint import Surgeon


class ReshapeSpillsIntoBatch(Rule):
    """A Reshape target has `-1` in the batch place and constants after it, but the sizes after the batch are not constant.

    ## What it does

    Reports each Reshape with a target like `[-1, 12800, 4]` whose input's inner sizes are free, where the result reaches
    an output of the graph as a batch. A target like `[-1, 4]` whose constants are the last axes of the input flattens
    those before them on purpose.

    ## Why it hurts

    Silently wrong results. It is the well-known hand fix for a Reshape that fixed the batch: right at the size it was
    written for, and at any other size the elements that do not fit go into the batch. RetinaFace with
    `view(-1, 12800, 2)` answers one 1280×1280 image with a batch of 4.

    ## Fix it at the source

    ```python
    # before
    out = out.view(-1, 12800, 2)
    # after
    out = out.flatten(1).unflatten(1, (-1, 2))
    ```

    ## Fix safety

    `[0, -1, 2]` gives the same values at the size that the constants were written for, and the right batch at all
    others: it changes results only where they were wrong.

    ## References

    - [Reshape](https://onnx.ai/onnx/operators/onnx__Reshape.html): "At most one dimension of the new shape can be -1. In
      this case, the value is inferred from the size of the tensor and the remaining dimensions."
    """

    code = "SHP004"
    name = "reshape-spills-into-batch"
    severity = Severity.ERROR
    help = "put 0 in the batch place and -1 where the size is free"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,H,W,4] x) => (float[A,32,2] y) <int64[3] target = {-1, 32, 2}> {
                y = Reshape (x, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,H,W,4] x) => (float[A,B,2] y) <int64[3] target = {0, -1, 2}> {
                y = Reshape (x, target)
            }
            """,
            dims={"N": 3, "H": 4, "W": 4},
            says="[-1, 32, 2]",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,4,4] x) => (float[A,32,2] y) <int64[3] target = {-1, 32, 2}> {
                y = Reshape (x, target)
            }
            """,
            why="the inner sizes are constant and take up 64 elements exactly",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,H,W] x) => (float[M,8] y) <int64[2] target = {-1, 8}> {
                one = AveragePool <kernel_shape = [9999, 9999], strides = [9999, 9999], ceil_mode = 1> (x)
                y = Reshape (one, target)
            }
            """,
            why="a pool that is larger than any image leaves one element (EfficientNet of transformers)",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,S,16] x, float[16,8] w) => (float[N,S,8] y)
            <int64[2] flat = {-1, 16}, int64[1] eight = {8}, int64[1] first = {0}, int64[1] second = {2}> {
                rows = Reshape (x, flat)
                z = MatMul (rows, w)
                shape = Shape (x)
                lead = Slice (shape, first, second)
                target = Concat <axis = 0> (lead, eight)
                y = Reshape (z, target)
            }
            """,
            why="rows are flattened on purpose and split again",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,S,16] x) => (float[M,16] y) <int64[2] target = {-1, 16}> {
                y = Reshape (x, target)
            }
            """,
            why="the last axes stay as they are: all before them are flattened on purpose, whatever their sizes are",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for node in view.nodes("Reshape"):
            elements = constant_integers(node, 1)
            if elements is None or len(elements) < 2 or batch_axis(node.graph, node.input(0)) != 0:
                continue
            if elements[0] != -1 or any(element <= 0 for element in elements[1:]):
                continue
            shape = node.shape(0)
            if shape is None or all(isinstance(dim, int) for dim in shape[1:]) or not _reaches_output(node):
                continue
            inside = tuple(elements[1:])
            if shape[-len(inside) :] == inside or _fits_usual_sizes(node, math.prod(inside)):
                continue
            inner = "×".join(map(str, elements[1:]))
            yield self.found(
                view.at(node),
                f"Reshape target {elements} puts every {inner} elements into a batch entry of their own, and the "
                "input's inner sizes are free: other input sizes give a wrong batch",
                fix=Fix(Applicability.UNSAFE, flag="--unsafe"),
                target=elements,
                group="Reshape targets fix the sizes of an entry: other input sizes give a wrong batch",
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        node = view.find(finding.location)
        held, elements = surgeon.node(node), constant_integers(node, 1) or []
        # The free sizes come first after the batch: the heads of detectors end in constants.
        target = np.array([0, -1, *elements[2:]], np.int64)
        held.attrs.pop("allowzero", None)
        held.inputs[1] = surgeon.constant(f"{node.name or node.output()}_target", target)


_USUAL = (32, 224, 1024, 4096)
"""Sizes of images."""


def _fits_usual_sizes(node: Node, elements: int) -> bool:
    """Whether each entry has just as many elements at all usual sizes: maps that a large pool made 1×1."""
    sizes = exact_sizes(node.graph.view).shape(node.graph, node.input(0))
    if sizes is None:
        return False
    names = set().union(*map(symbols, sizes[1:]))
    return bool(names) and all(
        math.prod(substitute(size, dict.fromkeys(names, usual)) for size in sizes[1:]) == elements for usual in _USUAL
    )


def _reaches_output(node: Node) -> bool:
    """Whether the result becomes a graph output without another Reshape taking it apart again."""
    graph = node.graph
    queue = deque([node])
    seen = {id(node)}
    while queue:
        current = queue.popleft()
        if any(graph.is_output(name) for name in current.outputs):
            return True
        for user in current.consumers():
            if user.op != "Reshape" and id(user) not in seen:
                seen.add(id(user))
                queue.append(user)
    return False
