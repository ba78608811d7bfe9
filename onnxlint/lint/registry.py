"""Where rules come from, and how they are found by code, name or alias.

Built-in rules come in through the `onnxlint.rules` entry point, as anybody else's do; a team's own files through
`rule-paths` in the configuration.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from onnxlint.entry_points import entry_points
from onnxlint.errors import OnnxlintError
from onnxlint.lint.custom import no_exit
from onnxlint.lint.rule import SECTIONS, Rule
from onnxlint.text import did_you_mean, printable

ENTRY_POINTS = "onnxlint.rules"

_CODE = re.compile(r"[A-Z]{3}\d{3}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Registry:
    """The rules that exist, by code, name and alias.

    Args:
        rules: Rule classes.

    Raises:
        OnnxlintError: A rule is incomplete, or two share a code or a name.
    """

    def __init__(self, rules: Iterable[type[Rule]]) -> None:
        self.rules: dict[str, type[Rule]] = {}
        self._names: dict[str, str] = {}
        for rule in sorted(rules, key=lambda r: getattr(r, "code", "")):
            problem = _incomplete(rule)
            if problem:
                raise OnnxlintError(f"rule {rule.__module__}.{rule.__qualname__} {problem}")
            for key in (rule.code, rule.name, *rule.aliases):
                if key in self._names:
                    other = self.rules[self._names[key]]
                    raise OnnxlintError(
                        f"{key!r} names two rules: {other.__module__}.{other.__qualname__} and "
                        f"{rule.__module__}.{rule.__qualname__}; rename one"
                    )
                self._names[key] = rule.code
            self.rules[rule.code] = rule

    def __iter__(self) -> Iterator[type[Rule]]:
        return iter(self.rules.values())

    def find(self, name: str) -> type[Rule]:
        """The rule of a code, name or alias.

        Raises:
            OnnxlintError: No such name; the message has the nearest match.
        """
        code = self._names.get(name) or self._names.get(name.upper()) or self._names.get(name.lower())
        if code is None:
            raise self.unknown(name)
        return self.rules[code]

    def expand(self, selector: str) -> list[type[Rule]]:
        """Rules of a selector: a code, a prefix (`SHP`, `SHP00`), a name, an alias or `ALL`.

        Raises:
            OnnxlintError: It selects nothing.
        """
        if selector == "ALL":
            return list(self)
        if selector in self._names:
            return [self.find(selector)]
        prefix = selector.upper()
        found = [rule for rule in self if rule.code.startswith(prefix)] if selector else []
        if found:
            return found
        return [self.find(selector)]

    def unknown(self, name: str) -> OnnxlintError:
        """The error for a name that no rule has, with the nearest one that exists."""
        prefixes = {code[:3] for code in self.rules}
        hint = did_you_mean(name, (*self._names, *prefixes, "ALL")) or ";"
        return OnnxlintError(f"no rule is called {printable(name)!r}{hint} 'onnxlint rules' lists them")


def _incomplete(rule: type[Rule]) -> str:
    if not _CODE.fullmatch(getattr(rule, "code", "")):
        return "has no code of three letters and three digits, like ABC001"
    if not _NAME.fullmatch(getattr(rule, "name", "")):
        return f"({rule.code}) has no name in kebab-case, like resize-by-sizes"
    if not rule.examples:
        return f"({rule.code}) has no examples; give it at least one Example(bad=…)"
    if sys.flags.optimize < 2:
        document = rule.__doc__ or ""
        missing = [title for title in SECTIONS if f"## {title}" not in document]
        if missing:
            return f"({rule.code}) lacks these sections in its docstring: {', '.join(missing)}"
    return ""


@cache
def load_registry(rule_paths: tuple[str, ...] = ()) -> Registry:
    """Rules of every installed package, and of the given files and folders.

    Raises:
        OnnxlintError: A package or file cannot be imported, or holds an incomplete rule.
    """
    rules: dict[type[Rule], None] = {}
    for point in entry_points(ENTRY_POINTS):
        try:
            with no_exit():
                loaded = point.load()
                found = rules_in(loaded) if isinstance(loaded, ModuleType) else [loaded]
        except Exception as error:
            raise OnnxlintError(
                f"the rules of entry point {point.name!r} ({point.value}) cannot be loaded: {_short(error)}"
            ) from error
        rules.update(dict.fromkeys(found))
    for path in rule_paths:
        rules.update(dict.fromkeys(rules_at(Path(path))))
    return Registry(rules)


def rules_in(module: ModuleType) -> list[type[Rule]]:
    """Rule classes that a module defines and, for a package, those of its modules and packages (without a leading `_`)."""
    found = _defined_in(module)
    if hasattr(module, "__path__"):
        names = [info.name for info in pkgutil.iter_modules(module.__path__) if info.name[0] != "_"]
        for name in names:
            found += rules_in(importlib.import_module(f"{module.__name__}.{name}"))
    return found


def rules_at(path: Path) -> list[type[Rule]]:
    """Rule classes of a Python file, or of every file in a folder.

    Raises:
        OnnxlintError: There is no such path, no rule in it, or it cannot be imported.
    """
    if not os.path.exists(path):
        raise OnnxlintError(f"{path}: no such file or folder of rules; check rule-paths")
    files = sorted(f for f in path.rglob("*.py") if not f.name.startswith("_")) if path.is_dir() else [path]
    found: list[type[Rule]] = []
    for file in files:
        name = "onnxlint_local_rules." + re.sub(r"\W", "_", str(file.resolve().with_suffix("")))
        module = sys.modules.get(name)
        if module is None:
            spec = importlib.util.spec_from_file_location(name, file)
            if spec is None or spec.loader is None:
                raise OnnxlintError(f"{file}: not a Python file; rules are written in .py files")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                with no_exit():
                    spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[name]
                raise OnnxlintError(f"{file}: cannot be imported: {_short(error)}") from error
        found += _defined_in(module)
    if not found:
        raise OnnxlintError(f"{path}: holds no rule (a subclass of onnxlint.Rule)")
    return found


def _defined_in(module: ModuleType) -> list[type[Rule]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__  # before issubclass: Python 3.10 takes list[int] for a type here
        and issubclass(value, Rule)
        and not inspect.isabstract(value)
    ]


def _short(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
