"""The public functions, for Python programs."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath

from onnxlint.finding import CheckResult


def check(model: str | PathLike[str], *, rules: Iterable[str] = (), ignore: Iterable[str] = ()) -> CheckResult:
    raise NotImplementedError(fspath(model))
