"""Changes that may reduce a candidate's loss, each tried: layers of an 8- or 16-bit model kept in more bits.

For an ncnn model whose float net and table are beside it, the model is made again with the layer kept, and run. For any
other, the layer's part of the reference computes on the candidate's values, in the candidate's own run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlint.accuracy.results import Suggestion
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.accuracy.alignment import Link
    from onnxlint.accuracy.layers import LayerComparison
    from onnxlint.backends.ncnn.format import Network
    from onnxlint.backends.ncnn.table import Table

WORTH = 0.1
"""Decibels that a suggestion has to gain."""


def suggestions(work: LayerComparison, links: Sequence[Link], costly: Sequence[int]) -> tuple[Suggestion, ...]:
    """Settings that reduce the loss, the best first.

    Args:
        work: The comparison.
        links: All tensors that stand for each other.
        costly: Those of them that cost most, the worst first.

    Raises:
        OnnxlintError: A model cannot be run.
    """
    before = work.score()
    source = _source_of(work.candidate.path) if work.candidate.path.lower().endswith(".param") else None
    found: list[Suggestion] = []
    for done, i in enumerate(costly):
        work.progress(f"trying out changes of {work.what}", done, len(costly))
        link = links[i]
        names = {one.candidate.name for one in links} - {link.candidate.name}
        kept = [one for one in work.candidate.wiring.segment(link.candidate.name, names)[0] if one.is_int8]
        if source is not None and kept:
            found.append(_rebuilt(work, source, [one.name for one in kept], before))
        elif kept or str(link.candidate.dtype) == "float16":
            found.append(_swapped(work, links, link, before, 3 if kept else 2))
    found = sorted((one for one in found if one.gain_db >= WORTH), key=lambda one: -one.gain_db)
    if source is not None and len(found) > 1:
        found = [*_together(work, source, found, before), *found]
    return tuple(found)


# ncnn: made again


@dataclass(frozen=True)
class _Source:
    """The float net and the table that an int8 net was made from."""

    net: Network
    table: Table
    size: int
    kept: frozenset[str]


def _source_of(path: str) -> _Source | None:
    """Found beside an int8 net: the same net with float weights, and a table that gives its very bytes."""
    from onnxlint.backends.ncnn.format import dump_bin, load
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.table import load_table

    int8 = load(path)
    weights = dump_bin(int8)
    names = [layer.name for layer in int8.layers]
    kept = frozenset(layer.name for layer in int8.layers if layer.blob("weight") and not layer.integer(8))
    folder = Path(path).parent
    tables = sorted(folder.glob("*.table"))
    nets = sorted(one for place in (folder, folder.parent) for one in place.glob("*.param") if str(one) != path)
    for param in nets[:20]:
        try:
            net = load(param)
        except OnnxlintError:
            continue  # some other file
        if [layer.name for layer in net.layers] != names or any(
            layer.integer(8) for layer in net.layers if layer.blobs
        ):
            continue
        for file in tables[:20]:
            try:
                made = quantize(net, load_table(file), keep=kept & {layer.name for layer in net.layers})
            except OnnxlintError:
                continue  # of some other net
            if dump_bin(made.net) == weights:
                return _Source(net, load_table(file), len(weights), kept)
    return None


def _together(
    work: LayerComparison, source: _Source, found: Sequence[Suggestion], before: float
) -> Iterator[Suggestion]:
    """All of them that still gain something on top of those before: gains do not add up."""
    best = found[0]
    for one in found[1:]:
        names = f"{best.option},{one.option.removeprefix('--keep ')}".removeprefix("--keep ").split(",")
        tried = _rebuilt(work, source, list(dict.fromkeys(names)), before)
        if tried.gain_db >= best.gain_db + WORTH:
            best = tried
    if best is not found[0]:
        yield best


def _rebuilt(work: LayerComparison, source: _Source, names: Sequence[str], before: float) -> Suggestion:
    from onnxlint.backends.ncnn.format import dump_bin
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.run import NcnnSession

    net = quantize(source.net, source.table, keep=source.kept | set(names)).net
    session = NcnnSession(net, work.threads)
    after = work.score([(session, given) for given in work.theirs])
    shown = " and ".join(map(printable, names))
    return Suggestion(
        f"keep {shown} in fp16", f"--keep {','.join(names)}", after - before, len(dump_bin(net)) - source.size
    )


# Any other: computed by the reference


def _swapped(work: LayerComparison, links: Sequence[Link], link: Link, before: float, more: int) -> Suggestion:
    """The gain if the reference's layer computed on the candidate's values; each weight takes `more` bytes more then."""
    by_reference = {one.reference.name: one for one in links}
    layers, border = work.reference.wiring.segment(link.reference.name, by_reference.keys() - {link.reference.name})
    runs = []
    for feeds, given in zip(work.inputs, work.theirs, strict=True):
        names = [by_reference[name].candidate.name for name in border]
        values = work.candidate.session.run(given, names) if names else []
        fixed = {name: by_reference[name].to_reference(value) for name, value in zip(border, values, strict=True)}
        (exact,) = work.reference.session.run({**feeds, **fixed}, [link.reference.name])
        changed = {link.candidate.name: link.to_candidate(exact)}
        runs.append((work.candidate.session, {**given, **changed}))
    gain = work.score(runs) - before
    weighted = [layer for layer in layers if layer.weights] or layers[:1]
    names = [layer.name for layer in weighted]
    bytes_more = more * sum(layer.weights for layer in weighted)
    return Suggestion(
        f"keep {' and '.join(map(printable, names))} in fp32", f"--keep {','.join(names)}", gain, bytes_more
    )
