"""A whole check: paths, configurations, rules, baselines; what `onnxlint check` and `onnxlint.check` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxlint.errors import OnnxlintError
from onnxlint.lint import baseline as baselines
from onnxlint.lint.baseline import Baseline
from onnxlint.lint.configuration import Config, Configs
from onnxlint.lint.engine import Plan, check_files, usable_cores
from onnxlint.lint.files import find_models
from onnxlint.lint.finding import CheckResult, FileError, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Rule
from onnxlint.lint.selection import Selection, check_selectors, ignored_rules, select
from onnxlint.text import counted, printable

FILES_PER_WORKER = 8
"""Starting a worker costs as much CPU as checking about this many models of ordinary size."""


@dataclass(frozen=True)
class Run:
    """What came out of a check.

    Attributes:
        results: One for each model, known findings left out, in the order in which the models were named.
        rules: Those that ran on any of the models.
        notes: What the user should know beside the findings; one line each.
        failing: Whether a finding reaches the `fail-on` of its model.
    """

    results: tuple[CheckResult, ...]
    rules: tuple[type[Rule], ...]
    notes: tuple[str, ...]
    failing: bool

    @property
    def exit_code(self) -> int:
        """2 where something could not be checked, else 1 for failing findings, else 0."""
        return 2 if any(result.error for result in self.results) else int(self.failing)


class Plans:
    """Makes the plan of each model, and remembers what models share.

    Args:
        configs: Where the configuration of each model comes from.
        neighbourhoods: Whether findings get what is around them in the graph, for reports that draw it.
        fixes: Whether they also get what their fix makes of that.
    """

    def __init__(self, configs: Configs, neighbourhoods: bool = False, fixes: bool = False) -> None:
        self.configs = configs
        self.neighbourhoods = neighbourhoods
        self.fixes = fixes
        self._selections: dict[Config, Selection] = {}
        self._plans: dict[tuple[Config, frozenset[str]], Plan] = {}

    def selection(self, config: Config) -> Selection:
        """The rules that a configuration selects.

        Raises:
            OnnxlintError: The configuration names unknown rules or targets, or leaves no rule.
        """
        known = self._selections.get(config)
        if known is None:
            registry = load_registry(config.rule_paths)
            try:
                check_selectors(registry, config)
                known = self._selections[config] = select(registry, config)
            except OnnxlintError as error:
                raise OnnxlintError("; ".join(filter(None, (str(error), config.withheld_note)))) from None
        return known

    def of(self, model: str) -> Plan:
        """The plan of a model, its `per-file-ignores` left out."""
        config = self.configs.of(model)
        selection = self.selection(config)
        ignored = ignored_rules(load_registry(config.rule_paths), config, model)
        key = (config, frozenset(rule.code for rule in ignored))
        if key not in self._plans:
            self._plans[key] = Plan(
                selection.without(ignored),
                selection.options,
                selection.severities,
                config.rule_paths,
                self.neighbourhoods,
                self.fixes,
                config.ignorable,
            )
        return self._plans[key]

    @property
    def notes(self) -> Iterator[str]:
        """Notes of the selections made so far, each once."""
        withheld = [config.withheld_note for config in self._selections if config.withheld_note]
        chosen = [note for selection in self._selections.values() for note in selection.notes]
        yield from dict.fromkeys([*withheld, *chosen])


def check_paths(
    paths: Sequence[str],
    configs: Configs,
    *,
    force_exclude: bool = False,
    write_baseline: str | None = None,
    neighbourhoods: bool = False,
    fixes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Check all models that `paths` name.

    Args:
        paths: Files, folders, globs, `-`.
        configs: Where the configuration of each model comes from.
        force_exclude: Whether `exclude` holds for files that are named themselves too.
        write_baseline: A file to write all findings to, as known from now on; empty for the configured file. None
            writes nothing.
        neighbourhoods: See `Plans`.
        fixes: See `Plans`.
        progress: Called with (models done, models in all) after each model.

    Raises:
        OnnxlintError: A configuration or a baseline is wrong.
    """
    plans = Plans(configs, neighbourhoods, fixes)
    skipped: list[str] = []
    found = list(find_models(paths, lambda path: configs.of(path).excludes(path), force_exclude, skipped.append))
    jobs = [(path, plans.of(path)) for path in found if isinstance(path, str)]
    if not jobs:
        plans.selection(configs.of_folder("."))  # a wrong --select is an error even where there is nothing to check
    ledger = Ledger(configs, write_baseline)
    for path, _ in jobs:
        ledger.open(path)
    ran = dict.fromkeys(rule for _, plan in jobs for rule in plan.rules)
    checked = check_files(jobs, _workers(configs, len(jobs)))
    codes = {path: frozenset(rule.code for rule in plan.rules) for path, plan in jobs}
    results: list[CheckResult] = []
    for item in found:
        if isinstance(item, FileError):
            results.append(CheckResult(item.model, error=item))
        else:
            result = next(checked)
            ledger.add(result, codes[item])
            results.append(result)
        if progress is not None:
            progress(len(results), len(found))
    ledger.close()
    shown = tuple(ledger.without_known(result) for result in results)
    failing = any(_reaches(fail_level(configs.of(result.model)), result) for result in shown)
    return Run(shown, tuple(ran), (*skipped, *plans.notes, *ledger.notes), failing)


class Ledger:
    """The baselines of a run: their models, their entries, and the entries to write."""

    def __init__(self, configs: Configs, write: str | None = None) -> None:
        self._configs = configs
        self._write = write
        self._baselines: dict[str, Baseline] = {}
        self._added: dict[str, list[tuple[CheckResult, frozenset[str]]]] = {}
        self.notes: list[str] = []

    def open(self, model: str) -> None:
        """Read the baseline of a model before anything is checked, so that an error in it costs nothing."""
        path = self._path(model)
        if path and path not in self._baselines:
            self._baselines[path] = baselines.load(path) if self._write is None else baselines.open_or_new(path)

    def add(self, result: CheckResult, codes: frozenset[str]) -> None:
        """Take note of a model's findings; `codes` are the rules that ran."""
        path = self._path(result.model)
        if path:
            self._added.setdefault(path, []).append((result, codes))

    def close(self) -> None:
        """Write the baselines if requested; else note which of their entries are out of date.

        Raises:
            OnnxlintError: One cannot be written.
        """
        for path, added in self._added.items():
            shown = printable(path)
            if self._write is not None:
                self._baselines[path] = self._baselines[path].updated(added)
                baselines.save(self._baselines[path])
                self.notes.append(f"{shown} now holds {counted(self._baselines[path].total, 'known finding')}")
                continue
            gone = sum(self._baselines[path].stale(result, codes) for result, codes in added)
            if gone:
                self.notes.append(f"{counted(gone, 'finding')} of {shown} no longer there; --write-baseline updates it")

    def without_known(self, result: CheckResult) -> CheckResult:
        """A result without its known findings."""
        path = self._path(result.model)
        return self._baselines[path].apply(result) if path in self._baselines else result

    def _path(self, model: str) -> str:
        if self._write:
            return self._write
        configured = self._configs.of(model).baseline or ""
        return configured or ("" if self._write is None else baselines.DEFAULT_NAME)


def describe(configs: Configs, path: str) -> str:
    """What `onnxlint config` prints: the settings that hold for a model or a folder, and the rules that run.

    Raises:
        OnnxlintError: The configuration is wrong.
    """
    import os

    if os.path.isdir(path):
        path = os.path.join(path, "model.onnx")  # stands for any model in it
    config = configs.of(path)
    plans = Plans(configs)
    selection = plans.selection(config)
    rules = plans.of(path).rules
    lines = {
        "configuration": config.file.path or "none",
        "targets": ", ".join(config.targets) or "none",
        "min-opset": config.min_opset,
        "weights": "read" if selection.options.weights else "not read",
        "fail-on": config.fail_on,
        "format": config.format,
        "baseline": config.baseline or "none",
        "exclude": ", ".join(config.file.exclude) or "nothing",
        "severity": ", ".join(f"{code}={level.value}" for code, level in selection.severities) or "the rules' own",
        "in-model-ignores": ", ".join(severity.value for severity in config.ignorable) or "nothing",
        "rule-paths": ", ".join(config.rule_paths) or "none",
        "rule-paths not loaded": ", ".join(config.file.withheld),
        f"rules ({len(rules)})": " ".join(rule.code for rule in rules),
    }
    return "".join(f"{key}: {printable(str(value))}\n" for key, value in lines.items() if value != "")


def fail_level(config: Config) -> Severity | None:
    """Lowest severity of findings that make the check fail; None if none does."""
    return None if config.fail_on == "never" else Severity(config.fail_on)


def _workers(configs: Configs, models: int) -> int:
    jobs = configs.of_folder(".").jobs
    return jobs or max(1, min(usable_cores(), models // FILES_PER_WORKER))


def _reaches(least: Severity | None, result: CheckResult) -> bool:
    return least is not None and any(finding.severity.rank >= least.rank for finding in result.findings)
