"""Find the roles of a model's outputs: boxes, scores, landmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.heads import Joined

Array = npt.NDArray[Any]

ROLES = ("boxes", "scores", "objectness", "landmarks", "labels")

_NAMES = {
    "landmarks": re.compile(r"landm|ldm|kps|keypoint|kpt"),
    "objectness": re.compile(r"obj|centerness|ctrness"),
    "boxes": re.compile(r"b?box|loc|reg"),
    "labels": re.compile(r"label|class_?id"),
    "scores": re.compile(r"cls|class|conf|score|logit|prob"),
}
_SLICE = re.compile(r"(.+?)\[(?:\s*\.\.\.\s*,|\s*:\s*,)*\s*(-?\d*)\s*:\s*(-?\d*)\s*\]")


@dataclass(frozen=True)
class Part:
    """An output, or a head of a joined one, of one image.

    Attributes:
        name: The output's or head's.
        rows: (P, width); one number for each candidate box is (P, 1).
        activation: An operator that was dropped from the model and is to be applied: `Softmax`.
    """

    name: str
    rows: Array
    activation: str = ""

    @property
    def width(self) -> int:
        """Numbers for each candidate."""
        return int(self.rows.shape[1])


def split_outputs(outputs: Mapping[str, Array], heads: Sequence[Joined] = (), *, columns: bool = False) -> list[Part]:
    """The outputs of one image, joined ones cut where the model's metadata says.

    Args:
        columns: Whether candidate boxes are along the last axis: (1, width, P).

    Raises:
        OnnxlintError: An output is not as the metadata has it, or is of more than one image.
    """
    recorded = {one.output: one for one in heads}
    if len(outputs) == 1 and len(heads) == 1:  # converters rename outputs: there is no doubt about which it is
        recorded = {next(iter(outputs)): heads[0]}
    parts = []
    for name, array in outputs.items():
        joined = recorded.get(name)
        if joined is None:
            parts.append(Part(name, _rows(name, array, columns)))
            continue
        if joined.axis >= array.ndim or array.shape[joined.axis] < joined.heads[-1].stop:
            raise OnnxlintError(
                f"output {printable(name)} is {_shape(array)}; the model's metadata has"
                f" {joined.heads[-1].stop} values along axis {joined.axis}: fix the original again"
            )
        for head in joined.heads:
            cut = array[(slice(None),) * joined.axis + (slice(head.start, head.stop),)]
            parts.append(Part(head.name, _rows(head.name, cut, columns), head.activation))
    return parts


def _rows(name: str, array: Array, columns: bool) -> Array:
    if array.ndim >= 3:
        if any(size != 1 for size in array.shape[:-2]):
            raise OnnxlintError(
                f"output {printable(name)} is {_shape(array)}: detections are read from (1, boxes, values);"
                " reshape it in the model"
            )
        array = array.reshape(array.shape[-2:])
    elif array.ndim == 2 and array.shape[0] == 1 and array.shape[1] != 4:
        array = array[0]
    if array.ndim < 2:
        return array.reshape(-1, 1)
    return array.T if columns else array


def find_part(parts: Sequence[Part], spec: str) -> Part | None:
    """The part that `name` or `name[4:8]` (columns 4 to 7) names."""
    for part in parts:
        if part.name == spec:
            return part
    match = _SLICE.fullmatch(spec)
    if match is None:
        return None
    name, start, stop = match.groups()
    for part in parts:
        if part.name == name:
            cut = part.rows[:, int(start) if start else None : int(stop) if stop else None]
            return Part(spec, cut, part.activation) if cut.shape[1] else None
    return None


def named_roles(parts: Sequence[Part], specs: Mapping[str, tuple[str, ...]]) -> dict[str, Part]:
    """Roles that the user gave names for; several outputs of one role (a level each) are put one under the other.

    Raises:
        OnnxlintError: There is no such output.
    """
    roles = {}
    for role, names in specs.items():
        found = []
        for spec in names:
            part = find_part(parts, spec)
            if part is None:
                raise OnnxlintError(f"[detection] {role}: no output {printable(spec)}; there are {describe(parts)}")
            found.append(part)
        if len({part.width for part in found}) > 1:
            raise OnnxlintError(f"[detection] {role}: the outputs differ in width: {describe(found)}")
        roles[role] = found[0] if len(found) == 1 else Part(role, np.concatenate([part.rows for part in found]))
    return roles


def guess_roles(parts: Sequence[Part], joined: Sequence[tuple[str, int]]) -> dict[str, Part]:
    """Roles from the outputs' names, else from their widths: 4 are boxes, 10 are five landmarks, the others scores.

    Args:
        joined: Parts of a single output, in order: (role, width); one width may be -1, the rest.

    Raises:
        OnnxlintError: They do not tell.
    """
    if len(parts) == 1:
        return _cut(parts[0], joined)
    roles: dict[str, Part] = {}
    rest = []
    for part in parts:
        role = next((role for role, pattern in _NAMES.items() if pattern.search(part.name.lower())), "")
        fits = {"boxes": part.width == 4, "landmarks": part.width % 2 == 0, "labels": part.width == 1}
        if role and fits.get(role, True) and role not in roles:
            roles[role] = part
        else:
            rest.append(part)
    for part in rest:
        role = {4: "boxes", 10: "landmarks"}.get(part.width, "scores")
        if role in roles:
            role = "scores" if role == "boxes" and "scores" not in roles else ""
        if not role or role in roles:
            raise unclear(parts)
        roles[role] = part
    if "boxes" not in roles or "scores" not in roles:
        raise unclear(parts)
    return roles


def _cut(part: Part, joined: Sequence[tuple[str, int]]) -> dict[str, Part]:
    fixed = sum(width for _, width in joined if width > 0)
    free = sum(width < 0 for _, width in joined)
    if not joined or part.width < fixed + free or (not free and part.width != fixed):
        raise unclear([part])
    roles, start = {}, 0
    for role, width in joined:
        stop = start + (width if width > 0 else part.width - fixed)
        roles[role] = Part(f"{part.name}[{start}:{stop}]", part.rows[:, start:stop], part.activation)
        start = stop
    return roles


def unclear(parts: Sequence[Part]) -> OnnxlintError:
    """The error for outputs whose roles cannot be found."""
    return OnnxlintError(
        f"--task detection: cannot tell which outputs are boxes and which are scores: {describe(parts)};"
        ' name them in onnxlint.toml: [detection] boxes = "…", scores = "…"'
    )


def describe(parts: Iterable[Part]) -> str:
    """`loc (16800×4), conf (16800×2)`."""
    return ", ".join(f"{printable(part.name)} ({part.rows.shape[0]}×{part.width})" for part in parts)


def _shape(array: Array) -> str:
    return "×".join(map(str, array.shape))
