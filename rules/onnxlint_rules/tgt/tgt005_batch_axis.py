"""TGT005: operators that work along the batch, which ncnn's tensors do not have."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import batch_axis, is_invented, target_names
from onnxlint_rules._graph import constant_integers
from onnxlint_rules.tgt._tables import data_nodes, names_of, targets

_AXIS = {
    "Concat": 0,
    "Split": 0,
    "Gather": 0,
    "Softmax": -1,
    "LogSoftmax": -1,
    "CumSum": None,
    "ArgMax": 0,
    "ArgMin": 0,
}
_REDUCE = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)


class BatchAxis(Rule):
    """An operator works along the batch axis, and the target has none.

    ## What it does

    Traces the batch from the graph's inputs and reports Concat, Split, Gather, Softmax, LogSoftmax, CumSum and the Reduce
    operators along it, for targets that take the batch out of every tensor (ncnn). One finding for each operator.

    ## Why it hurts

    - ncnn's blobs hold one sample: a batch of images is run one by one. pnnx takes the batch axis off every tensor,
      prints `cat along batch axis 0 is not supported` and its like, exits with 0, and writes a layer that works along
      another axis, or one that ncnn does not have.

    ## Fix it at the source

    ```python
    # before: two crops of one image as a batch, pooled together
    features = self.backbone(torch.cat([left, right], dim=0)).mean(dim=0)
    # after: the model sees one sample; the program around it combines the results
    return self.backbone(crop)
    ```

    ## Fix safety

    Taking the operator out of the model changes its interface.

    ## References

    - [pnnx: pass_ncnn](https://github.com/Tencent/ncnn/tree/master/tools/pnnx/src/pass_ncnn): convert_torch_cat.cpp,
      convert_torch_split.cpp, F_softmax.cpp, torch_mean.cpp and others hold the messages;
      [solve_batch_index.cpp](https://github.com/Tencent/ncnn/blob/master/tools/pnnx/src/pass_ncnn/solve_batch_index.cpp)
      finds the axis
    """

    code = "TGT005"
    name = "batch-axis"
    apart = True
    severity = Severity.ERROR
    help = "run one sample at a time, and combine samples outside the model"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,1,4,4] a, float[1,1,4,4] b) => (float[2,1,4,4] y) <float[1,1,1,1] w = {2}> {
                c = Conv (a, w)
                d = Conv (b, w)
                y = Concat <axis = 0> (c, d)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,1,4,4] a, float[1,1,4,4] b) => (float[1,2,4,4] y) <float[1,1,1,1] w = {2}> {
                c = Conv (a, w)
                d = Conv (b, w)
                y = Concat <axis = 1> (c, d)
            }
            """,
            says="Concat works along the batch (axis 0 of [1, 1, 4, 4])",
            equal=False,
            options=Options(targets=("ncnn",)),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,4,4] x) => (float[A,B,C] y, float[D,E,F,G] z) {
                r = Relu (x)
                y = ReduceMean <axes = [0], keepdims = 0> (r)
                z = Softmax <axis = -4> (r)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,3,4,4] x) => (float[A,B,C] y, float[D,E,F,G] z) {
                r = Relu (x)
                y = ReduceMean <axes = [1], keepdims = 0> (r)
                z = Softmax <axis = 1> (r)
            }
            """,
            findings=2,
            equal=False,
            options=Options(targets=("ncnn",)),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,4,4] x) => (int64[K] y) <int64 zero = {0}, int64[1] one = {1}, int64[1] at = {0}> {
                s = Shape (x)
                n = Gather <axis = 0> (s, zero)
                u = Unsqueeze (n, at)
                y = Concat <axis = 0> (u, one)
            }
            """,
            why="a vector of sizes has no batch",
            options=Options(targets=("ncnn",)),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,1,4,4] a, float[1,1,4,4] b) => (float[2,1,4,4] y) { y = Concat <axis = 0> (a, b) }
            """,
            why="other targets have a batch",
            options=Options(targets=("tensorrt", "onnxruntime")),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        wanted = [target for target in targets(options) if target.no_batch]
        if not wanted:
            return
        live = data_nodes(view)
        found: dict[str, list[Node]] = {}
        for node in view.nodes(*_AXIS, *_REDUCE):
            if id(node) in live and _along_batch(view, node):
                found.setdefault(node.op, []).append(node)
        for target in wanted:
            for op, nodes in found.items():
                first = nodes[0]
                axis = batch_axis(first.graph, first.input(0))
                dims = ("?" if is_invented(dim) else printable(str(dim)) for dim in first.shape(0) or ())
                where = f"axis {axis} of [{', '.join(dims)}]"
                more = f", and {len(nodes) - 1} more like it" if len(nodes) > 1 else ""
                yield self.found(
                    view.at(first),
                    f"{target}: {op} works along the batch ({where}){more}; the target's tensors have none",
                    target=target.name,
                    nodes=names_of(nodes),
                    count=len(nodes),
                )


def _along_batch(view: GraphView, node: Node) -> bool:
    """Whether a node certainly works along the batch axis of its first input."""
    batch = batch_axis(node.graph, node.input(0))
    shape = node.shape(0)
    if batch is None or shape is None:
        return False
    rank = len(shape)
    if node.op in _REDUCE:
        axes = node.attribute("axes")
        if axes is None and node.input(1):
            axes = constant_integers(node, 1)
            if axes is None:
                return False
        if not axes:
            return not node.attribute("noop_with_empty_axes", 0)
        return rank > 0 and isinstance(axes, list) and batch in [axis % rank for axis in axes if isinstance(axis, int)]
    default = _AXIS[node.op]
    if node.op == "CumSum":
        axes = constant_integers(node, 1)
        axis = axes[0] if axes else None
    elif node.op in ("Softmax", "LogSoftmax") and view.opset < 13:
        return False  # works on a matrix made of all axes from `axis` on
    else:
        axis = node.attribute("axis", default)
    return isinstance(axis, int) and rank > 0 and axis % rank == batch
