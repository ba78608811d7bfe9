"""Shell completion: candidates for a word that is being typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def listed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion of the last of several names between commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def rules() -> list[str]:
    """Codes, names and prefixes of rules."""
    from onnxlint.lint.registry import load_registry

    found = list(load_registry(()))
    codes = [rule.code for rule in found]
    return ["ALL", *dict.fromkeys(code[:3] for code in codes), *codes, *(rule.name for rule in found)]


def conversions() -> list[str]:
    """Targets of `--to`."""
    from onnxlint.backends import targets
    from onnxlint.conversion.session import ALL

    return [*(target.name for _, target in targets()), ALL]


def lint_targets() -> tuple[str, ...]:
    """Targets of `--target`."""
    from onnxlint.lint.targets import names

    return names()


def presets() -> list[str]:
    """Recipes by name."""
    from onnxlint.images.recipe import PRESETS

    return sorted(PRESETS)


def check_formats() -> tuple[str, ...]:
    """Formats of the report of a check."""
    from onnxlint.report import FORMATS

    return FORMATS


def diff_formats() -> tuple[str, ...]:
    """Formats of the report of changes."""
    from onnxlint.report.diff import FORMATS

    return FORMATS


def compare_formats() -> tuple[str, ...]:
    """Formats of the report of a comparison."""
    from onnxlint.report.compare import FORMATS

    return tuple(FORMATS)


def tasks() -> tuple[str, ...]:
    """Tasks that outputs are judged by."""
    from onnxlint.accuracy.tasks import TASKS

    return tuple(TASKS)
