"""What stands in the way of a conversion, as far as it can be said before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxlint.backends import Backend, Job, Target, find_target
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe
from onnxlint.images.sizes import require_values
from onnxlint.text import listed, printable


@dataclass(frozen=True)
class Obstacle:
    """Why a target cannot be made, in one line."""

    target: str
    message: str


def obstacles(wanted: Sequence[tuple[Backend, Target]], source: str, job: Job) -> tuple[Obstacle, ...]:
    """What stands in the way of each target: a missing package, shape or option. Takes well under a second.

    Args:
        wanted: The targets.
        source: The ONNX model.
        job: How they are to be made.
    """
    found = []
    for backend, target in wanted:
        message = missing_packages(backend, target, job)
        try:
            if not message:
                _preflight(backend, target, source, job)
        except OnnxlintError as error:
            message = str(error)
        if message:
            found.append(Obstacle(target.name, message))
    return tuple(found)


def require_targets(wanted: Sequence[tuple[Backend, Target]], source: str, job: Job) -> None:
    """Raise if a target cannot be made from any model.

    Raises:
        OnnxlintError: What stands in the way of the first such target, and which others it holds for.
    """
    found = obstacles(wanted, source, job)
    if not found:
        return
    same = [one.target for one in found if one.message == found[0].message]
    others = f" (so {listed(same)} cannot be made)" if len(same) > 1 or same[0] not in found[0].message else ""
    raise OnnxlintError(f"{found[0].message}{others}")


def require_images(
    wanted: Sequence[tuple[Backend, Target]], source: str, images: ImageSet | None, recipe: Recipe
) -> None:
    """Raise if calibration images or the preprocessing of pixels are missing.

    Raises:
        OnnxlintError: The question, with a line that answers it.
    """
    calibrated = [target.name for _, target in wanted if target.calibrates]
    if not calibrated:
        return
    if images is None:
        raise OnnxlintError(f"{calibrated[0]} is calibrated with images: give --images a folder, a list or an .npz")
    if images.arrays is None or images.arrays.dtype == "uint8":
        names = " ".join(target.name for _, target in wanted)
        line = f"onnxlint convert {printable(source)} --to {names} --images {printable(images.source)}"
        require_values(printable(source), recipe, line)


def missing_packages(backend: Backend, target: Target, job: Job) -> str:
    """What is not installed, with the way to get it, in one line; empty: nothing."""
    # A backend of somebody else may have been written before there was this method.
    available = getattr(backend, "available", None)
    return str(available(target, job)) if available is not None else ""


def _preflight(backend: Backend, target: Target, source: str, job: Job) -> None:
    if target.needs:
        other, needed = find_target(target.needs)
        message = missing_packages(other, needed, job)
        if message:
            raise OnnxlintError(message)
        _preflight(other, needed, source, job)
    preflight = getattr(backend, "preflight", None)
    if preflight is not None:
        preflight(target, source, job)
