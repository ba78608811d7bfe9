"""The one vector among a model's outputs: scores of classes, or an embedding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

Array = npt.NDArray[Any]


def pick_vector(outputs: Mapping[str, Array], names: str, task: str) -> tuple[str, Array]:
    """The output that has one number along every axis but one: its name and (D,) float64.

    Args:
        outputs: Name → array with a batch axis of 1.
        names: Pattern of preferred output names, if there are several outputs.
        task: For messages.

    Raises:
        OnnxlintError: No output fits, or several do.
    """
    vectors = {name: array for name, array in outputs.items() if array.size > 1 and max(array.shape) == array.size}
    if len(vectors) > 1:
        named = {name: array for name, array in vectors.items() if re.search(names, name.lower())}
        vectors = named or vectors
    if len(vectors) != 1:
        shapes = ", ".join(f"{printable(name)} ({'×'.join(map(str, array.shape))})" for name, array in outputs.items())
        what = "no output is a vector" if not vectors else "several outputs could be it"
        raise OnnxlintError(f"--task {task}: needs one vector per image; {what}: {shapes}; leave only one in the model")
    name, array = next(iter(vectors.items()))
    return name, array.reshape(-1).astype(np.float64)
