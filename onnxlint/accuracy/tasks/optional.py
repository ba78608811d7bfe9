"""Libraries of the extra `tasks`."""

from __future__ import annotations

import importlib
from typing import Any

from onnxlint.backends import not_installed
from onnxlint.errors import OnnxlintError

LIBRARIES = {
    "detection": ("pycocotools", False),
    "super-resolution": ("skimage", False),
    "verification": ("sklearn", True),
}
"""Task → the module that its metrics take, and whether only those of labels do."""


def require_installed(task: str, with_labels: bool) -> None:
    """Raise OnnxlintError if the library of a task's metrics is not installed; nothing is imported."""
    module, only_with_labels = LIBRARIES.get(task, ("", False))
    if module and (with_labels or not only_with_labels) and (missing := not_installed((module,), "tasks")):
        raise OnnxlintError(f"--task {task}: {missing}")


def optional(module: str) -> Any:
    """Import a module of a library that metrics need.

    Raises:
        OnnxlintError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise OnnxlintError(
            f"--task: {name} cannot be imported ({error}); install it with `pip install 'onnxlint[tasks]'`"
        ) from None
