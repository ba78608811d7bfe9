"""SHP001: Resize or Upsample driven by a computed size."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Silent
from onnxlint.chains import trace
from onnxlint_rules._shape_operands import resize_factors


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
            if index < 0:
                continue
            chain = trace(node, index)
            if chain is not None and (kind == "sizes" or view.opset < 11):
                way = " → ".join([*chain.path(), node.op])
                yield self.found(
                    view.at(node), f"{node.op} {kind} are computed from shapes ({way})", operand=node.input(index)
                )
            elif kind == "sizes":
                yield self.found(view.at(node), _constant_message(node), operand=node.input(index))


def _constant_message(node: Node) -> str:
    sizes = node.constant(3)
    if sizes is None:
        return f"{node.op} is driven by sizes that arrive at run time"
    return f"{node.op} size is fixed to {'×'.join(map(str, sizes.reshape(-1)[-2:]))}: right for one input size only"
