"""GRF003: nodes that do nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
    Severity,
    Silent,
    listed,
)
from onnxlint.rulekit import small_numbers
from onnxlint_rules._graph import (
    constant_reals,
    fixed_tensor,
    hides,
    integer,
    integers,
    is_fixed,
    is_parametric,
    label,
    names_shown,
)
from onnxlint_rules._patching import each, is_held
from onnxlint_rules._tensors import read_inline
from onnxlint_rules.grf._folding import foldable_nodes, shape_nodes
from onnxlint_rules.grf._zero_signs import shows_zero_signs, zero_signs_matter
from onnxlint_rules.shp._operands import resize_factors

if TYPE_CHECKING:
    from onnxlint import Shape, Surgeon


SIGNS = Fix(Applicability.SAFE, but="the sign of zeros")
COPIES = "a copy of a constant"
WHOLE = 2**31 - 1
"""Ends of a Slice from here on mean "to the end", as exporters write it."""


class NoOpNode(Rule):
    """A node returns its input unchanged.

    ## What it does

    Reports, once for each kind: Identity, Dropout outside training, Cast to the type that the input has,
    Transpose that keeps the order of the axes, Reshape, Expand and Tile to the shape that the input has, Pad by nothing,
    Slice of everything, Concat, Sum, Max, Min and Mean of one input, addition of 0 and multiplication by 1 (one number,
    or up to 64 KiB of them, such as a bias that was never trained), Resize by 1, Flatten of a matrix, Clip of integers without bounds, AveragePool with a window of 1 (and MaxPool of integers), and Transpose, Squeeze and Unsqueeze that undo
    the node before them.

    An Identity that gives a graph output its name has to be there, and so have those that hand an outer value out of a
    branch. Nodes of a shape computation belong to SHP002, nodes that read constants only to GRF004, and what handles a
    single integer or a list of them costs nothing.

    A warning where an Identity stands between an initializer and a weight operand, or a parameter of Pad, Reshape,
    Resize, Slice or Upsample; else for information.

    ## Why it hurts

    - Identity of an initializer: the TorchScript exporter writes it where layers share one value. onnxruntime's quantizer
      quantizes only operands that *are* initializers. Measured with onnxruntime 1.31: `quantize_dynamic` leaves a MatMul
      whose weights come through an Identity in float32; `quantize_static` and a Conv in `quantize_dynamic` take the
      weights for an activation, and quantize them at every run. onnx2ncnn does not know Identity, and looks weights and
      the scales of Resize up among the initializers: `Unsupported Resize scales and sizes are all empty!`
    - Big runtimes drop such nodes at start; those for microcontrollers and NPUs run them, as a copy of the tensor, or
      reject the operator. They also stand between patterns (Conv + BatchNormalization, Conv + activation) that would be
      fused.

    ## Fix it at the source

    ```python
    # before: one tensor in two layers
    up.weight = down.weight
    # after: export with a copy of its own, or let onnxruntime clean up before it quantizes
    up.weight = torch.nn.Parameter(down.weight.clone())
    # python -m onnxruntime.quantization.preprocess --input model.onnx --output clean.onnx

    # before
    x = x.float() * 1.0 + 0
    # after
    x = x.float()
    ```

    ## Fix safety

    Exact: consumers read the input in place of the output. Where the output is a graph output, the node that makes the
    input has to take over the name. `x + 0` turns -0.0 into 0.0, and is otherwise exact: it is reported only in models that
    make nothing else of a sign, and not where a node divides by what may be zero, or is not ONNX's own. Where an output may
    have zeros of another sign then, the evidence is `proved but for the sign of zeros`.

    ## References

    - [Graph optimizations in ONNX Runtime](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html): redundant node eliminations
    - [onnxruntime#21277](https://github.com/microsoft/onnxruntime/issues/21277): shared weights, of which one branch stays in float32
    - [onnxruntime#13358](https://github.com/microsoft/onnxruntime/issues/13358): `Expected … to be an initializer`
    - [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp): `weights[node.input(1)]`
    - [pnnx eliminate_noop](https://github.com/Tencent/ncnn/blob/master/tools/pnnx/src/pass_onnx/eliminate_noop.cpp)
    """  # noqa: E501 - one link a line

    code = "GRF003"
    name = "no-op-node"
    severity = Severity.INFO
    help = "remove it and connect its consumers to its input"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                a = Relu (x)
                b = Identity (a)
                y = Sigmoid (b)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) {
                a = Relu (x)
                y = Sigmoid (a)
            }
            """,
            says="Identity does nothing",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                v = Identity (w)
                a = MatMul (x, w)
                y = MatMul (a, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> {
                a = MatMul (x, w)
                y = MatMul (a, w)
            }
            """,
            says="Identity does nothing, but hides weights from quantizers and converters",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,8] x) => (float[N,4,8] y)
            <int64[3] starts = {0, 0, 0}, int64[3] ends = {9223372036854775807, 4, 8}, int64[3] axes = {0, 1, 2},
             float one = {1}, int64[3] same = {0, -1, 8}> {
                a = Cast <to = 1> (x)
                b = Slice (a, starts, ends, axes)
                c = Mul (one, b)
                d = Reshape (c, same)
                e = Transpose <perm = [0, 2, 1]> (d)
                f = Transpose <perm = [0, 2, 1]> (e)
                y = Relu (f)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,8] x) => (float[N,4,8] y) {
                y = Relu (x)
            }
            """,
            findings=5,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, bool c) => (float[N,2] y, float[N,2] x_out) {
                y = If (c) <
                    then_branch = then () => (float[N,2] a) { a = Relu (x) },
                    else_branch = other () => (float[N,2] b) { b = Identity (x) }
                >
                x_out = Identity (x)
            }
            """,
            why="an Identity names each output",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N] x) => (float[1,N] y, float[2,1,N] z) <float[1,1] zero = {0}, float[2,1,1] one = {1, 1}> {
                y = Add (x, zero)
                z = Mul (y, one)
            }
            """,
            why="the constants make the result larger",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,H] x) => (float[A,B,C] y) <int64[3] target = {-1, 2, 4}> {
                a = Reshape (x, target)
                b = Transpose <perm = [1, 0, 2]> (a)
                c = Transpose <perm = [2, 0, 1]> (b)
                y = Relu (c)
            }
            """,
            why="sizes may change, and the two permutations are not inverse to each other",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,2] x) => (float[N,M] y) <int64[1] rest = {-1}, int64 zero = {0}, int64[1] axis = {0}> {
                shape = Shape (x)
                n = Gather <axis = 0> (shape, zero)
                same = Cast <to = 7> (n)
                first = Unsqueeze (same, axis)
                target = Concat <axis = 0> (first, rest)
                y = Reshape (x, target)
            }
            """,
            why="the whole shape computation is SHP002's and SHP006's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        kinds = listed(dict.fromkeys(op for op, _, hidden in _groups(view) if not hidden))
        for (op, reason, hidden), nodes in _groups(view).items():
            many = len(nodes) > 1
            subject = f"{len(nodes):,} {op} nodes do" if many else f"{op} does"
            hide = "hide" if many else "hides"
            effect = f", but {hide} {hidden} from quantizers and converters" if hidden else f": {reason}"
            yield self.found(
                view.at(nodes[0]),
                f"{subject} nothing{effect}",
                severity=Severity.WARNING if hidden else None,
                nodes=names_shown(map(label, nodes), 10),
                count=len(nodes),
                fix=_fix(nodes),
                group="Nodes do nothing"
                + (", but hide values from quantizers and converters" if hidden else f": {kinds}"),
            )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        first = view.find(finding.location)
        nodes = next(nodes for nodes in _groups(view).values() if nodes[0] is first)

        def remove(node: Node) -> None:
            before = node.producer(0) if _undoes(node) else None
            held = surgeon.node(node)
            source = surgeon.node(before).inputs[0] if before is not None else held.inputs[_data_operand(node)]
            surgeon.replace_value(held.outputs[0], source, node)

        each(surgeon, nodes, remove)


def _fix(nodes: Sequence[Node]) -> Fix | None:
    held = [node for node in nodes if is_held(node.graph)]
    return SIGNS if any(map(shows_zero_signs, held)) else SAFE if held else None


def _groups(view: GraphView) -> dict[tuple[str, str, str], list[Node]]:
    """(operator, reason, what it hides) → nodes that do nothing; made once."""
    known: dict[tuple[str, str, str], list[Node]] | None = view.memo.get("onnxlint_rules.no_ops")
    if known is not None:
        return known
    found: dict[tuple[str, str, str], list[Node]] = {}
    for node in view.nodes(*_REASONS):
        reason = "" if is_parametric(node) else _REASONS[node.op](node)
        if not reason or id(node) in shape_nodes(view) or not _removable(node) or _is_arithmetic(node):
            continue
        if node.op in _ZEROS and zero_signs_matter(view):
            continue
        hidden = ""
        if id(node) in foldable_nodes(view):
            if node.op != "Identity" or not is_fixed(node.graph, node.input(0)) or _is_folded(node):
                continue  # GRF004: the whole of it can be computed
            reason, hidden = COPIES, hides(node)
        found.setdefault((node.op, reason, hidden), []).append(node)
    view.memo["onnxlint_rules.no_ops"] = found
    return found


_WHOLE = range(2, 8)
"""Element types that are integers of 8 bits and more (with text, which is in no pooling)."""

_ZEROS = frozenset(("Add", "AveragePool", "Mean", "Resize", "Sub", "Sum", "Upsample"))
"""Operators that may turn -0.0 into 0.0 where they do nothing else."""


def _undoes(node: Node) -> bool:
    return _REASONS[node.op](node).startswith("it undoes")


def _is_folded(node: Node) -> bool:
    """Whether only nodes that GRF004 reports read it."""
    return all(id(reader) in foldable_nodes(node.graph.view) for reader in node.consumers())


def _is_arithmetic(node: Node) -> bool:
    """Whether a node handles an integer or a list of them: sizes and indices, at no cost."""
    shape = node.output_shape()
    return shape is not None and len(shape) <= 1 and node.graph.dtype(node.output()) in (6, 7)


def _removable(node: Node) -> bool:
    """Whether readers could do with the input; not so where a name, or a mask, would be lost."""
    graph = node.graph
    if any(graph.consumers(name) or graph.is_output(name) for name in node.outputs[1:] if name):
        return False
    if not graph.is_output(node.output()):
        return bool(graph.consumers(node.output()))
    # The node that makes the input could take the name over, unless the input has to keep its own.
    producer = graph.producer(node.input(_data_operand(node)))
    return (
        node.op != "Identity"
        and producer is not None
        and producer.graph is graph
        and not any(graph.is_output(name) for name in producer.outputs)
    )


def _data_operand(node: Node) -> int:
    """The operand that the node returns unchanged: the other one where the first is the 0 or 1, as it or an Identity."""
    neutral = _NEUTRAL.get(node.op)
    return 1 if neutral is not None and _repeats(node, 0, neutral) else 0


_NEUTRAL = {"Add": 0.0, "Mul": 1.0}
"""What either operand of a commutative operator may be without effect."""


def _repeats(node: Node, i: int, wanted: float) -> bool:
    """Whether operand `i` is a constant that has this value everywhere and cannot enlarge the other operand."""
    name = node.input(i)
    tensor = fixed_tensor(node.graph, name) if name else None
    if tensor is not None and math.prod(tensor.dims) != 1:
        other = node.shape(1 - i)
        if other is None or not _spreads_to(tensor.dims, other):
            return False
        small = small_numbers(tensor)
        if small is None:
            array = read_inline(node.graph.view, tensor, _LARGEST)
            return array is not None and array.size > 0 and array.dtype.kind in "iuf" and bool((array == wanted).all())
    else:
        small = node.graph.numbers(name) if name else None
        if small is None or len(small.values) != 1:
            return False
        other = node.shape(1 - i)
        if len(small.dims) > (0 if other is None else len(other)):
            return False
    return bool(small.values) and small.kind != "b" and all(value == wanted for value in small.values)


def _spreads_to(dims: Sequence[int], shape: Shape) -> bool:
    """Whether a tensor of these sizes added to one of that shape gives that shape."""
    pairs = zip(reversed(dims), reversed(shape), strict=False)
    return len(dims) <= len(shape) and all(size in (1, have) for size, have in pairs)


_LARGEST = 2**16
"""Bytes of an addend or a factor that are read at most: those of a bias, not of weights."""


def _integers(node: Node, i: int, attribute: str = "") -> list[int] | None:
    """A constant list of integers: input `i`, or an attribute of older operator sets."""
    if attribute and (values := integers(node, attribute)) is not None:
        return values
    value = node.numbers(i)
    return None if value is None or value.kind not in "iu" else list(value.values)


def _identity(node: Node) -> str:
    return "a plain copy"


def _dropout(node: Node) -> str:
    opset = node.graph.view.opset
    if opset >= 12 and node.input(2):
        training = node.numbers(2)
        drops = training is None or any(training.values[:1])
    else:
        drops = opset < 7 and not integer(node, "is_test", 0)
    return "" if drops else "only training drops anything"


def _cast(node: Node) -> str:
    have = node.graph.dtype(node.input(0))
    to = integer(node, "to", 0) if node.op == "Cast" else node.graph.dtype(node.input(1))
    return "the input has that type already" if have and have == to else ""


def _transpose(node: Node) -> str:
    perm = integers(node, "perm")
    if perm is not None and perm == sorted(perm):
        return "the axes keep their order"
    before = _sole_producer(node, "Transpose")
    if before is None:
        return ""
    first = integers(before, "perm")
    undone = perm is None and first is None
    if perm is not None and first is not None and sorted(perm) == sorted(first) == list(range(len(perm))):
        undone = all(first[axis] == i for i, axis in enumerate(perm))
    return "it undoes the Transpose before it" if undone else ""


def _squeeze(node: Node) -> str:
    other = "Unsqueeze" if node.op == "Squeeze" else "Squeeze"
    before = _sole_producer(node, other)
    if before is None:
        return ""
    axes = _integers(node, 1, "axes")
    undone = axes is not None and sorted(axes) == sorted(_integers(before, 1, "axes") or [])
    return f"it undoes the {other} before it" if undone else ""


def _sole_producer(node: Node, op: str) -> Node | None:
    """The node of that operator whose only reader this is."""
    before = node.producer(0)
    if before is None or before.op != op or before.graph is not node.graph or before.graph.is_output(before.output()):
        return None
    if is_parametric(before):
        return None
    return before if len(before.graph.consumers(before.output())) == 1 else None


def _reshape(node: Node) -> str:
    target, shape = _integers(node, 1), node.shape(0)
    if target is None or shape is None or len(target) != len(shape) or target.count(-1) > 1:
        return ""
    copies = not integer(node, "allowzero", 0)
    same = all(
        size == -1 or (size == 0 and copies) or (size > 0 and size == have)
        for size, have in zip(target, shape, strict=True)
    )
    return "the shape stays as it is" if same else ""


def _expand(node: Node) -> str:
    target, shape = _integers(node, 1), node.shape(0)
    if target is None or shape is None or len(target) > len(shape):
        return ""
    pairs = zip(reversed(target), reversed(shape), strict=False)
    return "the shape stays as it is" if all(size in (1, have) for size, have in pairs) else ""


def _tile(node: Node) -> str:
    repeats = _integers(node, 1)
    return "nothing is repeated" if repeats and all(count == 1 for count in repeats) else ""


def _pad(node: Node) -> str:
    pads = _integers(node, 1, "pads")
    return "nothing is added" if pads is not None and not any(pads) else ""


def _slice(node: Node) -> str:
    starts, ends = _integers(node, 1, "starts"), _integers(node, 2, "ends")
    if starts is None or ends is None or any(starts) or not starts:
        return ""
    steps = _integers(node, 4) if node.input(4) else [1]
    if steps is None or any(step != 1 for step in steps):
        return ""
    if all(end >= WHOLE for end in ends):
        return "everything is kept"
    axes = _integers(node, 3, "axes") if node.input(3) or integers(node, "axes") is not None else [*range(len(ends))]
    shape = node.shape(0)
    if axes is None or shape is None or len(axes) != len(ends):
        return ""
    for axis, end in zip(axes, ends, strict=True):
        size = shape[axis] if -len(shape) <= axis < len(shape) else None
        if end < WHOLE and not (isinstance(size, int) and end >= size):
            return ""
    return "everything is kept"


def _single(node: Node) -> str:
    return "it has one input" if len(node.inputs) == 1 else ""


def _split(node: Node) -> str:
    return "it has one output" if len(node.outputs) == 1 else ""


def _neutral(value: float, reason: str, operands: tuple[int, ...] = (1,)) -> Callable[[Node], str]:
    def check(node: Node) -> str:
        return reason if any(_repeats(node, i, value) for i in operands) else ""

    return check


def _resize(node: Node) -> str:
    if node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return ""
    scales: Any = node.attribute("scales")
    if not isinstance(scales, list):
        index, kind = resize_factors(node)
        scales = constant_reals(node, index) if kind == "scales" else None
    return "the scale is 1" if scales and all(scale == 1 for scale in scales) else ""


def _flatten(node: Node) -> str:
    shape = node.shape(0)
    return "the input is a matrix already" if shape and len(shape) == 2 and integer(node, "axis", 1) in (1, -1) else ""


def _clip(node: Node) -> str:
    bounded = node.input(1) or node.input(2) or any(node.attribute(name) is not None for name in ("min", "max"))
    return "" if bounded or not _is_whole(node) else "it has no bounds"


def _is_whole(node: Node) -> bool:
    """Whether a value holds integers: no infinity, which a Clip makes the largest finite number, and no NaN."""
    return node.graph.dtype(node.input(0)) in _WHOLE


def _pool(node: Node) -> str:
    if node.op == "MaxPool" and not _is_whole(node):
        return ""  # runtimes start from the smallest finite number: NaN and -inf become that
    whole = [*(integers(node, "kernel_shape") or []), *(integers(node, "strides") or [])]
    moves = any(integers(node, "pads") or []) or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return "its window is a single value" if whole and all(size == 1 for size in whole) and not moves else ""


_REASONS: dict[str, Callable[[Node], str]] = {
    "Add": _neutral(_NEUTRAL["Add"], "0 is added", (0, 1)),
    "AveragePool": _pool,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _single,
    "Div": _neutral(1, "the divisor is 1"),
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _identity,
    "Max": _single,
    "MaxPool": _pool,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral(_NEUTRAL["Mul"], "the factor is 1", (0, 1)),
    "Pad": _pad,
    "Pow": _neutral(1, "the exponent is 1"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _neutral(0, "0 is subtracted"),
    "Sum": _single,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
    "Upsample": _resize,
}
"""Operators that can do nothing, and what says why; empty if the node does something."""
