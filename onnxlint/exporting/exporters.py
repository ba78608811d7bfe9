"""Both exporters of PyTorch, each with what it needs to be told, and what it says when it cannot.

Needs torch.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.exporting.factory import said, shown_file
from onnxlint.exporting.network import Network
from onnxlint.exporting.options import Exporter
from onnxlint.exporting.tracing import move_source_lines
from onnxlint.text import listed, printable

if TYPE_CHECKING:
    import onnx

ONE_FILE = (2 << 30) - (64 << 20)
"""Bytes of weights up to which a model is one file."""

_TRACER = re.compile(
    r"Converting a tensor to|Using len to|Iterating over a tensor|torch\.tensor results|Trace had nondeterministic"
)
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


class Refused(Exception):  # noqa: N818 - the exporter's answer
    """An exporter cannot export the network; the message is its reason, in one line."""


@dataclass(frozen=True)
class Written:
    """A file that an exporter wrote.

    Attributes:
        opset: Its operator set.
        frozen: Places where the tracer made a constant of a value, `file:line`.
        symbolics: Classes whose own `symbolic` made nodes of the graph.
    """

    opset: int
    frozen: tuple[str, ...] = ()
    symbolics: tuple[str, ...] = ()


def export(network: Network, exporter: Exporter, opset: int | None, path: str) -> Written:
    """Export a network to a file.

    Raises:
        Refused: The exporter cannot do it.
    """
    with _quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if exporter == "dynamo":
            return _dynamo(network, opset, path)
        return _torchscript(network, opset, path, caught)


def _dynamo(network: Network, opset: int | None, path: str) -> Written:
    import torch

    if network.scripted:
        raise Refused("it cannot read TorchScript programs")
    common: dict[str, Any] = {
        "dynamo": True,
        "verbose": False,
        "opset_version": opset,
        "input_names": [one.name for one in network.inputs],
        "output_names": list(network.outputs),
    }
    is_large = _weight_bytes(network) > ONE_FILE
    try:
        if network.program is not None:
            program = torch.onnx.export(network.program, (), **common)
        else:
            free = tuple(dict(one.free) for one in network.inputs)
            shapes = free if any(free) else None
            program = torch.onnx.export(network.module, network.args, dynamic_shapes=shapes, **common)
        assert program is not None
        program.save(path, external_data=is_large)
    except Exception as error:  # noqa: BLE001 - exporters fail in all ways
        raise Refused(_reason(error)) from None
    made = _opset(path)
    if opset is not None and made != opset:
        raise Refused(f"it writes opset {made}, and cannot convert this graph to {opset}")
    return Written(made)


def _torchscript(network: Network, opset: int | None, path: str, caught: list[warnings.WarningMessage]) -> Written:
    import torch

    if network.program is not None:
        raise Refused("it cannot read exported programs (.pt2)")
    free = {one.name: dict(one.free) for one in network.inputs if one.free}
    with _recorded("symbolic") as used, _silent_output():
        try:
            torch.onnx.export(
                network.module,
                network.args,
                path,
                dynamo=False,
                verbose=True,  # leaves the tracer's call stacks in the nodes, and prints the graph
                opset_version=opset,
                input_names=[one.name for one in network.inputs],
                output_names=list(network.outputs),
                dynamic_axes=free or None,
            )
        except Exception as error:  # noqa: BLE001 - exporters fail in all ways
            raise Refused(_reason(error)) from None
    _finish(path)
    frozen = dict.fromkeys(
        f"{shown_file(one.filename)}:{one.lineno}"
        for one in caught
        if _TRACER.search(str(one.message)) and f"{os.sep}torch{os.sep}" not in one.filename
    )
    return Written(_opset(path), tuple(frozen), tuple(used))


def _finish(path: str) -> None:
    """Move the source lines to where dynamo leaves them; weights in other files stay there."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    move_source_lines(proto)
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())


def _opset(path: str) -> int:
    import onnx

    proto: onnx.ModelProto = onnx.load(path, load_external_data=False)
    return next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)


def _weight_bytes(network: Network) -> int:
    held = network.program.state_dict.values() if network.program is not None else network.module.state_dict().values()
    return sum(one.numel() * one.element_size() for one in held if hasattr(one, "numel"))


# What exporters say


def _reason(error: BaseException) -> str:
    """Why an exporter failed, in one line: what the innermost exception says."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    inner = next((one for one in reversed(seen) if str(one).strip()), error)
    return _TERMINAL.sub("", said(inner))


def custom_symbolics(network: Network) -> list[str]:
    """Autograd functions that the network calls and that bring an ONNX form of their own (`symbolic`)."""
    with _recorded("forward") as used:
        network.run(network.args)
    return [printable(name) for name in used]


def _with_symbolic() -> Iterator[type]:
    import torch

    pending = list(torch.autograd.Function.__subclasses__())
    while pending:
        one = pending.pop()
        pending += one.__subclasses__()
        if not one.__module__.startswith("torch.") and "symbolic" in vars(one):
            yield one


@contextmanager
def _recorded(method: str) -> Iterator[list[str]]:
    """The classes with a `symbolic` whose static method of this name is called inside the block."""
    used: list[str] = []
    kept: list[tuple[type, Any]] = []

    def recording(one: type, inner: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            name = f"{one.__module__}.{one.__name__}"
            if name not in used:
                used.append(name)
            return inner(*args, **keywords)

        return staticmethod(call)

    try:
        for one in _with_symbolic():
            if method in vars(one):
                kept.append((one, vars(one)[method]))
                setattr(one, method, recording(one, getattr(one, method)))
        yield used
    finally:
        for one, before in kept:
            setattr(one, method, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters log of themselves and of missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _silent_output() -> Iterator[None]:
    """Drop what is written to standard output, by native code too."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def ignored_symbolics(names: list[str]) -> str:
    """Why dynamo's graph is not the one that the author of a `symbolic` meant."""
    return f"dynamo does not call 'symbolic' of {listed(names, 3)}"
