"""Sizes that no input satisfies, or only one number: models and options that a fix refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.constraints import BakedSize, baked_sizes
from onnxlint.symbolic.demands import described, impossible_demands, node_label
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.misread import repeated_letters
from onnxlint.text import brief, printable

if TYPE_CHECKING:
    from onnxlint.fixes.shapes import WantedDim
    from onnxlint.graph.view import GraphView, Node


def refuse_impossible(view: GraphView, before: GraphView | None = None, flag: str = "") -> None:
    """No input can run the model, so it can be neither fixed nor compared.

    Args:
        view: The model.
        before: The model before the option, whose fault it is not; None: the model as it was read.
        flag: The option that gave it its sizes.

    Raises:
        OnnxlintError: No input can run the model; names the node and the reason.
    """
    known = set() if before is None else {_place(demand.node) for demand in impossible_demands(before)}
    for demand in impossible_demands(view):
        if _place(demand.node) in known:
            continue
        what = described(demand)
        if flag:
            raise OnnxlintError(f"{flag}: the model does not accept these sizes: {what}")
        which = "no input with elements" if demand.is_of_inputs else "no input"
        raise OnnxlintError(
            f"{printable(view.model.path)}: {which} can run this model: {what}; nothing was changed: export it again"
        )


def refuse_misread(view: GraphView, before: GraphView, flag: str) -> None:
    """A size becomes 1 that an Einsum repeats: onnxruntime then infers a result of 1, and computes with it.

    It takes the first size of each letter. Shape of the result becomes a constant of that, and an If fails.

    Args:
        view: The model after the option.
        before: The model before it.
        flag: The option.

    Raises:
        OnnxlintError: It names the node and the letter.
    """
    if not any(True for _ in view.nodes("Einsum")):
        return
    known = {_place(node) for node, _ in _misread(before)}
    for node, letter in _misread(view):
        if _place(node) not in known:
            raise OnnxlintError(
                f"{flag}: {node_label(node)} would repeat axis {letter!r} of its first operand, which onnxruntime takes for "
                "1 in its result too; give that axis its full size, or put that operand last in the export"
            )


def _misread(view: GraphView) -> Iterator[tuple[Node, str]]:
    """Einsums with a letter of the result whose first size is 1, and another may not be."""
    symbolic = exact_sizes(view)
    for node in view.nodes("Einsum"):
        yield from ((node, letter) for letter, _, is_misread in repeated_letters(symbolic, node) if is_misread)


def _place(node: Node) -> tuple[str, int]:
    return node.graph.path, node.index


def refuse_baked(view: GraphView, wanted: Mapping[str, Sequence[WantedDim]]) -> None:
    """A size is to be free that only one number satisfies.

    Args:
        view: The model after the option.
        wanted: Input → the sizes that were asked for.

    Raises:
        OnnxlintError: It names the input, the axis, the only size, and the node that fixes it.
    """
    for baked in baked_sizes(view):
        dims = wanted.get(baked.input, ())
        if baked.axis < len(dims) and isinstance(dims[baked.axis], str):
            raise OnnxlintError(
                f"--dynamic: axis {baked.axis} of {printable(baked.input)!r} cannot be free: {_only(baked)}; "
                f"compute it from the input's shape in the export, or leave the axis out with ?"
            )


def _only(baked: BakedSize) -> str:
    if baked.relation:
        sizes = f"only sizes with {brief(baked.relation)} ({baked.smallest} for example) are"
    elif baked.smallest != baked.largest:
        # Where a window is larger than what it slides over, runtimes differ: nothing is said of smaller sizes.
        sizes = f"no size above {max(baked.largest, baked.other)} is"
    elif baked.other:
        sizes = f"only sizes {min(baked.other, baked.smallest)} and {max(baked.other, baked.smallest)} are"
    else:
        sizes = f"only size {baked.smallest} is"
    effect = "accepted" if baked.fails else "right, and others fail or mix up elements"
    return f"{sizes} {effect}: {node_label(baked.node)} fixes it"
