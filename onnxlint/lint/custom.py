"""Rules that do not come with onnxlint: what they do wrong is said of them, and none of them ends the process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from onnxlint.model.scratch import Terminated
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.lint.rule import Rule

_BUILT_IN = "onnxlint_rules"
_exit = os._exit


class ExitError(Exception):
    """A rule tried to end the process."""


@contextmanager
def no_exit() -> Iterator[None]:
    """Let `sys.exit` and `os._exit` raise ExitError: what ends a run without its report must not look like a pass.

    A forked child of the code within may end as it likes.
    """
    owner = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != owner:
            _exit(status)
        raise ExitError(f"it called os._exit({status!r})")

    os._exit = refuse
    try:
        yield
    except Terminated:
        raise
    except SystemExit as error:
        raise ExitError(f"it called sys.exit({error.code!r})") from error
    finally:
        os._exit = _exit


def is_built_in(rule: type[Rule]) -> bool:
    """Whether a rule comes with onnxlint."""
    return rule.__module__.partition(".")[0] == _BUILT_IN


def failure(rule: type[Rule], error: BaseException) -> str:
    """One line about a rule that raised, with the way out."""
    kind = "" if isinstance(error, ExitError) else f" with {type(error).__name__}"
    said = f"{rule.code} failed{kind} at {_raised_at(error)}: {printable(str(error))[:200]}"
    if is_built_in(rule):
        return f"{said}; please report it, and use --ignore {rule.code} meanwhile"
    home = getattr(sys.modules.get(rule.__module__), "__file__", None) or rule.__module__
    return f"{said}; correct the rule in {printable(home)}, or use --ignore {rule.code}"


def _raised_at(error: BaseException) -> str:
    import traceback

    ours = (__file__, contextlib.__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in ours]
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
