"""Outputs of models as every processor should compute them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Session, backend_for
from onnxlint.backends.openvino.session import OpenVinoSession
from onnxlint.backends.ort.session import run, start


def outputs_of(
    path: str, inputs: Iterable[npt.NDArray[np.float32]], names: Sequence[str] | None = None
) -> list[list[npt.NDArray[Any]]]:
    """All outputs of a model, or some, for inputs (C, H, W). Int8 of ONNX and OpenVINO is computed exactly: its sums
    overflow on x86 processors without VNNI."""
    if path.endswith(".onnx"):
        exact = start(path, integers=False)
        given, made = exact.get_inputs()[0].name, [one.name for one in exact.get_outputs()]
        order = [made.index(name) for name in names or made]
        found = (run(exact, path, {given: x[None]}) for x in inputs)
        return [[one[i] for i in order] for one in found]
    session: Session = OpenVinoSession(path, integers=False) if path.endswith(".xml") else backend_for(path).open(path)
    return [session.run({session.inputs[0].name: x[None]}, names) for x in inputs]
