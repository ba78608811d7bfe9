"""OUT003: non-maximum suppression inside the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Silent, printable

_NMS = re.compile(r"(^|[^a-z])(batched|efficient|multi_?class)?_?nms|non_?max_?suppression", re.IGNORECASE)
_TENSORRT = re.compile(r"^(TRT|trt.*)::|_TRT$|TRT[A-Z].*NMS")


class NmsInGraph(Rule):
    """Non-maximum suppression is a node of the graph.

    ## What it does

    Reports NonMaxSuppression and the plugins that take its place (`EfficientNMS_TRT`, `BatchedNMS_TRT`,
    `mmdeploy::TRTBatchedNMS`, `Paddle::multiclass_nms3`, …). Silent where the only `--target` is one that runs the
    node: `onnxruntime` for NonMaxSuppression, `tensorrt` for NonMaxSuppression and its own plugins.

    ## Why it hurts

    - ncnn has no such layer: onnx2ncnn prints `NonMaxSuppression not supported yet!`, exits with 0 and writes a model
      that does not load. OpenCV 4 (`Can't create layer … of type "NonMaxSuppression"`) and compilers for NPUs (nncase:
      `Not supported ONNX opcode: NonMaxSuppression`) stop as well.
    - The number of boxes depends on the image: outputs have a size that nobody knows before, so buffers cannot be
      allocated in advance, and batches cannot be cut apart without the batch index in `selected_indices`.
    - Thresholds are frozen into the file: another operating point is another export.
    - A plugin runs in the one runtime that brings it: ONNX Runtime and `onnx.checker` refuse the whole model.

    ## Fix it at the source

    ```python
    # before
    keep = torchvision.ops.batched_nms(boxes, scores, labels, iou_threshold=0.4)
    return boxes[keep], scores[keep]
    # after, and NMS in the code that calls the model (cv2.dnn.NMSBoxes, torchvision.ops.nms, ncnn's examples)
    return boxes, scores
    ```

    ## Fix safety

    Cutting the graph before the node changes its outputs: the caller gets all candidates and has to suppress by itself,
    with the node's thresholds (they are in its third to fifth input). Nothing else changes.

    ## References

    - [NonMaxSuppression](https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html): the number of selected boxes
      is only known at run time
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): `%s not supported yet!`
    - [OpenCV: NonMaxSuppression](https://github.com/opencv/opencv/issues/19779) and
      [its error message](https://github.com/EnoxSoftware/OpenCVForUnity/issues/153),
      [nncase](https://github.com/kendryte/nncase/issues/910),
      [MMDeploy: export without it, for hardware that lacks it](https://github.com/open-mmlab/mmdeploy/issues/2368)
    """

    code = "OUT003"
    name = "nms-in-graph"
    help = "return all candidates, and run NMS in the application"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,P,4] boxes, float[1,1,P] scores) => (int64[K,3] selected)
            <int64[1] most = {100}, float[1] iou = {0.4}> {
                selected = NonMaxSuppression (boxes, scores, most, iou)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,P,4] boxes, float[1,1,P] scores) => (float[1,P,4] all_boxes, float[1,P,1] all_scores) {
                all_boxes = Relu (boxes)
                all_scores = Transpose <perm = [0, 2, 1]> (scores)
            }
            """,
            equal=False,
            says="NonMaxSuppression is a node of the graph",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13, "TRT": 1]>
            g (float[1,P,4] boxes, float[1,P,1] scores) => (int32[1,1] num, float[1,100,4] b) {
                num, b, s, c = TRT.EfficientNMS_TRT <max_output_boxes = 100> (boxes, scores)
            }
            """,
            says="TRT::EfficientNMS_TRT",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,P,4] boxes, float[1,1,P] scores) => (int64[K,3] selected) <int64[1] most = {100}> {
                selected = NonMaxSuppression (boxes, scores, most)
            }
            """,
            why="the only target is ONNX Runtime, which runs it",
            options=Options(targets=("onnxruntime",)),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "TRT": 1]>
            g (float[1,P,4] boxes, float[1,P,1] scores) => (int32[1,1] num) {
                num, b, s, c = TRT.EfficientNMS_TRT (boxes, scores)
            }
            """,
            why="a plugin of TensorRT in a model for TensorRT",
            options=Options(targets=("tensorrt",)),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        own = {f"{function.domain}::{function.name}" for function in view.proto.functions}
        ops = [op for op in view.ops if _NMS.search(op) and op not in own]
        if not ops:
            return
        for node in view.nodes(*ops):
            plugin = _TENSORRT.search(node.op) is not None
            runs_in = {"tensorrt"} if plugin else {"onnxruntime", "tensorrt"} if "::" not in node.op else set()
            if options.targets and runs_in.issuperset(options.targets):
                continue
            yield self.found(view.at(node), _message(node, plugin))


def _message(node: Node, plugin: bool) -> str:
    op = printable(node.op)
    if plugin:
        return f"{op} is a node of the graph: a plugin that only TensorRT runs"
    if "::" in node.op:
        return f"{op} is a node of the graph: it runs only where its plugin is loaded"
    return f"{op} is a node of the graph: outputs of a size that depends on the image, and thresholds that are frozen"
