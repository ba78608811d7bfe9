"""Inputs of two models to compare: their roles, and valid sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from onnxlint.errors import OnnxlintError
from onnxlint.graph.dims import Shape
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.model.assumptions import combined_multiples
from onnxlint.model.dim_names import axis_symbol
from onnxlint.symbolic.constraints import baked_sizes
from onnxlint.text import brief, printable
from onnxlint.verification.inputs import Contract, Input
from onnxlint.verification.interface import Incomparable
from onnxlint.verification.sizes import names_in


def common_contract(
    original: GraphView, fixed: GraphView, multiples: Mapping[str, int], renamed: Mapping[str, str] | None = None
) -> Contract:
    """Inputs of both models.

    A size that is free in one and a number in the other is that number.

    Args:
        original, fixed: The models.
        multiples: Symbol → number that its size has to be a multiple of.
        renamed: Input of the original → its name in the fixed model, if that differs.

    Raises:
        Incomparable: The inputs differ, or no values can be generated for them.
    """
    old = {new: name for name, new in (renamed or {}).items()}
    others = tuple(replace(one, name=old.get(one.name, one.name)) for one in _inputs(fixed))
    inputs, known = _merged(_inputs(original), others)
    hints = _hints(original, inputs)
    is_free = any(isinstance(dim, str) for one in inputs for dim in one.dims or ())
    numbers, pairs = _sizes_in(original) if is_free else ((), ())
    wide, freed = _freed(inputs, others)
    symbols = _symbols(original, (*inputs, *wide))
    of = combined_multiples(multiples.items())
    free = {
        symbol: of.get(symbol) or of[written]
        for symbol, written in symbols.items()
        if symbol not in known and (symbol in of or written in of)
    }
    return Contract(inputs, free, hints, numbers, pairs, wide=wide, freed=freed)


def own_contract(view: GraphView, multiples: Mapping[str, int] | None = None) -> Contract:
    """Inputs of one model.

    Args:
        view: The model.
        multiples: As for `common_contract`.

    Raises:
        OnnxlintError: No values can be generated for them.
    """
    try:
        return common_contract(view, view, multiples or {})
    except Incomparable as why:
        raise OnnxlintError(f"{printable(view.model.path)}: no test inputs can be generated for it: {why}") from None


def _symbols(view: GraphView, inputs: Iterable[Input]) -> dict[str, str]:
    """Symbol → the name in the file, by which assumptions are given."""
    dims = {dim for one in inputs for dim in one.dims or () if isinstance(dim, str)}
    found = {symbol: symbol for dim in dims for symbol in (dim, *names_in(dim))}
    for value in view.proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            symbol = axis_symbol(dim.dim_param, value.name, axis)
            if symbol in found and dim.dim_param:
                found[symbol] = dim.dim_param
    return found


def demanded_sizes(view: GraphView, inputs: Iterable[Input]) -> dict[str, int]:
    """Symbol → the only size that a model accepts for it, as far as symbolic inference finds such a demand.

    Args:
        view: The model.
        inputs: Its inputs, as a contract has them.
    """
    dims = {one.name: one.dims or () for one in inputs}
    found: dict[str, int] = {}
    for baked in baked_sizes(view):
        axes = dims.get(baked.input, ())
        dim = axes[baked.axis] if baked.axis < len(axes) else 0
        if isinstance(dim, str) and names_in(dim) == (dim,):
            found.setdefault(dim, baked.smallest)
    return found


def _freed(inputs: Sequence[Input], fixed: Sequence[Input]) -> tuple[tuple[Input, ...], dict[str, int]]:
    """The inputs with the sizes that only the fixed model leaves free, and the numbers that these were."""
    others = {one.name: one for one in fixed}
    freed: dict[str, int] = {}
    wide = []
    for one in inputs:
        other = others.get(one.name)
        dims = one.dims
        if other is not None and dims is not None and other.dims is not None:
            both = list(zip(dims, other.dims, strict=True))
            freed |= {b: a for a, b in both if isinstance(a, int) and isinstance(b, str) and names_in(b) == (b,)}
            dims = tuple(b if isinstance(b, str) and b in freed else a for a, b in both)
        wide.append(replace(one, dims=dims))
    return (tuple(wide), freed) if freed else ((), {})


_FEWEST_AXES = 32
"""Axes that arrays of every NumPy may have; from NumPy 2 on it is twice as many."""


_MOST_NUMBERS = 2**40
"""Numbers of an input's fixed sizes together: more than any machine holds, and few enough for NumPy to count them."""


def _most_axes() -> int:
    import numpy as np

    return _FEWEST_AXES if np.__version__.startswith("1.") else 2 * _FEWEST_AXES


_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "str",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
}

_CARRIERS = frozenset(
    """Cast Clip Concat Expand Flatten Gather Identity Mod Reshape Slice Split Squeeze Tile Transpose Unsqueeze""".split()
)
"""Operators whose output holds the numbers of their first input, at most fewer of them: an index stays an index."""

_FACTORS = frozenset("Add Ceil Div Floor Mul Sub".split())
"""The same for sizes: what is computed of them is a size too."""

_SIZE_INPUTS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "OneHot": (1,),
    "Pad": (1,),
}
"""Operator → inputs that hold sizes."""

MAX_FOLLOWED = 200
"""Nodes that are looked at behind one input."""

MAX_SEARCHED = 5000
"""Nodes and declared shapes that are searched for sizes."""

MAX_RANK = 8
"""Longest constant that is taken for a shape."""


def _inputs(view: GraphView) -> tuple[Input, ...]:
    """Inputs of a model.

    Raises:
        Incomparable: Something that no values can be made for.
    """
    found = []
    for value in view.proto.graph.input:
        name = value.name
        if name in view.main.initializers:
            continue  # a default that nobody has to give
        kind = value.type.WhichOneof("value") or "nothing"
        if kind != "tensor_type":
            what = kind.removesuffix("_type").replace("_", " ")
            raise Incomparable(f"its input {printable(name)!r} is a {what}, not a tensor")
        tensor = value.type.tensor_type
        dtype = _DTYPES.get(tensor.elem_type)
        if dtype is None:
            raise Incomparable(f"its input {printable(name)!r} has an element type that NumPy lacks")
        axes = len(tensor.shape.dim)
        if axes > _FEWEST_AXES and axes > (most := _most_axes()):
            raise Incomparable(f"its input {printable(name)!r} has {axes:,} axes, and NumPy has {most} at most")
        dims: tuple[int | str, ...] | None = None
        if tensor.HasField("shape"):
            dims = tuple(
                dim.dim_value
                if dim.HasField("dim_value") and dim.dim_value >= 0
                else axis_symbol(dim.dim_param, name, axis)
                for axis, dim in enumerate(tensor.shape.dim)
            )
        else:
            rank = next((r for r in map(_rank_for, _readers(view.main, name)) if r is not None), None)
            dims = None if rank is None else tuple(f"{name}[{axis}]" for axis in range(rank))
        role, high = _role(view, name, dtype)
        if math.prod(size for size in dims or () if isinstance(size, int) and size) > _MOST_NUMBERS:
            shape = ", ".join(map(str, dims or ()))
            raise Incomparable(f"its input {printable(name)!r} of shape [{brief(shape)}] does not fit into memory")
        found.append(Input(name, dtype, dims, role, high))
    return tuple(found)


def _role(view: GraphView, name: str, dtype: str) -> tuple[str, int]:
    """Role of an input, by its consumers: (role, number of values of an index)."""
    if dtype in ("str", "bool") or dtype.startswith("complex"):
        return "", 0
    bound: int | None = None
    pending = [(view.main, name)]
    seen = {name}
    steps = 0
    while pending and steps < MAX_FOLLOWED:
        graph, value = pending.pop(0)
        for node in graph.consumers(value):
            steps += 1
            if any(node.input(i) == value for i in _SIZE_INPUTS.get(node.op, ())):
                return "size", 0
            size = _indexed(node, value)
            if size is not None:
                bound = size if bound is None else min(bound, size)
            elif (node.op in _CARRIERS and node.input(0) == value) or node.op in ("Concat", *_FACTORS):
                pending += [(node.graph, output) for output in node.outputs if output and output not in seen]
                seen.update(node.outputs)
    if dtype.startswith("float"):
        return "", 0
    if bound is not None:
        return "index", max(1, bound)
    return ("mask", 0) if "mask" in name.lower() else ("", 0)


def _indexed(node: Node, value: str) -> int | None:
    """Size of the axis that a value is an index into; None if it is none, or the size is unknown."""
    if node.op in ("Gather", "GatherElements") and node.input(1) == value:
        shape, axis = _shape(node, 0), node.attribute("axis", 0)
    elif node.op == "OneHot" and node.input(0) == value:
        depth = node.constant(1)
        return None if depth is None or depth.size != 1 else int(depth.reshape(-1)[0])
    elif node.op.endswith("EmbedLayerNormalization") and value in node.inputs[:2]:
        shape, axis = _shape(node, 2 if node.input(0) == value else 4), 0
    else:
        return None
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _shape(node: Node, i: int) -> Shape | None:
    """Shape of an input; inference, which looks at the whole model, runs only where it is not an initializer."""
    name = node.input(i)
    owner = node.graph.owner(name) if name else None
    if owner is not None and name in owner.initializers:
        return tuple(owner.initializers[name].dims)
    return node.shape(i)


def _hints(view: GraphView, inputs: Iterable[Input]) -> dict[str, int]:
    """Symbols that can only have one size, because a weight that the input meets has it."""
    hints: dict[str, int] = {}
    for one in inputs:
        if one.dims is None or len(one.dims) < 2:
            continue
        for node in _readers(view.main, one.name):
            shape = _shape(node, 1) if node.op in ("Conv", "MatMul", "Gemm") else None
            if shape is None:
                continue
            axis, size = -1, None
            if node.op == "Conv" and len(shape) == len(one.dims) and isinstance(shape[1], int):
                axis, size = 1, shape[1] * node.attribute("group", 1)
            elif node.op == "MatMul" and len(shape) >= 2 and isinstance(shape[-2], int):
                axis, size = len(one.dims) - 1, shape[-2]
            elif node.op == "Gemm" and not node.attribute("transA", 0) and len(shape) == 2:
                rows = shape[1 if node.attribute("transB", 0) else 0]
                axis, size = 1, rows if isinstance(rows, int) else None
            dim = one.dims[axis]
            if size is not None and isinstance(dim, str) and names_in(dim) == (dim,):
                hints[dim] = size
    return hints


_BROADCAST = frozenset("Add Concat Div Mul Sub Where".split())
"""Operators through which the shape of a constant fixes sizes: a table of positions, a grid, a mask."""

_RECURRENT = frozenset("GRU LSTM RNN".split())

MOST_NUMBERS, MOST_PAIRS = 12, 8
"""Sizes from the graph that are tried, the most frequent first."""

_LARGEST = 16_384
"""Larger numbers in the graph are not sizes of inputs."""


def _sizes_in(view: GraphView) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Numbers, and pairs of height and width, in constants that shapes are made of and in declared shapes."""
    shapes: list[tuple[int, ...]] = []
    for node in view.main.order[:MAX_SEARCHED]:
        for i in _SIZE_INPUTS.get(node.op, ()):
            value = node.constant(i) if i < len(node.inputs) else None
            if value is not None and value.dtype.kind in "iu" and value.size <= MAX_RANK:
                shapes.append(tuple(map(int, value.reshape(-1))))
        operands = range(len(node.inputs)) if node.op in _BROADCAST else (5, 6) if node.op in _RECURRENT else ()
        for i in operands:
            owner = node.graph.owner(node.input(i)) if i < len(node.inputs) and node.input(i) else None
            if owner is not None and node.input(i) in owner.initializers:
                shapes.append(tuple(owner.initializers[node.input(i)].dims))
    declared = list(view.proto.graph.value_info)[:MAX_SEARCHED]
    shapes += [tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim) for one in declared]
    numbers = Counter(size for shape in shapes for size in shape if 1 < size <= _LARGEST)
    pairs = Counter(
        shape[-2:] for shape in shapes if len(shape) >= 3 and all(1 < size <= _LARGEST for size in shape[-2:])
    )
    return (
        tuple(size for size, _ in numbers.most_common(MOST_NUMBERS)),
        tuple((height, width) for (height, width), _ in pairs.most_common(MOST_PAIRS)),
    )


def _rank_for(node: Node) -> int | None:
    """The rank that a node's first input must have, or may have; None if unknown."""
    if node.op in ("Gemm", "MatMul"):
        return 2
    shape = _shape(node, 1) if node.op in ("Conv", "ConvTranspose") else None
    return None if shape is None else len(shape)


def _readers(graph: Graph, name: str) -> list[Node]:
    """Nodes whose first input is a value, or a cast of it."""
    found: list[Node] = []
    pending = [name]
    while pending and len(found) < MAX_FOLLOWED:
        value = pending.pop()
        for node in graph.consumers(value):
            if node.input(0) == value:
                if node.op in ("Cast", "Identity"):
                    pending.append(node.output())
                else:
                    found.append(node)
    return found


def _merged(original: tuple[Input, ...], fixed: tuple[Input, ...]) -> tuple[tuple[Input, ...], dict[str, int]]:
    """What both models take, and the symbols of the original that have a number in the other.

    Raises:
        Incomparable: They take different things.
    """
    others = {one.name: one for one in fixed}
    unknown = [one.name for one in fixed if one.name not in {other.name for other in original}]
    if unknown:
        raise Incomparable(f"the fixed model has another input, {printable(unknown[0])!r}")
    known: dict[str, int] = {}
    for one in original:
        other = others.get(one.name)
        if other is None or one.dims is None or other.dims is None:
            continue
        shown = printable(one.name)
        if len(one.dims) != len(other.dims) or one.dtype != other.dtype:
            raise Incomparable(f"the fixed model's input {shown!r} has another type")
        for a, b in zip(one.dims, other.dims, strict=True):
            if isinstance(a, str) and isinstance(b, int):
                known[a] = b
            elif isinstance(a, int) and isinstance(b, int) and a != b:
                raise Incomparable(f"the fixed model's input {shown!r} has size {b} in place of {a}")
    merged = tuple(
        replace(one, dims=tuple(known.get(dim, dim) if isinstance(dim, str) else dim for dim in one.dims))
        if one.dims is not None
        else one
        for one in original
    )
    return merged, known
