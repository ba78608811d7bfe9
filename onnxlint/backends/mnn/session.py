"""Run a `.mnn` file on the CPU, in 32-bit arithmetic."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxlint.backends import Array, Port
from onnxlint.backends.mnn.runtime import quiet, runtime
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import loading, running
from onnxlint.text import printable


def _is_flatbuffer(path: str) -> bool:
    """Whether a file begins as FlatBuffers do, which MNN reads whole before it looks: with the place of a table, which
    says where its table of fields is (https://flatbuffers.dev/internals/).
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _LEAST:
            return False
        (root,) = struct.unpack("<I", file.read(4))
        if not 4 <= root <= size - 4:
            return False
        file.seek(root)
        fields = root - struct.unpack("<i", file.read(4))[0]
        if not 4 <= fields <= size - 4:
            return False
        file.seek(fields)
        (length,) = struct.unpack("<H", file.read(2))
        return bool(4 <= length <= size - fields and length % 2 == 0)


_LEAST = 12
"""Bytes of the smallest FlatBuffer: a place, a table without fields, its table of fields."""


class MnnSession:
    """A loaded model. Its inner values are out of reach."""

    def __init__(self, path: str, threads: int = 2) -> None:
        self.path = path
        try:
            fits = _is_flatbuffer(path)
        except OSError as error:
            raise OnnxlintError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None
        if not fits:
            raise self._refused()
        self._mnn = runtime()
        settings = {"backend": "CPU", "precision": "high", "numThread": threads}
        with quiet(), loading():
            self._manager = self._mnn.nn.create_runtime_manager((settings,))
            names = self._load([], []).get_info()
            self._module = self._load(names["inputNames"], names["outputNames"])
            held = self._module.get_info()["inputs"]
        self.inputs = tuple(self._port(name, value) for name, value in zip(names["inputNames"], held, strict=True))
        self.outputs = tuple(Port(name) for name in names["outputNames"])

    def _load(self, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        try:
            return self._mnn.nn.load_module_from_file(
                self.path, list(inputs), list(outputs), runtime_manager=self._manager
            )
        except SystemError:  # what its binding makes of a file that it refuses
            raise self._refused() from None

    def _refused(self) -> OnnxlintError:
        return OnnxlintError(f"{printable(self.path)}: MNN cannot load it; it is damaged, or no .mnn model")

    def _port(self, name: str, value: Any) -> Port:
        shape = tuple(None if size < 0 else int(size) for size in value.shape)
        return Port(name, shape, "float32" if value.dtype == self._mnn.expr.float else "int32")

    def tensors(self) -> tuple[tuple[str, str], ...]:
        """Nothing."""
        return ()

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """The outputs for one set of inputs.

        Raises:
            OnnxlintError: A name is unknown, an input is missing, or MNN cannot run it.
        """
        known = [port.name for port in self.inputs]
        missing = [name for name in known if name not in feeds]
        if missing:
            shown = ", ".join(map(printable, known))
            raise OnnxlintError(
                f"{printable(self.path)}: input {printable(missing[0])!r} is not given (it takes {shown})"
            )
        own = [port.name for port in self.outputs]
        wanted = own if names is None else list(names)
        for name in (*wanted, *feeds):
            if name not in own and name not in known:
                raise OnnxlintError(f"{printable(self.path)}: MNN gives no inner values, such as {printable(name)!r}")
        f = self._mnn.expr
        given = []
        for port in self.inputs:
            value = np.ascontiguousarray(feeds[port.name], port.dtype)
            kind = f.float if port.dtype == "float32" else f.int
            given.append(f.const(value, list(value.shape), f.NCHW, kind))
        with running(sum(np.asarray(value).nbytes for value in feeds.values())):
            results = self._module.forward(given)
            results = list(results) if isinstance(results, list | tuple) else [results]
        if len(results) != len(own) or any(one is None for one in results):
            shapes = ", ".join(str(list(np.shape(feeds[name]))) for name in known)
            raise OnnxlintError(f"{printable(self.path)}: MNN cannot run it on {shapes}")
        arrays = [np.array(f.convert(one, f.NCHW).read()) for one in results]
        values = dict(zip(own, arrays, strict=True)) | {name: np.asarray(feeds[name]) for name in known}
        return [values[name] for name in wanted]
