"""SHP013: a Squeeze without axes, of a value with free sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Silent,
    Unfixable,
    printable,
)
from onnxlint.rulekit import Dim, is_invented
from onnxlint_rules._graph import advice
from onnxlint_rules._patching import UNHELD, is_held

if TYPE_CHECKING:
    from onnxlint import Surgeon


class SqueezeWithoutAxes(Rule):
    """A Squeeze without axes also removes the batch axis where the batch is 1.

    ## What it does

    Reports each Squeeze without axes whose input has free sizes: `x.squeeze()` exports as such.

    ## Why it hurts

    - Where a free size happens to be 1, most often the batch, its axis goes too: the output has another rank, and what
      comes after it fails or computes something else.
    - No rank can be inferred for the output: quantizers and converters stop. TensorRT: `Cannot infer squeeze dimensions
      from a dynamic shape! Please re-export your model with the Squeeze axes input set`.

    ## Fix it at the source

    ```python
    # before
    y = self.pool(x).squeeze()
    # after
    y = self.pool(x).flatten(1)  # or .squeeze(-1).squeeze(-1)
    ```

    ## Fix safety

    Naming the axes that always are 1 changes the output where a free size is 1 as well: its axis then stays, as is
    meant nearly always. So the fix is applied only with `--unsafe`.

    ## References

    - [Squeeze](https://onnx.ai/onnx/operators/onnx__Squeeze.html): "If axes is not provided, all the single dimensions
      will be removed"
    - [onnx-tensorrt's importers](https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp): Squeeze
    """

    code = "SHP013"
    name = "squeeze-without-axes"
    help = "name the axes: x.flatten(1) or x.squeeze(dim)"
    since = "0.2.0"
    fix = Fix(Applicability.UNSAFE, flag="--unsafe")
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[A,B] y) {
                pooled = GlobalAveragePool (x)
                flat = Squeeze (pooled)
                y = Relu (flat)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[A,B] y) <int64[2] axes = {2, 3}> {
                pooled = GlobalAveragePool (x)
                flat = Squeeze (pooled, axes)
                y = Relu (flat)
            }
            """,
            says="Squeeze of [N, 3, 1, 1] names no axes: where N is 1, that axis goes, too",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 11]>
            g (float[N,1,T] x) => (float y) {
                y = Squeeze (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 11]>
            g (float[N,1,T] x) => (float y) {
                y = Squeeze <axes = [1]> (x)
            }
            """,
            says="where N or T is 1",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,3,1,1] x) => (float[2,3] y) {
                y = Squeeze (x)
            }
            """,
            why="all sizes are fixed",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,1,1] x) => (float[N,3] y) <int64[2] axes = {2, 3}> {
                y = Squeeze (x, axes)
            }
            """,
            why="the axes are named",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for node in view.nodes("Squeeze"):
            free = _free(node)
            if not free:
                continue
            shape = node.shape(0) or ()
            shown = ", ".join("?" if is_invented(size) else printable(str(size)) for size in shape)
            names = list(dict.fromkeys(printable(str(size)) for size in free if not is_invented(size)))
            when = f"where {' or '.join(names)} is 1" if names else "where another size is 1"
            axes = _single(shape)
            fixable = bool(axes) and is_held(node.graph)
            yield self.found(
                view.at(node),
                f"Squeeze of [{shown}] names no axes: {when}, that axis goes, too",
                help=advice(view, self.help, "name the axes that are 1"),
                fix=self.fix if fixable else None,
                not_fixed="" if fixable else "no axis is known to be 1" if not axes else UNHELD,
                group="Squeezes name no axes: where a free size is 1, that axis goes, too",
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        node = view.find(finding.location)
        axes = _single(node.shape(0) or ())
        if not axes:
            raise Unfixable("no axis is known to be 1")
        held = surgeon.node(node)
        if view.opset < 13:
            held.attrs["axes"] = axes
        else:
            constant = surgeon.constant(f"{node.name or node.output()}_axes", np.array(axes, np.int64), node.graph)
            held.inputs = [held.inputs[0], constant]


def _free(node: Node) -> list[Dim]:
    """Free sizes that a Squeeze without axes depends on; empty if it has axes, or depends on none."""
    if node.input(1) or node.attribute("axes") is not None:
        return []
    return [size for size in node.shape(0) or () if not isinstance(size, int)]


def _single(shape: tuple[Dim, ...]) -> list[int]:
    return [axis for axis, size in enumerate(shape) if size == 1]
