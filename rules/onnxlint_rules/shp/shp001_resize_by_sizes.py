"""SHP001: Resize or Upsample driven by a computed size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onnxlint import Example, Finding, GraphView, Node, Options, Request, Rule, Silent, Unfixable, printable
from onnxlint.rulekit import shape_chain
from onnxlint_rules.shp._operands import Scales, resize_factors, resize_scales

if TYPE_CHECKING:
    from onnxlint import Surgeon


class ResizeBySizes(Rule):
    """A Resize takes its output size from another tensor's shape in place of a constant scale.

    ## What it does

    Reports every Resize that is driven by `sizes`, and every Upsample-9 and Resize-10 whose `scales` are computed from
    shapes at run time.

    ## Why it hurts

    - ncnn: onnx2ncnn prints `Unsupported Resize scales and sizes are all empty!` (or `Unsupported Upsample scales !`),
      exits with 0 and writes a model that does not load.
    - TensorRT: a size computed from shapes makes the layer's output a shape tensor; the builder must keep the Shape
      chain, and the layer cannot be fused.
    - A constant size works only at the input size that the model was exported with.

    ## Fix it at the source

    ```python
    # before
    up = F.interpolate(x, size=[y.size(2), y.size(3)], mode="nearest")
    # after
    up = F.interpolate(x, scale_factor=2, mode="nearest")
    ```

    ## Fix safety

    Constant `scales` can take the place of the size where the ratio is the same for every input (`safe`), or under a
    condition (`H % 32 == 0`). Outside the condition the resized map has another size than the one it is added to: ONNX
    runtimes then stop with a shape mismatch.

    ## References

    - [Resize](https://onnx.ai/onnx/operators/onnx__Resize.html) in the ONNX specification
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): the messages quoted above
    - [torch.nn.functional.interpolate](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html)
    """

    code = "SHP001"
    name = "resize-by-sizes"
    help = "use a constant scale_factor in F.interpolate"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x, float[N,4,H2,W2] y) => (float[N,4,A,B] out) {
                shape = Shape (y)
                sizes = Identity (shape)
                out = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                              nearest_mode = "floor"> (x, , , sizes)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x, float[N,4,H2,W2] y) => (float[N,4,A,B] out)
            <float[4] scales = {1, 1, 2, 2}> {
                out = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                              nearest_mode = "floor"> (x, , scales)
            }
            """,
            dims={"H": 3, "W": 5, "H2": 6, "W2": 10},
            says="computed from shapes (Shape → Identity → Resize)",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,8,8] x) => (float[1,4,16,16] out) <int64[4] sizes = {1, 4, 16, 16}> {
                out = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                              nearest_mode = "floor"> (x, , , sizes)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,8,8] x) => (float[1,4,16,16] out) <float[4] scales = {1, 1, 2, 2}> {
                out = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                              nearest_mode = "floor"> (x, , scales)
            }
            """,
            says="fixed to 16×16",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x) => (float[N,4,A,B] out) <float[4] scales = {1, 1, 2, 2}> {
                out = Resize <mode = "nearest"> (x, , scales)
            }
            """,
            why="scales are constant",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x, float[4] scales) => (float[N,4,A,B] out) {
                out = Resize <mode = "nearest"> (x, , scales)
            }
            """,
            why="a scale that the user feeds is SHP008's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for node in view.nodes("Resize", "Upsample"):
            index, kind = resize_factors(node)
            chain = shape_chain(node, index) if index >= 0 else None
            if chain is None and kind != "sizes":
                continue
            scales = resize_scales(node)
            message = _constant_message(node)
            if chain is not None:
                message = f"{node.op} {kind} are computed from shapes ({' → '.join([*chain.path(), node.op])})"
            evidence: dict[str, Any] = {"operand": node.input(index)}
            if scales.exact:
                evidence["exact when"] = scales.exact
            if scales.why:
                evidence["not fixed"] = scales.why
            yield self.found(view.at(node), message + _outside(scales), fix=scales.fix(), **evidence)

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        node = view.find(finding.location)
        scales = resize_scales(node)
        if scales.factors is None:
            raise Unfixable(scales.why)
        held = surgeon.node(node)
        # A runtime that is given sizes divides them in float32: the same number here gives the same coordinates.
        factors = np.array([np.float32(f.numerator) / np.float32(f.denominator) for f in scales.factors], np.float32)
        constant = surgeon.constant(f"{node.name or node.output()}_scales", factors)
        if node.op == "Upsample" or view.opset < 11:
            held.inputs = [held.inputs[0], constant]
        else:
            held.inputs = [*held.inputs[:2], constant]


def _outside(scales: Scales) -> str:
    if scales.factors is None or not scales.conditions:
        return ""
    factor = max(scales.factors)
    return f"; always ×{factor} if {printable(' and '.join(scales.conditions))}"


def _constant_message(node: Node) -> str:
    sizes = node.constant(3)
    if sizes is None:
        return f"{node.op} is driven by sizes that arrive at run time"
    return f"{node.op} size is fixed to {'×'.join(map(str, sizes.reshape(-1)[-2:]))}: right for one input size only"
