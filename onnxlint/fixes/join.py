"""Several outputs become one: detection heads, joined along an axis."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import holds
from onnxlint.fixes.heads import Head, HeadsError, Joined, read_heads, to_json
from onnxlint.model.metadata import HEADS_KEY
from onnxlint.symbolic.conditions import when_equal
from onnxlint.symbolic.sizes import Size, TooComplexError, in_floors, is_made_up, substitute, symbols
from onnxlint.text import brief, listed, printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView
    from onnxlint.surgery.surgeon import Surgeon
    from onnxlint.symbolic.sizes import AnySize


@dataclass(frozen=True)
class Role:
    """Names of detection heads, and the number of values that each has per candidate.

    Attributes:
        names: Parts of names; users may write any of them.
        width: Numbers of a candidate: 4 of a box, 2 of face and background, 10 of five landmarks.
    """

    names: tuple[str, ...]
    width: int


_LONGEST_SIZE = 12
"""Characters of a size in messages: formulas of the inputs' sizes are longer."""

ROLES = (
    Role(("bbox", "box", "loc", "reg"), 4),
    Role(("class", "cls", "conf", "score", "prob"), 2),
    Role(("landm", "ldm", "lmk", "kps", "keypoint"), 10),
)


def pick_heads(view: GraphView, names: Sequence[str]) -> list[str]:
    """Output names for what a user calls them.

    A name is an output's; or a part of it, or of the module that makes it; or a role (`bbox`, `cls`, `ldm`, …), which other
    words for it stand for, too, and which its width tells where no name does; or that width (`4`).

    Raises:
        HeadsError: One of them fits no output, or several.
    """
    graph = view.main
    scopes = {output: _scopes(view, output) for output in graph.outputs}
    picked = []
    for name in names:
        found = _find(view, name, scopes)
        if len(found) != 1:
            shown = listed([_shown(view, output) for output in (found or graph.outputs)], 8)
            what = f"fits several outputs: {shown}" if found else f"fits no output; the model has {shown}"
            raise HeadsError(f"--heads: {printable(name)!r} {what}")
        picked.append(found[0])
    twice = next((output for output in picked if picked.count(output) > 1), None)
    if twice is not None:
        both = listed(repr(printable(name)) for name, output in zip(names, picked, strict=True) if output == twice)
        raise HeadsError(f"--heads: {both} fit one output, {printable(twice)!r}: it is named twice")
    return picked


def _find(view: GraphView, name: str, scopes: Mapping[str, set[str]]) -> list[str]:
    """The outputs that a name fits best."""
    if name in scopes:
        return [name]

    def named(part: str) -> list[str]:
        return [output for output, texts in scopes.items() if any(part in text.lower() for text in texts)]

    folded = name.lower()
    if folded.isascii() and folded.isdigit():
        return [output for output in scopes if str(_width(view, output)) == folded]
    found = named(folded)
    if len(found) == 1:
        return found
    role = next((role for role in ROLES if any(map(folded.startswith, role.names))), None)
    if role is None:
        return found
    for word in role.names:
        by_word = named(word)
        if len(by_word) == 1:
            return by_word
    return [output for output in scopes if _width(view, output) == role.width] or found


def _width(view: GraphView, output: str) -> int | None:
    """Numbers of a candidate: the size of the last axis."""
    shape = view.main.shape(output)
    size = shape[-1] if shape else None
    return size if isinstance(size, int) else None


def _shown(view: GraphView, output: str) -> str:
    shape = view.main.shape(output) or ()
    words = ["?" if size is None else str(size) for size in shape]
    sizes = ", ".join(printable(word) if len(word) <= _LONGEST_SIZE else "?" for word in words)
    return f"{printable(output)} [{sizes}]" if shape else printable(output)


def _scopes(view: GraphView, output: str) -> set[str]:
    """The output's name, and the modules that its values come from."""
    texts = {output}
    node = view.main.producer(output)
    for _ in range(8):
        if node is None:
            break
        producers = [p for p in (node.producer(i) for i in range(len(node.inputs))) if p is not None]
        texts |= {view.sources.scope(n.proto) for n in (node, *producers)}
        node = producers[0] if len(producers) == 1 else None
    return texts - {""}


def join_heads(view: GraphView, surgeon: Surgeon, names: Sequence[str], axis: int | None, output: str) -> Joined:
    """Put a Concat of some outputs in their place.

    Args:
        names: The outputs, in the order in which they are to be joined.
        axis: Along which; None for the only one in which they differ.
        output: Name of the new output.

    Raises:
        OnnxlintError: They do not fit together.
    """
    import onnx_graphsurgeon as gs

    shapes = [view.main.shape(name) for name in names]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        ranks = ", ".join(f"{printable(n)} {'?' if s is None else len(s)}" for n, s in zip(names, shapes, strict=True))
        raise HeadsError(f"--concat-heads: the outputs differ in rank ({ranks})")
    rank = len(known[0])
    if len({view.main.dtype(name) for name in names}) != 1:
        raise HeadsError("--concat-heads: the outputs differ in element type")
    if axis is None:
        differing = [i for i in range(rank) if len({shape[i] for shape in known}) > 1 and _numbers(known, i)]
        axis = differing[0] if len(differing) == 1 else rank - 1
    if not -rank <= axis < rank:
        raise OnnxlintError(f"--axis {axis}: the outputs have {rank} axes")
    axis %= rank
    _require_same_sizes(view, surgeon, names, axis)
    sizes = [shape[axis] for shape in known]
    if not all(isinstance(size, int) for size in sizes):
        raise HeadsError(f"--concat-heads: the sizes of axis {axis} are not constant")
    empty = next((name for name, size in zip(names, sizes, strict=True) if size == 0), None)
    if empty is not None:
        raise HeadsError(f"--concat-heads: {printable(empty)!r} has no elements along axis {axis}")
    others = set(view.main.outputs) - set(names)
    if output in others or (output not in names and view.main.owner(output) is not None):
        raise OnnxlintError(f"--concat-name {output!r}: the model has a value of that name; choose another")
    graph = surgeon.graph
    tensors = {tensor.name: tensor for tensor in graph.outputs}
    parts = [tensors[name] for name in names]
    place = min(graph.outputs.index(part) for part in parts)
    if output in names:
        part = tensors[output]
        part.name = surgeon.name(f"{output}_head")
    total = sum(size for size in sizes if isinstance(size, int))
    merged = [
        total if i == axis else next((shape[i] for shape in known if isinstance(shape[i], int)), _shared(known, i))
        for i in range(rank)
    ]
    joined = gs.Variable(output, dtype=parts[0].dtype, shape=merged)
    graph.nodes.append(gs.Node("Concat", surgeon.name(f"{output}_concat"), {"axis": axis}, parts, [joined]))
    kept = [tensor for tensor in graph.outputs if not any(tensor is part for part in parts)]
    kept.insert(place, joined)
    graph.outputs = kept
    heads, start = [], 0
    for name, size in zip(names, sizes, strict=True):
        assert isinstance(size, int)
        heads.append(Head(name, start, start + size))
        start += size
    result = Joined(output, axis, tuple(heads))
    surgeon.metadata[HEADS_KEY] = to_json([*read_heads(view.proto), result])
    return result


def _require_same_sizes(view: GraphView, surgeon: Surgeon, names: Sequence[str], joined: int) -> None:
    """Outputs have the same sizes along all axes but one, or the surgeon notes what that rests on.

    Raises:
        HeadsError: Two have not at some sizes at which the model runs.
    """
    from onnxlint.symbolic.inference import exact_sizes

    symbolic = exact_sizes(view)
    known = [(name, sizes) for name in names if (sizes := symbolic.shape(view.main, name)) is not None]
    for (first, own), (other, others) in itertools.combinations(known, 2):
        for axis, (left, right) in enumerate(zip(own, others, strict=False)):
            if axis == joined:
                continue
            clauses = _when_same(view, left, right)
            if clauses == [] and left != right and any(map(is_made_up, symbols(left) | symbols(right))):
                surgeon.unproven.append(f"axis {axis} of {printable(first)!r} and {printable(other)!r} is of one size")
                continue
            missing = [clause for clause in clauses or () if not holds(clause, view.multiples)]
            if clauses is not None and not missing:
                surgeon.conditions += clauses
                continue
            both = f"{printable(first)!r} {brief(str(left))}, {printable(other)!r} {brief(str(right))}"
            allow = f"; they are equal if {' and '.join(missing)}: allow it with --assume {','.join(missing)!r}"
            raise HeadsError(
                f"--concat-heads: the outputs differ in axis {axis} too ({both}){allow if missing else ''}"
            )


def _when_same(view: GraphView, left: AnySize, right: AnySize) -> list[str] | None:
    """Conditions under which two sizes are equal wherever the model runs; None where none is known.

    Empty for sizes that nothing is known about, too.
    """
    from onnxlint.symbolic.constraints import MAX_TRIES, only_sizes
    from onnxlint.symbolic.demands import demands

    numbers = only_sizes(view)
    left, right = substitute(left, numbers), substitute(right, numbers)
    enforced = ({one.left, one.right} for one in demands(view) if not one.or_one and not one.multiple)
    if left == right or {left, right} in enforced or any(map(is_made_up, symbols(left) | symbols(right))):
        return []
    try:
        found = when_equal(in_floors(left), in_floors(right))
    except TooComplexError:
        return None
    if found is None or any(one.multiple is None for one in found):
        factors = {name: Size.symbol(name) * view.multiples.get(name, 1) for name in symbols(left) | symbols(right)}
        same = substitute(left, factors) == substitute(right, factors)
        return [f"{name} % {view.multiples[name]} == 0" for name in factors if name in view.multiples] if same else None
    for k in range(1, MAX_TRIES):  # pooling of maps that are smaller than its windows
        sizes: dict[str, AnySize] = {one.symbol: (one.multiple or 1) * k for one in found}
        if substitute(left, sizes) != substitute(right, sizes):
            return None
    return [str(one) for one in found]


def _numbers(shapes: Sequence[tuple[Any, ...]], axis: int) -> bool:
    return all(isinstance(shape[axis], int) for shape in shapes)


def _shared(shapes: Sequence[tuple[Any, ...]], axis: int) -> str | None:
    """A symbol that all shapes have for an axis."""
    names = {shape[axis] for shape in shapes}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) and name.isidentifier() else None
