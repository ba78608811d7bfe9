"""Where a candidate loses accuracy: its inner tensors against the reference's, and what each layer alone costs.

What a layer costs is measured by replacing it alone: it is given the reference's values as its inputs, and what it makes of
them takes the place of the reference's tensor, from which the reference computes on to its outputs. The noise that single
layers cause this way nearly adds up (that of a candidate's run, where each layer gets what those before it left, does not).

Tensors are matched by measured similarity, in order; equal names and module scopes speak for a match. Operators that one
of the two has fused have no partner, and count with the next layer that has one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.inputs import Feeds, Inputs, fed
from onnxlint.accuracy.match import Pair, same_layout
from onnxlint.accuracy.metrics import ChannelScale, Ratio, mean_db
from onnxlint.accuracy.results import LayerAccuracy, Suggestion
from onnxlint.accuracy.wiring import Wiring, read_wiring
from onnxlint.backends import Array, Progress, Session
from onnxlint.text import printable

MAX_TENSORS = 2000
"""Tensors of each model that are looked at; of more, every second, third, …"""

SAMPLE = 4096
"""Numbers of a tensor that its similarity with others is told by."""

AT_ONCE = 1 << 28
"""Bytes of tensors that are held at the same time."""

SECONDS = 60.0
"""How long single layers are tried out, the suspicious ones first."""

TRIED = 5
"""Layers that suggestions are tried for."""

RESCALED_DB = 6.0
"""How much better tensors have to agree when a scale for each channel is undone, for such scales to be believed."""

_COPIES = frozenset("Cast Constant DequantizeLinear Dropout Identity Noop QuantizeLinear Shape Split".split())

_ENOUGH = 0.5
"""Cosine from which on tensors may be the same one."""


@dataclass(frozen=True)
class Explained:
    """Layers in order of the candidate's computation, suggestions by their gain, and what the user should know."""

    layers: tuple[LayerAccuracy, ...]
    suggestions: tuple[Suggestion, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """What is known of a tensor after one run.

    Attributes:
        name: Of the value.
        known_as: The name that it has in a model that is not quantized.
        op: The operator that makes it.
        shape, dtype: Of the array.
        sample: Some of its numbers.
        bytes: Its size.
    """

    name: str
    known_as: str
    op: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sample: npt.NDArray[np.float32]
    bytes: int

    def like(self, value: Array) -> Array:
        """A value in this tensor's shape and type."""
        return np.asarray(value, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Link:
    """A tensor of the reference and the candidate's that stands for it.

    Attributes:
        reference, candidate: The two.
        scale: What the candidate's channels (axis 1) have to be multiplied by to be the reference's, in a model whose
            channels were rescaled before it was quantized; None where they are the same.
    """

    reference: Tensor
    candidate: Tensor
    scale: Array | None = None

    def to_reference(self, value: Array) -> Array:
        """A value of the candidate as the reference would have it."""
        value = self.reference.like(value)
        return value if self.scale is None else np.asarray(value * self._along(value), value.dtype)

    def to_candidate(self, value: Array) -> Array:
        """A value of the reference as the candidate would have it."""
        if self.scale is not None:
            value = self.reference.like(value)
            value = value / self._along(value)
        return self.candidate.like(value)

    def _along(self, value: Array) -> Array:
        assert self.scale is not None
        return self.scale.reshape(1, -1, *(1,) * (value.ndim - 2))


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    path: str
    session: Session
    wiring: Wiring


def explain(
    *,
    reference: tuple[str, Session],
    candidate: tuple[str, Session],
    pairs: Sequence[Pair],
    inputs: Inputs,
    suggest: bool,
    progress: Progress,
) -> Explained:
    """Compare the insides of two models.

    Args:
        reference, candidate: Path and session of each.
        pairs: Their outputs.
        inputs: A few: layers are compared on all of them, and replaced on the first.
        suggest: Whether to try out what would help.
        progress: Told how far it is.

    Raises:
        OnnxlintError: One cannot be run.
    """
    return LayerComparison(
        Side(*reference, read_wiring(reference[0])),
        Side(*candidate, read_wiring(candidate[0])),
        pairs,
        [feeds for _, feeds in inputs],
        inputs.threads,
        progress,
    ).explain(suggest)


class LayerComparison:
    """Two models, and what to run them on."""

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        pairs: Sequence[Pair],
        inputs: Sequence[Feeds],
        threads: int,
        progress: Progress,
    ) -> None:
        self.reference = reference
        self.candidate = candidate
        self.pairs = pairs
        self.inputs = inputs
        self.threads = threads
        self.progress = progress
        self.what = printable(candidate.path)
        self.theirs = [fed(feeds, candidate.session, candidate.path) for feeds in inputs]

    def explain(self, suggest: bool) -> Explained:
        self.progress(f"layers of {self.what}", 0, None)
        mine = _tensors(self.reference, self.inputs[0])
        theirs = _tensors(self.candidate, self.theirs[0])
        links = align(mine, theirs, _scopes(self.reference.wiring), _scopes(self.candidate.wiring))
        if not links:
            return Explained(
                (), (), ("no tensor inside it resembles one of the reference's: layers cannot be compared",)
            )
        snr, links = self._compare(links)
        noise, notes = self._noise(links, snr)
        rescaled = sum(link.scale is not None for link in links)
        if rescaled:
            notes.append(
                f"{rescaled} of {len(links)} layers compute with rescaled channels, as int8 by 'auto' does: "
                "the scales are undone before they are compared"
            )
        total = sum(noise.values())
        layers = tuple(
            LayerAccuracy(
                reference=link.reference.known_as,
                candidate=self._shown(link),
                type=link.candidate.op,
                snr_db=ratio,
                share=noise[i] / total if i in noise and total > 0 else 0.0 if i in noise else None,
                source=self._source(link),
            )
            for i, (link, ratio) in enumerate(zip(links, snr, strict=True))
        )
        suggestions: tuple[Suggestion, ...] = ()
        if suggest:
            from onnxlint.accuracy.suggest import WORTH
            from onnxlint.accuracy.suggest import suggestions as tried

            costly = sorted((i for i in noise if noise[i] > 0), key=lambda i: -noise[i])[:TRIED]
            suggestions = tried(self, links, costly)
            if not suggestions:
                notes.append(f"nothing that was tried gains {WORTH} dB")
        return Explained(layers, suggestions, tuple(notes))

    def _shown(self, link: Link) -> str:
        """The candidate's tensor, or, where that is a mere number, the layer that makes it."""
        name = link.candidate.known_as
        maker = self.candidate.wiring.makers.get(name)
        return maker.name if maker is not None and name.isdigit() else name

    def _source(self, link: Link) -> str:
        maker = self.reference.wiring.makers.get(link.reference.known_as)
        return "" if maker is None else maker.source

    def _compare(self, links: Sequence[Link]) -> tuple[list[float], list[Link]]:
        """SNR of each tensor in the candidate's own run, over all inputs; and the links, with their scales."""
        meters = [Ratio() for _ in links]
        scales = [ChannelScale() if _has_channels(link.reference.shape) else None for link in links]
        for chunk in _chunks(range(len(links)), [link.reference.bytes + link.candidate.bytes for link in links]):
            for feeds, given in zip(self.inputs, self.theirs, strict=True):
                r = self.reference.session.run(feeds, [links[i].reference.name for i in chunk])
                c = self.candidate.session.run(given, [links[i].candidate.name for i in chunk])
                for i, a, b in zip(chunk, r, c, strict=True):
                    if same_layout(a.shape, b.shape):
                        meters[i].add(a, b)
                        scale = scales[i]
                        if scale is not None:
                            scale.add(a, b.reshape(a.shape))
            self.progress(f"layers of {self.what}", chunk[-1] + 1, len(links))
        snr, found = [], []
        for link, meter, scale in zip(links, meters, scales, strict=True):
            fitted = None if scale is None else scale.snr_db
            if scale is not None and fitted is not None and fitted > meter.snr_db + RESCALED_DB:
                snr.append(fitted)
                found.append(replace(link, scale=scale.factors))
            else:
                snr.append(meter.snr_db)
                found.append(link)
        return snr, found

    def _noise(self, links: Sequence[Link], snr: Sequence[float]) -> tuple[dict[int, float], list[str]]:
        """Noise at the outputs (part of the signal) that each layer alone causes, on the first input."""
        if not self.reference.wiring.layers or not self.candidate.wiring.layers:
            return {}, ["what single layers cost cannot be measured for files of this backend"]
        feeds, given = self.inputs[0], self.theirs[0]
        # Inner values are asked for along with the outputs, so that backends compute these as they do from given ones.
        truth = self.outputs(self.reference, feeds, [links[0].reference.name])
        values = Values(self.reference.session, feeds, [link.reference for link in links])
        by_candidate = {link.candidate.name: link for link in links}
        noise: dict[int, float] = {}
        started = time.monotonic()
        order = sorted(range(len(links)), key=lambda i: snr[i] - min((*snr[:i], 200.0)))
        for done, i in enumerate(order):
            if time.monotonic() - started > SECONDS:
                missing = len(order) - done
                return noise, [
                    f"{missing} of {len(order)} layers were not tried out: after {SECONDS:.0f} s it is enough"
                ]
            link = links[i]
            _, border = self.candidate.wiring.segment(link.candidate.name, by_candidate.keys() - {link.candidate.name})
            exact = values.get([by_candidate[name].reference.name for name in border])
            fixed = {name: by_candidate[name].to_candidate(exact[by_candidate[name].reference.name]) for name in border}
            (value,) = self.candidate.session.run({**given, **fixed}, [link.candidate.name])
            right = values.get([link.reference.name])[link.reference.name]
            changed = link.to_reference(value)
            if np.array_equal(changed, right):
                noise[i] = 0.0
            else:
                noisy = self.outputs(self.reference, {**feeds, link.reference.name: changed})
                noise[i] = float(np.mean([_noise_share(a, b) for a, b in zip(truth, noisy, strict=True)]))
            self.progress(f"single layers of {self.what}", done + 1, len(order))
        return {i: value for i, value in noise.items() if np.isfinite(value)}, []

    def outputs(self, side: Side, feeds: Mapping[str, Array], beside: Sequence[str] = ()) -> list[Array]:
        """What the matched outputs of one side are, in the form in which they are compared.

        Args:
            side: The model.
            feeds: Its inputs, and inner values that replace what would be computed.
            beside: Inner values to ask for too.
        """
        names = [*(port.name for port in side.session.outputs), *beside]
        arrays = dict(zip(names, side.session.run(feeds, names), strict=True))
        found = []
        for pair in self.pairs:
            end, activation = (
                (pair.reference, pair.on_reference) if side is self.reference else (pair.candidate, pair.on_candidate)
            )
            array = end.of(arrays)
            found.append(array if activation is None else activation.apply(array))
        return found

    def score(self, feeds_of: Sequence[tuple[Session, Mapping[str, Array]]] | None = None) -> float:
        """Mean SNR of the outputs of candidates (the one at hand by default) over the inputs."""
        meters = [Ratio() for _ in self.pairs]
        runs = feeds_of or [(self.candidate.session, given) for given in self.theirs]
        for feeds, (session, given) in zip(self.inputs, runs, strict=True):
            truth = dict(
                zip((p.name for p in self.reference.session.outputs), self.reference.session.run(feeds), strict=True)
            )
            got = dict(zip((p.name for p in session.outputs), session.run(given), strict=True))
            for meter, pair in zip(meters, self.pairs, strict=True):
                meter.add(*pair.arrays(truth, got))
        return mean_db(meter.snr_db for meter in meters)


class Values:
    """Inner values of one run, held as long as they are few enough, else computed when they are asked for."""

    def __init__(self, session: Session, feeds: Mapping[str, Array], tensors: Sequence[Tensor]) -> None:
        self._session = session
        self._feeds = feeds
        self._held: dict[str, Array] = {}
        if sum(tensor.bytes for tensor in tensors) <= AT_ONCE:
            names = list(dict.fromkeys(tensor.name for tensor in tensors))
            self._held = dict(zip(names, session.run(feeds, names), strict=True))

    def get(self, names: Sequence[str]) -> dict[str, Array]:
        """The named values."""
        if all(name in self._held for name in names):
            return {name: self._held[name] for name in names}
        return dict(zip(names, self._session.run(self._feeds, names), strict=True))


# Matching


def align(
    reference: Sequence[Tensor],
    candidate: Sequence[Tensor],
    r_scopes: Mapping[str, str],
    c_scopes: Mapping[str, str],
) -> list[Link]:
    """Pairs of tensors that stand for each other, in the candidate's order.

    The best sequence of matches that keeps the order of both, then, for branches that the two compute in different
    order, what is left and alike.
    """
    weight = _weights(reference, candidate, r_scopes, c_scopes)
    n, m = weight.shape
    best = np.zeros((n + 1, m + 1), np.float32)
    for i in range(n):
        # The best of leaving out the reference's tensor, or matching it with each of the candidate's, or leaving out
        # that one: the last is a running maximum.
        taken = np.where(weight[i] > 0, best[i, :-1] + weight[i], 0)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    found: dict[int, int] = {}
    i, j = n, m
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found[j] = i
    left = weight.copy()
    left[list(found.values()), :] = 0
    left[:, list(found)] = 0
    while left.size and left.max() >= 1:  # cosine 0.9
        i, j = divmod(int(left.argmax()), m)
        found[j] = i
        left[i, :] = 0
        left[:, j] = 0
    return [Link(reference[found[j]], candidate[j]) for j in sorted(found)]


def _weights(
    reference: Sequence[Tensor], candidate: Sequence[Tensor], r_scopes: Mapping[str, str], c_scopes: Mapping[str, str]
) -> npt.NDArray[np.float32]:
    """How much speaks for each pair: the number of nines in their cosine, and more for names and scopes; 0: impossible."""
    weight = np.zeros((len(reference), len(candidate)), np.float32)
    sizes = sorted({tensor.sample.size for tensor in reference} & {tensor.sample.size for tensor in candidate})
    for size in sizes:
        rows = [i for i, tensor in enumerate(reference) if tensor.sample.size == size]
        columns = [j for j, tensor in enumerate(candidate) if tensor.sample.size == size]
        similar = _unit([reference[i] for i in rows]) @ _unit([candidate[j] for j in columns]).T
        places = {reference[i].known_as: a for a, i in enumerate(rows)}
        named = [(places[candidate[j].known_as], b) for b, j in enumerate(columns) if candidate[j].known_as in places]
        for a, b in {*map(tuple, np.argwhere(similar >= _ENOUGH).tolist()), *named}:
            r, c = reference[rows[a]], candidate[columns[b]]
            cosine = float(similar[a, b])
            is_named = r.known_as == c.known_as and not r.known_as.isdigit()  # ncnn's numbers are not the exporter's
            if (cosine < _ENOUGH and not is_named) or not same_layout(r.shape, c.shape):
                continue
            scope = r_scopes.get(r.known_as, "")
            is_scoped = bool(scope) and scope == c_scopes.get(c.known_as, "")
            nines = -np.log10(max(1 - max(cosine, 0.0), 1e-6))
            weight[rows[a], columns[b]] = max(nines, 0.01) + 2.0 * is_named + 0.5 * is_scoped
    return weight


def _unit(tensors: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    rows = np.stack([tensor.sample for tensor in tensors])
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20), np.float32)


def _has_channels(shape: tuple[int, ...]) -> bool:
    """Whether these are images with so many pixels that a factor for each channel cannot hide errors."""
    return len(shape) == 4 and shape[2] * shape[3] >= 64


def _noise_share(r: Array, c: Array) -> float:
    ratio = Ratio()
    ratio.add(r, c)
    return float(10 ** (-ratio.snr_db / 10))


def _scopes(wiring: Wiring) -> dict[str, str]:
    """Value → module scope and operator."""
    return {name: f"{layer.scope} {layer.type}" for name, layer in wiring.makers.items() if layer.scope}


def _tensors(side: Side, feeds: Mapping[str, Array]) -> list[Tensor]:
    """All tensors of a model that hold more than one number, with a sample of each."""
    wanted = list(_wanted(side))
    wanted = wanted[:: max(1, -(-len(wanted) // MAX_TENSORS))]
    found: list[Tensor] = []
    count, at = 8, 0
    while at < len(wanted):
        part = wanted[at : at + count]
        arrays = side.session.run(feeds, [name for name, _, _ in part])
        held = sum(array.nbytes for array in arrays)
        for (name, known_as, op), array in zip(part, arrays, strict=True):
            if array.size > 1 and array.dtype.kind == "f":
                found.append(Tensor(name, known_as, op, array.shape, array.dtype, _sample(array), array.nbytes))
        at += len(part)
        count = max(1, min(4 * count, int(count * AT_ONCE / (4 * max(1, held)))))
    return found


def _wanted(side: Side) -> Iterator[tuple[str, str, str]]:
    """(value, the name it is known by, operator) of the tensors that layers make.

    A value that is rounded to 8 bits and back right away (QuantizeLinear, DequantizeLinear) counts as what comes back:
    onnxruntime leaves a Relu before it to the rounding, which cuts off what is negative.
    """
    makers = side.wiring.makers
    readers: dict[str, list[str]] = {}
    back: dict[str, list[str]] = {}
    for layer in side.wiring.layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer.type)
        before = makers.get(layer.inputs[0]) if layer.inputs else None
        if layer.type == "DequantizeLinear" and before is not None and before.type == "QuantizeLinear":
            back.setdefault(before.inputs[0], []).append(layer.outputs[0])
    rounded = {
        names[0]: value
        for value, names in back.items()
        if len(names) == 1 and set(readers[value]) == {"QuantizeLinear"}
    }
    for name, op in side.session.tensors():
        if name in rounded:
            maker = makers.get(rounded[name])
            if maker is not None:
                yield name, rounded[name], maker.type
        elif op not in _COPIES and name not in rounded.values():
            yield name, name, op


def _sample(array: Array) -> npt.NDArray[np.float32]:
    flat = array.reshape(-1)
    if flat.size > SAMPLE:
        flat = flat[np.linspace(0, flat.size - 1, SAMPLE).astype(np.int64)]
    return np.nan_to_num(np.asarray(flat, np.float32))


def _chunks(items: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Items in turn, as many at once as fit into `AT_ONCE`."""
    chunk: list[int] = []
    held = 0
    for i in items:
        if chunk and held + sizes[i] > AT_ONCE:
            yield chunk
            chunk, held = [], 0
        chunk.append(i)
        held += sizes[i]
    if chunk:
        yield chunk
