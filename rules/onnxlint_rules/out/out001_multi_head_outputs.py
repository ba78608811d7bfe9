"""OUT001: detection heads that leave the graph one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    GraphView,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
    printable,
)
from onnxlint_rules._graph import advice
from onnxlint_rules.out._heads import Heads, find_heads, show_shape

if TYPE_CHECKING:
    from onnxlint import Surgeon


class MultiHeadOutputs(Rule):
    """Detection heads are separate outputs; one concatenated output would be enough.

    ## What it does

    Reports a model whose outputs are heads of one detector: floating point, of the same rank, equal in all axes but
    one (boxes `[N, P, 4]`, classes `[N, P, 2]`, landmarks `[N, P, 10]`), each joined by a Concat over the same feature
    maps. Also heads that leave once for each feature map (`[N, 7600, 10]`, `[N, 7600, 32]`, `[N, 1900, 10]`, …).

    Other models with several outputs stay silent: start and end logits, hidden states and poolers, feature pyramids,
    keys and values of a cache, masks beside scores, and heads on one single feature map.

    ## Why it hurts

    - The runtime does not promise the order. TensorRT has listed outputs in another order than the ONNX file did, and
      Triton's automatic configuration has swapped two: code that takes outputs by number then reads boxes as scores,
      without an error. One output has no order.
    - Every output is a buffer to allocate, a copy to wait for and a loop of its own in the code after the model: for
      each candidate, three places in memory in place of one row.

    ## Fix it at the source

    ```python
    # before
    return boxes, classes, landmarks
    # after
    return torch.cat([boxes, classes, landmarks], dim=-1)
    ```

    ## Fix safety

    Concatenation changes the interface: callers have to slice the one output (exact, no number changes). Do not do it
    where the output itself is quantized with one scale for the whole tensor: boxes in pixels then take the whole range
    and scores become zero. Then keep the heads apart, or concatenate after the dequantization.

    ## References

    - [Output order of TensorRT and ONNX differs](https://github.com/NVIDIA/TensorRT/issues/1042), and
      [the same with matching keypoints](https://github.com/yuefanhao/SuperPoint-SuperGlue-TensorRT/issues/27)
    - [Triton swaps outputs](https://github.com/triton-inference-server/server/issues/3859)
    - [NanoDet: from six outputs to one](https://github.com/linghu8812/tensorrt_inference/issues/47)
    - [Scores are zero after static quantization of concatenated boxes and
      scores](https://github.com/open-mmlab/mmyolo/issues/776), and
      [in RKNN](https://github.com/ultralytics/ultralytics/pull/25524)
    """

    code = "OUT001"
    name = "multi-head-outputs"
    severity = Severity.INFO
    help = "concatenate the heads into one output: torch.cat([...], dim=-1)"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,4] p3, float[N,4,4] p4) => (float[N,P,2] boxes, float[N,P,3] classes)
            <float[4,2] wb = {1, 0, 0, 1, 1, 1, 0, 0}, float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                f3 = Relu (p3)
                f4 = Relu (p4)
                b3 = MatMul (f3, wb)
                b4 = MatMul (f4, wb)
                c3 = MatMul (f3, wc)
                c4 = MatMul (f4, wc)
                boxes = Concat <axis = 1> (b3, b4)
                logits = Concat <axis = 1> (c3, c4)
                classes = Softmax <axis = 2> (logits)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,4] p3, float[N,4,4] p4) => (float[N,P,5] detections)
            <float[4,2] wb = {1, 0, 0, 1, 1, 1, 0, 0}, float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                f3 = Relu (p3)
                f4 = Relu (p4)
                b3 = MatMul (f3, wb)
                b4 = MatMul (f4, wb)
                c3 = MatMul (f3, wc)
                c4 = MatMul (f4, wc)
                boxes = Concat <axis = 1> (b3, b4)
                logits = Concat <axis = 1> (c3, c4)
                classes = Softmax <axis = 2> (logits)
                detections = Concat <axis = 2> (boxes, classes)
            }
            """,
            equal=False,
            says="2 outputs are heads over the same 12 candidates",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,4] p3, float[N,4,4] p4) => (float[N,P,3] scores, float[N,P,4] boxes)
            <float[4,4] wb = {1, 0, 0, 1, 1, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, float half = {0.5},
             float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, int64[1] zero = {0}, int64[1] two = {2},
             int64[1] four = {4}> {
                b3 = MatMul (p3, wb)
                b4 = MatMul (p4, wb)
                c3 = MatMul (p3, wc)
                c4 = MatMul (p4, wc)
                said = Concat <axis = 1> (b3, b4)
                center = Slice (said, zero, two, two)
                logarithm = Slice (said, two, four, two)
                size = Exp (logarithm)
                away = Mul (size, half)
                corner = Sub (center, away)
                other = Add (center, away)
                boxes = Concat <axis = 2> (corner, other)
                logits = Concat <axis = 1> (c3, c4)
                scores = Softmax <axis = 2> (logits)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8,4] p3, float[N,4,4] p4) => (float[N,P,7] output)
            <float[4,4] wb = {1, 0, 0, 1, 1, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, float half = {0.5},
             float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, int64[1] zero = {0}, int64[1] two = {2},
             int64[1] four = {4}> {
                b3 = MatMul (p3, wb)
                b4 = MatMul (p4, wb)
                c3 = MatMul (p3, wc)
                c4 = MatMul (p4, wc)
                said = Concat <axis = 1> (b3, b4)
                center = Slice (said, zero, two, two)
                logarithm = Slice (said, two, four, two)
                size = Exp (logarithm)
                away = Mul (size, half)
                corner = Sub (center, away)
                other = Add (center, away)
                boxes = Concat <axis = 2> (corner, other)
                logits = Concat <axis = 1> (c3, c4)
                scores = Softmax <axis = 2> (logits)
                output = Concat <axis = 2> (scores, boxes)
            }
            """,
            equal=False,
            says="2 outputs are heads over the same 12 candidates",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,16,4] p3, float[1,4,4] p4)
            => (float[1,16,2] b3, float[1,16,3] c3, float[1,4,2] b4, float[1,4,3] c4)
            <float[4,2] wb = {1, 0, 0, 1, 1, 1, 0, 0}, float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                b3 = MatMul (p3, wb)
                c3 = MatMul (p3, wc)
                b4 = MatMul (p4, wb)
                c4 = MatMul (p4, wc)
            }
            """,
            says="4 outputs are 2 heads on 2 feature maps each",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,S,4] hidden) => (float[N,S] start_logits, float[N,S] end_logits)
            <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}, int64[1] last = {-1}> {
                both = MatMul (hidden, w)
                start, end = Split <axis = 2> (both)
                start_logits = Squeeze (start, last)
                end_logits = Squeeze (end, last)
            }
            """,
            why="start and end logits agree in every axis",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,S,4] x) => (float[N,S,4] last_hidden_state, float[N,S,3] logits)
            <float[4,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                last_hidden_state = Relu (x)
                logits = MatMul (last_hidden_state, w)
            }
            """,
            why="hidden states are not heads",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,8,32,32] x) => (float[1,8,32,32] c2, float[1,8,16,16] c3, float[1,8,8,8] c4) {
                c2 = Relu (x)
                c3 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c2)
                c4 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c3)
            }
            """,
            why="a feature pyramid differs in height and width",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H,W] x, float[N,4,H,W] y) => (float[N,8,H,W] early, float[N,12,H,W] late) {
                a = Relu (x)
                b = Relu (y)
                early = Concat <axis = 1> (a, b)
                c = Relu (early)
                late = Concat <axis = 1> (a, c)
            }
            """,
            why="features of a dense block are joined along the axis in which they differ",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,P,4] past_key, float[N,2,P,3] past_value, float[N,2,S,4] x)
            => (float[N,2,T,4] key, float[N,2,T,3] value)
            <float[4,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                k = Relu (x)
                v = MatMul (k, w)
                key = Concat <axis = 2> (past_key, k)
                value = Concat <axis = 2> (past_value, v)
            }
            """,
            why="keys and values of a cache are not heads",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,100,4] queries) => (float[N,100,2] pred_boxes, float[N,100,3] logits)
            <float[4,2] wb = {1, 0, 0, 1, 1, 1, 0, 0}, float[4,3] wc = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
                pred_boxes = MatMul (queries, wb)
                logits = MatMul (queries, wc)
            }
            """,
            why="boxes and logits of one set of queries (DETR) are a common interface",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        heads = find_heads(view)
        if heads is not None:
            yield self.found(
                view.at(value=heads.names[0]),
                _message(heads),
                help=advice(view, self.help, "concatenate the heads into one output"),
                outputs=", ".join(printable(name) for name in heads.names),
                axis=heads.axis,
                sizes="+".join(map(str, heads.sizes)),
                fix=Fix(Applicability.UNSAFE, flag="--concat-heads") if heads.levels == 1 else None,
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        from onnxlint.rulekit import join_heads

        heads = find_heads(view)
        if heads is None or heads.levels > 1:
            raise Unfixable("each feature map has outputs of its own")
        join_heads(view, surgeon, heads.names, request.concat_axis, request.concat_name)


def _message(heads: Heads) -> str:
    count = len(heads.names)
    values = f"{'+'.join(map(str, heads.sizes))} = {sum(heads.sizes)}"
    pairs = list(zip(heads.names, heads.shapes, strict=True))
    shown = ", ".join(f"{printable(name)!r} {show_shape(shape)}" for name, shape in pairs[:3])
    if count > 3:
        shown += f" and {count - 3} more"
    if heads.levels > 1:
        what = f"{len(heads.sizes)} heads on {heads.levels} feature maps each; one for each map is enough"
    else:
        sizes = [size for axis, size in enumerate(heads.shapes[0]) if axis not in (0, heads.axis)]
        known = len(sizes) == 1 and isinstance(sizes[0], int)
        what = f"heads over the same {f'{sizes[0]} ' if known else ''}candidates; one is enough"
    return f"{count} outputs are {what} (axis {heads.axis}: {values}): {shown}"
