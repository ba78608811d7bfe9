"""Outputs of models as every processor should compute them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Session, backend_for
from onnxlint.backends.openvino.session import OpenVinoSession
from onnxlint.backends.ort.session import run, start


def outputs_of(path: str, inputs: Iterable[npt.NDArray[np.float32]]) -> list[list[npt.NDArray[Any]]]:
    """All outputs of a model for inputs (C, H, W). Int8 of ONNX and OpenVINO is computed exactly: its sums overflow on x86
    processors without VNNI."""
    if path.endswith(".onnx"):
        exact = start(path, integers=False)
        name = exact.get_inputs()[0].name
        return [run(exact, path, {name: x[None]}) for x in inputs]
    session: Session = OpenVinoSession(path, integers=False) if path.endswith(".xml") else backend_for(path).open(path)
    return [session.run({session.inputs[0].name: x[None]}) for x in inputs]
