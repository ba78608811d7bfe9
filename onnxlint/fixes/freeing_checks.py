"""Constraints of each operator on a size that is set free, and its constants that have to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnxlint.fixes.freeing import Freeing, complexity_of
from onnxlint.graph.view import Node
from onnxlint.symbolic.conditions import when_equal
from onnxlint.symbolic.engine import Sizes
from onnxlint.symbolic.reshapes import constant_target
from onnxlint.symbolic.shape_operators import ELEMENTWISE
from onnxlint.symbolic.sizes import AnySize, Size, product
from onnxlint.text import printable

_END = 2**31 - 1
"""Ends of a Slice from here on mean "to the end"."""


def _numbers(s: Freeing, node: Node, i: int) -> list[int] | None:
    """Whole numbers of operand `i`, where they do not depend on what was set free; else None."""
    value = s.val(node, i)
    if value is None or not all(isinstance(n, int) for n in value.numbers):
        return None
    return [n for n in value.numbers if isinstance(n, int)]


def _sizes(s: Freeing, node: Node, i: int) -> list[AnySize] | None:
    """Sizes that operand `i` says; None if one of them cannot be followed."""
    value = s.val(node, i)
    if value is None:
        return None
    sizes = [size for size in value.numbers if isinstance(size, int | Size) and s.was(size) is not None]
    return sizes if len(sizes) == len(value.numbers) else None


def _reshape(s: Freeing, node: Node) -> Sizes | None:
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
    constant = constant_target(data, sizes, s.is_never_empty)
    if constant is None:
        shown = ", ".join(map(str, sizes))
        raise s.fail(node, f"[{printable(shown)}] has more than one free size, which a constant cannot express")
    if constant != target:
        s.constants.append((node, 1, np.array(constant, np.int64)))
    return sizes


def _regroup(s: Freeing, node: Node, data: Sizes, old: Sequence[int], target: Sequence[int]) -> Sizes:
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


def _resize(s: Freeing, node: Node) -> Sizes | None:
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
            raise s.fail(node, f"its size {size} is not a whole multiple of {old or 'its input'}, nor a part of it")
        scales.append(np.float32(size) / np.float32(old))
        if size != old:
            out[axis] = data[axis] * (size // old) if size % old == 0 else data[axis] // (old // size)
    s.constants.append((node, -1, np.array(scales, np.float32)))
    return tuple(out)


def _expand(s: Freeing, node: Node) -> Sizes | None:
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


def _slice(s: Freeing, node: Node) -> Sizes | None:
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
                raise s.fail(node, "it slices several axes together, one of them now free")
        return tuple(sizes)
    return None


def _split(s: Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axis = node.attribute("axis", 0)
    if data is not None and s.is_free(data[axis]) and s.ints(node, 1, "split") is not None:
        raise s.fail(node, f"it splits axis {axis}, now {printable(str(data[axis]))}, into parts of fixed sizes")
    return None


def _squeeze(s: Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axes = s.ints(node, 1, "axes")
    if data is not None:
        gone = range(len(data)) if axes is None else axes
        for axis in gone:
            if s.is_free(data[axis]) and s.was(data[axis]) == 1:
                raise s.fail(node, f"it takes axis {axis} out, which is now {printable(str(data[axis]))}")
    return None


def _gather(s: Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    axis = node.attribute("axis", 0)
    indices = s.of(node, 1)
    constant = node.graph.is_constant(node.input(1))
    if data is not None and constant and indices is not None and s.is_free(data[axis]) and indices not in ((), (1,)):
        raise s.fail(node, f"its constant indices pick from axis {axis}, now {printable(str(data[axis]))}")
    return None


def _indexed(s: Freeing, node: Node) -> Sizes | None:
    others = [sizes for i in (0, 2) if (sizes := s.of(node, i)) is not None]
    indices = s.of(node, 1)
    made_before = indices is not None and all(isinstance(size, int) for size in indices)
    if made_before and any(map(s.is_free, (size for sizes in others for size in sizes))):
        raise s.fail(node, "its indices are constants, made for the old sizes")
    return None


def _broadcast(s: Freeing, node: Node) -> Sizes | None:
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
        plainest = min(sizes, key=lambda size: complexity_of([size])) if sizes else 1
        for other in sizes:
            for condition in when_equal(plainest, other) or ():
                if condition.multiple is not None:
                    s.needed[condition.symbol] = math.lcm(condition.multiple, s.needed.get(condition.symbol, 1))
        out.append(plainest)
    return tuple(out)


def _meet(s: Freeing, node: Node, shapes: Sequence[Sizes]) -> None:
    rank = max(map(len, shapes), default=0)
    for k in range(1, rank + 1):
        sizes = [shape[-k] for shape in shapes if k <= len(shape)]
        free = [size for size in sizes if s.is_free(size)]
        numbers = [size for size in sizes if isinstance(size, int) and size != 1]
        if free and numbers:
            raise s.fail(node, f"axis {rank - k} is now {printable(str(free[0]))}, and meets one of {numbers[0]}")


def _concat(s: Freeing, node: Node) -> Sizes | None:
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


def _matmul(s: Freeing, node: Node) -> Sizes | None:
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


def _conv(s: Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    if data is not None and len(data) > 1 and s.is_free(data[1]):
        raise s.fail(node, f"its weights are made for a fixed number of channels, not for {printable(str(data[1]))}")
    if node.attribute("output_shape"):
        raise s.fail(node, "its output_shape is fixed")
    return None


def _recurrent(s: Freeing, node: Node) -> Sizes | None:
    data = s.of(node, 0)
    batch = data[0 if node.attribute("layout", 0) else 1] if data is not None and len(data) == 3 else 1
    for i in (4, 5, 6):
        state = s.of(node, i)
        if state is None or len(state) != 3 or not s.is_free(batch):
            continue
        axis = 0 if node.attribute("layout", 0) else 1
        if isinstance(state[axis], int) and not s.widen(node, i, axis, 0, axis):
            name = printable(node.input(i))
            what = f"its initial state {name!r} is made for a batch of {state[axis]}"
            raise s.fail(node, f"{what}; if it is zero, 'onnxlint fix' without --dynamic leaves it out (GRF008)")
    return None


def _scan(s: Freeing, node: Node) -> Sizes | None:
    if any(map(s.is_free, (size for i in range(len(node.inputs)) for size in s.of(node, i) or ()))):
        raise s.fail(node, "its body is made for the sizes that it is given")
    return None


CHECKS: dict[str, Callable[[Freeing, Node], Sizes | None]] = {
    **dict.fromkeys(ELEMENTWISE, _broadcast),
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
"""Operator → function that handles a free size; some compute output sizes, the others leave that to the caller."""
