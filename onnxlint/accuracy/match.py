"""Which output of a candidate stands for which of the reference's, and how to bring the two into one form.

By the heads that `onnxlint fix` records in a model's metadata, by name, by order and shape. Nothing is guessed: what does
not fit is listed with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable
from onnxlint.text import shape as show

if TYPE_CHECKING:
    import onnx

    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_CARRIERS = frozenset(
    "Cast DequantizeLinear Flatten Identity QuantizeLinear Reshape Squeeze Transpose Unsqueeze".split()
)
_OPERATORS = ("Softmax", "Sigmoid", "LogSoftmax")


@dataclass(frozen=True)
class Activation:
    """An operator at a model's end: its name, and its axis, counted from the back."""

    op: str
    axis: int = -1

    def apply(self, x: Array) -> Array:
        """Its values for x, in float64."""
        x = np.asarray(x, np.float64)
        if self.op == "Sigmoid":
            return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
        shifted = x - x.max(axis=self.axis, keepdims=True)
        total = np.exp(shifted).sum(axis=self.axis, keepdims=True)
        return np.asarray(shifted - np.log(total) if self.op == "LogSoftmax" else np.exp(shifted) / total)

    def could_have_made(self, x: Array) -> bool:
        """Whether numbers are what it gives: probabilities, or their logarithms."""
        x = np.asarray(x, np.float64)
        if not x.size or not np.isfinite(x).all():
            return True  # nothing can be told
        if self.op == "LogSoftmax":
            return bool(x.max() <= _SLACK) and self._sums_to_one(np.exp(np.minimum(x, 0)))
        is_probability = bool(x.min() >= -_SLACK and x.max() <= 1 + _SLACK)
        return is_probability and (self.op == "Sigmoid" or self._sums_to_one(x))

    def _sums_to_one(self, x: Array) -> bool:
        return bool(np.abs(x.sum(axis=self.axis) - 1).mean() < _SLACK)


_SLACK = 0.05
"""By how much int8 may miss 0, 1 or a sum of 1."""


@dataclass(frozen=True)
class End:
    """An output of a model, or a head in an output that heads were joined into.

    Attributes:
        name: The output's name, or that of the head.
        output: The output that it is in.
        axis: The axis that heads were joined along, counted from the back; None for a whole output.
        start, stop: Its slice of that axis.
        dropped: What post-processing has to apply, as recorded by `fix`.
        activation: What the graph applies at its end.
    """

    name: str
    output: str
    axis: int | None = None
    start: int = 0
    stop: int = 0
    dropped: Activation | None = None
    activation: Activation | None = None

    def of(self, outputs: Mapping[str, Array]) -> Array:
        """Its numbers.

        Raises:
            OnnxlintError: The output is smaller than the record of its heads says.
        """
        array = outputs[self.output]
        if self.axis is None:
            return array
        if array.ndim < -self.axis or array.shape[self.axis] < self.stop:
            raise OnnxlintError(
                f"output {printable(self.output)!r} has the shape {show(array.shape)}, and its record says that head "
                f"{printable(self.name)!r} is at {self.start} to {self.stop - 1}; fix the original again"
            )
        place: tuple[Any, ...] = (..., slice(self.start, self.stop), *(slice(None),) * (-1 - self.axis))
        return np.asarray(array[place])

    @property
    def place(self) -> str:
        """`output`, `output[..., 0:4]`."""
        if self.axis is None:
            return self.output
        return f"{self.output}[..., {self.start}:{self.stop}{', :' * (-1 - self.axis)}]"


@dataclass(frozen=True)
class Pair:
    """Two ends that stand for each other, and what is applied to either before they are compared."""

    reference: End
    candidate: End
    on_reference: Activation | None = None
    on_candidate: Activation | None = None

    def arrays(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> tuple[Array, Array]:
        """The two in the reference's shape.

        Raises:
            OnnxlintError: They have different shapes for this input.
        """
        r, c = self.reference.of(reference), self.candidate.of(candidate)
        if r.shape != c.shape:
            if not same_layout(r.shape, c.shape):
                raise OnnxlintError(
                    f"output {printable(self.reference.name)!r} is {show(r.shape)} in the reference and {show(c.shape)} "
                    "in the candidate for one of the inputs"
                )
            c = c.reshape(r.shape)
        if self.on_reference is not None:
            r = self.on_reference.apply(r)
        if self.on_candidate is not None:
            c = self.on_candidate.apply(c)
        return r, c


@dataclass(frozen=True)
class Matched:
    """Which outputs are compared; those that are not, with why; and what the user should know about those that are."""

    pairs: tuple[Pair, ...]
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def same_layout(a: Shape, b: Shape) -> bool:
    """Whether arrays of these shapes hold the same numbers in the same order: axes of size 1 and axes that were merged
    (1×16×10×20 and 16×200) apart."""

    def ends(shape: Shape) -> set[int]:
        return {int(n) for n in np.cumprod([size for size in shape if size != 1], dtype=np.int64)}

    if int(np.prod(a, dtype=np.int64)) != int(np.prod(b, dtype=np.int64)):
        return False
    return 0 in a or ends(a) <= ends(b) or ends(b) <= ends(a)


# What models say about their outputs


def ends_of(proto: onnx.ModelProto, names: Sequence[str]) -> tuple[End, ...]:
    """The outputs of an ONNX model, joined ones taken apart as its metadata says.

    Raises:
        OnnxlintError: The metadata is damaged.
    """
    from onnxlint.fixes.heads import read_heads

    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in proto.graph.output}
    dropped = _dropped(proto)
    joined = {one.output: one for one in read_heads(proto)}
    found: list[End] = []
    for name in names:
        if name in joined and ranks.get(name):
            found += _apart(joined[name], ranks[name], dropped)
        else:
            found.append(End(name, name, dropped=dropped.get(name), activation=_last(proto, name)))
    return tuple(found)


def _apart(joined: Joined, rank: int, dropped: Mapping[str, Activation]) -> list[End]:
    return [
        End(head.name, joined.output, joined.axis - rank, head.start, head.stop, dropped.get(head.name))
        for head in joined.heads
    ]


def _dropped(proto: onnx.ModelProto) -> dict[str, Activation]:
    from onnxlint.model.metadata import DROPPED_KEY

    text = next((entry.value for entry in proto.metadata_props if entry.key == DROPPED_KEY), "{}")
    try:
        record = json.loads(text)
        return {name: Activation(str(one["op"]), int(one.get("axis", -1))) for name, one in record.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OnnxlintError(
            f"the model's metadata {DROPPED_KEY!r} is damaged ({printable(str(error))}); fix the original again"
        ) from None


def _last(proto: onnx.ModelProto, name: str) -> Activation | None:
    """The activation that an output comes out of, directly or through operators that only move numbers of the last axis."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        node = makers[name]
        if node.op_type in _OPERATORS:
            axis = next((int(a.i) for a in node.attribute if a.name == "axis"), -1)
            return Activation(node.op_type, axis)
        if node.op_type not in ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear"):
            return None
        name = node.input[0] if node.input else ""
    return None


def split_like(ends: Sequence[End], pattern: Sequence[End]) -> tuple[End, ...]:
    """Outputs taken apart as the record of another model says, for the outputs that have the same name there.

    For files that have no metadata (ncnn's) but were made from a model that has.
    """
    found: list[End] = []
    for end in ends:
        heads = [one for one in pattern if one.output == end.output and one.axis is not None]
        if end.axis is not None or not heads:
            known = next((one for one in pattern if one.output == end.output and one.name == end.name), None)
            found.append(end if known is None or end.dropped else replace(end, dropped=known.dropped))
        else:
            found += heads
    return tuple(found)


# Matching


def match(
    reference: Sequence[End],
    candidate: Sequence[End],
    r_outputs: Mapping[str, Array],
    c_outputs: Mapping[str, Array],
) -> Matched:
    """Match ends, by what both models give for one input.

    Raises:
        OnnxlintError: A record of heads does not fit the outputs.
    """
    notes: list[str] = []
    reference, candidate = list(reference), list(candidate)
    if not {end.name for end in reference} & {
        end.name for end in candidate if _fits(reference, end, r_outputs, c_outputs)
    }:
        candidate = _cut(reference, candidate, r_outputs, c_outputs, notes)
        reference = _cut(candidate, reference, c_outputs, r_outputs, notes)
    order = [end.name for end in reference]
    pairs: list[tuple[End, End]] = []
    unmatched: list[str] = []
    for end in list(reference):
        same = next((one for one in candidate if one.name == end.name), None)
        if same is None:
            continue
        why = _unfit(end.of(r_outputs), same.of(c_outputs))
        if why and len(reference) == len(candidate):
            unmatched.append(f"{printable(end.name)}: {why}")
        if not why:
            pairs.append((end, same))
        if not why or len(reference) == len(candidate):
            reference.remove(end)
            candidate.remove(same)
    pairs += _by_order(reference, candidate, r_outputs, c_outputs, notes)
    pairs.sort(key=lambda pair: order.index(pair[0].name))
    unmatched += [f"{_named(end, r_outputs)}: the candidate has no output like it" for end in reference]
    unmatched += [
        f"{_named(end, c_outputs)} of the candidate: the reference has no output like it" for end in candidate
    ]
    return Matched(
        tuple(_with_activation(r, c, r_outputs, c_outputs, notes) for r, c in pairs), tuple(unmatched), tuple(notes)
    )


def _fits(reference: Sequence[End], end: End, r_outputs: Mapping[str, Array], c_outputs: Mapping[str, Array]) -> bool:
    same = next((one for one in reference if one.name == end.name), None)
    return same is not None and not _unfit(same.of(r_outputs), end.of(c_outputs))


def _unfit(r: Array, c: Array) -> str:
    """Why two arrays cannot be compared; empty where they can."""
    for array, whose in ((r, "the reference"), (c, "the candidate")):
        if array.dtype.kind not in "fiub":
            return f"{whose} gives no numbers ({array.dtype})"
    if not same_layout(r.shape, c.shape):
        return f"{show(r.shape)} in the reference, {show(c.shape)} in the candidate"
    return ""


def _named(end: End, outputs: Mapping[str, Array]) -> str:
    return f"{printable(end.name)} ({show(end.of(outputs).shape)})"


def _cut(
    several: Sequence[End],
    ends: Sequence[End],
    outputs: Mapping[str, Array],
    others: Mapping[str, Array],
    notes: list[str],
) -> list[End]:
    """A lone output that is as large as several of the other model together, cut into pieces of their sizes."""
    if len(ends) != 1 or len(several) < 2 or ends[0].axis is not None:
        return list(ends)
    parts = [end.of(outputs).shape for end in several]
    whole = others[ends[0].output].shape
    for axis in range(-1, -1 - len(parts[0]), -1):
        if any(len(part) != len(parts[0]) for part in parts):
            break
        rest = {(*part[:axis], *(part[axis + 1 :] if axis != -1 else ())) for part in parts}
        total = sum(part[axis] for part in parts)
        joined = list(parts[0])
        joined[axis] = total
        if len(rest) != 1 or len(whole) < -axis or whole[axis] != total or not same_layout(tuple(joined), whole):
            continue
        cut, start = [], 0
        for end, part in zip(several, parts, strict=True):
            cut.append(End(end.name, ends[0].output, axis, start, start + part[axis]))
            start += part[axis]
        order = ", ".join(f"{printable(end.name)} {end.stop - end.start}" for end in cut)
        notes.append(
            f"{printable(ends[0].output)} has no record of its heads: it is taken for {order}, in this order, "
            "because the sizes agree"
        )
        return cut
    return list(ends)


def _by_order(
    reference: list[End],
    candidate: list[End],
    r_outputs: Mapping[str, Array],
    c_outputs: Mapping[str, Array],
    notes: list[str],
) -> list[tuple[End, End]]:
    """Match what names have not matched, where order and shapes leave one way only; what is matched leaves the lists."""
    fits = [[not _unfit(r.of(r_outputs), c.of(c_outputs)) for c in candidate] for r in reference]
    if len(reference) == len(candidate) and all(fits[i][i] for i in range(len(fits))):
        found = list(zip(reference, candidate, strict=True))
        how = "by their order"
    else:
        found = []
        how = "by their shapes"
        for i, r in enumerate(reference):
            js = [j for j, fit in enumerate(fits[i]) if fit]
            if len(js) == 1 and sum(row[js[0]] for row in fits) == 1:
                found.append((r, candidate[js[0]]))
    if found:
        named = ", ".join(f"{printable(r.name)} = {printable(c.name)}" for r, c in found)
        notes.append(f"outputs of different names are matched {how}: {named}")
    for r, c in found:
        reference.remove(r)
        candidate.remove(c)
    return found


def _with_activation(
    r: End, c: End, r_outputs: Mapping[str, Array], c_outputs: Mapping[str, Array], notes: list[str]
) -> Pair:
    """The pair, with the Softmax or Sigmoid that one side dropped applied to it."""
    shown = printable(r.name)
    if r.dropped == c.dropped and (r.dropped or r.activation == c.activation):
        return Pair(r, c)
    if c.dropped and not r.dropped:
        notes.append(f"{shown}: {c.dropped.op}, which 'onnxlint fix' dropped, is applied to the candidate's")
        return Pair(r, c, on_candidate=_placed(c.dropped, r, r_outputs))
    if r.dropped and not c.dropped and c.activation is not None:
        notes.append(f"{shown}: {r.dropped.op}, which 'onnxlint fix' dropped, is applied to the reference's")
        return Pair(r, c, on_reference=_placed(r.dropped, r, r_outputs))
    ra, ca = r.of(r_outputs), c.of(c_outputs)
    ca = ca.reshape(ra.shape)
    for mine, numbers, whose in ((r.activation, ca, "candidate"), (c.activation, ra, "reference")):
        if mine is None or ra.dtype.kind != "f" or ca.dtype.kind != "f":
            continue
        placed = _placed(mine, r, r_outputs)
        if not placed.could_have_made(numbers):
            other = "reference" if whose == "candidate" else "candidate"
            notes.append(
                f"{shown}: the {other} ends in {mine.op} and the {whose} does not: it is applied to the {whose}'s"
            )
            return Pair(r, c, *((placed, None) if whose == "reference" else (None, placed)))
    return Pair(r, c)


def _placed(activation: Activation, end: End, outputs: Mapping[str, Array]) -> Activation:
    """With its axis counted from the back."""
    rank = end.of(outputs).ndim
    return replace(activation, axis=activation.axis - rank) if activation.axis >= 0 else activation
