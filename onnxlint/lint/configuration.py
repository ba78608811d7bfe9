"""What the user asked for: `[tool.onnxlint]` in pyproject.toml, onnxlint.toml, and the command line on top.

The configuration of a model is the nearest one upwards from its folder; there is no merging of several. Every problem
in it is an error that names the file and the key: a misspelt key must not leave a rule silently off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from onnxlint.errors import OnnxlintError
from onnxlint.lint.files import STDIN
from onnxlint.lint.finding import Severity
from onnxlint.lint.formats import FORMATS, unknown_format
from onnxlint.lint.globs import LONGEST, matches_any
from onnxlint.model.reading import read_small
from onnxlint.store.urls import is_remote
from onnxlint.text import choices, did_you_mean, printable

FAIL_ON = ("error", "warning", "info", "never")
MIN_OPSET = 11
IN_MODEL_IGNORES = {
    "nothing": (),
    "warnings": (Severity.WARNING, Severity.INFO),
    "errors": (Severity.ERROR, Severity.WARNING, Severity.INFO),
}
"""Value of `in-model-ignores` → severities that `onnxlint.ignore` in a model may keep silent; never those of SEC rules."""

RECIPE = ("images", "preset", "shape", "mean", "norm", "pixel", "resize", "method", "task", "labels")
"""What `[recipe]` can say: options of convert, compare and deploy."""

MOST = 1 << 18
"""Bytes that a configuration file can have."""

MAX_DEPTH = 32
"""Tables and lists that can lie in each other in it, and parts that a dotted key can have."""

FILE_NAMES = ("onnxlint.toml", "pyproject.toml")
"""Where a configuration can be, the first of a folder first."""


@dataclass(frozen=True)
class Settings:
    """Settings of one source, a configuration file or the command line; None (or empty) if unset.

    Attributes:
        select: Selectors of the rules to run: codes, prefixes, names, aliases, `ALL`.
        extend_select: More rules, besides those selected otherwise.
        ignore: Selectors of rules that do not run.
        targets: Backends that the model is meant for.
        min_opset: Oldest operator set that is accepted.
        fail_on: One of `FAIL_ON`.
        severity: (selector, severity) pairs.
        per_file_ignores: (glob, selectors) pairs.
        rule_paths: Files and folders with rules, absolute.
        withheld: Rule paths not loaded, because the configuration lies with a model (see `Configs`).
        in_model_ignores: What `onnxlint.ignore` in a model may keep silent: one of `IN_MODEL_IGNORES`.
        exclude: Globs of models that are not checked.
        baseline: Path of the baseline file.
        weights: Whether rules may read weights.
        jobs: Worker processes; 0 lets onnxlint decide.
        format: Of the report.
        recipe: (option, value) pairs of `[recipe]`: how images become the input, in the command line's words.
        detection: `[detection]`, as JSON: the decoder of `--task detection`.
        path: The configuration file, as shown to the user; empty for the command line.
        root: The folder that globs are relative to.
    """

    select: tuple[str, ...] | None = None
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    targets: tuple[str, ...] | None = None
    min_opset: int | None = None
    fail_on: str | None = None
    severity: tuple[tuple[str, Severity], ...] = ()
    per_file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rule_paths: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    in_model_ignores: str | None = None
    exclude: tuple[str, ...] = ()
    baseline: str | None = None
    weights: bool | None = None
    jobs: int | None = None
    format: str | None = None
    recipe: tuple[tuple[str, str], ...] = ()
    detection: str = ""
    path: str = ""
    root: str = "."

    def name(self, key: str) -> str:
        """A key as the user wrote it, for messages: `--min-opset` or `pyproject.toml: min-opset`."""
        return f"{self.path}: {key}" if self.path else f"--{key}"


@dataclass(frozen=True)
class Config:
    """The settings that hold for a model: a file's (if there is one) and the command line's, which comes on top.

    Attributes:
        file: Settings of the configuration file.
        command: Settings of the command line.
        never_trusted: Whether code is loaded from no configuration at all.
    """

    file: Settings
    command: Settings
    never_trusted: bool = False

    @property
    def layers(self) -> tuple[Settings, Settings]:
        """The file's settings, then the command line's."""
        return self.file, self.command

    @property
    def targets(self) -> tuple[str, ...]:
        """Runtimes that models are for; the command line's before the file's, as for all options below."""
        return _first(self.command.targets, self.file.targets, ())

    @property
    def min_opset(self) -> int:
        """Oldest operator set to accept."""
        return _first(self.command.min_opset, self.file.min_opset, MIN_OPSET)

    @property
    def fail_on(self) -> str:
        """Lowest severity that fails, or `never`."""
        return _first(self.command.fail_on, self.file.fail_on, "warning")

    @property
    def weights(self) -> bool | None:
        """Whether rules may read weights; None if unset."""
        return _first(self.command.weights, self.file.weights, None)

    @property
    def baseline(self) -> str | None:
        """Path of the baseline; None without one."""
        return _first(self.command.baseline, self.file.baseline, None)

    @property
    def jobs(self) -> int:
        """Worker processes; 0: automatic."""
        return _first(self.command.jobs, self.file.jobs, 0)

    @property
    def format(self) -> str:
        """Name of the report's format."""
        return _first(self.command.format, self.file.format, "text")

    @property
    def rule_paths(self) -> tuple[str, ...]:
        """Files and folders with rules of one's own."""
        return self.file.rule_paths + self.command.rule_paths

    @property
    def ignorable(self) -> tuple[Severity, ...]:
        """Severities of findings that a model's own metadata may keep silent."""
        return IN_MODEL_IGNORES[_first(self.command.in_model_ignores, self.file.in_model_ignores, "warnings")]

    @property
    def withheld_note(self) -> str:
        """One line about rules that are not loaded, and how to load them; empty if there are none."""
        if not self.file.withheld:
            return ""
        if self.never_trusted:
            why = "no code of a configuration is trusted here; --trust-config runs it"
            return f"{self.file.path}: rule-paths not loaded: {why}"
        return (
            f"{self.file.path}: rule-paths not loaded: their code would run, and this configuration was found beside a "
            f"model, not upwards from the working directory; use --config {self.file.path} or --trust-config to run it"
        )

    @property
    def recipe(self) -> dict[str, str]:
        """Option → value of `[recipe]`."""
        return dict(self.file.recipe)

    @property
    def detection(self) -> dict[str, Any]:
        """The table `[detection]`."""
        import json

        table: dict[str, Any] = json.loads(self.file.detection or "{}")
        return table

    def excludes(self, path: str) -> bool:
        """Whether the configuration leaves a model out."""
        return path != STDIN and matches_any(self.file.exclude, path, self.file.root)

    def ignored_in(self, path: str) -> tuple[str, ...]:
        """Selectors of `per-file-ignores` for a model."""
        return tuple(
            selector
            for pattern, selectors in self.file.per_file_ignores
            if matches_any((pattern,), path, self.file.root)
            for selector in selectors
        )


T = TypeVar("T")


def _first(first: T | None, second: T | None, default: T) -> T:
    return first if first is not None else second if second is not None else default


class Configs:
    """Finds the configuration of each model.

    `rule-paths` are code. They hold where the user named the configuration, or where it lies in the working directory or
    above it, as pytest and mypy find theirs. A configuration that lies with a model elsewhere may have come with it: its
    `rule-paths` are withheld.

    Args:
        command: Settings of the command line.
        path: One file that holds for every model, in place of the nearest (`--config`).
        isolated: Whether files are left unread (`--isolated`).
        trust_config: Whether `rule-paths` hold in every configuration (`--trust-config`). False: in none, not even in that
            of the working directory, for programs that check other people's folders. None: as above.

    Raises:
        OnnxlintError: `path` cannot be read, or the command line asks for something that does not exist.
    """

    def __init__(
        self, command: Settings, path: str | None = None, isolated: bool = False, trust_config: bool | None = None
    ) -> None:
        if command.format is not None and command.format not in FORMATS:
            raise unknown_format(command.format)
        if command.fail_on is not None and command.fail_on not in FAIL_ON:
            hint = did_you_mean(command.fail_on, FAIL_ON, choices(FAIL_ON))
            raise OnnxlintError(f"--fail-on: {printable(command.fail_on)!r} is not a level{hint}")
        self._command = command
        self._trust = trust_config
        self._fixed: Config | None = None
        if isolated:
            self._fixed = Config(Settings(), command)
        elif path is not None:
            self._fixed = Config(_withheld(read(path), trust_config is not False), command, trust_config is False)
        self._by_folder: dict[str, Config] = {}
        self._by_path: dict[str | None, Config] = {None: Config(Settings(), command)}

    def of(self, model: str) -> Config:
        """The configuration of a model; of the working directory for `-` and for remote models.

        Raises:
            OnnxlintError: The configuration file is wrong.
        """
        is_here = model == STDIN or is_remote(model)
        return self.of_folder("." if is_here else os.path.dirname(model) or ".")

    def of_folder(self, folder: str) -> Config:
        """The configuration that holds for models in a folder."""
        if self._fixed is not None:
            return self._fixed
        known = self._by_folder.get(folder)
        if known is None:
            path = find(folder)
            if path is not None and path not in self._by_path:
                trusted = _is_own(path) if self._trust is None else self._trust
                self._by_path[path] = Config(_withheld(read(path), trusted), self._command, self._trust is False)
            known = self._by_folder[folder] = self._by_path[path]
        return known


def _withheld(settings: Settings, trusted: bool) -> Settings:
    """Settings whose rules are loaded only where their configuration is trusted."""
    if trusted or not settings.rule_paths:
        return settings
    return replace(settings, rule_paths=(), withheld=settings.rule_paths)


def _is_own(path: str) -> bool:
    """Whether a configuration lies in the working directory or above it, where only the user puts one."""
    folder = os.path.realpath(os.path.dirname(path))
    here = os.path.realpath(os.getcwd())
    if os.path.join(here, "").startswith(os.path.join(folder, "")):
        # In a folder such as /tmp, anybody could have put it there.
        status, home = os.stat(path), os.stat(folder)
        shared = bool(home.st_mode & 0o002)
        return not shared or not hasattr(os, "geteuid") or status.st_uid in (0, os.geteuid())
    return False


def find(folder: str) -> str | None:
    """The nearest configuration file from `folder` upwards, not beyond the repository that it is in.

    A pyproject.toml without `[tool.onnxlint]` is passed over.
    """
    here = os.path.abspath(folder)
    while True:
        for name in FILE_NAMES:
            path = os.path.join(here, name)
            if os.path.isfile(path) and (name != "pyproject.toml" or _mentions_us(path)):
                return path
        parent = os.path.dirname(here)
        if parent == here or os.path.exists(os.path.join(here, ".git")):
            return None
        here = parent


def _mentions_us(path: str) -> bool:
    # Most pyproject.toml do not: then neither the TOML parser is imported, nor an error in it our business.
    try:
        if b"onnxlint" not in read_small(path, MOST):
            return False
    except OSError:
        return False
    return isinstance(_tool_table(path), dict)


def _tool_table(path: str) -> Any:
    tool = _parse(path).get("tool")
    return tool.get("onnxlint") if isinstance(tool, dict) else None


def read(path: str) -> Settings:
    """Read a configuration file: the table `[tool.onnxlint]` of a pyproject.toml, all of any other TOML file.

    Raises:
        OnnxlintError: It cannot be read, is not TOML, or has an unknown key or a value of the wrong type.
    """
    shown = _shown(path)
    if os.path.basename(path) == "pyproject.toml":
        table = _tool_table(path)
        if table is None:
            raise OnnxlintError(f"{shown}: has no table [tool.onnxlint]; add it, or leave --config out")
    else:
        table = _parse(path)
        if "tool" in table and "tool" not in _KEYS:
            raise OnnxlintError(f"{shown}: [tool.onnxlint] is for pyproject.toml; here the keys stand at the top level")
    root = os.path.dirname(path) or "."
    values: dict[str, Any] = {"path": shown, "root": root}
    for key, value in table.items():
        if key not in _KEYS:
            raise OnnxlintError(f"{shown}: unknown key {printable(key)!r}{did_you_mean(key, _KEYS, choices(_KEYS))}")
        wanted, convert = _KEYS[key]
        converted = convert(value, root)
        if converted is None:
            raise OnnxlintError(f"{shown}: {key} must be {wanted}")
        values[key.replace("-", "_")] = converted
    return Settings(**values)


def _shown(path: str) -> str:
    """A path in its shortest form: relative if it is below the working directory."""
    relative = os.path.relpath(path) if os.path.splitdrive(path)[0] == os.path.splitdrive(os.getcwd())[0] else path
    return printable(path if relative.startswith("..") else relative)


def _parse(path: str) -> Mapping[str, Any]:
    import importlib

    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    shown = _shown(path)
    try:
        text = read_small(path, MOST).decode()
        if (text.count("[") + text.count("{") > MAX_DEPTH or text.count(".") > MAX_DEPTH) and _depth(text) > MAX_DEPTH:
            raise OnnxlintError(f"{shown}: not valid TOML: nested more than {MAX_DEPTH} deep")
        parsed: Mapping[str, Any] = tomllib.loads(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise OnnxlintError(f"{shown}: not valid TOML: byte {error.start} is not UTF-8") from None
    except ValueError as error:  # the parser's own, and that of a number of thousands of digits
        raise OnnxlintError(f"{shown}: not valid TOML: {printable(' '.join(str(error).split()))[:300]}") from None
    except RecursionError:
        raise OnnxlintError(f"{shown}: not valid TOML: nested too deeply") from None
    except FileNotFoundError:
        raise OnnxlintError(f"{shown}: no such configuration file; check --config") from None
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be read: {error.strerror or error}; check its permissions") from None
    return parsed


def _depth(text: str) -> int:
    """How deep brackets lie in each other at most, or how many parts a dotted key has, whichever is more.

    The parser recurses into brackets, and takes quadratic time for dotted keys.
    """
    depth = most = parts = 0
    quote = ""
    skipped = -1
    for i, character in enumerate(text):
        if i < skipped:
            continue
        if quote:
            if character == "\\" and quote[0] == '"':
                skipped = i + 2
            elif text.startswith(quote, i):
                skipped = i + len(quote)
                quote = ""
        elif character in "\"'":
            quote = character * 3 if text.startswith(character * 3, i) else character
            skipped = i + len(quote)
        elif character == "#":
            end = text.find("\n", i)
            skipped = end if end >= 0 else len(text)
        elif character in "[{":
            depth += 1
            parts = 0
        elif character in "]}":
            depth -= 1
        elif character in "=\n,":
            parts = 0
        elif character == ".":
            parts += 1
        most = max(most, depth, parts)
    return most


# Values of keys: each function gives None for what is of the wrong type.

_Convert = Callable[[Any, str], Any]


def _strings(value: Any, root: str) -> tuple[str, ...] | None:
    good = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return tuple(value) if good else None


def _globs(value: Any, root: str) -> tuple[str, ...] | None:
    globs = _strings(value, root)
    return globs if globs is None or all(len(glob) <= LONGEST for glob in globs) else None


def _paths(value: Any, root: str) -> tuple[str, ...] | None:
    names = _strings(value, root)
    return None if names is None else tuple(os.path.abspath(os.path.join(root, name)) for name in names)


def _path(value: Any, root: str) -> str | None:
    return os.path.join(root, value) if isinstance(value, str) and value else None


def _whole(least: int, most: int) -> _Convert:
    def convert(value: Any, root: str) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None

    return convert


def _boolean(value: Any, root: str) -> bool | None:
    return value if isinstance(value, bool) else None


def _one_of(*choices: str) -> _Convert:
    def convert(value: Any, root: str) -> str | None:
        return value if value in choices else None

    return convert


def _severities(value: Any, root: str) -> tuple[tuple[str, Severity], ...] | None:
    names = {severity.value: severity for severity in Severity}
    if not isinstance(value, dict) or not all(level in names for level in value.values() if isinstance(level, str)):
        return None
    if not all(isinstance(level, str) for level in value.values()):
        return None
    return tuple((selector, names[level]) for selector, level in value.items())


def _ignores(value: Any, root: str) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    if not isinstance(value, dict):
        return None
    lists = {pattern: _strings(selectors, root) for pattern, selectors in value.items() if len(pattern) <= LONGEST}
    if len(lists) < len(value):
        return None
    return tuple((p, s) for p, s in lists.items() if s is not None) if None not in lists.values() else None


def _words(value: Any, root: str) -> tuple[tuple[str, str], ...] | None:
    if not isinstance(value, dict) or not set(value) <= set(RECIPE):
        return None
    words = []
    for key, one in value.items():
        parts = one if isinstance(one, list) else [one]
        if not parts or not all(isinstance(part, (str, int, float)) for part in parts):
            return None
        text = ",".join(map(str, parts))
        words.append((key, os.path.join(root, text) if key in ("images", "labels") else text))
    return tuple(words)


def _json(value: Any, root: str) -> str | None:
    import json

    try:
        return json.dumps(value) if isinstance(value, dict) else None
    except TypeError:  # dates
        return None


_SELECTORS = 'a list of rules, like ["SHP", "OUT001"]'
_KEYS: dict[str, tuple[str, _Convert]] = {
    "select": (_SELECTORS, _strings),
    "extend-select": (_SELECTORS, _strings),
    "ignore": (_SELECTORS, _strings),
    "targets": ('a list of targets, like ["ncnn"]', _strings),
    "min-opset": ("a whole number from 1 to 1000, like 13", _whole(1, 1000)),
    "fail-on": (f"one of {', '.join(FAIL_ON)}", _one_of(*FAIL_ON)),
    "severity": ('a table of error, warning or info, like {SHP001 = "error"}', _severities),
    "per-file-ignores": ('a table of lists of rules, like {"old/*.onnx" = ["OPS001"]}', _ignores),
    "rule-paths": ('a list of files and folders, like ["tools/rules"]', _paths),
    "in-model-ignores": (f"one of {', '.join(IN_MODEL_IGNORES)}", _one_of(*IN_MODEL_IGNORES)),
    "exclude": ('a list of globs, like ["old/**"]', _globs),
    "baseline": ('the path of a baseline file, like "onnxlint-baseline.json"', _path),
    "weights": ("true or false", _boolean),
    "jobs": ("a whole number from 0 to 1000 (0: automatic)", _whole(0, 1000)),
    "format": (f"one of {', '.join(FORMATS)}", _one_of(*FORMATS)),
    "recipe": (f"a table of {', '.join(RECIPE)}", _words),
    "detection": ("a table", _json),
}


def parse_severities(pairs: Iterable[str]) -> tuple[tuple[str, Severity], ...]:
    """Read `CODE=error` pairs of the command line.

    Raises:
        OnnxlintError: One is not of that form.
    """
    found = []
    for pair in pairs:
        selector, _, level = pair.partition("=")
        if level not in [severity.value for severity in Severity] or not selector:
            raise OnnxlintError(
                f"--severity: {printable(pair)!r} is not of the form CODE=error, CODE=warning or CODE=info"
            )
        found.append((selector, Severity(level)))
    return tuple(found)
