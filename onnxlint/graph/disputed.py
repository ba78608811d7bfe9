"""Nodes for whose results onnx's inference finds other sizes than onnxruntime has.

Seen with onnx 1.23 and onnxruntime 1.32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlint.graph.attributes import nested_graphs
from onnxlint.graph.dims import type_of

if TYPE_CHECKING:
    import onnx

_Steps = tuple[tuple[int, str], ...]

SAME = ("SAME_UPPER", "SAME_LOWER")
TO_THE_END = 2**31 - 1
"""Ends of a Slice from here on stand for all."""


class Place(NamedTuple):
    """Where a node is, in any copy of a model.

    Attributes:
        node: Its number in its graph.
        steps: (node, label of its graph) from the outermost graph to its own; see `nested_graphs`.
        function: Index of the function that it is in; None: the main graph.
    """

    node: int
    steps: _Steps = ()
    function: int | None = None


def place_of(node: Any) -> Place:
    """The place of a node of a `GraphView`."""
    steps, graph = [], node.graph
    while graph.parent is not None:
        steps.append((graph.parent_node.index, graph.path.rsplit(".", 1)[1]))
        graph = graph.parent
    function = None
    if graph.is_function:
        outermost = [one for one in graph.view.graphs if one.is_function and one.parent is None]
        function = next(i for i, one in enumerate(outermost) if one is graph)
    return Place(node.index, tuple(steps[::-1]), function)


def _is_in_function(node: Any) -> bool:
    return bool(node.graph.outermost.is_function)


def rounding_resizes(view: Any) -> list[tuple[Place, int]]:
    """(node, its input) of each scale like 0.7: onnx's inference and runtimes round it differently.

    Args:
        view: The `GraphView`.
    """
    found = []
    for node in view.nodes("Resize", "Upsample"):
        index = scales_index(node)
        scales = None if _is_in_function(node) else node.numbers(index)
        if scales is not None and scales.kind == "f" and any(s * 64 % 1 for s in scales.values):
            found.append((place_of(node), index))
    return found


def scales_index(node: Any) -> int:
    """Which input of a Resize or Upsample has its scales."""
    return 2 if node.op == "Resize" and node.graph.view.opset >= 11 else 1


def disputed_nodes(view: Any) -> list[Place]:
    """Nodes whose sizes are not to be inferred.

    Pooling with dilations and SAME padding; ConvTranspose of a given `output_shape`, or with SAME padding; Resize that
    keeps the ratio of axes that are counted from the end; Upsample by a scale like 1.3 that is an attribute; Slice backwards
    to an end that stands for all. In functions,
    whose inputs a call decides, also what may be one of `contradicted_nodes`.

    Args:
        view: The `GraphView`.
    """
    return [
        place_of(node)
        for op in _MAY_DIFFER
        for node in view.nodes(op)
        if node.input(0)
        and node.output()
        and (_MAY_DIFFER if _is_in_function(node) else _DIFFERS).get(op, _never)(node)
    ]


def contradicted_nodes(view: Any, inferred: onnx.GraphProto) -> list[Place]:
    """Nodes whose sizes were inferred wrongly: what inference says of their inputs shows it.

    Einsum that repeats an axis of 1, of which inference takes the 1; pooling with `ceil_mode`, of which inference counts a
    last window that would begin in the padding, or one where onnxruntime makes nothing of a small map. Functions are left
    to `disputed_nodes`.

    Args:
        view: The `GraphView`.
        inferred: The main graph with inferred shapes.
    """
    suspects = [node for node in view.nodes("Einsum", "AveragePool", "LpPool", "MaxPool") if node.input(0)]
    suspects = [n for n in suspects if (n.op == "Einsum" or n.attribute("ceil_mode", 0)) and not _is_in_function(n)]
    known: dict[_Steps, dict[str, Any]] = {}
    found = []
    for node in suspects:
        place = place_of(node)
        sizes = partial(_sizes, node.graph, _readable(inferred, place.steps, known))
        if _repeats(node, sizes) if node.op == "Einsum" else _is_miscounted(node, sizes):
            found.append(place)
    return found


def _sizes(graph: Any, readable: dict[str, Any], name: str) -> Sequence[Any] | None:
    owner = graph.owner(name)
    tensor = None if owner is None else owner.initializers.get(name)
    if tensor is not None:
        return tuple(tensor.dims)
    return type_of(readable[name])[1] if name in readable else None


def _readable(inferred: Any, steps: _Steps, known: dict[_Steps, dict[str, Any]]) -> dict[str, Any]:
    """What can be read in a graph: its own values, and those of the graphs around it."""
    if steps not in known:
        graph = nested(inferred, steps)
        own = {value.name: value for group in (graph.value_info, graph.input, graph.output) for value in group}
        known[steps] = {**(_readable(inferred, steps[:-1], known) if steps else {}), **own}
    return known[steps]


def nested(graph: Any, steps: Iterable[tuple[int, str]]) -> Any:
    """The message of a graph that is nested in another."""
    for index, label in steps:
        graph = dict(nested_graphs(graph.node[index]))[label]
    return graph


def _repeats(node: Any, sizes: Callable[[str], Sequence[Any] | None]) -> bool:
    terms = str(node.attribute("equation", "")).replace(" ", "").partition("->")[0].split(",")
    met: dict[str, set[Any]] = {}
    for name, term in zip(node.inputs, terms, strict=False):
        shape = sizes(name)
        if shape is None:
            continue
        front, dots, back = term.partition("...")
        rest = len(shape) - len(front) - len(back)
        letters = [*front, *(f"{k}" for k in range(rest, 0, -1) if dots), *back]
        for letter, size in zip(letters, shape, strict=False):
            met.setdefault(letter, set()).add(size)
    return any(1 in found and len(found) > 1 for found in met.values())


def _is_miscounted(node: Any, sizes: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether inference finds other numbers of windows than onnxruntime, for a pooling with `ceil_mode`."""
    shape, made = (sizes(node.input(0)) or ())[2:], (sizes(node.output()) or ())[2:]
    windows = windows_of(node)
    if not len(windows) == len(shape) == len(made):
        return False
    same = node.attribute("auto_pad", "") in SAME
    begins = _or_default(node, "pads", [0] * (2 * len(shape)))
    return any(
        isinstance(size, int)
        and isinstance(count, int)
        and stride > 0
        and count != (-(-size // stride) if same else rounded_up(size + begin, size - reach - 1, stride))
        for size, count, begin, (reach, stride) in zip(shape, made, begins, windows, strict=False)
    )


def rounded_up(size: int, room: int, stride: int) -> int:
    """How many windows of a pooling with `ceil_mode` there are: the last one may end outside, and does not begin there.

    Args:
        size: Of the map and the padding before it.
        room: How far the first window can move, padding included.
        stride: Its stride.
    """
    count = -(-room // stride) + 1
    return count - ((count - 1) * stride >= size)


def windows_of(node: Any) -> list[tuple[int, int]]:
    """How far each axis of a pooling's window reaches beyond its first element and the padding, and its stride.

    Args:
        node: The node; attributes that are not of the specification count as absent.
    """
    kernel = whole_numbers(node, "kernel_shape")
    rank = len(kernel)
    dilations, strides = (_or_default(node, name, [1] * rank) for name in ("dilations", "strides"))
    pads = _or_default(node, "pads", [0] * (2 * rank))
    return [((kernel[i] - 1) * dilations[i] - pads[i] - pads[i + rank], strides[i]) for i in range(rank)]


def _or_default(node: Any, name: str, default: list[int]) -> list[int]:
    given = whole_numbers(node, name)
    return given if len(given) == len(default) else default


def whole_numbers(node: Any, name: str) -> list[int]:
    """A list of whole numbers; empty where the attribute is absent, or something else."""
    given = node.attribute(name)
    return given if isinstance(given, list) and all(isinstance(number, int) for number in given) else []


def _is_dilated(node: Any) -> bool:
    return node.attribute("auto_pad", "") in SAME and any(number != 1 for number in whole_numbers(node, "dilations"))


def _is_of_given_size(node: Any) -> bool:
    return bool(node.attribute("output_shape")) or node.attribute("auto_pad", "") in SAME


def _keeps_ratio(node: Any) -> bool:
    keeps = node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    return keeps and any(axis < 0 for axis in whole_numbers(node, "axes"))


def _rounds(node: Any) -> bool:
    scales = node.attribute("scales")
    return isinstance(scales, list) and any(isinstance(s, float) and s * 64 % 1 for s in scales)


def _goes_backwards(node: Any) -> bool:
    steps = node.numbers(4) if node.input(4) else None
    if steps is None or all(step >= 0 for step in steps.values):
        return False
    ends = node.numbers(2)
    return ends is None or any(end >= TO_THE_END for end in ends.values)


_DIFFERS = {
    "AveragePool": _is_dilated,
    "ConvTranspose": _is_of_given_size,
    "LpPool": _is_dilated,
    "MaxPool": _is_dilated,
    "Resize": _keeps_ratio,
    "Slice": _goes_backwards,
    "Upsample": _rounds,
}


def _never(node: Any) -> bool:
    return False


def _always(node: Any) -> bool:
    return True


def _may_miscount(node: Any) -> bool:
    return bool(node.attribute("ceil_mode", 0)) or _is_dilated(node)


def _may_go_backwards(node: Any) -> bool:
    steps = node.numbers(4) if node.input(4) else None
    return bool(node.input(4)) and (steps is None or any(step < 0 for step in steps.values))


_MAY_DIFFER: dict[str, Callable[[Any], bool]] = {
    "AveragePool": _may_miscount,
    "ConvTranspose": _is_of_given_size,
    "Einsum": _always,
    "LpPool": _may_miscount,
    "MaxPool": _may_miscount,
    "Resize": _always,
    "Slice": _may_go_backwards,
    "Upsample": _always,
}
"""The same in functions, where operands are not known."""
