"""Property tests whose cases may be skipped say how many have to get through to the assertions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class _Count:
    value = 0


def reached() -> None:
    """Note that a case has come to what it is there to check."""
    _Count.value += 1


def reaching(least: int) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A property test in which `reached` has to be called for so many of the cases, or it has checked nothing.

    Stands above `@given`.
    """

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            _Count.value = 0
            test(*args, **kwargs)
            assert _Count.value >= least, f"only {_Count.value} cases were checked, of {least} that have to be"

        return run

    return decorate
