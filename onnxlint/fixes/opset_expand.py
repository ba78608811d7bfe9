"""Operators of newer sets, written in operators that older sets have: what exporters of opset 18 to 25 emit.

Each expansion computes what the operator's specification says, so results are equal within rounding. onnx has function
bodies for most of these operators, too; they compute shapes at run time, and variances as a difference of large numbers,
which is why they are not used.

Sources: the operators' pages in https://onnx.ai/onnx/operators/, and for Attention also
https://github.com/onnx/onnx/blob/main/docs/Changelog.md#attention-25.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.fixes.opset_attention import attention, rotary_embedding
from onnxlint.fixes.opset_body import MISUSED, Body, CannotExpandError
from onnxlint.graph.view import STANDARD_DOMAINS
from onnxlint.symbolic.engine import MISUSE

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import Graph, GraphView, Node

Expansion = Callable[[Body], None]
"""Writes the nodes that take the place of one.

Raises:
    CannotExpandError: Something that has to be known is not.
"""

_FLOAT, _DOUBLE = 1, 11


def expanded(
    view: GraphView, places: Sequence[tuple[Graph, Any]], version: int
) -> tuple[Counter[str], list[tuple[Node, str]]]:
    """Write out the operators that an older set lacks, in place.

    Args:
        view: The model.
        places: The graphs of the view with their messages in a copy of its skeleton, which are changed; the opset stays
            as it is.
        version: The older opset.

    Returns:
        Operator → how many were written out; the nodes that were not, and why.
    """
    names = {""}
    for graph in view.graphs:
        names.update(graph.inputs, graph.initializers, graph.outputs, graph.sparse_initializers)
        names.update(name for node in graph.nodes for name in (*node.inputs, *node.outputs))
    done: Counter[str] = Counter()
    refused: list[tuple[Node, str]] = []
    for graph, message in places:
        bodies: dict[int, Body] = {}
        for node in graph.nodes:
            expansion = _expansion(node, view.opset, version)
            if expansion is None:
                continue
            body = Body(node, message, names, view.opset)
            try:
                expansion(body)
            except CannotExpandError as error:
                refused.append((node, str(error)))
                continue
            except MISUSE:
                refused.append((node, MISUSED))
                continue
            bodies[node.index] = body
            done[node.op] += 1
        if bodies:
            nodes: list[onnx.NodeProto] = []
            for i, old in enumerate(message.node):
                nodes += bodies[i].nodes if i in bodies else [type(old).FromString(old.SerializeToString())]
            del message.node[:]
            message.node.extend(nodes)
            for body in bodies.values():
                message.initializer.extend(body.constants)
    return done, refused


def _expansion(node: Node, opset: int, version: int) -> Expansion | None:
    """The expansion of a node that an older set lacks; None where it has the operator, or no expansion exists."""
    if node.proto.domain not in STANDARD_DOMAINS:
        return None
    if node.op == "Attention":
        since = 25 if _has_window(node) else 24 if node.input(6) else 23
        return attention if version < since else None
    if node.op == "Split" and version < 18 and node.attribute("num_outputs", 0) and not node.input(1):
        return _split
    if node.op == "Shape" and version < 15 and (node.attribute("start", 0) or node.attribute("end") is not None):
        return _part_of_shape
    if node.op in ("Hardmax", "LogSoftmax", "Softmax") and version < 13 <= opset:
        shape, axis = node.shape(0), node.attribute("axis", -1)
        return None if axis == -1 or shape is None or axis == len(shape) - 1 else _along_an_axis
    if node.op == "GroupNormalization" and opset >= 21:
        return _group_normalization if version < 21 else None  # scale and bias are of channels since
    since, expansion = _EXPANSIONS.get(node.op, (0, None))
    return expansion if version < since else None


def _has_window(node: Node) -> bool:
    return any(node.attribute(f"{side}_window_size", -1) >= 0 for side in ("left", "right"))


# Normalizations


def _cast_for_sums(body: Body, name: str) -> tuple[str, bool]:
    """An input in the type in which it is summed up, and whether that is another one."""
    stash = body.node.attribute("stash_type", _FLOAT)
    kind = body.dtype(name)
    # float64 is not made less precise, as no runtime does.
    if kind in (stash, _DOUBLE):
        return name, False
    return body.add("Cast", name, to=stash), True


def _rms_normalization(body: Body) -> None:
    x, scale = body.node.input(0), body.node.input(1)
    axes = _axes_from(body, x)
    wide, is_cast = _cast_for_sums(body, x)
    mean = body.mean(body.add("Mul", wide, wide), axes)
    root = body.add("Sqrt", body.add("Add", mean, body.floats(wide, body.node.attribute("epsilon", 1e-5))))
    normalized = body.add("Div", wide, root)
    if is_cast:
        normalized = body.add("Cast", normalized, to=body.dtype(x))
    body.end("Mul", normalized, scale)


def _layer_normalization(body: Body) -> None:
    node = body.node
    x, scale, bias = node.input(0), node.input(1), node.input(2)
    axes = _axes_from(body, x)
    wide, is_cast = _cast_for_sums(body, x)
    mean = body.mean(wide, axes, output=node.output(1))
    centred = body.add("Sub", wide, mean)
    variance = body.mean(body.add("Mul", centred, centred), axes)
    root = body.add("Sqrt", body.add("Add", variance, body.floats(wide, node.attribute("epsilon", 1e-5))))
    if node.output(2):
        body.add("Reciprocal", root, output=node.output(2))
    normalized = body.add("Div", centred, root)
    if is_cast:
        normalized = body.add("Cast", normalized, to=body.dtype(x))
    if bias:
        body.end("Add", body.add("Mul", normalized, scale), bias)
    else:
        body.end("Mul", normalized, scale)


def _axes_from(body: Body, name: str) -> list[int]:
    rank = body.rank(name)
    axis = body.node.attribute("axis", -1)
    return list(range(axis % rank, rank)) if rank else []


def _group_normalization(body: Body) -> None:
    """Each group is one channel of an InstanceNormalization; scale and bias follow."""
    x, scale, bias = (body.node.input(i) for i in range(3))
    rank = body.rank(x)
    groups = body.node.attribute("num_groups", 0)
    channels = body.shape(x)[1]
    if not isinstance(channels, int) or rank < 2:
        raise CannotExpandError("its number of channels is not known")
    if groups < 1:
        raise CannotExpandError("its number of groups is not known")
    wide, is_cast = _cast_for_sums(body, x)
    joined = body.add("Reshape", wide, body.integers([0, groups, -1]))
    ones, zeros = body.floats(wide, [1.0] * groups), body.floats(wide, [0.0] * groups)
    epsilon = float(body.node.attribute("epsilon", 1e-5))
    normalized = body.add("InstanceNormalization", joined, ones, zeros, epsilon=epsilon)
    if body.opset < 21:  # scale and bias are of groups
        normalized = body.add("Mul", normalized, body.add("Reshape", _as(body, scale, wide), body.integers([1, -1, 1])))
        normalized = body.add("Add", normalized, body.add("Reshape", _as(body, bias, wide), body.integers([1, -1, 1])))
        _end_as(body, body.add("Reshape", normalized, _shape_of(body, x)), is_cast)
        return
    apart = body.add("Reshape", normalized, _shape_of(body, x))
    tail = body.integers([1, channels] + [1] * (rank - 2))
    scaled = body.add("Mul", apart, body.add("Reshape", _as(body, scale, wide), tail))
    _end_as(body, body.add("Add", scaled, body.add("Reshape", _as(body, bias, wide), tail)), is_cast)


def _as(body: Body, name: str, like: str) -> str:
    kind = body.dtype(like)
    return name if body.dtype(name) == kind else body.add("Cast", name, to=kind)


def _end_as(body: Body, name: str, is_cast: bool) -> None:
    if is_cast:
        body.end("Cast", name, to=body.dtype(body.node.input(0)))
    else:
        body.end("Identity", name)


def _shape_of(body: Body, name: str) -> str:
    """A shape for Reshape: constant, with 0 for the batch, where all other sizes are numbers."""
    dims = body.shape(name)
    if all(isinstance(dim, int) and dim > 0 for dim in dims[1:]):
        return body.integers([0, *(int(dim) for dim in dims[1:] if isinstance(dim, int))])
    return body.add("Shape", name)


# Activations


def _gelu(body: Body) -> None:
    x = body.node.input(0)
    half, one = body.floats(x, 0.5), body.floats(x, 1.0)
    if body.node.attribute("approximate", "none") == "tanh":
        cube = body.add("Mul", body.add("Mul", x, x), x)
        inner = body.add("Add", x, body.add("Mul", cube, body.floats(x, 0.044715)))
        phi = body.add("Tanh", body.add("Mul", inner, body.floats(x, math.sqrt(2 / math.pi))))
    else:
        phi = body.add("Erf", body.add("Div", x, body.floats(x, math.sqrt(2))))
    body.end("Mul", body.add("Mul", x, half), body.add("Add", phi, one))


def _hard_swish(body: Body) -> None:
    x = body.node.input(0)
    body.end("Mul", x, body.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _mish(body: Body) -> None:
    x = body.node.input(0)
    body.end("Mul", x, body.add("Tanh", body.add("Softplus", x)))


def _swish(body: Body) -> None:
    x, alpha = body.node.input(0), float(body.node.attribute("alpha", 1.0))
    scaled = x if alpha == 1 else body.add("Mul", x, body.floats(x, alpha))
    body.end("Mul", x, body.add("Sigmoid", scaled))


def _celu(body: Body) -> None:
    x, alpha = body.node.input(0), float(body.node.attribute("alpha", 1.0))
    zero = body.floats(x, 0.0)
    scale = body.floats(x, alpha)
    negative = body.add("Sub", body.add("Exp", body.add("Div", body.add("Min", x, zero), scale)), body.floats(x, 1.0))
    body.end("Add", body.add("Max", x, zero), body.add("Mul", negative, scale))


# Comparisons, types and tensors


def _at_least(strict: str) -> Expansion:
    def expansion(body: Body) -> None:
        a, b = body.node.input(0), body.node.input(1)
        body.end("Or", body.add(strict, a, b), body.add("Equal", a, b))

    return expansion


def _cast_like(body: Body) -> None:
    if body.node.attribute("saturate", 1) != 1:
        raise CannotExpandError("it does not saturate")
    body.end("Cast", body.node.input(0), to=body.dtype(body.node.input(1)))


def _trilu(body: Body) -> None:
    import numpy as np

    x = body.node.input(0)
    shift = body.node.constant(1) if body.node.input(1) else np.zeros(1, np.int64)
    if shift is None or shift.size != 1:
        raise CannotExpandError("its diagonal is computed")
    rank, dims = body.rank(x), body.shape(x)
    rows, columns = dims[-2:] if rank >= 2 else (None, None)
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise CannotExpandError("the sizes of its matrices are not known")
    ones = np.ones((rows, columns), np.bool_)
    k = int(shift.reshape(-1)[0])
    kept = np.triu(ones, k) if body.node.attribute("upper", 1) else np.tril(ones, k)
    zero = body.constant(np.zeros((), body.numpy_dtype(x)))
    body.end("Where", body.constant(kept), x, zero)


def _split(body: Body) -> None:
    node = body.node
    axis, count = node.attribute("axis", 0), node.attribute("num_outputs", 0)
    if count < 1:
        raise CannotExpandError("its number of outputs is not known")
    dims = body.shape(node.input(0))
    size = dims[axis] if -len(dims) <= axis < len(dims) else None
    if not isinstance(size, int):
        raise CannotExpandError("the size of the axis that it splits is not known")
    each = -(-size // count)
    sizes = [each] * (count - 1) + [size - each * (count - 1)]
    if sizes[-1] < 0:
        raise CannotExpandError("its axis is too short for its outputs")
    body.emit("Split", [node.input(0), body.integers(sizes)], list(node.outputs), axis=axis)


def _part_of_shape(body: Body) -> None:
    node = body.node
    start, end = node.attribute("start", 0), node.attribute("end")
    if not isinstance(end, int | None):
        raise CannotExpandError("its attribute 'end' is not a whole number")
    shape, axis = body.add("Shape", node.input(0)), body.integers([0])
    last = body.integers([_ALL if end is None else end])
    body.end("Slice", shape, body.integers([start]), last, axis)


_ALL = 1 << 30
"""More axes than any tensor has."""


def _along_an_axis(body: Body) -> None:
    """With the axis last, where the older form means the same."""
    x = body.node.input(0)
    rank = body.rank(x)
    axis = body.node.attribute("axis", -1) % rank
    swapped = [rank - 1 if i == axis else axis if i == rank - 1 else i for i in range(rank)]
    done = body.add(body.node.op, body.add("Transpose", x, perm=swapped), axis=-1)
    body.end("Transpose", done, perm=swapped)


def _tensor_scatter(body: Body) -> None:
    node = body.node
    cache, update, start = node.input(0), node.input(1), node.input(2)
    rank = body.rank(cache)
    axis = node.attribute("axis", -2) % rank if rank else 0
    if axis == 0:
        raise CannotExpandError("it writes along the batch")
    length = body.size(update, axis)
    places = body.add("Range", body.scalar(0), length, body.scalar(1))
    places = body.add("Reshape", places, body.integers([-1] + [1] * (rank - axis - 1)))
    if start:
        places = body.add("Add", body.add("Reshape", start, body.integers([-1] + [1] * (rank - 1))), places)
    if node.attribute("mode", "linear") == "circular":
        places = body.add("Mod", places, body.size(cache, axis))
    places = body.add("Expand", places, body.add("Shape", update))
    body.end("ScatterElements", cache, places, update, axis=axis)


_EXPANSIONS: dict[str, tuple[int, Expansion]] = {
    "CastLike": (15, _cast_like),
    "Celu": (12, _celu),
    "Gelu": (20, _gelu),
    "GreaterOrEqual": (12, _at_least("Greater")),
    "GroupNormalization": (18, _group_normalization),
    "HardSwish": (14, _hard_swish),
    "LayerNormalization": (17, _layer_normalization),
    "LessOrEqual": (12, _at_least("Less")),
    "Mish": (18, _mish),
    "RMSNormalization": (23, _rms_normalization),
    "RotaryEmbedding": (23, rotary_embedding),
    "Swish": (24, _swish),
    "TensorScatter": (24, _tensor_scatter),
    "Trilu": (14, _trilu),
}
"""Operator → the opset that brought it, and its expansion."""
