"""OPS011: a node of whose result onnxruntime infers another size than it makes."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import misread_sizes


class MisreadSize(Rule):
    """An operator is used in a way of which runtimes, and even one runtime, have two opinions.

    ## What it does

    Reports what was seen to have one size where it is computed and another where it is inferred:

    - Einsum with an axis of 1 that is repeated to the size that another operand has under the same letter;
    - Slice with a negative step whose end stands for "all" (2147483647 and more);
    - pooling with `ceil_mode` whose last window would begin in the padding;
    - Resize by a scale like 0.7, of which single and double precision make different sizes of a fixed input.

    ## Why it hurts

    onnxruntime computes one size and infers the other when it loads the model. Whoever asks for the shape of the result
    gets the inferred one, as a constant: a Reshape or Expand behind it then fails, or mixes numbers up, and only where
    optimizations are on. Other runtimes and converters have either opinion. For Einsum, ONNX does not say that sizes are
    repeated; for Slice, its reference returns nothing where onnxruntime returns all.

    ## Fix it at the source

    ```python
    # before: w has a batch of 1
    y = torch.einsum("bij,bjk->bik", w, x)
    # after
    y = torch.einsum("ij,bjk->bik", w[0], x)
    ```

    ## Fix safety

    There is no fix: the file does not say which opinion is meant.

    ## References

    - [Einsum](https://onnx.ai/onnx/operators/onnx__Einsum.html), [Slice](https://onnx.ai/onnx/operators/onnx__Slice.html),
      [MaxPool](https://onnx.ai/onnx/operators/onnx__MaxPool.html), [Resize](https://onnx.ai/onnx/operators/onnx__Resize.html)
    """

    code = "OPS011"
    name = "misread-size"
    severity = Severity.WARNING
    help = "write it in a form whose size all runtimes agree on"
    since = "0.2.0"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,2,3] w, float[5,3,4] x) => (float[5,2,4] y) { y = Einsum <equation = "bij,bjk->bik"> (w, x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,2,3] w, float[5,3,4] x) => (float[5,2,4] y) <int64[1] zero = {0}> {
                v = Squeeze (w, zero)
                y = Einsum <equation = "ij,bjk->bik"> (v, x)
            }
            """,
            says="Einsum repeats axis 'b', which is 1 in one operand and 5 in another: onnxruntime takes its result for",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,4] x) => (float[N,A] y)
            <int64[1] s = {-1}, int64[1] e = {9223372036854775807}, int64[1] a = {1}, int64[1] t = {-1}> {
                y = Slice (x, s, e, a, t)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,4] x) => (float[N,A] y)
            <int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] a = {1}, int64[1] t = {-1}> {
                y = Slice (x, s, e, a, t)
            }
            """,
            equal=False,
            says="all in onnxruntime, and nothing by the specification",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,1,4] x) => (float[N,1,2] y) {
                y = MaxPool <kernel_shape = [2], strides = [3], pads = [1, 1], ceil_mode = 1> (x)
            }
            """,
            says="makes 2 of 4, and onnxruntime infers 3",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,1,10,10] x) => (float[1,1,7,7] y) <float[4] s = {1, 1, 0.7, 0.7}> { y = Resize (x, , s) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,1,10,10] x) => (float[1,1,7,7] y) <int64[4] s = {1, 1, 7, 7}> { y = Resize (x, , , s) }
            """,
            equal=False,
            says="Resize by 0.7 makes 7 of 10 in single precision, and 6 in double",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,2,3] w, float[N,3,4] x) => (float[N,2,4] y) { y = Einsum <equation = "bij,bjk->bik"> (w, x) }
            """,
            why="both have the same size",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,2,3] w, float[5,3,4] x) => (float[5,2,4] y) { y = Einsum <equation = "...ij,...jk->...ik"> (w, x) }
            """,
            why="an ellipsis is repeated by the specification",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,1,112] x) => (float[N,1,57] y) {
                y = MaxPool <kernel_shape = [3], strides = [2], pads = [1, 1], ceil_mode = 1> (x)
            }
            """,
            why="the last window begins in the map",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y) <float[4] s = {1, 1, 0.7, 0.7}> { y = Resize (x, , s) }
            """,
            why="of free sizes nothing is inferred",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for one in misread_sizes(view):
            yield self.found(view.at(one.node), printable(one.what), help=one.help)
