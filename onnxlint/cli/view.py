"""`onnxlint view`."""

from __future__ import annotations

import importlib
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from onnxlint.cli import console
from onnxlint.cli.options import argument, number, option
from onnxlint.errors import OnnxlintError
from onnxlint.model.output import MODEL_SUFFIXES
from onnxlint.text import counted, printable

_HOST = "localhost"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments and options of the command."""

    model: Annotated[str, argument("MODEL", "model that Netron shows")]
    at: Annotated[
        str | None,
        option("--at", metavar="NODE", help="show the neighbourhood of this node, as findings name it"),
    ] = None
    steps: Annotated[
        int,
        option("--steps", metavar="N", parser=number(0, 50), help="nodes shown before and after --at (default: 4)"),
    ] = 4
    port: Annotated[
        int | None, option("--port", metavar="N", parser=number(1), help="local port (default: a free one)")
    ] = None
    no_browser: Annotated[bool, option("--no-browser", help="print the address without opening a browser")] = False


def run(options: Options) -> int:
    """Serve the model to a browser on this machine until ctrl-c; returns the exit code."""
    if options.at is None:
        _check_model(options.model)
    part, about = (b"", "") if options.at is None else _neighbourhood(options.model, options.at, options.steps)
    netron = _netron()
    port = _check_port(options.port)
    # Netron takes any file, and says so on its own log; what is printed here is enough.
    import logging

    logging.getLogger("netron").setLevel(logging.WARNING)
    data = bytearray(part) if part else None
    host, port = netron.serve(options.model, data, (_HOST, port), browse=not options.no_browser)
    with suppress(KeyboardInterrupt):  # before `wait` catches it
        console.write(f"{printable(options.model)}{about}: http://{host}:{port} (ctrl-c ends it)\n")
        netron.wait()
    return 0


def _check_model(path: str) -> None:
    """Raises OnnxlintError if the file is not a model that can be shown."""
    if path.endswith(".onnx"):
        from onnxlint.model.skeleton import open_model

        open_model(path)
        return
    from onnxlint.model.reading import open_file

    handle = open_file(path)
    status = os.fstat(handle)
    os.close(handle)
    if not stat.S_ISREG(status.st_mode):
        raise OnnxlintError(f"{printable(path)}: is not a regular file; give a model")
    if not status.st_size:
        raise OnnxlintError(f"{printable(path)}: is empty; give a model")


def _neighbourhood(path: str, place: str, steps: int) -> tuple[bytes, str]:
    """The nodes around a place as a model, and a description.

    Raises:
        OnnxlintError: It is no ONNX model, or has no such node.
    """
    from onnxlint.cli.view_part import around, find_node, part_of
    from onnxlint.model.skeleton import open_model
    from onnxlint.symbolic.view import make_view

    if not path.endswith(MODEL_SUFFIXES):
        raise OnnxlintError(f"{printable(path)}: --at shows nodes of ONNX models; leave it out")
    view = make_view(open_model(path))
    nodes = around(find_node(view, place), steps)
    return part_of(view, nodes), f", {counted(len(nodes), 'node')} around {printable(place)}"


def _netron() -> Any:
    try:
        return importlib.import_module("netron")
    except ImportError as e:
        raise OnnxlintError(
            f"netron: cannot be imported ({e}); install it with `pip install 'onnxlint[view]'`"
        ) from None


def _check_port(port: int | None) -> int:
    """A port that can be had; Netron itself would fail in a thread and wait forever."""
    try:
        with socket.socket() as probe:
            # As Netron's server does: a port that was just left can be taken again.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_HOST, port or 0))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as e:
        raise OnnxlintError(f"--port {port}: cannot be used ({e}); leave it out for a free one") from None
