"""What models are fed: the calibration images, or values that their contract allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Job, Port
from onnxlint.backends.outputs import FEWEST, evenly
from onnxlint.errors import OnnxlintError, OutOfMemory
from onnxlint.images.recipe import ImageSet, Unreadable, tensors
from onnxlint.images.sizes import broken_condition
from onnxlint.model.assumptions import assumptions
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView

SEED = 20260
SETS = 4
"""Sets of made-up inputs."""

Feeds = dict[str, Array]


def declared_ports(view: GraphView) -> tuple[Port, ...]:
    """The inputs of a model, as its file declares them."""
    from onnx import TensorProto

    floats = {
        int(TensorProto.FLOAT): "float32",
        int(TensorProto.FLOAT16): "float16",
        int(TensorProto.DOUBLE): "float64",
    }
    ports = []
    for name in view.main.data_inputs:
        shape = tuple(size if isinstance(size, int) else None for size in view.main.shape(name) or ())
        ports.append(Port(name, shape, floats.get(view.main.dtype(name), "other")))
    return tuple(ports)


def image_port(path: str, ports: tuple[Port, ...]) -> Port:
    """The one input of a model, where it is an image.

    Raises:
        OnnxlintError: Images cannot be fed to it.
    """
    shown = printable(path)
    way_out = "for such models there are onnx-int8-dynamic and onnx-fp16, which need no images"
    if len(ports) != 1:
        names = ", ".join(printable(port.name) for port in ports[:4])
        raise OnnxlintError(f"{shown}: has {len(ports)} inputs ({names}); images can only be fed to one; {way_out}")
    port = ports[0]
    if not port.dtype.startswith("float") or len(port.shape) not in (0, 4):
        raise OnnxlintError(
            f"{shown}: its input {printable(port.name)!r} ({port.dtype} {list(port.shape)}) takes no images, "
            f"which are float N×C×H×W; {way_out}"
        )
    return port


def from_images(
    path: str,
    ports: tuple[Port, ...],
    job: Job,
    some: ImageSet | None = None,
    unreadable: list[Unreadable] | None = None,
) -> Iterator[Feeds]:
    """One set of inputs an image, streamed; `some` stands in for all images of the job.

    Raises:
        OnnxlintError: Images cannot be fed to the model, or none can be read, or one has the wrong shape or is not finite.
    """
    images = some or job.images
    assert images is not None
    port = image_port(path, ports)
    recipe = job.recipe
    if recipe.size is None:
        whole = port.shape if None not in port.shape[2:] else job.shape.get(port.name, job.shape.get("", ()))
        if len(whole) >= 3 and whole[-1] and whole[-2]:
            recipe = replace(recipe, size=(whole[-1], whole[-2]))
    conditions = [one for one in assumptions(open_model(path).proto) if one.input == port.name]
    constant = True
    count = 0
    for name, image in tensors(images, recipe, threads=job.threads, unreadable=unreadable):
        array = image[None]
        if any(size not in (None, got) for size, got in zip(port.shape[1:], array.shape[1:], strict=False)):
            raise OnnxlintError(
                f"{printable(path)}: its input {printable(port.name)!r} is {_written(port.shape)}, and the recipe makes "
                f"{_written(array.shape)} of {printable(name)!r}; check --shape and --pixel"
            )
        broken = broken_condition(conditions, array.shape)
        if broken:
            raise OnnxlintError(f"{printable(path)}: {printable(name)} is {_written(array.shape)}: {broken}")
        if not np.isfinite(array).all():
            raise OnnxlintError(f"{printable(name)}: the recipe turns it into NaN or infinity; check --mean and --norm")
        constant = constant and float(np.ptp(array)) == 0
        count += 1
        batch = port.shape[0] if port.shape else None
        yield {port.name: np.repeat(array, batch, axis=0) if batch not in (None, 1) else array}
    if count and constant:
        raise OnnxlintError(
            f"{printable(images.source)}: every image is of one colour; calibrate on images such as the model will see"
        )


def spread(images: ImageSet, count: int) -> ImageSet:
    """At most so many of the images, evenly from all."""
    return _some(images, evenly(range(len(images)), count))


@dataclass(frozen=True)
class Parts:
    """Images by what they are for: to be held in memory, to judge what is fitted to others, and the rest."""

    held: ImageSet
    unfitted: ImageSet
    rest: ImageSet


def parted(images: ImageSet, held: int, judges: int) -> Parts:
    """Images in parts, each evenly from all: at most `judges` (a third of all, at most), of the others at most `held`, and
    the rest. Of fewer than `FEWEST` all are held, and none judge."""
    if judges and len(images) < FEWEST:
        held, judges = len(images), 0
    judging = evenly(range(len(images)), min(judges, len(images) // 3))
    others = [i for i in range(len(images)) if i not in set(judging)]
    holding = evenly(others, held)
    rest = [i for i in others if i not in set(holding)]
    return Parts(_some(images, holding), _some(images, judging), _some(images, rest))


def _some(images: ImageSet, at: Sequence[int]) -> ImageSet:
    if images.arrays is not None:
        return ImageSet(images.source, arrays=images.arrays[list(at)])
    return ImageSet(images.source, tuple(images.paths[i] for i in at))


def made_up(path: str, shape: Mapping[str, tuple[int, ...]], try_out: Any) -> list[Feeds]:
    """Sets of inputs by the model's contract, seeded; the first shapes and values that `try_out(feeds)` does not refuse.

    Raises:
        OnnxlintError: It runs on none that were tried, or takes more memory than it may.
    """
    from onnxlint.verification.contract import own_contract
    from onnxlint.verification.sizes import candidates, feeds_for

    view = make_view(open_model(path))
    contract = own_contract(view, _multiples(view))
    fixed = _fixed(contract, shape)
    refused = ""
    for way in range(4):
        for rank in contract.ranks:
            for sizes in islice(candidates(contract, rank), 12):
                wanted = {**sizes, **fixed}
                try:
                    sets = [feeds_for(contract, wanted, "normal", way, rank, SEED + i) for i in range(SETS)]
                    try_out(sets[0])
                except OutOfMemory:
                    raise
                except OnnxlintError as error:
                    refused = refused or str(error)
                else:
                    return sets
    raise OnnxlintError(refused or f"{printable(path)}: no test inputs can be generated for it")


def _multiples(view: GraphView) -> dict[str, int]:
    """Symbol → number that its size is a multiple of, as the model's metadata says."""
    found: dict[str, int] = {}
    for one in assumptions(view.proto):
        dims = view.main.shape(one.input) or ()
        dim = dims[one.axis] if one.axis < len(dims) else None
        if not isinstance(dim, int):
            symbol = dim or f"{one.input}[{one.axis}]"
            found[symbol] = math.lcm(found.get(symbol, 1), one.multiple)
    return found


def _fixed(contract: Any, shape: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Symbol → size from the shapes that the user gave; a shape for `""` lacks the batch axis."""
    found: dict[str, int] = {}
    for one in contract.inputs:
        dims = one.dims or ()
        whole = shape.get(one.name)
        if whole is None and len(dims) == 4 and "" in shape:
            whole = (1, *shape[""])[-4:]
        found.update((dim, size) for dim, size in zip(dims, whole or (), strict=False) if isinstance(dim, str))
    return found


def _written(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)
