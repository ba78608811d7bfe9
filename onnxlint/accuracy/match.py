"""Match outputs of a candidate with the reference's, and bring both into one form.

By the heads that `onnxlint fix` records in a model's metadata, by name, by order and shape. Nothing is guessed: what does
not fit is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.activations import ONE_AXIS, Activation, Seen, along_axis, makers_in, seen_at, seen_in_parts
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable
from onnxlint.text import shape as show

if TYPE_CHECKING:
    import onnx

    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


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
        is_known: Whether the graph was looked at for that.
        parts: The same for each operand of the Concat that makes the output.
    """

    name: str
    output: str
    axis: int | None = None
    start: int = 0
    stop: int = 0
    dropped: Activation | None = None
    activation: Activation | None = None
    is_known: bool = False
    parts: tuple[Seen, ...] = ()

    @property
    def seen(self) -> Seen:
        """What is known about its activation: one that was dropped is not there."""
        return Seen(True, is_dropped=True) if self.dropped is not None else Seen(self.is_known, self.activation)

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
    """Two matching outputs, and the activations applied to them before the comparison."""

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
    """The matched outputs, the unmatched ones with reasons, and notes on the matched ones."""

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
    makers = makers_in(proto)
    found: list[End] = []
    for name in names:
        if name in joined and ranks.get(name):
            found += _ends_of_heads(joined[name], ranks[name], dropped, seen_in_parts(proto, name, makers))
        else:
            seen = seen_at(proto, name, makers)
            parts = seen_in_parts(proto, name, makers)
            found.append(
                End(
                    name,
                    name,
                    dropped=dropped.get(name),
                    activation=seen.activation,
                    is_known=seen.is_known,
                    parts=parts,
                )
            )
    return tuple(found)


def _ends_of_heads(joined: Joined, rank: int, dropped: Mapping[str, Activation], parts: Sequence[Seen]) -> list[End]:
    seen = parts if len(parts) == len(joined.heads) else [Seen()] * len(joined.heads)
    return [
        End(
            head.name,
            joined.output,
            joined.axis - rank,
            head.start,
            head.stop,
            dropped.get(head.name),
            one.activation,
            one.is_known,
        )
        for head, one in zip(joined.heads, seen, strict=True)
    ]


def _dropped(proto: onnx.ModelProto) -> dict[str, Activation]:
    from onnxlint.fixes.heads import read_dropped
    from onnxlint.model.metadata import metadata

    version = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), ONE_AXIS)
    return {name: along_axis(op, axis, version) for name, (op, axis) in read_dropped(metadata(proto)).items()}


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
    """Match outputs by the values that both models compute for one input.

    Raises:
        OnnxlintError: A record of heads does not fit the outputs.
    """
    notes: list[str] = []
    reference, candidate = list(reference), list(candidate)
    known = {end.name: end for end in reversed(reference)}
    if not any(
        end.name in known and not _mismatch(known[end.name].of(r_outputs), end.of(c_outputs)) for end in candidate
    ):
        candidate = _cut(reference, candidate, r_outputs, c_outputs, notes)
        reference = _cut(candidate, reference, c_outputs, r_outputs, notes)
    order = {end.name: i for i, end in enumerate(reference)}
    pairs: list[tuple[End, End]] = []
    unmatched: list[str] = []
    are_as_many = len(reference) == len(candidate)
    named = {end.name: end for end in reversed(candidate)}
    gone: set[str] = set()
    for end in reference:
        same = None if end.name in gone else named.get(end.name)
        if same is None:
            continue
        why = _mismatch(end.of(r_outputs), same.of(c_outputs))
        if why and are_as_many:
            unmatched.append(f"{printable(end.name)}: {why}")
        if not why:
            pairs.append((end, same))
        if not why or are_as_many:
            gone.add(end.name)
    reference = [end for end in reference if end.name not in gone]
    candidate = [end for end in candidate if end.name not in gone]
    pairs += _by_order(reference, candidate, r_outputs, c_outputs, notes)
    pairs.sort(key=lambda pair: order[pair[0].name])
    unmatched += [f"{_named(end, r_outputs)}: the candidate has no output like it" for end in reference]
    unmatched += [
        f"{_named(end, c_outputs)} of the candidate: the reference has no output like it" for end in candidate
    ]
    return Matched(
        tuple(_with_activation(r, c, r_outputs, c_outputs, notes) for r, c in pairs), tuple(unmatched), tuple(notes)
    )


def _mismatch(r: Array, c: Array) -> str:
    """Why two arrays cannot be compared; empty if they can."""
    for array, whose in ((r, "the reference"), (c, "the candidate")):
        if array.dtype.kind not in "fiub":
            return f"{whose} is not numeric ({array.dtype})"
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
        seen = ends[0].parts if len(ends[0].parts) == len(parts) else [ends[0].seen] * len(parts)
        for end, part, one in zip(several, parts, seen, strict=True):
            place = End(end.name, ends[0].output, axis, start, start + part[axis])
            cut.append(replace(place, activation=one.activation, is_known=one.is_known))
            start += part[axis]
        order = ", ".join(f"{printable(end.name)} {end.stop - end.start}" for end in cut)
        notes.append(
            f"{printable(ends[0].output)} records no heads; it is split as {order} (in this order), because "
            "the sizes agree"
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

    def fit(r: End, c: End) -> bool:
        return not _mismatch(r.of(r_outputs), c.of(c_outputs))

    if len(reference) == len(candidate) and all(map(fit, reference, candidate)):
        found = list(zip(reference, candidate, strict=True))
        how = "by their order"
    else:
        fits = [[fit(r, c) for c in candidate] for r in reference]
        found = []
        how = "by their shapes"
        for i, r in enumerate(reference):
            js = [j for j, is_like in enumerate(fits[i]) if is_like]
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
    """The pair, with the activation that only one of the two models has applied to the other's numbers."""
    ra, ca = r.of(r_outputs), c.of(c_outputs)
    kind = r.seen.activation or c.seen.activation or r.dropped or c.dropped
    if kind is None or ra.dtype.kind != "f" or ca.dtype.kind != "f":
        return Pair(r, c)
    ca = ca.reshape(ra.shape)
    has_r, has_c = _has(kind, r.seen, ra, c.seen, ca), _has(kind, c.seen, ca, r.seen, ra)
    if has_r == has_c:
        return Pair(r, c)
    placed = kind.along(ra if has_r else ca)
    lacking, having = ("candidate", "reference") if has_r else ("reference", "candidate")
    dropped = (c if has_r else r).dropped
    why = (
        f"{kind.op}, which 'onnxlint fix' dropped,"
        if dropped
        else f"the {having} ends in {kind.op} and the {lacking} does not: it"
    )
    notes.append(f"{printable(r.name)}: {why} is applied to the {lacking}'s")
    return Pair(r, c, on_candidate=placed) if has_r else Pair(r, c, on_reference=placed)


def _has(kind: Activation, mine: Seen, numbers: Array, other: Seen, others: Array) -> bool:
    """Whether numbers come out of an activation: the graph says so, or they look so.

    Looks count where the graph does not tell, and for a Softmax that is written in other operators (Exp, Sum, Div): rows
    that sum to one are no accident. The other model's numbers must not look so too, unless its graph has the activation.
    """
    if mine.activation is not None:
        return True
    if mine.is_known and (kind.op == "Sigmoid" or mine.is_dropped):
        return False
    return kind.could_produce(numbers) and (other.activation is not None or not kind.could_produce(others))
