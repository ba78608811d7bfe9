"""Intermediate tensors of a candidate against the reference's, and the loss that each layer alone causes.

What a layer costs is measured by replacing it alone: it is given the reference's values as its inputs, and what it makes of
them takes the place of the reference's tensor, from which the reference computes on to its outputs. The noise that single
layers cause this way nearly adds up (that of a candidate's run, where each layer gets what those before it left, does not).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.alignment import Link, Tensor
from onnxlint.accuracy.inputs import Feeds, renamed_feeds
from onnxlint.accuracy.match import Pair, same_layout
from onnxlint.accuracy.metrics import ChannelScale, Ratio, mean_db
from onnxlint.accuracy.wiring import Wiring
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

RESCALED_DB = 6.0
"""How much better tensors have to agree when a scale for each channel is undone, for such scales to be believed."""

_COPIES = frozenset("Cast Constant DequantizeLinear Dropout Identity Noop QuantizeLinear Shape Split".split())


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    path: str
    session: Session
    wiring: Wiring


class LayerComparison:
    """Two models and their inputs."""

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
        self.theirs = [renamed_feeds(feeds, candidate.session, candidate.path) for feeds in inputs]

    def shown(self, link: Link) -> str:
        """The candidate's tensor or, if its name is only a number, the layer that computes it."""
        name = link.candidate.known_as
        maker = self.candidate.wiring.makers.get(name)
        return maker.name if maker is not None and name.isdigit() else name

    def source(self, link: Link) -> str:
        """The line of PyTorch or the module scope that a value comes from; empty if the reference has none."""
        maker = self.reference.wiring.makers.get(link.reference.known_as)
        return "" if maker is None else maker.source

    def compare(self, links: Sequence[Link]) -> tuple[list[float], list[Link]]:
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
            rescaled = None if scale is None else scale.snr_db
            if scale is not None and rescaled is not None and rescaled > meter.snr_db + RESCALED_DB:
                snr.append(rescaled)
                found.append(replace(link, scale=scale.factors))
            else:
                snr.append(meter.snr_db)
                found.append(link)
        return snr, found

    def noise(self, links: Sequence[Link], snr: Sequence[float]) -> tuple[dict[int, float], list[str]]:
        """Noise at the outputs (part of the signal) that each layer alone causes, on the first input."""
        if not self.reference.wiring.layers or not self.candidate.wiring.layers:
            return {}, ["the loss of single layers cannot be measured for this backend"]
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
                return noise, [f"{missing} of {len(order)} layers were not tried: the limit is {SECONDS:.0f} s"]
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
        """The matched outputs of one side, in the form in which they are compared.

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
    """Inner values of one run: kept in memory if they are few, else computed on demand."""

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


def _has_channels(shape: tuple[int, ...]) -> bool:
    """Whether these are images with so many pixels that a factor for each channel cannot hide errors."""
    return len(shape) == 4 and shape[2] * shape[3] >= 64


def _noise_share(r: Array, c: Array) -> float:
    ratio = Ratio()
    ratio.add(r, c)
    return float(10 ** (-ratio.snr_db / 10))


def scopes_of(wiring: Wiring) -> dict[str, str]:
    """Value → module scope and operator."""
    return {name: f"{layer.scope} {layer.type}" for name, layer in wiring.makers.items() if layer.scope}


def tensors_of(side: Side, feeds: Mapping[str, Array]) -> list[Tensor]:
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
