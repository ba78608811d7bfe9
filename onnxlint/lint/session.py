"""A whole check: paths, configurations, rules, baselines; what `onnxlint check` and `onnxlint.check` share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.lint import baseline as baselines
from onnxlint.lint.baseline import Baseline
from onnxlint.lint.configuration import Config, Configs
from onnxlint.lint.engine import Plan
from onnxlint.lint.engines import make_engine
from onnxlint.lint.files import STDIN, find_models
from onnxlint.lint.finding import CheckResult, FileError, Severity
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Rule
from onnxlint.lint.selection import Selection, check_selectors, ignored_rules, select
from onnxlint.lint.workers import Job
from onnxlint.model.limits import usable_cores
from onnxlint.store.urls import without_secrets
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.lint.cache import Known, ResultCache

FILES_PER_WORKER = 8
"""Starting a worker costs as much CPU as checking about this many models of ordinary size."""


class Run(NamedTuple):
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
        cached: Whether results are kept (`Plan.cached`).
    """

    def __init__(
        self, configs: Configs, neighbourhoods: bool = False, fixes: bool = False, cached: bool = False
    ) -> None:
        self.configs = configs
        self.cached = cached
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
                self.cached,
            )
        return self._plans[key]

    @property
    def notes(self) -> Iterator[str]:
        """Notes of the selections made so far, each once."""
        withheld = [config.withheld_note for config in self._selections if config.withheld_note]
        chosen = [note for selection in self._selections.values() for note in selection.notes]
        yield from dict.fromkeys([*withheld, *chosen])


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How models are checked; it does not change the results.

    Attributes:
        engine: `local` (processes of this machine), or `ray`, with the address of a cluster or without.
        cache: Folder of results of earlier runs; empty: none.
    """

    engine: str = "local"
    cache: str = ""


class Check:
    """A check of all models that paths name, whose results come one by one.

    Args:
        paths: Files, folders, globs, addresses of remote files, `-`.
        configs: Where the configuration of each model comes from.
        force_exclude: Whether `exclude` holds for files that are named themselves too.
        write_baseline: A file to write all findings to, as known from now on; empty for the configured file. None
            writes nothing.
        neighbourhoods: See `Plans`.
        fixes: See `Plans`.
        execution: Where models are checked, and what is remembered.

    Attributes:
        rules: Those that run on any of the models.
        total: Number of results that will come.
        failing: Whether a finding of the results so far reaches the `fail-on` of its model.
        failed: Whether a model could not be checked so far.

    Raises:
        OnnxlintError: A configuration or a baseline is wrong.
    """

    def __init__(
        self,
        paths: Sequence[str],
        configs: Configs,
        *,
        force_exclude: bool = False,
        write_baseline: str | None = None,
        neighbourhoods: bool = False,
        fixes: bool = False,
        execution: Execution | None = None,
    ) -> None:
        self._configs = configs
        self._execution = execution or Execution()
        # Drawings are not kept: they are large, and made for reports that people look at.
        kept = bool(self._execution.cache) and not neighbourhoods
        self._plans = Plans(configs, neighbourhoods, fixes, kept)
        self._skipped: list[str] = []
        self._identities: dict[str, str] = {}
        self._noted: dict[str, None] = {}
        excluded = lambda path: configs.of(path).excludes(path)  # noqa: E731
        self._found = list(find_models(paths, excluded, force_exclude, self._skipped.append, self._identities))
        models = [path for path in self._found if isinstance(path, str)]
        if not models:
            # A wrong --select is an error even where there is nothing to check.
            self._plans.selection(configs.of_folder("."))
        self._write_baseline = write_baseline
        self._ledger = Ledger(configs, write_baseline)
        rules: dict[type[Rule], None] = {}
        for path in models:
            self._ledger.open(without_secrets(path))
            rules.update(dict.fromkeys(self._plans.of(path).rules))
        self._models = len(models)
        self._cache = _cache(self._execution.cache) if kept and models else None
        self.rules = tuple(rules)
        self.total = len(self._found)
        self.failing = False
        self.failed = False

    def results(self) -> Iterator[CheckResult]:
        """Results in the order in which the models are named, known findings left out.

        They come as models are checked; where a baseline is written, after all of them, since it holds all of their
        findings.

        Raises:
            OnnxlintError: A baseline cannot be written, or the engine cannot be used.
        """
        if self._write_baseline is None:
            yield from map(self._shown, self._checked())
            self._ledger.close()
            return
        all_of_them = list(self._checked())
        self._ledger.close()
        yield from map(self._shown, all_of_them)

    def _shown(self, result: CheckResult) -> CheckResult:
        shown = self._ledger.without_known(result)
        self.failing |= _reaches(fail_level(self._configs.of(result.model)), shown)
        self.failed |= result.error is not None
        return shown

    def _checked(self) -> Iterator[CheckResult]:
        known: deque[Known | None] = deque()
        engine = make_engine(self._execution.engine, _workers(self._configs, self._models), "-" in self._found)
        try:
            for item, result in zip(self._found, engine.check(self._jobs(known)), strict=True):
                entry = known.popleft()
                if entry is not None and self._cache is not None:
                    self._cache.put(entry, result)
                self._noted.update(dict.fromkeys(result.notes))
                if isinstance(item, str):
                    self._ledger.add(result, frozenset(rule.code for rule in self._plans.of(item).rules))
                yield result
        finally:
            if self._cache is not None:
                self._cache.close()

    def _jobs(self, known: deque[Known | None]) -> Iterator[Job]:
        """What to check; what is known already comes as it is. `known` gets what to keep each result under."""
        for item in self._found:
            entry: Known | None = None
            if isinstance(item, FileError):
                known.append(None)
                yield CheckResult(item.model, error=item)
                continue
            plan = self._plans.of(item)
            if self._cache is not None and item != STDIN:
                entry = self._cache.find(item, plan, self._identities.get(item))
                result = self._cache.get(entry) if entry is not None else None
                if result is not None:
                    known.append(None)
                    yield result
                    continue
            known.append(entry)
            yield item, plan

    def run(self, progress: Callable[[int, int], None] | None = None) -> Run:
        """All results.

        Args:
            progress: Called with (models done, models in all) after each model.

        Raises:
            OnnxlintError: See `results`.
        """
        results: list[CheckResult] = []
        for result in self.results():
            results.append(result)
            if progress is not None:
                progress(len(results), self.total)
        return Run(tuple(results), self.rules, self.notes, self.failing)

    @property
    def exit_code(self) -> int:
        """2 where something could not be checked so far, else 1 for failing findings, else 0."""
        return 2 if self.failed else int(self.failing)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know beside the findings; one line each."""
        reused = self._cache.hits if self._cache is not None else 0
        cached = [f"{counted(reused, 'result')} of {self._models:,} from the cache"] if reused else []
        return (*self._skipped, *self._noted, *self._plans.notes, *self._ledger.notes, *cached)


def _cache(folder: str) -> ResultCache:
    from onnxlint.graph.source import Sources
    from onnxlint.lint.cache import ResultCache

    return ResultCache(folder, Sources().root)


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
