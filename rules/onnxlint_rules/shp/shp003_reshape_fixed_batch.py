"""SHP003: a Reshape whose target fixes the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
    Applicability,
    Example,
    Finding,
    Fix,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
)
from onnxlint.rulekit import batch_axis, exact_sizes, hold_as_many
from onnxlint_rules._graph import advice, constant_integers, label, names_shown
from onnxlint_rules._patching import each, is_held

if TYPE_CHECKING:
    from onnxlint import Surgeon


class ReshapeFixedBatch(Rule):
    """A Reshape target has a number in place of the batch.

    ## What it does

    Reports each Reshape with a constant target whose first element is a positive number, where the data flow shows that
    the first axis of its input is the batch. It is a warning where the graph's input leaves the batch free, and
    information, once for the whole model, where the input fixes it too.

    ## Why it hurts

    - With a free batch the model fails at every other batch size or, where an inner `-1` takes up the rest, silently
      mixes the images of a batch.
    - A static export cannot be given another batch size (TensorRT profiles, server-side batching) without repairing
      each such Reshape.
    - ncnn has no batch axis: its converters drop the first element and depend on it being the batch.

    ## Fix it at the source

    ```python
    # before: traced with a batch of 1, the exporter writes [1, -1, 4]
    out = out.view(out.shape[0], -1, 4)
    # after: no size is read at all
    out = out.flatten(1).unflatten(1, (-1, 4))
    ```

    ## Fix safety

    `0` in the batch place copies the input's size and is exact wherever the original accepts the input, if the rest of the
    target has as many elements as a sample; else the original may take several samples for one, and the fix needs
    `--unsafe`: it keeps what the model computes for the batch that it was exported with, and gives the samples of other
    batches what they get alone. Both are verified by running the models, and the fix is taken back where it is not so:
    an If may ask for the size of the batch. `-1` is exact only where all other elements are truly constant: see SHP004.

    ## References

    - [Reshape](https://onnx.ai/onnx/operators/onnx__Reshape.html)
    - [Pytorch_Retinaface, issue: dynamic batch size in ONNX export](https://github.com/biubug6/Pytorch_Retinaface/issues)
    """

    code = "SHP003"
    name = "reshape-fixed-batch"
    help = "let the first element copy the batch: 0 in ONNX, flatten/unflatten in PyTorch"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[A,B,3] y) <int64[3] target = {1, -1, 3}> {
                t = Transpose <perm = [0, 2, 3, 1]> (x)
                y = Reshape (t, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[A,B,3] y) <int64[3] target = {0, -1, 3}> {
                t = Transpose <perm = [0, 2, 3, 1]> (x)
                y = Reshape (t, target)
            }
            """,
            dims={"N": 1},
            says="target [1, -1, 3] fixes the batch to 1, but the input leaves it free",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,64,3] y) <int64[3] target = {1, -1, 3}> {
                t = Transpose <perm = [0, 2, 3, 1]> (x)
                y = Reshape (t, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,64,3] y) <int64[3] target = {0, -1, 3}> {
                t = Transpose <perm = [0, 2, 3, 1]> (x)
                y = Reshape (t, target)
            }
            """,
            says="Reshape target [1, -1, 3] fixes the batch to 1, as the input does",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,3,4,16] z) <int64[3] flat = {1, 3, 64}, int64[4] map = {1, 3, 4, 16}> {
                y = Reshape (x, flat)
                z = Reshape (y, map)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,3,4,16] z) <int64[3] flat = {0, 3, 64}, int64[4] map = {0, 3, 4, 16}> {
                y = Reshape (x, flat)
                z = Reshape (y, map)
            }
            """,
            says="2 Reshape targets fix the batch to 1, as the input does",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[3,64] y) <int64[2] target = {3, 64}> {
                y = Reshape (x, target)
            }
            """,
            why="3 is not the batch",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8] x, float[8,1,4] w) => (float[N,4] y) <int64[2] target = {8, 4}> {
                v = Reshape (w, target)
                y = MatMul (x, v)
            }
            """,
            why="a reshaped weight has no batch",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        fixed: list[tuple[Node, list[int]]] = []
        for node, elements, free in _places(view):
            if not free:
                fixed.append((node, elements))
                continue
            yield self.found(
                view.at(node),
                f"Reshape target {elements} fixes the batch to {elements[0]}, but the input leaves it free",
                # Else the original may accept other batches, and mix them.
                fix=SAFE if _is_of_one_sample(node, elements) else replace(_MIXING, batch=elements[0]),
                group="Reshape targets fix the batch, but the input leaves it free",
                target=elements,
            )
        if fixed:
            # One for the whole model: with a fixed input, each of them alone is no news.
            node, elements = fixed[0]
            what = f"Reshape target {elements} fixes" if len(fixed) == 1 else f"{len(fixed):,} Reshape targets fix"
            yield self.found(
                view.at(node),
                f"{what} the batch to {elements[0]}, as the input does",
                severity=Severity.INFO,
                help=advice(view, self.help, "write 0 in place of the batch"),
                fix=SAFE if any(is_held(one.graph) for one, _ in fixed) else None,
                nodes=names_shown((label(one) for one, _ in fixed), 10),
                count=len(fixed),
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        if "count" not in dict(finding.evidence):
            _copy_batch(surgeon, view.find(finding.location))
            _free_declared(view, surgeon)
            return
        each(surgeon, (node for node, _, free in _places(view) if not free), partial(_copy_batch, surgeon))


_MIXING = Fix(Applicability.UNSAFE, flag="--unsafe")


def _places(view: GraphView) -> Iterator[tuple[Node, list[int], bool]]:
    """(Reshape, its target, whether the graph leaves the batch free) of each target that fixes the batch."""
    for node in view.nodes("Reshape"):
        elements = constant_integers(node, 1)
        if elements is None or len(elements) < 2 or batch_axis(node.graph, node.input(0)) != 0:
            continue
        shape = node.shape(0)
        batch = shape[0] if shape else None
        free = not isinstance(batch, int)
        # Under a fixed batch only that very number can be it: [12, 64, 64] of an attention merges the batch.
        if elements[0] > 0 and (elements[0] == batch or free) and (shape is None or len(shape) > 1):
            yield node, elements, free


def _is_of_one_sample(node: Node, elements: Sequence[int]) -> bool:
    """Whether the rest of a target has as many elements as a sample, so that the batch alone can fit."""
    data = exact_sizes(node.graph.view).of(node, 0)
    if data is None or -1 in elements or (0 in elements and node.attribute("allowzero", 0)):
        return False
    rest = [data[i] if n == 0 and i < len(data) else n for i, n in enumerate(elements)][1:]
    return hold_as_many(data[1:], rest)


def _copy_batch(surgeon: Surgeon, node: Node) -> None:
    """Let the first element of a target copy the batch."""
    import numpy as np

    held, elements = surgeon.node(node), constant_integers(node, 1) or []
    held.attrs.pop("allowzero", None)
    base = f"{node.name or node.output()}_target"
    held.inputs[1] = surgeon.constant(base, np.array([0, *elements[1:]], np.int64))


def _free_declared(view: GraphView, surgeon: Surgeon) -> None:
    """Leave the batch open that outputs of bodies are declared to have, which onnxruntime takes at its word."""
    for graph in view.graphs:
        if graph.parent is None or not is_held(graph):
            continue
        for output in surgeon.held(graph).outputs:
            axis = batch_axis(graph, output.name)
            if axis is not None and output.shape is not None and isinstance(output.shape[axis], int):
                output.shape = [None if i == axis else size for i, size in enumerate(output.shape)]
