"""SHP007: a graph input with a fixed batch."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Applicability, Example, Finding, Fix, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import batch_axis


class FixedBatchInput(Rule):
    """A graph input fixes the batch size.

    ## What it does

    Reports graph inputs of rank 4 and more (images, clips), and of rank 2 and 3 with a batch of 1, whose first size is a
    number. What a recurrent operator reads (LSTM, GRU, RNN) has its batch where that operator looks for it, mostly at the
    second axis. Off unless selected: on a phone, a fixed batch of 1 is what one wants.

    ## Why it hurts

    Servers (Triton, TensorRT with optimization profiles, onnxruntime) can then not batch requests, and every test of
    another batch size needs another export.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx")
    # after
    torch.onnx.export(model, x, "model.onnx", dynamo=True, dynamic_shapes={"x": {0: "batch"}})
    ```

    ## Fix safety

    `onnxlint fix --dynamic 'x=N,3,8,8'` sets the batch free. It follows the batch through the graph, rewrites constants that
    have it baked in (Reshape targets, Resize sizes), repeats class tokens and initial states, and where a node does not
    allow it, names the node and changes nothing. At the size of the export the model computes the same bits.

    ## References

    - [torch.onnx.export: dynamic_shapes](https://docs.pytorch.org/docs/stable/onnx_export.html)
    - [Triton: dynamic batcher](https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/batcher.html)
    """

    code = "SHP007"
    name = "fixed-batch-input"
    severity = Severity.INFO
    default = False
    help = "export with a dynamic first axis"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,3,8,8] x) => (float[1,3,8,8] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,8,8] x) => (float[N,3,8,8] y) {
                y = Relu (x)
            }
            """,
            dims={"N": 1},
            says="input 'x' [1, 3, 8, 8] fixes the batch to 1",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 14]>
            g (float[5,1,2] x) => (float[5,1,1,1] y) <float[1,1,2] w = {1, 2}, float[1,1,1] r = {3}> {
                y, last = RNN <hidden_size = 1> (x, w, r)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 14]>
            g (float[5,N,2] x) => (float[5,1,N,1] y) <float[1,1,2] w = {1, 2}, float[1,1,1] r = {3}> {
                y, last = RNN <hidden_size = 1> (x, w, r)
            }
            """,
            dims={"N": 1},
            says="input 'x' [5, 1, 2] fixes the batch to 1",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[16,3] x) => (float[16,3] y) {
                y = Relu (x)
            }
            """,
            why="the first axis of a matrix need not be a batch",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for name in view.main.data_inputs:
            shape, axis = view.main.shape(name), batch_axis(view.main, name)
            if shape and axis is not None and isinstance(shape[axis], int):
                dims = ["N" if i == axis else str(dim or "?") for i, dim in enumerate(shape)]
                wanted = f"{printable(name)}={','.join(dims)}"
                yield self.found(
                    view.at(value=name),
                    f"input {printable(name)!r} [{', '.join(map(str, shape))}] fixes the batch to {shape[axis]}",
                    fix=Fix(Applicability.UNSAFE, flag=f"--dynamic '{wanted}'"),
                )
