"""Run a net in the `ncnn` wheel, from memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Network, dump_bin, dump_param
from onnxlint.errors import OnnxlintError, printable

Floats = npt.NDArray[np.float32]


def wheel() -> Any:
    """The `ncnn` module. Raises OnnxlintError when it is not installed."""
    try:
        return importlib.import_module("ncnn")
    except ImportError as e:
        raise OnnxlintError(f"ncnn: cannot be imported ({e}); install it with `pip install 'onnxlint[ncnn]'`") from None


class Runner:
    """A net loaded for inference with `threads` OpenMP threads; usable from several Python threads at once."""

    def __init__(self, net: Network, threads: int = 1) -> None:
        self._ncnn = wheel()
        self.net = net
        names = net.inputs()
        if len(names) != 1:
            raise OnnxlintError(
                printable(f"{net.path}: has {len(names)} inputs ({', '.join(names[:4])}); onnxlint runs nets with one")
            )
        self.input = names[0]
        self._handle = self._ncnn.Net()
        self._handle.opt.num_threads = threads
        self._handle.opt.lightmode = False  # every blob stays extractable
        self._handle.opt.use_fp16_packed = False  # else an fp32 InnerProduct computes with fp16 weights
        self._handle.opt.use_fp16_storage = False
        self._weights = dump_bin(net) + bytes(64)  # ncnn reads without knowing the length, and refers to the memory
        if self._handle.load_param_mem(dump_param(net)) != 0:
            raise OnnxlintError(
                printable(f"{net.path}: ncnn cannot load the graph; a layer type may be newer than the installed wheel")
            )
        self._handle.load_model_mem(self._weights)

    def run(self, x: Floats | Mapping[str, Floats], blobs: Sequence[str]) -> list[Floats]:
        """The named blobs for the input `x` (C, H, W), or given the values of some blobs, from which ncnn computes on.
        The arrays own their memory or keep it alive.

        Raises OnnxlintError where ncnn cannot compute a blob.
        """
        extractor = self._handle.create_extractor()
        given = x if isinstance(x, Mapping) else {self.input: x}
        # A Mat does not keep its array alive: both live in this frame.
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in given.items()}
        mats = {name: self._ncnn.Mat(value) for name, value in arrays.items()}
        for name, mat in mats.items():
            extractor.input(name, mat)
        out: list[Floats] = []
        for name in blobs:
            code, mat = extractor.extract(name)
            array = np.asarray(mat, np.float32) if code == 0 else np.empty(0, np.float32)
            if code != 0 or array.size == 0:
                shape = arrays[self.input].shape
                raise OnnxlintError(
                    printable(
                        f"{self.net.path}: ncnn cannot compute blob '{name}' for an input of shape {shape};"
                        " check the input size that the net was converted for"
                    )
                )
            out.append(array)
        return out

    def map(
        self, images: Iterable[Floats | Mapping[str, Floats]], blobs: Sequence[str], threads: int = 1
    ) -> Iterator[list[Floats]]:
        """`run` over a stream of inputs, `threads` at a time, in order; at most `threads` + 1 inputs are held."""
        if threads <= 1:
            for x in images:
                yield self.run(x, blobs)
            return
        with ThreadPoolExecutor(threads) as pool:
            pending: list[Any] = []
            for x in images:
                pending.append(pool.submit(self.run, x, blobs))
                if len(pending) > threads:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
