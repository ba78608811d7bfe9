"""Input sizes set free, and fixed: `--dynamic 'image=N,3,H,W'` and `--static 'image=1,3,640,640'`.

A static export has its sizes baked into it. They are found by following the new symbols through the graph: where a
constant says a size that is no longer one number, it is written anew so that it copies the size or leaves it open; where
that cannot be done, the node and the reason are told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import Graph, GraphView, Node, Shape
from onnxlint.model.assumptions import ASSUMES_KEY, clause_symbols, note_assumptions, note_symbols
from onnxlint.symbolic.inference import _HANDLERS, Sizes, Symbolic, _elementwise
from onnxlint.symbolic.sizes import AnySize, Size, constant_target, divide, product, substitute, when_equal
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

_END = 2**31 - 1
"""Ends of a Slice from here on mean "to the end"."""

_MAX_CHOICES = 4096
"""Ways to spread a size over axes that are looked at."""


def make_static(view: GraphView, shapes: Sequence[str]) -> onnx.ModelProto:
    """Give inputs fixed sizes.

    Args:
        shapes: `name=1,3,640,640`. A symbol gets its number everywhere that it stands.

    Returns:
        A new skeleton, its declared shapes brought up to date.

    Raises:
        OnnxlintError: A shape does not fit its input, or a node does not accept the sizes.
    """
    wanted = [_parse(view, "--static", text) for text in shapes]
    bound: dict[str, int] = {}
    for name, dims in wanted:
        for axis, (dim, now) in enumerate(zip(dims, view.main.shape(name) or (), strict=True)):
            if not isinstance(dim, int):
                raise OnnxlintError(f"--static: axis {axis} of {printable(name)!r} is {printable(dim)!r}, not a number")
            if isinstance(now, int) and now != dim:
                raise OnnxlintError(
                    f"--static: axis {axis} of {printable(name)!r} is fixed to {now} already, and cannot become {dim} "
                    "without --dynamic"
                )
            if isinstance(now, str) and bound.setdefault(now, dim) != dim:
                raise OnnxlintError(f"--static: {printable(now)!r} cannot be both {bound[now]} and {dim}")
    model = _copy(view)
    if ASSUMES_KEY in {entry.key for entry in model.metadata_props}:
        assumed = next(entry.value for entry in model.metadata_props if entry.key == ASSUMES_KEY)
        note_symbols(model, clause_symbols(assumed))
    for value in model.graph.input:
        given = dict(wanted).get(value.name, ())
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param in bound:
                size.dim_value = bound[size.dim_param]
            elif axis < len(given):
                size.dim_value = int(given[axis])
    after = make_view(replace(view.model, proto=model))
    _refuse_contradictions(view, after)
    for graph in after.graphs:
        if not graph.is_function:
            _declare(graph, lambda name, graph=graph: graph.shape(name), bound)  # type: ignore[misc]
    return model


def make_dynamic(view: GraphView, shapes: Sequence[str]) -> onnx.ModelProto:
    """Set sizes of inputs free.

    Args:
        shapes: `name=N,3,H,W`: letters stand for sizes that are to be free, numbers for those that stay.

    Returns:
        A new skeleton that computes the same at the sizes that the model had, and accepts others.

    Raises:
        OnnxlintError: A shape does not fit its input, or a node has a size baked in that cannot be set free.
    """
    wanted = dict(_parse(view, "--dynamic", text) for text in shapes)
    freed: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for name, dims in wanted.items():
        for axis, (dim, now) in enumerate(zip(dims, view.main.shape(name) or (), strict=True)):
            if isinstance(dim, int):
                if now != dim:
                    raise OnnxlintError(
                        f"--dynamic: axis {axis} of {printable(name)!r} is {printable(str(now))}, not {dim}"
                    )
            elif isinstance(now, int):
                if freed.setdefault(dim, now) != now:
                    raise OnnxlintError(
                        f"--dynamic: {printable(dim)!r} stands for {freed[dim]} and for {now}; use two letters"
                    )
            elif now is not None:
                renamed[now] = dim
    model = _copy(view)
    for value in model.graph.input:
        given = wanted.get(value.name, ())
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if axis < len(given) and not isinstance(given[axis], int):
                size.dim_param = str(given[axis])
            elif size.dim_param in renamed:
                size.dim_param = renamed[size.dim_param]
    if not freed:
        return model
    after = make_view(replace(view.model, proto=model))
    found = _Freeing(after, view, freed)
    _write(after, found)
    if found.needed:
        note_assumptions(model, [f"{symbol} % {number} == 0" for symbol, number in found.needed.items()])
    for graph in after.graphs:
        if not graph.is_function:
            _declare(graph, lambda name, graph=graph: _known(found.shape(graph, name)), {})  # type: ignore[misc]
    return model


def _known(sizes: Sizes | None) -> Shape | None:
    """Sizes as dims: those that nothing is known about are None."""
    if sizes is None:
        return None
    return tuple(size if isinstance(size, int) else None if "?" in str(size) else str(size) for size in sizes)


def _parse(view: GraphView, flag: str, text: str) -> tuple[str, tuple[int | str, ...]]:
    name, equals, dims_text = text.rpartition("=")
    parts = [part.strip() for part in dims_text.split(",")]
    if not equals or not all(parts):
        raise OnnxlintError(f"{flag} {text!r}: write it as 'input=1,3,640,640'")
    inputs = view.main.data_inputs
    if name not in inputs:
        known = ", ".join(map(printable, inputs))
        raise OnnxlintError(f"{flag}: the model has no input {printable(name)!r}; it has {known}")
    shape = view.main.shape(name)
    if shape is None or len(shape) != len(parts):
        has = "no known rank" if shape is None else f"{len(shape)} axes"
        raise OnnxlintError(f"{flag}: {printable(name)!r} has {has}, and {len(parts)} sizes are given")
    dims = tuple(int(part) if part.isdecimal() else part for part in parts)
    if any(dim == 0 for dim in dims):
        raise OnnxlintError(f"{flag} {text!r}: a size has to be positive")
    return name, dims


def _copy(view: GraphView) -> onnx.ModelProto:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    return model


def _declare(graph: Graph, shape_of: Callable[[str], Shape | None], bound: dict[str, int]) -> None:
    """Bring declared shapes of a graph's values up to date, in place."""
    proto: Any = graph.proto
    for value in (*proto.value_info, *proto.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            continue
        shape = shape_of(value.name)
        if shape is None or len(shape) != len(tensor.shape.dim):
            tensor.ClearField("shape")
            continue
        for dim, size in zip(tensor.shape.dim, shape, strict=True):
            if isinstance(size, int):
                dim.dim_value = size
            elif dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
            elif size is not None and not size.startswith(("unk__", "?")):
                dim.dim_param = size
            else:
                dim.Clear()


def _refuse_contradictions(before: GraphView, after: GraphView) -> None:
    if before.is_contradictory or not after.is_contradictory:
        return
    from onnx.onnx_cpp2py_export import shape_inference  # takes and gives bytes

    from onnxlint.model.fork import apart

    data = after.without_claims().SerializeToString()
    try:
        apart(partial(shape_inference.infer_shapes, data, check_type=True, strict_mode=True, data_prop=True))
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise OnnxlintError(f"--static: the model does not accept these sizes: {reason}") from None


# Setting sizes free


class _Freeing(Symbolic):
    """Sizes of a model whose inputs were set free, and the constants in it that have to change for that.

    Args:
        view: The model with its new inputs.
        before: The model with the old ones, of the same nodes.
        values: Symbol → the number that it was.

    Attributes:
        constants: (node, operand, numbers) to write; operand -1: the scales of a Resize.
        repeats: (node, operand, axis, other operand, its axis): have the operand repeated along the axis as often as the
            other one is long.
        needed: Symbol → what it has to be a multiple of, so that maps that are added still fit.
    """

    def __init__(self, view: GraphView, before: GraphView, values: dict[str, int]) -> None:
        self.values = values
        self.constants: list[tuple[Node, int, npt.NDArray[np.generic]]] = []
        self.repeats: list[tuple[Node, int, int, int, int]] = []
        self.needed: dict[str, int] = {}
        self._derived: set[tuple[int, str]] = set()
        self._before = dict(zip(map(id, view.graphs), before.graphs, strict=True))
        self._pool: dict[int, dict[AnySize, None]] = {}
        self._touched = False
        super().__init__(view)

    def was(self, size: AnySize) -> int | None:
        """The number that a size had; None where it depends on what cannot be followed."""
        number = substitute(size, dict(self.values))
        return number if isinstance(number, int) else None

    def is_free(self, size: AnySize) -> bool:
        """Whether a size that was one number no longer is; nothing is known about sizes that cannot be followed."""
        return not isinstance(size, int) and "?" not in str(size)

    def fail(self, node: Node, why: str) -> OnnxlintError:
        label = printable(node.name or node.output() or f"#{node.index}")
        scope = self.view.sources.scope(node.proto)
        place = f" (in {printable(scope)})" if scope and scope not in label else ""
        return OnnxlintError(f"--dynamic: {node.op} {label}{place} does not allow it: {why}")

    def widen(self, node: Node, operand: int, axis: int, like: int, like_axis: int) -> bool:
        """Have a constant part of a batch of 1 repeated for each of the batch; False where it is no such constant."""
        sizes = self.of(node, operand)
        if sizes is None or sizes[axis] != 1 or (id(node.graph), node.input(operand)) in self._derived:
            return False
        self.repeats.append((node, operand, axis, like, like_axis))
        return True

    def _visit(self, node: Node) -> None:
        outer, self._touched = self._touched, self._is_touched(node)
        try:
            check = _CHECKS.get(node.op) if self._touched else None
            shape = check(self, node) if check is not None else None
            if shape is not None:
                self._shapes[(id(node.graph), node.output())] = shape
            else:
                super()._visit(node)
            if self._touched:
                self._derived.update((id(node.graph), name) for name in node.outputs)
            self._compare(node)
        finally:
            self._touched = outer

    def _is_touched(self, node: Node) -> bool:
        """Whether anything that goes into a node depends on what was set free."""
        if node.graph.children:
            return True
        for i, name in enumerate(node.inputs):
            if not name or node.graph.is_constant(name):
                continue
            sizes, value = self.of(node, i), self.val(node, i)
            if sizes is None or any(not isinstance(size, int) for size in sizes):
                return True
            if value is not None and any(not isinstance(number, int) for number in value.numbers):
                return True
        return False

    def _merge(self, own: Sizes | None, inferred: Shape | None) -> Sizes | None:
        # What onnx infers still has the old sizes baked in, from the first Reshape on.
        if not self._touched:
            return super()._merge(own, inferred)
        if own is not None:
            return own
        return None if inferred is None else tuple(self.fresh() for _ in inferred)

    def _declared_input(self, graph: Graph, name: str, shape: Shape | None) -> Sizes | None:
        if graph is self.view.main or shape is None:
            return super()._declared_input(graph, name, shape)
        return tuple(self.fresh() for _ in shape)  # what a Loop hands in may have been set free

    def _compare(self, node: Node) -> None:
        """With the old numbers put in, the sizes have to be what they were."""
        for name in node.outputs:
            sizes = self._shapes.get((id(node.graph), name))
            old = self._before[id(node.graph)].shape(name) if sizes is not None else None
            if sizes is None or old is None:
                continue
            for size, number in zip(sizes, old, strict=False):
                if not isinstance(size, int):
                    self._pool.setdefault(self.was(size) or 0, {})[size] = None
                was = self.was(size)
                if was is not None and isinstance(number, int) and was != number:
                    raise self.fail(node, f"it makes {was} of what was {number}")

    def spread(self, node: Node, total: AnySize, old: Sequence[int]) -> Sizes:
        """Sizes for axes that had the old numbers and whose product is now `total`.

        Raises:
            OnnxlintError: There is no such way, or several that cannot be told apart.
        """
        choices: list[list[AnySize]] = []
        for number in old:
            rest = product(n for i, n in enumerate(old) if i != len(choices))
            known = [number, *self._pool.get(number, ())]
            whole = divide([total], [rest])
            if whole is not None and whole not in known and self.was(whole) == number:
                known.append(whole)
            choices.append(known)
        if math.prod(map(len, choices)) > _MAX_CHOICES:
            raise self.fail(node, f"its axes {list(old)} can be read in too many ways")
        ways = [way for way in itertools.product(*choices) if product(way) == total]
        if not ways:
            shown = printable(str(total))
            raise self.fail(node, f"{shown} has no constant factor that leaves {list(old)}")
        simplest = min(map(_complexity, ways))
        best = [way for way in ways if _complexity(way) == simplest]
        if len(best) > 1:
            # A batch of 1 among other axes of 1 is the outermost; anything else would be a guess.
            if any(number != 1 for way in best for number, size in zip(old, way, strict=True) if self.is_free(size)):
                sizes = sorted({str(size) for way in best for size in way if self.is_free(size)})
                names = printable(" and ".join(sizes))
                raise self.fail(
                    node, f"which of its axes {list(old)} is {names} cannot be told: export with sizes that differ"
                )
            best.sort(key=lambda way: next(i for i, size in enumerate(way) if self.is_free(size)))
        return best[0]


def _complexity(way: Sequence[AnySize]) -> tuple[int, int]:
    """Small where free sizes are plain symbols with no factor before them."""
    factors = sum(abs(k) for size in way if isinstance(size, Size) for _, k in size.terms)
    atoms = max((len(mono) for size in way if isinstance(size, Size) for mono, _ in size.terms), default=0)
    return atoms, factors


def _numbers(s: _Freeing, node: Node, i: int) -> list[int] | None:
    """Whole numbers of operand `i`, where they do not depend on what was set free; else None."""
    value = s.val(node, i)
    if value is None or not all(isinstance(n, int) for n in value.numbers):
        return None
    return [n for n in value.numbers if isinstance(n, int)]


def _sizes(s: _Freeing, node: Node, i: int) -> list[AnySize] | None:
    """Sizes that operand `i` says; None where one of them cannot be followed."""
    value = s.val(node, i)
    if value is None:
        return None
    sizes = [size for size in value.numbers if isinstance(size, int | Size) and s.was(size) is not None]
    return sizes if len(sizes) == len(value.numbers) else None


def _reshape(s: _Freeing, node: Node) -> Sizes | None:
    import numpy as np

    data, said = s.of(node, 0), _sizes(s, node, 1)
    if said is None:
        return None
    target = [number for size in said if (number := s.was(size)) is not None]
    old = [] if data is None else [s.was(size) for size in data]
    if data is None or None in old:
        raise s.fail(node, "the shape of its input cannot be followed through the graph")
    numbers = [number for number in old if number is not None]
    copies = not node.attribute("allowzero", 0)
    rest = [numbers[i] if n == 0 and copies and i < len(numbers) else n for i, n in enumerate(target)]
    known = math.prod(n for n in rest if n >= 0)
    rest = [math.prod(numbers) // known if n == -1 and known else n for n in rest]
    if math.prod(rest) != math.prod(numbers):
        raise s.fail(node, f"{target} does not fit its input")
    sizes = _regroup(s, node, data, numbers, rest)
    follows = any(not isinstance(size, int) for size in said)
    if follows and all(now == size or now in (0, -1) for now, size in zip(said, sizes, strict=True)):
        return None
    constant = constant_target(data, sizes)
    if constant is None:
        shown = ", ".join(map(str, sizes))
        raise s.fail(node, f"[{printable(shown)}] has more than one free size, which constants cannot say")
    if constant != target:
        s.constants.append((node, 1, np.array(constant, np.int64)))
    return sizes


def _regroup(s: _Freeing, node: Node, data: Sizes, old: Sequence[int], target: Sequence[int]) -> Sizes:
    """The sizes of a Reshape's output: runs of axes with the same product are taken for each other."""
    out: list[AnySize] = []
    i = j = 0
    while i < len(old) or j < len(target):
        start, first = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(target):
            right, j = target[j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
            elif j < len(target):
                right, j = right * target[j], j + 1
            else:
                raise s.fail(node, f"{list(target)} does not fit {list(old)}")
        total = product(data[start:i])
        part = target[first:j]
        if j == first:
            if total != 1:
                raise s.fail(node, f"it drops an axis that is now {printable(str(total))}")
        else:
            out += [total] if len(part) == 1 else s.spread(node, total, part) if s.is_free(total) else part
    return tuple(out)


def _resize(s: _Freeing, node: Node) -> Sizes | None:
    import numpy as np

    data, said = s.of(node, 0), _sizes(s, node, 3)
    sizes = None if said is None else [number for size in said if (number := s.was(size)) is not None]
    if not node.input(3) or sizes is None or data is None or not any(map(s.is_free, data)):
        return None
    axes = [axis % len(data) for axis in node.attribute("axes") or range(len(data))]
    pairs = zip(axes, said or (), strict=False)
    if not any(s.is_free(data[axis]) and isinstance(now, int) for axis, now in pairs):
        return None  # it follows its input, or another one
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch" or len(axes) != len(sizes):
        raise s.fail(node, "its size depends on its input's")
    out, scales = list(data), []
    for axis, size in zip(axes, sizes, strict=True):
        old = s.was(data[axis])
        if not old or (size % old and old % size):
            raise s.fail(node, f"its size {size} is no whole multiple of {old or 'its input'}, nor a part of it")
        scales.append(np.float32(size) / np.float32(old))
        if size != old:
            out[axis] = data[axis] * (size // old) if size % old == 0 else data[axis] // (old // size)
    s.constants.append((node, -1, np.array(scales, np.float32)))
    return tuple(out)


def _expand(s: _Freeing, node: Node) -> Sizes | None:
    import numpy as np

    data, target = s.of(node, 0), _numbers(s, node, 1)
    if target is None or data is None:
        return None
    constant = list(target)
    for k in range(1, min(len(data), len(target)) + 1):
        if s.is_free(data[-k]):
            constant[-k] = 1
    if constant != target:
        s.constants.append((node, 1, np.array(constant, np.int64)))
    rank = max(len(data), len(target))
    sizes = [1] * (rank - len(data)) + list(data)
    wanted = [1] * (rank - len(target)) + constant
    return tuple(size if number == 1 else number for size, number in zip(sizes, wanted, strict=True))


def _slice(s: _Freeing, node: Node) -> Sizes | None:
    import numpy as np

    data = s.of(node, 0)
    starts, ends = s.ints(node, 1, "starts"), s.ints(node, 2, "ends")
    if data is None or starts is None or ends is None:
        return None
    axes = s.ints(node, 3, "axes") or list(range(len(starts)))
    open_ends = list(ends)
    for k, axis in enumerate(axes):
        size = data[axis]
        old = s.was(size)
        if isinstance(size, int) or ends[k] < 0 or ends[k] >= _END or (starts[k], ends[k]) == (0, 1):
            continue
        if old is None or ends[k] < old or node.attribute("ends"):
            raise s.fail(node, f"it cuts axis {axis} at {ends[k]}, and may mean a part of {printable(str(size))}")
        open_ends[k] = 2**63 - 1
    if open_ends != ends:
        operand = node.constant(2)
        if operand is None or operand.dtype != np.int64:
            raise s.fail(node, f"it ends at {ends}, which leaves no room for more")
        s.constants.append((node, 2, np.array(open_ends, np.int64)))
        sizes = list(data)
        for k, axis in enumerate(axes):
            if open_ends[k] != ends[k]:
                if starts[k] or (s.ints(node, 4) or [1] * len(axes))[k] != 1:
                    raise s.fail(node, f"it takes every few of axis {axis} up to {ends[k]}")
                continue
            if not isinstance(data[axis], int) or not (starts[k] == 0 and ends[k] >= _END):
                raise s.fail(node, "it cuts several axes at once, one of which was set free")
        return tuple(sizes)
    return None


def _split(s: _Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axis = node.attribute("axis", 0)
    if data is not None and s.is_free(data[axis]) and s.ints(node, 1, "split") is not None:
        raise s.fail(node, f"it splits axis {axis}, now {printable(str(data[axis]))}, into parts of fixed sizes")
    return None


def _squeeze(s: _Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axes = s.ints(node, 1, "axes")
    if data is not None:
        gone = range(len(data)) if axes is None else axes
        for axis in gone:
            if s.is_free(data[axis]) and s.was(data[axis]) == 1:
                raise s.fail(node, f"it takes axis {axis} out, which is now {printable(str(data[axis]))}")
    return None


def _gather(s: _Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axis = node.attribute("axis", 0)
    indices = s.of(node, 1)
    constant = node.graph.is_constant(node.input(1))
    if data is not None and constant and indices is not None and s.is_free(data[axis]) and indices not in ((), (1,)):
        raise s.fail(node, f"its constant indices pick from axis {axis}, now {printable(str(data[axis]))}")
    return None


def _indexed(s: _Freeing, node: Node) -> Sizes | None:
    others = [sizes for i in (0, 2) if (sizes := s.of(node, i)) is not None]
    indices = s.of(node, 1)
    made_before = indices is not None and all(isinstance(size, int) for size in indices)
    if made_before and any(map(s.is_free, (size for sizes in others for size in sizes))):
        raise s.fail(node, "its indices are constants, made for the old sizes")
    return None


def _broadcast(s: _Freeing, node: Node) -> Sizes | None:
    shapes = [s.of(node, i) for i in range(len(node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    _meet(s, node, known)
    if len(known) < len(shapes):
        return None
    out: list[AnySize] = []
    for k in range(max(map(len, known)), 0, -1):
        sizes = list(dict.fromkeys(shape[-k] for shape in known if k <= len(shape) and shape[-k] != 1))
        if len(sizes) > 1 and (not all(map(s.is_free, sizes)) or s.was(sizes[0]) == 1):
            return None
        # Sizes that were equal have to stay so, or the model does not run: the plainest stands for all.
        plainest = min(sizes, key=lambda size: _complexity([size])) if sizes else 1
        for other in sizes:
            for condition in when_equal(plainest, other) or ():
                if condition.multiple is not None:
                    s.needed[condition.symbol] = math.lcm(condition.multiple, s.needed.get(condition.symbol, 1))
        out.append(plainest)
    return tuple(out)


def _meet(s: _Freeing, node: Node, shapes: Sequence[Sizes]) -> None:
    rank = max(map(len, shapes), default=0)
    for k in range(1, rank + 1):
        sizes = [shape[-k] for shape in shapes if k <= len(shape)]
        free = [size for size in sizes if s.is_free(size)]
        numbers = [size for size in sizes if isinstance(size, int) and size != 1]
        if free and numbers:
            raise s.fail(node, f"axis {rank - k} is now {printable(str(free[0]))}, and meets one of {numbers[0]}")


def _concat(s: _Freeing, node: Node) -> Sizes | None:
    shapes = [shape for i in range(len(node.inputs)) if (shape := s.of(node, i)) is not None]
    if not shapes or not all(shapes):
        return None
    joined = node.attribute("axis", 1) % len(shapes[0])
    out: list[AnySize] = list(shapes[0])
    widened = False
    for axis, sizes in enumerate(zip(*shapes, strict=False)):
        free = [size for size in sizes if s.is_free(size)]
        fixed = [i for i, size in enumerate(sizes) if isinstance(size, int)]
        if axis == joined:
            out[axis] = sum(sizes[1:], start=sizes[0])
            continue
        if not free:
            continue
        out[axis] = free[0]
        for i in fixed:
            if not s.widen(node, i, axis, sizes.index(free[0]), axis):
                part, now = printable(node.input(i)), printable(str(free[0]))
                raise s.fail(node, f"axis {axis} is now {now}, and stays {sizes[i]} in its part {part!r}")
            widened = True
    return tuple(out) if widened and len(shapes) == len(node.inputs) else None


def _matmul(s: _Freeing, node: Node) -> Sizes | None:
    left, right = s.of(node, 0), s.of(node, 1)
    if left is None or right is None or not left or not right:
        return None
    turned = node.op == "Gemm"
    inner = left[0] if turned and node.attribute("transA", 0) else left[-1]
    other = right[-1] if len(right) == 1 or (turned and node.attribute("transB", 0)) else right[-2]
    free, fixed = (inner, other) if s.is_free(inner) else (other, inner)
    if s.is_free(free) and isinstance(fixed, int):
        raise s.fail(node, f"it sums over {printable(str(free))} numbers, and its other operand has {fixed}")
    if not turned:
        _meet(s, node, [left[:-2], right[:-2]])
    return None


def _conv(s: _Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    if data is not None and len(data) > 1 and s.is_free(data[1]):
        raise s.fail(node, f"its weights are made for a fixed number of channels, not for {printable(str(data[1]))}")
    if node.attribute("output_shape"):
        raise s.fail(node, "its output_shape is fixed")
    return None


def _recurrent(s: _Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    batch = data[0 if node.attribute("layout", 0) else 1] if data is not None and len(data) == 3 else 1
    for i in (4, 5, 6):
        state = s.of(node, i)
        if state is None or len(state) != 3 or not s.is_free(batch):
            continue
        axis = 0 if node.attribute("layout", 0) else 1
        if isinstance(state[axis], int) and not s.widen(node, i, axis, 0, axis):
            name = printable(node.input(i))
            raise s.fail(node, f"its initial state {name!r} is made for a batch of {state[axis]}")
    return None


def _scan(s: _Freeing, node: Node) -> Sizes | None:
    if any(map(s.is_free, (size for i in range(len(node.inputs)) for size in s.of(node, i) or ()))):
        raise s.fail(node, "its body is made for the sizes that it is given")
    return None


_CHECKS: dict[str, Callable[[_Freeing, Node], Sizes | None]] = {
    **{op: _broadcast for op, handler in _HANDLERS.items() if handler is _elementwise},
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Expand": _expand,
    "GRU": _recurrent,
    "Gather": _gather,
    "GatherElements": _indexed,
    "GatherND": _indexed,
    "Gemm": _matmul,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv,
    "RNN": _recurrent,
    "Reshape": _reshape,
    "Resize": _resize,
    "Scan": _scan,
    "ScatterElements": _indexed,
    "ScatterND": _indexed,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
}
"""What each operator has to say to a free size; some make the sizes of their output, the others leave it to the handler."""


def _write(view: GraphView, found: _Freeing) -> None:
    """Put new constants into the view's own messages; nothing may look at the view's nodes afterwards."""
    import numpy as np
    from onnx import helper, numpy_helper

    names = {name for graph in view.graphs for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    graph = view.proto.graph

    def unused(base: str) -> str:
        name = next(text for k in itertools.count() if (text := f"{base}_{k}" if k else base) not in names)
        names.add(name)
        return name

    def constant(base: str, values: npt.NDArray[np.generic]) -> str:
        tensor = numpy_helper.from_array(values, unused(base))
        graph.initializer.append(tensor)
        if view.proto.ir_version < 4:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return tensor.name

    added: dict[int, list[onnx.NodeProto]] = {}
    for node, operand, axis, like, like_axis in found.repeats:
        if node.graph is not view.main:
            raise found.fail(node, "it joins a batch of 1 inside a nested graph")
        base, rank = f"{node.name or node.output()}_repeat", len(found.of(node, operand) or ())
        shape, batch, target, output = (unused(f"{base}_{part}") for part in ("shape", "batch", "target", "output"))
        ends = [constant(f"{base}_{k}", np.array([k], np.int64)) for k in (like_axis, like_axis + 1)]
        ones = [constant(f"{base}_ones", np.ones(n, np.int64)) if n else "" for n in (axis, rank - 1 - axis)]
        places = [name for name in (ones[0], batch, ones[1]) if name]
        # Slice takes its bounds as inputs from opset 10 on.
        cut = (
            helper.make_node("Slice", [shape, *ends], [batch], name=batch)
            if view.opset >= 10
            else helper.make_node("Slice", [shape], [batch], name=batch, starts=[like_axis], ends=[like_axis + 1])
        )
        added.setdefault(node.index, []).extend(
            (
                helper.make_node("Shape", [node.input(like)], [shape], name=shape),
                cut,
                helper.make_node("Concat", places, [target], name=target, axis=0),
                helper.make_node("Expand", [node.input(operand), target], [output], name=output),
            )
        )
        node.proto.input[operand] = output
    for node, operand, values in found.constants:
        name = constant(f"{node.name or node.output()}_{'scales' if operand < 0 else 'free'}", values)
        if operand < 0:
            kept = [node.input(0), node.input(1), name]
            del node.proto.input[:]
            node.proto.input.extend(kept)
        else:
            node.proto.input[operand] = name
        if node.op == "Reshape":
            for k in reversed([k for k, a in enumerate(node.proto.attribute) if a.name == "allowzero"]):
                del node.proto.attribute[k]
    if added:
        nodes = [part for i, node in enumerate(graph.node) for part in (*added.get(i, ()), node)]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
