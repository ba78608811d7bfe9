"""TGT002: inputs with free dims, where the target wants fixed ones."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Shape, Silent, printable
from onnxlint.rulekit import Target, is_invented, target_names
from onnxlint_rules.tgt._tables import targets


class DynamicShapeUnsupported(Rule):
    """An input has free sizes, and the target needs fixed ones.

    ## What it does

    Reports the inputs with free dims, once for each `--target` that does not take them (`warning`) or needs to be told
    something about them (`info`). A free batch alone is not reported where it does no harm.

    ## Why it hurts

    - QNN and NNAPI take no free dims: onnxruntime leaves the nodes to the CPU. Core ML runs fixed shapes on the Neural
      Engine, others slower.
    - TensorRT does not build an engine without an optimization profile: `Network has dynamic or shape inputs, but no
      optimization profile has been defined`.
    - pnnx guesses 128 and 512 for sizes that it is not told, and folds what it computes from them into the ncnn model.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx", dynamic_shapes={"x": {0: "batch", 2: "height", 3: "width"}})
    # after: the size that the device runs
    torch.onnx.export(model, torch.zeros(1, 3, 640, 640), "model.onnx")
    ```

    ## Fix safety

    Fixing a dim is exact for inputs of that size, and refuses all others.

    ## References

    - [Making dynamic input shapes fixed](https://onnxruntime.ai/docs/tutorials/mobile/helpers/make-dynamic-shape-fixed.html)
      (NNAPI, Core ML, QNN)
    - [QNN: model requirements](https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html#model-requirements)
    - [TensorRT: dynamic shapes](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html),
      [TensorRT #768](https://github.com/NVIDIA/TensorRT/issues/768): the error quoted above
    - [pnnx: load_onnx.cpp](https://github.com/Tencent/ncnn/blob/master/tools/pnnx/src/load_onnx.cpp): the guessed sizes
    """

    code = "TGT002"
    name = "dynamic-shape-unsupported"
    apart = True
    help = "export with the size that the device runs"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,64,64] x) => (float[1,3,64,64] y) { y = Relu (x) }
            """,
            findings=3,
            says="input 'x' is [N, 3, H, W]",
            dims={"N": 1, "H": 64, "W": 64},
            options=Options(targets=("qnn", "tensorrt", "ncnn")),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu (x) }
            """,
            why="onnxruntime takes free dims",
            options=Options(targets=("onnxruntime", "openvino")),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,64,64] x) => (float[N,3,64,64] y) { y = Relu (x) }
            """,
            why="ncnn keeps no batch, and pnnx takes 1 for it",
            options=Options(targets=("ncnn",)),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for target in targets(options):
            if target.dynamic == "yes":
                continue
            free = [name for name in view.main.data_inputs if _is_free(view.main.shape(name), target)]
            if free:
                name = free[0]
                more = f", and {len(free) - 1} more inputs are like it" if len(free) > 1 else ""
                yield self.found(
                    view.at(value=name),
                    f"{target}: input {printable(name)!r} is {_shown(view.main.shape(name))}{more}: {target.dynamic_note}",
                    help=target.dynamic_help,
                    severity=Severity.WARNING if target.dynamic == "no" else Severity.INFO,
                    target=target.name,
                    inputs=", ".join(map(printable, free)),
                )


def _is_free(shape: Shape | None, target: Target) -> bool:
    if shape is None:
        return True
    counted = shape[1:] if target.free_batch else shape
    return any(not isinstance(dim, int) for dim in counted)


def _shown(shape: Shape | None) -> str:
    if shape is None:
        return "of unknown rank"
    return "[" + ", ".join("?" if is_invented(dim) else printable(str(dim)) for dim in shape) + "]"
