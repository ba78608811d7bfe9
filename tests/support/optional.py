"""Packages that some tests need."""

from __future__ import annotations

import importlib

import pytest


def need(module: str) -> None:
    """Skip the test, or the module of tests, where a package is not installed or cannot be loaded on this system.

    MNN's extension asks for an executable stack, which glibc 2.41 and later refuse; pytest 8.0's `importorskip` fails there.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} cannot be imported: {error}", allow_module_level=True)
