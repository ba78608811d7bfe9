"""SHP010: a value whose rank cannot be inferred."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent, printable


class UnknownShape(Rule):
    """The rank of a value cannot be inferred.

    ## What it does

    Reports each node of the main graph whose inputs have known ranks and whose output has none: the places where shape
    inference loses its way. What comes after them is not reported again.

    ## Why it hurts

    - Converters (ncnn's pnnx, TensorRT) and quantizers need ranks: layout conversion, per-channel axes and memory planning
      all stop at such a value.
    - Nothing downstream can be proved, so nothing there can be fixed safely.

    ## Fix it at the source

    ```python
    # before: the number of target dims depends on data
    y = x.reshape(tuple(sizes.tolist()))
    # after
    y = x.reshape(x.shape[0], -1, 4)
    ```

    ## Fix safety

    Not fixable in the graph: the rank would have to be known.

    ## References

    - [ONNX shape inference](https://onnx.ai/onnx/repo-docs/ShapeInference.html)
    - [onnxruntime: symbolic shape inference](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#pre-processing)
    """

    code = "SHP010"
    name = "unknown-shape"
    severity = Severity.INFO
    help = "make the number of axes independent of data"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,16] x, int64[K] target) => (float[A,B] y) {
                t = Reshape (x, target)
                y = Relu (t)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,16] x, int64[2] target) => (float[A,B] y) {
                t = Reshape (x, target)
                y = Relu (t)
            }
            """,
            equal=False,
            says="rank of 't' cannot be inferred",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "my.ops": 1]>
            g (float[N,16] x) => (float[A,B] y) {
                t = my.ops.Fancy (x)
                y = Relu (t)
            }
            """,
            why="an operator that ONNX does not know is OPS004's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        graph = view.main
        if view.inference_error or view.opset < 7:
            return  # before opset 7, operators of ONNX's own library infer nothing: OPS001's matter
        reported = -1
        for name in view.rankless(graph):
            node = graph.producer(name)
            if (
                node is None
                or node.index == reported
                or "::" in node.op
                or node.op in _NOT_TENSORS
                or _is_squeeze(node)
            ):
                continue
            if not graph.consumers(name) and not graph.is_output(name):
                continue
            if all(graph.shape(operand) is not None for operand in node.inputs if operand):
                reported = node.index
                yield self.found(
                    view.at(node, value=name), f"rank of {printable(name)!r} cannot be inferred", group=_GROUP
                )


_GROUP = "ranks cannot be inferred"


def _is_squeeze(node: Node) -> bool:
    """Whether SHP013 reports it."""
    return node.op == "Squeeze" and not node.input(1) and node.attribute("axes") is None


_NOT_TENSORS = frozenset(
    """If Loop Optional Scan SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceMap
    SplitToSequence StringSplit""".split()
)
