"""Run an IR in OpenVINO, with everything inside it within reach."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxlint.backends import Array, Port
from onnxlint.backends.openvino.graph import DTYPES, element, port_name, seen_values, value_names
from onnxlint.backends.openvino.runtime import HINT, compiled, default_precision, first_line, read_ir, runtime
from onnxlint.errors import OnnxlintError, OutOfMemory
from onnxlint.model.limits import lacks_memory, memory_overrun, running
from onnxlint.text import printable

KEPT = 4
"""Compiled parts of the model that are kept for the next run."""


class OpenVinoSession:
    """An IR on the CPU, in 32-bit arithmetic where it has floats.

    Attributes:
        path: Of the `.xml`.
        inputs, outputs: Of the model.
        default: The arithmetic that OpenVINO would choose on this CPU: `f32`, `bf16` or `f16`.
        notes: How it is run, where that differs from OpenVINO's default.
    """

    def __init__(self, path: str, threads: int = 2, *, integers: bool = True) -> None:
        """Load `NAME.xml` and `NAME.bin`.

        Args:
            path: Of the `.xml`.
            threads: For OpenVINO.
            integers: Whether int8 layers may be computed in integers; see `compiled`.

        Raises:
            OnnxlintError: They cannot be loaded.
        """
        self.path = path
        self._threads = threads
        self._integers = integers
        self.model = read_ir(path)
        pairs = zip(self.model.inputs, self.model.get_parameters(), strict=True)
        self.inputs = tuple(_port(port, owner) for port, owner in pairs)
        pairs = zip(self.model.outputs, self.model.get_results(), strict=True)
        self.outputs = tuple(_port(port, owner) for port, owner in pairs)
        self._whole = compiled(self.model, path, threads, integers=integers).create_infer_request()
        self._parts: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self.default = default_precision()
        self.notes: tuple[str, ...] = ()
        if self.default != "f32":
            self.notes = (f"run with {HINT} f32; this CPU's default is {self.default}, which is less exact",)

    def tensors(self) -> tuple[tuple[str, str], ...]:
        """(value, operator that makes it) of the floating-point values, in order of computation."""
        return tuple(seen_values(self.model))

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """The outputs, or the named values, for one set of inputs. Given inner values replace what would be computed.

        Raises:
            OnnxlintError: A name is unknown, an input is missing, or OpenVINO cannot run it.
        """
        ports = {port.name: port for port in self.inputs}
        own = [port.name for port in self.outputs]
        fed = {name: _cast(value, ports[name].dtype) for name, value in feeds.items() if name in ports}
        given = {name: np.asarray(value) for name, value in feeds.items() if name not in ports}
        if not given and (names is None or list(names) == own):
            return self._infer(self._whole, [port.name for port in self.inputs], fed)
        wanted = own if names is None else list(names)
        asked = [name for name in dict.fromkeys(wanted) if name not in feeds]
        values = {name: np.asarray(value) for name, value in feeds.items()}
        if asked:
            key = (tuple(asked), tuple(sorted((name, one.dtype.str, one.shape) for name, one in given.items())))
            request = self._parts.pop(key, None) or self._part(asked, given)
            self._parts[key] = request
            if len(self._parts) > KEPT:
                self._parts.popitem(last=False)
            taken = [port.name for port in self.inputs] + list(given)
            values |= dict(zip(asked, self._infer(request, taken, {**fed, **given}), strict=True))
        return [values[name] for name in wanted]

    def _infer(self, request: Any, taken: Sequence[str], values: Mapping[str, Array]) -> list[Array]:
        missing = [name for name in taken if name not in values]
        if missing:
            shown = ", ".join(printable(port.name) for port in self.inputs)
            raise OnnxlintError(
                f"{printable(self.path)}: input {printable(missing[0])!r} is not given (it takes {shown})"
            )
        size = sum(values[name].nbytes for name in taken)
        try:
            with running(size):
                results = request.infer([values[name] for name in taken])
                return [np.array(results[i]) for i in range(len(results))]
        except Exception as error:  # the classes that OpenVINO raises share none
            if lacks_memory(error):
                raise OutOfMemory(f"{printable(self.path)}: {memory_overrun(size)}") from error
            shapes = ", ".join(f"{printable(name)} {list(values[name].shape)}" for name in taken)
            raise OnnxlintError(
                f"{printable(self.path)}: OpenVINO cannot run it on {shapes}: {first_line(error)}"
            ) from error

    def _part(self, asked: Sequence[str], given: Mapping[str, Array]) -> Any:
        """What computes the asked values from the inputs and the given ones."""
        ov = runtime()
        model = self.model.clone()
        values = value_names(model)
        for name in (*asked, *given):
            if name not in values:
                raise OnnxlintError(f"{printable(self.path)}: has no value {printable(name)!r}; see tensors()")
        parameters = list(model.get_parameters())
        try:
            for name, array in given.items():
                parameter = ov.op.Parameter(values[name].get_element_type(), ov.PartialShape(list(array.shape)))
                for reader in values[name].get_target_inputs():
                    reader.replace_source_output(parameter.output(0))
                parameters.append(parameter)
            results = [ov.op.Result(values[name]) for name in asked]
            part = ov.Model(results, parameters, "part")
        except Exception as error:  # as above
            raise OnnxlintError(
                f"{printable(self.path)}: its inner values cannot be reached: {first_line(error)}"
            ) from error
        return compiled(part, self.path, self._threads, integers=self._integers).create_infer_request()


def _port(port: Any, owner: Any) -> Port:
    kind = element(port)
    partial = port.get_partial_shape()
    shape: tuple[int | None, ...] = ()
    if partial.rank.is_static:
        shape = tuple(size.get_length() if size.is_static else None for size in partial)
    return Port(port_name(port, owner), shape, DTYPES.get(kind, kind))


def _cast(value: Array, dtype: str) -> Array:
    """A floating-point array in the precision that an input has."""
    value = np.asarray(value)
    if value.dtype.kind == "f" and dtype in ("float16", "float32", "float64"):
        value = value.astype(dtype, copy=False)
    return np.ascontiguousarray(value)
