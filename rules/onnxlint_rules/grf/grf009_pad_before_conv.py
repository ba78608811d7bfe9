"""GRF009: a Pad that the Conv or AveragePool after it could do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
    Example,
    Finding,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
    counted,
)
from onnxlint.rulekit import exact_sizes
from onnxlint_rules._graph import constant_integers, constant_reals, integer, integers, label, names_shown
from onnxlint_rules._patching import UNHELD, each, is_held

if TYPE_CHECKING:
    from onnxlint import Surgeon


class PadBeforeConv(Rule):
    """A Pad adds zeros in front of a Conv or AveragePool, which have padding of their own.

    ## What it does

    Reports Pads that add constant zeros to the spatial axes only, where every consumer is a Conv, or an AveragePool that
    the zeros count for. One finding for the whole model.

    ## Why it hurts

    - The padded map is written to memory and read again; a Conv pads while it reads.
    - Quantizers put a pair of QuantizeLinear and DequantizeLinear around the Pad, and runtimes that fuse Conv with what
      comes before it stop there.

    ## Fix it at the source

    ```python
    # before: asymmetric padding, as in models that come from TensorFlow
    x = F.pad(x, (1, 1, 1, 1))
    x = self.conv(x)  # padding=0
    # after
    x = self.conv(x)  # padding=1
    ```

    ## Fix safety

    Exact: Conv multiplies the same zeros. Runtimes may add up in another order.

    ## References

    - [Conv](https://onnx.ai/onnx/operators/onnx__Conv.html): `pads` holds begins and ends, which may differ
    - [AveragePool](https://onnx.ai/onnx/operators/onnx__AveragePool.html): `count_include_pad`
    """

    code = "GRF009"
    name = "pad-before-conv"
    severity = Severity.INFO
    help = "move the padding into the Conv or AveragePool"
    since = "0.2.0"
    fix = SAFE
    arithmetic = True
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y)
            <float[1,1,2,2] w = {1, 2, 3, 4}, int64[8] pads = {0, 0, 1, 0, 0, 0, 2, 1}, float zero = {0}> {
                padded = Pad (x, pads, zero)
                y = Conv <pads = [0, 1, 0, 1]> (padded, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y) <float[1,1,2,2] w = {1, 2, 3, 4}> {
                y = Conv <pads = [1, 1, 2, 2]> (x, w)
            }
            """,
            says="1 Pad could be part of the Conv after it",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 18]>
            g (float[N,2,H] x) => (float[N,2,A] y, float[N,1,B] z)
            <float[1,2,3] w = {1, 2, 3, 4, 5, 6}, int64[2] pads = {1, 1}, int64[1] axes = {-1}> {
                padded = Pad (x, pads, , axes)
                y = AveragePool <kernel_shape = [2], count_include_pad = 1> (padded)
                z = Conv (padded, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 18]>
            g (float[N,2,H] x) => (float[N,2,A] y, float[N,1,B] z) <float[1,2,3] w = {1, 2, 3, 4, 5, 6}> {
                y = AveragePool <kernel_shape = [2], count_include_pad = 1, pads = [1, 1]> (x)
                z = Conv <pads = [1, 1]> (x, w)
            }
            """,
            says="1 Pad could be part of the AveragePool or Conv after it",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y)
            <float[1,1,2,2] w = {1, 2, 3, 4}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
                padded = Pad <mode = "reflect"> (x, pads)
                y = Conv (padded, w)
            }
            """,
            why="a Conv pads with zeros only",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y) <int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
                padded = Pad (x, pads)
                y = MaxPool <kernel_shape = [2, 2]> (padded)
            }
            """,
            why="a MaxPool pads with the smallest number, not with zeros",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1,A,B] y, float[N,1,C,D] z)
            <float[1,1,2,2] w = {1, 2, 3, 4}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
                padded = Pad (x, pads)
                y = Conv (padded, w)
                z = Relu (padded)
            }
            """,
            why="the Relu needs the Pad",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        found = _found(view)
        if not found:
            return
        kinds = " or ".join(sorted({user.op for node in found for user in node.consumers()}))
        held = any(is_held(node.graph) for node in found)
        yield self.found(
            view.at(found[0]),
            f"{counted(len(found), 'Pad')} could be part of the {kinds} after {'it' if len(found) == 1 else 'them'}",
            fix=SAFE if held else None,
            not_fixed="" if held else UNHELD,
            nodes=names_shown(map(label, found), 10),
            count=len(found),
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        each(surgeon, _found(view), partial(_merge, surgeon))


def _found(view: GraphView) -> list[Node]:
    key = "onnxlint_rules.pads"
    known: list[Node] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = [node for node in view.nodes("Pad") if _spatial_pads(node) and _all_take(node)]
    return known


def _spatial_pads(node: Node) -> list[int]:
    """Zeros that a Pad adds to the spatial axes, begins first; empty if it adds none, or does anything else."""
    shape = node.shape(0)
    if node.attribute("mode", "constant") != "constant" or shape is None or len(shape) < 3:
        return []
    opset = node.graph.view.opset
    pads = constant_integers(node, 1) if opset >= 11 else integers(node, "pads")
    value = node.attribute("value", 0.0) if opset < 11 else 0.0
    if node.input(2):
        values = constant_reals(node, 2)
        value = values[0] if values is not None and len(values) == 1 else None
    if pads is None or value != 0:
        return []
    rank = len(shape)
    axes = list(range(rank))
    if node.input(3):
        named = constant_integers(node, 3)
        if named is None or not all(-rank <= axis < rank for axis in named):
            return []
        axes = [axis % rank for axis in named]
    if len(pads) != 2 * len(axes) or len(set(axes)) < len(axes) or min(pads, default=0) < 0:
        return []
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[len(axes) + i]
    if any((*begins[:2], *ends[:2])) or not any((*begins, *ends)):
        return []
    return [*begins[2:], *ends[2:]]


def _all_take(node: Node) -> bool:
    pads, users = _spatial_pads(node), node.consumers()
    if not users or node.graph.is_output(node.output()):
        return False
    return all(user.graph is node.graph and _merged(user, node.output(), pads) is not None for user in users)


def _merged(user: Node, name: str, pads: list[int]) -> list[int] | None:
    """Pads of a Conv or AveragePool that does the Pad's work, too; None if it cannot."""
    if user.op not in ("AveragePool", "Conv") or user.input(0) != name or name in user.inputs[1:]:
        return None
    if user.attribute("auto_pad", "NOTSET") not in ("", "NOTSET"):
        return None
    own = integers(user, "pads") or [0] * len(pads)
    if len(own) != len(pads) or min(own) < 0:
        return None
    total = [a + b for a, b in zip(own, pads, strict=True)]
    if user.op == "AveragePool":
        kernel = integers(user, "kernel_shape") or []
        counts = integer(user, "count_include_pad", 0) == 1 or not any(own)
        if not counts or integer(user, "ceil_mode", 0) or user.graph.view.opset < 7 or len(kernel) * 2 != len(pads):
            return None
        if any(pad >= size for pad, size in zip(total, kernel * 2, strict=True)):
            return None
        symbolic, pad = exact_sizes(user.graph.view), user.producer(0)
        sizes = symbolic.of(pad, 0) if pad is not None else None
        if user.graph.view.allow_empty and not all(map(symbolic.is_positive, (sizes or (0,) * 3)[2:])):
            return None  # runtimes pool no empty map, and pad one
    return total


def _merge(surgeon: Surgeon, node: Node) -> None:
    pads, users = _spatial_pads(node), node.consumers()
    held = surgeon.node(node)
    before = held.inputs[0]
    for user, change in [(user, surgeon.node(user)) for user in users]:
        total = _merged(user, node.output(), pads)
        if total is None:
            raise Unfixable(f"{label(user)} cannot pad so")
        change.attrs["pads"] = total
        if user.op == "AveragePool":
            change.attrs["count_include_pad"] = 1
        change.inputs[0] = before
