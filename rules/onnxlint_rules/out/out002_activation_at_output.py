"""OUT002: a Softmax or Sigmoid as the last thing that the graph does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    Graph,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    printable,
)
from onnxlint_rules._graph import FLOATS
from onnxlint_rules.out._heads import ACTIVATIONS, LAYOUT, only_difference, show_shape

_MAX_STEPS = 256

if TYPE_CHECKING:
    from onnxlint import Surgeon


class ActivationAtOutput(Rule):
    """A graph output is a Softmax or Sigmoid, where the logits would be enough.

    ## What it does

    Reports a graph output whose values come right out of Softmax, LogSoftmax or Sigmoid: directly, or through
    operators that only move them (Reshape, Transpose, Cast, Concat with other heads, …), of a detector: beside boxes or
    other values of the same places, where a threshold follows. One finding for each output.

    It stays silent where the activation also feeds other nodes (attention weights that are an output too), where
    its input is fed by the caller (a model of post-processing alone), on classifiers, recognizers and dense masks
    (the best class of each place is taken; `fix --drop-output-activations` drops them there, too), where an output
    is a single score for each sample, as of a voice-activity detector (that costs nothing), and on boxes that a
    Sigmoid keeps within the image (DETR, YOLOS: `[N, Q, 4]` beside another output over the same queries).

    ## Why it hurts

    - It runs on everything, though few values matter: 16,800 candidates of a detector, of which the threshold keeps
      ten; every pixel of a mask; 6,625 characters in every column of a text recognizer. On logits, the same
      comparison is `z > log(t / (1 - t))`, and the probabilities of the winners are a handful of exponentials.
    - Quantization: int8 has 256 steps for probabilities that crowd at 0 and 1, so scores saturate or drop to zero.
      Ultralytics keeps Sigmoid and Softmax out of TensorRT's int8 for that reason, and Luxonis removed the Sigmoid
      from its exports.
    - Calibration by temperature and ensembles need logits, and from probabilities rounded to 0 or 1 there is no way back.

    ## Fix it at the source

    ```python
    # before
    return boxes, F.softmax(classes, dim=-1), landmarks
    # after, and softmax in the code that reads the few rows which pass the threshold
    return boxes, classes, landmarks
    ```

    ## Fix safety

    Dropping the activation changes the numbers on purpose: thresholds have to move to the logits, or the activation to
    the code after the model. Order is kept: always for Sigmoid; for Softmax and LogSoftmax within each row (the best
    class stays the best), not between rows, which have different denominators. For two classes, `p > t` is
    `z1 - z0 > log(t / (1 - t))`. Where a tool chain fuses the Sigmoid into the quantized convolution before it (RKNN),
    measure first: there the output with it can be the better one.

    ## References

    - [Softmax](https://onnx.ai/onnx/operators/onnx__Softmax.html) and
      [Sigmoid](https://onnx.ai/onnx/operators/onnx__Sigmoid.html) in the ONNX specification
    - [Ultralytics: Sigmoid excluded from TensorRT int8](https://github.com/ultralytics/ultralytics/pull/25020)
    - [Luxonis: Sigmoid removed from the export for stable
      quantization](https://github.com/luxonis/luxonis-train/pull/173)
    - [RKNN: Sigmoid fused into the convolution](https://github.com/airockchip/rknn_model_zoo/pull/450), where it pays
      to keep it
    """

    code = "OUT002"
    name = "activation-at-output"
    apart = True
    severity = Severity.INFO
    help = "return logits, and apply the activation to the values that pass the threshold"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,4] x) => (float[N,3,4] boxes, float[N,3,2] scores)
            <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                boxes = Neg (x)
                logits = MatMul (x, w)
                scores = Softmax <axis = -1> (logits)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,4] x) => (float[N,3,4] boxes, float[N,3,2] scores)
            <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                boxes = Neg (x)
                scores = MatMul (x, w)
            }
            """,
            equal=False,
            says="output 'scores' [N, 3, 2] is a Softmax",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,4,4] x, float[N,16,4] y) => (float[N,16,2] scores, float[N,16,4] boxes)
            <int64[3] shape = {0, 2, -1}> {
                logits = Neg (x)
                flat = Reshape (logits, shape)
                rows = Transpose <perm = [0, 2, 1]> (flat)
                chosen = Sigmoid (rows)
                scores = Identity (chosen)
                boxes = Exp (y)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,4,4] x, float[N,16,4] y) => (float[N,16,2] scores, float[N,16,4] boxes)
            <int64[3] shape = {0, 2, -1}> {
                logits = Neg (x)
                flat = Reshape (logits, shape)
                scores = Transpose <perm = [0, 2, 1]> (flat)
                boxes = Exp (y)
            }
            """,
            equal=False,
            says="is a Sigmoid",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,9,4] x) => (float[N,9,6] detections) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                boxes = Relu (x)
                logits = MatMul (x, w)
                scores = Sigmoid (logits)
                detections = Concat <axis = 2> (boxes, scores)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,9,4] x) => (float[N,9,6] detections) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                boxes = Relu (x)
                logits = MatMul (x, w)
                detections = Concat <axis = 2> (boxes, logits)
            }
            """,
            equal=False,
            says="holds a Sigmoid",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,4] q, float[N,4,4] v) => (float[N,4,4] out, float[N,4,4] attention) {
                scores = MatMul (q, v)
                attention = Softmax <axis = -1> (scores)
                out = MatMul (attention, v)
            }
            """,
            why="attention weights are used inside as well",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                gate = Sigmoid (x)
                y = Mul (x, gate)
            }
            """,
            why="a gate is not an output",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,10] logits) => (float[N,10] probabilities) {
                probabilities = Softmax <axis = -1> (logits)
            }
            """,
            why="the model consists of post-processing only",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,100,4] queries) => (float[N,100,4] pred_boxes, float[N,100,2] logits)
            <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                coordinates = Neg (queries)
                pred_boxes = Sigmoid (coordinates)
                logits = MatMul (queries, w)
            }
            """,
            why="the Sigmoid keeps boxes within the image",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,1] speech) <float[4,1] w = {1, 1, 1, 1}> {
                logit = MatMul (x, w)
                speech = Sigmoid (logit)
            }
            """,
            why="one score for each sample",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,2] classes) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                logits = MatMul (x, w)
                classes = Softmax <axis = -1> (logits)
            }
            """,
            why="a classifier: the best class is taken, and no threshold follows",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,T,4] x) => (float[N,T,2] characters) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
                logits = MatMul (x, w)
                characters = Softmax <axis = -1> (logits)
            }
            """,
            why="a recognizer: the best character of each step is taken",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,3,H,W] x) => (float[N,1,H,W] mask, float[N,2,H,W] others)
            <float[1,3,1,1] w = {1, 2, 3}, float[2,3,1,1] v = {1, 2, 3, 4, 5, 6}> {
                logits = Conv (x, w)
                mask = Sigmoid (logits)
                more = Conv (x, v)
                others = Softmax <axis = 1> (more)
            }
            """,
            why="dense masks: every pixel is used",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 11]>
            g (float[N,3,P] x) => (float[N,2,P] scores, float[N,4,P] boxes) <float[2,3,1] w = {1, 2, 3, 4, 5, 6},
                float[4,3,1] v = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> {
                logits = Conv (x, w)
                scores = Softmax <axis = 1> (logits)
                boxes = Conv (x, v)
            }
            """,
            why="before opset 13 that is one Softmax over classes and places, which callers do not have",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        graph = view.main
        if not any(True for _ in view.nodes(*ACTIVATIONS)):
            return
        for name in dict.fromkeys(graph.outputs):
            found = _activations(graph, name)
            nodes = found.nodes
            if not nodes or _is_single_score(graph, name, nodes) or _is_boxes(graph, name, nodes):
                continue
            if not (options.all_activations or found.beside_others or _is_beside_others(graph, name)):
                continue
            counts = Counter(node.op for node in nodes)
            ops = " and ".join(op if count == 1 else f"{op} (×{count})" for op, count in counts.items())
            yield self.found(
                view.at(nodes[0]),
                f"output {printable(name)!r} {show_shape(graph.shape(name))} {'holds' if found.joined else 'is'} a {ops}, "
                "and logits would be enough",
                output=name,
                fix=Fix(Applicability.UNSAFE, flag="--drop-output-activations"),
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        from onnxlint.rulekit import drop_activation

        output = dict(finding.evidence)["output"]
        for node in _activations(view.main, output).nodes:
            drop_activation(surgeon, surgeon.node(node), [output])


class _Found(NamedTuple):
    """Activations whose values leave the graph as one output.

    Attributes:
        nodes: Those that serve nothing else.
        joined: Whether a Concat joins several parts in that output.
        beside_others: Whether some of these parts are no activations: boxes beside scores.
    """

    nodes: list[Node]
    joined: bool
    beside_others: bool


def _activations(graph: Graph, output: str) -> _Found:
    found: list[Node] = []
    joined = others = False
    pending = [output]
    for name in pending:
        node = graph.producer(name)
        if node is None or len(pending) > _MAX_STEPS:
            continue
        alone = name == output or (len(graph.consumers(name)) == 1 and not graph.is_output(name))
        if not alone or (name == output and graph.consumers(name)):
            continue
        if node.op in ACTIVATIONS:
            if node.producer(0) is not None and not _is_over_several_axes(node):
                found.append(node)
        elif node.op in LAYOUT:
            pending.append(node.input(0))
        elif node.op == "Concat":
            joined = True
            pending.extend(node.inputs)
        else:
            others = True
    return _Found(sorted(found, key=lambda node: node.index), joined, joined and others)


def _is_over_several_axes(node: Node) -> bool:
    """Whether a Softmax computes along all axes from one on, as before opset 13: callers have none that does."""
    if node.op == "Sigmoid" or node.graph.view.opset >= 13:
        return False
    shape = node.shape(0)
    return shape is None or any(size != 1 for size in shape[node.attribute("axis", 1) % len(shape) + 1 :])


def _is_beside_others(graph: Graph, name: str) -> bool:
    """Whether another output, without activation, belongs to the same places: a detector's boxes."""
    shape = graph.shape(name)
    if shape is None or len(shape) < 3:
        return False
    for other in dict.fromkeys(graph.outputs):
        beside = graph.shape(other)
        if other == name or beside is None or len(beside) != len(shape) or graph.dtype(other) not in FLOATS:
            continue
        if only_difference([shape, beside]) is not None and not _activations(graph, other).nodes:
            return True
    return False


def _is_single_score(graph: Graph, output: str, nodes: list[Node]) -> bool:
    shapes = (nodes[0].output_shape(), graph.shape(output))
    return len(nodes) == 1 and any(shape is not None and all(size == 1 for size in shape[1:]) for shape in shapes)


def _is_boxes(graph: Graph, output: str, nodes: list[Node]) -> bool:
    """Whether a Sigmoid keeps coordinates within the image, rather than making scores."""
    shape = graph.shape(output)
    if any(node.op != "Sigmoid" for node in nodes) or shape is None or len(shape) < 3 or shape[-1] != 4:
        return False
    others = [graph.shape(name) for name in graph.outputs if name != output]
    return any(other is not None and len(other) == len(shape) and other[:-1] == shape[:-1] for other in others)
