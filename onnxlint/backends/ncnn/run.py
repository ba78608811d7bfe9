"""Run a net in the `ncnn` wheel, from memory."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Port, bytes_of
from onnxlint.backends.ncnn.format import Network, dump_bin, dump_param, load
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.table import source_blobs
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import loading, running, set_budget
from onnxlint.text import printable

Floats = npt.NDArray[np.float32]
A = TypeVar("A")
T = TypeVar("T")


def wheel() -> Any:
    """The `ncnn` module. Raises OnnxlintError when it is not installed."""
    try:
        return importlib.import_module("ncnn")
    except ImportError as e:
        raise OnnxlintError(f"ncnn: cannot be imported ({e}); install it with `pip install 'onnxlint[ncnn]'`") from None


def integer_inputs(net: Network) -> frozenset[str]:
    """Inputs that are indices: ncnn's Embed takes the bits of its input for integers."""
    source = source_blobs(net)
    read = {source[layer.bottoms[0]] for layer in net.layers if layer.type == "Embed" and layer.bottoms}
    return frozenset(read.intersection(net.inputs()))


def int8_blobs(net: Network) -> dict[str, float]:
    """Blob that lies in memory as int8 → units for 1.0: outputs of convolutions that requantize, and their copies."""
    scales = {}
    for layer in net.layers:
        top_scale = layer.blob("top_scale")
        if top_scale is not None:
            scales[layer.tops[0]] = float(top_scale.data[0])
        elif layer.type == "Split" and layer.bottoms[0] in scales:
            scales.update(dict.fromkeys(layer.tops, scales[layer.bottoms[0]]))
    return scales


class Runner:
    """A net loaded for inference with `threads` OpenMP threads; usable from several Python threads at once.

    A `light` one forgets blobs once they are read, which is faster.
    """

    def __init__(self, net: Network, threads: int = 1, *, light: bool = False) -> None:
        self._ncnn = wheel()
        self.net = net
        self.inputs = net.inputs()
        if not self.inputs:
            raise OnnxlintError(printable(f"{net.path}: has no input; convert the model again"))
        self._integers = integer_inputs(net)
        self._scales = int8_blobs(net)
        self._made = net.producers()
        self._is_light = light
        self._handle = self._ncnn.Net()
        self._handle.opt.num_threads = threads
        self._handle.opt.lightmode = light  # else every blob stays extractable
        self._handle.opt.use_fp16_packed = False  # else an fp32 InnerProduct computes with fp16 weights
        self._handle.opt.use_fp16_storage = False
        self._weights = dump_bin(net) + bytes(64)  # ncnn reads without knowing the length, and refers to the memory
        with loading():
            if self._handle.load_param_mem(dump_param(net)) != 0:
                raise OnnxlintError(
                    printable(
                        f"{net.path}: ncnn cannot load the graph; a layer type may be newer than the installed wheel"
                    )
                )
            self._handle.load_model_mem(self._weights)

    def run(self, x: Floats | Mapping[str, Floats | Packed], blobs: Sequence[str]) -> list[Floats]:
        """The named blobs for the input `x` (C, H, W), or given the values of some blobs, from which ncnn computes on.
        The arrays own their memory or keep it alive.

        Raises OnnxlintError if ncnn cannot compute a blob.
        """
        found: dict[str, Floats] = {}
        for name, mat in self._extracted(x, blobs):
            array, scale = np.asarray(mat, np.float32), self._scales.get(name)
            found[name] = array if scale is None else array / scale
        return [found[name] for name in blobs]

    def packed(self, x: Floats) -> Packed:
        """The only input (C, H, W) in memory of ncnn's own, which several runs can read."""
        return Packed.of(self._ncnn.Mat(self._array(self.input, x)).clone())

    def visit(
        self, x: Floats | Mapping[str, Floats | Packed], blobs: Collection[str], look: Callable[[str, Packed], None]
    ) -> None:
        """Let `look` see float blobs, one after the other, as they lie in memory. Arguments and errors as above."""
        for name, mat in self._extracted(x, blobs, as_they_lie=True):
            assert name not in self._scales, "int8"
            look(name, Packed.of(mat))

    def _extracted(
        self, x: Floats | Mapping[str, Floats | Packed], blobs: Collection[str], *, as_they_lie: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Blobs and ncnn's Mats."""
        extractor = self._handle.create_extractor()
        given = x if isinstance(x, Mapping) else {self.input: x}
        # A Mat does not keep its array alive: both live in this frame.
        arrays = {name: self._array(name, value) for name, value in given.items() if not isinstance(value, Packed)}
        mats = {name: value.mat for name, value in given.items() if isinstance(value, Packed)}
        for name, array in arrays.items():
            mat = self._ncnn.Mat(array)
            # Layers that work in place crash the wheel in a light net if the memory is not ncnn's.
            mats[name] = mat.clone() if self._is_light else mat
        for name, mat in mats.items():
            extractor.input(name, mat)
        size = sum(math.prod(value.shape) * 4 for value in given.values())
        # A light net forgets what was made before.
        for name in sorted(set(blobs), key=self._made.__getitem__) if self._is_light else blobs:
            blob = self._ncnn.Mat()
            with running(size):
                code = extractor.extract(name, blob, int(as_they_lie))
            if code != 0 or blob.empty():
                raise OnnxlintError(self._cannot(name, given.values()))
            yield name, blob

    def _cannot(self, name: str, values: Iterable[Floats | Packed]) -> str:
        shapes = ", ".join(str(value.shape) for value in values)
        return printable(
            f"{self.net.path}: ncnn cannot compute blob '{name}' for an input of shape {shapes};"
            " check the input size that the net was converted for"
        )

    def check(self, x: Floats | Mapping[str, Floats]) -> None:
        """Raises OnnxlintError if an input (C, H, W) is not of the size that the weights are for: ncnn reads beyond
        its memory then, and may crash."""
        given = x if isinstance(x, Mapping) else {self.input: x}
        for name, value in given.items():
            if name in self.inputs:
                check_channels(self.net, name, value.shape)
        arrays = {name: self._array(name, value) for name, value in given.items()}
        mats = {name: self._ncnn.Mat(value) for name, value in arrays.items()}
        extractor = self._handle.create_extractor()
        for name, mat in mats.items():
            extractor.input(name, mat)
        for layer in self.net.layers:
            weight = layer.blob("weight")
            if layer.type != "InnerProduct" or weight is None or layer.bottoms[0] in given:
                continue
            needed = weight.data.size // max(1, layer.integer(0))
            with running(sum(array.nbytes for array in arrays.values())):
                code, mat = extractor.extract(layer.bottoms[0])
            shape = np.asarray(mat).shape if code == 0 else ()
            if math.prod(shape) != needed and shape[-1:] != (needed,):
                shapes = ", ".join(str(value.shape) for value in arrays.values())
                raise OnnxlintError(
                    printable(
                        f"{self.net.path}: layer '{layer.name}' takes {needed} numbers and gets {math.prod(shape)} from"
                        f" an input of shape {shapes}; give the --shape that the net was converted for"
                    )
                )

    def _array(self, name: str, value: Floats) -> Floats:
        """As ncnn wants it: integers lie in the bits of floats."""
        if name in self._integers:
            return np.ascontiguousarray(value, np.int32).view(np.float32)
        return np.ascontiguousarray(value, np.float32)

    @property
    def input(self) -> str:
        """The name of the only input. Raises OnnxlintError if there are more."""
        if len(self.inputs) > 1:
            names = ", ".join(self.inputs[:4])
            raise OnnxlintError(
                printable(f"{self.net.path}: has {len(self.inputs)} inputs ({names}); images can be fed to one")
            )
        return self.inputs[0]

    def map(
        self, images: Iterable[Floats | Mapping[str, Floats | Packed]], blobs: Sequence[str], threads: int = 1
    ) -> Iterator[list[Floats]]:
        """`run` over a stream of inputs, `threads` at a time, in order; at most `threads` + 1 inputs are held."""
        return in_order(lambda x: self.run(x, blobs), images, threads)


def in_order(call: Callable[[A], T], stream: Iterable[A], threads: int) -> Iterator[T]:
    """call(x) for each x of a stream, `threads` at a time, in order; at most `threads` + 1 of them are held."""
    if threads <= 1:
        yield from map(call, stream)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: list[Future[T]] = []
        for x in stream:
            pending.append(pool.submit(call, x))
            if len(pending) > threads:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()


class NcnnSession:
    """A net behind the interface of `onnxlint.backends.Session`: arrays have a batch axis, and ncnn runs its elements
    one by one. Values of int8 blobs come out as the floats they stand for."""

    def __init__(self, net: Network, threads: int = 2) -> None:
        self.net = net
        self._runner = Runner(net, threads)
        self._checked: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        self._made = {top: layer.type for layer in net.layers for top in layer.tops}

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, with shapes as the `.param` and the layers that read them define them."""
        integers = integer_inputs(self.net)
        return tuple(
            Port(name, input_shape(self.net, name), "int32" if name in integers else "float32")
            for name in self.net.inputs()
        )

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives; ncnn knows shapes only when it runs."""
        return tuple(Port(name) for name in self.net.outputs())

    def tensors(self) -> tuple[tuple[str, str], ...]:
        """(blob, layer type) of everything inside, without inputs and the copies that Split makes."""
        return tuple(
            (top, layer.type) for layer in self.net.layers if layer.type not in ("Input", "Split") for top in layer.tops
        )

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None = None) -> list[npt.NDArray[Any]]:
        """The outputs, or the named blobs, for inputs (N, …) by name; values of inner blobs replace what would be
        computed.

        Raises:
            OnnxlintError: A name is unknown, an input is missing, or ncnn cannot compute it.
        """
        wanted = self.net.outputs() if names is None else list(names)
        unknown = [name for name in [*feeds, *wanted] if name not in self._made]
        if unknown:
            raise OnnxlintError(printable(f"{self.net.path}: has no blob '{unknown[0]}'"))
        missing = [name for name in self.net.inputs() if name not in feeds]
        if missing and not set(feeds) - set(self.net.inputs()):
            raise OnnxlintError(printable(f"{self.net.path}: no values for its input '{missing[0]}'"))
        counts = {len(value) if np.ndim(value) else 0 for value in feeds.values()}
        if len(counts) != 1 or 0 in counts:
            raise OnnxlintError(printable(f"{self.net.path}: inputs have different or no batch axes"))
        shapes = tuple((name, value.shape[1:]) for name, value in feeds.items())
        if shapes not in self._checked:
            self._runner.check({name: value[0] for name, value in feeds.items()})
            self._checked.add(shapes)
        rows = [
            [np.array(y) for y in self._runner.run({name: value[i] for name, value in feeds.items()}, wanted)]
            for i in range(counts.pop())
        ]
        return [np.stack([row[i] for row in rows]) for i in range(len(wanted))]


def input_shape(net: Network, name: str) -> tuple[int | None, ...]:
    """The shape of an input (N, C, H, W), with what is unknown None; empty if nothing is known."""
    layer = next(layer for layer in net.layers if name in layer.tops)
    width, height, depth, channels = (layer.integer(key) or None for key in (0, 1, 11, 2))
    if channels is not None and depth is None:
        return (None, channels, height, width)
    needed = input_channels(net, name)
    return (None, needed, None, None) if needed else ()


def input_channels(net: Network, name: str) -> int | None:
    """How many channels an input must have, by the weights of a convolution that reads it; None: any."""
    source = source_blobs(net)
    for layer in net.layers:
        weight = layer.blob("weight")
        if layer.type not in ("Convolution", "ConvolutionDepthWise") or weight is None:
            continue
        if source[layer.bottoms[0]] == name:
            kernel = layer.integer(1) * layer.integer(11, layer.integer(1))
            groups = layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else 1
            return groups * weight.data.size // max(1, kernel * layer.integer(0))
    return None


def check_channels(net: Network, name: str, shape: Sequence[int]) -> None:
    """Raises OnnxlintError if an input (C, H, W) has too many or too few channels: ncnn would read beyond it."""
    needed = input_channels(net, name)
    if needed is not None and (len(shape) != 3 or shape[0] != needed):
        raise OnnxlintError(
            printable(
                f"{net.path}: input '{name}' has {needed} channels, and the given input has the shape {tuple(shape)};"
                " check --shape and --pixel"
            )
        )


def main(words: Sequence[str]) -> int:
    """`python -m onnxlint.backends.ncnn.run NET.param ASKED.npz ANSWER.npz`: all outputs for arrays with a batch axis,
    in a process that may crash; `names` says what the arrays are called."""
    param, asked, answer = words
    set_budget(bytes_of(param))
    try:
        session = NcnnSession(load(param), threads=1)
        with np.load(asked) as loaded:
            feeds = {str(name): loaded[f"arr_{i}"] for i, name in enumerate(loaded["names"])}
        outputs = session.run(feeds)
    except OnnxlintError as error:
        sys.stdout.write(f"error: {error}\n")
        return 2
    np.savez(answer, *outputs, names=np.array(session.net.outputs()))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # ncnn's own clean-up is not what is tested
