"""Packages that report their use to their makers, used without that.

onnxruntime 1.32 does so on Linux, too: with a device id and a database in ~/.cache/Microsoft, and a file `.ses` in the
folder for temporary files (core/platform/posix/telemetry_1ds.cc).
"""

from __future__ import annotations

import importlib
import os
from typing import Any

SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment variables that turn telemetry off, read when a package is imported or first used."""


def turn_off_telemetry() -> None:
    """Turn telemetry off in this process and those that it starts, where the user has not set the variables."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


def load_onnxruntime() -> Any:
    """The module `onnxruntime`, which reports nothing about its use, and writes nothing to the terminal.

    Its log repeats what its errors say, with what a hostile model put into it.

    Raises:
        ImportError: It is not installed.
    """
    turn_off_telemetry()
    module = importlib.import_module("onnxruntime")
    module.set_default_logger_severity(_FATAL)
    return module


_FATAL = 4
