"""SHP001: Resize or Upsample driven by a computed size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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
    Severity,
    Silent,
    Unfixable,
    printable,
)
from onnxlint.rulekit import shape_chain
from onnxlint_rules._graph import advice, constant_integers
from onnxlint_rules.shp._operands import Scales, known_sizes, resize_factors, resize_scales
from onnxlint_rules.shp._python import scale_text, with_scale_factor

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

    Where all sizes are numbers and no scale says the same (45 from 22), they become a constant.

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
            says="Resize size is the constant 16×16; a scale of 2 is equivalent",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x) => (float[N,4,16,16] out) <int64[4] sizes = {1, 4, 16, 16}> {
                out = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                              nearest_mode = "floor"> (x, , , sizes)
            }
            """,
            says="fixed to 16×16, whatever the size of the input",
            dims={"N": 1},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x) => (float[N,4,A,B] out) {
                pooled = GlobalAveragePool (x)
                sizes = Shape (x)
                out = Resize <mode = "linear"> (pooled, , , sizes)
            }
            """,
            says="a 1×1 map is enlarged to H×W: no constant factor exists",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,2,H,W] x) => (float[1,2,H,W] y) <float[1,2,2,2] position = {1,2,3,4,5,6,7,8}> {
                sizes = Shape (x)
                embedding = Resize <mode = "linear"> (position, , , sizes)
                y = Add (x, embedding)
            }
            """,
            says="a constant of 2×2 is resized to H×W: no constant factor exists",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x, float[N,4,P,Q] z) => (float[N,4,H,W] y)
            <int64[1] begin = {2}, int64[1] end = {4}, int64[1] zero = {0}, int64[1] two = {2}> {
                shape = Shape (x)
                sides = Slice (shape, begin, end)
                other = Shape (z)
                lead = Slice (other, zero, two)
                sizes = Concat <axis = 0> (lead, sides)
                y = Resize <mode = "nearest"> (z, , , sizes)
            }
            """,
            says="; P×Q is resized to H×W, a size of its own: no constant factor exists",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,45,45] x) => (float[1,4,45,45] y)
            <int64[1] begin = {2}, int64[1] end = {4}, int64[1] zero = {0}, int64[2] lead = {1, 4}> {
                small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
                shape = Shape (x)
                sides = Slice (shape, begin, end)
                sizes = Concat <axis = 0> (lead, sides)
                y = Resize <mode = "nearest"> (small, , , sizes)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,4,45,45] x) => (float[1,4,45,45] y) <int64[4] sizes = {1, 4, 45, 45}> {
                small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
                y = Resize <mode = "nearest"> (small, , , sizes)
            }
            """,
            says="(Shape → Slice → Concat → Resize), and always [1, 4, 45, 45]",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[1,4,H,W] x) => (float[1,4,A,W] y) <int64[1] two = {2}, int64[2] lead = {1, 4}> {
                height = Shape <start = 2, end = 3> (x)
                width = Shape <start = 3, end = 4> (x)
                half = Div (height, two)
                sizes = Concat <axis = 0> (lead, half, width)
                y = Resize <mode = "nearest"> (x, , , sizes)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[1,4,H,W] x) => (float[1,4,A,W] y) <float[4] scales = {1, 1, 0.5, 1}> {
                y = Resize <mode = "nearest"> (x, , scales)
            }
            """,
            dims={"H": 6, "W": 5},
            says="; always ×1/2 if H % 2 == 0",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 18]>
            g (float[1,4,8,7] x) => (float[1,4,16,14] out) <int64[4] sizes = {1, 4, 16, 16}> {
                out = Resize <mode = "nearest", keep_aspect_ratio_policy = "not_larger"> (x, , , sizes)
            }
            """,
            why="the input has one size, and a scale would not be equivalent",
        ),
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
            static = chain is None and _is_static(node)
            if static and scales.factors is None:
                continue
            message, fix = _constant_message(node, scales, static), scales.fix()
            if chain is not None:
                message = f"{node.op} {kind} are computed from shapes ({' → '.join([*chain.path(), node.op])})"
                sizes = known_sizes(node)
                if sizes is not None:  # no scale says the same, and so they become constants
                    message += f", and always {sizes}"
                    fix = Fix(Applicability.SAFE, shortens=not _is_static(node))
            evidence: dict[str, Any] = {"operand": node.input(index)}
            if scales.exact:
                evidence["exact when"] = scales.exact
            if scales.factors is not None:
                evidence["scale factor"] = scale_text(scales.factors[2:])
            place = view.at(node)
            better = (
                with_scale_factor(place.source[-1].code, scales.factors[2:]) if place.source and scales.factors else ""
            )
            yield self.found(
                place,
                message + _outside(scales),
                severity=Severity.INFO if static else None,
                help=_help(node, scales),
                fix=fix,
                group="Resize nodes take their size in place of a constant scale",
                not_fixed=scales.why,
                replacement=better,
                **evidence,
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        node = view.find(finding.location)
        scales = resize_scales(node)
        held, base = surgeon.node(node), node.name or node.output()
        sizes = known_sizes(node)
        if sizes is not None:
            held.inputs[3] = surgeon.constant(f"{base}_sizes", np.array(sizes, np.int64))
            return
        if scales.factors is None:
            raise Unfixable(scales.why)
        # A runtime that is given sizes divides them in float32: the same number here gives the same coordinates.
        factors = np.array([np.float32(f.numerator) / np.float32(f.denominator) for f in scales.factors], np.float32)
        constant = surgeon.constant(f"{base}_scales", factors)
        if node.op == "Upsample" or view.opset < 11:
            held.inputs = [held.inputs[0], constant]
        else:
            held.inputs = [*held.inputs[:2], constant]


def _outside(scales: Scales) -> str:
    if scales.special:
        return f"; {scales.why}"
    if scales.factors is None or not scales.conditions:
        return ""
    factor = " and ×".join(dict.fromkeys(str(one) for one in scales.factors if one != 1)) or "1"
    return f"; always ×{factor} if {printable(' and '.join(scales.conditions))}"


def _constant_message(node: Node, scales: Scales, static: bool) -> str:
    sizes = constant_integers(node, 3)
    if sizes is None:
        return f"{node.op} size arrives at run time"
    shown = "×".join(map(str, sizes[-2:]))
    if not static:
        return f"{node.op} size is fixed to {shown}, whatever the size of the input"
    factors = "×".join(dict.fromkeys(str(f) for f in (scales.factors or ())[-2:]))
    return f"{node.op} size is the constant {shown}; a scale of {factors} is equivalent"


def _is_static(node: Node) -> bool:
    shape = node.shape(0)
    return shape is not None and all(isinstance(dim, int) for dim in shape[1:])


def _help(node: Node, scales: Scales) -> str:
    if scales.special:
        return "fix the size of the input where the target needs a constant: onnxlint fix --static NAME=1,3,H,W"
    return advice(node.graph.view, ResizeBySizes.help, "use a constant scale in place of the size")
