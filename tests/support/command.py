"""The command line as tests use it, and models to use it on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

CLEAN = """
<ir_version: 8, opset_import: ["": 17]>
net (float[N,3,H,W] image) => (float[N,3,H,W] features) {
    features = Relu (image)
}
"""

BAD = """
<ir_version: 8, opset_import: ["": 17]>
net (float[N,4,H,W] image, float[N,4,A,B] other) => (float[N,4,C,D] features) {
    shape = Shape (other)
    resized = Resize <mode = "nearest"> (image, , , shape)
    features = Resize <mode = "nearest"> (resized, , , shape)
}
"""
"""Two findings of SHP001, both in module fpn."""


@dataclass(frozen=True)
class Outcome:
    """What the user sees."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def onnxlint(*words: str | Path, stdin: bytes = b"") -> Outcome:
    """Run the command line in this process."""
    from onnxlint.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    stream = io.TextIOWrapper(io.BytesIO(stdin))
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "stdin", stream):
        code = run([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def unmeasured() -> dict[str, str]:
    """The environment of a process in which coverage, which imports much, is not measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}


def save(path: Path, text: str = BAD, scope: str = "fpn", first: int = 0) -> Path:
    """Write a model given in ONNX's text syntax as a binary file.

    Args:
        scope: Module that the nodes belong to; they are named as the TorchScript exporter does.
        first: The number that the first node gets.
    """
    import onnx.parser

    model = onnx.parser.parse_model(text)
    for i, node in enumerate(model.graph.node, first):
        node.name = f"/{scope}/{node.op_type}_{i}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def on_cluster(cluster: Any, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real program in a folder; its Ray cluster, if it uses one, is this."""
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "onnxlint", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
