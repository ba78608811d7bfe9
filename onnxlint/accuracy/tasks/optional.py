"""Libraries of the extra `tasks`."""

from __future__ import annotations

import importlib
from typing import Any

from onnxlint.errors import OnnxlintError


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
