"""OPS003: nodes that behave as in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
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
    counted,
    printable,
)
from onnxlint_rules._graph import advice
from onnxlint_rules._patching import each
from onnxlint_rules.ops._common import first_constant

if TYPE_CHECKING:
    import onnx

    from onnxlint import Surgeon

_SOLVERS = tuple(
    f"{domain}::{op}"
    for domain in ("ai.onnx.preview.training", "ai.onnx.training")
    for op in ("Adagrad", "Adam", "Gradient", "GraphCall", "Momentum")
)


class TrainingModeOp(Rule):
    """Dropout or BatchNormalization is in training mode, or the model carries training graphs.

    ## What it does

    Reports Dropout with `training_mode` true and a ratio that is not 0 (before opset 7: without `is_test`),
    BatchNormalization with `training_mode = 1` (before 14: with outputs for the running statistics; before 7: without
    `is_test`), optimizers and gradients in the graph, and `training_info` in the model. One finding for each kind.

    ## Why it hurts

    - Dropout in training mode draws new noise in each run: two runs on one image differ. ONNX Runtime does this without
      a word.
    - BatchNormalization in training mode takes its statistics from the batch at hand, so the result of an image depends
      on its neighbours. onnx2ncnn never looks at the attribute and uses the stored statistics: the same file gives other
      numbers there. It cannot be folded into the convolution before it.
    - TensorRT refuses both (`TensorRT does not support the Dropout operator in training mode`, `This version of TensorRT
      does not support training_mode == 1 in BatchNormalization`), and ONNX Runtime on CUDA the latter (`Training mode
      does not support BN opset 14 (or higher) yet`).

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx", training=torch.onnx.TrainingMode.TRAINING)
    # after
    model.eval()
    torch.onnx.export(model, x, "model.onnx")
    ```

    A BatchNorm made with `track_running_stats=False`, and one whose running statistics are None, is exported in training
    mode in `eval()` too: that is what it computes. Track the statistics, or use InstanceNorm or GroupNorm.

    ## Fix safety

    Removing a Dropout is what was meant. Switching BatchNormalization changes the numbers on purpose, and is right only
    where its running statistics were trained.

    ## References

    - [Dropout](https://onnx.ai/onnx/operators/onnx__Dropout.html) and
      [BatchNormalization](https://onnx.ai/onnx/operators/onnx__BatchNormalization.html) in the ONNX specification
    - onnx-tensorrt: [onnxOpImporters.cpp](https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp) for
      Dropout, [onnxOpCheckers.cpp](https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpCheckers.cpp) for
      BatchNormalization
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp)
    - [ONNX Runtime on CUDA](https://github.com/microsoft/onnxruntime/issues/16867)
    - [PyTorch: no running statistics, so training mode](https://github.com/pytorch/pytorch/issues/75252)
    """

    code = "OPS003"
    name = "training-mode-op"
    apart = True
    help = "call model.eval(), and export without training=…"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <float ratio = {0.5}, bool training = {1}> {
                a = Dropout (x, ratio, training)
                y = Relu (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
            """,
            equal=False,
            says="Dropout (1 node) is in training mode: each run draws new noise",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,2,H,W] x) => (float[N,2,H,W] y)
            <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> {
                y, mean, var = BatchNormalization <training_mode = 1> (x, s, b, m, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 15]>
            g (float[N,2,H,W] x) => (float[N,2,H,W] y)
            <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> {
                y = BatchNormalization (x, s, b, m, v)
            }
            """,
            equal=False,
            says="BatchNormalization (1 node) is in training mode",
        ),
        Example(
            bad="""
            <ir_version: 4, opset_import: ["": 9]>
            g (float[N,2,H,W] x) => (float[N,2,H,W] y)
            <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> {
                y, mean, var, saved_mean, saved_var = BatchNormalization (x, s, b, m, v)
            }
            """,
            good="""
            <ir_version: 4, opset_import: ["": 9]>
            g (float[N,2,H,W] x) => (float[N,2,H,W] y)
            <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> {
                y = BatchNormalization (x, s, b, m, v)
            }
            """,
            equal=False,
            says="BatchNormalization (1 node) is in training mode",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x, bool learning) => (float[N,4] y) <float ratio = {0.5}, bool training = {0}> {
                a = Dropout (x, ratio, training)
                b = Dropout (a, ratio, learning)
                y = Dropout (b)
            }
            """,
            why="training_mode is false, absent, or the caller's choice",
        ),
        Silent(
            """
            <ir_version: 4, opset_import: ["": 9]>
            g (float[N,4] x) => (float[N,4] y) {
                y, mask = Dropout <ratio = 0.5> (x)
            }
            """,
            why="Dropout 7 and 10 only have the mode of inference",
        ),
        Silent(
            """
            <ir_version: 4, opset_import: ["": 9]>
            g (float[N,2,H,W] x) => (float[N,2,H,W] y)
            <float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0, 1}, float[2] v = {1, 2}> {
                y = BatchNormalization (x, s, b, m, v)
            }
            """,
            why="one output is the mode of inference",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        extra = len(view.proto.training_info)
        if extra:
            graphs = "a training graph" if extra == 1 else f"{extra} training graphs"
            yield self.found(
                view.at(), f"the model carries {graphs} (training_info) that inference does not need", fix=SAFE
            )
        kinds = (
            ("Dropout", _dropout_trains, "each run draws new noise"),
            ("BatchNormalization", _batchnorm_trains, "each result depends on the other images of the batch"),
        )
        for op, trains, why in kinds:
            nodes = [node for node in view.nodes(op) if trains(node)]
            if nodes:
                message = f"{op} ({counted(len(nodes), 'node')}) is in training mode: {why}"
                yield self.found(
                    view.at(nodes[0]),
                    message,
                    help=advice(view, self.help, "export the model for inference"),
                    nodes=len(nodes),
                    fix=Fix(Applicability.UNSAFE, flag="--unsafe"),
                )
        solvers = list(view.nodes(*_SOLVERS))
        if solvers:
            yield self.found(view.at(solvers[0]), f"{printable(solvers[0].op)} is part of training, not of inference")

    def rewrite(self, finding: Finding, view: GraphView, request: Request) -> onnx.ModelProto | None:
        if finding.location.op_type:
            return None
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(view.proto)
        model.ClearField("training_info")
        return model

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        op = finding.location.op_type
        trains = _dropout_trains if op == "Dropout" else _batchnorm_trains
        switch = _drop_nothing if op == "Dropout" else _use_statistics
        each(surgeon, [node for node in view.nodes(op) if trains(node)], lambda node: switch(surgeon, node))


def _extra_outputs_are_read(node: Node) -> bool:
    return any(node.graph.consumers(name) or node.graph.is_output(name) for name in node.outputs[1:] if name)


def _drop_nothing(surgeon: Surgeon, node: Node) -> None:
    if _extra_outputs_are_read(node):
        raise Unfixable("its mask is read")
    held = surgeon.node(node)
    surgeon.replace_value(held.outputs[0], held.inputs[0], node)


def _use_statistics(surgeon: Surgeon, node: Node) -> None:
    if _extra_outputs_are_read(node):
        raise Unfixable("the statistics that it computes are read")
    held, opset = surgeon.node(node), node.graph.view.opset
    held.outputs = held.outputs[:1]
    if opset >= 14:
        held.attrs.pop("training_mode", None)
    elif opset < 7:
        held.attrs["is_test"] = 1


def _dropout_trains(node: Node) -> bool:
    opset = node.graph.view.opset
    if opset >= 12:
        return bool(first_constant(node, 2)) and first_constant(node, 1) != 0
    return opset < 7 and not node.attribute("is_test", 0)


def _batchnorm_trains(node: Node) -> bool:
    opset = node.graph.view.opset
    if opset >= 14:
        return bool(node.attribute("training_mode", 0))
    if opset >= 7:
        return any(node.outputs[1:])
    return not node.attribute("is_test", 0)
