"""TGT006: operator sets and file versions that a target does not support."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent
from onnxlint.rulekit import target_names
from onnxlint_rules.tgt._tables import targets


class TargetOpset(Rule):
    """The target does not support the model's operator set or IR version.

    ## What it does

    Compares the imported operator set, and the IR version of the file, with what each `--target` states that it reads.

    ## Why it hurts

    - onnxruntime refuses a file of a newer IR version (`Unsupported model IR version`) or operator set before it looks
      at a single node; pnnx, which runs it inside, crashes.
    - Parsers that do not check read newer operators as they were before: an input that took an attribute's place is
      not seen.
    - The newest `onnx` package writes the newest IR version whatever the model needs.

    ## Fix it at the source

    ```python
    torch.onnx.export(model, args, "model.onnx", opset_version=17)
    # with onnx.helper
    onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    ```

    ## Fix safety

    An older IR version is exact where the file uses nothing newer (functions, 4-bit and float8 types, metadata of nodes).
    `onnx.version_converter` brings a model to another operator set, not for all operators.

    ## References

    - [onnxruntime: compatibility](https://onnxruntime.ai/docs/reference/compatibility.html)
    - [TensorRT: ONNX opsets](https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html)
    - [ONNX versioning](https://onnx.ai/onnx/repo-docs/Versioning.html)
    """

    code = "TGT006"
    name = "target-opset"
    apart = True
    severity = Severity.ERROR
    help = "export with an opset_version that the target reads, or use a newer version of the target"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 10, opset_import: ["": 21]>
            g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }
            """,
            says="reads opset 17 at most, and the model imports 21",
            options=Options(targets=("tensorrt-8",)),
        ),
        Example(
            bad="""
            <ir_version: 14, opset_import: ["": 8]>
            g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 13, opset_import: ["": 9]>
            g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }
            """,
            findings=2,
            says="reads IR version 13 at most, and the file has 14",
            options=Options(targets=("onnxruntime", "tensorrt")),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
            g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }
            """,
            why="every target reads opset 17",
            options=Options(targets=tuple(target_names())),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for target in targets(options):
            version = view.proto.ir_version
            if target.max_ir and version > target.max_ir:
                yield self.found(
                    view.at(),
                    f"{target} reads IR version {target.max_ir} at most, and the file has {version}",
                    help="set ir_version when the model is made: newer onnx packages write their newest by default",
                    target=target.name,
                )
            if target.max_opset and view.opset > target.max_opset:
                yield self.found(
                    view.at(),
                    f"{target} reads opset {target.max_opset} at most, and the model imports {view.opset}",
                    target=target.name,
                )
            elif 0 < view.opset < target.min_opset:
                yield self.found(
                    view.at(),
                    f"{target} reads opset {target.min_opset} and newer, and the model imports {view.opset}",
                    target=target.name,
                )
