"""Compare the accuracy of models against a reference, on the same inputs.

The models run in a process of their own: a runtime that crashes ends that process only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from onnxlint.accuracy import worker
from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.participants import find_participants
from onnxlint.accuracy.preflight import require_usable
from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Progress, silent
from onnxlint.errors import OnnxlintError
from onnxlint.images.options import ImageOptions


def compare(
    reference: str | os.PathLike[str],
    candidates: Sequence[str | os.PathLike[str]],
    inputs: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    options: CompareOptions = CompareOptions(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> AccuracyReport:
    """Compare models with a reference, in a process of its own.

    Args:
        reference: The reference model.
        candidates: The other models: ONNX files, ncnn .param files, or any file that a backend opens.
        inputs: Inputs of the models; without images: seeded random inputs, which are not representative. Without a recipe,
            the one that a candidate's manifest records. The size is the user's, else the models' own where it is
            fixed, else the one that a candidate was converted for.
        options: What is measured, and which results fail.
        progress: Called with the current action.

    Raises:
        OnnxlintError: A file cannot be read or run, a runtime crashed on it, no output of a candidate has a partner, or a
            condition is wrong.
    """
    paths = [os.fspath(path) for path in candidates]
    if not paths:
        raise OnnxlintError("no candidate given: name a reference and at least one candidate")
    require_usable(find_participants(os.fspath(reference), paths), inputs, options)
    return worker.in_child(os.fspath(reference), paths, inputs, options, progress)
