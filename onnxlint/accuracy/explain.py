"""Accuracy loss layer by layer, and settings that reduce it: `compare --layers` and `--suggest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxlint.accuracy.alignment import align
from onnxlint.accuracy.inputs import Inputs
from onnxlint.accuracy.layers import LayerComparison, Side, scopes_of, tensors_of
from onnxlint.accuracy.match import Pair
from onnxlint.accuracy.results import LayerAccuracy, Suggestion
from onnxlint.accuracy.suggest import WORTH, suggestions
from onnxlint.accuracy.wiring import read_wiring
from onnxlint.backends import Progress, Session

TRIED = 5
"""Layers that suggestions are tried for."""


@dataclass(frozen=True)
class Explained:
    """Layers in the candidate's order, suggestions sorted by gain, and notes for the user."""

    layers: tuple[LayerAccuracy, ...]
    suggestions: tuple[Suggestion, ...]
    notes: tuple[str, ...]


def explain(
    *,
    reference: tuple[str, Session],
    candidate: tuple[str, Session],
    pairs: Sequence[Pair],
    inputs: Inputs,
    suggest: bool,
    progress: Progress,
) -> Explained:
    """Compare two models layer by layer.

    Args:
        reference, candidate: Path and session of each.
        pairs: Their outputs.
        inputs: A few: layers are compared on all of them, and replaced on the first.
        suggest: Whether to try out what would help.
        progress: Called with the current action, the number of steps done, and their total.

    Raises:
        OnnxlintError: One cannot be run.
    """
    work = LayerComparison(
        Side(*reference, read_wiring(reference[0])),
        Side(*candidate, read_wiring(candidate[0])),
        pairs,
        [feeds for _, feeds in inputs],
        inputs.threads,
        progress,
    )
    return _explained(work, suggest)


def _explained(work: LayerComparison, suggest: bool) -> Explained:
    work.progress(f"layers of {work.what}", 0, None)
    mine = tensors_of(work.reference, work.inputs[0])
    theirs = tensors_of(work.candidate, work.theirs[0])
    links = align(mine, theirs, scopes_of(work.reference.wiring), scopes_of(work.candidate.wiring))
    if not links:
        return Explained(
            (), (), ("no intermediate tensor resembles one of the reference's: layers cannot be compared",)
        )
    snr, links = work.compare(links)
    noise, notes = work.noise(links, snr)
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
            candidate=work.shown(link),
            type=link.candidate.op,
            snr_db=ratio,
            share=noise[i] / total if i in noise and total > 0 else 0.0 if i in noise else None,
            source=work.source(link),
        )
        for i, (link, ratio) in enumerate(zip(links, snr, strict=True))
    )
    tried: tuple[Suggestion, ...] = ()
    if suggest:
        costly = sorted((i for i in noise if noise[i] > 0), key=lambda i: -noise[i])[:TRIED]
        tried = suggestions(work, links, costly)
        if not tried:
            notes.append(f"no change that was tried gains {WORTH} dB")
    return Explained(layers, tried, tuple(notes))
