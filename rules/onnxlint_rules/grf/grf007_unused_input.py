"""GRF007: graph inputs that no output depends on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import Applicability, Example, Finding, Fix, GraphView, Options, Request, Rule, Silent, counted
from onnxlint_rules._graph import names_shown
from onnxlint_rules.grf._liveness import liveness

if TYPE_CHECKING:
    from onnxlint import Surgeon


class UnusedInput(Rule):
    """No output depends on a graph input.

    ## What it does

    Reports the graph inputs that no node reads, or only nodes that no output depends on; once, with their names. An input
    that is an output too (OUT005) and an initializer that is listed as an input (GRF001) are left out.

    ## Why it hurts

    - onnxruntime wants a value for it at every run all the same: `Required inputs (['mask']) are missing`.
    - TensorRT drops it or refuses to build, by version (`Unused Input: …`), so that code which binds buffers by position
      or by name finds another set of bindings than the model file has.
    - Often it is a sign: a mask or a scale that the traced example happened not to need is now ignored for every input.

    ## Fix it at the source

    ```python
    # before: forward(self, x, mask) ignores mask, or traced a branch without it
    torch.onnx.export(model, (x, mask), "model.onnx", input_names=["x", "mask"])
    # after
    torch.onnx.export(model, (x,), "model.onnx", input_names=["x"])
    ```

    ## Fix safety

    Removing the input changes no number, but the interface: callers that pass it then fail with an unknown input name.

    ## References

    - [TensorRT#126](https://github.com/NVIDIA/TensorRT/issues/126): `[E] [TRT] Unused Input: input2`
    - [torch2trt#198](https://github.com/NVIDIA-AI-IOT/torch2trt/issues/198)
    - [pytorch-pfn-extras#654](https://github.com/pfnet/pytorch-pfn-extras/issues/654): inputs that vanish without a word
    """

    code = "GRF007"
    name = "unused-input"
    apart = True
    help = "remove the input, or find out why the model ignores it"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[N,2] mask) => (float[N,2] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                y = Relu (x)
            }
            """,
            says="no output depends on 1 of 2 inputs (mask)",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[N,2] mask) => (float[N,2] y) {
                y = Relu (x)
                masked = Mul (x, mask)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                y = Relu (x)
            }
            """,
            says="(mask)",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[N,2] z, bool c) => (float[N,2] y) {
                y = If (c) <
                    then_branch = then () => (float[N,2] a) { a = Relu (x) },
                    else_branch = other () => (float[N,2] b) { b = Sigmoid (z) }
                >
            }
            """,
            why="the branches read them",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, float[N,2] state) => (float[N,2] y, float[N,2] state) {
                y = Relu (x)
            }
            """,
            why="an input that is an output is OUT005's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        graph, names = view.main, _unused(view)
        if not names:
            return
        total = len(graph.data_inputs)
        yield self.found(
            view.at(value=names[0]),
            f"no output depends on {len(names):,} of {counted(total, 'input')} ({names_shown(names)})",
            inputs=names_shown(names, 10),
            fix=Fix(Applicability.UNSAFE, flag="--unsafe"),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        unused = set(_unused(view))
        for node in liveness(view).dead.values():
            if node.graph is view.main:
                surgeon.remove_dead(node)  # it may read the input
        surgeon.graph.inputs = [tensor for tensor in surgeon.graph.inputs if tensor.name not in unused]


def _unused(view: GraphView) -> list[str]:
    graph, state = view.main, liveness(view)
    if not graph.outputs:
        return []
    return [name for name in graph.data_inputs if name and not state.matters(graph, name)]
