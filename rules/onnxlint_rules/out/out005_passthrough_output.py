"""OUT005: a graph output that nothing computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    Graph,
    GraphView,
    Options,
    Request,
    Rule,
    Silent,
    Unfixable,
    printable,
)
from onnxlint_rules._graph import advice

if TYPE_CHECKING:
    from onnxlint import Surgeon

_MAX_STEPS = 64


class PassthroughOutput(Rule):
    """A graph output is an input or a constant, unchanged.

    ## What it does

    Reports graph outputs that are a graph input, an initializer or a Constant, directly or through Identity.

    ## Why it hurts

    - TensorRT does not let a tensor be input and output. Its ONNX parser works around this by renaming the network
      *input* to `__name`: code that binds buffers by the name in the ONNX file then finds no such input.
    - onnx2ncnn writes no list of outputs, and drops constants that no layer reads: such an output is not in the
      `.param`, and cannot be extracted.
    - It costs a copy in each run for something that the caller has already, and it hides mistakes: a branch that the
      exporter traced away leaves a constant in its place.

    ## Fix it at the source

    ```python
    # before
    return logits, input_ids, self.anchors
    # after: the caller keeps what it had, and constants are saved once, beside the model
    return logits
    ```

    ## Fix safety

    Removing the output changes the interface; no other number changes. Keep it where a caller expects states by name
    and feeds them back (`past` to `present`).

    ## References

    - [onnx-tensorrt, ModelImporter.cpp](https://github.com/onnx/onnx-tensorrt/blob/main/ModelImporter.cpp): `TRT not
      allowing input == output`, and the new name of the input
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp)
    - [ONNX: graphs](https://onnx.ai/onnx/repo-docs/IR.html#graphs)
    """

    code = "OUT005"
    name = "passthrough-output"
    apart = True
    help = "do not return inputs and constants from forward()"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] same) {
                y = Relu (x)
                same = Identity (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            equal=False,
            says="output 'same' is input 'x', unchanged",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[2] anchors) <float[2] anchors = {16, 32}> {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            equal=False,
            says="output 'anchors' is a constant",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                z = Relu (x)
                y = Identity (z)
            }
            """,
            why="Identity of something computed",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (int64[2] shape) {
                shape = Shape (x)
            }
            """,
            why="the shape of an input is computed",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        graph, fix = view.main, Fix(Applicability.UNSAFE, flag="--unsafe")
        help = advice(view, self.help, "do not make inputs or constants outputs of the model")
        for name in dict.fromkeys(graph.outputs):
            source = _source(graph, name)
            if graph.is_constant(source):
                message = f"output {printable(name)!r} is a constant, the same in each run"
                yield self.found(view.at(value=name), message, help=help, fix=fix)
            elif graph.producer(source) is None and graph.owns(source):
                what = "an input" if source == name else f"input {printable(source)!r}"
                message = f"output {printable(name)!r} is {what}, unchanged"
                yield self.found(view.at(value=name), message, help=help, fix=fix)

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        name = finding.location.value
        if all(tensor.name == name for tensor in surgeon.graph.outputs):
            raise Unfixable("it is the only output")
        producer = view.main.producer(name)
        if producer is not None:
            surgeon.node(producer)
        surgeon.graph.outputs = [tensor for tensor in surgeon.graph.outputs if tensor.name != name]


def _source(graph: Graph, name: str) -> str:
    """The value that Identity nodes hand through to `name`."""
    for _ in range(_MAX_STEPS):
        node = graph.producer(name)
        if node is None or node.op != "Identity" or not node.inputs:
            break
        name = node.inputs[0]
    return name
