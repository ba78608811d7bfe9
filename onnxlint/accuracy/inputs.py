"""Inputs of a comparison: images through the recipe, arrays as they are, or seeded random numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxlint.backends import Array, Port, Session
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe, Unreadable, find_images, tensors
from onnxlint.images.sizes import require_values
from onnxlint.model.arrays import read_inputs
from onnxlint.text import printable
from onnxlint.text import shape as show

Feeds = dict[str, Array]

SEED = 20260
RANDOM_SETS = 4


@dataclass
class Inputs:
    """Sets of inputs, streamed; can be gone through several times.

    Attributes:
        source: Where they come from, in words.
        port: The input that receives images; None if complete inputs are given.
        images: The images.
        recipe: How these become the input.
        sets: Complete sets of inputs, used without images.
        threads: Images are decoded in.
        unreadable: Images that could not be used, known once all were gone through.
    """

    source: str
    recipe: Recipe
    port: Port | None = None
    images: ImageSet | None = None
    sets: tuple[tuple[str, Feeds], ...] = ()
    threads: int = 2
    unreadable: list[Unreadable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sets) if self.images is None else len(self.images)

    def __iter__(self) -> Iterator[tuple[str, Feeds]]:
        if self.images is None or self.port is None:
            yield from self.sets
            return
        self.unreadable = []
        for name, image in tensors(self.images, self.recipe, threads=self.threads, unreadable=self.unreadable):
            yield name, {self.port.name: self._checked(name, image[None])}

    def few(self, count: int) -> Inputs:
        """At most so many of them, evenly from all."""
        at = sorted({i * len(self) // count for i in range(count)}) if len(self) > count else list(range(len(self)))
        few = Inputs(self.source, self.recipe, self.port, threads=self.threads)
        if self.images is None:
            few.sets = tuple(self.sets[i] for i in at)
        elif self.images.arrays is not None:
            few.images = ImageSet(self.source, arrays=self.images.arrays[at])
        else:
            few.images = ImageSet(self.source, tuple(self.images.paths[i] for i in at))
        return few

    def _checked(self, name: str, array: Array) -> Array:
        assert self.port is not None
        for axis, (size, got) in enumerate(zip(self.port.shape, array.shape, strict=False)):
            if size is not None and size != got and axis > 0:
                wanted = "×".join("?" if one is None else str(one) for one in self.port.shape)
                raise OnnxlintError(
                    f"{printable(name)}: the recipe makes {show(array.shape)} of it, and input "
                    f"{printable(self.port.name)!r} of the reference is {wanted}; check --shape and --pixel"
                )
        batch = self.port.shape[0] if self.port.shape else None
        return np.repeat(array, batch, axis=0) if batch is not None and batch > 1 else array


def make_inputs(
    reference: str,
    session: Session,
    images: str | os.PathLike[str] | ImageSet | None,
    recipe: Recipe,
    shapes: Mapping[str, tuple[int, ...]],
    threads: int = 2,
) -> Inputs:
    """The inputs that a reference and all candidates are run on.

    Args:
        reference: Its path.
        session: The reference, loaded.
        images: Source of the images, or an .npz/.npy file with complete inputs; None: random numbers.
        recipe: How images become the input.
        shapes: Input → whole shape, for random numbers.
        threads: Images are decoded in.

    Raises:
        OnnxlintError: The model does not take them.
    """
    ports = session.inputs
    if images is None:
        sets = _made_up(reference, session, recipe, shapes)
        named = tuple((f"random inputs {i}", feeds) for i, feeds in enumerate(sets, 1))
        return Inputs("random numbers", recipe, sets=named, threads=threads)
    takes_images = len(ports) == 1 and len(ports[0].shape) in (0, 4) and ports[0].dtype.startswith("float")
    if isinstance(images, ImageSet) or takes_images:
        if not takes_images:
            raise OnnxlintError(
                f"{printable(reference)}: its inputs are not one image ({_inputs_text(ports)}); give --images an .npz file "
                "with an array for each"
            )
        found = images if isinstance(images, ImageSet) else find_images(images)
        if found.arrays is None or found.arrays.dtype == np.uint8:
            line = f"onnxlint compare {printable(reference)} … --images {printable(found.source)}"
            require_values(printable(reference), recipe, line)
        return Inputs(found.source, recipe, ports[0], found, threads=threads)
    path = os.fspath(images)
    if not path.lower().endswith((".npz", ".npy")) or not os.path.isfile(path):
        raise OnnxlintError(
            f"{printable(reference)}: its inputs are not one image ({_inputs_text(ports)}); give --images an .npz file "
            "with an array for each"
        )
    return Inputs(path, recipe, sets=_from_arrays(path, ports), threads=threads)


def renamed_feeds(feeds: Mapping[str, Array], session: Session, path: str) -> dict[str, Array]:
    """The same inputs under the names that another model has for them, by order where the names differ.

    Raises:
        OnnxlintError: It takes another number of inputs.
    """
    names = [port.name for port in session.inputs]
    if set(names) == feeds.keys():
        return dict(feeds)
    if len(names) != len(feeds):
        raise OnnxlintError(
            f"{printable(path)}: takes {len(names)} inputs ({', '.join(map(printable, names[:4]))}), and the reference "
            f"{len(feeds)} ({', '.join(map(printable, list(feeds)[:4]))})"
        )
    return dict(zip(names, feeds.values(), strict=True))


def _inputs_text(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{printable(port.name)} ({port.dtype})" for port in ports[:4])


def _from_arrays(path: str, ports: tuple[Port, ...]) -> tuple[tuple[str, Feeds], ...]:
    """One set of inputs, or as many as all arrays have rows where the model takes one at a time."""
    feeds = read_inputs(path, [port.name for port in ports])
    for port in ports:
        kind = feeds[port.name].dtype.kind
        if kind not in "biuf" and not port.dtype.startswith(("complex", "str")):
            what = f"array {printable(port.name)!r} is {feeds[port.name].dtype}"
            raise OnnxlintError(f"{printable(path)}: {what}, and the input takes {port.dtype}")
    rows = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    count = rows.pop() if len(rows) == 1 else 0
    if count > 1 and all(port.shape and port.shape[0] == 1 for port in ports):
        return tuple((f"{path}[{i}]", {name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count))
    return ((path, feeds),)


def _made_up(
    reference: str, session: Session, recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Feeds, ...]:
    """Seeded random inputs: by the model's contract for .onnx files, else by the shapes that the backend knows."""
    given = dict(shapes)
    if recipe.size is not None:
        given.setdefault("", (recipe.channels, recipe.size[1], recipe.size[0]))
    if reference.lower().endswith(".onnx"):
        from onnxlint.backends.ort.feeds import made_up

        return tuple(made_up(reference, given, session.run))[:RANDOM_SETS]
    found = []
    for i in range(RANDOM_SETS):
        generator = np.random.default_rng(SEED + i)
        feeds = {}
        for port in session.inputs:
            shape = given.get(port.name, port.shape)
            if (not shape or None in shape) and "" in given:
                shape = (1, *given[""])
            if not shape or None in shape:
                raise OnnxlintError(f"{printable(reference)}: its input size is unknown; give --shape or --images")
            sizes = tuple(size for size in shape if size is not None)
            feeds[port.name] = generator.standard_normal(sizes).astype(np.float32)
        found.append(feeds)
    return tuple(found)
