"""Reports of a conversion: text and JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from onnxlint.report._common import disarmed, dumps
from onnxlint.text import printable, size

if TYPE_CHECKING:
    from onnxlint.backends import Artifact
    from onnxlint.conversion.session import Conversion


def render_conversion(done: Conversion) -> str:
    """A conversion as text: the files of each target, the types of its layers, notes, the manifest."""
    return disarmed("".join(f"{line}\n" for line in _lines(done)))


def _lines(done: Conversion) -> Iterator[str]:
    width = max((len(artifact.target) for artifact in done.artifacts), default=0)
    for artifact in done.artifacts:
        files = ", ".join(f"{_shown(file)} ({size(os.path.getsize(file))})" for file in artifact.files)
        yield f"{artifact.target:<{width}}  {files}"
        summary = _decided(artifact)
        if summary:
            yield f"{'':<{width}}  {summary}"
        yield from (f"{'':<{width}}  {printable(note)}" for note in artifact.notes)
    yield from (f"note: {note}" for note in map(printable, done.notes))
    if done.manifest:
        yield f"manifest: {_shown(done.manifest)}"


def _shown(path: str) -> str:
    return printable(path.removeprefix(f".{os.sep}"))


def _decided(artifact: Artifact) -> str:
    """`layers: 24 int8, 2 fp16`."""
    states = Counter(decision.state for decision in artifact.decisions)
    shown = [f"{number:,} {printable(state)}" for state, number in states.most_common()]
    return f"layers: {', '.join(shown)}" if shown else ""


def render_json(done: Conversion) -> str:
    """A conversion as one JSON document."""
    return dumps(asdict(done))


def render_targets() -> str:
    """All targets, a line each."""
    from onnxlint.backends import targets

    rows = [
        (target.name, f"{target.about} (also: {', '.join(target.aliases)})" if target.aliases else target.about)
        for _, target in targets()
    ]
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"{name:<{width}}  {about}\n" for name, about in rows)
